"""Every reader on files in its official format, and every way such a file can be wrong."""

import gzip
import io
import json
import os
import random
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coterie.data.log import InteractionLog
from coterie.data.netflix import parse_ratings
from coterie.data.read import read_log
from coterie.data.table_options import NULL_WORDS, TableFields
from coterie.data.titles import read_titles
from coterie.errors import ConfigError, NotFoundError, SourceError
from coterie.files import sha256

REAL = Path(os.environ.get("COTERIE_DATA", Path(__file__).parents[2] / "shared" / "data"))
SCORES: TableFields = {"user_column": "user", "item_column": "item", "rating_column": "score"}

Row = tuple[Any, ...]

TEXT_IDS = st.text().filter(lambda text: text.strip(" ") and text not in NULL_WORDS)


def real(name: str) -> Path:
    if not (REAL / name).exists():
        pytest.skip(
            f"real data {name} is not on this machine; set COTERIE_DATA to a folder that holds it"
        )
    return REAL / name


def rows(path: str | Path, *args: Any, **options: Any) -> list[Row]:
    with read_log(path, *args, **options) as log:
        return log.connection.execute("SELECT * FROM log").fetchall()


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def refused(path: str | Path, line: int | None, *words: str, **options: Any) -> None:
    """Reading must fail at ``line`` in words that say what was found, and leave no temporary
    folder.
    """
    before = set(Path(tempfile.gettempdir()).glob("coterie-*"))
    with pytest.raises(SourceError) as caught:
        read_log(path, **options)
    assert caught.value.line == line, str(caught.value)
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert set(Path(tempfile.gettempdir()).glob("coterie-*")) == before


@pytest.fixture(autouse=True)
def own_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that leftovers of this test, and of no other running beside it, are seen."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))


# MovieLens

MOVIELENS = {
    "ratings.csv": "userId,movieId,rating,timestamp\n1,31,2.5,1260759144\n2,10,4.0,835355493\n",
    "ratings.dat": "1::31::2.5::1260759144\n2::10::4::835355493\n",
    "u.data": "1\t31\t2.5\t1260759144\n2\t10\t4\t835355493\n",
}


@pytest.mark.parametrize("name", MOVIELENS)
@pytest.mark.parametrize("ends", ["\n", "\r\n"])
def test_movielens_reads_every_release_by_file_or_folder(
    tmp_path: Path, name: str, ends: str
) -> None:
    file = write(tmp_path / name, MOVIELENS[name].replace("\n", ends))
    expected = [(1, 31, 2.5, 1260759144, None), (2, 10, 4.0, 835355493, None)]
    assert rows(file) == rows(tmp_path) == rows(file, "movielens") == expected


def test_movielens_reads_gzip_and_skips_blank_lines(tmp_path: Path) -> None:
    content = MOVIELENS["u.data"].replace("\n2", "\n\n2")
    assert len(rows(write(tmp_path / "u.data.gz", gzip.compress(content.encode())))) == 2


def test_log_records_its_source_and_its_rows(tmp_path: Path) -> None:
    file = write(tmp_path / "u.data", MOVIELENS["u.data"])
    with read_log(file) as log:
        assert log.sources == [
            {"file": "u.data", "bytes": file.stat().st_size, "sha256": sha256(file)}
        ]
        assert (log.name, log.format, log.counts) == ("u.data", "movielens", {"rows_read": 2})
        assert log.has("timestamp")
        assert not log.has("part")


def test_log_closes_without_leaving_anything() -> None:
    with InteractionLog("hand-made", "table") as log:
        assert list(Path(tempfile.gettempdir()).glob("coterie-*"))
        log.connection.execute("INSERT INTO log VALUES (1, 2, 3, 4, 0)")
    assert not list(Path(tempfile.gettempdir()).glob("coterie-*"))


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ("3,7,5.5,1", "from 0.5 to 5"),
        ("3,7,0,1", "from 0.5 to 5"),
        ("3,7,-1,1", "from 0.5 to 5"),
        ("3,7,nan,1", "from 0.5 to 5"),
        ("3,7,inf,1", "from 0.5 to 5"),
        ("3,7,-inf,1", "from 0.5 to 5"),
        ("3,7,1e400,1", "from 0.5 to 5"),
        ("3,7,good,1", "from 0.5 to 5"),
        ("3,7,,1", "from 0.5 to 5"),
        ("3,7,4,", "seconds since 1970"),
        ("3,7,4,99999999999999", "seconds since 1970"),
        ("3,7,4,-5", "seconds since 1970"),
        (",7,4,1", "user id"),
        ("3,,4,1", "item id"),
        ("x,7,4,1", "user id"),
        ("3,7.5,4,1", "item id"),
        ("3,0x7,4,1", "item id"),
        ("3,99999999999999999999,4,1", "item id"),
        ("3,7,4", "same columns"),
        ("3,7,4,1,9", "same columns"),
        ("3", "same columns"),
    ],
)
@pytest.mark.parametrize("name", ["ratings.csv", "ratings.dat", "u.data"])
def test_movielens_names_the_line_of_a_bad_rating(
    tmp_path: Path, name: str, bad: str, words: str
) -> None:
    delimiter = {"ratings.csv": ",", "ratings.dat": "::", "u.data": "\t"}[name]
    # A blank line is no row: the line must be found in the file, not counted in the table.
    lines = (
        MOVIELENS[name]
        + "\n"
        + bad.replace(",", delimiter)
        + "\n"
        + MOVIELENS[name].splitlines()[-1]
        + "\n"
    )
    line = lines.split("\n").index(bad.replace(",", delimiter)) + 1
    refused(write(tmp_path / name, lines), line, words, f"{name}:{line}: ", "found")


