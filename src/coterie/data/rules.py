"""The rules of preparation: what is kept, and who is held out."""

import math
from dataclasses import dataclass, replace

from coterie.errors import ConfigError


@dataclass(frozen=True)
class PrepareRules:
    """What is kept, and who is held out. None takes the default of the log's kind of split.

    Args:
        min_rating: Keep ratings or counts of at least this; None keeps all.
        min_user_items: Drop users with fewer items; by default 5, and 0 where the log brings its
            split.
        min_item_users: Drop items with fewer users; before users are counted, and once.
        held_out_users: Number of validation users, and of test users; by default a tenth of all
            users each.
        held_out_share: Share of a held-out user's items that is hidden; by default 0.2.
        validation_share: Share of every user's training items taken for validation where the log
            brings its split; by default 0.1.
        seed: Of every draw.

    Raises:
        ConfigError: if a value is out of its range.
    """

    min_rating: float | None = None
    min_user_items: int | None = None
    min_item_users: int = 0
    held_out_users: int | None = None
    held_out_share: float | None = None
    validation_share: float | None = None
    seed: int = 98765

    def __post_init__(self) -> None:
        if self.min_rating is not None and not math.isfinite(self.min_rating):
            raise ConfigError(
                f"min_rating must be a finite number, found {self.min_rating}; leave it out to keep"
                " all."
            )
        for name in ("min_user_items", "min_item_users"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise ConfigError(f"{name} must be at least 0, found {value}; 0 keeps all.")
        for name in ("held_out_share", "validation_share"):
            share = getattr(self, name)
            if share is not None and not 0 <= share < 1:
                raise ConfigError(
                    f"{name} must be in [0, 1), found {share}; a fifth or a tenth is the custom."
                )
        if not 0 <= self.seed < 2**32:
            raise ConfigError(f"seed must be in [0, 2**32), found {self.seed}; choose another.")

    def resolve(self, *, given_split: bool) -> "PrepareRules":
        """Fills the defaults in, and refuses a rule that the kind of split would ignore.

        Raises:
            ConfigError: if such a rule is set.
        """
        idle = ("held_out_users", "held_out_share") if given_split else ("validation_share",)
        for name in idle:
            if getattr(self, name) is not None:
                kind = "brings its split" if given_split else "brings no split"
                raise ConfigError(
                    f"{name} must be left out: the log {kind}, so it would change nothing; found"
                    f" {getattr(self, name)}."
                )
        if given_split:
            return replace(
                self,
                min_user_items=self.min_user_items or 0,
                validation_share=_or(self.validation_share, 0.1),
            )
        least = 5 if self.min_user_items is None else self.min_user_items
        return replace(self, min_user_items=least, held_out_share=_or(self.held_out_share, 0.2))


def _or(value: float | None, default: float) -> float:
    return default if value is None else value
