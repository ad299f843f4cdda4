import gzip
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from coterie.data.ids import Id, IdMap
from coterie.errors import ConfigError, DataError, NotFoundError, NumericalError, SourceError
from coterie.ranking.engine import recommend, recommend_to_file
from coterie.ranking.histories import Histories
from coterie.ranking.history_files import read_histories
from coterie.ranking.recommendations import Recommendations
from coterie.ranking.similar import similar_items
from scorer_contract import LinearScorer

COLOURS = ["blue", "red", "teal", "pink", "grey"]


def colour_model() -> LinearScorer:
    """Each colour calls for the next; ``teal`` is the most popular, ``blue`` and ``grey`` tie
    behind it.
    """
    weights = np.roll(np.eye(5), 1, axis=1).astype(np.float32)
    return LinearScorer(
        weights,
        IdMap.of(COLOURS),
        np.array([7, 1, 9, 2, 7]),
        ("Blue", None, "Teal", "Pink", "Grey"),
    )


def items_of(lists: Recommendations, user_id: Id) -> list[Id]:
    return [one.item_id for one in lists.for_user(user_id)]


def test_recommend_ranks_unseen_items() -> None:
    lists = recommend(colour_model(), {"ann": ["red"], "bob": ["blue", "pink"]}, k=2)
    first = lists.for_user("ann")[0]
    assert (first.rank, first.item_id, first.title, first.score, first.source) == (
        1,
        "teal",
        "Teal",
        1.0,
        "model",
    )
    assert items_of(lists, "ann") == ["teal", "blue"]
    assert items_of(lists, "bob") == ["red", "grey"]
    assert lists.for_user("bob")[0].title is None


def test_recommend_merges_repetitions_and_reports_unknown_items() -> None:
    lists = recommend(
        colour_model(), {"ann": ["red", "mauve", "red", "mauve", "beige"], "bob": ["red"]}, k=5
    )
    assert lists.unknown_items == {"ann": ["mauve", "beige"]}
    assert items_of(lists, "ann") == items_of(lists, "bob")
    assert lists.for_user("ann")[0].score == 1.0


@pytest.mark.parametrize("history", [[], ["mauve"]])
def test_recommend_falls_back_to_popularity(history: list[str]) -> None:
    lists = recommend(colour_model(), {"ann": ["red"], "new": history}, k=3)
    assert [(one.item_id, one.score, one.source) for one in lists.for_user("new")] == [
        ("teal", 9.0, "popularity"),
        ("blue", 7.0, "popularity"),
        ("grey", 7.0, "popularity"),
    ]
    assert {one.source for one in lists.for_user("ann")} == {"model"}


def test_recommend_keeps_seen_items_when_asked() -> None:
    histories = {"ann": ["grey", "blue"]}
    assert set(items_of(recommend(colour_model(), histories), "ann")) == {"red", "teal", "pink"}
    assert items_of(recommend(colour_model(), histories, exclude_seen=False), "ann") == [
        "blue",
        "red",
        "teal",
        "pink",
        "grey",
    ]


def test_recommend_honours_allow_and_deny() -> None:
    lists = recommend(
        colour_model(),
        {"ann": ["red"], "new": []},
        allow={"blue", "grey", "red"},
        deny=["blue", "mauve"],
    )
    assert items_of(lists, "ann") == ["grey"]
    assert items_of(lists, "new") == ["grey", "red"]
    assert (lists.unknown_allow, lists.unknown_deny) == ((), ("mauve",))
    assert "unknown items in deny: mauve" in str(lists)
    with pytest.raises(
        DataError, match="allow must name an item of the model, found none among 1 ids"
    ):
        recommend(colour_model(), {"ann": []}, allow=["mauve"])


def test_recommend_answers_users_for_whom_nothing_is_left() -> None:
    lists = recommend(colour_model(), {"all": COLOURS, "ann": ["red"]}, k=1)
    assert len(lists) == 2
    assert lists.for_user("all") == []
    assert items_of(lists, "ann") == ["teal"]
    with pytest.raises(DataError, match="2 users asked for, found 'eve'"):
        lists.for_user("eve")


def test_recommend_for_nobody_is_an_empty_table() -> None:
    table = recommend(colour_model(), {}).to_table()
    assert len(table) == 0
    assert table.column_names == ["user_id", "rank", "item_id", "title", "score", "source"]