def test_a_bad_line_deep_in_a_large_file_is_found(tmp_path: Path) -> None:
    lines = [f"{user},{user % 97},4.5,1000000000" for user in range(400_000)]
    position = random.Random(3).randrange(300_000, 400_000)
    for bad in ("5,5,9.5,1000000000", "5,5,4.5"):
        broken = [*lines[:position], bad, *lines[position:]]
        refused(
            write(
                tmp_path / "ratings.csv", "\n".join(["userId,movieId,rating,timestamp", *broken])
            ),
            position + 2,
            bad,
        )


def test_many_bad_lines_are_still_an_error(tmp_path: Path) -> None:
    refused(write(tmp_path / "u.data", "1\t2\t3\n" * 5000 + "1\t2\t3\t4\n"), 1, "same columns")


def test_movielens_lists_the_columns_it_found(tmp_path: Path) -> None:
    file = write(tmp_path / "ratings.csv", "user,movie,stars\n1,2,3\n")
    found = ("userId,movieId,rating,timestamp", "user,movie,stars")
    refused(file, 1, *found, format="movielens")
    # The name alone does not make it MovieLens: other columns are a table's.
    refused(file, 1, "'user_id', 'item_id'", "'user', 'movie', 'stars'", "name the columns")
    assert rows(file, user_column="user", item_column="movie") == [(1, 2, None, None, None)]


def test_a_file_that_is_not_utf8_is_refused_by_line(tmp_path: Path) -> None:
    refused(
        write(tmp_path / "u.data", MOVIELENS["u.data"].encode() + b"7\t\xff\xfe\t3\t1\n"),
        3,
        "UTF-8",
    )
    refused(write(tmp_path / "ratings.csv", MOVIELENS["ratings.csv"].encode("utf-16")), 1, "UTF-8")


def test_lines_that_end_unlike_each_other_are_refused(tmp_path: Path) -> None:
    refused(
        write(tmp_path / "ratings.csv", "userId,movieId,rating,timestamp\n1,2,3,4\r\n5,6,4,\r\n"),
        None,
        "end alike",
    )


def test_missing_and_empty_sources_are_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="must exist"):
        read_log(tmp_path / "nowhere.csv")
    refused(write(tmp_path / "ratings.csv", ""), 1, "header")
    refused(
        write(tmp_path / "ratings.csv", "userId,movieId,rating,timestamp\n"),
        None,
        "at least one interaction",
    )
    refused(write(tmp_path / "u.data", ""), None, "at least one interaction")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", None, "ratings.csv", format="movielens")
    refused(tmp_path / "empty", None, "combined_data", format="netflix")


def test_damaged_gzip_is_refused(tmp_path: Path) -> None:
    whole = gzip.compress(("1\t2\t3\t4\n" * 50_000).encode())
    refused(write(tmp_path / "cut" / "u.data.gz", whole[:-30]), None, "whole")
    refused(write(tmp_path / "no" / "u.data.gz", b"no gzip at all"), None, "whole")
    refused(
        write(tmp_path / "crc" / "u.data.gz", whole[:-8] + bytes(4) + whole[-4:]), None, "whole"
    )


# Netflix

COMBINED = "1:\n1488844,3,2005-09-06\n822109,5,2005-05-13\n2:\n885013,4,2005-10-19\n"
NETFLIX_ROWS = [
    (1488844, 1, 3.0, 1125964800, None),
    (822109, 1, 5.0, 1115942400, None),
    (885013, 2, 4.0, 1129680000, None),
]


def tar(path: Path, members: dict[str, str], mode: Literal["w", "w:gz"] = "w") -> Path:
    with tarfile.open(path, mode) as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content.encode()))
    return path


