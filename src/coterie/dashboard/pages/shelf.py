"""What is in a folder of runs: run folders, studies, evaluation reports, and whatever else of
Coterie's is there, recognised by `coterie.show` and kept until its files change.
"""

import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from coterie.dashboard.sources import Kept, Sources, mark_of
from coterie.errors import CoterieError, NotFoundError
from coterie.evaluation.report import EvaluationReport
from coterie.show.folders import folder_kind
from coterie.training.run_record import read_history

REPORT = "evaluation report"
_DEEPEST, _MOST = 3, 3_000
_MARKS = ("config.json", "history.jsonl", "checkpoint.safetensors", "model/manifest.json")
_OTHERS = ("study.json", "trials.csv", "manifest.json", "_manifest.json", "_request.json")


@dataclass(frozen=True)
class Found:
    """Something of Coterie's.

    Args:
        name: Its path from the folder that is shown, which is how pages ask for it.
        path: Where it is.
        kind: As `coterie.show` says, ``"evaluation report"``, or ``"damaged"``.
        facts: Of it, as `coterie.show` says. Of a run also ``metric``, ``value`` and
            ``value_epoch``: the best of its validation users; of a report ``means`` and ``who``,
            which is the same for reports on the same users.
    """

    name: str
    path: Path
    kind: str
    facts: Mapping[str, Any]


def folder_of(sources: Sources) -> Path:
    """Where runs are: the folder that was named; of a service what its weeks have trained."""
    return sources.folder if sources.service is None else sources.service.work / "weekly"


def on_shelf(sources: Sources) -> list[Found]:
    """All of it, by name; of very large folders the first 3,000 files and folders."""
    folder = folder_of(sources)
    kept: Kept = sources.kept.get("shelf", None, lambda: Kept(2 * _MOST))
    paths = list(_candidates(folder, 0)) if folder.is_dir() else []
    found = [kept.get(path, _mark(path), partial(_read, path, folder)) for path in paths[:_MOST]]
    return [one for one in found if one is not None]


def one_of(found: list[Found], name: str, kind: str | None = None) -> Found:
    """By its name.

    Raises:
        NotFoundError: if there is none.
    """
    for one in found:
        if one.name == name and kind in (None, one.kind):
            return one
    raise NotFoundError(
        f"there must be a {kind or 'run'} of that name, {name[:80]!r} was not found; the page of"
        " runs lists all that are there."
    )


def report_of(one: Found) -> EvaluationReport:
    """An evaluation report, whole."""
    return EvaluationReport.from_table(pq.read_table(one.path))


def _candidates(folder: Path, depth: int) -> Iterator[Path]:
    """What may be ours: folders with a file that says so, else what is in them, and tables."""
    with os.scandir(folder) as inside:
        entries = sorted(inside, key=lambda entry: entry.name)
    if any(entry.name in (_MARKS[0], *_OTHERS) for entry in entries):
        yield folder
        return
    for entry in entries:
        if entry.is_dir() and depth < _DEEPEST and not entry.name.startswith("."):
            yield from _candidates(Path(entry.path), depth + 1)
        elif entry.name.endswith(".parquet") and entry.is_file():
            yield Path(entry.path)


def _mark(path: Path) -> Any:
    if path.is_file():
        return mark_of(path)
    return tuple(mark_of(f"{path}/{name}") for name in (*_MARKS, *_OTHERS))


def _read(path: Path, folder: Path) -> Found | None:
    """None for a table or a folder that is none of ours; what cannot be read says why."""
    name = str(path.relative_to(folder))
    try:
        kind, facts = _report(path) if path.is_file() else _folder(path)
    except (CoterieError, OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
        return Found(name, path, "damaged", {"error": str(error)})
    return None if kind is None else Found(name, path, kind, facts)


def _folder(path: Path) -> tuple[str | None, Mapping[str, Any]]:
    kind, facts = folder_kind(path) or (None, {})
    return kind, facts | _best(path, facts) if kind == "run" else facts


def _best(path: Path, facts: Mapping[str, Any]) -> dict[str, Any]:
    metric = (facts.get("training") or {}).get("metric")
    values = [
        (line["validation"][metric], line["epoch"])
        for line in read_history(path)
        if (line.get("validation") or {}).get(metric) is not None
    ]
    value, epoch = max(values, key=lambda one: one[0], default=(facts.get("best_validation"), None))
    return {"metric": metric, "value": value, "value_epoch": epoch}


def _report(path: Path) -> tuple[str | None, Mapping[str, Any]]:
    if not {"user_id", "n_interactions"} <= set(pq.read_schema(path).names):
        return None, {}
    report = EvaluationReport.from_table(pq.read_table(path))
    ids = sorted(map(str, report.users.values.to_pylist()))
    who = hashlib.sha256("\0".join(ids).encode()).hexdigest()[:8]
    means = {name: report.mean(name) for name in report.metrics}
    return REPORT, {"users": len(report), "means": means, "who": who}
