"""What a request for recommendations may say: one frozen value, from the command line to the last
line of code.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from operator import index as whole_number
from typing import TYPE_CHECKING, TypedDict, Unpack

from coterie.data.ids import Id
from coterie.errors import ConfigError, DataError

if TYPE_CHECKING:
    from coterie.ranking.approximate import ApproximateIndex


class RankingFields(TypedDict, total=False):
    """The fields of `RankingOptions`, for functions that take them by name."""

    k: int
    exclude_seen: bool
    allow: Iterable[Id] | None
    deny: Iterable[Id] | None
    index: "ApproximateIndex | None"
    block_size: int


@dataclass(frozen=True)
class RankingOptions:
    """Which items are ranked, how many are kept and how.

    Equal options rank alike, in whatever order the items of ``allow`` and ``deny`` were given.

    Args:
        k: Length of each list; shorter where fewer items are eligible. Memory does not grow with
            ``k`` beyond the catalogue.
        exclude_seen: Whether to leave out what the user has had.
        allow: The only items to recommend; all if None. Kept as a sorted tuple, like ``deny``.
        deny: Items never to recommend.
        index: Of the model's item factors, to rank approximately; None ranks exactly.
        block_size: Users scored at once; memory is ``block_size × n_items`` scores, at most 256 MiB
            of them where the model ends in an inner product.

    Raises:
        ConfigError: if a number is no whole number of 1 or more.
        DataError: if ``allow`` or ``deny`` is one string.

    Example:
        >>> RankingOptions(k=5, deny=["red", "blue"]).deny
        ('blue', 'red')
        >>> RankingOptions(k=0)
        Traceback (most recent call last):
        ...
        coterie.errors.ConfigError: k must be at least 1, found 0; leave it out for the default.
    """

    k: int = 10
    exclude_seen: bool = True
    allow: Iterable[Id] | None = None
    deny: Iterable[Id] | None = None
    index: "ApproximateIndex | None" = None
    block_size: int = 1024

    def __post_init__(self) -> None:
        for name in ("k", "block_size"):
            object.__setattr__(self, name, positive_count(name, getattr(self, name)))
        for name in ("allow", "deny"):
            object.__setattr__(self, name, _sorted_ids(name, getattr(self, name)))

    @classmethod
    def of(
        cls, options: "RankingOptions | int", **fields: Unpack[RankingFields]
    ) -> "RankingOptions":
        """Takes options whole, or ``k`` alone, with single fields laid over them.

        Example:
            >>> RankingOptions.of(5, exclude_seen=False) == RankingOptions(5, exclude_seen=False)
            True
        """
        if isinstance(options, RankingOptions):
            return replace(options, **fields)
        fields.setdefault("k", options)
        return cls(**fields)


def positive_count(name: str, value: int) -> int:
    """Returns ``value`` as an int.

    Raises:
        ConfigError: if it is no whole number of 1 or more.
    """
    try:
        number = whole_number(value)
    except TypeError as error:
        raise ConfigError(
            f"{name} must be a whole number, found {value!r}; leave it out for the default."
        ) from error
    if number < 1:
        raise ConfigError(
            f"{name} must be at least 1, found {number}; leave it out for the default."
        )
    return number


def _sorted_ids(name: str, ids: Iterable[Id] | None) -> tuple[Id, ...] | None:
    if ids is None:
        return None
    if isinstance(ids, str):
        raise DataError(
            f"{name} must be a sequence of item ids, found the string {ids!r}; put it in a list."
        )
    # `tolist` makes Python's own integers and strings of the elements of an array.
    listed = ids.tolist() if hasattr(ids, "tolist") else ids
    return tuple(sorted(set(listed), key=lambda one: (str(one), isinstance(one, str))))
