"""What an experiment is: its arms, who may be in it, and what it will be judged by.

One TOML file, ``experiments/NAME.toml`` of a service's folder, complete before the first day: what
is chosen after a look at the outcome is no longer what the error rates are computed for.

name = "linear-path"
days = 28
control = "most-watched"

[[arms]]
name = "linear-path"
version = "live"

[[arms]]
name = "most-watched"
config = "most-watched.toml"
"""

import tomllib
from collections import Counter
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeAlias

from pydantic import Field, ValidationError, model_validator

from coterie.errors import ConfigError, NotFoundError
from coterie.models.fields import PositiveInt, StrictConfig, explain

LISTS = "lists"
"""The layer of those experiments whose arms are models: a user has one list, so one such arm."""

LIVE = "live"
"""As an arm's version: whichever model is live on the day."""

ERROR = "log_error"
"""In a definition's plan: the standard error of ln(1 + lift) that was planned for the last day."""

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,39}$")]
Share = Annotated[float, Field(ge=0, le=1)]

MetricName: TypeAlias = Literal["clicks-per-view", "clicks-per-user", "watch-time"]


class Arm(StrictConfig):
    """One of the alternatives, and the model behind it."""

    name: Name = Field(description="unique in the experiment")
    weight: float = Field(1.0, gt=0, description="of its share among the arms")
    version: str | None = Field(
        None, description='of the registry, or "live": whichever model is live on the day'
    )
    config: str | None = Field(
        None, description="a run's configuration, beside this file, which weekly trains"
    )


class Metrics(StrictConfig):
    """What arms are compared by."""

    primary: MetricName = Field("clicks-per-view", description="the one that decides")
    card: str | None = Field(None, description="that the primary is of; absent = all together")
    cards: tuple[str, ...] = Field((), description="that each metric is told for, too")


class Looks(StrictConfig):
    """When the outcome is looked at, which the intervals must know of."""

    kind: Literal["fixed", "planned", "daily"] = Field(
        "fixed", description="once at the end; on planned days; or on any day, without a plan"
    )
    days: tuple[PositiveInt, ...] = Field(
        (), description="of planned looks, counted from 1; the last one is the experiment's last"
    )
    alpha: float = Field(0.05, gt=0, lt=1, description="two-sided probability of a false alarm")
    spending: Literal["obrien-fleming", "pocock"] = Field(
        "obrien-fleming", description="how planned looks share it: little at first, or evenly"
    )


class Cap(StrictConfig):
    """What a person can be believed to do. The rules do not look at the arm."""

    daily_views: PositiveInt = Field(
        1000, description="card views on one day above which a user is left out from then on"
    )
    winsorise: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        None, description="quantile of all users' sums to which larger ones in numerators are cut"
    )


class Guardrails(StrictConfig):
    """How much worse than the control an arm may be in what the metrics do not tell. What is beyond
    is told, and voids nothing.
    """

    titles: float = Field(
        0.8, ge=0, description="titles shown in as many views, at least, by the control's"
    )
    fallback: Share = Field(
        0.01, description="users with the fall-back list, at most, above the control's share"
    )
    latency: float = Field(
        1.2, gt=0, description="95th percentile of latency_ms, at most, by the control's"
    )


