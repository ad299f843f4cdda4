"""The rules of preparation: what is kept, how repeated rows merge, and how the rest is split.

A split is one value of its own a protocol, so that no rule can be stated that its protocol would
ignore.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import date
from typing import Any, ClassVar, Literal, TypeAlias, TypedDict, get_args

from coterie.errors import ConfigError

Merge: TypeAlias = Literal["any", "latest", "sum"]
NewUsers: TypeAlias = Literal["report", "drop"]
NewItems: TypeAlias = Literal["report", "drop"]
Repeats: TypeAlias = Literal["drop", "keep"]


@dataclass(frozen=True)
class StrongGeneralisation:
    """Held-out users never train; most of their items are shown, and the rest must be found.

    Args:
        held_out_users: Number of validation users, and of test users; None takes a tenth of all
            users each. With 0 everybody trains and nobody is evaluated.
        held_out_share: Share of a held-out user's items that is hidden.
        seed: Of the draws.

    Raises:
        ConfigError: if a value is out of its range.

    References:
        D. Liang et al. (2018), Variational Autoencoders for Collaborative Filtering, section 4.1.

    Example:
        >>> PrepareRules(split=StrongGeneralisation(held_out_users=500)).split.held_out_share
        0.2
    """

    name: ClassVar = "strong"
    min_user_items: ClassVar = 5
    held_out_users: int | None = None
    held_out_share: float = 0.2
    seed: int = 98765

    def __post_init__(self) -> None:
        _check_least(self, 0, "held_out_users")
        _check_share(self, "held_out_share")
        _check_seed(self.seed)


@dataclass(frozen=True)
class GivenSplit:
    """Everybody trains; the log says which interactions are for the test.

    Args:
        validation_share: Share of every user's training items taken for validation.
        seed: Of the draw.

    Raises:
        ConfigError: if a value is out of its range.

    Example:
        >>> GivenSplit(validation_share=0.05).name
        'given'
    """

    name: ClassVar = "given"
    min_user_items: ClassVar = 0
    validation_share: float = 0.1
    seed: int = 98765

    def __post_init__(self) -> None:
        _check_share(self, "validation_share")
        _check_seed(self.seed)


@dataclass(frozen=True)
class LeaveLastOut:
    """Everybody trains; each user's last items by time are for the test, those before for
    validation.

    Others' later interactions train, so it says less about tomorrow than `TimeSplit` does.

    Args:
        last_n: Items of a user for the test, and as many for validation. A user with no more than
            twice as many keeps them all for training.

    Raises:
        ConfigError: if ``last_n`` is below 1.

    Example:
        >>> LeaveLastOut(last_n=2).min_user_items
        5
    """

    name: ClassVar = "last"
    min_user_items: ClassVar = 5
    last_n: int = 1

    def __post_init__(self) -> None:
        _check_least(self, 1, "last_n")


@dataclass(frozen=True)
class TimeSplit:
    """Training before a date, the test after it: half-open windows of days in UTC.

    In order of time: training, a gap, the validation window, a gap, the test window. Thresholds,
    items and popularity come from the training part alone.

    Args:
        test_days: Length of the test window.
        test_from: Its first day; None takes the last ``test_days`` days of the log.
        validation_days: Length of the validation window, which ends where the test's input ends; 0
            leaves it out.
        gap_days: Days before each window that are neither its input nor to be found in it.
        history_days: Of the input of a window, and of training, only the last so many days; None
            takes all.
        new_users: Users with nothing known before a window are ``report``-ed apart
            (`Dataset.new_user_cases`), or ``drop``-ped.
        new_items: Interactions with items that training does not know are counted and go; to
            ``report`` is to also state in the manifest what ranking can reach without them.
        repeats: What a user had before and takes up again in a window: to ``drop`` it is not to
            look for it, to ``keep`` it is to find it, too, and nothing is left out of the lists.

    Raises:
        ConfigError: if a value is out of its range.

    Example:
        >>> TimeSplit(test_from=date(2026, 3, 2), test_days=28).validation_days
        7
    """

    name: ClassVar = "time"
    min_user_items: ClassVar = 5
    test_days: int = 7
    test_from: date | None = None
    validation_days: int = 7
    gap_days: int = 0
    history_days: int | None = None
    new_users: NewUsers = "report"
    new_items: NewItems = "report"
    repeats: Repeats = "drop"

    def __post_init__(self) -> None:
        _check_least(self, 1, "test_days", "history_days")
        _check_least(self, 0, "validation_days", "gap_days")
        _check_century(self, "test_days", "history_days", "validation_days", "gap_days")
        _check_choice(self, "new_users", NewUsers)
        _check_choice(self, "new_items", NewItems)
        _check_choice(self, "repeats", Repeats)
        if self.history_days is not None and self.history_days < self.validation_days:
            raise ConfigError(
                "history_days must be at least validation_days, whose interactions are input of the"
                f" test, found {self.history_days} and {self.validation_days}; lengthen the"
                " history."
            )


@dataclass(frozen=True)
class SplitByLog:
    """The log's own split where it brings one, else strong generalisation; each by its defaults.

    Args:
        seed: Of the draws.

    Raises:
        ConfigError: if the seed is out of its range.
    """

    seed: int = 98765

    def __post_init__(self) -> None:
        _check_seed(self.seed)


SplitRules: TypeAlias = StrongGeneralisation | GivenSplit | LeaveLastOut | TimeSplit


class RuleFields(TypedDict, total=False):
    """The fields of `PrepareRules`, for functions that take them by name."""

    min_rating: float | None
    min_user_items: int | None
    min_item_users: int
    split: "SplitRules | SplitByLog"
    merge: Merge | None
    negative_values: tuple[float, ...]


@dataclass(frozen=True)
class PrepareRules:
    """What is kept, and who is held out.

    Args:
        min_rating: Keep ratings or counts of at least this; None keeps all but zeros, which say
            that there was no interaction.
        min_user_items: Drop users with fewer items; None takes 5, and 0 where the log brings its
            split.
        min_item_users: Drop items with fewer users; before users are counted, and once.
        split: The protocol, with its own rules.
        merge: How the rows of one user and item become one. ``any``: it is kept if any row reaches
            ``min_rating``. ``latest``: if the latest one does, the later in the file of two at the
            same time. ``sum``: values are counts, and their sum must reach it. None takes
            ``latest`` with ``negative_values``, else ``any``.
        negative_values: Values that say "unlike": such a row is no interaction, and takes back what
            came before it.

    Raises:
        ConfigError: if a value is out of its range.

    Example:
        >>> rules = PrepareRules(min_rating=4, min_item_users=20)
        >>> rules.merge, PrepareRules(negative_values=(0,)).negative_values
        (None, (0,))
    """

    min_rating: float | None = None
    min_user_items: int | None = None
    min_item_users: int = 0
    split: SplitRules | SplitByLog = field(default_factory=SplitByLog)
    merge: Merge | None = None
    negative_values: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        for value in (self.min_rating, *self.negative_values):
            if value is not None and not math.isfinite(value):
                raise ConfigError(
                    f"min_rating and negative_values must be finite numbers, found {value}; leave"
                    " min_rating out to keep all."
                )
        _check_least(self, 0, "min_user_items", "min_item_users")
        if self.merge is not None:
            _check_choice(self, "merge", Merge)

    def resolve(self, *, given_split: bool) -> "PrepareRules":
        """Fills in what the log decides, and refuses a split that it cannot have.

        Raises:
            ConfigError: if the log brings its split and another is asked for, or the other way.
        """
        split = self.split
        if isinstance(split, SplitByLog):
            split = (
                GivenSplit(seed=split.seed)
                if given_split
                else StrongGeneralisation(seed=split.seed)
            )
        if given_split != isinstance(split, GivenSplit):
            found = "brings its split" if given_split else "brings no split"
            raise ConfigError(
                f"the split must fit the log, which {found}, found {type(split).__name__}; leave"
                " the options of that split out."
            )
        least = split.min_user_items if self.min_user_items is None else self.min_user_items
        merge = self.merge or ("latest" if self.negative_values else "any")
        return replace(self, min_user_items=least, split=split, merge=merge)

    def stated(self) -> dict[str, Any]:
        """All rules by flat names, as JSON values: those of merging, repeats and the split's name
        where they are not what they were before there was a choice.

        Example:
            >>> PrepareRules(min_rating=4, split=LeaveLastOut()).stated()["last_n"]
            1
        """
        rules = {name: getattr(self, name) for name in _FILTERS}
        if self.merge not in (None, "any"):
            rules["merge"] = self.merge
        if self.negative_values:
            rules["negative_values"] = list(self.negative_values)
        if isinstance(self.split, LeaveLastOut | TimeSplit):
            rules["split"] = self.split.name
        return rules | {
            name: value.isoformat() if isinstance(value, date) else value
            for name, value in vars(self.split).items()
            if (name, value) != ("repeats", "drop")
        }


_FILTERS = ("min_rating", "min_user_items", "min_item_users")
_KINDS = {kind.name: kind for kind in get_args(SplitRules)}


def split_rules(name: str | None, options: Mapping[str, Any]) -> SplitRules | SplitByLog:
    """The split of that name; without a name the first that knows all the options.

    Args:
        name: ``strong``, ``given``, ``last`` or ``time``; or None.
        options: Values by name; None stands for what is not stated.

    Raises:
        ConfigError: if there is no such split, or it has no use for an option.

    Example:
        >>> split_rules("last", {"last_n": 2, "seed": None})
        LeaveLastOut(last_n=2)
        >>> split_rules(None, {"validation_share": 0.2})
        GivenSplit(validation_share=0.2, seed=98765)
    """
    if name is not None and name not in _KINDS:
        raise ConfigError(
            f"the split must be one of {', '.join(_KINDS)}, found {name!r}; choose one."
        )
    stated = {option: value for option, value in options.items() if value is not None}
    kinds = (_KINDS[name],) if name is not None else (SplitByLog, *_KINDS.values())
    for kind in kinds:
        if stated.keys() <= {one.name for one in fields(kind)}:
            chosen: SplitRules | SplitByLog = kind(**stated)
            return chosen
    raise ConfigError(
        f"the options must belong to one split, found {', '.join(stated)} for"
        f" {name or 'none by name'}; leave out those of another."
    )


def _check_least(rules: object, least: int, *names: str) -> None:
    for name in names:
        value = getattr(rules, name)
        if value is not None and value < least:
            raise ConfigError(f"{name} must be at least {least}, found {value}; raise it.")


def _check_century(rules: object, *names: str) -> None:
    for name in names:
        value = getattr(rules, name)
        if value is not None and value > _CENTURY_DAYS:
            raise ConfigError(
                f"{name} must be at most {_CENTURY_DAYS}, a century, found {value}; lower it."
            )


_CENTURY_DAYS = 36_525


def _check_share(rules: object, name: str) -> None:
    share = getattr(rules, name)
    if not 0 <= share < 1:
        raise ConfigError(
            f"{name} must be in [0, 1), found {share}; a fifth or a tenth is the custom."
        )


def _check_choice(rules: object, name: str, choices: Any) -> None:
    if getattr(rules, name) not in get_args(choices):
        known = ", ".join(get_args(choices))
        found = getattr(rules, name)
        raise ConfigError(f"{name} must be one of {known}, found {found!r}; choose one.")


def _check_seed(seed: int) -> None:
    if not 0 <= seed < 2**32:
        raise ConfigError(f"seed must be in [0, 2**32), found {seed}; choose another.")
