"""The comparison tables of a page: primary comparisons, all others with corrected p-values, and
what is exploratory.
"""

from coterie.evaluation.compare import FEWEST_FOR_PERCENT, Difference
from coterie.evaluation.metrics import Metric
from coterie.lab.reproduce.results import ALL, UNSEEN, Results

EXPLORATORY = "†"
_SMALLEST_P = 1e-4
"""As small as sign flips can tell: below it a p-value is an upper bound."""

Table = tuple[list[str], list[list[str]]]


def columns(results: Results, p: str = "p") -> list[str]:
    """The columns of a gain; of one run they say what the interval does not hold."""
    one_split = "" if len(results.plan.seeds) > 1 else ", one split: users only"
    return ["gain", "relative", f"95 % interval{one_split}", p]


def corrected_p(results: Results) -> str:
    """The column of corrected p-values."""
    return f"p (Holm, {len(results.corrected)})"


def gain(one: Difference, p_value: float) -> list[str]:
    """The cells of a gain; no percentage of so few users that it would be mostly noise."""
    relative = f"{one.relative_difference:+.1%}" if one.users >= FEWEST_FOR_PERCENT else ""
    interval = f"[{one.low:+.4f}, {one.high:+.4f}]"
    bound = "≤ " if one.p_value <= _SMALLEST_P and p_value < 1 else ""
    return [f"{one.difference:+.4f}", relative, interval, f"{bound}{p_value:.4f}"]


def corrected_gain(results: Results, name: str, part: str, one: Difference) -> list[str]:
    """The cells of a gain that is not primary."""
    return gain(one, results.corrected[name, part])


def primary_table(results: Results) -> Table:
    """A line a primary comparison."""
    rows = []
    for pair in results.primary:
        one = results.comparisons[pair.name].overall[pair.metric]
        label = Metric.parse(pair.metric).label
        rows.append([f"**{pair.name}**", label, *gain(one, one.p_value), _by_split(one)])
    header = ["primary", "metric", *columns(results), "gain by split"]
    return _last_if_several(results, header, rows)


def comparisons_table(results: Results) -> Table:
    """A line a comparison and one a cohort; by the metric of the table."""
    metric, rows = results.definition.compare_by, []
    for name in own(results):
        one = results.comparisons[name]
        rows.append(_whole(results, name, one.overall[metric]))
        for cohort, differences in one.cohorts.items():
            found = differences[metric]
            users = f"{found.users} user{'s' if found.users > 1 else ''}"
            cells = corrected_gain(results, name, cohort, found)
            rows.append([f"— {cohort} interactions, {users}", *cells, ""])
    header = [Metric.parse(metric).label, *columns(results, corrected_p(results)), "gain by split"]
    return _last_if_several(results, header, rows)


def _last_if_several(results: Results, header: list[str], rows: list[list[str]]) -> Table:
    """Without the last column, of gains by split, where there is one split."""
    several = len(results.plan.seeds) > 1
    return (header, rows) if several else (header[:-1], [row[:-1] for row in rows])


def _whole(results: Results, name: str, one: Difference) -> list[str]:
    if results.is_primary(name):
        return [f"**{name}**, primary, above", "", "", "", "", ""]
    cells = corrected_gain(results, name, ALL, one)
    return [f"**{marked_pair(results, name)}**", *cells, _by_split(one)]


def unseen_table(results: Results) -> Table:
    """The same without the users that configurations were chosen on."""
    metric, rows = results.definition.compare_by, []
    for name in own(results):
        one = results.unseen[name].overall[metric]
        cells = corrected_gain(results, name, UNSEEN, one)
        rows.append([f"{marked_pair(results, name)}, {one.users} users", *cells])
    return [Metric.parse(metric).label, *columns(results, corrected_p(results))], rows


def own(results: Results) -> list[str]:
    """The table's own comparisons, without those of its curves."""
    return [pair.name for pair in results.pairs if pair in results.definition.comparisons]


def marked(results: Results, name: str) -> str:
    """A row's name, with the mark of an exploratory one."""
    exploratory = any(row.name == name and row.exploratory for row in results.definition.rows)
    return f"{name}{EXPLORATORY}" if exploratory else name


def marked_pair(results: Results, name: str) -> str:
    """A comparison's name, exploratory rows marked."""
    return " over ".join(marked(results, row) for row in name.split(" over "))


def exploratory_note(results: Results) -> list[str]:
    """What the mark means, and why each row there is has it; nothing where none has."""
    whys = [
        f"`{row.name}`: {row.exploratory}"
        for row in results.definition.rows
        if row.exploratory and row.name in results.runs.rows
    ]
    told = f"{EXPLORATORY} Exploratory, chosen with knowledge of test users, so no headline: "
    return [f"{told}{'; '.join(whys)}."] if whys else []


def statistics_note(results: Results) -> str:
    """What intervals and p-values of the table are, in sentences."""
    runs = len(results.plan.seeds)
    held = (
        f"Intervals and p-values hold users, and the {runs} splits and training seeds."
        if runs > 1
        else "One split: intervals and p-values hold users only, not what another split or seed"
        " would give."
    )
    corrected = (
        f" Holm: corrected for all {len(results.corrected)} comparisons that are not primary."
        if results.corrected
        else ""
    )
    return held + corrected


def _by_split(one: Difference) -> str:
    return " ".join(f"{found:+.4f}" for found in one.by_run)


def short_table(results: Results) -> Table:
    """A line a comparison, for a terminal; primary ones first."""
    metric, rows = results.definition.compare_by, []
    for name in sorted(results.comparisons, key=lambda name: not results.is_primary(name)):
        one = results.comparisons[name].overall[metric]
        primary = results.is_primary(name)
        cells = gain(one, one.p_value) if primary else corrected_gain(results, name, ALL, one)
        rows.append([f"{marked_pair(results, name)}{' (primary)' if primary else ''}", *cells])
    return [metric, *columns(results, corrected_p(results))], rows