class Experiment(StrictConfig):
    """All of it.

    Example:
        >>> arms = [{"name": "a", "version": "live"}, {"name": "b", "config": "b.toml"}]
        >>> one = Experiment(name="lists-1", days=28, control="a", arms=arms)
        >>> one.salt, one.share, [arm.weight for arm in one.arms]
        ('lists-1', 1.0, [1.0, 1.0])
        >>> Experiment(name="lists-1", days=28, control="c", arms=arms)
        Traceback (most recent call last):
        ...
        coterie.errors.ConfigError: control must be one of the arms a, b, found 'c'; name one.
    """

    name: Name = Field(description="the file's")
    layer: Name = Field(
        LISTS, description="experiments of one layer share its users, those of two do not mind"
    )
    salt: str = Field("", description="of the arms' hash; absent = the name")
    start: date | None = Field(None, description="first day; absent = the day it is started")
    days: PositiveInt = Field(description="that it is planned to run")
    share: Share = Field(1.0, gt=0, description="of the layer's users; may only be raised later")
    first: Share = Field(0.0, description="where in the layer, 0 to 1, its share begins")
    control: str = Field(description="the arm that others are held against")
    arms: tuple[Arm, ...] = Field(description="two or more")
    metrics: Metrics = Metrics()
    looks: Looks = Looks()
    cap: Cap = Cap()
    guardrails: Guardrails = Guardrails()
    plan: dict[str, Any] = Field(
        default_factory=dict, description="what coterie experiment plan said of it"
    )

    @model_validator(mode="before")
    @classmethod
    def _salted(cls, values: Any) -> Any:
        if isinstance(values, Mapping) and not values.get("salt"):
            return {**values, "salt": values.get("name", "")}
        return values

    @model_validator(mode="after")
    def _has_arms(self) -> Self:
        names = [arm.name for arm in self.arms]
        if len(names) < 2 or max(Counter(names).values()) > 1:
            raise ConfigError(
                f"arms must be two or more, each with a name of its own, found {names}; name them."
            )
        if self.control not in names:
            raise ConfigError(
                f"control must be one of the arms {', '.join(names)}, found {self.control!r};"
                " name one."
            )
        return self

    @model_validator(mode="after")
    def _has_models(self) -> Self:
        for arm in self.arms:
            given = (arm.version is not None) + (arm.config is not None)
            wanted = int(self.layer == LISTS)
            if given != wanted:
                raise ConfigError(
                    f"an arm of the layer {self.layer!r} must name"
                    f" {'a version or a config, one of them' if wanted else 'no model'}, found"
                    f" {given} in {arm.name!r}; models are arms of the layer {LISTS!r} alone."
                )
        return self

    @model_validator(mode="after")
    def _is_inside(self) -> Self:
        if self.first + self.share > 1 + 1e-9:
            raise ConfigError(
                f"first + share must be at most 1, the end of the layer, found {self.first} +"
                f" {self.share}; lower one."
            )
        return self

    @model_validator(mode="after")
    def _looks_within(self) -> Self:
        days, is_planned = self.looks.days, self.looks.kind == "planned"
        if is_planned != bool(days) or list(days) != sorted({*days}):
            raise ConfigError(
                f"looks.days must rise where looks are planned, and be absent elsewhere, found"
                f" {list(days)} with kind = {self.looks.kind!r}; correct them."
            )
        if is_planned and days[-1] != self.days:
            raise ConfigError(
                f"the last planned look must be on the last day, {self.days}, found {days[-1]};"
                " correct looks.days or days."
            )
        return self

    @property
    def weights(self) -> dict[str, float]:
        """Each arm's share among those in the experiment; they add up to 1."""
        total = sum(arm.weight for arm in self.arms)
        return {arm.name: arm.weight / total for arm in self.arms}


def read_experiment(path: str | Path) -> Experiment:
    """Reads a definition, whose name is the file's.

    Raises:
        NotFoundError: if there is no such file.
        ConfigError: if it is no TOML, or naming every field that is unknown or out of range.
    """
    path = Path(path)
    if not path.is_file():
        raise NotFoundError(f"{path}: an experiment must be defined, no file was found; write it.")
    try:
        told = tomllib.loads(path.read_text(encoding="utf-8-sig"))
        found = Experiment.model_validate({"name": path.stem, **told})
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: must be TOML ({error}); correct its syntax.") from error
    except ValidationError as error:
        raise ConfigError(
            f"{path}: {explain(error, 'the page on experiments has all.')}"
        ) from error
    if found.name != path.stem:
        raise ConfigError(
            f"{path}: name must be the file's, {path.stem!r}, found {found.name!r}; rename one."
        )
    return found