def movie_files() -> dict[str, str]:
    first, second = COMBINED.split("2:\n")
    return {"training_set/mv_0000001.txt": first, "training_set/mv_0000002.txt": "2:\n" + second}


def test_netflix_reads_combined_files_and_their_titles(tmp_path: Path) -> None:
    write(tmp_path / "combined_data_1.txt", COMBINED)
    write(tmp_path / "combined_data_2.txt", "3:\n1,1,2000-01-01")
    write(
        tmp_path / "movie_titles.csv",
        "1,2003,Dinosaur Planet\n2,NULL,Caf\xe9, the Sequel\n".encode("latin-1"),
    )
    with read_log(tmp_path) as log:
        assert log.connection.execute("SELECT * FROM log").fetchall() == [
            *NETFLIX_ROWS,
            (1, 3, 1.0, 946684800, None),
        ]
        assert log.titles == {"1": "Dinosaur Planet", "2": "Café, the Sequel"}
        assert [source["file"] for source in log.sources] == [
            "combined_data_1.txt",
            "combined_data_2.txt",
        ]
    assert rows(tmp_path / "combined_data_1.txt") == NETFLIX_ROWS


def test_netflix_reads_a_file_a_movie_from_folder_and_tar(tmp_path: Path) -> None:
    for name, content in movie_files().items():
        write(tmp_path / name, content)
    plain = tar(tmp_path / "training_set.tar", movie_files())
    packed = tar(tmp_path / "training_set.tar.gz", movie_files(), "w:gz")
    assert rows(tmp_path / "training_set") == rows(plain) == rows(packed) == NETFLIX_ROWS
    with read_log(tmp_path / "training_set") as log:
        assert log.sources[0]["file"] == "training_set/mv_*.txt (2 files)"
        assert log.sources[0]["bytes"] == len(COMBINED)
        assert len(log.sources) == 1


@pytest.mark.parametrize("block_bytes", [1, 7, 20, 64])
def test_netflix_blocks_may_end_anywhere(monkeypatch: pytest.MonkeyPatch, block_bytes: int) -> None:
    monkeypatch.setattr("coterie.data.netflix._BLOCK_BYTES", block_bytes)
    tables = list(parse_ratings(io.BytesIO(COMBINED.replace("\n", "\r\n").encode()), "a.txt"))
    parsed = pa.concat_tables(tables).to_pydict()
    assert list(zip(parsed["user_id"], parsed["item_id"], parsed["rating"], strict=True)) == [
        row[:3] for row in NETFLIX_ROWS
    ]


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (COMBINED + "3:\n7,6,2005-01-01\n", 7),
        (COMBINED + "3:\n7,0,2005-01-01\n", 7),
        (COMBINED + "7,4.5,2005-01-01\n", 6),
        (COMBINED + "7,4\n", 6),
        (COMBINED + "7,4,2005-13-01\n", 6),
        (COMBINED + "x,4,2005-01-01\n", 6),
        (COMBINED + ",4,2005-01-01\n", 6),
        (COMBINED + "7,nan,2005-01-01\n", 6),
        (COMBINED + "7,4,2005-01-01,9\n", 6),
        (COMBINED + "three:\n7,4,2005-01-01\n", 6),
        (COMBINED + "3:7,4,2005-01-01\n", 6),
        ("7,4,2005-01-01\n" + COMBINED, 1),
        (COMBINED + "7,4,\xff\n", 6),
    ],
)
def test_netflix_names_the_line_of_a_bad_rating(tmp_path: Path, content: str, line: int) -> None:
    refused(write(tmp_path / "combined_data_1.txt", content), line, "found")


@pytest.mark.parametrize(
    "name", ["/etc/mv_0000001.txt", "../mv_0000001.txt", "a/../../mv_0000001.txt"]
)
def test_netflix_refuses_a_tar_that_escapes(tmp_path: Path, name: str) -> None:
    refused(
        tar(tmp_path / "training_set.tar", {**movie_files(), name: "3:\n1,1,2000-01-01\n"}),
        None,
        "inside it",
        name,
    )


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
def test_netflix_refuses_a_tar_with_links(tmp_path: Path, kind: bytes) -> None:
    path = tmp_path / "training_set.tar"
    with tarfile.open(path, "w") as archive:
        info = tarfile.TarInfo("training_set/mv_0000001.txt")
        info.type, info.linkname = kind, "/etc/passwd"
        archive.addfile(info)
    refused(path, None, "link", format="netflix")


