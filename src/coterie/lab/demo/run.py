"""The main job from log to lists: on the simulated streaming service, or on a log of one's own."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor

from coterie.data.dataset import Dataset
from coterie.data.ids import Id
from coterie.data.prepare import prepare
from coterie.data.read import read_log
from coterie.data.rules import PrepareRules, StrongGeneralisation
from coterie.data.split import Part
from coterie.evaluation.evaluate import evaluate
from coterie.evaluation.report import EvaluationReport
from coterie.files import publish_folder
from coterie.lab.demo.contest import GAINS, Contest, hold_contest
from coterie.lab.demo.models import EASE, MULT_VAE, PATH, PIA
from coterie.lab.demo.own_log import OwnLog, prepare_own
from coterie.lab.demo.pages import page
from coterie.running.execution import Execution
from coterie.running.progress import Progress, silent
from coterie.simulation.service import SimulatedService
from coterie.training.run_record import read_history

log = logging.getLogger(__name__)

BEST = "best possible"

KIND = f"runs/{EASE}/config.json"
"""A file that every demo's folder has, and no other."""


@dataclass(frozen=True)
class DemoResult:
    """What the demo found.

    Args:
        text: All of it, to print.
        reports: Test results by model, the best possible ranking's among them where it is known.
        contest: How they came about.
    """

    text: str
    reports: Mapping[str, EvaluationReport]
    contest: Contest

    def to_json(self) -> dict[str, Any]:
        """The numbers, without the text."""
        models = {name: report.to_json() for name, report in self.reports.items()}
        return {"models": models, **self.contest.to_json()}


def run_demo(
    folder: Path,
    *,
    n_users: int,
    n_items: int,
    seed: int,
    device: Execution | str,
    progress: Progress = silent,
) -> DemoResult:
    """Runs everything on the simulated service and fills ``folder``, whole or not at all.

    Args:
        folder: Receives ``log/``, ``data/``, ``runs/`` and ``demo.png``.
        n_users: Users of the service; a tenth are held out for validation and as many for the test.
        n_items: Titles of the service.
        seed: Of service, split and training.
        device: As for `coterie.train`.
        progress: Called as the models learn.

    Raises:
        ConfigError: if ``folder`` holds something other than an earlier demo.
    """
    service = SimulatedService(n_users, n_items, seed)
    execution = Execution.of(device)
    with publish_folder(folder, KIND) as aside:
        log.info("a service of %d users and %d titles writes its log", n_users, n_items)
        service.write_ratings_csv(aside / "log")
        with read_log(aside / "log", "movielens") as ratings:
            split = StrongGeneralisation(n_users // 10, seed=seed)
            data = prepare(ratings, PrepareRules(split=split))
        data.save(aside / "data")
        runs = aside / "runs"
        contest = hold_contest(data, runs, seed=seed, execution=execution, progress=progress)
        reports = {**contest.reports, BEST: _best_possible(service, data)}
        figure = _draw(aside, reports, contest)
    genres = dict(zip(range(1, n_items + 1), service.catalogue.genres, strict=True))
    titles = _titles(data)
    text = page(contest, reports, data, lambda item: f"{titles(item)} ({genres[int(item)]})")
    return DemoResult(f"{text}\n\n{_where(folder, drawn=figure)}", reports, contest)


def run_on_log(
    folder: Path, own: OwnLog, *, seed: int, device: Execution | str, progress: Progress = silent
) -> DemoResult:
    """Runs the same on a log of one's own.

    Args:
        folder: Receives ``data/``, ``runs/`` and ``demo.png``, whole or not at all.
        own: The log.
        seed: Of split and training.
        device: As for `coterie.train`.
        progress: Called as the models learn.

    Raises:
        ConfigError: if columns cannot be guessed, or ``folder`` holds something other than an
            earlier demo.
        SourceError: if the log breaks its format.
        DataError: if too little of it is left.
    """
    execution = Execution.of(device)
    with publish_folder(folder, KIND) as aside:
        data, told = prepare_own(own, seed)
        data.save(aside / "data")
        runs = aside / "runs"
        contest = hold_contest(data, runs, seed=seed, execution=execution, progress=progress)
        figure = _draw(aside, contest.reports, contest)
    text = page(contest, contest.reports, data, _titles(data))
    where = _where(folder, drawn=figure)
    return DemoResult(f"{told}\n\n{text}\n\n{where}", contest.reports, contest)


class _PlantedScores:
    """The probabilities the service draws from, as a scorer of all cases at once."""

    def __init__(self, scores: np.ndarray) -> None:
        self._scores = scores
        self.n_items = scores.shape[1]

    def score(self, histories: csr_array) -> Tensor:
        return torch.from_numpy(self._scores.astype(np.float32))


def _best_possible(service: SimulatedService, data: Dataset) -> EvaluationReport:
    cases = data.cases(Part.TEST)
    scores = service.best_scores(
        data.users.take(cases.user_index).to_numpy(), data.items.values.to_numpy()
    )
    return evaluate(_PlantedScores(scores), cases, user_ids=data.users, block_size=len(scores))


def _titles(data: Dataset) -> Callable[[Id], str]:
    """What a reader sees of an item: its title or, without one, its id."""
    ids = data.items.values.to_pylist()
    titles = dict(zip(ids, data.titles or ids, strict=True))
    return lambda item: str(titles[item] or item)


def _draw(folder: Path, reports: Mapping[str, EvaluationReport], contest: Contest) -> bool:
    """Draws ``demo.png``; False if there is nothing to draw with."""
    try:
        from coterie.lab.demo.figure import draw_demo  # noqa: PLC0415 - an optional dependency
    except ImportError:
        return False
    histories = {name: read_history(folder / "runs" / name) for name in (MULT_VAE, PIA, PATH)}
    gains = dict(zip(GAINS, contest.gains, strict=True))
    draw_demo(folder / "demo.png", reports, histories, gains)
    return True


def _where(folder: Path, *, drawn: bool) -> str:
    if drawn:
        return f"figure: {folder}/demo.png"
    return "no figure: matplotlib is not installed (pip install 'coterie[plot]')"
