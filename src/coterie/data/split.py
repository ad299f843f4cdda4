"""Who trains, who is held out, and which of a held-out user's items are hidden.

A split is two small arrays beside the interactions: a part per user and a part per interaction.
Where repeats are to be found, a third says of which parts an interaction is, too. The protocols of
the field fit in it:

- strong generalisation (Liang et al., WWW 2018): held-out users never train; 80 % of their items
  are folded in, 20 % are ranked;
- a given per-user split (LightGCN's files): every user trains, and some of each user's items are
  ranked;
- leave-last-out: the same, and time says which;
- by time: who has enough before the cut trains; what comes in a window is ranked.
"""

from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Literal, TypeAlias

import numpy as np
from scipy.sparse import csr_array

from coterie.errors import ConfigError, DataError

PartName: TypeAlias = Literal["train", "validation", "test"]


class Part(IntEnum):
    """Where a user or an interaction belongs.

    Example:
        >>> [part.name for part in Part]
        ['TRAIN', 'VALIDATION', 'TEST']
    """

    TRAIN = 0
    VALIDATION = 1
    TEST = 2

    @classmethod
    def of(cls, part: "Part | PartName") -> "Part":
        """The part of that name.

        Raises:
            ConfigError: if there is none.

        Example:
            >>> Part.of("test") is Part.TEST
            True
        """
        if isinstance(part, str) and part.upper() in cls.__members__:
            return cls[part.upper()]
        if part not in set(cls):
            raise ConfigError(f"a part must be train, validation or test, found {part!r}.")
        return cls(part)


TEST_INPUT = 3
"""Of an interaction: input of the test alone, as it came between training and the test."""
BEFORE_HISTORY = 4
"""Of an interaction: as ``TRAIN``, but too old to be input of the test."""


@dataclass(frozen=True, eq=False)
class Split:
    """A part per user and per interaction.

    Args:
        user_part: ``[n_users]`` uint8. Only users of ``TRAIN`` are trained on.
        interaction_part: ``[n_interactions]`` uint8 aligned with the CSR. ``TRAIN`` marks an
            interaction that may be read as input anywhere, ``VALIDATION`` one that is ranked in
            validation and is input in the test, ``TEST`` one that is only ever ranked. By time
            there are also `TEST_INPUT` and `BEFORE_HISTORY`.
        repeats: ``[n_interactions]`` uint8, where an interaction is to be found beside its part:
            the bits of ``VALIDATION`` (1) and ``TEST`` (2). None if repeats do not count, and lists
            leave out what was shown; if there is an array, even of zeros, they leave out nothing.
    """

    user_part: np.ndarray
    interaction_part: np.ndarray
    repeats: np.ndarray | None = None

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """What there is, by name."""
        return {name: array for name, array in vars(self).items() if array is not None}

    def to_find(self, part: Part) -> np.ndarray:
        """``[n_interactions]`` bool: what is ranked in ``part``."""
        return to_find(part, self.interaction_part, self.repeats)

    def folded_in(self, part: Part) -> np.ndarray:
        """``[n_interactions]`` bool: what is shown when ``part`` is ranked; for ``TRAIN``, what
        users who train are trained on.
        """
        return folded_in(part, self.interaction_part)

    def without_validation(self) -> "Split":
        """The same with what was for validation, or came since, in training."""
        user_part, interaction_part = self.user_part.copy(), self.interaction_part.copy()
        user_part[user_part == Part.VALIDATION] = Part.TRAIN
        interaction_part[np.isin(interaction_part, (Part.VALIDATION, TEST_INPUT))] = Part.TRAIN
        repeats = None if self.repeats is None else self.repeats & np.uint8(Part.TEST)
        return Split(user_part, interaction_part, repeats)


def to_find(
    part: Part, interaction_part: np.ndarray, repeats: np.ndarray | None = None
) -> np.ndarray:
    """`Split.to_find` of ``[n_interactions]`` arrays alone."""
    once: np.ndarray = interaction_part == part
    return once if repeats is None else once | (repeats & np.uint8(part) > 0)


