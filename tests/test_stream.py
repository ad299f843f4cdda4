"""A stream of recommendations is what `recommend` gives, whatever interrupts it and wherever it
comes from and goes.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from coterie.config import RunConfig
from coterie.data.ids import Id, IdMap
from coterie.errors import (
    ArtifactError,
    CannotWriteError,
    ConfigError,
    ConflictError,
    DataError,
    Interrupted,
    NotFoundError,
    NumericalError,
    SourceError,
)
from coterie.files import sha256
from coterie.ranking.engine import recommend, recommend_to_file
from coterie.ranking.histories import Histories
from coterie.ranking.identity import ModelIdentity
from coterie.ranking.written import SCHEMA
from coterie.running.progress import Update
from coterie.simulation.service import simulate_dataset
from coterie.stream.history_source import open_histories
from coterie.stream.storage import Folder
from coterie.stream.to_folder import recommend_to_folder
from coterie.training.trainer import train
from scorer_contract import LinearScorer

MODEL = LinearScorer.random(40, 0, whole=True)

CHILD = """
import sys, time
import numpy as np
from dataclasses import dataclass
from coterie.stream.to_folder import recommend_to_folder
from coterie.training.trainer import train
from scorer_contract import LinearScorer

class Slow(LinearScorer):
    def score(self, histories):
        time.sleep(0.03)
        return super().score(histories)

# The folder notes the name, and is gone on with by the other one.
Slow.__name__ = "LinearScorer"
histories, out = sys.argv[1:]
slow = Slow.random(40, 0, whole=True)
recommend_to_folder(slow, histories, out, 5, block_size=10, shard_users=50)
"""


def random_lists(n_users: int, seed: int = 0) -> dict[Id, list[Id]]:
    """Histories of up to 8 items, some unknown to the model, some empty."""
    rng = np.random.default_rng(seed)
    return {
        user: rng.integers(0, 44, rng.integers(0, 9)).tolist()
        for user in rng.permutation(n_users).tolist()
    }


def write_lists(path: Path, lists: dict[Id, list[Id]], rows_a_group: int = 64) -> Path:
    items = pa.array(list(lists.values()), pa.list_(pa.int64()))
    pq.write_table(
        pa.table({"user_id": pa.array(list(lists)), "item_ids": items}),
        path,
        row_group_size=rows_a_group,
    )
    return path


def rows_of(folder: Path | str) -> list[dict[str, Any]]:
    """All rows, part after part."""
    where = Folder(str(folder))
    names = sorted(name for name in where.sizes() if name.startswith("part-"))
    rows = []
    for name in names:
        with fsspec.open(where.url(name), "rb").open() as file:
            rows += pq.read_table(file).to_pylist()
    return rows


def bytes_of(folder: Path) -> dict[str, bytes]:
    """Every file, which must all be in the folder itself."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def by_user(rows: list[dict[str, Any]]) -> dict[Id, list[tuple[Any, ...]]]:
    found: dict[Id, list[tuple[Any, ...]]] = {}
    for row in rows:
        found.setdefault(row["user_id"], []).append(
            (row["rank"], row["item_id"], row["score"], row["source"])
        )
    return found


