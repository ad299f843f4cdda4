"""The models against each other: trained alike, one chosen on validation users, all measured once
on test users.
"""

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coterie.config import RunConfig
from coterie.data.dataset import Dataset
from coterie.data.split import Part
from coterie.evaluation.compare import Comparison, compare
from coterie.evaluation.evaluate import evaluate
from coterie.evaluation.report import EvaluationReport
from coterie.lab.demo.models import EASE, MODELS, MULT_VAE, PATH, PIA, training
from coterie.running.execution import Execution
from coterie.running.progress import Progress
from coterie.training.trained_model import TrainedModel
from coterie.training.trainer import train

log = logging.getLogger(__name__)

METRIC = "ndcg@100"
"""By which the models are chosen and compared."""

GAINS = ((PATH, EASE), (PIA, MULT_VAE))
"""Candidate and reference of each comparison."""


@dataclass(frozen=True)
class Contest:
    """What came of it, by model.

    Args:
        models: Trained.
        seconds: Time of training.
        chosen: The one that ranks validation users best.
        reports: Of the test users.
        gains: Comparisons on the same test users, in the order of `GAINS`.
    """

    models: Mapping[str, TrainedModel]
    seconds: Mapping[str, float]
    chosen: str
    reports: Mapping[str, EvaluationReport]
    gains: tuple[Comparison, ...]

    def to_json(self) -> dict[str, Any]:
        """The numbers, without the reports."""
        gains = zip(GAINS, self.gains, strict=True)
        return {
            "chosen": self.chosen,
            "gains": {f"{one} over {other}": gain.to_json() for (one, other), gain in gains},
            "training_seconds": dict(self.seconds),
        }


def hold_contest(
    data: Dataset, runs: Path, *, seed: int, execution: Execution, progress: Progress
) -> Contest:
    """Trains, chooses and measures.

    Args:
        data: With validation and test users.
        runs: Receives a run folder a model.
        seed: Of training.
        execution: How training runs.
        progress: Called as the models learn.
    """
    n_users, n_interactions = data.train.shape[0], data.train.nnz
    log.info("%d models learn from %d users, %d interactions", len(MODELS), n_users, n_interactions)
    models, seconds = {}, {}
    for name, model in MODELS.items():
        steps = {"training": {"seed": seed, **training(n_users)}} if "vae" in model["name"] else {}
        config = RunConfig.of({"model": model} | steps)
        start = time.perf_counter()
        models[name] = train(data, config, out=runs / name, device=execution, progress=progress)
        seconds[name] = time.perf_counter() - start
    validation = _measure(models, data, Part.VALIDATION)
    chosen = max(validation, key=lambda name: validation[name].mean(METRIC))
    reports = _measure(models, data, Part.TEST)
    log.info("they were measured on users none of them has seen")
    gains = tuple(compare(reports[one], reports[other], seed=seed) for one, other in GAINS)
    return Contest(models, seconds, chosen, reports, gains)


def _measure(
    models: Mapping[str, TrainedModel], data: Dataset, part: Part
) -> dict[str, EvaluationReport]:
    cases = data.cases(part)
    return {name: evaluate(model, cases, user_ids=data.users) for name, model in models.items()}
