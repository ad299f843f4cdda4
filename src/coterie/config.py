"""The configuration of a run: which model, trained how; built in Python or read from TOML.

[model]
name = "mult-vae"
pia = 0.3

[training]
epochs = 100
"""

import copy
import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, TypeAlias, get_args, get_origin

import tomlkit
from pydantic import AfterValidator, Field, ValidationError, model_validator
from pydantic.fields import FieldInfo
from tomlkit.items import Table

from coterie.errors import ConfigError
from coterie.evaluation.metrics import Metric
from coterie.models.ease import EaseConfig
from coterie.models.fields import (
    PositiveInt,
    SearchChoice,
    SearchRange,
    StrictConfig,
    explain,
)
from coterie.models.graph_filter import BspmConfig, GfCfConfig
from coterie.models.ials import IalsConfig
from coterie.models.item_item import ItemKnnConfig, Rp3BetaConfig, SlimConfig
from coterie.models.kinds import SteppedConfig
from coterie.models.linear_path_recvae import LinearPathRecVAEConfig
from coterie.models.linear_path_vae import LinearPathVAEConfig
from coterie.models.most_watched import MostWatchedConfig
from coterie.models.multdae import MultDAEConfig
from coterie.models.multvae import MultVAEConfig
from coterie.models.popularity import PopularityConfig
from coterie.models.recvae import RecVAEConfig
from coterie.models.vamp_vae import VampVAEConfig

AnyModelConfig: TypeAlias = (
    MultVAEConfig
    | MultDAEConfig
    | RecVAEConfig
    | VampVAEConfig
    | LinearPathVAEConfig
    | LinearPathRecVAEConfig
    | EaseConfig
    | PopularityConfig
    | MostWatchedConfig
    | ItemKnnConfig
    | Rp3BetaConfig
    | SlimConfig
    | IalsConfig
    | GfCfConfig
    | BspmConfig
)
"""Every model there is: the one place that lists them."""

MODEL_NAMES: tuple[str, ...] = tuple(
    model.model_fields["name"].default for model in get_args(AnyModelConfig)
)
"""Their names, as in ``--model``."""


def _metric(name: str) -> str:
    try:
        return Metric.parse(name).name
    except ConfigError as error:
        raise ValueError(str(error)) from error


SHRINK = 0.8
"""What a warm start shrinks weights by if nothing is said (decision 19)."""

SLIM_L2 = 100.0
"""ImplicitSLIM's ridge if nothing is said (decision 18)."""


