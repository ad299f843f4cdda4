"""What a better metric must not cost: figures by hand, and that they are told and void nothing."""

import json
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coterie.experiment import Experiment, Guardrail, Sums, analyse, decide, guard, sum_up
from coterie.experiment.guardrails import expected_titles, latencies, titles_shown
from coterie.experiment.report import figures, page, told
from small_experiment import NAME, SCHEMAS, arms_of, at, did, in_time, seen, window, write

ARMS = ("control", "treatment")
N_USERS, N_DAYS = 60, 3


def agreed(**bounds: float) -> Experiment:
    arms = [{"name": "control", "version": "live"}, {"name": "treatment", "version": "0007"}]
    return Experiment(name=NAME, days=N_DAYS, control="control", arms=arms, guardrails=bounds)


def published(*days: tuple[float, float], name: str = NAME) -> list[dict[str, Any]]:
    """Facts of days, by the share of each arm's users with the fall-back list."""
    return [
        {
            "experiments": [
                {
                    "experiment": name,
                    "arms": {
                        arm: {"fallback_share": share}
                        for arm, share in zip(ARMS, shares, strict=True)
                    },
                }
            ]
        }
        for shares in days
    ]


def events(*, logged: bool = True, timed: bool = True) -> tuple[list[Any], list[Any]]:
    """The treatment shows half of the titles, twice as often, and takes longer."""
    rng = np.random.default_rng(0)
    exposures, outcomes = [], []
    for day in range(N_DAYS):
        for user in range(N_USERS):
            treated = user % 2
            for n in range(4 + 4 * treated):
                row = seen(user, day, item_id=int(rng.integers(40 - 20 * treated)))
                row |= {"time": at(day, 100 + n)}
                if logged:
                    row |= {"experiment": NAME, "arm": ARMS[treated]}
                if timed:
                    row |= {"latency_ms": 20.0 + 30 * treated + int(rng.integers(100))}
                exposures.append(row)
            if rng.random() < 0.5:
                outcomes.append(did(user, day, time=at(day, 900)))
    return exposures, outcomes


@pytest.fixture(scope="module")
def rows() -> tuple[list[Any], list[Any]]:
    return events()


def summed(folder: Path, rows: tuple[list[Any], list[Any]]) -> Sums:
    with pytest.MonkeyPatch.context() as patch:
        schema = SCHEMAS["exposures"].append(pa.field("latency_ms", pa.float64()))
        patch.setitem(SCHEMAS, "exposures", schema)
        sources = write(folder, *map(in_time, rows))
    names: dict[int, str | None] = {user: ARMS[user % 2] for user in range(N_USERS)}
    return sum_up(sources, window(N_DAYS), arms_of(names))


@pytest.fixture(scope="module")
def sums(tmp_path_factory: pytest.TempPathFactory, rows: tuple[list[Any], list[Any]]) -> Any:
    with summed(tmp_path_factory.mktemp("guarded"), rows) as found:
        yield found


@given(st.lists(st.integers(1, 3), min_size=1, max_size=4), st.data())
def test_expected_titles_are_the_mean_over_all_draws(views: list[int], data: st.DataObject) -> None:
    pool = np.repeat(np.arange(len(views)), views).tolist()
    n = data.draw(st.integers(0, len(pool)))
    draws = [len(set(one)) for one in combinations(pool, n)]
    assert expected_titles(np.array(views), n) == pytest.approx(np.mean(draws))


def test_expected_titles_of_many_views_are_exact_enough() -> None:
    views = np.full(1000, 20_000)
    assert expected_titles(views, int(views.sum())) == 1000
    assert expected_titles(views, 1) == pytest.approx(1, abs=1e-4)


def test_titles_are_compared_in_as_many_views(sums: Sums, rows: tuple[list[Any], Any]) -> None:
    """The arm with twice the views would have seen more titles of the same lists."""
    items = {arm: [row["item_id"] for row in rows[0] if row["arm"] == arm] for arm in ARMS}
    found = titles_shown(sums)
    assert found["control"] == len(set(items["control"]))
    rng = np.random.default_rng(0)
    draws = [
        len(set(rng.choice(items["treatment"], len(items["control"]), replace=False).tolist()))
        for _ in range(200)
    ]
    assert found["treatment"] == pytest.approx(np.mean(draws), abs=0.1)


def test_latency_is_the_percentile_of_views(sums: Sums, rows: tuple[list[Any], Any]) -> None:
    times = {arm: [row["latency_ms"] for row in rows[0] if row["arm"] == arm] for arm in ARMS}
    expected = {
        arm: np.percentile(values, 95, method="inverted_cdf") for arm, values in times.items()
    }
    assert latencies(sums) == expected


def test_bounds_are_those_that_were_agreed(sums: Sums) -> None:
    days = [*published((0.02, 0.03), (0.04, 0.09)), *published((0.9, 0.9), name="other"), {}]
    found = {one.name: one for one in guard(sums, agreed(), days)}
    assert list(found) == ["titles shown", "fall-back lists", "latency"]
    titles, fallback, latency = found.values()
    assert titles.bound == pytest.approx(0.8 * titles.control)
    assert (fallback.control, fallback.treatment) == pytest.approx((0.03, 0.06))
    assert fallback.bound == pytest.approx(0.04)
    assert latency.bound == pytest.approx(1.2 * latency.control)
    assert [one.ok for one in found.values()] == [False, False, False]
    lax = guard(sums, agreed(titles=0.4, fallback=0.5, latency=2.0), days)
    assert [one.ok for one in lax] == [True, True, True]


def test_what_is_not_logged_has_no_row(tmp_path: Path) -> None:
    for name, logged, timed, expected in (
        ("arms", True, False, ["titles shown"]),
        ("nothing", False, True, []),
    ):
        with summed(tmp_path / name, events(logged=logged, timed=timed)) as found:
            assert [one.name for one in guard(found, agreed())] == expected


def test_a_broken_guardrail_is_told_and_voids_nothing(sums: Sums) -> None:
    broken = replace(analyse(sums, agreed(), published=published((0.0, 0.5))), checks=[])
    kept = replace(broken, guardrails=[])
    decision, other = decide(broken)[0], decide(kept)[0]
    assert (decision.verdict, decision.headline) == (other.verdict, other.headline)
    more = [words for words in decision.because if words not in other.because]
    assert more == [one.words for one in broken.guardrails]
    assert "fall-back lists: 50.0 % with treatment, at most 1.0 % was agreed" in more[1]
    assert more[1] in told(broken)
    assert "Guardrails</h2>" in page(broken)
    assert "Guardrails</h2>" not in page(kept)
    values = json.loads(json.dumps(figures(broken)))["guardrails"][1]
    assert (values["treatment"], values["ok"]) == (0.5, False)


def test_a_guardrail_that_is_kept_is_no_reason(sums: Sums) -> None:
    analysis = analyse(sums, agreed(titles=0, latency=9), published=published((0.1, 0.1)))
    assert all(one.ok for one in analysis.guardrails)
    assert "uardrail" not in " ".join(decide(analysis)[0].because)


def test_names_are_text(sums: Sums) -> None:
    hostile = Guardrail("<script>", "treatment", 1.0, 2.0, 1.5, "ms")
    analysis = replace(analyse(sums, agreed()), guardrails=[hostile])
    assert "<script>" not in page(analysis)
