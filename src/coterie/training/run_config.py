"""A run's configuration from what people have at hand: a model's, or a run's, and a few fields."""

from typing import Literal, TypedDict, Unpack

from coterie.config import RunConfig
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
    start: Literal["random", "spectral"]
    start_rank: int
    average: float
    sparse_updates: bool
    seed: int


def run_config(
    config: RunConfig | ModelConfig | None = None, **fields: Unpack[TrainingFields]
) -> RunConfig:
    """A run's configuration.

    Args:
        config: Of a model, to be trained with the defaults; of a run; or None for a Mult-VAE with
            its defaults.
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
    if fields:
        values = config.as_json()
        # Of its own kind: the laboratory has configurations with more models.
        config = config.of({**values, "training": {**values.get("training", {}), **fields}})
    return config if seed is None else config.with_seed(seed)
