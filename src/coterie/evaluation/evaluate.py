"""Evaluating a scorer: rank what was not shown, and look where the hidden items stand."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor

from coterie.data.dataset import Dataset
from coterie.data.ids import IdMap
from coterie.data.split import Cases, Part, PartName
from coterie.errors import ConfigError, DataError
from coterie.evaluation.cohorts import DEFAULT_COHORTS, check_cohorts
from coterie.evaluation.lists import Lists, TrainingItems, exposure, of_all, per_list
from coterie.evaluation.measure import per_user
from coterie.evaluation.metrics import DEFAULT_METRICS, HISTORY, ListMetric, Metric, metric_of
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
    train: csr_array | None = None,
    cohorts: Sequence[int] = DEFAULT_COHORTS,
    block_size: int = 500,
    progress: Progress = silent,
) -> EvaluationReport:
    """Scores every case, masks its fold-in items and measures the ranking of the rest.

    Cases may say that nothing is masked (`Cases.exclude_seen`).

    Args:
        scorer: A trained model or baseline.
        cases: What is shown and what must be found; or a data set, whose ``part`` they are.
        part: Of a data set: ``"test"`` (the default) or ``"validation"``.
        metrics: Names, as `metric_of` reads them. ``popularity@k`` brings
            ``popularity_of_history`` along.
        user_ids: Ids of all users of the data set, which a data set brings itself; without them the
            report names users by their row.
        train: ``[n_train_users, n_items]`` binary interactions, which a data set brings itself; for
            the metrics that read them, see `ListMetric`.
        cohorts: Lower bounds on the number of interactions.
        block_size: Users ranked at once; memory is ``block_size × n_items`` scores.
        progress: Called after each block of users.

    Raises:
        ConfigError: if a metric, a cohort bound or the block size cannot be honoured, a metric
            needs ``train`` and there is none, or the model is a refit on this data set; cases of it
            are taken, for values in sample.
        DataError: if there is no case, a case has nothing to find or must find what is masked, or
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
    wanted = _parse(metrics, block_size)
    lower_bounds = check_cohorts(cohorts)
    if isinstance(cases, Dataset):
        _check_new(scorer, cases)
        user_ids = cases.users if user_ids is None else user_ids
        train = cases.train if train is None and _reading_training(wanted) else train
        cases = cases.cases(Part.of(part or Part.TEST))
    elif part is not None:
        raise ConfigError("part goes with a data set, found cases, which are of one; leave it out.")
    _check(scorer, cases)
    tally = _Tally(wanted, _training_items(wanted, train, scorer.n_items), scorer.n_items)
    ranker = Ranker(scorer, max(1, *(metric.k for metric in wanted)))
    for fold_in, held_out in _blocks(cases, block_size, progress):
        seen = fold_in if cases.exclude_seen else None
        tally.add(ranker.rank(fold_in, seen).items, fold_in, held_out)
    users = (
        IdMap.of(cases.user_index) if user_ids is None else IdMap(user_ids.take(cases.user_index))
    )
    n_interactions = np.diff((cases.fold_in + cases.held_out).indptr).astype(np.int64)
    return EvaluationReport(
        users, n_interactions, tally.of_each(), lower_bounds, tally.of_all_lists()
    )


def evaluate_new_users(
    dataset: Dataset,
    part: Part | PartName,
    *,
    metrics: Sequence[str] = DEFAULT_METRICS,
    block_size: int = 500,
) -> EvaluationReport | None:
    """Measures what users get of whom nothing was known before their window: popularity, whatever
    the model. None if there are none.

    Args:
        dataset: Of a split by time.
        part: ``"test"`` or ``"validation"``.
        metrics: As in `evaluate`.
        block_size: As in `evaluate`.
    """
    new = dataset.new_user_cases(Part.of(part))
    if not len(new.user_index):
        return None
    scorer = _Popular(np.asarray(dataset.train.sum(axis=0), dtype=np.float32))
    return evaluate(
        scorer,
        new,
        metrics=metrics,
        user_ids=dataset.users,
        train=dataset.train,
        block_size=block_size,
    )


@dataclass(frozen=True, eq=False)
class _Popular:
    """The answer to those of whom nothing is known: ``[n_items]`` counts, for everybody."""

    counts: np.ndarray

    @property
    def n_items(self) -> int:
        return len(self.counts)

    def score(self, histories: csr_array) -> Tensor:
        return torch.from_numpy(self.counts).repeat(histories.shape[0], 1)


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