def test_netflix_refuses_a_damaged_tar(tmp_path: Path) -> None:
    whole = tar(tmp_path / "whole.tar", movie_files()).read_bytes()
    # After the first member: in its data, at the next header, in it, and before the end mark.
    for cut in (520, 1024, 1100, 2048):
        refused(write(tmp_path / f"{cut}" / "training_set.tar", whole[:cut]), None, "whole")
    refused(write(tmp_path / "no" / "training_set.tar", b"no tar" * 500), None, "whole")
    packed = tar(tmp_path / "whole.tar.gz", movie_files(), "w:gz").read_bytes()
    refused(write(tmp_path / "cut" / "training_set.tar.gz", packed[:-20]), None, "whole")


# Taste Profile

TRIPLETS = (
    "b80344d063b5\tSOAKIMP12A8C130995\t1\n"
    "b80344d063b5\tSOBBMDR12A8C13253B\t2\n"
    "85c1f87fea95\tSOAKIMP12A8C130995\t1\n"
)
TRIPLET_ROWS = [
    (*line.split("\t")[:2], float(line.split("\t")[2]), None, None)
    for line in TRIPLETS.splitlines()
]


def zipped(path: Path, members: dict[str, str]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content.encode("latin-1"))
    return path


def test_taste_profile_reads_plain_gzip_and_zip(tmp_path: Path) -> None:
    plain = write(tmp_path / "train_triplets.txt", TRIPLETS)
    packed = write(tmp_path / "train_triplets.txt.gz", gzip.compress(TRIPLETS.encode()))
    archive = zipped(
        tmp_path / "train_triplets.txt.zip", {"readme": "x", "data/train_triplets.txt": TRIPLETS}
    )
    assert rows(plain) == rows(packed) == rows(archive) == TRIPLET_ROWS


