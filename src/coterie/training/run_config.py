"""A run's configuration from what people have at hand: a model's, or a run's, and a few fields."""

from collections.abc import Mapping
from typing import Any, Literal, TypedDict, Unpack

from coterie.config import RunConfig, overlay
from coterie.errors import ConfigError
from coterie.models.kinds import ModelConfig


class TrainingFields(TypedDict, total=False):
    """The fields of `coterie.config.TrainingConfig`, as keywords."""

    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    metric: str
    validate_every: int
    patience: int
    chunk_items: int
    sampled_items: int
    start: Literal["random", "spectral", "warm"]
    start_rank: int
    shrink: float
    average: float
    implicit_slim: int
    slim_l2: float
    sparse_updates: bool
    seed: int


def run_config(
    config: RunConfig | ModelConfig | None = None,
    *,
    warm: bool = False,
    **fields: Unpack[TrainingFields],
) -> RunConfig:
    """A run's configuration.

    Args:
        config: Of a model, to be trained with the defaults; of a run; or None for a Mult-VAE with
            its defaults.
        warm: Whether training starts from a trained model's weights.
        fields: Of the training, over what ``config`` says. ``seed`` is taken by every model, the
            others by those that are trained in steps.

    Raises:
        ConfigError: if a field is unknown or out of range, or the model has no use for it.

    Example:
        >>> from coterie.models.ease import EaseConfig
        >>> from coterie.models.multvae import MultVAEConfig
        >>> found = run_config(MultVAEConfig(pia=0.3), epochs=5)
        >>> found.model.pia, found.training.epochs
        (0.3, 5)
        >>> run_config(EaseConfig(l2=300.0), seed=1).model.l2
        300.0
        >>> run_config(EaseConfig(), epochs=5)
        Traceback (most recent call last):
        ...
        coterie.errors.ConfigError: ...[training] must be absent for ease...
    """
    if not isinstance(config, RunConfig):
        config = RunConfig() if config is None else RunConfig.of({"model": config})
    seed = fields.pop("seed", None)
    values = config.as_json()
    if fields:
        values = {**values, "training": {**values.get("training", {}), **fields}}
    if fields or warm:
        # Of its own kind: the laboratory has configurations with more models.
        config = config.of(warm_values(values, type(config)) if warm else values)
    return config if seed is None else config.with_seed(seed)


def warm_values(values: Mapping[str, Any], kind: type[RunConfig] = RunConfig) -> dict[str, Any]:
    """The fields of a run that starts from a trained model's weights.

    Args:
        values: Nested, as `RunConfig.of` reads them.
        kind: What will read them.

    Raises:
        ConfigError: if the model is computed at once, or another start is asked for.

    Example:
        >>> warm_values({"training": {"shrink": 0.5}})
        {'training': {'shrink': 0.5, 'start': 'warm'}}
    """
    model = kind.of({name: values[name] for name in ("model",) if name in values})
    if model.network_free():
        raise ConfigError(
            f"a warm start must be of a model that is trained in steps, {model.model.name} is"
            " computed at once from its data and needs none; leave out the model to start from"
            " (warm_from, --warm-from)."
        )
    if values.get("training", {}).get("start") == "spectral":
        raise ConfigError(
            "training.start must be warm where there is a model to start from, found spectral;"
            " leave one of them out."
        )
    return overlay(values, {"training.start": "warm"})


def check_parent(config: RunConfig, warm: Mapping[str, Any] | None) -> None:
    """Checks that a warm start has something to start from.

    Args:
        config: Of the run.
        warm: What is known of the start; None if there is no model to start from.

    Raises:
        ConfigError: if it has not.
    """
    if config.training.start == "warm" and warm is None:
        raise ConfigError(
            "a warm start needs the trained model it starts from, found none; give it (warm_from,"
            " --warm-from), or set training.start to random."
        )