@settings(max_examples=25, deadline=None)
@given(
    lists=st.dictionaries(
        st.integers(-5, 10**12), st.lists(st.integers(0, 45), max_size=6), max_size=20
    ),
    k=st.integers(1, 45),
    shard_users=st.integers(1, 25),
    block_size=st.integers(1, 25),
)
def test_stream_is_recommend(
    lists: dict[int, list[int]],
    k: int,
    shard_users: int,
    block_size: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("stream") / "out"
    done = recommend_to_folder(
        MODEL, lists, folder, k, block_size=block_size, shard_users=shard_users
    )
    expected = recommend(MODEL, lists, k)
    assert rows_of(folder) == expected.to_table().to_pylist()
    assert done.n_users == len(lists)
    assert done.n_rows == len(expected.to_table())
    assert done.n_shards == max(-(-len(lists) // shard_users), 1)
    unknown = [one for ids in expected.unknown_items.values() for one in ids]
    assert done.n_unknown == len(unknown)
    assert done.unknown_items == {one: unknown.count(one) for one in set(unknown)}


def test_stream_honours_every_option(tmp_path: Path) -> None:
    lists = random_lists(30)
    options: dict[str, Any] = {
        "exclude_seen": False,
        "allow": [*range(20), 99],
        "deny": [3, "4", 77],
    }
    done = recommend_to_folder(MODEL, lists, tmp_path / "out", 7, shard_users=8, **options)
    assert rows_of(tmp_path / "out") == recommend(MODEL, lists, 7, **options).to_table().to_pylist()
    assert (done.unknown_allow, done.unknown_deny) == ((99,), (77,))
    assert done.n_popularity_users == sum(
        not set(items) & set(range(40)) for items in lists.values()
    )


def test_folder_is_complete_and_describes_itself(tmp_path: Path) -> None:
    at: list[tuple[float, float | None]] = []
    done = recommend_to_folder(
        MODEL,
        random_lists(25),
        tmp_path / "out",
        3,
        shard_users=10,
        block_size=6,
        threads=1,
        progress=lambda update: at.append((update.done, update.total)),
    )
    assert at == [(0, 25), (6, 25), (10, 25), (16, 25), (20, 25), (25, 25)]
    assert sorted(bytes_of(tmp_path / "out")) == [
        "_manifest.json",
        "_request.json",
        *(f"part-0000{i}.parquet" for i in range(3)),
    ]
    manifest = json.loads((tmp_path / "out" / "_manifest.json").read_text())
    assert manifest["schema"] == SCHEMA
    assert manifest["files"] == {
        path.name: sha256(path)
        for path in (tmp_path / "out").iterdir()
        if path.name != "_manifest.json"
    }
    assert [shard["n_users"] for shard in manifest["shards"]] == [10, 10, 5]
    assert sum(shard["n_rows"] for shard in manifest["shards"]) == manifest["n_rows"] == done.n_rows
    request = json.loads((tmp_path / "out" / "_request.json").read_text())
    assert (request["k"], request["threads"], request["allow"], request["schema"]) == (
        3,
        1,
        None,
        SCHEMA,
    )
    with duckdb.connect() as database:
        counts = database.sql(
            f"SELECT count(*), count(DISTINCT user_id) FROM '{tmp_path}/out/*.parquet'"
        ).fetchall()
    assert counts == [(done.n_rows, 25)]


def test_complete_folder_is_left_as_it_is(tmp_path: Path) -> None:
    first = recommend_to_folder(MODEL, random_lists(25), tmp_path, shard_users=10)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}

    def refuse(update: Update) -> None:
        raise AssertionError("scored again")

    assert (
        recommend_to_folder(MODEL, random_lists(25), tmp_path, shard_users=10, progress=refuse)
        == first
    )
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before


def test_every_form_of_histories_gives_the_same_lists(tmp_path: Path) -> None:
    data = simulate_dataset(n_users=300, n_items=40, held_out_users=40, seed=1)
    data.save(tmp_path / "data")
    x = data.interactions
    users = np.repeat(x.users.values.to_numpy(), np.diff(x.indptr))
    items = x.items.values.to_numpy()[x.indices]
    lists: dict[Id, list[Id]] = {}
    for user, item in zip(users.tolist(), items.tolist(), strict=True):
        lists.setdefault(user, []).append(item)
    order = np.random.default_rng(0).permutation(len(users))
    pairs = pa.table({"user_id": users[order], "item_id": items[order]})
    pq.write_table(pairs, tmp_path / "pairs.parquet")
    (tmp_path / "pairs.csv").write_text(
        "user_id,item_id\n"
        + "".join(f"{u},{i}\n" for u, i in zip(*pairs.to_pydict().values(), strict=True))
    )
    (tmp_path / "lists.jsonl").write_text(
        "".join(json.dumps({"user_id": u, "item_ids": i}) + "\n" for u, i in lists.items())
    )
    (tmp_path / "parts" / "_log").mkdir(parents=True)
    (tmp_path / "parts" / "_log" / "0.txt").touch()
    half = len(lists) // 2
    write_lists(tmp_path / "parts" / "b.parquet", dict(list(lists.items())[half:]), 17)
    write_lists(tmp_path / "parts" / "a.parquet", dict(list(lists.items())[:half]), 1000)
    model = LinearScorer.random(60, 0, whole=True)
    expected = by_user(recommend(model, lists, 6).to_table().to_pylist())
    for name in ("data", "pairs.parquet", "pairs.csv", "lists.jsonl", "parts"):
        out = tmp_path / "out" / name
        done = recommend_to_folder(model, tmp_path / name, out, 6, shard_users=70, block_size=32)
        assert by_user(rows_of(out)) == expected, name
        assert done.n_users == len(expected)
        assert not (out / ".work").exists()


def test_stream_of_a_data_set_with_text_ids(tmp_path: Path) -> None:
    (tmp_path / "h.csv").write_text("user_id,item_id\nbob,x7\nann,x1\nann,\nbob,nowhere\neve,\n")
    model = replace(MODEL, items=IdMap.of([f"x{item}" for item in range(40)]))
    recommend_to_folder(model, tmp_path / "h.csv", tmp_path / "out", 2, shard_users=2)
    expected = (
        recommend(model, {"ann": ["x1"], "bob": ["x7", "nowhere"], "eve": []}, 2)
        .to_table()
        .to_pylist()
    )
    assert rows_of(tmp_path / "out") == expected


@settings(max_examples=30, deadline=None)
@given(
    groups=st.lists(st.lists(st.integers(1, 9), min_size=0, max_size=4), min_size=1, max_size=3),
    cuts=st.tuples(st.integers(0, 60), st.integers(0, 60)),
)
def test_any_range_of_users_is_read_from_any_row_groups(
    groups: list[list[int]], cuts: tuple[int, int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("lists")
    total = sum(map(sum, groups))
    lists = random_lists(total)
    users = iter(lists)
    kind = pa.schema([("user_id", pa.int64()), ("item_ids", pa.list_(pa.int64()))])
    for number, sizes in enumerate(groups):
        with pq.ParquetWriter(folder / f"{number}.parquet", kind) as file:
            for size in sizes:
                chosen = [next(users) for _ in range(size)]
                file.write_table(
                    pa.table(
                        {"user_id": chosen, "item_ids": [lists[user] for user in chosen]}, kind
                    )
                )
    start, stop = sorted(min(cut, total) for cut in cuts)
    source = open_histories(folder).source(Folder(str(folder)))
    found = source.read(start, stop)
    assert source.n_users == total
    assert as_lists(found) == dict(list(lists.items())[start:stop])


def as_lists(histories: Histories) -> dict[Id, list[Id]]:
    items, offsets = histories.item_ids.to_pylist(), histories.offsets
    return {
        user: items[offsets[i] : offsets[i + 1]]
        for i, user in enumerate(histories.users.ids_of(range(len(histories))))
    }


@pytest.mark.parametrize(
    ("users", "items"),
    [
        (
            pa.array([1, 2, 3, 4], pa.int32()),
            pa.array([[1, None, 2], None, [], [3]], pa.large_list(pa.int16())),
        ),
        (
            pa.array(["1", "2", "3", "4"]).dictionary_encode(),
            pa.array([["1", None, "2"], None, [], ["3"]], pa.list_(pa.large_string())),
        ),
    ],
)
def test_lists_of_any_type_with_gaps(tmp_path: Path, users: pa.Array, items: pa.Array) -> None:
    pq.write_table(pa.table({"user_id": users, "item_ids": items}), tmp_path / "h.parquet")
    found = as_lists(
        open_histories(tmp_path / "h.parquet").source(Folder(str(tmp_path))).read(0, 4)
    )
    assert [[int(item) for item in row] for row in found.values()] == [[1, 2], [], [], [3]]
    assert [int(user) for user in found] == [1, 2, 3, 4]


def test_pairs_of_one_user_may_fill_several_batches(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    users = np.concatenate(
        [rng.integers(0, 5000, 200_000), np.full(600_000, 4990), rng.integers(0, 5000, 200_000)]
    )
    items = rng.integers(0, 30, len(users))
    pq.write_table(pa.table({"user_id": users, "item_id": items}), tmp_path / "h.parquet")
    source = open_histories(tmp_path / "h.parquet").source(Folder(str(tmp_path / "out")))
    assert source.n_users == len(np.unique(users))
    for start in (0, 4980):
        read = as_lists(source.read(start, start + 20))
        assert {user: sorted(row) for user, row in read.items()} == {
            user: sorted(items[users == user].tolist())
            for user in np.unique(users)[start : start + 20].tolist()
        }


def kill_when(ready: Callable[[], bool], histories: Path, out: Path, delay: float = 0.0) -> int:
    """Starts the child, kills it some seconds after ``ready``, and gives its exit code."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    child = subprocess.Popen([sys.executable, "-c", CHILD, histories, out], env=environment)
    try:
        while child.poll() is None and not ready():
            time.sleep(0.005)
        time.sleep(delay)
        child.kill()
    finally:
        code = child.wait(60)
    return code


def test_killed_at_any_time_it_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    lists = random_lists(600)
    histories, out = write_lists(tmp_path / "h.parquet", lists), tmp_path / "out"
    recommend_to_folder(MODEL, histories, tmp_path / "whole", 5, block_size=10, shard_users=50)
    for shards, delay in ((1, 0.0), (4, 0.013), (7, 0.031)):
        code = kill_when(lambda n=shards: len(list(out.glob("part-*"))) >= n, histories, out, delay)  # type: ignore[misc]
        assert code == -signal.SIGKILL
        assert not (out / "_manifest.json").exists()
    at: list[float] = []
    recommend_to_folder(
        MODEL,
        histories,
        out,
        5,
        block_size=10,
        shard_users=50,
        progress=lambda update: at.append(update.done),
    )
    assert at[0] >= 350
    assert bytes_of(out) == bytes_of(tmp_path / "whole")
    assert sorted(by_user(rows_of(out))) == list(range(600))


def test_killed_while_sorting_pairs_it_goes_on(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    pairs = pa.table(
        {"user_id": rng.integers(0, 100_000, 10**6), "item_id": rng.integers(0, 40, 10**6)}
    )
    pq.write_table(pairs, tmp_path / "h.parquet")
    work = tmp_path / "out" / ".work"
    code = kill_when(
        lambda: any(work.glob(".histories*")), tmp_path / "h.parquet", tmp_path / "out"
    )
    assert code == -signal.SIGKILL
    source = open_histories(tmp_path / "h.parquet").source(Folder(str(tmp_path / "out")))
    assert source.n_users == len(np.unique(pairs["user_id"].to_numpy()))


def test_progress_may_stop_and_the_shards_stay(tmp_path: Path) -> None:
    lists = random_lists(60)

    def stop(update: Update) -> None:
        if update.done == 44:
            raise Interrupted("enough", 15)

    with pytest.raises(Interrupted):
        recommend_to_folder(
            MODEL, lists, tmp_path / "out", shard_users=20, block_size=4, progress=stop
        )
    assert sorted(path.name for path in (tmp_path / "out").glob("[!.]*")) == [
        "_request.json",
        "part-00000.parquet",
        "part-00001.parquet",
    ]
    at: list[float] = []
    recommend_to_folder(
        MODEL,
        lists,
        tmp_path / "out",
        shard_users=20,
        block_size=4,
        progress=lambda update: at.append(update.done),
    )
    assert at[:2] == [40, 44]
    recommend_to_folder(MODEL, lists, tmp_path / "whole", shard_users=20, block_size=4)
    assert bytes_of(tmp_path / "out") == bytes_of(tmp_path / "whole")


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 255
    path.write_bytes(data)


@pytest.mark.parametrize("damage", [cut_off, flip, Path.unlink])
def test_damaged_shard_is_made_anew(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    lists = random_lists(60)

    def stop(update: Update) -> None:
        if update.done == 60:
            raise KeyboardInterrupt

    recommend_to_folder(MODEL, lists, tmp_path / "whole", shard_users=20)
    with pytest.raises(KeyboardInterrupt):
        recommend_to_folder(MODEL, lists, tmp_path / "out", shard_users=20, progress=stop)
    damage(tmp_path / "out" / "part-00001.parquet")
    recommend_to_folder(MODEL, lists, tmp_path / "out", shard_users=20)
    assert bytes_of(tmp_path / "out") == bytes_of(tmp_path / "whole")


@pytest.mark.parametrize("damage", [cut_off, Path.unlink])
def test_complete_folder_that_lost_a_shard_is_mended(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    recommend_to_folder(MODEL, random_lists(60), tmp_path, shard_users=20)
    before, at = bytes_of(tmp_path), list[float]()
    damage(tmp_path / "part-00002.parquet")
    recommend_to_folder(
        MODEL,
        random_lists(60),
        tmp_path,
        shard_users=20,
        progress=lambda update: at.append(update.done),
    )
    assert at == [40, 60]
    assert bytes_of(tmp_path) == before


def test_damaged_tallies_cost_only_their_shard(tmp_path: Path) -> None:
    def stop(update: Update) -> None:
        if update.done == 60:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        recommend_to_folder(MODEL, random_lists(60), tmp_path, shard_users=20, progress=stop)
    (tmp_path / ".work" / "part-00000.json").write_text('{"number": ')
    (tmp_path / ".work" / "part-00001.json").write_text('{"number": 1}')
    assert recommend_to_folder(MODEL, random_lists(60), tmp_path, shard_users=20).n_users == 60


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"k": 3}, "k 2, now 3"),
        ({"shard_users": 6}, "shard_users 5, now 6"),
        (
            {"block_size": 2, "exclude_seen": False},
            "exclude_seen True, now False; block_size 1024, now 2",
        ),
        ({"allow": [1, 2]}, "allow None, now 2 ids"),
        ({"threads": 3}, "threads 1, now 3"),
        ({"model": LinearScorer.random(40, 1)}, "model [0-9a-f]{12}…, now"),
        ({"histories": random_lists(8, seed=2)}, "histories [0-9a-f]{12}…, now"),
    ],
)
def test_folder_of_another_request_is_refused(
    tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    request: dict[str, Any] = {
        "model": MODEL,
        "histories": random_lists(8),
        "k": 2,
        "shard_users": 5,
        "threads": 1,
    }
    recommend_to_folder(path=tmp_path / "out", **request)
    before = bytes_of(tmp_path / "out")
    with pytest.raises(ConflictError, match=words):
        recommend_to_folder(path=tmp_path / "out", **{**request, **change})
    assert bytes_of(tmp_path / "out") == before


def test_folder_names_its_model_and_is_read_as_it_is(tmp_path: Path) -> None:
    data = simulate_dataset(n_users=200, n_items=40, held_out_users=20, seed=1)
    model = train(data, RunConfig.of({"model": {"name": "popularity"}}))
    model = replace(model, provenance={**model.provenance, "run_id": "monday"})
    done = recommend_to_folder(model, random_lists(9), tmp_path / "out", k=2, shard_users=5)
    assert done.model == ModelIdentity("popularity", model.fingerprint, "monday")
    for name in ("_request.json", "_manifest.json"):
        written = json.loads((tmp_path / "out" / name).read_text())
        assert (written["model"], written["model_name"], written["run_id"]) == (
            model.fingerprint,
            "popularity",
            "monday",
        )
    assert pyarrow.dataset.dataset(tmp_path / "out").count_rows() == done.n_rows
    again = replace(model, provenance={**model.provenance, "run_id": "tuesday"})
    assert recommend_to_folder(again, random_lists(9), tmp_path / "out", k=2, shard_users=5) == done


def test_folder_of_the_first_version_is_refused(tmp_path: Path) -> None:
    (tmp_path / "request.json").write_text('{"schema": "coterie.recommendations/1"}')
    with pytest.raises(ConflictError, match=r"the lists of Coterie 0\.1"):
        recommend_to_folder(MODEL, {}, tmp_path)


def test_threads_of_the_beginning_are_kept(tmp_path: Path) -> None:
    before = torch.get_num_threads()
    recommend_to_folder(MODEL, random_lists(8), tmp_path, threads=2)
    assert torch.get_num_threads() == before
    assert recommend_to_folder(MODEL, random_lists(8), tmp_path).n_users == 8


def test_what_is_in_the_way_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").touch()
    (tmp_path / "newer").mkdir()
    (tmp_path / "newer" / "_request.json").write_text('{"schema": "coterie.recommendations/9"}')
    with pytest.raises(ConfigError, match="must be a folder or new, found a file"):
        recommend_to_folder(MODEL, {}, tmp_path / "file")
    with pytest.raises(CannotWriteError, match="must be in a folder that can be written"):
        recommend_to_folder(MODEL, {}, tmp_path / "file" / "below")
    with pytest.raises(ConflictError, match="found other files"):
        recommend_to_folder(MODEL, {}, tmp_path / "other")
    with pytest.raises(ArtifactError, match=f"schema must be {SCHEMA!r}"):
        recommend_to_folder(MODEL, {}, tmp_path / "newer")
    with pytest.raises(ConfigError, match="URL that fsspec can open"):
        recommend_to_folder(MODEL, {}, "nowhere://x/y")
    for name in ("k", "block_size", "shard_users", "threads"):
        with pytest.raises(ConfigError, match=f"{name} must be at least 1, found 0"):
            recommend_to_folder(MODEL, {}, tmp_path / "new", **dict[str, Any]({name: 0}))
    with pytest.raises(ConfigError, match="a single file is written to a local path"):
        recommend_to_file(MODEL, {}, "memory://x/y.parquet")
    with pytest.raises(DataError, match="allow must be a sequence"):
        recommend_to_folder(MODEL, {}, tmp_path / "new", allow="red")
    assert not (tmp_path / "new").exists()


def test_scores_that_are_not_finite_leave_no_shard(tmp_path: Path) -> None:
    broken = replace(MODEL, weights=np.full((40, 40), np.nan, dtype=np.float32))
    with pytest.raises(NumericalError, match="1 of 1 rows"):
        recommend_to_folder(broken, {1: [], 2: [3]}, tmp_path, block_size=1)
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == ["_request.json"]


def write_other_type(folder: Path) -> None:
    write_lists(folder / "a.parquet", {1: [2]})
    write_lists(folder / "b.parquet", {"x": [2]})


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (lambda folder: None, "at least one file, found none"),
        (lambda folder: (folder / "h.xls").touch(), "must end in one of"),
        (
            lambda folder: [write_lists(folder / "a.parquet", {1: []}), (folder / "b.csv").touch()],
            "files of one format, found .csv, .parquet",
        ),
        (
            lambda folder: (folder / "h.parquet").write_bytes(b"PAR1"),
            "must be readable by its ending",
        ),
        (
            lambda folder: pq.write_table(pa.table({"user": [1]}), folder / "h.parquet"),
            "must have the columns",
        ),
        (write_other_type, "every file must have the same types"),
        (
            lambda folder: [write_lists(folder / f"{i}.parquet", {7: [i], i: []}) for i in (1, 2)],
            "one row, found 7 in several",
        ),
        (
            lambda folder: pq.write_table(
                pa.table({"user_id": [1, None], "item_ids": [[1], [2]]}), folder / "h.parquet"
            ),
            "found 1 without",
        ),
        (
            lambda folder: pq.write_table(
                pa.table({"user_id": pa.nulls(2, pa.int64()), "item_id": [1, 2]}),
                folder / "h.parquet",
            ),
            "found 2 without",
        ),
        (
            lambda folder: pq.write_table(
                pa.table({"user_id": [1.5], "item_id": [1]}), folder / "h.parquet"
            ),
            "ids must be whole numbers or text, found 1.5",
        ),
        (
            lambda folder: pq.write_table(
                pa.table({"user_id": [1.5], "item_ids": [[1]]}), folder / "h.parquet"
            ),
            "int64 or string",
        ),
        (
            lambda folder: (folder / "h.csv").write_text("user_id,thing\n1,2\n"),
            "must have the columns",
        ),
        (
            lambda folder: (folder / "h.jsonl").write_text('{"user_id": '),
            "h.jsonl:1: every line must be a JSON object",
        ),
    ],
)
def test_histories_that_cannot_be_read(
    tmp_path: Path, write: Callable[[Path], Any], words: str
) -> None:
    histories = tmp_path / "histories"
    histories.mkdir()
    write(histories)
    with pytest.raises(SourceError, match=words):
        recommend_to_folder(MODEL, histories, tmp_path / "out")
    assert not list(tmp_path.glob("out/*.parquet"))


def test_damaged_data_set_is_refused(tmp_path: Path) -> None:
    simulate_dataset(n_users=300, n_items=40, held_out_users=40, seed=1).save(tmp_path / "data")
    flip(tmp_path / "data" / "interactions.safetensors")
    with pytest.raises(ArtifactError, match="differ from the checksum"):
        recommend_to_folder(MODEL, tmp_path / "data", tmp_path / "out")
    with pytest.raises(ConfigError, match="protocol must be one that fsspec knows"):
        recommend_to_folder(MODEL, "nowhere://x/h.parquet", tmp_path / "out")


def test_tallies_of_unknown_items_stay_bounded(tmp_path: Path) -> None:
    lists: dict[Id, list[Id]] = {user: [1000 + user, 5000 + user % 2] for user in range(300)}
    done = recommend_to_folder(MODEL, lists, tmp_path, 1, shard_users=150)
    assert done.n_unknown == 600
    assert len(done.unknown_items) == 2 * 98 + 2
    assert list(done.unknown_items.items())[:2] == [(5000, 150), (5001, 150)]


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An empty bucket of an S3 server on this machine."""
    server = pytest.importorskip("moto.server")
    pytest.importorskip("s3fs")
    for name, value in {
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    running = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    # Another test may have left one that looks elsewhere.
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    fsspec.filesystem("s3").mkdir("coterie-test")
    yield "s3://coterie-test"
    fsspec.filesystem("s3").clear_instance_cache()
    running.stop()


def test_histories_and_results_on_s3(bucket: str, tmp_path: Path) -> None:
    lists = random_lists(200)
    s3 = fsspec.filesystem("s3")
    s3.put_file(str(write_lists(tmp_path / "h.parquet", lists)), f"{bucket}/lists/h.parquet")
    pairs = "".join(f"{user},{item}\n" for user, items in lists.items() for item in items or [""])
    (tmp_path / "h.csv").write_text(f"user_id,item_id\n{pairs}")
    s3.put_file(str(tmp_path / "h.csv"), f"{bucket}/pairs/h.csv")
    recommend_to_folder(MODEL, lists, tmp_path / "here", 5, shard_users=60)

    def stop(update: Update) -> None:
        if update.done == 180:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        recommend_to_folder(
            MODEL, f"{bucket}/lists", f"{bucket}/out", 5, shard_users=60, progress=stop
        )
    assert sorted(Folder(f"{bucket}/out").sizes()) == [
        ".work",
        "_request.json",
        "part-00000.parquet",
        "part-00001.parquet",
    ]
    for name in ("lists", "pairs"):
        out = f"{bucket}/out" if name == "lists" else f"{bucket}/{name}-out"
        done = recommend_to_folder(MODEL, f"{bucket}/{name}", out, 5, shard_users=60)
        assert recommend_to_folder(MODEL, f"{bucket}/{name}", out, 5, shard_users=60) == done
        assert by_user(rows_of(out)) == by_user(rows_of(tmp_path / "here"))
        assert sorted(Folder(out).sizes()) == sorted(bytes_of(tmp_path / "here"))
    with pytest.raises(CannotWriteError, match="must be a folder that can be written"):
        recommend_to_folder(MODEL, lists, "s3://no-such-bucket/out")
    with pytest.raises(NotFoundError, match="must exist"):
        recommend_to_folder(MODEL, f"{bucket}/nothing.parquet", f"{bucket}/out2")


def test_command_is_stopped_and_goes_on(tmp_path: Path) -> None:
    data = simulate_dataset(n_users=400, n_items=60, held_out_users=40, seed=1)
    data.save(tmp_path / "data")
    train(data, RunConfig.of({"model": {"name": "ease"}})).save(tmp_path / "model")
    command: list[str | Path] = [
        sys.executable,
        "-m",
        "coterie.cli",
        "recommend",
        tmp_path / "model",
        "--histories",
        tmp_path / "data",
    ]
    command += ["--shard-users", "1"]
    running = subprocess.Popen(
        [*command, "--out", tmp_path / "out"], stderr=subprocess.PIPE, text=True
    )
    while running.poll() is None and not (tmp_path / "out" / "part-00003.parquet").exists():
        time.sleep(0.005)
    running.terminate()
    told = running.communicate()[1]
    assert running.returncode == 128 + signal.SIGTERM, told
    assert "the same command goes on" in " ".join(told.split())
    subprocess.run(
        [*command, "--out", tmp_path / "out", "--json", tmp_path / "done.json"], check=True
    )
    assert json.loads((tmp_path / "done.json").read_text())["n_shards"] == data.n_users
    assert len(by_user(rows_of(tmp_path / "out"))) == data.n_users
