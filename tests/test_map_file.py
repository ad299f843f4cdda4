"""The map's files, by bytes written by hand; who is in the map, and that people stay."""

import json
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ortho_group

from coterie.errors import ArtifactError
from coterie.lab.collaboration.people_map import (
    LatentPeople,
    cohorts_of,
    neighbours_kept,
    sample_of,
)
from coterie.map_file import NAMES, POINTS, Layout, MapFile


def a_map() -> MapFile:
    """Three people and a title in two layouts, the second without titles."""
    first = Layout("a", np.array([[0.5, -1.0], [2.0, 0.25], [0.0, 3.0]]), np.array([[9.0, 8.0]]))
    second = Layout("b", np.array([[1.0, 1.0], [2.0, 2.0], [3.0, 3.0]]), None, {"disparity": 0.5})
    return MapFile(
        ["x", "", "🦊"], np.array([3, 700, 12]), ["1-4", "5+"], np.array([0, 1, 1]),
        [first, second], [7], ["<b>"], {"of": 9},
    )  # fmt: skip


def test_bytes_are_as_the_page_reads_them(tmp_path: Path) -> None:
    """Read with struct alone, in the order that the module says."""
    a_map().write(tmp_path)
    content = (tmp_path / POINTS).read_bytes()
    assert content[:8] == b"COTMAP1\0"
    (length,) = struct.unpack_from("<I", content, 8)
    head = json.loads(content[12 : 12 + length])
    assert (head["users"], head["items"], head["cohorts"]) == (3, 1, ["1-4", "5+"])
    assert [(one["name"], one["has_items"]) for one in head["layouts"]] == [
        ("a", True),
        ("b", False),
    ]
    at = 12 + length
    assert at % 4 == 0
    floats = struct.unpack_from("<14f", content, at)
    assert floats == (0.5, -1, 2, 0.25, 0, 3, 9, 8, 1, 1, 2, 2, 3, 3)
    assert struct.unpack_from("<3I3B", content, at + 56) == (3, 700, 12, 0, 1, 1)
    assert len(content) == at + 56 + 12 + 3
    names = json.loads((tmp_path / NAMES).read_text(encoding="utf-8"))
    assert names == {"users": ["x", "", "🦊"], "items": [7], "titles": ["<b>"]}


def test_what_was_written_comes_back(tmp_path: Path) -> None:
    a_map().write(tmp_path)
    found = MapFile.read(tmp_path)
    assert found.to_bytes() == a_map().to_bytes()
    assert found.names() == a_map().names()


@pytest.mark.parametrize("damage", ["short", "names", "magic", "gone"])
def test_damage_is_an_error_that_says_what_to_do(damage: str, tmp_path: Path) -> None:
    a_map().write(tmp_path)
    path = tmp_path / POINTS
    content = path.read_bytes()
    if damage == "short":
        path.write_bytes(content[:-4])
    elif damage == "magic":
        path.write_bytes(b"x" + content[1:])
    elif damage == "gone":
        path.unlink()
    else:
        (tmp_path / NAMES).write_text('{"users": ["x"], "items": [], "titles": []}')
    with pytest.raises(ArtifactError, match="analyze anew"):
        MapFile.read(tmp_path)


@given(st.sets(st.text(max_size=4), max_size=40), st.sets(st.text(max_size=4), max_size=40))
def test_a_sample_keeps_its_people_when_others_come(here: set[str], new: set[str]) -> None:
    """Whoever is in next week's sample and was there is in this week's, too."""
    before, after = sorted(here), sorted(here | new)
    sampled = {before[at] for at in sample_of(before, 10)}
    later = {after[at] for at in sample_of(after, 10)}
    assert later & here <= sampled
    assert len(later) == min(10, len(after))


def test_cohorts_are_of_the_numbers_of_items() -> None:
    names, numbers = cohorts_of(np.array([3, 5, 10, 11, 101, 50]))
    assert [names[one] for one in numbers] == ["1-4", "5-10", "5-10", "11-50", "101+", "11-50"]


def latent(
    users: np.ndarray, items: np.ndarray, ids: list[int | str], turn: np.ndarray
) -> LatentPeople:
    """People whose latent space was turned."""
    points = [torch.tensor(one @ turn) for one in (users, items)]
    counts = np.full(len(ids), 20)
    return LatentPeople(ids, counts, points[0], [1, 2], [None, "two"], points[1], "alone")


def test_people_stay_where_they_were_when_the_latent_space_is_turned() -> None:
    """Mirrored, turned, scaled and shifted as a whole, with some people gone and some new."""
    rng = np.random.default_rng(1)
    users = rng.normal(size=(400, 8)) * np.array([5, 3, 1, 1, 0.5, 0.5, 0.2, 0.2])
    items, turn = rng.normal(size=(2, 8)), 0.3 * ortho_group.rvs(8, random_state=2)
    ids: list[int | str] = list(range(400))
    before = latent(users, items, ids, np.eye(8)).map("before", None, 400)
    again = latent(users, items, ids, turn).map("now", before, 400)
    np.testing.assert_allclose(again.layouts[0].users, before.layouts[0].users, atol=1e-6)
    assert again.layouts[0].items is not None
    assert before.layouts[0].items is not None
    np.testing.assert_allclose(again.layouts[0].items, before.layouts[0].items, atol=1e-6)
    assert again.layouts[0].facts["disparity"] < 1e-9
    unlaid = latent(users, items, ids, turn).map("now", None, 400).layouts[0].users
    assert np.abs(unlaid - before.layouts[0].users).max() > 1
    # Of another half and in another order, each still is near the own place: the plane is another.
    order = rng.permutation(400)[:300]
    half = latent(users[order], items, [ids[at] for at in order], turn).map("half", before, 400)
    moved = np.linalg.norm(half.layouts[0].users - before.layouts[0].users[order], axis=1)
    assert np.quantile(moved, 0.95) < 1 < np.linalg.norm(before.layouts[0].users, axis=1).mean()


def test_without_people_in_common_a_map_lies_by_itself() -> None:
    users, items = np.random.default_rng(1).normal(size=(30, 4)), np.zeros((2, 4))
    before = latent(users, items, list(range(30)), np.eye(4)).map("before", None, 30)
    others = latent(users, items, list(range(100, 130)), np.eye(4)).map("now", before, 30)
    assert "disparity" not in others.layouts[0].facts


def test_neighbours_are_kept_by_chance_alone_in_models_that_have_nothing_in_common() -> None:
    one, other = torch.randn((2, 400, 8), generator=torch.Generator().manual_seed(1))
    kept = neighbours_kept(one, other, 20)
    assert abs(kept.mean() - 20 / 399) < 0.01
    turn = torch.tensor(ortho_group.rvs(8, random_state=1), dtype=torch.float32)
    assert neighbours_kept(one, 5 * one @ turn, 20).mean() > 0.99
