"""The statistical baseline: against brute force, and where recency and segments are planted."""

from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array

from coterie.config import RunConfig
from coterie.data.dataset import Dataset
from coterie.data.prepare import prepare
from coterie.data.rules import TimeSplit
from coterie.data.split import Part
from coterie.errors import ConfigError
from coterie.evaluation.evaluate import evaluate
from coterie.models.most_watched import MostWatchedConfig
from coterie.models.popularity import PopularityConfig
from coterie.networks.most_watched import MostWatched
from coterie.simulation.living import LivingService
from coterie.simulation.service import simulate_dataset
from coterie.training.trained_model import TrainedModel
from coterie.training.trainer import train
from scorer_contract import check_scorer, random_histories
from test_sparse import random_dense, sparse

DAY = 86_400


def brute_force(
    x: np.ndarray, times: np.ndarray, half_life: float, n_segments: int, length: int
) -> list[float]:
    """Scores of a history of some length, a user and an item at a time."""
    lengths = sorted(int(row.sum()) for row in x)
    starts = [1]
    for n in range(1, n_segments):
        # The least length that so large a share of users does not go beyond.
        place = int(np.ceil(round(n / n_segments * (len(lengths) - 1), 9)))
        starts.append(max(lengths[place], 1))

    def segment(n: int) -> int:
        return sum(n >= start for start in starts)

    newest = max(times[u, i] for u, i in zip(*np.nonzero(x), strict=True))
    scores = []
    for item in range(x.shape[1]):
        mine, everybody = 0.0, 0.0
        for user in np.flatnonzero(x[:, item]):
            weight = 0.5 ** ((newest - times[user, item]) / DAY / half_life)
            everybody += weight
            if segment(int(x[user].sum())) == segment(length):
                mine += weight
        scores.append((everybody if length == 0 else mine) + everybody / 2**20)
    return scores


@given(
    st.integers(1, 20),
    st.integers(1, 12),
    st.integers(0, 999),
    st.floats(0.5, 50),
    st.integers(1, 5),
)
@settings(max_examples=40, deadline=None)
def test_scores_are_counts_that_fade_in_the_segment(
    n_users: int, n_items: int, seed: int, half_life: float, n_segments: int
) -> None:
    x = random_dense(n_users, n_items, seed)
    x[0, 0] = 1
    times = np.random.default_rng(seed).integers(0, 90 * DAY, x.shape)
    rows = csr_array(x.astype(np.float32))
    config = MostWatchedConfig(half_life_days=half_life, segments=n_segments)
    model = config.fit_timed(rows, times[x > 0])
    asked = np.tril(np.ones((n_items + 1, n_items)), -1)
    found = model.score(sparse(asked)).numpy()
    for length, scores in enumerate(found):
        expected = brute_force(x, times, half_life, n_segments, length)
        # Below it float32 has fewer digits.
        np.testing.assert_allclose(scores, expected, rtol=1e-5, atol=1e-37)


def test_without_times_or_segments_it_is_popularity() -> None:
    rows = csr_array(random_dense(40, 9, 3).astype(np.float32))
    asked = sparse(random_dense(4, 9, 0))
    plain = PopularityConfig().fit(rows).score(asked)
    for model in (
        MostWatchedConfig(segments=1).fit(rows),
        MostWatchedConfig(segments=1).fit_timed(rows, np.full(rows.nnz, 7)),
        MostWatchedConfig(segments=1, half_life_days=1e12).fit_timed(rows, np.arange(rows.nnz)),
    ):
        torch.testing.assert_close(model.score(asked), plain, rtol=1e-5, atol=1e-3)


def test_nothing_to_count_scores_zeros() -> None:
    model = MostWatchedConfig().fit_timed(csr_array((3, 5), dtype=np.float32), np.empty(0, int))
    assert model.score(sparse(np.ones((2, 5)))).tolist() == [[0.0] * 5] * 2


def test_answers_belong_to_the_caller() -> None:
    model = MostWatchedConfig().fit(csr_array(np.ones((2, 3), dtype=np.float32)))
    before = model.counts.clone()
    model.score(sparse(np.ones((2, 3)))).fill_(-1)
    assert torch.equal(model.counts, before)


def test_there_are_no_item_vectors() -> None:
    with pytest.raises(ConfigError, match="learned item vectors"):
        MostWatched(3, 2).item_vectors()


@pytest.mark.parametrize("values", [{"segments": 1}, {"segments": 3, "half_life_days": 2.5}])
def test_a_trained_one_is_saved_and_scores_any_history(
    values: dict[str, Any], tmp_path: Path
) -> None:
    data = simulate_dataset(n_users=260, n_items=50, held_out_users=40, seed=2)
    config = RunConfig.of({"model": {"name": "most-watched", **values}})
    model = train(data, config)
    model.save(tmp_path)
    loaded, histories = TrainedModel.load(tmp_path), random_histories(10, 50, 0)
    assert (loaded.config, loaded.fingerprint) == (config, model.fingerprint)
    assert torch.equal(loaded.score(histories), model.score(histories))
    check_scorer(loaded, histories)


@pytest.fixture(scope="module")
def living(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Ten weeks in which titles come and age, the last one to be found."""
    service = LivingService(600, 150, 10, 3, date(2026, 1, 5), weekly_items=4.0)
    folder = tmp_path_factory.mktemp("living")
    service.write(folder, date(2026, 1, 5), date(2026, 3, 15))
    split = TimeSplit(7, validation_days=0)
    return prepare(str(folder / "events"), timestamp="timestamp", split=split)


def ndcg(data: Dataset, values: dict[str, Any]) -> float:
    model = train(data, RunConfig.of({"model": values}))
    return evaluate(model, data.cases(Part.TEST), metrics=["ndcg@20"]).mean("ndcg@20")


def test_recency_finds_more_where_titles_age(living: Dataset) -> None:
    """More than popularity does, and as much where nothing fades, but for ties."""
    faded = ndcg(living, {"name": "most-watched"})
    popular = ndcg(living, {"name": "popularity"})
    never = ndcg(living, {"name": "most-watched", "half_life_days": 1e9, "segments": 1})
    assert faded > 1.1 * popular
    assert never == pytest.approx(popular, rel=0.01)


def test_segments_find_more_where_they_differ() -> None:
    """Those with short histories watch the first items, those with long ones the rest."""
    rng = np.random.default_rng(0)
    x = np.zeros((200, 60))
    for user in range(200):
        n, first, last = (3, 0, 20) if user % 2 else (15, 20, 60)
        x[user, rng.permutation(np.arange(first, last))[:n]] = 1
    model = MostWatchedConfig(segments=2).fit(csr_array(x.astype(np.float32)))
    best = model.score(sparse(x)).topk(10).indices.numpy()
    assert (best[1::2] < 20).all()
    assert (best[::2] >= 20).all()