class TrainingConfig(StrictConfig):
    """How a network is trained; models with a closed form need none of it.

    Example:
        >>> TrainingConfig(epochs=40, metric="recall@20").batch_size
        200
    """

    epochs: PositiveInt = Field(150, description="passes over the training users, at most")
    batch_size: PositiveInt = Field(200, description="users a step")
    learning_rate: float = Field(1e-3, gt=0, description="Adam's step size")
    weight_decay: float = Field(
        0.0, ge=0, description="L2: adds weight_decay · w to the gradient of every weight matrix"
    )
    metric: Annotated[str, AfterValidator(_metric)] = Field(
        "ndcg@100", description="validation metric that chooses the best epoch"
    )
    validate_every: PositiveInt = Field(
        1, description="epochs from one validation to the next; the last epoch is always validated"
    )
    patience: PositiveInt = Field(
        12, description="validations without a better value before stopping early"
    )
    chunk_items: int = Field(
        0,
        ge=0,
        description=(
            "items whose logits live at once; 0 = all, or 4096 where a batch's logits pass 1 GiB"
        ),
    )
    sampled_items: int = Field(
        0,
        ge=0,
        description=(
            "items drawn a step to estimate the soft-max's normalizer; 0 = all items, exact"
        ),
    )
    start: Literal["random", "spectral", "warm"] = Field(
        "random",
        description=(
            "initial weights: drawn; the leading singular vectors of the interactions; or those of"
            " a trained model that is given to train, and then beta goes on from where it was"
        ),
    )
    start_rank: int = Field(
        0,
        ge=0,
        description="singular vectors of a spectral start; 0 = those that stand out from chance",
    )
    shrink: float = Field(
        SHRINK,
        ge=0,
        le=1,
        description=(
            "by which a warm start multiplies the weights it carries over; the rest is a fresh"
            " draw; 1 = a plain copy"
        ),
    )
    average: float = Field(
        0.0,
        ge=0,
        lt=1,
        description=(
            "share of all steps so far over which weights are averaged, which is then validated"
            " and kept; 0 = the weights themselves"
        ),
    )
    implicit_slim: int = Field(
        0,
        ge=0,
        description=(
            "epochs after which the items' vectors of the first and the last layer are drawn to"
            " where a sparse linear model would put them, again and again; 0 = never"
        ),
    )
    slim_l2: float = Field(SLIM_L2, gt=0, description="ridge of implicit_slim's linear model")
    sparse_updates: bool = Field(
        False,
        description=(
            "Adam moves only the rows of items that a batch meets (lazy Adam): for catalogues far"
            " larger than a batch"
        ),
    )
    seed: int = Field(0, ge=0, description="of initial weights, order of users, masks and noise")

    SEARCH: ClassVar = {
        "batch_size": SearchChoice((100, 200, 500)),
        "learning_rate": SearchRange(3e-4, 3e-3, log=True),
        "weight_decay": SearchRange(1e-7, 1e-3, log=True),
    }

    @model_validator(mode="after")
    def _no_decay_of_rows_not_met(self) -> Self:
        if self.sparse_updates and self.weight_decay:
            raise ConfigError(
                "weight_decay must be 0 with sparse_updates, which leave the rows not met alone;"
                " set one of them."
            )
        return self

    @model_validator(mode="after")
    def _no_rank_of_random_weights(self) -> Self:
        if self.start_rank and self.start != "spectral":
            raise ConfigError(
                f"start_rank must be 0 with {self.start} weights, found {self.start_rank}; set"
                " start to spectral, or leave the rank out."
            )
        return self

    @model_validator(mode="after")
    def _no_shrinking_of_nothing(self) -> Self:
        if self.shrink != SHRINK and self.start != "warm":
            raise ConfigError(
                f"shrink must be {SHRINK} with {self.start} weights, which are none to shrink,"
                f" found {self.shrink}; give a model to start from (--warm-from), or leave it out."
            )
        return self

    @model_validator(mode="after")
    def _no_ridge_of_nothing(self) -> Self:
        if self.slim_l2 != SLIM_L2 and not self.implicit_slim:
            raise ConfigError(
                f"slim_l2 must be {SLIM_L2:g} without implicit_slim, found {self.slim_l2:g}; set"
                " implicit_slim, or leave it out."
            )
        return self

    @model_validator(mode="after")
    def _no_average_of_rows_not_met(self) -> Self:
        if self.sparse_updates and self.average:
            raise ConfigError(
                "average must be 0 with sparse_updates, it moves every row in every step; set one"
                " of them."
            )
        return self

    @model_validator(mode="after")
    def _no_chunks_of_a_sample(self) -> Self:
        if self.sampled_items and self.chunk_items:
            raise ConfigError(
                "chunk_items must be 0 with sampled_items, whose logits are never all computed; set"
                " one of them."
            )
        return self


class RunConfig(StrictConfig):
    """A model's configuration and its training's.

    Example:
        >>> RunConfig.of(
        ...     {"model": {"name": "mult-vae", "pia": 0.3}, "training": {"seed": 1}}
        ... ).model.pia
        0.3
        >>> RunConfig.of({"model": {"name": "mult-vae", "pai": 0.3}})
        Traceback (most recent call last):
        ...
        coterie.errors.ConfigError: model.mult-vae.pai: Extra inputs are not permitted...
    """

    model: Annotated[AnyModelConfig, Field(discriminator="name")] = MultVAEConfig()
    training: TrainingConfig = TrainingConfig()

    @model_validator(mode="after")
    def _no_idle_training(self) -> Self:
        if self.network_free() and "training" in self.model_fields_set:
            raise ConfigError(
                f"[training] must be absent for {self.model.name}, which is not trained in steps;"
                " remove it."
            )
        return self

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """Builds a configuration from nested mappings.

        Raises:
            ConfigError: naming every unknown field and every value out of range.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise ConfigError(explain(error)) from error

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Reads a ``.toml`` or ``.json`` file.

        Raises:
            ConfigError: if the file cannot be read or a field is wrong.
        """
        return cls.of(read_values(path))

    def network_free(self) -> bool:
        """Whether the model has a closed form and takes no training steps."""
        return not isinstance(self.model, SteppedConfig)

    def with_seed(self, seed: int) -> Self:
        """The same with another seed, wherever this model draws; without effect on one that draws
        nothing, so that a loop over models may set it.

        Example:
            >>> RunConfig().with_seed(7).training.seed
            7
            >>> RunConfig.of({"model": {"name": "ease"}}).with_seed(7).model.name
            'ease'
        """
        values = self.as_json()
        for section in ("model", "training"):
            if section in values and "seed" in values[section]:
                values[section]["seed"] = seed
        return self.of(values)

    def served(self) -> "RunConfig":
        """What an artifact holds of it: all, unless the laboratory trained the model."""
        return self

    def as_json(self) -> dict[str, Any]:
        """The configuration as JSON values; `of` reads it back."""
        values: dict[str, Any] = self.model_dump(mode="json")
        if self.network_free():
            del values["training"]
        return values


