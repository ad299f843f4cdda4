"""What a table is: a protocol, rows, comparisons and curves, read from TOML and checked before
anything runs.

A definition (``tables/NAME.toml``) names configurations (``configs/``); a new row is one entry.
"""

import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import AfterValidator, Field, ValidationError, model_validator

from coterie.config import RunConfig, overlay, read_values
from coterie.data.read import Format
from coterie.data.rules import GivenSplit, PrepareRules, StrongGeneralisation
from coterie.errors import ConfigError, SourceError
from coterie.evaluation.metrics import Metric
from coterie.lab.ablations.variant import AblationConfig
from coterie.models.fields import PositiveInt, StrictConfig, explain

TABLES = Path(__file__).parent / "tables"
CONFIGS = Path(__file__).parent / "configs"


def _metric(name: str) -> str:
    return Metric.parse(name).name


MetricName = Annotated[str, AfterValidator(_metric)]
RowName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.+-]*$")]


class Source(StrictConfig):
    """One form in which the raw data may lie in the user's folder."""

    needs: str = Field(description="pattern that a file in the folder must match")
    whole_folder: bool = Field(
        False, description="whether the reader is given the folder instead of the file"
    )
    format: Format = Field(description="reader")
    titles: str | None = Field(
        None, description="file of titles in the folder, where the reader does not find it"
    )
    user_column: str | None = None
    item_column: str | None = None
    rating_column: str | None = None
    min_rating: float | None = Field(None, description="keep ratings or counts of at least this")


class Protocol(StrictConfig):
    """How raw files become a data set."""

    about: str = Field(description="what is kept, for the caption")
    sources: tuple[Source, ...] = Field(min_length=1, description="the first one found is used")
    given_split: bool = Field(False, description="whether the files bring their split")
    refit: bool = Field(
        False,
        description=(
            "train anew on training and validation together, for the best number of epochs, before"
            " the test"
        ),
    )
    min_user_items: int | None = Field(None, ge=0)
    min_item_users: int = Field(0, ge=0)
    held_out_users: PositiveInt | None = Field(
        None, description="validation users, and as many test users; none for a given split"
    )

    @model_validator(mode="after")
    def _one_kind_of_split(self) -> Self:
        if self.given_split == (self.held_out_users is not None):
            raise ConfigError(
                "held_out_users must be stated unless the split is given, and only then; set one of"
                " the two."
            )
        return self

    def find(self, folder: Path, title: str) -> tuple[Source, Path]:
        """The first source whose file is in ``folder``, and the path to give to its reader.

        Raises:
            SourceError: if there is none.
        """
        for source in self.sources:
            found = sorted(folder.glob(source.needs))
            if found:
                return source, folder if source.whole_folder else found[0]
        needed = " or ".join(source.needs for source in self.sources)
        raise SourceError(
            f"{title} must lie in this folder as {needed}, none was found; docs/reproduce.md says"
            " where to get it.",
            folder,
        )

    def rules(self, source: Source, seed: int, held_out_users: int | None = None) -> PrepareRules:
        """The rules of preparation for a source; ``held_out_users`` makes a smaller table."""
        return PrepareRules(
            min_rating=source.min_rating,
            min_user_items=self.min_user_items,
            min_item_users=self.min_item_users,
            split=GivenSplit(seed=seed)
            if self.given_split
            else StrongGeneralisation(held_out_users or self.held_out_users, seed=seed),
        )


class Size(StrictConfig):
    """Size of the prepared data set, as published or as measured: what an estimate starts from."""

    users: PositiveInt
    items: PositiveInt
    interactions: PositiveInt


class Published(StrictConfig):
    """Values that somebody published."""

    values: dict[MetricName, float] = Field(min_length=1)
    source: str
    checked: bool = Field(
        description="whether the value was read in its source; otherwise it is recalled"
    )


class Row(StrictConfig):
    """A model of the table."""

    name: RowName
    label: str
    config: str = Field(description="file in configs/")
    set: dict[str, Any] = Field(
        {}, description='fields laid over the file, as in "model.pia" = 0.3'
    )
    published: tuple[Published, ...] = ()
    exploratory: str = Field(
        "", description="why, if the row was chosen with knowledge of test users: no headline"
    )

    def configuration(self, seed: int = 0, epochs: int | None = None) -> RunConfig:
        """What to train with a seed, in ``epochs`` at most if given; a model without epochs has
        none to bound.

        Raises:
            ConfigError: if the file or a field laid over it is wrong.
        """
        values = overlay(read_values(CONFIGS / self.config), self.set)
        kind = AblationConfig if "variant" in values["model"] else RunConfig
        config = kind.of(values).with_seed(seed)
        if epochs is None or config.network_free():
            return config
        return kind.of(overlay(config.as_json(), {"training.epochs": epochs}))


class Elsewhere(StrictConfig):
    """A model that others published and that is not among the rows."""

    label: str
    published: tuple[Published, ...] = Field(min_length=1)


class Pair(StrictConfig):
    """A comparison: what may be better, and what it is held against."""

    candidate: str
    reference: str

    @property
    def name(self) -> str:
        """As in the tables."""
        return f"{self.candidate} over {self.reference}"


class Primary(Pair):
    """A comparison that a table was made for: its p-value stands as it is, all others are
    corrected for their number.
    """

    metric: MetricName


