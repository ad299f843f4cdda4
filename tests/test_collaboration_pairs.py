"""Kinds of pairs against plants and brute force, shares of helpful transfer against loops, and both
in the simulator.
"""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array

from coterie.config import RunConfig
from coterie.data.split import Part
from coterie.errors import ConfigError, DataError
from coterie.lab.collaboration.distances import w2_distances
from coterie.lab.collaboration.helping import helping
from coterie.lab.collaboration.pairs import (
    GLOBAL,
    PairKind,
    PairRules,
    classify_pairs,
    distance_by_kind,
)
from coterie.lab.collaboration.posteriors import encode_users
from coterie.lab.collaboration.transfer import draw_users, gradient_transfer
from coterie.networks.multvae import MultVAE
from coterie.simulation.service import SimulatedService
from coterie.sparse import SparseRows
from coterie.training.trainer import train
from test_sparse import random_dense


def planted() -> tuple[csr_array, dict[str, list[int]]]:
    """Two communities of 40 items each. In the first: core users with most items, light users with
    five of a core user's, and
    halves, who have the first or the second 20 items and so nothing in common with each other."""
    rng = np.random.default_rng(3)
    rows: list[np.ndarray] = []
    who: dict[str, list[int]] = {"core": [], "light": [], "low": [], "high": [], "other": []}
    whole, low, high = np.arange(40), np.arange(20), np.arange(20, 40)
    sizes = {
        "core": (whole, 36, 12),
        "light": (whole, 5, 6),
        "low": (low, 18, 6),
        "high": (high, 18, 6),
        "other": (whole + 40, 36, 20),
    }
    for name, (items, size, n_users) in sizes.items():
        for _ in range(n_users):
            who[name].append(len(rows))
            rows.append(np.isin(np.arange(80), rng.choice(items, size, replace=False)))
    return csr_array(np.array(rows, dtype=np.float32)), who


def test_planted_pairs_are_found() -> None:
    histories, who = planted()
    kinds = classify_pairs(histories, PairRules(near=0.2, far=0.4, neighbours=16, linked=2))

    def share(kind: PairKind, users: str, others: str) -> float:
        block = kinds[np.ix_(who[users], who[others])]
        return float((block[block >= 0] == kind).mean())

    assert share(PairKind.LOCAL, "core", "core") == 1
    assert share(PairKind.LOCAL, "other", "other") == 1
    assert share(PairKind.SUBSET, "light", "core") == 1
    assert share(PairKind.LINKED, "low", "high") == 1
    for users in ("core", "light", "low", "high"):
        assert share(PairKind.UNRELATED, users, "other") == 1
    assert (kinds == kinds.T).all()
    assert (np.diag(kinds) == -1).all()


@settings(max_examples=30, deadline=None)
@given(
    st.integers(2, 12),
    st.integers(1, 9),
    st.integers(0, 1000),
    st.floats(0, 0.5),
    st.floats(0.5, 1),
)
def test_kinds_follow_their_definitions(
    n_users: int, n_items: int, seed: int, near: float, far: float
) -> None:
    x = random_dense(n_users, n_items, seed)
    x[:, 0] = 1
    rules = PairRules(near=near, far=far, neighbours=3, linked=1)
    kinds = classify_pairs(csr_array(x.astype(np.float32)), rules)
    sets = [set(np.flatnonzero(row)) for row in x]
    jaccard = np.array([[len(a ^ b) / len(a | b) for b in sets] for a in sets])
    off = ~np.eye(n_users, dtype=bool)
    low, high = np.quantile(jaccard[off], [near, far])
    order = [
        [v for v in np.argsort(row, kind="stable") if v != u][:3] for u, row in enumerate(jaccard)
    ]
    for u in range(n_users):
        for v in range(n_users):
            if u == v:
                expected = -1
            elif jaccard[u, v] <= low:
                expected = PairKind.LOCAL
            elif jaccard[u, v] < high:
                expected = PairKind.BETWEEN
            elif len(sets[u] & sets[v]) >= 0.5 * min(len(sets[u]), len(sets[v])):
                expected = PairKind.SUBSET
            elif set(order[u]) & set(order[v]):
                expected = PairKind.LINKED
            else:
                expected = PairKind.UNRELATED
            assert kinds[u, v] == expected


def test_shares_of_helpful_transfer_are_those_of_a_loop() -> None:
    rng = np.random.default_rng(5)
    n_users = 30
    transfer, kinds = (
        rng.normal(size=(n_users, n_users)),
        rng.integers(0, len(PairKind), (n_users, n_users)).astype(np.int8),
    )
    np.fill_diagonal(kinds, -1)
    found = helping(transfer, kinds, n_resamples=50, seed=7)
    total = sum(max(transfer[u, v], 0) for u in range(n_users) for v in range(n_users) if u != v)
    for kind in PairKind:
        of_kind = [
            transfer[u, v] for u in range(n_users) for v in range(n_users) if kinds[u, v] == kind
        ]
        assert found.n_pairs[kind] == len(of_kind)
        assert found.helpful[kind] == pytest.approx(np.mean([one > 0 for one in of_kind]))
        assert found.mean[kind] == pytest.approx(np.mean(of_kind))
        assert found.share[kind] == pytest.approx(sum(max(one, 0) for one in of_kind) / total)
    # The same users drawn, this time as a list of them with repetitions.
    drawn = np.random.default_rng(7).multinomial(n_users, np.full(n_users, 1 / n_users), size=50)
    for counts, shares in zip(
        drawn[:5], found.help[1:] / found.help[1:].sum(axis=1)[:, None], strict=False
    ):
        users = np.repeat(np.arange(n_users), counts)
        gain, met = np.maximum(transfer[np.ix_(users, users)], 0), kinds[np.ix_(users, users)]
        expected = [gain[met == one].sum() / gain[met >= 0].sum() for one in PairKind]
        np.testing.assert_allclose(shares, expected, atol=1e-12)


