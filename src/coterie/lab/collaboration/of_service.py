"""The microscope over a service: the model that is live, looked into week by week.

An analysis lies in ``analysis/VERSION/`` of the service's folder; each is laid over the one before.
"""

import json
import time
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import coterie
from coterie.data.dataset import Dataset
from coterie.errors import DataError, NotFoundError
from coterie.files import publish_folder, write_json, write_manifest
from coterie.jobs.config import Service
from coterie.jobs.window import week_folder, window_of
from coterie.lab.collaboration.analysis import Analysis, AnalysisOptions, AnalysisSetting
from coterie.lab.collaboration.analyze import analyze
from coterie.lab.collaboration.figures import check_figures
from coterie.lab.collaboration.people_map import LatentPeople, in_common, neighbours_kept
from coterie.lab.collaboration.report import PAGE, SCHEMA, write_parts
from coterie.map_file import MapFile
from coterie.networks.autoencoder import Autoencoder
from coterie.registry import Registry, Version
from coterie.running.progress import Progress, Update, silent
from coterie.training.run_folder import read_anchors
from coterie.training.trained_model import TrainedModel

FOLDER, FACTS, LATENT = "analysis", "analysis.json", "latent.npy"
OPTIONS = AnalysisOptions(users=300, map_users=1000, neighbours=20, asked=300, by_adam=30)
"""Enough for a minute or two on two cores; a run's own analysis measures more."""
MOST_SHOWN = 50_000
"""People in the map."""
MOST_COMPARED = 2_000
"""People whose neighbours are compared from version to version."""
NOTE = (
    "A live model has trained on everybody: the people who are asked what steps give them were"
    " among those, so this says how versions differ, not how a stranger is served. Ranking quality"
    " is on the version's card, not here."
)


def analyses(service: Service) -> list[dict[str, Any]]:
    """What ``analysis.json`` says of each analysis, by week."""
    found = [
        json.loads(path.read_text(encoding="utf-8"))
        for path in sorted((service.folder / FOLDER).glob(f"[!.]*/{FACTS}"))
    ]
    return sorted(found, key=lambda told: (told["week"], told["version"]))


def chosen(service: Service, version: str | None = None, weeks: int | None = None) -> list[Version]:
    """Which versions are to be analysed, oldest first.

    Args:
        service: The service.
        version: One by its name; else the live one.
        weeks: Of the last so many that were live, all that have no analysis.

    Raises:
        NotFoundError: if there is no such version, or none was ever live.
    """
    registry = Registry(service.registry)
    if version is not None:
        return [registry.version(version)]
    if registry.live is None:
        raise NotFoundError(
            f"{service.folder}: a model must be live to be analysed, found none; run"
            " coterie weekly."
        )
    if weeks is None:
        return [registry.live]
    lived = [one for one in registry.versions if one.name in registry.lived][-weeks:]
    there = [told["version"] for told in analyses(service)]
    return [one for one in lived if one.name not in there]


def analyze_version(
    service: Service,
    version: Version,
    options: AnalysisOptions = OPTIONS,
    *,
    progress: Progress = silent,
) -> Path:
    """Looks into a version of a service's model, on the people whom it was trained on.

    Args:
        service: The service; only its folder ``analysis`` is written to.
        version: A variational autoencoder.
        options: How much is measured; of fewer people all are taken.
        progress: Called as it goes on.

    Returns:
        The folder: ``report.html`` and its parts, ``analysis.json``, ``map.bin``,
        ``map-names.json``, ``latent.npy``.

    Raises:
        ConfigError: if the model has no posterior, or a package is missing.
        DataError: if its data are gone, have other titles by now, or hold too few people.
    """
    check_figures()
    began, model = time.perf_counter(), TrainedModel.load(version.model)
    dataset = window_of(service, version, progress)
    _check_items(version, model, dataset)
    analysis = _measured(service, version, model, dataset, options, progress)
    progress(Update(f"{version.name}: map and report"))
    people = _people(service, version, model, dataset)
    before, shown = _beside(service, version, people, dataset.n_users)
    facts = {
        "schema": "coterie.version-analysis/1",
        "version": version.name,
        "week": version.card["week"],
        "window": version.card["window"],
        "before": before,
        "same_data": dataset.fingerprint == version.card["data"],
        "users": _sizes(dataset, shown, analysis),
        "seconds": round(time.perf_counter() - began, 1),
    }
    folder = service.folder / FOLDER / version.name
    with publish_folder(folder, kind=PAGE) as aside:
        write_parts(analysis, aside, note=NOTE, people=shown)
        np.save(aside / LATENT, people.users[:MOST_COMPARED].numpy(), allow_pickle=False)
        write_json(aside / FACTS, facts)
        by = {"coterie": coterie.__version__}
        write_manifest(aside, SCHEMA, written_by=by, dataset=dataset.fingerprint)
    return folder