class Curve(StrictConfig):
    """One field of a configuration, varied: a row a value, each compared with the reference
    value.
    """

    name: RowName = Field(description="the row of a value is NAME-VALUE")
    label: str = Field(description="the field, for people: λ_A")
    config: str
    set: dict[str, Any] = Field({}, description="as of a row, the same for all values")
    field: str = Field(description="SECTION.FIELD")
    values: tuple[float, ...] = Field(min_length=2)
    reference: float

    @model_validator(mode="after")
    def _reference_is_a_value(self) -> Self:
        if self.reference not in self.values:
            raise ConfigError(
                f"the reference of curve {self.name} must be one of its values, found"
                f" {self.reference}; add it."
            )
        return self

    @property
    def rows(self) -> tuple[Row, ...]:
        """A row a value, in order."""
        return tuple(
            Row(
                name=self.row_name(value),
                label=f"{self.label} = {value:g}",
                config=self.config,
                set={**self.set, self.field: value},
            )
            for value in self.values
        )

    def row_name(self, value: float) -> str:
        """The row of a value."""
        return f"{self.name}-{value:g}"

    @property
    def pairs(self) -> tuple[Pair, ...]:
        """Every value against the reference."""
        reference = self.row_name(self.reference)
        return tuple(
            Pair(candidate=self.row_name(value), reference=reference)
            for value in self.values
            if value != self.reference
        )


class Definition(StrictConfig):
    """A table of the results book."""

    title: str
    metrics: tuple[MetricName, ...] = Field(min_length=1)
    compare_by: MetricName = Field(description="the metric of the comparison tables and curves")
    seeds: tuple[int, ...] = Field(
        min_length=1,
        description="seed s draws the split (or a given split's validation items) and trains",
    )
    chosen_on: int | None = Field(
        None, description="the split on whose validation users the configurations were chosen"
    )
    note: str = Field("", description="what a reader of the table must know")
    data: Protocol
    size: Size
    rows: tuple[Row, ...] = ()
    elsewhere: tuple[Elsewhere, ...] = ()
    comparisons: tuple[Pair, ...] = ()
    primary: tuple[Primary, ...] = Field(
        (), description="the few comparisons the table was made for, stated before it is run"
    )
    curves: tuple[Curve, ...] = ()

    @model_validator(mode="after")
    def _names_fit(self) -> Self:
        names = [row.name for row in self.all_rows]
        if not names or len({*names, "data"}) <= len(names):
            raise ConfigError(
                "rows must have names of their own, none of them data, found"
                f" {', '.join(names) or 'no row'}; rename them."
            )
        unknown = {
            name for pair in self.comparisons for name in (pair.candidate, pair.reference)
        } - set(names)
        if unknown:
            raise ConfigError(
                f"comparisons must be between rows, found {', '.join(sorted(unknown))}; rows are"
                f" {', '.join(names)}."
            )
        published = [
            *(one for row in self.rows for one in row.published),
            *(one for other in self.elsewhere for one in other.published),
        ]
        named = [metric for one in published for metric in one.values]
        foreign = {*named, self.compare_by} - set(self.metrics)
        if foreign:
            raise ConfigError(
                f"metrics must be among {', '.join(self.metrics)}, found"
                f" {', '.join(sorted(foreign))}; measure them too."
            )
        return self

    @model_validator(mode="after")
    def _primary_can_stand(self) -> Self:
        compared = {pair.name for pair in self.pairs}
        exploratory = {row.name for row in self.rows if row.exploratory}
        for one in self.primary:
            if one.name not in compared or one.metric not in self.metrics:
                raise ConfigError(
                    "a primary comparison must be one of the comparisons, by one of the metrics,"
                    f" found {one.name} by {one.metric}; add it there too."
                )
            if {one.candidate, one.reference} & exploratory:
                raise ConfigError(
                    "a primary comparison must be between rows that no test users helped to choose,"
                    f" found {one.name}; leave the exploratory row out."
                )
        return self

    @property
    def all_rows(self) -> tuple[Row, ...]:
        """The rows of the table and of its curves."""
        return (*self.rows, *(row for curve in self.curves for row in curve.rows))

    @property
    def pairs(self) -> tuple[Pair, ...]:
        """The comparisons of the table and of its curves."""
        return (*self.comparisons, *(pair for curve in self.curves for pair in curve.pairs))

    def choose(self, names: Iterable[str] | None) -> tuple[Row, ...]:
        """The rows of these names, in the table's order; all of them for None.

        Raises:
            ConfigError: if a name is none of a row.
        """
        if names is None:
            return self.all_rows
        known, wanted = {row.name for row in self.all_rows}, set(names)
        if not wanted or wanted - known:
            found = ", ".join(sorted(wanted - known)) or "none"
            raise ConfigError(
                f"rows must be among {', '.join(row.name for row in self.all_rows)}, found {found};"
                " choose some of them."
            )
        return tuple(row for row in self.all_rows if row.name in wanted)


def table_names() -> list[str]:
    """The tables there are.

    Example:
        >>> "ml-20m" in table_names()
        True
    """
    return sorted(path.stem for path in TABLES.glob("*.toml"))


def read_definition(name: str) -> Definition:
    """Reads and checks a definition, with every configuration it names.

    Raises:
        ConfigError: if there is no such table, or its definition or a configuration is wrong.

    Example:
        >>> read_definition("ml-1m").data.held_out_users
        600
    """
    if name not in table_names():
        raise ConfigError(
            f"the table must be one of {', '.join(table_names())}, found {name!r}; choose one of"
            " them."
        )
    try:
        definition = Definition.model_validate(
            tomllib.loads((TABLES / f"{name}.toml").read_text(encoding="utf-8"))
        )
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{name}.toml: must be TOML ({error}); correct it.") from error
    except ValidationError as error:
        raise ConfigError(f"{name}.toml: {explain(error)}") from error
    for row in definition.all_rows:
        row.configuration()
    return definition
