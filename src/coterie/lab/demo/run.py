"""The main job on the simulated streaming service: log → data set → five models → table, lists and
figure.
"""

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor

from coterie.config import RunConfig
from coterie.data.dataset import Dataset
from coterie.data.prepare import prepare
from coterie.data.read import read_log
from coterie.data.rules import PrepareRules, StrongGeneralisation
from coterie.data.split import Cases, Part
from coterie.evaluation.compare import Comparison, compare
from coterie.evaluation.evaluate import evaluate
from coterie.evaluation.metrics import LEGEND, Metric
from coterie.evaluation.report import EvaluationReport
from coterie.files import publish_folder
from coterie.plain_table import plain_table
from coterie.running.execution import Execution
from coterie.running.progress import Progress, silent
from coterie.simulation.service import SimulatedService
from coterie.training.run_record import read_history
from coterie.training.trained_model import TrainedModel
from coterie.training.trainer import train

log = logging.getLogger(__name__)

POPULARITY, EASE, CLEAN, MASKED, PIA = (
    "popularity",
    "EASE",
    "Mult-VAE clean",
    "Mult-VAE masked",
    "Mult-VAE masked + PIA",
)

MODELS: Mapping[str, Mapping[str, Any]] = {
    POPULARITY: {"name": "popularity"},
    EASE: {"name": "ease", "l2": 300.0},
    CLEAN: {"name": "mult-vae", "keep_prob": 1.0},
    MASKED: {"name": "mult-vae"},
    PIA: {"name": "mult-vae", "pia": 0.3},
}
"""The demo's models; the three networks differ in nothing but masking and PIA.

λ and λ_A were chosen on validation users of another service (seed 11), see docs/results.md.
"""

BEST = "best possible"
SHOWN_USERS = 3


@dataclass(frozen=True)
class DemoResult:
    """What the demo found.

    Args:
        text: Table and recommendation lists, to print.
        reports: Test results by model, the best possible ranking's among them.
        gain: PIA over masking alone, on the same test users.
        seconds: Time of training by model.
    """

    text: str
    reports: Mapping[str, EvaluationReport]
    gain: Comparison
    seconds: Mapping[str, float]

    def to_json(self) -> dict[str, Any]:
        """The numbers, without the text."""
        models = {name: report.to_json() for name, report in self.reports.items()}
        return {
            "models": models,
            "pia_over_masked": self.gain.to_json(),
            "training_seconds": dict(self.seconds),
        }


