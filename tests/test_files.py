"""Files and folders are published whole or not at all."""

import errno
import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import save_file

from coterie.errors import ArtifactError, CannotWriteError, ConflictError, DataError
from coterie.files import (
    _exchange,
    check_replaceable,
    check_writable,
    point,
    publish_file,
    publish_folder,
    read_manifest,
    recover,
    sha256,
    write_json,
    write_manifest,
)


def content(folder: Path) -> dict[str, str]:
    return {
        str(file.relative_to(folder)): file.read_text()
        for file in folder.rglob("*")
        if file.is_file()
    }


def fail_in_file(path: Path) -> None:
    with publish_file(path) as aside:
        aside.write_text("half")
        raise KeyboardInterrupt


def fail_in_folder(path: Path) -> None:
    with publish_folder(path, "old.txt") as aside:
        (aside / "new.txt").write_text("half")
        raise KeyboardInterrupt


def test_publish_file_makes_folders_and_replaces(tmp_path: Path) -> None:
    for text in ("one", "two"):
        with publish_file(tmp_path / "deep" / "a.txt") as aside:
            aside.write_text(text)
        assert content(tmp_path) == {"deep/a.txt": text}


def test_publish_file_leaves_nothing_of_a_failure(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("old")
    for name in ("a.txt", "b.txt"):
        with pytest.raises(KeyboardInterrupt):
            fail_in_file(tmp_path / name)
    assert content(tmp_path) == {"a.txt": "old"}


def test_publish_folder_replaces_the_whole_folder(tmp_path: Path) -> None:
    with publish_folder(tmp_path / "a") as aside:
        (aside / "old.txt").write_text("old")
    with publish_folder(tmp_path / "a", "old.txt") as aside:
        (aside / "new.txt").write_text("new")
    assert content(tmp_path) == {"a/new.txt": "new"}
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize(("mask", "folder", "file"), [(0o022, 0o755, 0o644), (0o077, 0o700, 0o600)])
def test_what_is_published_has_the_rights_of_new_files(
    mask: int, folder: int, file: int, tmp_path: Path
) -> None:
    before = os.umask(mask)
    try:
        with publish_folder(tmp_path / "a") as aside:
            save_file({"a": np.zeros(3)}, aside / "a.safetensors")
            write_manifest(aside, "test/1")
        with publish_file(tmp_path / "b.safetensors") as aside:
            save_file({"a": np.zeros(3)}, aside)
    finally:
        os.umask(before)
    found = {
        path.name: path.stat().st_mode & 0o777
        for path in [tmp_path / "a", *(tmp_path / "a").iterdir(), tmp_path / "b.safetensors"]
    }
    files = dict.fromkeys(("a.safetensors", "manifest.json", "b.safetensors"), file)
    assert found == {"a": folder, **files}


def test_publish_folder_leaves_nothing_of_a_failure(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "old.txt").write_text("old")
    for name in ("a", "b"):
        with pytest.raises(KeyboardInterrupt):
            fail_in_folder(tmp_path / name)
    assert content(tmp_path) == {"a/old.txt": "old"}
    assert [file.name for file in tmp_path.iterdir()] == ["a"]


def test_publish_folder_replaces_nothing_of_another_kind(tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("years of work")
    (tmp_path / "notes").write_text("a file")
    for name in ("thesis", "notes", "thesis/.."):
        with (
            pytest.raises(ConflictError, match="choose another"),
            publish_folder(tmp_path / name) as aside,
        ):
            (aside / "manifest.json").write_text("{}")
    assert content(tmp_path) == {"thesis/chapter.txt": "years of work", "notes": "a file"}
    (tmp_path / "empty").mkdir()
    with publish_folder(tmp_path / "empty") as aside:
        (aside / "manifest.json").write_text("{}")
    assert (tmp_path / "empty" / "manifest.json").exists()


def test_write_json_is_sorted_and_refuses_what_json_cannot_hold(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"b": "ü", "a": [1]})
    assert (tmp_path / "a.json").read_text(
        encoding="utf-8"
    ) == '{\n  "a": [\n    1\n  ],\n  "b": "ü"\n}\n'
    for bad in (float("nan"), {1, 2}):
        with pytest.raises((ValueError, TypeError)):
            write_json(tmp_path / "b.json", bad)
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]


def test_sha256_is_that_of_the_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 300_000)
    assert sha256(tmp_path / "a") == hashlib.sha256(b"x" * 300_000).hexdigest()


