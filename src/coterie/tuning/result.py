"""What a study found: its trials, the table people see, and the files beside the journal."""

import csv
import io
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from coterie.config import RunConfig, as_toml
from coterie.errors import ArtifactError
from coterie.files import publish_file
from coterie.plain_table import plain_table
from coterie.tuning.space import Space

_SHOWN = 5


@dataclass(frozen=True)
class Trial:
    """One configuration that was tried.

    Args:
        number: From 0, in order of beginning.
        state: ``"complete"``, ``"pruned"``, ``"failed"`` or ``"running"``, which may also be
            interrupted.
        value: The metric: the best of all epochs if complete, the last one's if pruned.
        epochs: At the last validation; 0 for a closed form.
        seconds: That training and validating took.
        values: The fields that were chosen.
        error: Why it failed, if it did.
    """

    number: int
    state: str
    value: float | None
    epochs: int
    seconds: float | None
    values: Mapping[str, Any]
    error: str | None


@dataclass(frozen=True)
class TuningResult:
    """A study as it stands.

    Args:
        folder: Of the study.
        metric: On the validation users; more is better.
        space: What was searched.
        trials: By number.
        best: The best complete one, if any is.
        config: Its whole configuration.

    Example:
        >>> import tempfile
        >>> from coterie.models.fields import SearchRange
        >>> from coterie.simulation.service import simulate_dataset
        >>> from coterie.tuning.tune import tune
        >>> data = simulate_dataset(n_users=300, n_items=60, held_out_users=40, seed=1)
        >>> ease = RunConfig.of({"model": {"name": "ease"}})
        >>> space = {"model.l2": SearchRange(10, 1000, log=True)}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     result = tune(data, ease, out=folder, search=space, n_trials=3)
        >>> result.n_finished, result.best is result.trials[result.best.number]
        (3, True)
    """

    folder: Path
    metric: str
    space: Space
    trials: tuple[Trial, ...]
    best: Trial | None
    config: RunConfig | None

    @property
    def n_finished(self) -> int:
        """Trials that are complete, pruned or failed."""
        return sum(trial.state != "running" for trial in self.trials)

    def summary(self) -> str:
        """How many trials ended how, as in ``"20 trials: 14 complete, 6 pruned"``."""
        states = Counter(trial.state for trial in self.trials)
        counted = ", ".join(
            f"{states[state]} {state}"
            for state in ("complete", "pruned", "failed", "running")
            if states[state]
        )
        return f"{len(self.trials)} trial{'' if len(self.trials) == 1 else 's'}: {counted}"

    def __str__(self) -> str:
        """The best trials side by side, narrow enough for a terminal whatever was searched."""
        ranked = [
            trial for trial in self.trials if trial.state == "complete" and trial.value is not None
        ]
        ranked = sorted(ranked, key=lambda trial: (-(trial.value or 0), trial.number))[:_SHOWN]
        rows = [[self.metric, *(f"{trial.value:.4f}" for trial in ranked)]]
        rows += [
            [key.partition(".")[2], *(_shown(trial.values[key]) for trial in ranked)]
            for key in self.space
        ]
        rows += (
            [["epochs", *(str(trial.epochs) for trial in ranked)]]
            if any(trial.epochs for trial in ranked)
            else []
        )
        rows += [["seconds", *(_shown(trial.seconds) for trial in ranked)]]
        table = plain_table(
            ["trial", *(str(trial.number) for trial in ranked)],
            rows,
            [False] + [True] * len(ranked),
        )
        return f"{table}\n{self.summary()}" if ranked else self.summary()

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "folder": str(self.folder),
            "metric": self.metric,
            "search": {key: str(tried) for key, tried in self.space.items()},
            "best": None if self.best is None else asdict(self.best),
            "config": None if self.config is None else self.config.as_json(),
            "trials": [asdict(trial) for trial in self.trials],
        }


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def write_trials(path: Path, result: TuningResult) -> None:
    """Writes all trials as CSV, a column a field."""
    with publish_file(path) as aside, aside.open("w", newline="", encoding="utf-8") as file:
        lines = csv.writer(file, lineterminator="\n")
        lines.writerow(
            ["number", "state", result.metric, "epochs", "seconds", *result.space, "error"]
        )
        for trial in result.trials:
            values = [
                json.dumps(trial.values[key]) if key in trial.values else None
                for key in result.space
            ]
            lines.writerow(
                [
                    trial.number,
                    trial.state,
                    trial.value,
                    trial.epochs,
                    trial.seconds,
                    *values,
                    trial.error,
                ]
            )


def read_trials(path: Path, space: Space, metric: str) -> tuple[Trial, ...]:
    """Reads what `write_trials` wrote; no trials if there is no file yet.

    Raises:
        ArtifactError: if it is damaged.
    """
    try:
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        return tuple(_trial(line, space, metric) for line in csv.DictReader(io.StringIO(text)))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(
            f"{path}: must hold the trials of a study, a column a field ({error!r}); tune again,"
            " with as many trials, to have it written anew."
        ) from error


def _trial(line: Mapping[str, str], space: Space, metric: str) -> Trial:
    return Trial(
        int(line["number"]),
        line["state"],
        float(line[metric]) if line[metric] else None,
        int(line["epochs"]),
        float(line["seconds"]) if line["seconds"] else None,
        {key: json.loads(line[key]) for key in space if line[key]},
        line["error"] or None,
    )


def write_best(path: Path, result: TuningResult, dataset: str, command: str | None) -> None:
    """Writes the best configuration as TOML that ``coterie train --config`` reads, with where it
    comes from in comments.
    """
    assert result.best is not None
    assert result.config is not None
    made = [f"Found by: {command}"] if command else ["Found by coterie.tune"]
    made += [
        f"{result.metric} of the validation users: {result.best.value:.4f}, trial"
        f" {result.best.number}; {result.summary()}"
    ]
    made += [
        f"Searched: {', '.join(f'{key}={tried}' for key, tried in result.space.items())}",
        f"Data set: {dataset}",
    ]
    comments = "".join(f"# {' '.join(line.split())}\n" for line in made)
    with publish_file(path) as aside:
        aside.write_text(f"{comments}\n{as_toml(result.config)}", encoding="utf-8")
