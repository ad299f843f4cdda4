"""iALS's network: item factors, and a user solved for (Hu et al., ICDM 2008)."""

import numpy as np
import torch
from scipy.sparse import csr_array, csr_matrix
from torch import Tensor

from coterie.errors import NumericalError
from coterie.extras import require
from coterie.networks.network import Network
from coterie.sparse import SparseRows

# Numbers in the systems of equations that are solved at once, 256 MiB in float32.
_NUMBERS_AT_ONCE = 2**26


class Ials(Network):
    """Scores ⟨user, item⟩; the user is solved for, exactly, from any history, in training or not.

    Args:
        n_items: Size of the catalogue.
        factors: The dimension of users and items.
        regularization: λ of ‖user‖² and ‖item‖².
        alpha: Weight of an interaction's error; all other entries' errors weigh 1.

    Example:
        >>> train = csr_array([[1, 1, 0], [1, 1, 0], [0, 0, 1]])
        >>> model = Ials(3, factors=2, regularization=0.1, alpha=10).fit(train, iterations=15)
        >>> scores = model.score(SparseRows.from_csr(csr_array([[1, 0, 0]])))
        >>> bool(scores[0, 1] > scores[0, 2])
        True
    """

    factors: Tensor
    gram: Tensor

    def __init__(self, n_items: int, factors: int, regularization: float, alpha: float) -> None:
        super().__init__()
        self.n_items, self.regularization, self.alpha = n_items, regularization, alpha
        self.register_buffer("factors", torch.zeros(n_items, factors))
        self.register_buffer("gram", torch.eye(factors))

    def fit(self, train: csr_array, iterations: int, seed: int = 0) -> "Ials":
        """Takes the factors of a ``[n_users, n_items]`` binary matrix, by the library implicit with
        as many threads as torch has; returns itself.

        Each half of a round solves for its factors by three steps of conjugate gradients. The same
        seed gives the same factors, whatever the number of threads.

        Raises:
            MissingPackageError: if the package implicit is missing.

        References:
            Hu et al. (2008), equation 4, the gradient steps of Takács et al. (2011).
        """
        als = require("implicit.cpu.als", "baselines", "ials")
        blas = require("threadpoolctl", "baselines", "ials")
        n_factors = len(self.gram)
        with blas.threadpool_limits(1, "blas"):
            found = als.AlternatingLeastSquares(
                factors=n_factors,
                regularization=self.regularization,
                alpha=self.alpha,
                iterations=iterations,
                num_threads=torch.get_num_threads(),
                random_state=seed,
            )
            found.fit(csr_matrix(train, dtype=np.float32), show_progress=False)
        self.factors.copy_(torch.from_numpy(found.item_factors))
        self.gram.copy_(
            self.factors.t() @ self.factors + self.regularization * torch.eye(n_factors)
        )
        return self

    def score(self, rows: SparseRows) -> Tensor:
        """``[n_users, n_items]``."""
        return self.user_factors(rows) @ self.factors.t()

    def score_items(self, rows: SparseRows, items: Tensor) -> Tensor:
        """``[n_users, m]``."""
        return self.user_factors(rows) @ self.factors[items].t()

    def user_factors(self, rows: SparseRows) -> Tensor:
        """``[n_users, factors]``: the minimum of α Σ_seen (1 - ⟨x, y⟩)² + Σ_unseen ⟨x, y⟩² + λ‖x‖²,
        zeros for an empty history.

        It solves (YᵀY + λI + (α - 1) Σ_seen y yᵀ) x = α Σ_seen y.

        Raises:
            NumericalError: if the regularization is too small to solve this in float32.
        """
        users = torch.arange(len(rows), device=self.gram.device)
        blocks = torch.split(users, max(1, _NUMBERS_AT_ONCE // self.gram.numel()))
        return torch.cat([self._solve(rows.take(block)) for block in blocks])

    def _solve(self, rows: SparseRows) -> Tensor:
        alpha = self.alpha
        systems, sums = (
            self.gram.repeat(len(rows), 1, 1),
            self.gram.new_zeros(len(rows), len(self.gram)),
        )
        for system, total, items in zip(
            systems, sums, torch.split(rows.indices, rows.counts.tolist()), strict=True
        ):
            seen = self.factors[items]
            system.addmm_(seen.t(), seen, alpha=alpha - 1)
            torch.sum(seen, 0, out=total)
        roots, failed = torch.linalg.cholesky_ex(systems)
        if failed.any():
            found = f"found they are not at regularization = {self.regularization}"
            raise NumericalError(
                f"a user's equations must be positive definite in float32, {found}; raise it."
            )
        return torch.cholesky_solve(alpha * sums.unsqueeze(2), roots).squeeze(2)

    def item_factors(self) -> Tensor:
        """``[n_items, factors]``."""
        return self.factors

    def item_vectors(self) -> Tensor:
        """``[n_items, factors]``."""
        return self.factors
