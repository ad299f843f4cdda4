"""The ranking object answers alike whoever asks, from whichever thread or process; its options are
checked where they are made.
"""

import copy
import multiprocessing
import os
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from scipy.sparse import csr_array

from coterie.config import RunConfig
from coterie.data.ids import Id, IdMap
from coterie.data.split import Cases
from coterie.errors import ConfigError, DataError
from coterie.evaluation.evaluate import evaluate
from coterie.models.multvae import MultVAEConfig
from coterie.ranking.approximate import ApproximateIndex
from coterie.ranking.engine import recommend
from coterie.ranking.options import RankingOptions
from coterie.ranking.recommendations import Recommendations
from coterie.ranking.recommender import Recommender
from coterie.training.trained_model import TrainedModel
from scorer_contract import LinearScorer

N_ITEMS = 3000


def vae(seed: int = 0) -> TrainedModel:
    """A Mult-VAE of initial weights, large enough for each thread's scores to be overwritten by the
    other's if they were shared.
    """
    config = MultVAEConfig(hidden_dims=(48,), latent_dim=16)
    network = config.build(N_ITEMS, torch.Generator().manual_seed(seed)).eval()
    return TrainedModel(
        network,
        RunConfig(model=config),
        IdMap.of(range(N_ITEMS)),
        tuple(f"Title {item}" for item in range(N_ITEMS)),
        np.arange(N_ITEMS),
    )


def lists(n_users: int, seed: int) -> dict[Id, list[Id]]:
    """Histories of up to 30 items, some unknown to the model, some empty."""
    rng = np.random.default_rng(seed)
    return {
        user: rng.integers(0, N_ITEMS + 30, rng.integers(0, 30)).tolist() for user in range(n_users)
    }


def same(one: Recommendations, other: Recommendations) -> bool:
    return bool(
        one.table.equals(other.table)
        and one.unknown_items == other.unknown_items
        and np.array_equal(one.offsets, other.offsets)
    )


def test_recommender_is_asked_again_and_again() -> None:
    model = LinearScorer.random(20, 0, whole=True)
    recommender = Recommender(model, RankingOptions(k=4, deny=[3]))
    for seed in range(3):
        histories = lists(7, seed)
        assert same(recommender.recommend(histories), recommend(model, histories, k=4, deny=[3]))


@pytest.mark.parametrize("exact", [True, False], ids=["exact", "index"])
@pytest.mark.parametrize("block_size", [1, 16])
def test_threads_get_the_bits_that_one_thread_gets(exact: bool, block_size: int) -> None:
    model = vae()
    index = None if exact else ApproximateIndex.build(model, n_lists=30, n_probed=10)
    recommender = Recommender(model, RankingOptions(20, index=index, block_size=block_size))
    asked = [lists(n_users, seed) for seed, n_users in enumerate([1, 40, 3, 17] * 20)]
    alone = [recommender.recommend(histories) for histories in asked]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(recommender.recommend, asked))
    assert all(same(one, other) for one, other in zip(alone, together, strict=True))


def test_threads_of_a_model_get_the_bits_that_one_thread_gets() -> None:
    asked = [lists(5, seed) for seed in range(40)]
    options = [RankingOptions(k) for k in (3, 9, 20, 21, 50, 70)]
    alone = [vae().recommend(one, options[i % 6]) for i, one in enumerate(asked)]
    model = vae()
    with ThreadPoolExecutor(8) as pool:
        together = list(
            pool.map(lambda i: model.recommend(asked[i], options[i % 6]), range(len(asked)))
        )
    assert all(same(one, other) for one, other in zip(alone, together, strict=True))


def test_model_keeps_its_last_recommenders() -> None:
    model = vae()
    first = model.recommender(k=5, deny=[1, 2])
    assert model.recommender(RankingOptions(5, deny=(2, 1))) is first
    assert model.recommender(k=6) is not first
    for k in range(7, 11):
        model.recommender(k=k)
    assert model.recommender(k=10) is model.recommender(10)
    assert model.recommender(k=5, deny=[1, 2]) is not first


def test_what_a_model_keeps_is_not_copied_and_not_moved() -> None:
    model = vae()
    before = model.recommend(lists(3, 0), k=5)
    kept, factors = model.recommender(5), model.item_factors()
    assert model.item_factors() is factors
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), replace(model)):
        assert other.recommender(5) is not kept
        assert same(other.recommend(lists(3, 0), k=5), before)
    moved = model.to("cpu")
    assert moved.recommender(5) is not kept
    assert moved.item_factors() is not factors


@pytest.mark.parametrize("k", [N_ITEMS, N_ITEMS + 1, 10**6, 2**31, 2**63, 10**30])
def test_k_beyond_the_catalogue_is_the_catalogue(k: int) -> None:
    model = vae()
    lists_of_all = model.recommend({"ann": [1, 2], "new": []}, k=k)
    assert len(lists_of_all.for_user("ann")) == N_ITEMS - 2
    assert len(lists_of_all.for_user("new")) == N_ITEMS
    assert {one.item_id for one in lists_of_all.for_user("ann")} == set(range(N_ITEMS)) - {1, 2}


