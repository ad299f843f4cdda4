"""The simulated service keeps its own law: what it says of its users is what its log shows."""

import itertools
import math
import re
import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
from scipy import stats

from coterie.data.dataset import Dataset
from coterie.data.split import Cases, Part
from coterie.errors import ConfigError
from coterie.running.progress import Update
from coterie.simulation.draws import choose, draw_items, flat_cumulative
from coterie.simulation.service import (
    BLOCK_USERS,
    START_SECONDS,
    WEEK_SECONDS,
    Block,
    SimulatedService,
    simulate_dataset,
)
from coterie.simulation.titles import make_catalogue

SERVICE = SimulatedService(n_users=5000, n_items=300, seed=7)


def whole(service: SimulatedService) -> Block:
    return Block(
        *(
            np.concatenate(columns)
            for columns in zip(*(vars(b).values() for b in service.blocks()), strict=True)
        )
    )


LOG = whole(SERVICE)


def same_users(block: Block, n_users: int) -> list[bytes]:
    mine = block.user_id <= n_users
    return [column[mine].tobytes() for column in vars(block).values()]


# What the log looks like.


def test_blocks_give_every_user_some_items_each_once() -> None:
    counts = np.bincount(LOG.user_id, minlength=SERVICE.n_users + 1)
    assert counts[0] == 0
    assert len(counts) == SERVICE.n_users + 1
    assert counts[1:].min() == SERVICE.min_items
    assert np.array_equal(counts[1:], SERVICE.users(np.arange(SERVICE.n_users)).n_items)
    assert len(np.unique(LOG.user_id * 1000 + LOG.item_id)) == len(LOG.user_id)
    assert LOG.item_id.min() == 1
    assert LOG.item_id.max() <= SERVICE.n_items


def test_blocks_ascend_by_user_and_time_within_the_weeks() -> None:
    assert (np.diff(LOG.user_id) >= 0).all()
    assert (np.diff(LOG.timestamp)[np.diff(LOG.user_id) == 0] >= 0).all()
    assert LOG.timestamp.min() >= START_SECONDS
    assert LOG.timestamp.max() < START_SECONDS + SERVICE.weeks * WEEK_SECONDS
    # Seconds are uniform over the weeks, so that every week has its share.
    week = (LOG.timestamp - START_SECONDS) // WEEK_SECONDS
    assert stats.chisquare(np.bincount(week, minlength=SERVICE.weeks)).pvalue > 1e-4


def test_blocks_rate_half_of_the_items_4_or_more_whatever_the_item() -> None:
    assert set(np.unique(LOG.rating)) == set(np.arange(1, 11) / 2)
    assert (LOG.rating >= 4).mean() == pytest.approx(0.5, abs=0.01)
    popular = np.bincount(LOG.item_id)[LOG.item_id] > 1000
    table = np.histogram2d(popular, LOG.rating >= 4, bins=2)[0]
    assert stats.chi2_contingency(table).pvalue > 1e-4


def test_activity_and_popularity_have_long_tails() -> None:
    service = SimulatedService(n_users=4096, n_items=1500, seed=2)
    log = whole(service)
    counts = np.bincount(log.user_id)[1:]
    assert counts.mean() == pytest.approx(service.mean_items, rel=0.1)
    assert np.median(counts) < 0.6 * counts.mean()
    assert (counts > 200).sum() > 50
    plays = np.sort(np.bincount(log.item_id, minlength=1501)[1:])[::-1]
    assert plays[:150].sum() > 0.3 * plays.sum()
    assert plays[750:].sum() < 0.25 * plays.sum()


def test_titles_are_unique_and_readable() -> None:
    catalogue = make_catalogue(60_000, 64, np.random.default_rng(0))
    assert len(set(catalogue.titles)) == 60_000
    form = re.compile(r"The [A-Z][a-z]+ [A-Z][a-z]+( of [A-Z][a-z]+(, Part \d+)?)?")
    assert all(form.fullmatch(title) for title in catalogue.titles)
    many = make_catalogue(120_000, 4, np.random.default_rng(0)).titles
    assert len(set(many)) == 120_000
    assert any(", Part 2" in title for title in many)