@pytest.mark.parametrize(
    "bad",
    [
        "u\ts\t0",
        "u\ts\t-1",
        "u\ts\tnan",
        "u\ts\tinf",
        "u\ts\tmany",
        "u\ts\t",
        "u\t\t1",
        "\ts\t1",
        "u\ts",
        "u\ts\t1\t1",
        "u\t\xff\t1",
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_taste_profile_names_the_line_of_a_bad_triplet(
    tmp_path: Path, bad: str, packed: bool
) -> None:
    content = TRIPLETS + bad + "\n" + TRIPLETS
    path = tmp_path / ("train_triplets.zip" if packed else "train_triplets.txt")
    refused(
        (
            zipped(path, {"train_triplets.txt": content})
            if packed
            else write(path, content.encode("latin-1"))
        ),
        4,
        "found",
    )


def test_taste_profile_refuses_bad_archives(tmp_path: Path) -> None:
    path = tmp_path / "train_triplets.zip"
    for name in ("../train_triplets.txt", "/train_triplets.txt", "C:\\train_triplets.txt"):
        refused(zipped(path, {name: TRIPLETS}), None, "inside it")
    refused(zipped(path, {"other.txt": TRIPLETS}), None, "train_triplets.txt", "other.txt")
    link = zipfile.ZipInfo("train_triplets.txt")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(link, "/etc/passwd")
    refused(path, None, "link")
    whole = zipped(path, {"train_triplets.txt": TRIPLETS * 100}).read_bytes()
    directory = whole.rindex(b"PK\x01\x02")
    encrypted = bytearray(whole)
    encrypted[6] |= 1
    encrypted[directory + 8] |= 1
    refused(write(path, bytes(encrypted)), None, "encrypted")
    refused(write(path, whole[:-40]), None, "whole")
    refused(write(path, whole[:60] + bytes(20) + whole[80:]), None, "whole")


# Adjacency


def test_adjacency_keeps_the_given_split_and_counts_users_without_items(tmp_path: Path) -> None:
    write(tmp_path / "train.txt", "0 5 6\n1 7\n2\n3 \n")
    write(tmp_path / "test.txt", "0 8\n1 \n")
    expected = [
        (0, 5, None, None, 0),
        (0, 6, None, None, 0),
        (1, 7, None, None, 0),
        (0, 8, None, None, 2),
    ]
    assert rows(tmp_path) == rows(tmp_path / "train.txt") == expected
    with read_log(tmp_path, "adjacency") as log:
        assert log.counts == {"rows_read": 4, "users_without_items": 3}


@pytest.mark.parametrize(
    "bad", ["4 x", "x 4", "4 5.5", "4 -1", "4,5", "4 99999999999999999999", "4 nan", "4 \xff"]
)
def test_adjacency_names_the_line_of_a_bad_user(tmp_path: Path, bad: str) -> None:
    write(tmp_path / "test.txt", "0 1\n")
    write(tmp_path / "train.txt", f"0 1\n\n1 2\n{bad}\n".encode("latin-1"))
    refused(tmp_path, 4, "train.txt:4: ", "found")


def test_adjacency_needs_both_files(tmp_path: Path) -> None:
    write(tmp_path / "train.txt", "0 1\n")
    refused(tmp_path, None, "test.txt", "add it", "not called train.txt")


def test_adjacency_of_another_name_has_no_split(tmp_path: Path) -> None:
    path = write(tmp_path / "likes.dat", "0 5 6\n1 7\n2\n")
    with read_log(path, "adjacency") as log:
        assert not log.has("part")
        assert log.counts == {"rows_read": 3, "users_without_items": 1}
    assert [row[:2] for row in rows(path, format="adjacency")] == [(0, 5), (0, 6), (1, 7)]


def test_adjacency_is_a_line_a_user(tmp_path: Path) -> None:
    """CiteULike's lines begin with a count, which made one user of all lines as long."""
    write(tmp_path / "test.txt", "2 1 5\n")
    write(tmp_path / "train.txt", "2 1 5\n\n3 4 5 6\n2 7 8\n")
    refused(tmp_path, 4, "found 2 first again, and 2 users in 3 lines", "put the user's number in")
    write(tmp_path / "train.txt", "7 1 5\n7 2 4\n")
    refused(tmp_path, 2, "found 7 first again", "are a table, its columns to be named")


# Tables


@pytest.mark.parametrize("delimiter", [",", "\t", ";", "|"])
def test_table_finds_delimiter_and_columns(tmp_path: Path, delimiter: str) -> None:
    text = (
        "when,item,score,user\n"
        '2020-01-01T02:00:00+02:00,"a,b",1.5,7\n'
        "1577836800,c,2,8\n"
        "2020-01-01,d,3,9\n"
    )
    lines = text.replace(",", delimiter).replace(f'"a{delimiter}b"', f'"a{delimiter}b"')
    found = rows(write(tmp_path / "log.csv", lines), **SCORES, timestamp_column="when")
    assert found == [
        (7, f"a{delimiter}b", 1.5, 1577836800, None),
        (8, "c", 2.0, 1577836800, None),
        (9, "d", 3.0, 1577836800, None),
    ]


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        (["1", "20", "-3"], [1, 20, -3]),
        (["1", "007"], ["1", "007"]),
        (["1", "2.0", "30.00"], [1, 2, 30]),
        (["1.0", "x"], ["1.0", "x"]),
        (["1.5", "2.0"], ["1.5", "2.0"]),
        (["1", "+2"], ["1", "+2"]),
        (["1", "-0"], ["1", "-0"]),
        (["1", "9" * 18], [1, int("9" * 18)]),
        (["1", "9" * 19], ["1", "9" * 19]),
        (["1", "x"], ["1", "x"]),
        (["NA", "Nullius"], ["NA", "Nullius"]),
        (["1", "NULL", "nan", "\\N", "  "], [1]),
        (["ä", "字"], ["ä", "字"]),
    ],
)
def test_table_ids_are_integers_only_if_all_are_written_so(
    tmp_path: Path, ids: list[str], expected: list[Any]
) -> None:
    file = write(
        tmp_path / "log.csv", "user_id,item_id\n" + "".join(f"{one},{one}\n" for one in ids)
    )
    assert [row[:2] for row in rows(file)] == [(one, one) for one in expected]


def test_table_drops_and_counts_rows_without_an_id(tmp_path: Path) -> None:
    file = write(tmp_path / "log.tsv", "user_id\titem_id\n1\t2\n\t3\n4\t\n5\t6\n")
    with read_log(file) as log:
        assert log.counts == {"rows_read": 4, "rows_without_id": 2}
        assert log.connection.execute("SELECT user_id FROM log").fetchall() == [(1,), (5,)]


@pytest.mark.parametrize(
    "bad",
    ["7,b,nan", "7,b,inf", "7,b,-1", "7,b,2e9", "7,b,", "7,b,good", "7,b", "7,b,1,1", "7,\xff,1"],
)
def test_table_names_the_line_of_a_bad_row(tmp_path: Path, bad: str) -> None:
    text = f'note,user,item,score\n"two\nlines",1,a,3\n\nx,{bad}\nx,2,c,4\n'
    refused(write(tmp_path / "log.csv", text.encode("latin-1")), 5, "found", **SCORES)


def test_table_refuses_an_open_quote_and_bad_headers(tmp_path: Path) -> None:
    refused(
        write(tmp_path / "log.csv", 'user,item,score\n1,a,3\n2,"b,4\n3,c,5\n'), 3, "found", **SCORES
    )
    refused(
        write(tmp_path / "log.csv", "user,thing,score\n1,a,3\n"),
        1,
        "'item'",
        "'user', 'thing', 'score'",
        **SCORES,
    )
    refused(
        write(tmp_path / "log.csv", "user,item,item,score\n1,a,b,3\n"), 1, "item again", **SCORES
    )


