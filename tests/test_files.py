"""Files and folders are published whole or not at all."""

import hashlib
import json
from pathlib import Path

import pytest

from coterie.errors import ArtifactError, ConfigError
from coterie.files import (
    publish_file,
    publish_folder,
    read_manifest,
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
            pytest.raises(ConfigError, match="choose another"),
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
