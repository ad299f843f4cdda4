"""Explanations against brute force: a loop that leaves each item out, for every model there is."""

import json
from collections.abc import Iterable, Sequence
from typing import Any, get_args

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_array
from torch import Tensor

import coterie.ranking.explanation as explanation_module
from coterie.config import AnyModelConfig, RunConfig
from coterie.data.ids import Id, IdMap
from coterie.errors import ConfigError, DataError, NumericalError
from coterie.networks.ease import Ease
from coterie.ranking.explanation import Explanation, Reason, explain
from coterie.ranking.scorer import CatalogueScorer
from coterie.simulation.service import simulate_dataset
from coterie.training.trained_model import TrainedModel
from coterie.training.trainer import train
from scorer_contract import LinearScorer

DATA = simulate_dataset(n_users=300, n_items=60, held_out_users=40, seed=1)
NAMES = [kind.model_fields["name"].default for kind in get_args(AnyModelConfig)]
VAE = {"hidden_dims": [16], "latent_dim": 6}
SMALL: dict[str, dict[str, Any]] = {
    "mult-vae": VAE,
    "mult-dae": {"latent_dim": 6},
    "recvae": {"hidden_dim": 16, "latent_dim": 6},
    "vamp-vae": {**VAE, "components": 5, "gated": True},
    "linear-path-vae": {**VAE, "path": {"name": "ease"}, "path_weight": 5, "path_activity": 0.5},
    "linear-path-recvae": {
        "hidden_dim": 16,
        "latent_dim": 6,
        "path": {"name": "bspm", "rank": 8},
        "path_weight": 5,
        "path_activity": -0.5,
    },
    "ials": {"factors": 8},
    "gf-cf": {"rank": 8},
    "bspm": {"rank": 8},
    "most-watched": {"segments": 4},
}
IN_STEPS = {"mult-vae", "mult-dae", "recvae", "vamp-vae", "linear-path-vae", "linear-path-recvae"}
SUMS = {"ease", "slim", "rp3beta", "item-knn", "gf-cf", "bspm"}
EXTRAS = {"slim": "irspack", "rp3beta": "irspack", "item-knn": "irspack", "ials": "implicit"}
HISTORY = [3, 21, 44, 12, 30, 7, 58]
ASKED = [16, 5, 44]  # the last one is in the history


def trained(name: str) -> TrainedModel:
    if name in EXTRAS:
        pytest.importorskip(EXTRAS[name])
    model = {"name": name, **SMALL.get(name, {})}
    training = {"training": {"epochs": 2, "batch_size": 60}} if name in IN_STEPS else {}
    return train(DATA, RunConfig.of({"model": model, **training}))


def score_alone(model: CatalogueScorer, history: Iterable[Id], item: Id) -> float:
    """One history, one row, the whole catalogue."""
    row = np.zeros((1, model.n_items), dtype=np.float32)
    row[0, [one for one in model.items.index_of(list(history)) if one >= 0]] = 1
    return float(model.score(csr_array(row))[0, int(model.items.index_of([item])[0])])


def left_out(model: CatalogueScorer, history: Sequence[Id], item: Id) -> dict[Id, float]:
    """As the definition reads: score without each item of the history."""
    return {
        one: score_alone(model, [other for other in history if other != one], item)
        for one in history
    }


def check(model: CatalogueScorer, history: Sequence[Id], asked: Sequence[Id]) -> Explanation:
    """Holds an explanation to brute force; scores may differ by rounding."""
    found = explain(model, history, asked, k=len(history))
    assert found.items.values.to_pylist() == asked
    for place, item in enumerate(asked):
        score, without = score_alone(model, history, item), left_out(model, history, item)
        near = 2e-6 * max(1, *map(abs, without.values()), abs(score))
        assert found.scores[place] == pytest.approx(score, abs=near)
        reasons = found.for_item(item)
        raised = [one.raised for one in reasons]
        assert raised == sorted(raised, reverse=True)
        assert {one.item_id for one in reasons} == set(history)
        for rank, one in enumerate(reasons, start=1):
            assert one.rank == rank
            assert one.raised == found.scores[place] - one.score_without
            assert one.score_without == pytest.approx(without[one.item_id], abs=near)
            total = sum(map(abs, raised))
            assert one.share == pytest.approx(one.raised / total if total else 0)
    return found