def _parse(names: Sequence[str], block_size: int) -> list[Metric | ListMetric]:
    if isinstance(names, str) or not names or len(set(names)) < len(names):
        raise ConfigError(
            f"metrics must be one or more different names in a list, found {names!r}; try"
            f" {list(DEFAULT_METRICS)}."
        )
    if block_size < 1:
        raise ConfigError(
            f"block_size must be at least 1, found {block_size}; 500 suits most machines."
        )
    wanted = [metric_of(name) for name in names]
    kinds = [metric.kind for metric in wanted]
    if "popularity" in kinds and HISTORY not in wanted:
        wanted.insert(kinds.index("popularity") + 1, HISTORY)
    return wanted


def _reading_training(wanted: Sequence[Metric | ListMetric]) -> list[str]:
    """The names of the metrics that need the training interactions."""
    return [one.name for one in wanted if isinstance(one, ListMetric) and not one.of_all]


def _training_items(
    wanted: Sequence[Metric | ListMetric], train: csr_array | None, n_items: int
) -> TrainingItems:
    """Of no users where there are none and nothing asks for them."""
    if train is None:
        if needing := _reading_training(wanted):
            raise ConfigError(
                f"{', '.join(needing)} must be told the training interactions, found cases alone;"
                " give a data set, or train=."
            )
        return TrainingItems(csr_array((0, n_items)))
    if train.shape[1] != n_items or not train.shape[0]:
        raise DataError(
            f"train must be of one user or more over the scorer's {n_items} items, found shape"
            f" {train.shape}; use the data set of the model."
        )
    return TrainingItems(train)


def _check(scorer: Scorer, cases: Cases) -> None:
    shape, n_held_out = cases.held_out.shape, np.diff(cases.held_out.indptr)
    if shape[0] == 0:
        raise DataError(
            "an evaluation needs at least one case, found none; hold out more users or items, or"
            " measure users of whom nothing is known apart (evaluate_new_users)."
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
    masked = cases.fold_in.multiply(cases.held_out).nnz if cases.exclude_seen else 0
    if masked:
        raise DataError(
            f"no held-out item may be folded in and masked, found {masked} that are; split the data"
            " set anew, or mask nothing (exclude_seen=False)."
        )


def _blocks(cases: Cases, size: int, progress: Progress) -> Iterator[tuple[csr_array, csr_array]]:
    n_cases = cases.held_out.shape[0]
    for start in range(0, n_cases, size):
        stop = min(start + size, n_cases)
        yield cases.fold_in[start:stop], cases.held_out[start:stop]
        progress(Update("evaluating", stop, n_cases, "users"))


class _Tally:
    """Every user's values, block after block, and how often each item is shown.

    Args:
        wanted: Metrics of both kinds.
        training: For those that read it.
        n_items: Size of the catalogue.
    """

    def __init__(
        self, wanted: Sequence[Metric | ListMetric], training: TrainingItems, n_items: int
    ) -> None:
        self._training = training
        of_lists = [metric for metric in wanted if isinstance(metric, ListMetric)]
        self._shown = {one: np.zeros(n_items, np.int64) for one in of_lists if one.of_all}
        self._values: dict[Metric | ListMetric, list[np.ndarray]] = {
            metric: [] for metric in wanted if metric not in self._shown
        }

    def add(self, ranked: Tensor, fold_in: csr_array, held_out: csr_array) -> None:
        """Takes in the ``[n, K]`` lists of a block."""
        to_find = SparseRows.from_csr(held_out, ranked.device)
        hits = _hits(ranked, to_find)
        lists = Lists(ranked.cpu().numpy(), hits.cpu().numpy(), fold_in, held_out)
        for metric, values in self._values.items():
            if isinstance(metric, Metric):
                values.append(per_user(metric, hits, to_find.counts).cpu().numpy())
            else:
                values.append(per_list(metric, lists, self._training))
        for metric in self._shown:
            self._shown[metric] += exposure(lists.items[:, : metric.k], fold_in.shape[1])

    def of_each(self) -> dict[str, np.ndarray]:
        """``[n_users]`` float64 by metric name."""
        return {metric.name: np.concatenate(values) for metric, values in self._values.items()}

    def of_all_lists(self) -> dict[str, float]:
        """A number by metric name."""
        return {metric.name: of_all(metric, shown) for metric, shown in self._shown.items()}


def _hits(ranked: Tensor, to_find: SparseRows) -> Tensor:
    """``[n, K]`` bool, whether the item at each rank is to be found."""
    # Row and item in one number, so that looking an item up is a search in a sorted list.
    sought = (to_find.row * to_find.n_items + to_find.indices).sort().values
    row = torch.arange(len(ranked), device=ranked.device).unsqueeze(1)
    answers = row * to_find.n_items + ranked
    nearest = torch.searchsorted(sought, answers).clamp(max=len(sought) - 1)
    return (sought[nearest] == answers) & (ranked >= 0)