def _sizes(dataset: Dataset, shown: MapFile, analysis: Analysis) -> dict[str, int]:
    sizes = dataset.n_users, len(shown.user_ids), len(analysis.users)
    return dict(zip(("all", "shown", "measured"), sizes, strict=True))


def _people(
    service: Service, version: Version, model: TrainedModel, dataset: Dataset
) -> LatentPeople:
    network = model.network
    assert isinstance(network, Autoencoder)
    return LatentPeople.of(network, dataset, _anchors(service, version), MOST_SHOWN)


def _check_items(version: Version, model: TrainedModel, dataset: Dataset) -> None:
    if not model.items.values.equals(dataset.items.values):
        raise DataError(
            f"{version.name}: the titles of its window must be those that it was trained on, found"
            f" {dataset.n_items} in place of {model.n_items}, or others: events came late or went;"
            " analyze a newer version."
        )


def _measured(
    service: Service,
    version: Version,
    model: TrainedModel,
    dataset: Dataset,
    options: AnalysisOptions,
    progress: Progress,
) -> Analysis:
    """The analysis, without a quality that would be too good."""
    asked = dataset.with_validation_users(service.config.prepare.held_out_users)
    setting = AnalysisSetting(version.name, model, _anchors(service, version))
    few = replace(options, neighbours=min(options.neighbours, max(1, asked.train.shape[0] // 20)))
    found = analyze([setting], asked, few, progress=progress)
    return replace(found, settings=tuple(replace(one, quality=None) for one in found.settings))


def _anchors(service: Service, version: Version) -> Tensor | None:
    """PIA's, where the week's work still has them."""
    folder = week_folder(service, date.fromisoformat(version.card["week"]))
    told = folder / "result.json"
    if not told.exists() or json.loads(told.read_text("utf-8"))["version"] != version.name:
        return None
    return read_anchors(folder / "refit")


def _beside(
    service: Service, version: Version, people: LatentPeople, n_users: int
) -> tuple[dict[str, Any] | None, MapFile]:
    """What has changed since the analysis before it, and the map laid over that one's."""
    before = _before(service, version)
    if before is None:
        return None, people.map(version.name, None, n_users)
    folder = service.folder / FOLDER / before
    there = MapFile.read(folder)
    kept = {"version": before, **_kept(people, there, folder)}
    return kept, people.map(version.name, there, n_users)


def _before(service: Service, version: Version) -> str | None:
    """The last version before it that was analysed; else the first after it."""
    told = [one for one in analyses(service) if one["version"] != version.name]
    earlier = [one for one in told if one["week"] <= version.card["week"]]
    nearest = earlier[-1:] or told[:1]
    return nearest[0]["version"] if nearest else None


def _kept(people: LatentPeople, before: MapFile, folder: Path) -> dict[str, Any]:
    """How many of a person's nearest still are so, with an interval over people."""
    then = torch.from_numpy(np.load(folder / LATENT, allow_pickle=False))
    k = OPTIONS.neighbours
    here, there = in_common(people.user_ids[:MOST_COMPARED], before.user_ids[: len(then)])
    if len(here) <= k:
        return {"common": len(here)}
    kept = neighbours_kept(people.users[here], then[there], k)
    half = 1.96 * kept.std() / len(kept) ** 0.5
    return {
        "common": len(here),
        "neighbours": k,
        "kept": [float(kept.mean()), float(kept.mean() - half), float(kept.mean() + half)],
        "chance": k / (len(here) - 1),
    }