def folded_in(part: Part, interaction_part: np.ndarray) -> np.ndarray:
    """`Split.folded_in` of ``[n_interactions]`` parts alone."""
    shown: np.ndarray = _FOLDED_IN[part][interaction_part]
    return shown


_FOLDED_IN = {
    part: np.isin(np.arange(BEFORE_HISTORY + 1), shown)
    for part, shown in {
        Part.TRAIN: (Part.TRAIN, BEFORE_HISTORY),
        Part.VALIDATION: (Part.TRAIN, BEFORE_HISTORY),
        Part.TEST: (Part.TRAIN, Part.VALIDATION, TEST_INPUT),
    }.items()
}


@dataclass(frozen=True, eq=False)
class Cases:
    """Users to evaluate on: what the model is shown, and what it must find.

    Args:
        user_index: ``[n_cases]`` rows of the data set.
        fold_in: ``[n_cases, n_items]`` interactions shown to the model.
        held_out: ``[n_cases, n_items]`` interactions to find; at least one in every row.
        exclude_seen: Whether lists leave out what is folded in, as `RankingOptions` says it of
            serving. Else what is folded in may be to find, too.

    Example:
        >>> from coterie.simulation.service import simulate_dataset
        >>> data = simulate_dataset(n_users=300, n_items=60, held_out_users=40, seed=1)
        >>> cases = data.cases(Part.TEST)
        >>> cases.fold_in.shape == cases.held_out.shape == (40, 60)
        True
    """

    user_index: np.ndarray
    fold_in: csr_array
    held_out: csr_array
    exclude_seen: bool = True

    def where(self, keep: np.ndarray) -> "Cases":
        """The cases where ``keep`` ([n_cases] bool) holds."""
        return self if keep.all() else self.take(np.flatnonzero(keep))

    def take(self, places: np.ndarray | slice) -> "Cases":
        """The cases at ``places``, as NumPy indexes."""
        return replace(
            self,
            user_index=self.user_index[places],
            fold_in=self.fold_in[places],
            held_out=self.held_out[places],
        )

    @property
    def has_history(self) -> np.ndarray:
        """``[n_cases]`` bool: whether anything is folded in."""
        shown: np.ndarray = np.diff(self.fold_in.indptr) > 0
        return shown


def cases_of(
    part: Part, indptr: np.ndarray, indices: np.ndarray, n_items: int, split: Split
) -> Cases:
    """Cuts the cases of ``part`` out of all interactions.

    A user is a case if they have something to find (`Split.to_find`); `Split.folded_in` says what
    is folded in.

    Args:
        part: ``VALIDATION`` or ``TEST``.
        indptr: ``[n_users + 1]`` row starts.
        indices: ``[n_interactions]`` item indices.
        n_items: Number of columns.
        split: The parts.
    """
    sought = split.to_find(part)
    row = np.repeat(np.arange(len(indptr) - 1), np.diff(indptr))
    user_index = np.unique(row[sought])
    held_out = select(indptr, indices, n_items, sought)[user_index]
    fold_in = select(indptr, indices, n_items, split.folded_in(part))[user_index]
    return Cases(user_index, fold_in, held_out, exclude_seen=split.repeats is None)


def select(indptr: np.ndarray, indices: np.ndarray, n_items: int, keep: np.ndarray) -> csr_array:
    """The CSR of the interactions where ``keep`` ([n_interactions] bool) holds, all rows kept,
    values one.
    """
    kept_before = np.concatenate([[0], np.cumsum(keep)])
    kept = indices[keep]
    return csr_array(
        (np.ones(len(kept), dtype=np.float32), kept, kept_before[indptr]),
        shape=(len(indptr) - 1, n_items),
    )