@pytest.mark.parametrize("name", NAMES)
def test_every_model_is_explained_as_brute_force_does(name: str) -> None:
    model = trained(name)
    found = check(model, HISTORY, ASKED)
    raised = found.table["raised"].to_numpy().reshape(len(ASKED), -1)
    if name == "popularity":
        assert not raised.any()
    elif name != "most-watched":
        assert raised.any(axis=1).all()
    if name in SUMS:
        adds = [found.scores[i] - score_alone(model, [], item) for i, item in enumerate(ASKED)]
        np.testing.assert_allclose(raised.sum(axis=1), adds, atol=1e-5)


def test_where_scores_depend_on_length_the_differences_do_not_add_up() -> None:
    model = trained("linear-path-vae")
    found = explain(model, HISTORY, ASKED)
    adds = [found.scores[i] - score_alone(model, [], item) for i, item in enumerate(ASKED)]
    raised = found.table["raised"].to_numpy().reshape(len(ASKED), -1).sum(axis=1)
    assert (np.abs(raised - adds) > 1e-2).any()


def test_reasons_of_ease_are_its_weights() -> None:
    model = trained("ease")
    assert isinstance(model.network, Ease)
    rows, column = model.items.index_of(HISTORY), int(model.items.index_of([16])[0])
    reasons = {one.item_id: one.raised for one in model.explain(HISTORY, 16).for_item(16)}
    weights = model.network.weight[torch.from_numpy(rows), column].tolist()
    assert reasons == pytest.approx(dict(zip(HISTORY, weights, strict=True)), abs=1e-6)


def test_most_watched_moves_where_one_item_less_makes_another_segment() -> None:
    model = trained("most-watched")
    first = int(model.network.get_buffer("starts")[1])
    had = model.items.ids_of(range(first))
    for history, moves in ((had, True), (had + model.items.ids_of([first]), False)):
        assert bool(np.any(check(model, history, ASKED).table["raised"].to_numpy())) == moves


SOME = st.integers(0, 11)


@given(st.lists(SOME, max_size=9), st.lists(SOME, min_size=1, max_size=5), st.booleans(), SOME)
def test_whole_weights_are_explained_exactly(
    history: list[int], asked: list[int], text: bool, k: int
) -> None:
    """Ties too, repetitions and unknown ids, integers and text."""
    linear = LinearScorer.random(10, 4, whole=True)
    ids: list[Id] = [f"film {i}" if text else 7 * i for i in range(12)]
    model = LinearScorer(linear.weights, IdMap.of(ids[:10]), linear.popularity)
    items = [ids[one] for one in asked if one < 10] or ids[:1]
    found = explain(model, [ids[one] for one in history], items, k + 1)
    known = sorted({one for one in history if one < 10})
    assert found.unknown_items == tuple(dict.fromkeys(ids[one] for one in history if one >= 10))
    assert found.items.values.to_pylist() == list(dict.fromkeys(items))
    for item in items:
        column = ids.index(item)
        weights = {one: float(linear.weights[one, column]) for one in known}
        order = sorted(known, key=lambda one: (-weights[one], one))[: k + 1]
        assert [one[:4] for one in found.for_item(item)] == [
            (rank, ids[one], None, weights[one]) for rank, one in enumerate(order, start=1)
        ]