def test_recommend_meets_integers_and_strings_alike() -> None:
    model = LinearScorer.random(6, 0)
    mixed: dict[Id, list[Id]] = {1: ["2", 3], "ann": [2, 3]}
    lists = recommend(model, mixed)
    assert items_of(lists, "1") == items_of(lists, 1) == items_of(lists, "ann")
    twice: dict[Id, list[Id]] = {7: [], "7": [], "ann": []}
    with pytest.raises(DataError, match="every id must occur once"):
        recommend(model, twice)


@settings(max_examples=40, deadline=None)
@given(
    st.dictionaries(
        st.integers(-(2**40), 2**40), st.lists(st.integers(0, 25)), min_size=1, max_size=12
    ),
    st.integers(1, 5),
    st.integers(1, 25),
)
def test_recommend_to_one_is_recommend_to_many(
    histories: dict[int, list[int]], block_size: int, k: int
) -> None:
    model = LinearScorer.random(20, 0, whole=True)
    together = recommend(model, histories, k, block_size=block_size)
    for user, items in histories.items():
        alone = recommend(model, {user: items}, k)
        assert alone.for_user(user) == together.for_user(user)
        assert alone.unknown_items.get(user) == together.unknown_items.get(user)


def test_lists_do_not_depend_on_the_block_size_beyond_rounding() -> None:
    model, rng = LinearScorer.random(700, 1), np.random.default_rng(0)
    histories: dict[Id, list[Id]] = {user: rng.integers(0, 700, 30).tolist() for user in range(130)}
    big, small = (
        recommend(model, histories, 20, block_size=128),
        recommend(model, histories, 20, block_size=3),
    )
    for user in histories:
        for one, other in zip(big.for_user(user), small.for_user(user), strict=True):
            assert one.score == pytest.approx(other.score, rel=1e-5, abs=1e-5)
    same = [items_of(big, user) == items_of(small, user) for user in histories]
    assert np.mean(same) > 0.98


def test_recommend_refuses_what_it_cannot_honour() -> None:
    model = colour_model()
    with pytest.raises(ConfigError, match="k must be at least 1, found 0"):
        recommend(model, {"ann": []}, k=0)
    with pytest.raises(ConfigError, match="block_size must be at least 1, found 0"):
        recommend(model, {"ann": []}, block_size=0)
    with pytest.raises(NumericalError, match="in 3 of 3 rows"):
        recommend(
            replace(model, weights=np.full((5, 5), np.nan, dtype=np.float32)),
            {"a": ["red"], "b": ["blue"], "c": ["teal"]},
        )
    with pytest.raises(DataError, match="found the string 'red' for 'ann'"):
        recommend(model, {"ann": "red"})
    with pytest.raises(DataError, match="allow must be a sequence"):
        recommend(model, {"ann": []}, allow="red")


def test_recommendations_print_as_a_table() -> None:
    assert str(recommend(colour_model(), {"ann": ["red", "mauve"]}, k=2)).splitlines() == [
        "user_id  rank  item_id  title  score  source",
        "ann         1  teal     Teal       1  model",
        "ann         2  blue     Blue       0  model",
        "unknown items of ann: mauve",
    ]


def test_similar_items_are_the_cosines() -> None:
    model = LinearScorer.random(12, 4)
    vectors = model.item_vectors().numpy()
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = unit @ unit[5]
    found = similar_items(model, 5, k=50)
    assert [one.item_id for one in found] == [item for item in np.argsort(-cosines) if item != 5]
    assert [one.rank for one in found] == list(range(1, 12))
    np.testing.assert_allclose(
        [one.cosine for one in found], np.sort(np.delete(cosines, 5))[::-1], atol=1e-6
    )


def test_similar_items_stand_extreme_and_zero_vectors() -> None:
    weights = np.array([[1e-25, 3e25, 0], [1e-25, 3e25, 0], [0, 0, 0]], dtype=np.float32)
    model = LinearScorer(
        weights, IdMap.of(["tiny", "huge", "none"]), np.ones(3), ("Tiny", "Huge", None)
    )
    assert [(one.item_id, one.title, one.cosine) for one in similar_items(model, "tiny")] == [
        ("huge", "Huge", pytest.approx(1.0)),
        ("none", None, 0.0),
    ]
    assert [one.cosine for one in similar_items(model, "none")] == [0.0, 0.0]
    with pytest.raises(DataError, match="one of the model's 3, found 'mauve'"):
        similar_items(model, "mauve")


def test_similar_items_in_a_catalogue_of_one_are_none() -> None:
    model = LinearScorer(np.ones((1, 1), dtype=np.float32), IdMap.of(["only"]), np.ones(1))
    assert similar_items(model, "only") == []


