"""The one file of a service: what it reads, trains, checks, publishes and keeps.

Paths in it are relative to the file. Secrets are never in it: an address may name a variable of
the environment, as in ``${COTERIE_DB}``, which is read when it is used and never printed.
"""

import os
import re
from datetime import date, timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from coterie.config import AnyModelConfig, RunConfig, TrainingConfig, read_values
from coterie.data.source import is_url
from coterie.data.table_options import IdType, TimeUnit
from coterie.errors import ConfigError, NotFoundError
from coterie.experiment import EventSources, Experiments, Holdout
from coterie.models.fields import PositiveInt, StrictConfig, explain
from coterie.models.linear_path_vae import LinearPathVAEConfig
from coterie.serving import Limits

FILE = "coterie.toml"
_WEEK_DAYS = 7
"""Weekly's window ends on the Monday before, up to six days earlier than daily's."""

Share = Annotated[float, Field(ge=0, le=1)]


class EventsConfig(StrictConfig):
    """Where each day's events are, as they arrived on that day."""

    path: str = Field(
        "events/day=%Y-%m-%d",
        description="a day's folder or file, with %Y, %m and %d for its date; or a database's URL",
    )
    query: str | None = Field(
        None,
        description="SQL of a day's rows, where path is a database; {day} and {next_day} are dates",
    )
    late_days: int = Field(
        2,
        ge=0,
        description="days after a day's end in which each run asks a database for it again",
    )
    user_column: str = Field("user_id", description="of user ids")
    item_column: str = Field("item_id", description="of item ids")
    timestamp_column: str = Field("timestamp", description="of times; every event has one")
    value_column: str | None = Field(None, description="a rating, a count, seconds watched")
    timestamp_unit: TimeUnit = Field("auto", description="s, ms, us or ns; auto looks")
    user_id_type: IdType = Field("auto", description="integer or text; auto looks")
    item_id_type: IdType = Field("auto", description="the same of items")
    columns: tuple[str, ...] | None = Field(None, description="of text without a header")
    delimiter: str | None = Field(None, description="of text; absent = found")

    @model_validator(mode="after")
    def _names_a_day(self) -> Self:
        text = self.path if self.query is None else self.query
        if not re.search(r"%[YmdjGVu]|\{day\}", text):
            raise ConfigError(
                f"events must name a day, as in events/day=%Y-%m-%d or {{day}} in a query, found"
                f" {text!r}; say where a day's date stands."
            )
        return self


class TitlesConfig(StrictConfig):
    """The table of titles: what can be recommended, and when."""

    path: str | None = Field(None, description="Parquet or CSV; absent = no titles")
    item_column: str = Field("item_id", description="of item ids")
    title_column: str | None = Field("title", description="of names")
    kind_column: str | None = Field(None, description="such as movie or series, for card rows")
    from_column: str | None = Field(None, description="first date of being available")
    until_column: str | None = Field(None, description="first date of being so no longer")


class PrepareConfig(StrictConfig):
    """What of the log is trained on, and what the candidate is measured on."""

    window_days: PositiveInt = Field(182, description="days of events that are trained on")
    min_value: float | None = Field(None, description="keep events of at least this value")
    min_user_items: PositiveInt = Field(5, description="items of a user to be trained on")
    min_item_users: PositiveInt = Field(2, description="users of an item to be trained on")
    held_out_users: float = Field(
        0.1,
        gt=0,
        lt=1,
        description="share of users who do not train the candidate but choose its epochs",
    )
    test_days: PositiveInt = Field(7, description="last days, which the candidate is measured on")


class RowConfig(StrictConfig):
    """A card row: a list for every user."""

    k: PositiveInt = Field(100, description="titles in a list")
    kinds: tuple[str, ...] = Field((), description="kinds of titles; none = all")
    allow: str | None = Field(None, description="file of the only item ids, one a line")
    deny: str | None = Field(None, description="file of item ids to leave out, one a line")
    watched: Literal["leave-out", "keep"] = Field(
        "leave-out", description="what of a user's own history a list does"
    )