def run_demo(
    folder: Path,
    *,
    n_users: int,
    n_items: int,
    seed: int,
    device: Execution | str,
    progress: Progress = silent,
) -> DemoResult:
    """Runs everything and fills ``folder``, whole or not at all.

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
    with publish_folder(folder, "log/ratings.csv") as aside:
        log.info("1/4 a service of %d users and %d titles writes its log", n_users, n_items)
        service.write_ratings_csv(aside / "log")
        log.info("2/4 the log becomes a data set")
        with read_log(aside / "log", "movielens") as ratings:
            split = StrongGeneralisation(n_users // 10, seed=seed)
            data = prepare(ratings, PrepareRules(split=split))
        data.save(aside / "data")
        log.info(
            "3/4 %d models learn from %d users and %d interactions",
            len(MODELS),
            data.train.shape[0],
            data.train.nnz,
        )
        models, seconds = _train_all(data, aside / "runs", seed, Execution.of(device), progress)
        log.info("4/4 they are measured on %d users none of them has seen", n_users // 10)
        cases = data.cases(Part.TEST)
        reports = {
            name: evaluate(model, cases, user_ids=data.users) for name, model in models.items()
        }
        reports[BEST] = _best_possible(service, data, cases)
        gain = compare(reports[PIA], reports[MASKED], seed=seed)
        drawn = _draw(aside, reports, gain)
    lists = _lists(service, data, models[PIA], cases)
    where = (
        f"figure: {folder}/demo.png"
        if drawn
        else "no figure: matplotlib is not installed (pip install 'coterie[plot]')"
    )
    return DemoResult(
        "\n\n".join([_table(reports, seconds), _verdict(gain), lists, where]),
        reports,
        gain,
        seconds,
    )


def _train_all(
    data: Dataset, runs: Path, seed: int, execution: Execution, progress: Progress
) -> tuple[dict[str, TrainedModel], dict[str, float]]:
    models, seconds = {}, {}
    for name, model in MODELS.items():
        training = {"training": {"seed": seed, "epochs": 100, "patience": 6}}
        config = RunConfig.of({"model": model} | (training if "vae" in model["name"] else {}))
        start = time.perf_counter()
        models[name] = train(data, config, out=runs / name, device=execution, progress=progress)
        seconds[name] = time.perf_counter() - start
    return models, seconds


class _PlantedScores:
    """The probabilities the service draws from, as a scorer of all cases at once."""

    def __init__(self, scores: np.ndarray) -> None:
        self._scores = scores
        self.n_items = scores.shape[1]

    def score(self, histories: csr_array) -> Tensor:
        return torch.from_numpy(self._scores.astype(np.float32))


def _best_possible(service: SimulatedService, data: Dataset, cases: Cases) -> EvaluationReport:
    scores = service.best_scores(
        data.users.take(cases.user_index).to_numpy(), data.items.values.to_numpy()
    )
    return evaluate(_PlantedScores(scores), cases, user_ids=data.users, block_size=len(scores))


def _table(reports: Mapping[str, EvaluationReport], seconds: Mapping[str, float]) -> str:
    names = list(reports[PIA].metrics)
    rows = [
        [
            model,
            *(f"{report.mean(name):.4f} ± {report.standard_error(name):.4f}" for name in names),
            _seconds(seconds.get(model)),
        ]
        for model, report in reports.items()
    ]
    table = plain_table(
        ["test users", *(Metric.parse(name).label for name in names), "train"],
        rows,
        [False] * 4 + [True],
    )
    return f"{table}\n± standard error over {len(reports[PIA])} users; {LEGEND}"


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.0f} s"


def _verdict(gain: Comparison) -> str:
    one = gain.overall["ndcg@100"]
    return (
        f"PIA over masking alone, NDCG@100: {one.difference:+.4f} ({one.relative_difference:+.1%}),"
        f" {gain.confidence:.0%} interval [{one.low:+.4f}, {one.high:+.4f}], p = {one.p_value:.4f}"
    )


def _lists(service: SimulatedService, data: Dataset, model: TrainedModel, cases: Cases) -> str:
    """What a few test users watched and what the model would show them, with genres."""
    genres = dict(zip(range(1, service.n_items + 1), service.catalogue.genres, strict=True))
    sizes = np.diff(cases.fold_in.indptr)
    chosen = np.argsort(np.abs(sizes - 8), kind="stable")[:SHOWN_USERS]
    histories = {
        data.users.ids_of([cases.user_index[case]])[0]: data.items.ids_of(
            cases.fold_in[[case]].indices
        )
        for case in chosen.tolist()
    }
    found = model.recommend(histories, k=5)
    titles = dict(zip(data.items.values.to_pylist(), data.titles or (), strict=True))
    blocks = []
    for user, watched in histories.items():
        rows = [[f"{titles[item]} ({genres[int(item)]})", ""] for item in watched]
        for row, one in enumerate(found.for_user(user)):
            rows[row][1] = f"{one.rank}. {one.title} ({genres[int(one.item_id)]})"
        blocks.append(plain_table([f"user {user} watched", "would be shown"], rows))
    return "\n\n".join(blocks)


def _draw(folder: Path, reports: Mapping[str, EvaluationReport], gain: Comparison) -> bool:
    """Draws ``demo.png``; False if there is nothing to draw with."""
    try:
        from coterie.lab.demo.figure import draw_demo  # noqa: PLC0415 - an optional dependency
    except ImportError:
        return False
    histories = {name: read_history(folder / "runs" / name) for name in (CLEAN, MASKED, PIA)}
    draw_demo(folder / "demo.png", reports, histories, gain)
    return True
