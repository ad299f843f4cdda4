"""What a validated run chose: all that a last training on everybody takes over from it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from coterie.config import RunConfig
from coterie.data.dataset import Dataset
from coterie.data.split import Part
from coterie.errors import ConfigError, NotFoundError
from coterie.training.run_config import run_config
from coterie.training.run_record import read_run
from coterie.training.warm_start import WarmStart


@dataclass(frozen=True)
class Chosen:
    """What a validated run chose.

    Args:
        config: The run's, with as many epochs as were best.
        facts: ``best_epoch`` and ``best_validation``, which a closed form has not, and
            ``refit_of``, the run's id. JSON values.
        parent: Fingerprint of the model that the run started from; None if it started anew.

    Example:
        >>> run = {"run_id": "20270115T080000Z-000000ff", "best_epoch": 7, "best_validation": 0.4}
        >>> Chosen.of(RunConfig(), run).config.training.epochs
        7
    """

    config: RunConfig
    facts: Mapping[str, Any]
    parent: str | None = None

    @classmethod
    def of(cls, config: RunConfig, provenance: Mapping[str, Any]) -> Self:
        """From a run's configuration and what its model says of itself.

        Raises:
            ConfigError: if the number of epochs was not chosen by validation.
        """
        facts, parent = {"refit_of": provenance.get("run_id")}, provenance.get("parent")
        if config.network_free():
            return cls(config, facts)
        epoch, value = provenance.get("best_epoch"), provenance.get("best_validation")
        if epoch is None or value is None:
            raise _nothing_chosen()
        facts |= {"best_epoch": epoch, "best_validation": value}
        return cls(run_config(config, epochs=epoch), facts, parent)

    @classmethod
    def by(cls, run: str | Path) -> Self:
        """From the folder of a finished run.

        Raises:
            NotFoundError: if there is no such folder, or no model in it yet.
            ArtifactError: if it is no run folder, or a file is damaged.
            ConfigError: as in `of`.
        """
        record = read_run(run)
        if record.model is None:
            raise NotFoundError(
                f"{run}: a run must have finished before it is refitted, no model was found there;"
                " go on with it (train --resume)."
            )
        return cls.of(RunConfig.of(record.model["config"]), record.provenance)

    def check_parent(self, warm: WarmStart | None) -> None:
        """Checks that a refit starts as the run did, after which the epochs were counted.

        Raises:
            ConfigError: if the model to start from is not the run's.
        """
        given = None if warm is None else warm.model.fingerprint
        if given is not None and given != self.parent:
            known = "none" if self.parent is None else f"the model {self.parent[:16]}"
            raise ConfigError(
                f"a refit must start as its run did, from {known}, found the model {given[:16]};"
                " give the run's (--warm-from), or leave it out if the run had none."
            )


def check_validates(dataset: Dataset, config: RunConfig) -> None:
    """Checks that a run to be refitted will have something to choose its epochs by.

    Raises:
        ConfigError: if it trains in epochs and there are no validation users.
    """
    if not config.network_free() and not len(dataset.cases(Part.VALIDATION).user_index):
        raise _nothing_chosen()


def _nothing_chosen() -> ConfigError:
    return ConfigError(
        "a refit takes the number of epochs that validation chose, found no validation users;"
        " choose it on a data set that has some, then refit that run (--refit-of)."
    )