def overlay(values: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Nested mappings with some fields laid over them; the argument is left as it is.

    Args:
        values: As `RunConfig.of` reads them.
        options: By ``SECTION.FIELD``, or deeper.

    Raises:
        ConfigError: if a key names no section, or leads through a value that holds no fields.

    Example:
        >>> overlay({"model": {"name": "mult-vae"}}, {"model.pia": 0.3, "training.seed": 1})
        {'model': {'name': 'mult-vae', 'pia': 0.3}, 'training': {'seed': 1}}
    """
    laid = copy.deepcopy(dict(values))
    for key, value in options.items():
        *path, field = key.split(".")
        if not path:
            raise ConfigError(f"a field must be SECTION.FIELD, found {key!r}; as in model.pia.")
        place = laid
        for step in path:
            place = place.setdefault(step, {})
            if not isinstance(place, dict):
                raise ConfigError(
                    f"{key}: {step} must hold fields, found the value {place!r}; leave .{field}"
                    " out."
                )
        place[field] = value
    return laid


def read_values(path: str | Path) -> dict[str, Any]:
    """The nested mappings of a ``.toml`` or ``.json`` file, unchecked, for options to be laid
    over.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
        values: dict[str, Any] = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{path}: must be a readable TOML or JSON file ({error}); check the path and the"
            " syntax."
        ) from error
    return values


def as_toml(config: RunConfig, *, comments: bool = False) -> str:
    """A configuration as TOML, every field: a default may change.

    Args:
        config: What to write.
        comments: Whether each field's meaning stands above it.

    Example:
        >>> print(as_toml(RunConfig.of({"model": {"name": "ease", "l2": 300}})), end="")
        [model]
        name = "ease"
        l2 = 300.0
        popularity_exponent = 0.0
    """
    document = tomlkit.document()
    for section in config.as_json():
        document.add(section, _table(getattr(config, section), comments=comments))
    return tomlkit.dumps(document)


def _table(config: StrictConfig, *, comments: bool) -> Table:
    """The values, then the tables inside."""
    table, values = tomlkit.table(), config.model_dump(mode="json")
    inner = {name: part for name, part in config if isinstance(part, StrictConfig)}
    for name, about in type(config).model_fields.items():
        if name in inner:
            continue
        if comments and about.description:
            table.add(tomlkit.comment(about.description + _range(about)))
        # What is absent in TOML is None.
        if values[name] is not None:
            table.add(name, values[name])
        elif comments:
            table.add(tomlkit.comment(f"{name} is absent"))
    for name, part in inner.items():
        meaning = type(config).model_fields[name].description
        if comments and meaning:
            table.add(tomlkit.comment(meaning))
        table.add(name, _table(part, comments=comments))
    return table


def _range(field: FieldInfo) -> str:
    """Of a field: its bounds, or the values it may take."""
    signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
    bounds = [
        f"{signs[name]} {getattr(bound, name)}"
        for bound in field.metadata
        for name in signs
        if hasattr(bound, name)
    ]
    choices = get_args(field.annotation) if get_origin(field.annotation) is Literal else ()
    said = ", ".join([*bounds, *map(json.dumps, choices)])
    return f" ({said})" if said else ""
