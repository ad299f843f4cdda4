"""Folders that Coterie writes, recognised by their manifests and read without torch."""

import csv
import json
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from coterie.errors import ArtifactError
from coterie.ranking.written import MANIFEST, REQUEST

Facts: TypeAlias = dict[str, Any]

_KINDS: dict[str, tuple[str, "Callable[[Path, Facts], Facts]"]]


def folder_kind(path: Path) -> tuple[str, Facts] | None:
    """Kind and facts of a folder; None if it is none of Coterie's.

    Raises:
        ArtifactError: if a file that says what the folder is cannot be read.
    """
    if (path / "config.json").is_file():
        return "run", _run(path)
    if (path / "study.json").is_file():
        return "study", _study(path)
    for manifest in (MANIFEST, "manifest.json"):
        if (path / manifest).is_file():
            return _published(path, manifest)
    if _request(path) is not None:
        return "recommendations", _recommendations(path, {})
    return None


def _request(path: Path) -> Path | None:
    """What recommendations were asked for, under its name of today or of version 0.1.0."""
    return next((path / one for one in (REQUEST, "request.json") if (path / one).is_file()), None)


def _published(path: Path, name: str) -> tuple[str, Facts] | None:
    manifest = read_json(path / name)
    schema = str(manifest.get("schema"))
    kind, facts_of = _KINDS.get(schema.partition("/")[0], (None, None))
    if kind is None or facts_of is None:
        return None
    facts = facts_of(path, manifest)
    # What later versions add (run ids, times, parents) is shown without a change here.
    rest = {
        name: value
        for name, value in manifest.items()
        if isinstance(value, str | int | float) and name not in {*facts, *_SHOWN_OTHERWISE}
    }
    return kind, {**facts, **rest, "written_by": manifest.get("written_by")}


_SHOWN_OTHERWISE = (
    "dataset",
    "model",
    "model_name",
    "n_users",
    "n_rows",
    "n_popularity_users",
    "n_unknown",
    "n_probed",
)


def _dataset(path: Path, manifest: Facts) -> Facts:
    counts = manifest.get("counts", {})
    sizes = {f"{name}": _rows(path / f"{name}.parquet") for name in ("users", "items")}
    return {
        **sizes,
        "interactions": counts.get("interactions"),
        "train_users": counts.get("train_users"),
        "validation_cases": counts.get("validation_cases"),
        "test_cases": counts.get("test_cases"),
        "first_timestamp": counts.get("first_timestamp"),
        "last_timestamp": counts.get("last_timestamp"),
        "sources": [source["file"] for source in manifest.get("sources", [])] or None,
        "format": manifest.get("format"),
        "rules": manifest.get("rules"),
        "simulated": manifest.get("simulated"),
    }


def _model(path: Path, manifest: Facts) -> Facts:
    provenance = dict(manifest.get("provenance", {}))
    return {
        **_configuration(manifest.get("config", {})),
        "items": _rows(path / "items.parquet"),
        "titles": "title" in _columns(path / "items.parquet"),
        **{name: value for name, value in provenance.items() if name != "dataset"},
        "data_set": provenance.get("dataset"),
    }


def _run(path: Path) -> Facts:
    begun = read_json(path / "config.json")
    model = path / "model" / "manifest.json"
    trained = read_json(model) if model.is_file() else {}
    provenance = trained.get("provenance", {})
    return {
        "state": _state(path, finished=model.is_file()),
        # The model's has what the run's left open and validation chose.
        **_configuration(trained.get("config") or begun.get("config", {})),
        **_progress(path),
        **{name: value for name, value in provenance.items() if name != "dataset"},
        **{name: begun[name] for name in ("run_id", "created", "parent") if name in begun},
        **(begun.get("warm") or {}),
        "precision": begun.get("precision"),
        **_environment(path),
        "data_set": begun.get("dataset"),
    }


def _state(path: Path, *, finished: bool) -> str:
    if finished:
        return "finished"
    if (path / "checkpoint.safetensors").is_file():
        return "not finished; train --resume goes on from its checkpoint"
    return "not finished; train --resume begins it anew, there is no checkpoint"