def test_genres_tell_the_niche() -> None:
    catalogue = SERVICE.catalogue
    pairs = {
        (genre, niche)
        for genre, niche in zip(catalogue.genres, catalogue.niche.tolist(), strict=True)
    }
    assert len(pairs) == SERVICE.n_niches == len({genre for genre, _ in pairs})


# Seeds and blocks.


def test_blocks_same_seed_gives_the_same_and_another_seed_another_log() -> None:
    again, other = SimulatedService(1500, 300, seed=7), SimulatedService(1500, 300, seed=8)
    assert same_users(whole(again), 1500) == same_users(LOG, 1500)
    assert not np.array_equal(whole(other).item_id, whole(again).item_id)
    assert other.catalogue.titles != again.catalogue.titles


@pytest.mark.parametrize("n_users", [1, BLOCK_USERS - 1, BLOCK_USERS, BLOCK_USERS + 1])
def test_blocks_do_not_depend_on_the_number_of_users(n_users: int) -> None:
    few = whole(SimulatedService(n_users, 300, seed=7))
    assert few.user_id[-1] == n_users
    assert same_users(few, n_users) == same_users(LOG, n_users)


def test_users_do_not_depend_on_the_order_or_the_company_in_which_they_are_asked() -> None:
    asked = np.array([4999, 3, 2500, 3])
    together = SERVICE.users(asked)
    alone = [SERVICE.users([user]) for user in asked]
    for name, column in vars(together).items():
        assert np.array_equal(column, np.concatenate([getattr(one, name) for one in alone]))
    assert SERVICE.users([]).tastes.shape == (0, SERVICE.n_niches)


def test_blocks_stream_in_bounded_memory() -> None:
    service = SimulatedService(n_users=200_000, n_items=100, seed=1, mean_items=6)
    tracemalloc.start()
    n = sum(len(block.user_id) for block in service.blocks())
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert n > 1_000_000  # 32 MB, were it held at once.
    assert peak_bytes < 8e6


def test_blocks_of_ten_million_users_begin_at_once() -> None:
    service = SimulatedService(n_users=10_000_000, n_items=300, seed=7)
    assert same_users(next(service.blocks()), BLOCK_USERS) == same_users(LOG, BLOCK_USERS)
    assert service.users([9_999_999]).n_items[0] >= service.min_items


# The law.


def order_probability(order: tuple[int, ...], law: np.ndarray) -> float:
    left = 1 - np.cumsum([0.0, *law[list(order[:-1])]])
    return float(np.prod(law[list(order)] / left))


def test_draw_items_follows_the_law_of_successive_draws_without_replacement() -> None:
    n, law = 20_000, np.array([0.4, 0.3, 0.2, 0.1])
    row, item = draw_items(
        np.ones((n, 1)),
        np.full(n, 3),
        law[None],
        flat_cumulative(law[None]),
        np.random.default_rng(1),
    )
    assert np.array_equal(row, np.repeat(np.arange(n), 3))
    drawn = item.reshape(n, 3) @ [16, 4, 1]
    orders = list(itertools.permutations(range(4), 3))
    observed = [int((drawn == order[0] * 16 + order[1] * 4 + order[2]).sum()) for order in orders]
    expected = [n * order_probability(order, law) for order in orders]
    assert stats.chisquare(observed, expected).pvalue > 1e-4


def test_draw_items_follows_the_law_where_repeats_leave_users_short() -> None:
    # Rounds of draws find the first item again and again; most users need completing.
    n, law = 20_000, np.array([0.994, 0.003, 0.002, 0.001])
    row, item = draw_items(
        np.ones((n, 1)),
        np.full(n, 4),
        law[None],
        flat_cumulative(law[None]),
        np.random.default_rng(2),
    )
    assert np.array_equal(row, np.repeat(np.arange(n), 4))
    items = item.reshape(n, 4)
    assert np.array_equal(np.sort(items, axis=1), np.tile(np.arange(4), (n, 1)))
    after_first = items[items[:, 0] == 0][:, 1:]
    orders = list(itertools.permutations((1, 2, 3)))
    observed = [int((after_first == order).all(axis=1).sum()) for order in orders]
    expected = [
        len(after_first) * order_probability(order, law / law[1:].sum()) for order in orders
    ]
    assert stats.chisquare(observed, expected).pvalue > 1e-4