def test_memory_does_not_grow_with_k_beyond_the_catalogue() -> None:
    code = (
        "import resource, sys; sys.path.insert(0, 'tests')\n"
        "from scorer_contract import LinearScorer\n"
        "from coterie.ranking.engine import recommend\n"
        "model = LinearScorer.random(20, 0)\n"
        "def peak(k):\n"
        "    recommend(model, {user: [3, 6] for user in range(1024)}, k=k)\n"
        "    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024\n"
        "before = peak(20)\n"
        "assert peak(200_000) < before + 100, (before, peak(200_000))\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_metrics_beyond_the_catalogue_look_at_all_of_it() -> None:
    rng = np.random.default_rng(0)
    scorer = LinearScorer.random(12, 0, whole=True)
    shown = np.zeros((6, 12), dtype=np.float32)
    hidden = shown.copy()
    for row in range(6):
        items = rng.permutation(12)
        shown[row, items[:2]], hidden[row, items[2 : 3 + row]] = 1, 1
    cases = Cases(np.arange(6), csr_array(shown), csr_array(hidden))
    names = [f"{kind}@{k}" for kind in ("recall", "ndcg") for k in (12, 1_000_000_000, 10**30)]
    report = evaluate(scorer, cases, metrics=names)
    for kind in ("recall", "ndcg"):
        values = [report.mean(f"{kind}@{k}") for k in (12, 1_000_000_000, 10**30)]
        assert values[0] == values[1] == values[2]
    assert report.mean("recall@12") == 1.0


def test_options_are_one_value_however_they_are_given() -> None:
    whole = RankingOptions(k=5, exclude_seen=False, deny=["b", "a"])
    assert whole == RankingOptions.of(5, exclude_seen=False, deny={"a", "b"})
    assert whole == RankingOptions.of(whole)
    assert RankingOptions.of(whole, k=7) == replace(whole, k=7)
    assert hash(whole) == hash(replace(whole))
    assert RankingOptions(allow=np.array([3, 1])).allow == (1, 3)
    assert RankingOptions(allow=pa.array(["x"])).allow == ("x",)
    assert RankingOptions(allow=[7, "7", 7]).allow == (7, "7")
    assert RankingOptions(k=np.arange(4)[3]) == RankingOptions(k=3)
    assert RankingOptions(allow=[]) != RankingOptions()


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"k": 0}, "k must be at least 1, found 0"),
        ({"k": 2.5}, r"k must be a whole number, found 2\.5"),
        ({"k": "5"}, "k must be a whole number, found '5'"),
        ({"block_size": -1}, "block_size must be at least 1, found -1"),
    ],
)
def test_options_refuse_what_they_cannot_mean(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        RankingOptions(**fields)
    with pytest.raises(ConfigError, match=words):
        recommend(LinearScorer.random(5, 0), {}, **fields)


def test_options_refuse_a_string_of_ids() -> None:
    with pytest.raises(DataError, match="deny must be a sequence of item ids, found the string"):
        RankingOptions(deny="red")


FORK = """
import multiprocessing, os, sys
import torch
torch.set_num_threads(2)
from concurrent.futures import ThreadPoolExecutor
sys.path.insert(0, "tests")
from test_recommender import lists, same, vae
from coterie.errors import ConfigError
from coterie.ranking.approximate import ApproximateIndex
from coterie.stream.to_folder import recommend_to_folder

model, asked = vae(), lists(1200, 0)
index = ApproximateIndex.build(model, n_lists=30, n_probed=10)
ways = {"exact": {"k": 50}, "index": {"k": 50, "index": index}}
for way in ways.values():
    model.recommend(asked, **way)
torch.ones(2000, 2000) @ torch.ones(2000, 2000)

def child(answers):
    for name, way in ways.items():
        now = model.recommend(asked, **way)
        with ThreadPoolExecutor(2) as pool:
            again = list(pool.map(lambda _: model.recommend(asked, **way), range(4)))
        alike = all(same(now, one) for one in again)
        answers.put((name, torch.get_num_threads(), len(now.table), alike))
    try:
        recommend_to_folder(model, asked, "memory://forked", threads=2)
    except ConfigError as error:
        answers.put(str(error))

fork = multiprocessing.get_context("fork")
answers = fork.Queue()
process = fork.Process(target=child, args=(answers,), daemon=True)
process.start()
for name in ways:
    assert answers.get(timeout=60) == (name, 1, 1200 * 50, True)
assert answers.get(timeout=60).startswith("a forked process must compute with 1 thread, found 2")
process.join(60)
assert torch.get_num_threads() == 2
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_answers() -> None:
    assert "fork" in multiprocessing.get_all_start_methods()
    subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORK],
        check=True,
        timeout=200,
        env={**os.environ, "OMP_NUM_THREADS": "2"},
    )