def _progress(path: Path) -> Facts:
    history = path / "history.jsonl"
    lines = history.read_text(encoding="utf-8").splitlines() if history.is_file() else []
    if not lines:
        return {}
    try:
        told = [json.loads(line) for line in lines]
    except ValueError:
        return {"epochs_done": len(lines)}
    last = told[-1]
    return {
        "epochs_done": last.get("epoch"),
        "best_epoch": last.get("best_epoch") or None,
        "last_validation": last.get("validation") or None,
        "seconds": sum(line.get("seconds", 0) for line in told),
    }


def _environment(path: Path) -> Facts:
    file = path / "environment.json"
    if not file.is_file():
        return {}
    environment = read_json(file)
    trained_on = environment.get("dataset", {})
    return {
        **{name: environment.get(name) for name in ("device", "threads", "processes")},
        "data_set_folder": trained_on.get("folder"),
        "users": trained_on.get("users"),
        "items": trained_on.get("items"),
        "written_by": {
            name: environment[name] for name in ("coterie", "torch") if name in environment
        },
    }


def _recommendations(path: Path, manifest: Facts) -> Facts:
    file = _request(path)
    request = {} if file is None else read_json(file)
    shards = manifest.get("shards", [])
    state = "finished" if manifest else "not finished; the same command goes on"
    return {
        "state": state,
        "users": manifest.get("n_users"),
        "rows": manifest.get("n_rows"),
        "users_with_popular_items": manifest.get("n_popularity_users"),
        "unknown_items": manifest.get("n_unknown"),
        "shards": len(shards) or len(list(path.glob("part-*.parquet"))),
        "k": request.get("k"),
        "model": request.get("model_name"),
        "model_fingerprint": request.get("model"),
        "run_id": request.get("run_id"),
        "index": request.get("index"),
    }


def _index(path: Path, manifest: Facts) -> Facts:
    return {"lists_read_a_user": manifest.get("n_probed")}


def _graph(path: Path, manifest: Facts) -> Facts:
    graph = manifest.get("graph", {})
    return {
        **_model(path, manifest),
        "opset": graph.get("opset"),
        "inputs": [graph.get("input", {}).get("name")],
        "outputs": [graph.get("output", {}).get("name")],
    }


def _analysis(path: Path, manifest: Facts) -> Facts:
    numbers = read_json(path / "numbers.json") if (path / "numbers.json").is_file() else {}
    return {
        "models": list(numbers.get("settings", {})) or None,
        "users": numbers.get("users"),
        "page": "report.html",
        "data_set": manifest.get("dataset"),
    }


def _study(path: Path) -> Facts:
    study = read_json(path / "study.json")
    return {
        **_configuration(study.get("config", {})),
        "search": study.get("search"),
        "metric": study.get("metric"),
        **_trials(path / "trials.csv", str(study.get("metric"))),
        "pruner": study.get("pruner"),
        "seed": study.get("seed"),
        "best_configuration": "best.toml" if (path / "best.toml").is_file() else None,
        "data_set": study.get("dataset"),
    }


def _trials(path: Path, metric: str) -> Facts:
    if not path.is_file():
        return {"trials": 0}
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    values = [float(row[metric]) for row in rows if row["state"] == "complete" and row.get(metric)]
    states = Counter(row["state"] for row in rows)
    return {"trials": len(rows), "states": dict(states), "best_value": max(values, default=None)}


_KINDS = {
    "coterie.dataset": ("data set", _dataset),
    "coterie.model": ("model", _model),
    "coterie.recommendations": ("recommendations", _recommendations),
    "coterie.index": ("index", _index),
    "coterie.onnx": ("exported model", _graph),
    "coterie.analysis": ("analysis", _analysis),
}


def _configuration(config: Mapping[str, Any]) -> Facts:
    model = dict(config.get("model", {}))
    return {
        "model": model.pop("name", None),
        "configuration": model or None,
        "training": config.get("training"),
    }


def _rows(path: Path) -> int | None:
    import pyarrow.parquet as pq  # noqa: PLC0415 - a run's facts need none

    return int(pq.read_metadata(path).num_rows) if path.is_file() else None


def _columns(path: Path) -> list[str]:
    import pyarrow.parquet as pq  # noqa: PLC0415

    return list(pq.read_schema(path).names) if path.is_file() else []


def read_json(path: Path) -> Facts:
    """A mapping from a JSON file.

    Raises:
        ArtifactError: if it is none.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path}: must be readable JSON ({error}); restore it.") from error
    if not isinstance(value, dict):
        raise ArtifactError(f"{path}: must hold a JSON mapping, found another value; restore it.")
    return value