def test_blocks_draw_a_users_first_item_from_probabilities() -> None:
    first = LOG.item_id[np.flatnonzero(np.diff(LOG.user_id, prepend=0))] - 1
    law = SERVICE.probabilities(np.arange(SERVICE.n_users))
    # Each user against the others' law too: the fit must be to this user and not to the average
    # one.
    own = np.log(law[np.arange(len(first)), first]).mean()
    expected = (law * np.log(law)).sum(axis=1)
    spread = np.sqrt(((law * np.log(law) ** 2).sum(axis=1) - expected**2).sum()) / len(first)
    assert abs(own - expected.mean()) < 4 * spread
    assert np.log(law[np.arange(len(first)) - 1, first]).mean() < own - 0.5
    observed = np.bincount(first, minlength=SERVICE.n_items)
    assert stats.chisquare(observed, law.sum(axis=0)).pvalue > 1e-4


def test_probabilities_are_positive_and_sum_to_one() -> None:
    law = SERVICE.probabilities([0, 4999])
    assert law.shape == (2, SERVICE.n_items)
    assert law.min() > 0
    np.testing.assert_allclose(law.sum(axis=1), 1, rtol=1e-12)


def test_choose_marks_the_asked_number_of_columns_by_weight() -> None:
    weights = np.tile([0.0, 1.0, 3.0, 6.0], (20_000, 1))
    marked = choose(weights, np.ones(20_000, np.int64), np.random.default_rng(3))
    assert (marked.sum(axis=1) == 1).all()
    assert stats.chisquare(marked.sum(axis=0)[1:], np.array([2000, 6000, 12_000])).pvalue > 1e-4
    assert not marked[:, 0].any()


# What is planted.


def test_users_light_tastes_are_subsets_of_the_profile_that_heavy_users_take_whole() -> None:
    users = SERVICE.users(np.arange(SERVICE.n_users))
    takes, profiles = users.tastes > 0, SERVICE.profiles > 0
    heavy = ~users.is_light
    assert 0.6 < users.is_light.mean() < 0.8
    assert set(takes[users.is_light].sum(axis=1)) == {1, 2}
    assert set(profiles.sum(axis=1)) == {3, 4, 5}
    assert np.array_equal(takes[heavy], profiles[users.profile[heavy]])
    assert (takes <= profiles[users.profile]).all()
    assert users.n_items[heavy].min() >= users.n_items[users.is_light].max()
    assert set(users.profile[users.is_light]) <= set(users.profile[heavy])


def test_light_users_are_far_from_heavy_users_of_their_profile_and_yet_share_items_with_them() -> (
    None
):
    users = SERVICE.users(np.arange(500))
    rows = np.zeros((500, SERVICE.n_items))
    mine = LOG.user_id <= 500
    rows[LOG.user_id[mine] - 1, LOG.item_id[mine] - 1] = 1
    shared = rows @ rows.T
    light_heavy = users.is_light[:, None] & ~users.is_light[None]
    related = users.profile[:, None] == users.profile[None]
    light_size = np.repeat(rows.sum(axis=1)[:, None], 500, axis=1)
    assert (shared / light_size)[light_heavy & related].mean() > 1.4 * (shared / light_size)[
        light_heavy & ~related
    ].mean()


def slow_ndcg(scores: np.ndarray, cases: Cases, k: int = 50) -> float:
    values = []
    for row in range(len(cases.user_index)):
        seen = set(cases.fold_in[[row]].indices.tolist())
        hidden = set(cases.held_out[[row]].indices.tolist())
        ranked = [i for i in np.argsort(-scores[row], kind="stable").tolist() if i not in seen][:k]
        gain = sum(1 / math.log2(rank + 2) for rank, i in enumerate(ranked) if i in hidden)
        values.append(gain / sum(1 / math.log2(rank + 2) for rank in range(min(k, len(hidden)))))
    return float(np.mean(values))