def choose_users(n_users: int, held_out_users: int, seed: int) -> np.ndarray:
    """Draws the held-out users as Liang et al. do.

    The stream of random numbers is theirs too (NumPy's legacy ``RandomState``, frozen by its
    policy): on the same users in the same order their seed, 98765, gives their users.

    Args:
        n_users: Number of users, in order of their ids.
        held_out_users: Number of validation users, and of test users; with 0 everybody trains.
        seed: Of the permutation.

    Returns:
        ``[n_users]`` uint8 parts.

    Raises:
        ConfigError: if nobody would be left to train on.

    References:
        Liang et al. (2018), section 4.1 and its companion notebook.
    """
    if held_out_users < 0 or 2 * held_out_users >= n_users:
        raise ConfigError(
            "held-out users must be at least 0 and leave someone to train on: twice"
            f" {held_out_users} of {n_users} users; choose another --held-out-users."
        )
    order = np.random.RandomState(seed).permutation(n_users)
    user_part = np.full(n_users, Part.TRAIN, dtype=np.uint8)
    user_part[order[n_users - 2 * held_out_users : n_users - held_out_users]] = Part.VALIDATION
    user_part[order[n_users - held_out_users :]] = Part.TEST
    return user_part


def hide_items(
    indptr: np.ndarray, user_part: np.ndarray, seed: int, share: float = 0.2, min_items: int = 5
) -> np.ndarray:
    """Hides a share of every held-out user's items, as Liang et al. do.

    Args:
        indptr: ``[n_users + 1]`` row starts, items unseen in training already dropped.
        user_part: ``[n_users]`` from `choose_users`.
        seed: Restarted for the validation and for the test users, as in the original.
        share: Of each user's items, rounded down.
        min_items: A user with fewer keeps them all in the fold-in and is not evaluated.

    Returns:
        ``[n_interactions]`` uint8 parts.
    """
    _check_share(share)
    interaction_part = np.full(int(indptr[-1]), Part.TRAIN, dtype=np.uint8)
    for part in (Part.VALIDATION, Part.TEST):
        random = np.random.RandomState(seed)
        for user in np.flatnonzero(user_part == part):
            n_items = int(indptr[user + 1] - indptr[user])
            if n_items >= min_items:
                hidden = random.choice(n_items, size=int(share * n_items), replace=False)
                interaction_part[indptr[user] + hidden] = part
    return interaction_part


def hide_validation_items(
    indptr: np.ndarray, interaction_part: np.ndarray, seed: int, share: float = 0.1
) -> np.ndarray:
    """Takes a share of every user's training interactions for validation, beside a given test part.

    The given split of the graph papers has no validation part, and choosing on its test part would
    be tuning on test users.

    Args:
        indptr: ``[n_users + 1]`` row starts.
        interaction_part: ``[n_interactions]`` uint8 with ``TRAIN`` and ``TEST`` as given.
        seed: Of the draw.
        share: Of each user's training items, rounded down; 0 keeps all of them for training.

    Returns:
        A new ``[n_interactions]`` uint8 array of parts.
    """
    _check_share(share)
    parts = interaction_part.copy()
    row = np.repeat(np.arange(len(indptr) - 1), np.diff(indptr))
    mine = np.flatnonzero(parts == Part.TRAIN)
    shuffled = mine[np.random.RandomState(seed).permutation(len(mine))]
    by_user = shuffled[np.argsort(row[shuffled], kind="stable")]
    n_mine = np.bincount(row[mine], minlength=len(indptr) - 1)
    rank = np.arange(len(by_user)) - np.repeat(np.cumsum(n_mine) - n_mine, n_mine)
    parts[by_user[rank < np.floor(share * n_mine)[row[by_user]]]] = Part.VALIDATION
    return parts


def leave_last(user: np.ndarray, timestamp: np.ndarray, row: np.ndarray, last_n: int) -> np.ndarray:
    """Takes each user's last items for the test, and as many before them for validation.

    Args:
        user: ``[n_interactions]`` codes, ascending; items ascend within a user.
        timestamp: ``[n_interactions]`` seconds.
        row: ``[n_interactions]`` places in the log, which order what is of the same time.
        last_n: How many; a user with no more than twice as many keeps all for training.

    Returns:
        ``[n_interactions]`` uint8 parts.

    Example:
        >>> leave_last(np.zeros(3, int), np.array([30, 10, 20]), np.arange(3), 1).tolist()
        [2, 0, 1]
    """
    order = np.lexsort((row, timestamp, user))
    n_items = np.bincount(user)
    from_last = np.repeat(np.cumsum(n_items), n_items) - np.arange(len(user)) - 1
    part = np.select(
        [from_last < last_n, from_last < 2 * last_n], [Part.TEST, Part.VALIDATION], Part.TRAIN
    )
    part[np.repeat(n_items <= 2 * last_n, n_items)] = Part.TRAIN
    parts = np.empty(len(user), dtype=np.uint8)
    parts[order] = part
    return parts


