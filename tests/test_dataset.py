"""The data set: its matrix, its folder, and every way the folder can be damaged."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from coterie.data.dataset import Dataset, Interactions, count_parts
from coterie.data.ids import IdMap
from coterie.data.split import Part, Split
from coterie.errors import ArtifactError, DataError
from coterie.files import sha256
from coterie.simulation.service import simulate_dataset
from coterie.sparse import SparseRows

INDPTR = np.array([0, 2, 2, 5], dtype=np.int64)
INDICES = np.array([0, 2, 0, 1, 2], dtype=np.int32)
USERS, ITEMS = IdMap.of(["ann", "bob", "eve"]), IdMap.of([10, 20, 30])


def interactions(**changes: Any) -> Interactions:
    return replace(
        Interactions(
            USERS,
            ITEMS,
            INDPTR,
            INDICES,
            np.arange(5, dtype=np.int64),
            np.arange(1, 6),
            np.arange(5, dtype=np.int64) - 1,
        ),
        **changes,
    )


def dataset() -> Dataset:
    split = Split(np.array([0, 0, 2], np.uint8), np.array([0, 0, 0, 2, 0], np.uint8))
    return Dataset(
        interactions(), split, ("ä", None, "c"), {"name": "hand-made", "counts": {"users": 3}}
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"indptr": np.array([0, 2, 5])}, "indptr"),
        ({"indptr": np.array([1, 2, 2, 5])}, "indptr"),
        ({"indptr": np.array([0, 3, 2, 5])}, "indptr"),
        ({"indptr": np.array([0, 2, 2, 4])}, "indptr"),
        ({"indices": np.array([0, 3, 0, 1, 2], np.int32)}, "item indices must be in"),
        ({"indices": np.array([-1, 2, 0, 1, 2], np.int32)}, "item indices must be in"),
        ({"indices": np.array([2, 0, 0, 1, 2], np.int32)}, "ascend"),
        ({"indices": np.array([0, 2, 0, 1, 1], np.int32)}, "ascend"),
        ({"timestamps": np.arange(4)}, "timestamps"),
        ({"counts": np.arange(6)}, "counts must have one entry"),
        ({"counts": np.arange(5)}, "counts must be at least 1"),
        ({"first_timestamps": np.arange(4)}, "first_timestamps must have one entry"),
        ({"first_timestamps": np.arange(5) + 1}, "no later than timestamps"),
        ({"first_timestamps": np.arange(5), "timestamps": None}, "no later than timestamps"),
    ],
)
def test_interactions_refuse_what_is_no_csr(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError, match=words):
        interactions(**changes)


def test_interactions_may_fall_from_row_to_row_and_rows_be_empty() -> None:
    empty_ends = interactions(
        indptr=np.array([0, 0, 5, 5]),
        indices=np.array([0, 1, 2, 3, 4], np.int32),
        items=IdMap.of(range(5)),
    )
    assert (empty_ends.n_users, empty_ends.n_items) == (3, 5)


def test_train_holds_training_users_and_cases_the_others() -> None:
    data = dataset()
    assert data.train.toarray().tolist() == [[1, 0, 1], [0, 0, 0]]
    cases = data.cases(Part.TEST)
    assert cases.user_index.tolist() == [2]
    assert cases.fold_in.toarray().tolist() == [[1, 0, 1]]
    assert cases.held_out.toarray().tolist() == [[0, 1, 0]]
    assert len(data.cases(Part.VALIDATION).user_index) == 0


def test_titles_and_split_must_fit() -> None:
    with pytest.raises(DataError, match="titles"):
        replace(dataset(), titles=("a",))
    with pytest.raises(DataError, match="interaction_part"):
        replace(dataset(), split=Split(np.zeros(3, np.uint8), np.zeros(4, np.uint8)))


@pytest.mark.parametrize("with_extras", [True, False])
def test_data_set_comes_back_from_its_folder(tmp_path: Path, with_extras: bool) -> None:
    data = (
        dataset()
        if with_extras
        else replace(
            dataset(),
            titles=None,
            interactions=interactions(timestamps=None, counts=None, first_timestamps=None),
        )
    )
    data.save(tmp_path / "a")
    back = Dataset.load(tmp_path / "a")
    assert (back.users, back.items, back.titles) == (data.users, data.items, data.titles)
    assert back.provenance == data.provenance
    assert back.fingerprint == data.fingerprint
    np.testing.assert_array_equal(back.interactions.indices, INDICES)
    np.testing.assert_array_equal(back.split.interaction_part, data.split.interaction_part)
    for name in ("timestamps", "first_timestamps"):
        assert (getattr(back.interactions, name) is not None) == with_extras
    assert [
        None if x is None else x.tolist() for x in (back.interactions.counts, back.train_counts)
    ] == ([[1, 2, 3, 4, 5], [1, 2]] if with_extras else [None, None])


def test_saving_twice_gives_the_same_bytes_and_replaces(tmp_path: Path) -> None:
    dataset().save(tmp_path / "a")
    before = {file.name: file.read_bytes() for file in (tmp_path / "a").iterdir()}
    dataset().save(tmp_path / "a")
    assert {file.name: file.read_bytes() for file in (tmp_path / "a").iterdir()} == before
    assert [file.name for file in tmp_path.iterdir()] == ["a"]


def test_fingerprint_changes_with_ids_interactions_and_split() -> None:
    data = dataset()
    others = [
        replace(data, interactions=interactions(users=IdMap.of(["ann", "bob", "eva"]))),
        replace(data, interactions=interactions(items=IdMap.of(["10", "20", "30"]))),
        replace(data, interactions=interactions(indices=np.array([0, 1, 0, 1, 2], np.int32))),
        replace(data, split=Split(data.split.user_part, np.array([0, 0, 2, 0, 0], np.uint8))),
        replace(data, interactions=interactions(first_timestamps=None)),
    ]
    assert len({one.fingerprint for one in (data, *others)}) == 6
    assert replace(data, titles=None).fingerprint == data.fingerprint


@pytest.mark.parametrize(
    "name", ["interactions.safetensors", "users.parquet", "items.parquet", "manifest.json"]
)
@pytest.mark.parametrize("damage", ["missing", "cut", "flipped"])
def test_a_damaged_folder_is_refused(tmp_path: Path, name: str, damage: str) -> None:
    dataset().save(tmp_path / "a")
    file = tmp_path / "a" / name
    content = file.read_bytes()
    if damage == "missing":
        file.unlink()
    elif damage == "cut":
        file.write_bytes(content[:-7])
    else:
        file.write_bytes(content[:3] + bytes([content[3] ^ 255]) + content[4:])
    with pytest.raises(ArtifactError):
        Dataset.load(tmp_path / "a")


def edit_manifest(folder: Path, **changes: Any) -> None:
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    (folder / "manifest.json").write_text(json.dumps(manifest | changes), encoding="utf-8")


def test_a_folder_of_another_schema_is_refused(tmp_path: Path) -> None:
    dataset().save(tmp_path / "a")
    edit_manifest(tmp_path / "a", schema="coterie.dataset/99")
    with pytest.raises(ArtifactError, match="dataset/99"):
        Dataset.load(tmp_path / "a")
    with pytest.raises(ArtifactError, match=r"manifest\.json"):
        Dataset.load(tmp_path)


def test_a_folder_whose_files_do_not_fit_each_other_is_refused(tmp_path: Path) -> None:
    """Checksums that hold do not make the shapes right."""
    dataset().save(tmp_path / "a")
    pq.write_table(pa.table({"user_id": ["ann"]}), tmp_path / "a" / "users.parquet")
    files = {
        file.name: sha256(file)
        for file in (tmp_path / "a").iterdir()
        if file.name != "manifest.json"
    }
    edit_manifest(tmp_path / "a", files=files)
    with pytest.raises(ArtifactError, match="not a whole data set"):
        Dataset.load(tmp_path / "a")


@pytest.mark.parametrize("given", [False, True])
def test_without_validation_all_of_it_is_in_training_and_the_test_stays(given: bool) -> None:
    data = simulate_dataset(n_users=120, n_items=40, held_out_users=20, seed=3)
    if given:
        rng, n = np.random.default_rng(0), len(data.interactions.indices)
        parts = rng.choice([0, 1, 2], size=n, p=[0.7, 0.15, 0.15]).astype(np.uint8)
        data = Dataset(data.interactions, Split(np.zeros(120, np.uint8), parts))
    last = data.without_validation()
    assert len(last.cases(Part.VALIDATION).user_index) == 0
    before, after = data.cases(Part.TEST), last.cases(Part.TEST)
    for name in ("fold_in", "held_out"):
        assert (getattr(before, name) != getattr(after, name)).nnz == 0
    n_validated = int((data.split.interaction_part == Part.VALIDATION).sum())
    shown = 0 if given else int(data.cases(Part.VALIDATION).fold_in.sum())
    assert int(last.train.sum()) == int(data.train.sum()) + n_validated + shown
    assert last.fingerprint != data.fingerprint
    assert last.provenance == data.provenance


def test_without_validation_the_counts_are_its_own() -> None:
    data = simulate_dataset(n_users=120, n_items=40, held_out_users=20, seed=3)
    data = replace(
        data,
        provenance={
            "name": "mine",
            "counts": {"rows_read": 9, **count_parts(data.interactions, data.split)},
        },
    )
    before, last = data.provenance["counts"], data.without_validation()
    after = last.provenance["counts"]
    assert (before["train_users"], before["validation_users"], before["test_users"]) == (80, 20, 20)
    assert (after["train_users"], after["validation_users"], after["test_users"]) == (100, 0, 20)
    assert before["validation_cases"] > after["validation_cases"] == 0
    assert "validation_users_not_evaluated" in before.keys() - after.keys()
    assert before["test_cases"] == after["test_cases"] == len(last.cases(Part.TEST).user_index)
    assert (after["rows_read"], last.provenance["name"]) == (9, "mine")
    assert data.provenance["counts"] is before, "the old one is left alone"


@pytest.mark.parametrize("given", [False, True])
def test_for_refit_everything_is_in_training(given: bool, tmp_path: Path) -> None:
    data = simulate_dataset(n_users=120, n_items=40, held_out_users=20, seed=3)
    x = data.interactions
    if given:
        parts = np.random.default_rng(0).choice([0, 1, 2], size=len(x.indices)).astype(np.uint8)
        data = Dataset(x, Split(np.zeros(120, np.uint8), parts))
    counts = {"rows_read": 9, **count_parts(x, data.split)}
    data = replace(data, provenance={"name": "mine", "counts": counts})
    data.save(tmp_path)
    last = Dataset.load(tmp_path).for_refit()
    assert last.train.indptr.tolist() == x.indptr.tolist()
    assert last.train.indices.tolist() == x.indices.tolist()
    assert last.train_timestamps is not None
    assert x.timestamps is not None
    assert last.train_timestamps.tolist() == x.timestamps.tolist()
    assert [len(last.cases(part).user_index) for part in (Part.VALIDATION, Part.TEST)] == [0, 0]
    assert last.provenance["counts"] == {"rows_read": 9, **count_parts(x, last.split)}
    assert (last.provenance["name"], last.folder) == ("mine", tmp_path.resolve())
    assert last.fingerprint == last.for_refit().fingerprint != data.fingerprint


def test_data_sets_are_equal_by_content_and_their_parts_by_identity(tmp_path: Path) -> None:
    data = dataset()
    data.save(tmp_path / "a")
    back = Dataset.load(tmp_path / "a")
    assert back == data
    assert hash(back) == hash(data)
    assert len({back, data}) == 1
    assert replace(data, titles=None) != data
    assert replace(data, split=Split(data.split.user_part, np.zeros(5, np.uint8))) != data
    assert data != "data"
    parts = (data.interactions, data.split, data.cases(Part.TEST), SparseRows.from_csr(data.train))
    others = (back.interactions, back.split, back.cases(Part.TEST), SparseRows.from_csr(back.train))
    for one, other in zip(parts, others, strict=True):
        assert one == one
        assert one != other
        assert len({one, other}) == 2


def test_with_validation_users_the_last_fifth_is_to_be_found_and_nothing_else_moves() -> None:
    times = np.arange(40) % 7
    indptr, indices = np.arange(0, 50, 10), np.tile(np.arange(10, dtype=np.int32), 4)
    x = Interactions(IdMap.of(range(4)), IdMap.of(range(10)), indptr, indices, times)
    everybody = Split(np.zeros(4, np.uint8), np.zeros(40, np.uint8))
    data = Dataset(x, everybody, provenance={"source": "here"})
    held_out = data.with_validation_users(0.5, seed=3)
    rule = {"share": 0.5, "seed": 3}
    assert held_out.provenance == {"source": "here", "validation_users": rule}
    cases = held_out.cases(Part.VALIDATION)
    assert held_out.train.shape == (2, 10)
    for user, found in zip(cases.user_index, cases.held_out.toarray(), strict=True):
        by_time = sorted(range(10), key=lambda item: (times[10 * user + item], item))
        assert np.flatnonzero(found).tolist() == sorted(by_time[-2:])
    assert held_out.fingerprint != data.fingerprint
    assert held_out.without_validation().fingerprint == data.fingerprint