@pytest.mark.parametrize(("ones", "scores"), [(1, 2**26), (40, 2**26), (2**22, 1), (2**22, 200)])
def test_blocks_change_nothing(ones: int, scores: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model = LinearScorer.random(30, 4, whole=True)
    whole = explain(model, range(20), [3, 25])
    monkeypatch.setattr(explanation_module, "_ONES_AT_ONCE", ones)
    monkeypatch.setattr(explanation_module, "_SCORES_AT_ONCE", scores)
    assert explain(model, range(20), [3, 25]).table.equals(whole.table)


class Watched(LinearScorer):
    """Notes the largest block it is asked for."""

    largest = 0

    def score(self, histories: csr_array) -> Tensor:
        Watched.largest = max(Watched.largest, histories.shape[0])
        return super().score(histories)


def test_no_block_holds_more_scores_than_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(explanation_module, "_SCORES_AT_ONCE", 100)
    linear = LinearScorer.random(30, 4)
    explain(Watched(linear.weights, linear.items, linear.popularity), range(20), 25)
    assert Watched.largest == 3


def test_a_model_scores_the_items_asked_for_alone() -> None:
    """The last layer's other rows may be anything."""
    model = trained("mult-vae")
    before = model.explain(HISTORY, ASKED)
    others = torch.ones(model.n_items, dtype=torch.bool)
    others[torch.from_numpy(model.items.index_of(ASKED))] = False
    with torch.no_grad():
        model.network.get_parameter("output.weight")[others] = torch.nan
    assert model.explain(HISTORY, ASKED).table.equals(before.table)


def titled(titles: tuple[str | None, ...] | None) -> LinearScorer:
    weights = np.array([[0, 5, 2], [5, 0, -1], [2, -1, 0]], dtype=np.float32)
    return LinearScorer(weights, IdMap.of(["blue", "red", "teal"]), np.ones(3), titles)


def test_an_explanation_prints_with_titles_and_as_json() -> None:
    found = explain(titled(("Blue", None, "Teal")), ["red", "blue", "mauve"], ["teal", "blue"], 1)
    assert str(found).splitlines() == [
        "why teal Teal, score 1",
        "rank  item_id  title  raised  score_without   share",
        "   1  blue     Blue       +2             -1  +66.7%",
        "",
        "why blue Blue, score 5",
        "rank  item_id  title  raised  score_without    share",
        "   1  red                 +5              0  +100.0%",
        "",
        "unknown items in the history: mauve",
    ]
    told = json.loads(json.dumps(found.to_json()))
    assert told["unknown_items"] == ["mauve"]
    teal, blue = told["items"]
    assert (teal["item_id"], teal["title"], teal["score"]) == ("teal", "Teal", 1.0)
    assert [Reason(**one) for one in teal["reasons"]] == found.for_item("teal")
    assert blue["reasons"][0]["title"] is None
    assert found.table.column_names == [
        "item_id", "title", "score", "rank", "history_item_id", "history_title", "raised",
        "score_without", "share",
    ]  # fmt: skip


def test_long_explanations_are_cut_where_they_are_printed_alone() -> None:
    model = LinearScorer.random(30, 4)
    found = explain(model, [1, 2], range(30))
    assert len(found) == 30
    assert str(found).count("why ") == 20
    assert str(found).endswith("… and 10 items more")


@pytest.mark.parametrize("history", [[], ["mauve"]])
def test_a_history_of_nothing_known_gives_no_reasons(history: list[str]) -> None:
    found = explain(titled(None), history, "teal")
    assert (len(found), found.for_item("teal"), found.scores.tolist()) == (1, [], [0.0])
    assert "why teal, score 0: the model knows no item of the history" in str(found)
    assert found.to_json()["items"][0]["reasons"] == []


def test_what_cannot_be_explained_is_said() -> None:
    model = titled(None)
    for asked, words in (("mauve", "'mauve'"), (["red", "ochre"], "'ochre'"), ([], "none")):
        with pytest.raises(DataError, match=f"some of the model's 3, found {words}"):
            explain(model, ["blue"], asked)
    with pytest.raises(DataError, match="must be a sequence"):
        explain(model, "blue", "red")
    with pytest.raises(ConfigError, match="k must be at least 1"):
        explain(model, ["blue"], "red", k=0)
    with pytest.raises(DataError, match="the 1 items asked for, found 'blue'"):
        explain(model, ["blue"], "red").for_item("blue")
    model.weights[0, 1] = np.nan
    with pytest.raises(NumericalError, match="scores must be finite"):
        explain(model, ["blue"], "red")


def test_ids_of_numpy_and_text_that_is_a_number_are_found() -> None:
    model = LinearScorer.random(12, 4, whole=True)
    expected = explain(model, [1, 2], 5).table
    number: Any = np.int64(5)
    for history, asked in ((np.array([1, 2]), number), (["1", "2"], "5"), ((1, 2), [5])):
        assert explain(model, history, asked).table.equals(expected)
