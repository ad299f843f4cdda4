"""iALS: a factorization whose unobserved entries count, too (Hu et al., ICDM 2008), by the library
implicit.
"""

from types import ModuleType
from typing import ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from scipy.sparse import csr_array, csr_matrix
from torch import Tensor, nn

from coterie.errors import ConfigError, NumericalError
from coterie.models.fields import ModelConfig, PositiveInt, Range
from coterie.sparse import SparseRows

# Numbers in the systems of equations that are solved at once, 256 MiB in float32.
_NUMBERS_AT_ONCE = 2**26


class IalsConfig(ModelConfig):
    """Objective and solver of an iALS."""

    name: Literal["ials"] = "ials"
    factors: PositiveInt = Field(128, description="the dimension of users and items")
    regularization: float = Field(
        10.0, gt=0, description="λ of ‖user‖² and ‖item‖², the same for all of them"
    )
    alpha: float = Field(
        10.0,
        gt=0,
        description="weight of an interaction's error; all other entries' errors weigh 1",
    )
    iterations: PositiveInt = Field(15, description="rounds of users, then items")
    seed: int = Field(0, ge=0, description="of the initial factors")

    SEARCH: ClassVar = {
        "factors": Range(32, 256, log=True),
        "regularization": Range(0.1, 300, log=True),
        "alpha": Range(1, 100, log=True),
        "iterations": Range(5, 30),
    }


class Ials(nn.Module):
    """Scores ⟨user, item⟩; the user is solved for, exactly, from any history, in training or not.

    Args:
        n_items: Size of the catalogue.
        config: The same that the item factors were fitted with.

    Example:
        >>> train = csr_array([[1, 1, 0], [1, 1, 0], [0, 0, 1]])
        >>> model = Ials.fit(train, IalsConfig(factors=2, regularization=0.1))
        >>> scores = model.score(SparseRows.from_csr(csr_array([[1, 0, 0]])))
        >>> bool(scores[0, 1] > scores[0, 2])
        True
    """

    factors: Tensor
    gram: Tensor

    def __init__(self, n_items: int, config: IalsConfig) -> None:
        super().__init__()
        self.n_items, self.config = n_items, config
        self.register_buffer("factors", torch.zeros(n_items, config.factors))
        self.register_buffer("gram", torch.eye(config.factors))

    @classmethod
    def fit(cls, train: csr_array, config: IalsConfig) -> "Ials":
        """Alternates on a ``[n_users, n_items]`` binary matrix, with as many threads as torch has.

        Each half of a round solves for its factors by three steps of conjugate gradients. The same
        seed gives the same factors, whatever the number of threads.

        Raises:
            ConfigError: if the package implicit is missing.

        References:
            Hu et al. (2008), equation 4, the gradient steps of Takács et al. (2011).
        """
        als, blas = _library()
        model = cls(train.shape[1], config)
        with blas.threadpool_limits(1, "blas"):
            found = als.AlternatingLeastSquares(
                factors=config.factors,
                regularization=config.regularization,
                alpha=config.alpha,
                iterations=config.iterations,
                num_threads=torch.get_num_threads(),
                random_state=config.seed,
            )
            found.fit(csr_matrix(train, dtype=np.float32), show_progress=False)
        model.factors.copy_(torch.from_numpy(found.item_factors))
        model.gram.copy_(
            model.factors.t() @ model.factors + config.regularization * torch.eye(config.factors)
        )
        return model

    def score(self, rows: SparseRows) -> Tensor:
        """``[n_users, n_items]``."""
        return self.user_factors(rows) @ self.factors.t()

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
        alpha = self.config.alpha
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
            found = f"found they are not at regularization = {self.config.regularization}"
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


def _library() -> tuple[ModuleType, ModuleType]:
    try:
        import threadpoolctl  # noqa: PLC0415
        from implicit.cpu import als  # noqa: PLC0415
    except ImportError as error:
        raise ConfigError(
            "ials needs the package implicit; pip install 'coterie[baselines]'."
        ) from error
    return als, threadpoolctl