def as_lists(histories: Histories) -> dict[Id, list[Id]]:
    items, offsets = histories.item_ids.to_pylist(), histories.offsets
    return {
        user: items[offsets[i] : offsets[i + 1]]
        for i, user in enumerate(histories.users.ids_of(range(len(histories))))
    }


def test_histories_keep_each_users_items_in_order() -> None:
    rng = np.random.default_rng(0)
    users, items = rng.integers(0, 50, 5000), rng.integers(0, 900, 5000)
    expected: dict[Id, list[Id]] = {}
    for user, item in zip(users.tolist(), items.tolist(), strict=True):
        expected.setdefault(user, []).append(item)
    histories = Histories.from_pairs(pa.array(users), pa.array(items))
    assert as_lists(histories) == expected
    assert list(as_lists(histories)) == list(expected)
    blocks = list(histories.blocks(7))
    assert [len(block) for block in blocks] == [7] * 7 + [1]
    assert {user: ids for block in blocks for user, ids in as_lists(block).items()} == expected


@given(
    st.dictionaries(st.integers(0, 30), st.lists(st.integers(0, 9), max_size=4), max_size=12),
    st.lists(st.integers(0, 30), max_size=15),
    st.booleans(),
)
def test_histories_of_users_are_theirs_in_the_order_asked(
    held: dict[Id, list[Id]], asked: list[Id], as_text: bool
) -> None:
    histories = Histories.of(held)
    wanted = [str(one) for one in asked] if as_text else asked
    if unknown := [one for one in asked if one not in held]:
        with pytest.raises(NotFoundError, match=rf"{len(unknown)} of {len(asked)} are not"):
            histories.of_users(wanted)
        asked = [one for one in asked if one in held]
    chosen = histories.of_users([str(one) for one in asked] if as_text else asked)
    assert list(as_lists(chosen).items()) == [(one, held[one]) for one in dict.fromkeys(asked)]
    rows, _ = chosen.encode(IdMap.of(list(range(10))))
    assert rows.shape == (len(chosen), 10)


def test_histories_of_many_missing_users_name_a_few() -> None:
    histories = Histories.of({"ann": ["blue"]})
    with pytest.raises(NotFoundError, match=r"1,000 of 1,001 are not: 0, 1, 2, 3, 4, …;"):
        histories.of_users(["ann", *range(1000)])


PAIRS_CSV = "when,user_id,item_id\n1,b,2\n2,a,1\n3,b,1\n4,c,\n"


def test_read_histories_from_csv(tmp_path: Path) -> None:
    expected = {"b": [2, 1], "a": [1], "c": []}
    plain, zipped = tmp_path / "h.csv", tmp_path / "h.csv.gz"
    plain.write_text(PAIRS_CSV)
    zipped.write_bytes(gzip.compress(PAIRS_CSV.encode()))
    for path in (plain, zipped):
        assert as_lists(read_histories(path)) == expected
        assert list(as_lists(read_histories(path))) == list(expected)


@pytest.mark.parametrize("item_type", [pa.int32(), pa.int64(), pa.string(), pa.large_string()])
def test_read_histories_from_parquet(tmp_path: Path, item_type: pa.DataType) -> None:
    items = pa.array([2, 1, 1, None]).cast(item_type)
    pq.write_table(
        pa.table({"who": pa.array([20, 10, 20, 30], pa.int32()), "what": items}),
        tmp_path / "h.parquet",
    )
    read = as_lists(read_histories(tmp_path / "h.parquet", "who", "what"))
    one, two = ("1", "2") if "string" in str(item_type) else (1, 2)
    assert read == {20: [two, one], 10: [one], 30: []}


def test_read_histories_from_parquet_lists(tmp_path: Path) -> None:
    pq.write_table(
        pa.table({"user_id": ["a", "b", "c"], "item_ids": [[3, 1], [], None]}),
        tmp_path / "h.parquet",
    )
    assert as_lists(read_histories(tmp_path / "h.parquet")) == {"a": [3, 1], "b": [], "c": []}


