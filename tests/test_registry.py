"""The registry: versions come whole, the pointer moves in one step, and a kill changes neither."""

import json
import shutil
import threading
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import count
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

from coterie.errors import ArtifactError, ConfigError, ConflictError, CoterieError, NotFoundError
from coterie.models.popularity import PopularityConfig
from coterie.registry import Move, Registry
from coterie.simulation.service import simulate_dataset
from coterie.training.artifact import read_model_manifest
from coterie.training.trained_model import TrainedModel
from coterie.training.trainer import train
from killing import forked


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved model."""
    data = simulate_dataset(n_users=60, n_items=20, held_out_users=5, seed=1)
    folder = tmp_path_factory.mktemp("model") / "model"
    train(data, PopularityConfig()).save(folder)
    return folder


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    """An empty one."""
    return Registry(tmp_path / "registry")


def register(registry: Registry, model: Path, *names: str, passed: bool = True) -> None:
    for name in names:
        registry.register(name, model, {"fingerprint": name}, passed=passed)


def live(registry: Registry) -> str | None:
    version = registry.live
    return None if version is None else version.name


def names(registry: Registry) -> list[str]:
    return [version.name for version in registry.versions]


def test_an_empty_registry_has_nothing_and_makes_nothing(registry: Registry) -> None:
    assert (registry.versions, registry.moves, registry.live) == ([], [], None)
    assert not registry.folder.exists()
    with pytest.raises(NotFoundError, match="there are: none"):
        registry.version("a")
    with pytest.raises(NotFoundError, match="live before, none was found"):
        registry.rollback(by="ann")
    assert registry.prune(3) == []


def test_a_version_is_a_copy_with_its_card(registry: Registry, model: Path) -> None:
    card = {"fingerprint": "f", "week": "2026-01-05"}
    version = registry.register("a", model, card, passed=True)
    assert (version.name, version.passed) == ("a", True)
    assert {**version.card, **card} == version.card
    for path in model.iterdir():
        assert (version.model / path.name).read_bytes() == path.read_bytes()
    assert TrainedModel.load(version.model).n_items == 20
    assert registry.version("a").card == version.card
    assert registry.live is None


def test_the_same_again_is_the_version_that_is_there(registry: Registry, model: Path) -> None:
    first = registry.register("a", model, {"fingerprint": "f"}, passed=True)
    before = {path: path.stat().st_mtime_ns for path in first.folder.rglob("*")}
    again = registry.register("a", model, {"fingerprint": "f", "more": 1}, passed=False)
    assert again.card == first.card
    assert {path: path.stat().st_mtime_ns for path in first.folder.rglob("*")} == before
    with pytest.raises(ConflictError, match="another model of that name"):
        registry.register("a", model, {"fingerprint": "g"}, passed=True)
    assert names(registry) == ["a"]


@pytest.mark.parametrize("name", ["", "..", ".a", "a/b", "../a", "a b", "é", "x" * 101, "a\n"])
def test_a_name_must_be_plain(registry: Registry, model: Path, name: str) -> None:
    for call in (
        lambda: registry.register(name, model, {}, passed=True),
        lambda: registry.version(name),
        lambda: registry.promote(name, by="ann"),
    ):
        with pytest.raises(ConfigError, match="a version's name must be"):
            call()
    assert names(registry) == []


def test_what_failed_becomes_live_only_by_force_and_with_a_reason(
    registry: Registry, model: Path
) -> None:
    card = {"fingerprint": "f", "failed": ["volume", "distinct"]}
    registry.register("bad", model, card, passed=False)
    with pytest.raises(ConfigError, match="volume, distinct"):
        registry.promote("bad", by="ann", because="I like it")
    for because in (None, "", "  "):
        with pytest.raises(ConfigError, match="must say why"):
            registry.promote("bad", by="ann", force=True, because=because)
    assert registry.live is None
    registry.promote("bad", by="ann", force=True, because="the log was mended")
    register(registry, model, "good")
    registry.promote("good", by="bob", force=True, because="to be sure")
    bad, good = registry.moves
    assert (bad.forced, bad.because, bad.by) == (True, "the log was mended", "ann")
    assert (good.forced, good.was, good.to) == (False, "bad", "good")


def test_promoting_the_live_one_notes_no_move(registry: Registry, model: Path) -> None:
    register(registry, model, "a")
    registry.promote("a", by="ann")
    assert registry.promote("a", by="bob").to == "a"
    assert [move.by for move in registry.moves] == ["ann"]


def test_rolling_back_twice_goes_two_steps_back(registry: Registry, model: Path) -> None:
    register(registry, model, "a", "b", "c")
    for name in "abc":
        registry.promote(name, by="ann")
    assert registry.rollback(by="bob", because="c is odd").to == "b"
    assert registry.rollback(by="bob").to == "a"
    with pytest.raises(NotFoundError, match="promote one by its name"):
        registry.rollback(by="bob")
    assert live(registry) == "a"
    registry.promote("c", by="ann")
    assert registry.rollback(by="bob").to == "a"
    kinds = [move.kind for move in registry.moves]
    assert kinds == ["promote"] * 3 + ["rollback"] * 2 + ["promote", "rollback"]
    assert [move.was for move in registry.moves] == [None, *"abcbac"]


def test_pruning_keeps_the_newest_the_live_one_and_the_one_before(
    registry: Registry, model: Path
) -> None:
    register(registry, model, *"abcdef")
    for name in "ba":
        registry.promote(name, by="ann")
    assert registry.prune(2) == ["c", "d"]
    assert names(registry) == ["a", "b", "e", "f"]
    assert registry.rollback(by="ann").to == "b"
    assert registry.prune(1) == ["a", "e"]
    assert registry.prune(1) == []
    assert names(registry) == ["b", "f"]
    with pytest.raises(NotFoundError):
        registry.rollback(by="ann")


def test_versions_are_sorted_by_age(registry: Registry, model: Path) -> None:
    for name, created in {"a": "2026-03-01", "b": "2026-01-01", "c": "2026-02-01"}.items():
        card = {"fingerprint": name, "created": created}
        registry.register(name, model, card, passed=True)
    assert names(registry) == ["b", "c", "a"]


@pytest.mark.parametrize(
    "text", ["", "[]", "{", "{}", '{"schema": "other", "moves": []}', "\ud800", "null"]
)
@pytest.mark.parametrize("which", ["live.json", "versions/a/card.json"])
def test_a_damaged_file_of_ours_is_our_error(
    registry: Registry, model: Path, which: str, text: str
) -> None:
    register(registry, model, "a")
    registry.promote("a", by="ann")
    path = registry.folder / which
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    with pytest.raises(ArtifactError, match=r"restore it from a copy") as raised:
        print(registry.live)
    assert str(path) in str(raised.value)


def test_a_pointer_without_moves_points_nowhere(registry: Registry) -> None:
    registry.folder.mkdir()
    (registry.folder / "live.json").write_text('{"schema": "coterie.live/1", "moves": []}')
    assert registry.live is None


def test_a_pointer_to_what_is_gone_says_so(registry: Registry, model: Path) -> None:
    register(registry, model, "a", "b")
    registry.promote("a", by="ann")
    shutil.rmtree(registry.folder / "versions" / "a")
    with pytest.raises(NotFoundError, match="there are: b"):
        print(registry.live)
    registry.promote("b", by="ann")
    assert live(registry) == "b"


def test_a_damaged_model_does_not_become_live(registry: Registry, model: Path) -> None:
    register(registry, model, "a", "b")
    registry.promote("a", by="ann")
    for path in list((registry.folder / "versions" / "b" / "model").iterdir()):
        whole = path.read_bytes()
        path.write_bytes(whole[:-1] + b"?" if whole else b"?")
        with pytest.raises(ArtifactError):
            registry.promote("b", by="ann")
        path.write_bytes(whole)
    assert live(registry) == "a"
    registry.promote("b", by="ann")


def test_a_model_that_is_not_there_registers_nothing(registry: Registry, tmp_path: Path) -> None:
    with pytest.raises((CoterieError, OSError)):
        registry.register("a", tmp_path / "none", {"fingerprint": "a"}, passed=True)
    assert names(registry) == []
    assert list((registry.folder / "versions").iterdir()) == []


def promote_in_turns(folder: Path, name: str, turns: int) -> None:
    registry = Registry(folder)
    for turn in range(turns):
        registry.promote(name, by=f"{name}{turn}")


def register_some(folder: Path, model: Path, first: int) -> None:
    register(Registry(folder), model, *(f"v{n}" for n in range(first, first + 6)))


def test_two_that_write_lose_nothing(registry: Registry, model: Path) -> None:
    """They register half the same, then move the pointer against each other."""
    with ProcessPoolExecutor(2, mp_context=get_context("fork")) as pool:
        list(pool.map(partial(register_some, registry.folder, model), (0, 3)))
        list(pool.map(partial(promote_in_turns, registry.folder, turns=20), ("v0", "v8")))
    assert sorted(names(registry)) == [f"v{n}" for n in range(9)]
    moves = registry.moves
    assert [move.was for move in moves] == [None, *(move.to for move in moves[:-1])]
    assert all(move.was != move.to for move in moves)


def test_a_reader_finds_a_whole_live_version_while_pointers_move(
    registry: Registry, model: Path
) -> None:
    register(registry, model, "a", "b")
    registry.promote("a", by="ann")
    ended = threading.Event()

    def move() -> None:
        for turn in range(60):
            promote_in_turns(registry.folder, "ba"[turn % 2], 1)
            register(registry, model, f"n{turn:03}")
            registry.prune(3)
        ended.set()

    writer = threading.Thread(target=move)
    writer.start()
    seen, looks = set(), 0
    while not ended.is_set():
        version = registry.live
        assert version is not None
        read_model_manifest(version.model)
        seen.add(version.name)
        looks += len(registry.versions) > 0
    writer.join()
    assert seen == {"a", "b"}
    assert looks > 10
    assert len(registry.moves) == 61


def test_a_kill_anywhere_in_register_leaves_the_version_whole_or_absent(
    registry: Registry, model: Path
) -> None:
    register(registry, model, "old")
    registry.promote("old", by="ann")
    for die_at in count():
        new = partial(register, registry, model, f"v{die_at}")
        ended = forked(new, die_at=die_at)
        for version in registry.versions:
            read_model_manifest(version.model)
        new()
        read_model_manifest(registry.version(f"v{die_at}").model)
        if ended:
            break
    assert die_at > 10
    assert len(names(registry)) == die_at + 2
    assert live(registry) == "old"
    register(registry, model, "last")
    assert left_over(registry) == []


def left_over(registry: Registry) -> list[str]:
    """What a kill left in the folder of versions."""
    found = (registry.folder / "versions").iterdir()
    return [path.name for path in found if path.name.startswith(".")]


def test_a_kill_anywhere_in_promote_leaves_the_old_or_the_new(
    registry: Registry, model: Path
) -> None:
    register(registry, model, "a", "b")
    registry.promote("a", by="ann")
    for die_at in count():
        old = live(registry)
        new, moves = ("b" if old == "a" else "a"), len(registry.moves)
        ended = forked(partial(registry.promote, new, by="kill"), die_at=die_at)
        assert live(registry) in ({new} if ended else {old, new})
        assert len(registry.moves) - moves == (live(registry) == new)
        registry.promote(new, by="again")
        assert live(registry) == new
        assert len(registry.moves) == moves + 1
        if ended:
            break
    assert die_at > 5


def test_a_kill_anywhere_in_prune_takes_versions_whole(registry: Registry, model: Path) -> None:
    register(registry, model, *"abcd")
    registry.promote("b", by="ann")
    for die_at in count():
        ended = forked(partial(registry.prune, 1), die_at=die_at)
        for version in registry.versions:
            read_model_manifest(version.model)
        assert live(registry) == "b"
        registry.prune(1)
        assert names(registry) == ["b", "d"]
        assert left_over(registry) == []
        if ended:
            break
        register(registry, model, "a", "c")
        shutil.rmtree(registry.folder / "versions" / "d")
        register(registry, model, "d")
    assert die_at > 5


def test_moves_are_kept_as_they_were_told(registry: Registry, model: Path) -> None:
    register(registry, model, "a")
    because = 'it is "fine" – ünïcode\n'
    registry.promote("a", by="ann", because=because)
    (move,) = registry.moves
    assert move == Move("a", None, move.time, "promote", "ann", because)
    told: dict[str, Any] = json.loads((registry.folder / "live.json").read_text(encoding="utf-8"))
    assert told["schema"] == "coterie.live/1"
    assert (registry.folder / "live.json").stat().st_mode & 0o777 == 0o644