def _check_share(share: float) -> None:
    if not 0 <= share < 1:
        raise ConfigError(
            f"the held-out share must be in [0, 1), found {share}; 0.2 is the field's custom."
        )


def check_split(split: Split, indptr: np.ndarray) -> None:
    """Checks shapes and that there is something to train on.

    Raises:
        DataError: if a part array has the wrong length or value, or no interaction is left for
            training.
    """
    n_users, n_interactions = len(indptr) - 1, int(indptr[-1])
    limits = {
        "user_part": (n_users, Part.TEST),
        "interaction_part": (n_interactions, BEFORE_HISTORY),
        "repeats": (n_interactions, Part.VALIDATION | Part.TEST),
    }
    for name, parts in split.arrays.items():
        length, last = limits[name]
        if parts.shape != (length,) or (length and int(parts.max()) > last):
            raise DataError(
                f"{name} must hold {length} parts from 0 to {last}, found shape {parts.shape};"
                " prepare the data set anew."
            )
    trains = np.repeat(split.user_part == Part.TRAIN, np.diff(indptr)) & split.folded_in(Part.TRAIN)
    if not trains.any():
        raise DataError(
            "no interaction is left to train on; lower the minimum counts or the number of held-out"
            " users."
        )


def hold_out_trainers(
    split: Split, rows: tuple[np.ndarray, np.ndarray], order: np.ndarray, share: float, seed: int
) -> Split:
    """Takes a share of the training users out of training, to validate on: the last fifth of what
    is shown of each is to be found.

    For splits that have no validation, such as one by time whose last known days must train. An
    item stays known: a user who alone has one trains on.

    Args:
        split: Without validation.
        rows: ``indptr`` and ``indices`` of all interactions.
        order: ``[n_interactions]`` times, or anything that says which of a user's came last.
        share: Of the training users, rounded down, drawn from those with at least five items shown.
        seed: Of the draw.
    """
    _check_share(share)
    (indptr, indices), shown = rows, split.folded_in(Part.TRAIN)
    row = np.repeat(np.arange(len(indptr) - 1), np.diff(indptr))
    n_shown = np.bincount(row[shown], minlength=len(indptr) - 1)
    able = np.flatnonzero((split.user_part == Part.TRAIN) & (n_shown >= LEAST_TO_HIDE))
    n_users = int(share * np.count_nonzero(split.user_part == Part.TRAIN))
    drawn = np.random.default_rng(seed).permutation(able)[:n_users]
    user_part = split.user_part.copy()
    user_part[drawn] = Part.VALIDATION
    trains = shown & (user_part[row] == Part.TRAIN)
    known = np.bincount(indices[trains], minlength=int(indices.max(initial=0)) + 1) > 0
    user_part[row[shown & (split.user_part[row] == Part.TRAIN) & ~known[indices]]] = Part.TRAIN
    parts = split.interaction_part.copy()
    candidates = np.flatnonzero(shown & (user_part[row] == Part.VALIDATION))
    latest = candidates[np.lexsort((indices[candidates], order[candidates], row[candidates]))]
    from_last = np.cumsum(np.bincount(row[latest], minlength=len(n_shown)))[row[latest]]
    parts[latest[from_last - np.arange(len(latest)) <= n_shown[row[latest]] // 5]] = Part.VALIDATION
    return replace(split, user_part=user_part, interaction_part=parts)


LEAST_TO_HIDE = 5
"""Items of whom a fifth can be hidden."""