@pytest.mark.parametrize(
    ("n_users", "n_items", "held_out_users"), [(300, 60, 40), (3000, 600, 300)]
)
def test_best_scores_beat_a_model_that_beats_popularity(
    n_users: int, n_items: int, held_out_users: int
) -> None:
    service = SimulatedService(n_users, n_items, seed=1)
    data = service.dataset(held_out_users)
    cases = data.cases(Part.TEST)
    users, items = data.users.ids_of(cases.user_index), data.items.ids_of(range(data.n_items))
    gram = (data.train.T @ data.train).toarray() + 100 * np.eye(data.n_items)
    inverse = np.linalg.inv(gram)
    weights = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0)
    popularity = np.tile(np.asarray(data.train.sum(axis=0)).ravel(), (len(users), 1))
    worst, model, best = (
        slow_ndcg(s, cases)
        for s in (popularity, cases.fold_in @ weights, service.best_scores(users, items))
    )
    assert worst + 0.1 < model
    assert model + 0.02 < best


def test_best_scores_are_the_probabilities_in_the_order_of_the_ids() -> None:
    scores = SERVICE.best_scores([12, 1], [300, 1, 7])
    np.testing.assert_allclose(scores, SERVICE.probabilities([11, 0])[:, [299, 0, 6]], rtol=1e-12)


@pytest.mark.parametrize(("users", "items"), [([0], [1]), ([5001], [1]), ([1], [0]), ([1], [301])])
def test_best_scores_of_an_unknown_id_is_refused(users: list[int], items: list[int]) -> None:
    with pytest.raises(ConfigError, match="must be in"):
        SERVICE.best_scores(users, items)


# Files and data sets.


def test_write_ratings_csv_and_parquet_agree_with_the_blocks(tmp_path: Path) -> None:
    updates: list[Update] = []
    service = SimulatedService(1500, 80, seed=4)
    service.write_ratings_csv(tmp_path / "made" / "here", progress=updates.append)
    service.write_parquet(tmp_path / "log.parquet")
    assert [(one.done, one.total) for one in updates] == [(1024, 1500), (1500, 1500)]
    from_csv, from_parquet = (
        pa_csv.read_csv(tmp_path / "made" / "here" / "ratings.csv"),
        pq.read_table(tmp_path / "log.parquet"),
    )
    assert from_csv.column_names == ["userId", "movieId", "rating", "timestamp"]
    assert from_parquet.column_names == ["user_id", "item_id", "rating", "timestamp"]
    for csv_column, parquet_column, expected in zip(
        from_csv.columns, from_parquet.columns, vars(whole(service)).values(), strict=True
    ):
        assert np.array_equal(csv_column.to_numpy(), expected)
        assert np.array_equal(parquet_column.to_numpy(), expected)
    assert sorted(p.name for p in tmp_path.rglob("*") if p.is_file()) == [
        "log.parquet",
        "movies.csv",
        "ratings.csv",
    ]


def test_write_ratings_csv_has_the_official_form(tmp_path: Path) -> None:
    service = SimulatedService(20, 80, seed=4)
    service.write_ratings_csv(tmp_path)
    header, *rows = (tmp_path / "ratings.csv").read_bytes().decode().splitlines()
    assert header == "userId,movieId,rating,timestamp"
    assert all(re.fullmatch(r"\d+,\d+,[0-5]\.[05],\d{10}", row) for row in rows)
    movies = pa_csv.read_csv(tmp_path / "movies.csv").to_pydict()
    assert movies["movieId"] == list(range(1, 81))
    assert tuple(movies["title"]) == service.catalogue.titles
    assert tuple(movies["genres"]) == service.catalogue.genres