def test_manifest_holds_the_folder_to_its_word(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a")
    write_manifest(tmp_path, "test/1", note="n")
    assert read_manifest(tmp_path, "test/1")["note"] == "n"
    with pytest.raises(ArtifactError, match="schema must be 'test/2'"):
        read_manifest(tmp_path, "test/2")
    (tmp_path / "a.txt").write_text("b")
    with pytest.raises(ArtifactError, match="bytes differ"):
        read_manifest(tmp_path, "test/1")
    (tmp_path / "a.txt").unlink()
    with pytest.raises(ArtifactError, match="missing"):
        read_manifest(tmp_path, "test/1")


@pytest.mark.parametrize("text", ["", "[]", "{", '{"schema": "test/1"}', '{"files": {}}'])
def test_a_manifest_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(ArtifactError, match=r"manifest\.json"):
        read_manifest(tmp_path, "test/1")


def test_a_manifest_of_no_known_shape_is_refused_before_its_files_are_read(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text(
        json.dumps({"schema": "other/1", "files": {"gone.txt": "0"}})
    )
    with pytest.raises(ArtifactError, match="schema must be"):
        read_manifest(tmp_path, "test/1")


# What stands in the way, and what a crash leaves.


@contextmanager
def limited(size: int) -> Iterator[None]:
    """A disk on which no file may grow beyond ``size`` bytes, as far as this process sees."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


WRITERS: dict[str, Callable[[Path], Any]] = {
    "python": lambda path: path.write_bytes(bytes(100_000)),
    "rust": lambda path: save_file({"a": np.zeros(100_000)}, path),
    "arrow": lambda path: pq.write_table(
        pa.table({"a": np.random.default_rng(0).random(99_999)}), path
    ),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_no_room_is_one_error_whichever_library_met_it(writer: str, tmp_path: Path) -> None:
    (tmp_path / "a.data").write_text("old")
    with (
        pytest.raises(CannotWriteError, match=r"a\.data: must be in a folder.*file too large"),
        limited(10_000),
        publish_file(tmp_path / "a.data") as aside,
    ):
        WRITERS[writer](aside)
    with (
        pytest.raises(CannotWriteError, match=r"folder: must be in a folder.*file too large"),
        limited(10_000),
        publish_folder(tmp_path / "folder") as aside,
    ):
        WRITERS[writer](aside / "a.data")
    assert content(tmp_path) == {"a.data": "old"}


def test_an_error_that_is_not_about_room_stays_what_it_is(tmp_path: Path) -> None:
    for raised in (
        FileNotFoundError(2, "No such file", "input.csv"),
        ValueError("no"),
        DataError("x"),
    ):
        with pytest.raises(type(raised)) as caught, publish_file(tmp_path / "a.txt"):
            raise raised
        assert caught.value is raised
    assert not content(tmp_path)


def in_the_way(tmp_path: Path) -> list[Path]:
    (tmp_path / "file").write_text("a file")
    return [tmp_path / "file" / "a", tmp_path / "file" / "deep" / "a", tmp_path / ("n" * 300)]


def test_what_cannot_be_written_is_seen_before_and_at_the_end(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    paths = in_the_way(tmp_path)
    for path in paths:
        with pytest.raises(CannotWriteError):
            write_json(path, 1)
        with pytest.raises(CannotWriteError), publish_folder(path):
            pass
        with pytest.raises(CannotWriteError):
            check_replaceable(path, "manifest.json")
        with pytest.raises(CannotWriteError):
            check_writable(path, folder=True)
    for path in paths[:2]:
        with pytest.raises(CannotWriteError):
            check_writable(path, folder=False)
    with pytest.raises(CannotWriteError, match="is a directory"):
        write_json(tmp_path / "folder", 1)
    with pytest.raises(ConflictError, match="must be a file or new, found a folder"):
        check_writable(tmp_path / "folder", folder=False)
    with pytest.raises(ConflictError, match="must be a folder or new, found a file"):
        check_writable(tmp_path / "file", folder=True)
    assert content(tmp_path) == {"file": "a file"}


@pytest.mark.skipif(
    not Path("/proc/self").exists(), reason="needs a file system that takes no files"
)
def test_a_folder_that_takes_no_files_cannot_be_written(tmp_path: Path) -> None:
    for folder in (True, False):
        with pytest.raises(CannotWriteError, match=r"^/proc/coterie/a: must be in a folder"):
            check_writable(Path("/proc/coterie/a"), folder=folder)
    with pytest.raises(CannotWriteError):
        write_json(Path("/proc/coterie/a"), 1)


def test_check_writable_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "old").write_text("old")
    check_writable(tmp_path / "old", folder=False)
    for folder in (True, False):
        check_writable(tmp_path / "deep" / "er" / "new", folder=folder)
    check_replaceable(tmp_path / "deep" / "new", "manifest.json")
    check_writable(tmp_path, folder=True)
    assert [path.name for path in tmp_path.iterdir()] == ["old"]


def result(folder: Path, note: str) -> None:
    with publish_folder(folder) as aside:
        (aside / f"{note}.txt").write_text(note)
        write_manifest(aside, "test/1", note=note)


REPLACE = """
import os, signal, sys
from pathlib import Path
from coterie import files

path, exchange, dies_at = Path(sys.argv[1]), sys.argv[2] == "exchange", int(sys.argv[3])
if not exchange:
    files._exchange = lambda one, other: False
filled, missing, renames = False, 0, 0

def watch(event, args):
    global missing, renames
    missing += not os.path.lexists(path)
    if filled and event == "os.rename":
        renames += 1
        if renames == dies_at:
            os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(watch)
with files.publish_folder(path) as aside:
    (aside / "new.txt").write_text("new")
    files.write_manifest(aside, "test/1", note="new")
    filled = True
print(missing)
"""


def replace_in_child(path: Path, how: str, dies_at: int = -1) -> subprocess.CompletedProcess[str]:
    """Replaces a folder in another process, which may die when its n-th rename is about to be."""
    command = [sys.executable, "-c", REPLACE, str(path), how, str(dies_at)]
    return subprocess.run(command, check=False, capture_output=True, text=True)


def can_exchange(tmp_path: Path) -> bool:
    for name in "ab":
        (tmp_path / name).mkdir()
    able = _exchange(tmp_path / "a", tmp_path / "b")
    for name in "ab":
        (tmp_path / name).rmdir()
    return able


def test_there_is_a_folder_at_every_moment_where_two_can_be_exchanged(tmp_path: Path) -> None:
    if not can_exchange(tmp_path):
        pytest.skip("this disk cannot exchange two names")
    result(tmp_path / "a", "old")
    done = replace_in_child(tmp_path / "a", "exchange")
    assert (done.stdout, done.stderr) == ("0\n", "")
    # The watch does see a gap where there is one.
    done = replace_in_child(tmp_path / "a", "two steps")
    assert int(done.stdout) > 0, done.stderr
    assert content(tmp_path).keys() == {"a/new.txt", "a/manifest.json"}


@pytest.mark.parametrize("reader", ["reader", "writer"])
def test_a_kill_between_the_two_renames_loses_nothing(reader: str, tmp_path: Path) -> None:
    result(tmp_path / "a", "old")
    # The first rename is refused, as there is a folder; the second moves it aside.
    assert replace_in_child(tmp_path / "a", "two steps", dies_at=3).returncode == -signal.SIGKILL
    assert not (tmp_path / "a").exists()
    if reader == "reader":
        assert read_manifest(tmp_path / "a", "test/1")["note"] == "old"
        assert (tmp_path / "a" / "old.txt").read_text() == "old"
    else:
        result(tmp_path / "a", "newer")
        assert read_manifest(tmp_path / "a", "test/1")["note"] == "newer"
    assert not list(tmp_path.glob(".a.*.old"))


@pytest.mark.parametrize("how", ["exchange", "two steps"])
@pytest.mark.parametrize("dies_at", [1, 2])
def test_a_kill_before_the_folder_is_replaced_leaves_the_old_one(
    how: str, dies_at: int, tmp_path: Path
) -> None:
    able = can_exchange(tmp_path)
    result(tmp_path / "a", "old")
    done = replace_in_child(tmp_path / "a", how, dies_at)
    killed = done.returncode == -signal.SIGKILL
    assert killed == (how == "two steps" or dies_at == 1 or not able), done.stderr
    assert read_manifest(tmp_path / "a", "test/1")["note"] == ("old" if killed else "new")


def test_a_failure_between_the_two_renames_puts_the_old_folder_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result(tmp_path / "a", "old")
    replace = os.replace

    def fail(source: Path, target: Path) -> None:
        if Path(source).suffix == ".part" and Path(target).name == "a":
            raise OSError(errno.EIO, "Input/output error")
        replace(source, target)

    monkeypatch.setattr("coterie.files._exchange", lambda one, other: False)
    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(CannotWriteError, match="input/output error"):
        result(tmp_path / "a", "new")
    assert read_manifest(tmp_path / "a", "test/1")["note"] == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_recover_takes_names_as_they_are(tmp_path: Path) -> None:
    for name in ("a[1]", "a1", ".a1.x"):
        result(tmp_path / name, name)
    (tmp_path / "a1").rename(tmp_path / ".a1.0123.old")
    recover(tmp_path / "a[1]")
    recover(tmp_path / "none")
    assert not (tmp_path / "a1").exists()
    recover(tmp_path / "a1")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".a1.x", "a1", "a[1]"]


def test_point_replaces_links_and_nothing_else(tmp_path: Path) -> None:
    for version in "12":
        result(tmp_path / "versions" / version, version)
        point(tmp_path / "live", tmp_path / "versions" / version)
        assert read_manifest(tmp_path / "live", "test/1")["note"] == version
    assert str((tmp_path / "live").readlink()) == "versions/2"
    with pytest.raises(CannotWriteError, match="is a directory"):
        point(tmp_path / "versions" / "1", tmp_path / "versions" / "2")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["live", "versions"]


def test_unreadable_files_are_told_as_artifacts(tmp_path: Path) -> None:
    result(tmp_path / "a", "old")
    (tmp_path / "a" / "old.txt").unlink()
    (tmp_path / "a" / "old.txt").symlink_to("/proc/self/mem")
    with pytest.raises(ArtifactError, match="must be readable"):
        read_manifest(tmp_path / "a", "test/1")
    assert read_manifest(tmp_path / "a", "test/1", files=False)["note"] == "old"
