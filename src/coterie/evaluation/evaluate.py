"""Evaluating a scorer: rank what was not shown, and look where the hidden items stand."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor

from coterie.data.dataset import Dataset
from coterie.data.ids import IdMap
from coterie.data.split import Cases, Part, PartName
from coterie.errors import ConfigError, DataError
from coterie.evaluation.cohorts import DEFAULT_COHORTS, check_cohorts
from coterie.evaluation.measure import per_user
from coterie.evaluation.metrics import DEFAULT_METRICS, Metric
from coterie.evaluation.report import EvaluationReport
from coterie.ranking.ranker import Ranker
from coterie.ranking.scorer import Scorer
from coterie.running.progress import Progress, Update, silent
from coterie.sparse import SparseRows


def evaluate(
    scorer: Scorer,
    cases: Cases | Dataset,
    part: Part | PartName | None = None,
    *,
    metrics: Sequence[str] = DEFAULT_METRICS,
    user_ids: IdMap | None = None,
    cohorts: Sequence[int] = DEFAULT_COHORTS,
    block_size: int = 500,
    progress: Progress = silent,
) -> EvaluationReport:
    """Scores every case, masks its fold-in items and measures the ranking of the rest.

    Args:
        scorer: A trained model or baseline.
        cases: What is shown and what must be found; or a data set, whose ``part`` they are.
        part: Of a data set: ``"test"`` (the default) or ``"validation"``.
        metrics: Names, as `Metric.parse` reads them.
        user_ids: Ids of all users of the data set, which a data set brings itself; without them the
            report names users by their row.
        cohorts: Lower bounds on the number of interactions.
        block_size: Users ranked at once; memory is ``block_size × n_items`` scores.
        progress: Called after each block of users.

    Raises:
        ConfigError: if a metric, a cohort bound or the block size cannot be honoured, or the model
            is a refit on this data set; cases of it are taken, for values in sample.
        DataError: if there is no case, a case has nothing to find or is shown what it must find, or
            the catalogue is not the scorer's.
        NumericalError: if a score is not finite.

    References:
        Liang et al. (2018), section 4.2.

    Example:
        >>> from types import SimpleNamespace
        >>> cases = Cases(
        ...     np.array([0, 1]),
        ...     csr_array(np.array([[1, 0, 0], [0, 1, 0]])),
        ...     csr_array(np.array([[0, 1, 0], [1, 0, 0]])),
        ... )
        >>> scorer = SimpleNamespace(
        ...     n_items=3,
        ...     score=lambda rows: torch.tensor([[3.0, 2.0, 1.0]]).repeat(rows.shape[0], 1),
        ... )
        >>> evaluate(scorer, cases, metrics=["recall@1", "ndcg@2"]).mean("recall@1")
        1.0
    """
    if isinstance(cases, Dataset):
        _check_new(scorer, cases)
        user_ids = cases.users if user_ids is None else user_ids
        cases = cases.cases(Part.of(part or Part.TEST))
    elif part is not None:
        raise ConfigError("part goes with a data set, found cases, which are of one; leave it out.")
    wanted = _parse(metrics, block_size)
    lower_bounds = check_cohorts(cohorts)
    _check(scorer, cases)
    ranker = Ranker(scorer, max(metric.k for metric in wanted))
    blocks = [
        _measure(ranker, fold_in, held_out, wanted)
        for fold_in, held_out in _blocks(cases, block_size, progress)
    ]
    values = torch.cat(blocks).cpu().numpy()
    users = (
        IdMap.of(cases.user_index) if user_ids is None else IdMap(user_ids.take(cases.user_index))
    )
    n_interactions = np.diff(cases.fold_in.indptr).astype(np.int64) + np.diff(cases.held_out.indptr)
    return EvaluationReport(
        users,
        n_interactions,
        {metric.name: values[:, i].copy() for i, metric in enumerate(wanted)},
        lower_bounds,
    )


def _check_new(scorer: Scorer, dataset: Dataset) -> None:
    """To a model that was refitted on everybody nobody of the data set is new."""
    if getattr(scorer, "is_refit", False):
        trained_on = getattr(scorer, "provenance", {}).get("dataset")
        if trained_on == dataset.for_refit().fingerprint:
            raise ConfigError(
                "a model must be measured on users it was not trained on, this one is a refit on"
                " everybody here; measure the validated run, or give cases for values in sample:"
                " data.cases(Part.TEST)."
            )


def _parse(names: Sequence[str], block_size: int) -> tuple[Metric, ...]:
    if isinstance(names, str) or not names or len(set(names)) < len(names):
        raise ConfigError(
            f"metrics must be one or more different names in a list, found {names!r}; try"
            f" {list(DEFAULT_METRICS)}."
        )
    if block_size < 1:
        raise ConfigError(
            f"block_size must be at least 1, found {block_size}; 500 suits most machines."
        )
    return tuple(Metric.parse(name) for name in names)


def _check(scorer: Scorer, cases: Cases) -> None:
    shape, n_held_out = cases.held_out.shape, np.diff(cases.held_out.indptr)
    if shape[0] == 0:
        raise DataError(
            "an evaluation needs at least one case, found none; hold out more users or items."
        )
    if cases.fold_in.shape != shape or shape[1] != scorer.n_items:
        found = f"fold-in {cases.fold_in.shape}, held-out {shape}"
        raise DataError(
            f"cases must be over the scorer's {scorer.n_items} items, found {found}; use the data"
            " set of the model."
        )
    if not n_held_out.all():
        raise DataError(
            f"every case must have an item to find, found {int((n_held_out == 0).sum())} without;"
            " drop those users."
        )
    shown = cases.fold_in.multiply(cases.held_out).nnz
    if shown:
        raise DataError(
            f"no held-out item may be folded in, found {shown} that are; split the data set anew."
        )


def _blocks(cases: Cases, size: int, progress: Progress) -> Iterator[tuple[csr_array, csr_array]]:
    n_cases = cases.held_out.shape[0]
    for start in range(0, n_cases, size):
        stop = min(start + size, n_cases)
        yield cases.fold_in[start:stop], cases.held_out[start:stop]
        progress(Update("evaluating", stop, n_cases, "users"))


def _measure(
    ranker: Ranker, fold_in: csr_array, held_out: csr_array, metrics: tuple[Metric, ...]
) -> Tensor:
    """``[n, n_metrics]`` float64 values, on the scorer's device."""
    ranked = ranker.rank(fold_in, seen=fold_in).items
    to_find = SparseRows.from_csr(held_out, ranked.device)
    # Row and item in one number, so that looking an item up is a search in a sorted list.
    sought = (to_find.row * to_find.n_items + to_find.indices).sort().values
    row = torch.arange(len(ranked), device=ranked.device).unsqueeze(1)
    answers = row * to_find.n_items + ranked
    nearest = torch.searchsorted(sought, answers).clamp(max=len(sought) - 1)
    hits = (sought[nearest] == answers) & (ranked >= 0)
    return torch.stack([per_user(metric, hits, to_find.counts) for metric in metrics], dim=1)