class GatesConfig(StrictConfig):
    """What a candidate must hold to become live; every bound can be set."""

    metric: str = Field("ndcg@20", description="which candidate and live model are compared by")
    volume: tuple[float, float] = Field(
        (0.5, 2.0), description="a day's events over the same weekday's median of four weeks"
    )
    known_users: Share = Field(0.2, description="of the test days' users, share seen before")
    known_items: Share = Field(0.6, description="of the test days' events, share of known items")
    live_on_new_days: Share = Field(
        0.5, description="the live model's metric on the test days over its own when it was tested"
    )
    margin_live: float = Field(0.03, ge=0, description="loss allowed to the live model, relative")
    margin_best: float = Field(0.05, ge=0, description="and to the best of the last eight versions")
    margin_baseline: float = Field(0.05, ge=0, description="and to EASE and to popularity")
    margin_cohort: float = Field(
        0.10, ge=0, description="of users of like activity, and certain beyond chance"
    )
    coverage: Share = Field(
        0.005, description="share of the catalogue in somebody's list, at least"
    )
    popularity: float = Field(
        3.0, gt=0, description="mean popularity of lists over that of what people watch, at most"
    )
    turnover: tuple[float, float] = Field(
        (0.1, 1.0), description="share of a list that stays, live to candidate, on average"
    )
    distinct: Share = Field(
        0.02,
        description="share of a list that another user's has not, at least: no collapse",
    )
    golden_users: PositiveInt = Field(20, description="users whose lists a fresh process repeats")


class StoreConfig(StrictConfig):
    """Where lists are published."""

    url: str = Field(
        "sqlite:///store", description="sqlite:///FOLDER or postgresql://…, or ${VARIABLE}"
    )


class ScheduleConfig(StrictConfig):
    """When the jobs are to run, in UTC."""

    weekly: str = Field("Mon 03:00", description="weekday and time")
    daily: str = Field("05:00", description="time")


class RetentionConfig(StrictConfig):
    """What is kept."""

    versions: PositiveInt = Field(8, description="of models")
    editions: PositiveInt = Field(14, description="days of lists")
    days: PositiveInt = Field(
        400, description="of collected events; at least the window and a week"
    )


class WatchConfig(StrictConfig):
    """Bounds beyond which a daily run warns."""

    fallback_share: Share = Field(0.3, description="users who get the fall-back, at most")
    unknown_items: Share = Field(0.2, description="events of items unknown to the model, at most")
    overlap: Share = Field(0.2, description="of a list with yesterday's, at least")
    model_age_days: PositiveInt = Field(10, description="age of the live model, at most")
    volume: tuple[float, float] = Field(
        (0.5, 2.0), description="events over the same weekday's median of four weeks"
    )


class ExperimentsConfig(StrictConfig):
    """Who is kept out of experiments; what they are is in ``experiments/NAME.toml``."""

    holdout: Share = Field(
        0.0, description="share of users who are in no experiment that is started from now on"
    )
    salt: str = Field("holdout", description="of their hash; another one draws others")
    before_days: int = Field(
        14, ge=0, description="days before an experiment that tell what users were like"
    )
    events: EventSources = Field(
        EventSources(), description="where views, clicks and watches of cards are"
    )


class RegistryConfig(StrictConfig):
    """The versions of the model, beside the registry itself."""

    mlflow: bool = Field(
        False, description="log each new version to MLflow, at MLFLOW_TRACKING_URI, too"
    )


class ServeConfig(StrictConfig):
    """The API."""

    host: str = Field("127.0.0.1", description="address; beyond this machine a key is needed")
    port: int = Field(8080, ge=0, le=65535, description="0 = any that is free")
    key_variable: str = Field(
        "COTERIE_API_KEY",
        description="variable of the environment that holds the key, or several",
    )
    limits: Limits = Limits()