@pytest.mark.parametrize("kind", [pa.int32(), pa.int64(), pa.uint64(), pa.string()])
def test_table_keeps_the_types_of_parquet(tmp_path: Path, kind: pa.DataType) -> None:
    when = pa.array([np.datetime64("2020-01-01", "s"), np.datetime64("1970-01-02", "s")])
    pq.write_table(
        pa.table(
            {
                "user": pa.array([1, 2]).cast(kind),
                "item": ["007", "8"],
                "score": [1.5, 2.0],
                "when": when,
            }
        ),
        tmp_path / "a.parquet",
    )
    first, second = ("1", "2") if kind == pa.string() else (1, 2)
    expected = [(first, "007", 1.5, 1577836800, None), (second, "8", 2.0, 86400, None)]
    options: TableFields = {**SCORES, "timestamp_column": "when"}
    assert rows(tmp_path / "a.parquet", **options, timestamp_unit="s") == expected
    refused(tmp_path / "a.parquet", None, "row 2", "1980", **options)


def test_table_refuses_bad_parquet(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    for value in (float("nan"), float("inf"), -1.0, None):
        pq.write_table(pa.table({"user": [1, 2], "item": [1, 2], "score": [1.0, value]}), path)
        refused(path, None, "row 2", **SCORES)
    pq.write_table(pa.table({"user": [1.5], "item": [1], "score": [1.0]}), path)
    refused(path, None, "whole numbers", "1.5", **SCORES)
    pq.write_table(pa.table({"user": [[1]], "item": [1], "score": [1.0]}), path)
    refused(path, None, "BIGINT[]", "'user'", **SCORES)
    pq.write_table(
        pa.table({"user": pa.array([2**63], pa.uint64()), "item": [1], "score": [1.0]}), path
    )
    refused(path, None, "64 bits", **SCORES)
    pq.write_table(pa.table({"user": [1], "thing": [1], "score": [1.0]}), path)
    refused(path, None, "'item'", "'thing'", **SCORES)
    refused(write(path, path.read_bytes()[:-10]), None, "whole", **SCORES)


JSON_LINES = (
    '{"user": 7, "item": "a,b", "score": 1.5, "when": "2020-01-01T02:00:00+02:00", "more": {}}\n'
    "\n"
    '{"item": "c\\n字", "user": 8, "when": 1577836800, "score": "2"}\n'
    '{"user": null, "item": "d", "score": 3, "when": 0}\r\n'
    '{"item": "d", "score": 3, "when": 0}\n'
)


@pytest.mark.parametrize("name", ["a.jsonl", "a.ndjson", "a.jsonl.gz"])
def test_json_lines_are_a_table(tmp_path: Path, name: str) -> None:
    content = JSON_LINES.encode()
    path = write(tmp_path / name, gzip.compress(content) if name.endswith(".gz") else content)
    expected = [(7, "a,b", 1.5, 1577836800, None), (8, "c\n字", 2.0, 1577836800, None)]
    assert rows(path, **SCORES, timestamp_column="when", timestamp_unit="s") == expected
    with read_log(path, **SCORES) as log:
        assert log.counts == {"rows_read": 4, "rows_without_id": 2}


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(-(10**17), 10**17) | TEXT_IDS, TEXT_IDS, st.integers(0, 10**9)),
        min_size=1,
    )
)
def test_json_lines_bring_back_what_json_wrote(
    tmp_path_factory: pytest.TempPathFactory, table: list[tuple[int | str, str, int]]
) -> None:
    path = tmp_path_factory.mktemp("lines") / "a.jsonl"
    names = ("user", "item", "score")
    lines = (json.dumps(dict(zip(names, row, strict=True))) + "\n" for row in table)
    path.write_text("".join(lines), encoding="utf-8")
    found = [(str(user), str(item), score) for user, item, score, *_ in rows(path, **SCORES)]
    assert found == [(str(user), item, score) for user, item, score in table]


@pytest.mark.parametrize(
    "bad",
    [
        '{"user": 1, "item": 2, "score": 3',
        "[1, 2, 3]",
        "7",
        '{"user": 1.5, "item": 2, "score": 3}',
        '{"user": true, "item": 2, "score": 3}',
        '{"user": 1, "item": [2], "score": 3}',
        '{"user": 1, "item": {"id": 2}, "score": 3}',
        '{"user": 1, "item": 2, "score": -1}',
        '{"user": 1, "item": 2, "score": "NaN"}',
        '{"user": 1, "item": 2}',
        '{"user": "\xff", "item": 2, "score": 3}',
    ],
)
def test_json_lines_name_the_line_of_a_bad_row(tmp_path: Path, bad: str) -> None:
    good = '{"user": 1, "item": 2, "score": 3}\n'
    text = f"{good}\n{good}{bad}\n{good}"
    refused(write(tmp_path / "a.jsonl", text.encode("latin-1")), 4, "found", **SCORES)