@pytest.mark.parametrize("name", ["h.jsonl", "h.ndjson", "h.jsonl.gz"])
def test_read_histories_from_json_lines(tmp_path: Path, name: str) -> None:
    rows: list[dict[str, Any]] = [
        {"user_id": "a", "item_ids": [3, 1]},
        {"user_id": "b", "item_ids": []},
        {"user_id": "7"},
    ]
    _write_lines(tmp_path / name, rows)
    assert as_lists(read_histories(tmp_path / name)) == {"a": [3, 1], "b": [], "7": []}
    pairs: list[dict[str, Any]] = [
        {"user_id": 7, "item_id": "2024-01-01T00:00:00Z"},
        {"user_id": 8, "item_id": None},
        {"user_id": 7, "item_id": 5},
    ]
    _write_lines(tmp_path / name, pairs)
    assert as_lists(read_histories(tmp_path / name)) == {7: ["2024-01-01T00:00:00Z", "5"], 8: []}


def _write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    text = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)


def test_read_histories_keeps_ids_that_are_no_plain_integers(tmp_path: Path) -> None:
    path = tmp_path / "h.csv"
    path.write_text("user_id,item_id\n007,1.0\n7,2\n")
    assert as_lists(read_histories(path)) == {"007": [1], "7": [2]}
    path.write_text("user_id,item_id\n007,1.5\n7,2\n")
    assert as_lists(read_histories(path)) == {"007": ["1.5"], "7": ["2"]}


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        (
            "h.csv",
            "user_id,thing\na,1\n",
            r"columns 'user_id' and either 'item_id' or 'item_ids', found \['thing', 'user_id'\]",
        ),
        ("h.csv", "user_id,item_id\n,1\n", "every row must name its user, found 1 without"),
        ("h.jsonl", '{"user_id": 1, "item_id": 2}\n{"user_id": \n', ":2: every line must be"),
        (
            "h.jsonl",
            '{"user_id": 1, "item_id": 2}\n{"user_id": 1, "item_ids": [3]}\n',
            "either 'item_id' or 'item_ids'",
        ),
        ("h.parquet", "PAR?", "whole Parquet"),
        ("h.xls", "user_id,item_id\n", "must end in one of"),
    ],
)
def test_read_histories_says_what_is_wrong(
    tmp_path: Path, name: str, content: str, problem: str
) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(SourceError, match=problem) as caught:
        read_histories(tmp_path / name)
    assert caught.value.path == str(tmp_path / name)


def test_read_histories_needs_a_file(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="none was found"):
        read_histories(tmp_path / "missing.csv")


def _read_back(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".parquet":
        return list(pq.read_table(path).to_pylist())
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    if ".csv" in path.name:
        return list(pa.csv.read_csv(pa.BufferReader(data)).to_pylist())
    return [json.loads(line) for line in data.decode().splitlines()]


@pytest.mark.parametrize(
    "name", ["r.parquet", "r.csv", "r.csv.gz", "r.jsonl", "r.jsonl.gz", "r.ndjson"]
)
def test_recommend_to_file_writes_what_recommend_returns(tmp_path: Path, name: str) -> None:
    histories: dict[Id, list[Id]] = {
        'quo"te, é': ["red", "mauve"],
        "new": [],
        "all": [*COLOURS],
        "bob": ["mauve", "blue"],
    }
    done: list[tuple[float, float | None]] = []
    written = recommend_to_file(
        colour_model(),
        histories,
        tmp_path / name,
        3,
        deny=["grey"],
        block_size=3,
        progress=lambda update: done.append((update.done, update.total)),
    )
    expected = (
        recommend(colour_model(), histories, 3, deny=["grey"])
        .to_table()
        .drop_columns(["title"])
        .to_pylist()
    )
    assert _read_back(tmp_path / name) == expected
    assert done == [(3, 4), (4, 4)]
    assert (written.n_users, written.n_rows, written.n_popularity_users) == (4, len(expected), 1)
    assert written.unknown_items == {"mauve": 2}
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", ["r.parquet", "r.csv", "r.jsonl"])
def test_recommend_to_file_leaves_the_old_file_when_it_fails(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("old")
    # The first block is written before the second fails: an empty history never meets the broken
    # weights.
    broken = replace(colour_model(), weights=np.full((5, 5), np.nan, dtype=np.float32))
    with pytest.raises(NumericalError, match="1 of 1 rows"):
        recommend_to_file(broken, {"new": [], "ann": ["red"]}, tmp_path / name, block_size=1)
    assert (tmp_path / name).read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1


def test_recommend_to_file_refuses_an_unknown_ending(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="must end in one of"):
        recommend_to_file(colour_model(), {"a": []}, tmp_path / "r.xlsx")


def test_recommend_does_not_touch_the_models_weights() -> None:
    model = colour_model()
    before = torch.from_numpy(model.weights).clone()
    recommend(model, {"ann": ["red"], "new": []})
    assert torch.equal(torch.from_numpy(model.weights), before)