class ServiceConfig(StrictConfig):
    """All of it."""

    name: str = Field(
        "service",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$",
        description="in systemd's units, Dagster and MLflow",
    )
    events: EventsConfig = EventsConfig()
    titles: TitlesConfig = TitlesConfig()
    prepare: PrepareConfig = PrepareConfig()
    model: Annotated[AnyModelConfig, Field(discriminator="name")] = LinearPathVAEConfig()
    training: TrainingConfig | None = None
    start: Literal["warm", "cold", "best"] = Field(
        "best",
        description="from the live model, anew, or whichever is better on validation users",
    )
    rows: dict[str, RowConfig] = Field(default_factory=lambda: {"main": RowConfig()})
    gates: GatesConfig = GatesConfig()
    watch: WatchConfig = WatchConfig()
    store: StoreConfig = StoreConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    retention: RetentionConfig = RetentionConfig()
    experiments: ExperimentsConfig = ExperimentsConfig()
    registry: RegistryConfig = RegistryConfig()
    serve: ServeConfig = ServeConfig()

    @model_validator(mode="after")
    def _has_rows(self) -> Self:
        if not self.rows:
            raise ConfigError("there must be a card row, found none; leave [rows] out for main.")
        return self

    @model_validator(mode="after")
    def _keeps_what_it_reads(self) -> Self:
        """Else each daily run would remove days that the next run collects again."""
        kept, window = self.retention.days, self.prepare.window_days
        least = window + _WEEK_DAYS
        if kept < least:
            raise ConfigError(
                f"retention.days must be at least {least}, the window (prepare.window_days ="
                f" {window}) and a week, found {kept}; raise retention.days to {least}, or lower"
                " prepare.window_days."
            )
        return self

    @property
    def run(self) -> RunConfig:
        """The configuration of a training run."""
        model: dict[str, Any] = {"model": self.model.model_dump(exclude_unset=True)}
        model["model"]["name"] = self.model.name
        training = self.training
        return RunConfig.of(
            model if training is None else model | {"training": training.model_dump()}
        )


class Service:
    """A service's folder and configuration.

    Args:
        folder: With its ``coterie.toml``.
        config: What the file says.
    """

    def __init__(self, folder: Path, config: ServiceConfig) -> None:
        self.folder, self.config = folder, config

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Reads the file of a service.

        Args:
            folder: The service's, or the file itself.

        Raises:
            NotFoundError: if there is no such file.
            ConfigError: naming every unknown field and every value out of range.
        """
        path = Path(folder)
        path = path / FILE if path.is_dir() else path
        if not path.is_file():
            raise NotFoundError(
                f"{path}: a service must have a {FILE}, none was found; coterie init writes one."
            )
        try:
            return cls(path.parent, ServiceConfig.model_validate(read_values(path)))
        except ValidationError as error:
            told = explain(error, "the page on operations describes every field.")
            raise ConfigError(f"{path}: {told}") from error

    def place(self, path: str) -> str:
        """A path of the file as it is to be opened: relative ones from the file on; variables of
        the environment filled in.

        Raises:
            ConfigError: if a variable is not set.
        """
        text = re.sub(r"\$\{(\w+)\}", _variable, path)
        if text.startswith("sqlite:///") and not text.startswith("sqlite:////"):
            return f"sqlite:///{(self.folder / text.removeprefix('sqlite:///')).resolve()}"
        return text if is_url(text) else str(self.folder / text)

    def day_path(self, day: date) -> str:
        """Where a day's events are."""
        path = self.config.events.path
        return self.place(path if self.config.events.query else day.strftime(path))

    @property
    def work(self) -> Path:
        """What jobs keep for themselves."""
        return self.folder / "work"

    @property
    def experiments(self) -> Experiments:
        """Its experiments, defined and started."""
        config = self.config.experiments
        return Experiments(self.folder / "experiments", Holdout(config.holdout, config.salt))

    def report(self, experiment: str) -> Path:
        """Where an experiment's report is written to and looked for.

        Args:
            experiment: Its name.
        """
        return self.folder / "reports" / experiment

    @property
    def registry(self) -> Path:
        """The models' folder."""
        return self.folder / "registry"


def _variable(found: re.Match[str]) -> str:
    value = os.environ.get(found[1])
    if value is None:
        raise ConfigError(
            f"the variable {found[1]} must be set in the environment, it is not; export it."
        )
    return value


def monday(day: date) -> date:
    """The Monday of a day's week.

    Example:
        >>> monday(date(2026, 11, 28)).isoformat()
        '2026-11-23'
    """
    return day - timedelta(days=day.weekday())


def days_of(first: date, stop: date) -> list[date]:
    """Every day from ``first`` to before ``stop``."""
    return [first + timedelta(days=n) for n in range((stop - first).days)]