def test_latent_distances_by_kind_are_those_of_a_loop() -> None:
    rng = np.random.default_rng(5)
    distance, kinds = (
        rng.uniform(size=(30, 30)),
        rng.integers(0, len(PairKind), (30, 30)).astype(np.int8),
    )
    np.fill_diagonal(kinds, -1)
    found = distance_by_kind(distance, kinds, n_resamples=200, seed=7)
    for kind in PairKind:
        assert found.relative[kind] == pytest.approx(
            distance[kinds == kind].mean() / distance[kinds >= 0].mean()
        )
        value, low, high = found.of(kind)
        assert low < value < high
        assert found.gain_over(found, kind) == (0, 0, 0)
    assert np.isnan(distance_by_kind(np.zeros((30, 30)), kinds, seed=7).relative).all()


def test_differences_between_settings_are_paired() -> None:
    rng = np.random.default_rng(5)
    transfer, kinds = (
        rng.uniform(size=(40, 40)),
        rng.integers(0, len(PairKind), (40, 40)).astype(np.int8),
    )
    np.fill_diagonal(kinds, -1)
    one, other = (helping(transfer + shift, kinds, seed=7) for shift in (0.0, 1e-9))
    value, low, high = one.share_of(*GLOBAL)
    assert low < value < high
    assert one.gain_over(other, *GLOBAL) == pytest.approx((0, 0, 0), abs=1e-8)


def test_a_kind_without_pairs_has_no_interval() -> None:
    found = helping(np.ones((3, 3)), np.where(np.eye(3) > 0, -1, PairKind.LOCAL), seed=7)
    assert found.mean_of(PairKind.LOCAL) == (1, 1, 1)
    assert np.isnan(found.mean_of(PairKind.SUBSET)).all()


def test_shares_of_help_are_fooled_by_symmetric_noise_and_net_means_are_not() -> None:
    """Noise around 0, three times as wide between local pairs: nobody helps anybody."""
    rng, n = np.random.default_rng(2), 60
    kinds = np.where(rng.random((n, n)) < 0.2, PairKind.LOCAL, PairKind.UNRELATED)
    np.fill_diagonal(kinds, -1)
    noise = rng.normal(size=(n, n)) * np.where(kinds == PairKind.LOCAL, 3, 1)
    found = helping(noise, kinds, seed=7)
    share, low, _ = found.share_of(PairKind.LOCAL)
    assert low > 1.5 * found.n_pairs[PairKind.LOCAL] / found.n_pairs.sum()
    assert found.harm_of(PairKind.LOCAL)[0] == pytest.approx(share, abs=0.05)
    for kind in (PairKind.LOCAL, PairKind.UNRELATED):
        _, low, high = found.mean_of(kind)
        assert low < 0 < high


def test_net_means_find_what_a_kind_gives_and_intervals_cover_it() -> None:
    """A fifth of a unit under noise of people and pairs, u and v being others: in 100 draws the
    interval of 95 % misses it seldom.
    """
    missed = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        people = rng.normal(size=(30, 1)) + rng.normal(size=(1, 40))
        transfer = 0.2 + 0.3 * people + rng.normal(size=(30, 40))
        found = helping(
            transfer, np.zeros((30, 40), int), n_groups=1, same=False, n_resamples=200, seed=seed
        )
        _, low, high = found.mean_of(0)
        missed += not low < 0.2 < high
    assert missed <= 12


def test_two_sides_are_drawn_apart_as_a_loop_draws_them() -> None:
    rng = np.random.default_rng(5)
    transfer, groups = rng.normal(size=(6, 9)), rng.integers(-1, 3, (6, 9))
    found = helping(transfer, groups, n_groups=3, same=False, n_resamples=4, seed=7)
    drawn = np.random.default_rng(7)
    rows, columns = (drawn.multinomial(n, np.full(n, 1 / n), size=4) for n in (6, 9))
    for at in range(4):
        for group in range(3):
            pairs = [
                (transfer[u, v], rows[at, u] * columns[at, v])
                for u in range(6)
                for v in range(9)
                if groups[u, v] == group
            ]
            assert found.net[at + 1, group] == pytest.approx(sum(x * w for x, w in pairs))
            assert found.pairs[at + 1, group] == sum(w for _, w in pairs)


