"""Approximate search over a scorer's item factors, for catalogues where scoring every item takes
too long.

Apart from the exact ranking because it needs a package of its own and gives up a little of what
`top_k` promises: a few of the best items are missed. It pays from some hundred thousand items on;
decision 5 has the measured trade.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor

from coterie.errors import ArtifactError, ConfigError, DataError, NumericalError
from coterie.extras import require
from coterie.files import publish_folder, read_manifest, write_manifest
from coterie.ranking.scorer import Scorer, item_factors_of
from coterie.ranking.topk import TopK

if TYPE_CHECKING:
    import faiss

SCHEMA = "coterie.index/1"

# Rows asked for at once, those with about as many seen items together: the row with the most sets
# the width for all.
_ROWS_AT_ONCE = 100
# Seen items that the first search makes room for; rows with more, few as they are, may take a
# second one.
_ROOM = 1000


@dataclass(frozen=True, eq=False)
class ApproximateIndex:
    """The item factors in lists of similar ones, of which a search reads only the most promising.

    It holds a copy of the factors, 4 bytes a number and 8 an item, in memory of the processor;
    searching runs there, too, with as many threads as OpenMP is given.

    Args:
        lists: The factors, whole and in float32.
        fingerprint: SHA-256 of the item factors it was built from.
        n_probed: Lists read for each user. More find more of the best items and take longer; all of
            them find all.

    Example:
        >>> from types import SimpleNamespace
        >>> rng = np.random.default_rng(0)
        >>> factors = torch.from_numpy(rng.normal(size=(1000, 8)).astype(np.float32))
        >>> scorer = SimpleNamespace(
        ...     n_items=1000, score=print, user_factors=print, item_factors=lambda: factors
        ... )
        >>> index = ApproximateIndex.build(scorer)
        >>> best = index.search(factors[:1], k=3)
        >>> bool((best.scores[0] - factors[best.items[0]] @ factors[0]).abs().max() < 1e-5)
        True
    """

    lists: "faiss.IndexIVFFlat"
    fingerprint: str
    n_probed: int

    def __post_init__(self) -> None:
        if self.n_probed < 1:
            raise ConfigError(
                f"n_probed must be at least 1, found {self.n_probed}; a 25th of the lists is a good"
                " start."
            )

    @classmethod
    def build(
        cls,
        scorer: Scorer,
        *,
        n_lists: int | None = None,
        n_probed: int | None = None,
        seed: int = 0,
    ) -> "ApproximateIndex":
        """Clusters the item factors (k-means on a sample) and files each under its nearest centre.

        Args:
            scorer: What will be searched; its factors are copied.
            n_lists: Lists to make, at most ``n_items``; twice the root of ``n_items`` by default.
            n_probed: As in the class; a 25th of the lists by default, and at least 8.
            seed: Of the sample and the first centres.

        Raises:
            MissingPackageError: if the package faiss-cpu is missing.
            ConfigError: if the scorer has no item factors, or a number is out of range.
            NumericalError: if a factor is not finite.
        """
        library, factors = _library(), _factors(scorer)
        n_items, dim = factors.shape
        n_lists = min(n_items, round(2 * n_items**0.5)) if n_lists is None else n_lists
        if not 1 <= n_lists <= n_items:
            raise ConfigError(
                f"n_lists must be from 1 to the number of items, {n_items}, found {n_lists}; leave"
                " it out for a good one."
            )
        centres = library.IndexFlat(dim, library.METRIC_L2)
        lists = library.IndexIVFFlat(centres, dim, n_lists, library.METRIC_INNER_PRODUCT)
        lists.cp.spherical, lists.cp.seed = False, seed
        lists.cp.min_points_per_centroid, lists.cp.max_points_per_centroid = 1, 64
        lists.train(factors)
        lists.add(factors)
        # From here on the centres answer which lists promise most to a user: those of the largest
        # mean score. Filing by inner product, too, as faiss does by itself, lost twice as many of
        # the best items (decision 5).
        centres.metric_type = library.METRIC_INNER_PRODUCT
        return cls(
            lists, _fingerprint(factors), max(n_lists // 25, 8) if n_probed is None else n_probed
        )

    def search(
        self,
        user_factors: Tensor,
        k: int,
        *,
        seen: csr_array | None = None,
        allow: Tensor | None = None,
        deny: Tensor | None = None,
    ) -> TopK:
        """Ranks approximately what `top_k` ranks exactly: higher score first, equal scores by lower
        item index.

        Scores are the exact inner products, and a row does not depend on the others. A row comes
        back shorter than ``k`` only where fewer items are eligible: one that the lists read, or the
        seen items among the best, leave short is searched again in all lists, exactly. Where
        ``allow`` and ``deny`` leave a share of the catalogue, so many more lists are read, and few
        allowed items are searched exactly. Of items that tie for the last place any may come.

        Args:
            user_factors: ``[n, dim]`` from the scorer the index was built from.
            k: Length of each list; of more than ``n_items`` there are ``n_items``.
            seen: ``[n, n_items]`` items to leave out of each row; only the pattern is read.
            allow: ``[n_items]`` bool, the only items to keep; None keeps all.
            deny: ``[n_items]`` bool, items to leave out of every row.

        Returns:
            Items and scores ``[n, min(k, n_items)]`` on the device of ``user_factors``; -1 and -inf
            where fewer are eligible.

        Raises:
            ConfigError: if ``k`` is below 1.
            DataError: if the factors or ``seen`` have another shape than the index and the rows ask
                for.
            NumericalError: if a user factor is not finite.
        """
        users, k = self._checked(user_factors, k, seen), min(k, self.lists.ntotal)
        eligible = _eligible(allow, deny)
        n_eligible = self.lists.ntotal if eligible is None else max(int(eligible.sum()), 1)
        n_probed = min(-(-self.n_probed * self.lists.ntotal // n_eligible), self.lists.nlist)
        items, scores = self._ask(users, k, seen, eligible, n_probed, room=_ROOM)
        short = np.flatnonzero(items[:, -1] < 0)
        if len(short):
            left = None if seen is None else seen[short]
            items[short], scores[short] = self._ask(
                users[short], k, left, eligible, self.lists.nlist, room=self.lists.ntotal
            )
        return TopK(
            torch.from_numpy(items).to(user_factors.device),
            torch.from_numpy(scores).to(user_factors.device),
        )

    @property
    def name(self) -> str:
        """What rankings by it depend on: the factors, the lists and how many of them are read."""
        return f"{self.fingerprint}/{self.lists.nlist}/{self.n_probed}"

    def save(self, folder: str | Path) -> None:
        """Writes the index, whole or not at all; an older one there is replaced."""
        library = _library()
        with publish_folder(folder) as aside:
            library.write_index(self.lists, str(aside / "index.faiss"))
            written_by = {"faiss": library.__version__}
            write_manifest(
                aside,
                SCHEMA,
                item_factors=self.fingerprint,
                n_probed=self.n_probed,
                written_by=written_by,
            )

    @classmethod
    def load(cls, folder: str | Path, scorer: Scorer) -> "ApproximateIndex":
        """Reads an index and checks that it is of this scorer's very factors.

        Raises:
            ArtifactError: if it is missing, damaged, of another schema, or of other factors.
            MissingPackageError: if the package faiss-cpu is missing.
            ConfigError: if the scorer has no item factors.
        """
        # A link is followed once, so that all files are of one version.
        library, folder = _library(), Path(folder).resolve()
        manifest = read_manifest(folder, SCHEMA)
        if manifest.get("item_factors") != _fingerprint(_factors(scorer)):
            raise ArtifactError(
                f"{folder}: must be the index of this model, found that of other weights; build it"
                " anew."
            )
        try:
            return cls(
                library.read_index(str(folder / "index.faiss")),
                manifest["item_factors"],
                manifest["n_probed"],
            )
        except (KeyError, TypeError, RuntimeError, ConfigError) as error:
            raise ArtifactError(f"{folder}: not a whole index ({error}); build it anew.") from error

    def _checked(self, user_factors: Tensor, k: int, seen: csr_array | None) -> np.ndarray:
        if k < 1:
            raise ConfigError(
                f"k must be at least 1, found {k}; ask for one recommendation or more."
            )
        users: np.ndarray = user_factors.detach().cpu().float().contiguous().numpy()
        if users.ndim != 2 or users.shape[1] != self.lists.d:
            raise DataError(
                f"user factors must be [n, {self.lists.d}], found {list(users.shape)}; take them"
                " from the index's scorer."
            )
        if seen is not None and seen.shape != (len(users), self.lists.ntotal):
            raise DataError(
                f"seen must have the shape {(len(users), self.lists.ntotal)}, found {seen.shape};"
                " pass the searched rows."
            )
        if not np.isfinite(users).all():
            raise NumericalError(
                "user factors must be finite, found NaN or infinity; check the model's weights and"
                " its learning rate."
            )
        return users

    def _ask(
        self,
        users: np.ndarray,
        k: int,
        seen: csr_array | None,
        eligible: np.ndarray | None,
        n_probed: int,
        room: int,
    ) -> tuple[np.ndarray, np.ndarray]:
        """``[n, k]`` items and scores from ``n_probed`` lists, with room for up to ``room`` seen
        items among the best.
        """
        library = _library()
        only = (
            {}
            if eligible is None
            else {"sel": library.IDSelectorBitmap(np.packbits(eligible, bitorder="little"))}
        )
        parameters = library.SearchParametersIVF(nprobe=n_probed, **only)
        items, scores = (
            np.full((len(users), k), -1),
            np.full((len(users), k), -np.inf, dtype=np.float32),
        )
        n_seen = np.zeros(len(users), dtype=np.int64) if seen is None else np.diff(seen.indptr)
        by_seen = np.argsort(n_seen, kind="stable")
        for rows in np.split(by_seen, range(_ROWS_AT_ONCE, len(users), _ROWS_AT_ONCE)):
            width = min(k + min(int(n_seen[rows].max(initial=0)), room), self.lists.ntotal)
            values, found = self.lists.search(users[rows], width, params=parameters)
            values[
                found < 0 if seen is None else (found < 0) | _is_one(seen[rows], found)
            ] = -np.inf
            order = np.lexsort((found, -values))[:, :k]
            kept = order.shape[1]
            items[rows, :kept], scores[rows, :kept] = (
                np.take_along_axis(one, order, axis=1) for one in (found, values)
            )
        items[np.isneginf(scores)] = -1
        return items, scores


def _library() -> ModuleType:
    library: ModuleType = require("faiss", "ann", "approximate search")
    return library


def _factors(scorer: Scorer) -> np.ndarray:
    factors = item_factors_of(scorer)
    if factors is None:
        raise ConfigError(
            "approximate search needs a model whose scores are inner products, found one without"
            " item factors; rank exactly."
        )
    if not factors.isfinite().all():
        raise NumericalError(
            "item factors must be finite, found NaN or infinity; check the model's weights and its"
            " learning rate."
        )
    array: np.ndarray = factors.detach().cpu().float().contiguous().numpy()
    return array


def _fingerprint(factors: np.ndarray) -> str:
    digest = hashlib.sha256(repr(factors.shape).encode())
    digest.update(factors.data)
    return digest.hexdigest()


def _eligible(allow: Tensor | None, deny: Tensor | None) -> np.ndarray | None:
    kept = [mask for mask in (allow, None if deny is None else ~deny) if mask is not None]
    return np.logical_and.reduce([mask.cpu().numpy() for mask in kept]) if kept else None


def _is_one(seen: csr_array, items: np.ndarray) -> np.ndarray:
    """Where ``[n, width]`` items are among the ones of their row; -1 may be anything."""
    n_rows, n_items = seen.shape
    ones = np.sort(np.repeat(np.arange(n_rows), np.diff(seen.indptr)) * n_items + seen.indices)
    wanted = np.arange(n_rows)[:, None] * n_items + items
    place = np.searchsorted(ones, wanted)
    found: np.ndarray = np.append(ones, -1)[place] == wanted
    return found
