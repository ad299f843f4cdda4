"""The approximate index: exact where all lists are read, honest about what it leaves out where they
are not.
"""

import json
import shutil
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array
from torch import Tensor

from coterie.config import RunConfig
from coterie.errors import (
    ArtifactError,
    ConfigError,
    DataError,
    MissingPackageError,
    NumericalError,
)
from coterie.files import sha256
from coterie.ranking.approximate import ApproximateIndex
from coterie.ranking.ranker import Ranker
from coterie.ranking.scorer import FactorScorer
from coterie.ranking.topk import TopK, top_k
from coterie.simulation.service import simulate_dataset
from coterie.training.trainer import train
from scorer_contract import random_histories


@dataclass(frozen=True, eq=False)
class Inner:
    """The smallest factor scorer: a user is the mean of the user's items, moved by the bias of each
    item.
    """

    factors: Tensor

    @classmethod
    def random(cls, n_items: int, dim: int, seed: int) -> "Inner":
        """Items around the centres of niches, as trained ones are."""
        rng = np.random.default_rng(seed)
        centres = rng.normal(size=(max(n_items // 50, 2), dim))
        factors = centres[rng.integers(len(centres), size=n_items)] + 0.5 * rng.normal(
            size=(n_items, dim)
        )
        return cls(torch.from_numpy(factors.astype(np.float32)))

    @property
    def n_items(self) -> int:
        return len(self.factors)

    def score(self, histories: csr_array) -> Tensor:
        return self.user_factors(histories) @ self.item_factors().t()

    def user_factors(self, histories: csr_array) -> Tensor:
        users = torch.from_numpy((histories @ self.factors.numpy()).astype(np.float32))
        users /= torch.from_numpy(np.maximum(np.diff(histories.indptr), 1))[:, None]
        return torch.cat([users, torch.ones(len(users), 1)], dim=1)

    def item_factors(self) -> Tensor:
        return torch.cat([self.factors, self.factors[:, :1] / 3], dim=1)


class Closed(Inner):
    """Of the class, but without factors."""

    def item_factors(self) -> Tensor:
        return None  # type: ignore[return-value]


SCORER = Inner.random(3000, 12, seed=0)


def random_rows(n: int, n_items: int, seed: int, most: int = 40) -> csr_array:
    """Binary histories: the first is empty, the others have up to ``most`` items."""
    rng = np.random.default_rng(seed)
    rows = np.zeros((n, n_items), dtype=np.float32)
    for row in rows[1:]:
        row[rng.permutation(n_items)[: rng.integers(1, most + 1)]] = 1
    return csr_array(rows)


def recall(found: TopK, exact: TopK) -> float:
    pairs = zip(found.items.tolist(), exact.items.tolist(), strict=True)
    return float(np.mean([len(set(a) & set(b)) / len(b) for a, b in pairs]))


def check_same(found: TopK, exact: TopK) -> None:
    assert found.items.dtype == torch.int64
    assert found.scores.dtype == torch.float32
    assert torch.equal(found.items, exact.items)
    torch.testing.assert_close(found.scores, exact.scores, rtol=1e-5, atol=1e-5)


@st.composite
def problems(
    draw: st.DrawFn,
) -> tuple[Inner, Tensor, csr_array | None, Tensor | None, Tensor | None, int, int]:
    n, n_items, dim = draw(st.integers(0, 5)), draw(st.integers(1, 40)), draw(st.integers(1, 5))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    scorer = Inner(torch.from_numpy(rng.normal(size=(n_items, dim)).astype(np.float32)))
    users = torch.from_numpy(rng.normal(size=(n, dim + 1)).astype(np.float32))
    seen = (
        csr_array(rng.random((n, n_items)) < draw(st.sampled_from([0.1, 0.9, 1.0])))
        if draw(st.booleans())
        else None
    )
    masks = [
        (
            torch.from_numpy(rng.random(n_items) < draw(st.sampled_from([0.0, 0.3, 1.0])))
            if draw(st.booleans())
            else None
        )
        for _ in range(2)
    ]
    return (
        scorer,
        users,
        seen,
        masks[0],
        masks[1],
        draw(st.integers(1, 50)),
        draw(st.integers(1, n_items)),
    )


@settings(max_examples=150, deadline=None)
@given(problems())
def test_reading_all_lists_is_exact(
    problem: tuple[Inner, Tensor, csr_array | None, Tensor | None, Tensor | None, int, int],
) -> None:
    scorer, users, seen, allow, deny, k, n_lists = problem
    index = ApproximateIndex.build(scorer, n_lists=n_lists, n_probed=n_lists)
    found = index.search(users, k, seen=seen, allow=allow, deny=deny)
    check_same(
        found, top_k(users @ scorer.item_factors().t(), k, seen=seen, allow=allow, deny=deny)
    )


@settings(max_examples=100, deadline=None)
@given(problems())
def test_no_row_is_shorter_than_it_must_be_and_nothing_excluded_comes(
    problem: tuple[Inner, Tensor, csr_array | None, Tensor | None, Tensor | None, int, int],
) -> None:
    scorer, users, seen, allow, deny, k, n_lists = problem
    found = ApproximateIndex.build(scorer, n_lists=n_lists, n_probed=1).search(
        users, k, seen=seen, allow=allow, deny=deny
    )
    scores = users @ scorer.item_factors().t()
    eligible = (
        torch.ones_like(scores, dtype=torch.bool)
        if seen is None
        else ~torch.from_numpy(seen.toarray().astype(bool))
    )
    eligible &= torch.ones(scorer.n_items, dtype=torch.bool) if allow is None else allow
    eligible &= torch.ones(scorer.n_items, dtype=torch.bool) if deny is None else ~deny
    for row, (items, values) in enumerate(zip(found.items, found.scores, strict=True)):
        kept = items >= 0
        assert int(kept.sum()) == min(k, int(eligible[row].sum()))
        assert kept.tolist() == sorted(kept.tolist(), reverse=True)
        assert bool((values[~kept] == -torch.inf).all())
        assert len(set(items[kept].tolist())) == int(kept.sum())
        assert eligible[row, items[kept]].all()
        torch.testing.assert_close(values[kept], scores[row, items[kept]], rtol=1e-5, atol=1e-5)
        assert values.tolist() == sorted(values.tolist(), reverse=True)


def test_most_of_the_best_are_found_in_few_lists() -> None:
    rows = random_rows(60, SCORER.n_items, seed=1)
    index, users = ApproximateIndex.build(SCORER), SCORER.user_factors(rows)
    assert index.lists.nlist == 110
    assert index.n_probed == 8
    exact = top_k(SCORER.score(rows), 20, seen=rows)
    shares = [
        recall(replace(index, n_probed=n).search(users, 20, seen=rows), exact)
        for n in (1, 8, 30, 110)
    ]
    assert shares == sorted(shares)
    assert shares[1] > 0.8
    assert shares[2] > 0.97
    assert shares[3] == 1


def test_a_row_does_not_depend_on_the_others() -> None:
    rows = random_rows(330, SCORER.n_items, seed=2, most=300)
    index, users = ApproximateIndex.build(SCORER), SCORER.user_factors(rows)
    whole = index.search(users, 10, seen=rows)
    for part in (np.arange(0, 330, 7), np.array([329, 0, 5]), np.array([11])):
        found = index.search(users[part], 10, seen=rows[part])
        check_same(found, TopK(whole.items[part], whole.scores[part]))


def test_a_user_who_has_had_more_than_there_is_room_for_gets_the_exact_rest() -> None:
    # The best 1,500 are seen, more than the first search leaves room for.
    users = SCORER.user_factors(random_rows(3, SCORER.n_items, seed=3))
    best = top_k(users @ SCORER.item_factors().t(), 1500)
    seen = np.zeros((3, SCORER.n_items), dtype=np.float32)
    seen[1, best.items[1]] = 1
    index = ApproximateIndex.build(SCORER, n_probed=110)
    check_same(
        index.search(users, 10, seen=csr_array(seen)),
        top_k(users @ SCORER.item_factors().t(), 10, seen=csr_array(seen)),
    )


def test_few_allowed_items_are_ranked_exactly() -> None:
    users = SCORER.user_factors(random_rows(20, SCORER.n_items, seed=4))
    allow = torch.zeros(SCORER.n_items, dtype=torch.bool)
    allow[::20] = True  # Some ten of them in the lists that would be read if all were allowed.
    found = ApproximateIndex.build(SCORER).search(users, 10, allow=allow)
    check_same(found, top_k(users @ SCORER.item_factors().t(), 10, allow=allow))


def test_no_argument_is_changed_and_unsorted_histories_will_do() -> None:
    rows = random_rows(5, SCORER.n_items, seed=5)
    users, index = SCORER.user_factors(rows), ApproximateIndex.build(SCORER)
    backwards = csr_array(
        (
            rows.data,
            np.concatenate([np.flip(row.indices) for row in (rows[[i]] for i in range(5))]),
            rows.indptr,
        ),
        rows.shape,
    )
    copies = users.clone(), backwards.indices.copy()
    check_same(index.search(users, 10, seen=backwards), index.search(users, 10, seen=rows))
    assert torch.equal(users, copies[0])
    assert np.array_equal(backwards.indices, copies[1])


@pytest.mark.parametrize(
    "device",
    [
        "cpu",
        pytest.param(
            "cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA")
        ),
    ],
)
def test_a_trained_model_is_ranked_as_the_ranker_does(device: str) -> None:
    data = simulate_dataset(n_users=260, n_items=80, held_out_users=40, seed=2)
    training = {"epochs": 2, "batch_size": 60, "metric": "ndcg@10"}
    model = train(
        data,
        RunConfig.of(
            {
                "model": {"name": "mult-vae", "hidden_dims": [16], "latent_dim": 6},
                "training": training,
            }
        ),
    ).to(device)
    assert isinstance(model, FactorScorer)
    rows = data.train[:30]
    index = ApproximateIndex.build(model, n_probed=80)
    found = index.search(model.user_factors(rows), 10, seen=rows)
    assert found.items.device.type == found.scores.device.type == device
    check_same(found, Ranker(model, 10).rank(rows, rows))


def test_the_same_factors_and_seed_give_the_same_index(tmp_path: Path) -> None:
    for name in ("one", "two"):
        ApproximateIndex.build(SCORER).save(tmp_path / name)
    for name in ("index.faiss", "manifest.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("approximate") / "index"
    ApproximateIndex.build(SCORER, n_probed=5).save(folder)
    return folder


@pytest.fixture
def copy(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "copy"))


def test_load_gives_back_what_was_saved(saved: Path) -> None:
    rows = random_rows(9, SCORER.n_items, seed=6)
    built, loaded = ApproximateIndex.build(SCORER, n_probed=5), ApproximateIndex.load(saved, SCORER)
    assert (loaded.n_probed, loaded.fingerprint) == (5, built.fingerprint)
    users = SCORER.user_factors(rows)
    check_same(loaded.search(users, 10, seen=rows), built.search(users, 10, seen=rows))
    assert sorted(file.name for file in saved.iterdir()) == ["index.faiss", "manifest.json"]


def test_save_replaces_an_older_index_and_nothing_else(copy: Path, tmp_path: Path) -> None:
    ApproximateIndex.build(SCORER, n_probed=7).save(copy)
    assert ApproximateIndex.load(copy, SCORER).n_probed == 7
    (tmp_path / "thesis.txt").write_text("x")
    with pytest.raises(ConfigError, match="only an empty folder or an older result"):
        ApproximateIndex.build(SCORER).save(tmp_path)


@pytest.mark.parametrize("change", ["one number", "an item less", "another width"])
def test_an_index_of_other_weights_is_refused(change: str, saved: Path) -> None:
    factors = SCORER.factors.clone()
    if change == "one number":
        factors[17, 3] += 1e-6
    other = Inner(
        {"one number": factors, "an item less": factors[:-1], "another width": factors[:, :-1]}[
            change
        ]
    )
    with pytest.raises(ArtifactError, match="found that of other weights; build it anew"):
        ApproximateIndex.load(saved, other)


def test_a_damaged_index_is_refused(copy: Path) -> None:
    file = copy / "index.faiss"
    whole = file.read_bytes()
    for content in (whole[:-1], whole[:100] + bytes([whole[100] ^ 1]) + whole[101:]):
        file.write_bytes(content)
        with pytest.raises(ArtifactError, match=r"index\.faiss: its bytes differ"):
            ApproximateIndex.load(copy, SCORER)
    manifest = json.loads((copy / "manifest.json").read_text(encoding="utf-8"))
    for content, n_probed in ((whole[: len(whole) // 2], 5), (whole, "5"), (whole, 0)):
        file.write_bytes(content)
        told = {**manifest, "files": {"index.faiss": sha256(file)}, "n_probed": n_probed}
        (copy / "manifest.json").write_text(json.dumps(told), encoding="utf-8")
        with pytest.raises(ArtifactError, match="not a whole index"):
            ApproximateIndex.load(copy, SCORER)
    file.unlink()
    with pytest.raises(ArtifactError, match="missing"):
        ApproximateIndex.load(copy, SCORER)


def test_what_cannot_be_searched_is_refused() -> None:
    index, users = ApproximateIndex.build(SCORER), torch.zeros(2, 13)
    with pytest.raises(ConfigError, match="k must be at least 1, found 0"):
        index.search(users, 0)
    with pytest.raises(DataError, match=r"\[n, 13\], found \[2, 12\]"):
        index.search(users[:, 1:], 3)
    with pytest.raises(DataError, match=r"\(2, 3000\), found \(1, 3000\)"):
        index.search(users, 3, seen=csr_array((1, 3000)))
    with pytest.raises(NumericalError, match="user factors must be finite"):
        index.search(users / 0, 3)
    with pytest.raises(NumericalError, match="item factors must be finite"):
        ApproximateIndex.build(Inner(torch.full((5, 2), torch.inf)))
    with pytest.raises(ConfigError, match="found one without item factors"):
        ApproximateIndex.build(Closed(SCORER.factors))
    for n_lists in (0, 3001):
        with pytest.raises(
            ConfigError, match=rf"from 1 to the number of items, 3000, found {n_lists}"
        ):
            ApproximateIndex.build(SCORER, n_lists=n_lists)
    with pytest.raises(ConfigError, match="n_probed must be at least 1, found 0"):
        ApproximateIndex.build(SCORER, n_probed=0)


def test_k_beyond_the_catalogue_is_the_catalogue() -> None:
    users = SCORER.user_factors(random_histories(2, SCORER.n_items, seed=0))
    best = ApproximateIndex.build(SCORER).search(users, 10**12)
    assert (best.items.sort(dim=1).values == torch.arange(SCORER.n_items)).all()
    assert (best.scores.diff(dim=1) <= 0).all()


def test_search_without_its_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(
        MissingPackageError, match=r"needs the package faiss; pip install 'coterie\[ann\]'"
    ):
        ApproximateIndex.build(SCORER)
