"""What the demo prints: who ranks how well and what each is for, what is gained, and lists."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import zip_longest

import numpy as np

from coterie.data.dataset import Dataset
from coterie.data.ids import Id
from coterie.data.split import Part
from coterie.evaluation.compare import Comparison
from coterie.evaluation.metrics import LEGEND, Metric
from coterie.evaluation.report import EvaluationReport
from coterie.lab.demo.contest import GAINS, METRIC, Contest
from coterie.lab.demo.models import WHAT_FOR
from coterie.plain_table import plain_table
from coterie.training.trained_model import TrainedModel

SHOWN_USERS = 3
LENGTH = 8
"""Of a history that is shown, or about."""


def page(
    contest: Contest,
    reports: Mapping[str, EvaluationReport],
    data: Dataset,
    label: Callable[[Id], str],
) -> str:
    """The whole of it.

    Args:
        contest: What came of it.
        reports: Its reports, and others to stand beside them.
        data: What was learnt from.
        label: What a reader sees of an item, by its id.
    """
    chosen = f"On the validation users {contest.chosen} ranked best. Three test users' lists by it:"
    return "\n\n".join(
        [
            _table(reports, contest.seconds),
            plain_table(["model", "what it is for"], list(map(list, WHAT_FOR.items()))),
            _gains(contest.gains),
            chosen,
            *_lists(contest.models[contest.chosen], data, label),
        ]
    )


def _table(reports: Mapping[str, EvaluationReport], seconds: Mapping[str, float]) -> str:
    first = next(iter(reports.values()))
    names = list(first.metrics)
    rows = [
        [
            model,
            *(f"{report.mean(name):.4f} ± {report.standard_error(name):.4f}" for name in names),
            f"{seconds[model]:.0f} s" if model in seconds else "",
        ]
        for model, report in reports.items()
    ]
    header = ["test users", *(Metric.parse(name).label for name in names), "train"]
    table = plain_table(header, rows, [False] * (len(header) - 1) + [True])
    return f"{table}\n± standard error over {len(first)} users; {LEGEND}"


def _gains(gains: Sequence[Comparison]) -> str:
    rows = []
    for (candidate, reference), gain in zip(GAINS, gains, strict=True):
        one = gain.overall[METRIC]
        relative, interval = f"{one.relative_difference:+.1%}", f"[{one.low:+.4f}, {one.high:+.4f}]"
        name = f"{candidate} over {reference}"
        rows.append([name, f"{one.difference:+.4f}", relative, interval, f"{one.p_value:.4f}"])
    header = ["gain", "relative", f"{gains[0].confidence:.0%} interval", "p"]
    return plain_table([Metric.parse(METRIC).label, *header], rows)


def _lists(model: TrainedModel, data: Dataset, label: Callable[[Id], str]) -> list[str]:
    """What a few test users had and what the model would show them."""
    cases = data.cases(Part.TEST)
    sizes = np.diff(cases.fold_in.indptr)
    chosen = np.argsort(np.abs(sizes - LENGTH), kind="stable")[:SHOWN_USERS].tolist()
    users = data.users.ids_of(cases.user_index[chosen])
    items = (data.items.ids_of(cases.fold_in[[case]].indices) for case in chosen)
    histories = dict(zip(users, items, strict=True))
    found = model.recommend(histories, k=5)
    return [
        _beside(user, map(label, had), (label(one.item_id) for one in found.for_user(user)))
        for user, had in histories.items()
    ]


def _beside(user: Id, had: Iterable[str], shown: Iterable[str]) -> str:
    ranked = (f"{rank}. {item}" for rank, item in enumerate(shown, start=1))
    rows = zip_longest(had, ranked, fillvalue="")
    return plain_table([f"user {user} had", "would be shown"], list(map(list, rows)))