def test_kinds_of_two_sides_are_those_of_the_whole() -> None:
    """u's and v's apart: the same distances, with neighbours among the v's."""
    histories, who = planted()
    v = np.array(who["core"] + who["other"] + who["low"] + who["high"])
    rules = PairRules(near=0.2, far=0.4, neighbours=16, linked=2)
    u = np.array(who["light"])
    kinds = classify_pairs(histories[u], rules, histories[v])
    assert kinds.shape == (len(u), len(v))
    assert (kinds >= 0).all()
    core = np.isin(v, who["core"])
    assert (kinds[:, core] != PairKind.UNRELATED).all()
    assert (kinds[:, np.isin(v, who["other"])] == PairKind.UNRELATED).all()


def test_nobody_to_pair_with_is_refused() -> None:
    with pytest.raises(DataError, match="two users or more"):
        classify_pairs(csr_array(np.ones((1, 3))))
    with pytest.raises(DataError, match="1 of them without"):
        classify_pairs(csr_array(np.array([[1, 0], [0, 0]])))
    with pytest.raises(DataError, match="one shape"):
        helping(np.ones((2, 2)), np.ones((2, 3)), seed=0)
    with pytest.raises(DataError, match="square"):
        helping(np.ones((2, 3)), np.ones((2, 3)), seed=0)


@pytest.mark.parametrize(
    "wrong", [{"near": 0.6}, {"far": 1.1}, {"subset": 0}, {"neighbours": 0}, {"linked": 0}]
)
def test_rules_that_make_no_sense_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="pair rules need"):
        PairRules(**wrong)  # type: ignore[arg-type]


# The simulator, whose truth is known: who has which tastes.


@pytest.fixture(scope="module")
def simulated() -> tuple[csr_array, np.ndarray, np.ndarray, np.ndarray]:
    """Histories of 250 training users, the niche each likes best, latent distances and cosines of
    gradients in a trained model.
    """
    service = SimulatedService(n_users=700, n_items=300, seed=1)
    data = service.dataset(held_out_users=50)
    model = {"name": "mult-vae", "hidden_dims": [64], "latent_dim": 16, "anneal_steps": 300}
    trained = train(
        data,
        RunConfig.of(
            {"model": model, "training": {"epochs": 30, "batch_size": 100, "learning_rate": 3e-3}}
        ),
    )
    network, histories = trained.network, data.train[:250]
    assert isinstance(network, MultVAE)
    ids = data.users.ids_of(np.flatnonzero(data.split.user_part == Part.TRAIN)[:250])
    main_taste = service.users(np.array(ids) - 1).tastes.argmax(axis=1)
    rows = SparseRows.from_csr(histories)
    posteriors = encode_users(network, rows)
    transfer = gradient_transfer(
        network, draw_users(posteriors, rows, 4, torch.Generator().manual_seed(1))
    ).numpy()
    norms = np.sqrt(transfer.diagonal())
    return (
        histories,
        main_taste,
        w2_distances(posteriors, posteriors).numpy(),
        transfer / np.outer(norms, norms),
    )


def test_users_of_one_taste_are_neighbours_in_latent_space(
    simulated: tuple[csr_array, np.ndarray, np.ndarray, np.ndarray],
) -> None:
    _, main_taste, distance, _ = simulated
    kinds = np.where(main_taste[:, None] == main_taste, PairKind.LOCAL, PairKind.UNRELATED)
    np.fill_diagonal(kinds, -1)
    found = distance_by_kind(distance, kinds, seed=7)
    assert found.of(PairKind.LOCAL)[2] < 0.8
    assert found.of(PairKind.UNRELATED)[1] > 1


def test_alike_users_of_the_simulator_help_each_other_and_strangers_do_not(
    simulated: tuple[csr_array, np.ndarray, np.ndarray, np.ndarray],
) -> None:
    histories, _, distance, cosine = simulated
    kinds = classify_pairs(histories)
    found = helping(cosine, kinds, seed=7)
    assert found.mean_of(PairKind.LOCAL)[1] > 0 > found.mean_of(PairKind.UNRELATED)[2]
    assert found.share[PairKind.LOCAL] > 2 * found.n_pairs[PairKind.LOCAL] / found.n_pairs.sum()
    latent = distance_by_kind(distance, kinds, seed=7)
    assert latent.of(PairKind.LOCAL)[2] < latent.of(PairKind.UNRELATED)[1]


def test_light_users_planted_in_heavy_ones_are_their_subsets(
    simulated: tuple[csr_array, np.ndarray, np.ndarray, np.ndarray],
) -> None:
    histories = simulated[0]
    heavy, rng = (
        np.argsort(-np.diff(histories.indptr), kind="stable")[:20],
        np.random.default_rng(3),
    )
    light = np.zeros((len(heavy), histories.shape[1]))
    for at, user in enumerate(heavy):
        light[at, rng.choice(histories[[user]].indices, 4, replace=False)] = 1
    kinds = classify_pairs(csr_array(np.concatenate([histories.toarray(), light])))
    planted = kinds[len(histories.indptr) - 1 + np.arange(len(heavy)), heavy]
    assert (planted == PairKind.SUBSET).all()