def test_json_lines_need_their_fields(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", '{"user": 1, "thing": 2, "score": 3}\n')
    refused(path, 1, "'item'", "thing", **SCORES)
    refused(write(path, ""), None, "at least one interaction", **SCORES)


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz", ".parquet"])
def test_table_is_read_through_fsspec(suffix: str) -> None:
    content = b"user_id,item_id\nann,1\nbob,2\n"
    if suffix == ".parquet":
        sink = io.BytesIO()
        pq.write_table(pa.table({"user_id": ["ann", "bob"], "item_id": [1, 2]}), sink)
        content = sink.getvalue()
    memory = fsspec.filesystem("memory")
    memory.pipe(
        f"/coterie/log{suffix}", gzip.compress(content) if suffix.endswith(".gz") else content
    )
    assert [row[:2] for row in rows(f"memory://coterie/log{suffix}")] == [("ann", 1), ("bob", 2)]
    with pytest.raises(NotFoundError, match="must exist"):
        read_log("memory://coterie/nowhere.csv")
    memory.pipe("/coterie/bad.csv", b"user_id,item_id\nann,1\nbob\n")
    refused("memory://coterie/bad.csv", 3, "bob")


def test_table_paths_and_columns_may_hold_odd_characters(tmp_path: Path) -> None:
    file = write(
        tmp_path / "it's [1] *" / "a'b.csv",
        'the "user",item\'s\n1,2\n'.replace('the "user"', '"the ""user"""'),
    )
    assert rows(file, user_column='the "user"', item_column="item's") == [(1, 2, None, None, None)]


# Titles

TITLE_FILES: dict[str, tuple[bytes, dict[str, str]]] = {
    "movies.csv": (
        b'movieId,title,genres\n1,Toy Story (1995),Comedy\n2,"Women of \'69, Unboxed",Drama\n',
        {"1": "Toy Story (1995)", "2": "Women of '69, Unboxed"},
    ),
    "movies.dat": (
        "1::Toy Story (1995)::Comedy\n2::Misérables, Les (1995)::Drama\n".encode("latin-1"),
        {"1": "Toy Story (1995)", "2": "Misérables, Les (1995)"},
    ),
    "u.item": (
        "1|Toy Story (1995)|01-Jan-1995||x\n2|Misérables|y\n".encode("latin-1"),
        {"1": "Toy Story (1995)", "2": "Misérables"},
    ),
    "movie_titles.txt": (
        b"1,2003,Dinosaur Planet\n2,1999,One, Two, Three\n",
        {"1": "Dinosaur Planet", "2": "One, Two, Three"},
    ),
    "unique_tracks.txt": (
        "TR1<SEP>SO1<SEP>Björk<SEP>Jóga\nTR2<SEP>SO1<SEP>Other<SEP>Cut\n".encode(),
        {"SO1": "Björk – Jóga"},
    ),
    "names.tsv": (
        b"\xef\xbb\xbftitle\titem_id\nFirst\ta\n\nSecond\tb\n",
        {"a": "First", "b": "Second"},
    ),
}


@pytest.mark.parametrize("name", TITLE_FILES)
def test_titles_are_read_from_every_format(tmp_path: Path, name: str) -> None:
    content, expected = TITLE_FILES[name]
    assert read_titles(write(tmp_path / name, content)) == expected
    assert read_titles(write(tmp_path / f"{name}.gz", gzip.compress(content))) == expected


def test_titles_are_read_from_parquet(tmp_path: Path) -> None:
    pq.write_table(
        pa.table({"item_id": [7, None, 8], "title": ["Seven", "none", None]}),
        tmp_path / "a.parquet",
    )
    assert read_titles(tmp_path / "a.parquet") == {"7": "Seven"}


@pytest.mark.parametrize(
    ("name", "content", "line"),
    [
        ("movies.dat", b"1::One::x\n\n2,Two\n", 3),
        ("movie_titles.csv", b"1,2003\n", 1),
        ("unique_tracks.txt", b"a<SEP>b<SEP>c\n", 1),
        ("movies.csv", b"movieId,genres\n1,x\n", 1),
        ("movies.csv", b"movieId,title\n1,One\n2\n", 3),
        ("movies.csv", b"movieId,title\n1,One\n2,\xff\n", 3),
        ("movies.csv", b"movieId,title\n", None),
        ("movies.csv", b"", 1),
    ],
)
def test_titles_name_the_line_of_a_fault(
    tmp_path: Path, name: str, content: bytes, line: int | None
) -> None:
    with pytest.raises(SourceError) as caught:
        read_titles(write(tmp_path / name, content))
    assert caught.value.line == line


@pytest.mark.parametrize(
    ("ratings", "titles"),
    [("ratings.csv", "movies.csv"), ("ratings.dat", "movies.dat"), ("u.data", "u.item")],
)
def test_movielens_finds_titles_beside_it(tmp_path: Path, ratings: str, titles: str) -> None:
    write(tmp_path / ratings, MOVIELENS[ratings])
    write(tmp_path / titles, TITLE_FILES[titles][0])
    with read_log(tmp_path) as log:
        assert log.titles == TITLE_FILES[titles][1]


def test_titles_option_goes_with_any_format(tmp_path: Path) -> None:
    titles = write(tmp_path / "movies.dat", TITLE_FILES["movies.dat"][0])
    with read_log(
        write(tmp_path / "log.csv", "user_id,item_id\n1,2\n"), "table", titles=titles
    ) as log:
        assert log.titles == TITLE_FILES["movies.dat"][1]
    with pytest.raises(NotFoundError, match="must exist"):
        read_log(tmp_path / "log.csv", titles=tmp_path / "nowhere.csv")


# The door


def test_format_is_told_by_names(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="say it"):
        read_log(write(tmp_path / "log.bin", "1"))
    with pytest.raises(ConfigError, match="'spam'"):
        read_log(tmp_path / "log.bin", "spam")
    with pytest.raises(ConfigError, match="tables only"):
        read_log(write(tmp_path / "u.data", MOVIELENS["u.data"]), "movielens", user_column="user")
    assert rows(write(tmp_path / "other.csv", MOVIELENS["ratings.csv"]))[0][:2] == (1, 31)


# Real files


@pytest.mark.parametrize(
    ("name", "n_rows", "first"),
    [
        ("ml-100k_sample.data", 10_000, (196, 242, 3.0, 881250949, None)),
        ("ml-1m_sample.dat", 10_000, (1, 1193, 5.0, 978300760, None)),
        ("ml-10m_sample.dat", 10_000, (1, 122, 5.0, 838985046, None)),
        ("ml-25m_sample.csv", 9_999, (1, 296, 5.0, 1147880044, None)),
        (
            "msd_train_triplets_sample.csv",
            10_000,
            ("b80344d063b5ccb3212f76538f3d9e43d87dca9e", "SOAKIMP12A8C130995", 1.0, None, None),
        ),
    ],
)
def test_official_samples_are_read(name: str, n_rows: int, first: Row) -> None:
    found = rows(real("format-samples") / name)
    assert len(found) == n_rows
    assert found[0] == first


def test_ml_latest_small_is_read_whole() -> None:
    with read_log(real("ml-latest-small")) as log:
        assert log.counts["rows_read"] == 100_004
        assert log.one("SELECT count(DISTINCT user_id), count(DISTINCT item_id) FROM log") == (
            671,
            9_066,
        )
        assert log.titles is not None
        assert log.titles["164979"] == "Women of '69, Unboxed"


def test_gowalla_is_read_whole() -> None:
    with read_log(real("gowalla")) as log:
        assert log.one(
            "SELECT count(*) FILTER (part = 0), count(*) FILTER (part = 2) FROM log"
        ) == (810_128, 217_242)
        assert log.one("SELECT count(DISTINCT user_id), count(DISTINCT item_id) FROM log") == (
            29_858,
            40_981,
        )


def test_ml_1m_pairs_are_a_table_with_titles() -> None:
    folder = real("ml-1m")
    with read_log(
        folder / "pairs.csv.gz", "table", rating_column="liked", titles=folder / "movies.dat"
    ) as log:
        assert log.one("SELECT count(*), count(*) FILTER (rating = 1) FROM log") == (
            1_000_209,
            575_281,
        )
        assert log.titles is not None
        assert log.titles["3952"] == "Contender, The (2000)"


def test_reading_stops_cleanly_when_asked_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stop by Ctrl-C, too, must leave no temporary database."""

    def stop(path: Path, **_: str) -> Callable[[], None]:
        raise KeyboardInterrupt

    monkeypatch.setattr("coterie.data.read.read_titles", stop)
    with pytest.raises(KeyboardInterrupt):
        read_log(write(tmp_path / "u.data", MOVIELENS["u.data"]), titles="any.csv")
    assert not list(Path(tempfile.gettempdir()).glob("coterie-*"))
