"""What is known of finished runs: the reports of their evaluations, kept as Parquet, and the facts
of their folders.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from coterie.config import RunConfig
from coterie.data.dataset import Dataset
from coterie.data.split import Part
from coterie.errors import ConfigError
from coterie.evaluation.report import EvaluationReport
from coterie.files import publish_file, sha256
from coterie.training.run_record import read_history

PARTS = (Part.VALIDATION, Part.TEST)
_METADATA = b"coterie.report"


class Reports:
    """Evaluations on disk, every user's values, each beside the fingerprint of the model it is of.

    Args:
        folder: Where they are.
        metrics: Those wanted.
    """

    def __init__(self, folder: Path, metrics: Sequence[str]) -> None:
        self.folder, self.metrics = folder, metrics

    def write(self, run: Path, part: Part, report: EvaluationReport, seconds: float | None) -> None:
        """Keeps a report, and the seconds that the training took, where they were measured."""
        facts = json.dumps({"model": _model(run), "seconds": seconds})
        with publish_file(self._file(run, part)) as aside:
            pq.write_table(
                report.per_user_table().replace_schema_metadata({_METADATA: facts.encode()}), aside
            )

    def read(self, run: Path) -> dict[Part, EvaluationReport]:
        """The reports of a finished run; one that is missing, of another model or without a metric
        is left out.
        """
        columns, found = ["user_id", "n_interactions", *self.metrics], {}
        for part in PARTS:
            facts = self._facts(run, part)
            if facts.get("model") == _model(run):
                table = pq.read_table(self._file(run, part))
                if set(columns) <= set(table.column_names):
                    found[part] = EvaluationReport.from_table(table.select(columns))
        return found

    def facts(self, run: Path) -> dict[str, Any]:
        """``seconds`` of training, None where nobody measured them."""
        known = (self._facts(run, part).get("seconds") for part in PARTS)
        return {"seconds": next((seconds for seconds in known if seconds is not None), None)}

    def sweep(self) -> None:
        """Removes what a kill left half-written."""
        for leftover in self.folder.glob(".*.part*"):
            leftover.unlink()

    def _file(self, run: Path, part: Part) -> Path:
        return self.folder / f"{run.name}-{part.name.lower()}.parquet"

    def _facts(self, run: Path, part: Part) -> dict[str, Any]:
        file = self._file(run, part)
        metadata = (pq.read_schema(file).metadata or {}) if file.exists() else {}
        facts: dict[str, Any] = json.loads(metadata.get(_METADATA, b"{}"))
        return facts


def _model(run: Path) -> str:
    """The fingerprint of a run's model; version 0.1.0 wrote none, and took the manifest's sum."""
    path = run / "model" / "manifest.json"
    fingerprint: str | None = json.loads(path.read_text(encoding="utf-8")).get("fingerprint")
    return sha256(path) if fingerprint is None else fingerprint


def is_finished(run: Path, config: RunConfig, dataset: Dataset) -> bool:
    """Whether the run's model is there, of this configuration and data set; anything else is for
    `train` to judge.
    """
    if not (run / "model" / "manifest.json").exists():
        return False
    try:
        wanted = json.loads((run / "config.json").read_text(encoding="utf-8"))
        same = type(config).of(wanted["config"]) == config
        return bool(
            same and wanted["dataset"] == dataset.fingerprint and wanted["precision"] == "float32"
        )
    except (OSError, ValueError, KeyError, TypeError, ConfigError):
        return False


def facts_of(run: Path) -> dict[str, Any]:
    """What a finished run's folder says: environment, best epoch, and of a network its epochs and
    their seconds.
    """
    history = read_history(run) if (run / "history.jsonl").exists() else []
    measured = (
        {"epochs": len(history), "seconds": sum(entry["seconds"] for entry in history)}
        if history
        else {}
    )
    environment = json.loads((run / "environment.json").read_text(encoding="utf-8"))
    provenance = json.loads((run / "model" / "manifest.json").read_text(encoding="utf-8"))[
        "provenance"
    ]
    return {**measured, "environment": environment, **provenance}