def test_write_ratings_csv_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        SimulatedService(1100, 80, seed=4).write_ratings_csv(tmp_path / name)
    for file in ("ratings.csv", "movies.csv"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_write_parquet_that_fails_leaves_the_older_file(tmp_path: Path) -> None:
    path = tmp_path / "log.parquet"
    path.write_bytes(b"older")

    def refuse(_: Update) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        SimulatedService(20, 80).write_parquet(path, progress=refuse)
    assert [p.name for p in tmp_path.iterdir()] == ["log.parquet"]
    assert path.read_bytes() == b"older"


def test_simulate_dataset_holds_the_log_its_titles_and_its_times() -> None:
    service = SimulatedService(2000, 900, seed=5, n_niches=8, mean_items=8, weeks=3)
    data = simulate_dataset(2000, 900, 200, seed=5, n_niches=8, mean_items=8, weeks=3)
    log, x = whole(service), data.interactions
    assert data.n_items < service.n_items  # Some of the long tail is unseen in training.
    assert data.train.sum(axis=0).min() > 0
    rows = np.repeat(np.arange(data.n_users), np.diff(x.indptr))
    found = dict(
        zip(
            zip(data.users.ids_of(rows), data.items.ids_of(x.indices), strict=True),
            np.asarray(x.timestamps),
            strict=True,
        )
    )
    logged = dict(
        zip(
            zip(log.user_id.tolist(), log.item_id.tolist(), strict=True), log.timestamp, strict=True
        )
    )
    kept = set(data.items.ids_of(range(data.n_items)))
    assert found == {pair: second for pair, second in logged.items() if pair[1] in kept}
    assert data.titles == tuple(
        service.catalogue.titles[int(i) - 1] for i in data.items.ids_of(range(data.n_items))
    )


def test_simulate_dataset_is_reproducible_and_survives_its_folder(tmp_path: Path) -> None:
    data = simulate_dataset(n_users=300, n_items=60, held_out_users=40, seed=1)
    data.save(tmp_path / "data")
    assert Dataset.load(tmp_path / "data").fingerprint == data.fingerprint
    assert (
        simulate_dataset(n_users=300, n_items=60, held_out_users=40, seed=1).fingerprint
        == data.fingerprint
    )
    assert (
        simulate_dataset(n_users=300, n_items=60, held_out_users=40, seed=2).fingerprint
        != data.fingerprint
    )


def test_dataset_split_seed_changes_the_split_alone() -> None:
    service = SimulatedService(300, 60, seed=1)
    one, two = service.dataset(40, split_seed=1), service.dataset(40, split_seed=2)
    assert not np.array_equal(one.split.user_part, two.split.user_part)
    assert np.array_equal(one.interactions.indptr, two.interactions.indptr)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"n_users": 0}, "n_users must be at least 1, found 0"),
        ({"n_items": 5}, "n_items must be at least 10, found 5"),
        ({"n_items": 9}, "n_items must be at least 10, found 9"),
        ({"n_items": -60}, "n_items must be at least 10, found -60"),
        ({"n_items": 40, "n_niches": 50}, "n_items must be at least 50, found 40"),
        ({"seed": -1}, "seed must be at least 0"),
        ({"n_niches": 3}, "n_niches must be at least 4"),
        ({"min_items": 0}, "min_items must be at least 1"),
        ({"weeks": 0}, "weeks must be at least 1"),
        ({"mean_items": 5}, "mean_items must be above min_items"),
        ({"mean_items": 31}, "at most half of the catalogue"),
        ({"mean_items": -2.0}, "mean_items must be above min_items"),
        ({"mean_items": math.nan}, "mean_items must be above min_items"),
    ],
)
def test_service_refuses_numbers_that_do_not_fit_together(
    fields: dict[str, int], message: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        SimulatedService(**{"n_users": 300, "n_items": 60, **fields})


def test_service_takes_the_smallest_catalogue_it_allows() -> None:
    log = whole(SimulatedService(n_users=50, n_items=12))
    assert set(np.bincount(log.user_id)[1:]) <= {5, 6}


@pytest.mark.parametrize(
    "fields",
    [
        {"seed": 8},
        {"n_niches": 11},
        {"mean_items": 20.0},
        {"min_items": 6},
        {"weeks": 25},
        {"n_items": 301},
    ],
    ids=str,
)
def test_service_every_field_changes_the_log(fields: dict[str, int]) -> None:
    other = next(
        SimulatedService(**{"n_users": 5000, "n_items": 300, "seed": 7, **fields}).blocks()
    )
    assert same_users(other, BLOCK_USERS) != same_users(LOG, BLOCK_USERS)
