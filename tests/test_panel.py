"""The simulated panel has what was planted in it, and nothing where nothing was."""

from dataclasses import replace

import numpy as np
import pytest

from coterie.simulation.panel import Panel, PanelLaw, PanelMetric

LAW = PanelLaw(n_users=30_000, n_days=28, before_days=14)


@pytest.fixture(scope="module")
def lifted() -> Panel:
    return replace(LAW, lift=0.3).draw(seed=0)


def rate(panel: Panel, *, treated: bool, days: slice) -> float:
    rows = panel.treated == treated
    return float(panel.clicks[rows, days].sum() / panel.views[rows, days].sum())


def lift_in(panel: Panel, first: int, last: int) -> float:
    days = slice(panel.law.before_days + first, panel.law.before_days + last)
    return rate(panel, treated=True, days=days) / rate(panel, treated=False, days=days) - 1


def test_panel_is_alike_for_alike_seeds_and_no_other() -> None:
    law = PanelLaw(n_users=50)
    one, again, other = law.draw(1), law.draw(1), law.draw(2)
    for name in ("treated", "views", "clicks", "seconds"):
        np.testing.assert_array_equal(getattr(one, name), getattr(again, name))
        assert not np.array_equal(getattr(one, name), getattr(other, name))


def test_panel_clicks_on_views_and_watches_clicks(lifted: Panel) -> None:
    assert lifted.views.shape == lifted.clicks.shape == lifted.seconds.shape == (30_000, 42)
    assert (lifted.clicks <= lifted.views).all()
    assert ((lifted.seconds > 0) == (lifted.clicks > 0)).all()


def test_panel_has_the_lift_within_the_experiment_alone(lifted: Panel) -> None:
    assert lift_in(lifted, 0, 28) == pytest.approx(0.3, abs=0.04)
    assert lift_in(lifted, -14, 0) == pytest.approx(0.0, abs=0.04)
    assert lift_in(LAW.draw(seed=0), 0, 28) == pytest.approx(0.0, abs=0.03)


def test_panel_novelty_fades_and_fatigue_grows() -> None:
    novel = replace(LAW, lift=0.3, novelty=1.0).draw(0)
    assert lift_in(novel, 0, 3) > lift_in(novel, 21, 28) + 0.1
    assert lift_in(novel, 0, 2) == pytest.approx(0.55, abs=0.1)
    tired = replace(LAW, lift=0.3, fatigue=0.2).draw(0)
    assert lift_in(tired, 0, 2) == pytest.approx(0.28, abs=0.08)
    assert lift_in(tired, 21, 28) == pytest.approx(0.05, abs=0.06)


def test_panel_is_heavy_tailed_and_has_a_week(lifted: Panel) -> None:
    views = np.sort(lifted.views.sum(axis=1))
    assert views[-3000:].sum() > 0.35 * views.sum()
    by_weekday = lifted.views.reshape(30_000, 6, 7).sum(axis=(0, 1))
    assert by_weekday.argmax() == 5
    assert by_weekday.max() > 1.2 * by_weekday.min()


def test_panel_users_differ_more_than_chance(lifted: Panel) -> None:
    """Else views would be independent, and clustering by user without need."""
    y, x, *_ = lifted.columns("clicks_per_view", 28, treated=False).T
    p = y.sum() / x.sum()
    assert ((y - p * x) ** 2).sum() > 4 * (x * p * (1 - p)).sum()


def test_panel_takes_arms_or_draws_them() -> None:
    arms = np.arange(2000) % 4 == 0
    np.testing.assert_array_equal(PanelLaw(lift=0.1).draw(0, arms).treated, arms)
    assert replace(LAW, treated=0.2).draw(0).treated.mean() == pytest.approx(0.2, abs=0.01)


@pytest.mark.parametrize("days", [1, 9, 28])
def test_columns_are_sums_of_users_who_were_seen(days: int) -> None:
    panel = PanelLaw(n_users=80, lift=0.5).draw(5)
    now = slice(14, 14 + days)
    seen = panel.views[:, now].sum(axis=1) > 0
    assert 0 < seen.sum() < 80
    came = panel.views > 0
    expected: dict[PanelMetric, list[np.ndarray]] = {
        "clicks_per_view": [panel.clicks, panel.views],
        "clicks_per_viewing_day": [panel.clicks, came],
        "seconds_per_user": [panel.seconds],
    }
    for metric, daily in expected.items():
        y, x, y_before, x_before = panel.columns(metric, days).T
        ones = np.ones(seen.sum())
        np.testing.assert_allclose(y, daily[0][seen, now].sum(axis=1), rtol=1e-9, atol=1e-6)
        np.testing.assert_allclose(y_before, daily[0][seen, :14].sum(axis=1), rtol=1e-9)
        np.testing.assert_array_equal(
            x, daily[1][seen, now].sum(axis=1) if len(daily) > 1 else ones
        )
        np.testing.assert_array_equal(
            x_before, daily[1][seen, :14].sum(axis=1) if len(daily) > 1 else ones
        )


def test_columns_of_the_arms_are_all() -> None:
    panel = PanelLaw(n_users=200).draw(6)
    parts = [panel.columns("seconds_per_user", 28, treated=arm) for arm in (True, False)]
    whole = panel.columns("seconds_per_user", 28)
    assert sorted(map(tuple, np.concatenate(parts))) == sorted(map(tuple, whole))
    assert len(parts[0]) == (panel.treated & (panel.views[:, 14:].sum(axis=1) > 0)).sum()
