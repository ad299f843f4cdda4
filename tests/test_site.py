"""The site, built as `make docs` builds it: strictly, with every public name, and asking nothing of
other machines.
"""

import html
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

import coterie

ROOT = Path(__file__).parent.parent
ROOMS = (
    "coterie", "coterie.experiment", "coterie.experiment.statistics", "coterie.store",
    "coterie.serving", "coterie.dashboard",
)  # fmt: skip
NOT_THERE = {"coterie.store.JSON"}
"""A name for `Any`."""


def public_names() -> set[str]:
    """Of every room whose door has some."""
    names = {f"{room}.{name}" for room in ROOMS for name in importlib.import_module(room).__all__}
    return names - NOT_THERE


def test_the_rooms_with_a_door_are_these() -> None:
    package = Path(coterie.__file__).parent
    doors = [path.parent for path in package.rglob("__init__.py") if "__all__" in path.read_text()]
    names = {".".join(("coterie", *door.relative_to(package).parts)) for door in doors}
    assert names == {*ROOMS, "coterie.cli"}


def test_every_public_name_is_on_one_page_of_the_reference() -> None:
    pages = sorted((ROOT / "docs" / "api").glob("*.md"))
    found = [
        name
        for page in pages
        for name in re.findall(r"^::: (\S+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    ]
    assert sorted(found) == sorted(public_names())


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site") / "site"
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


def test_pages_ask_nothing_of_other_machines(site: Path) -> None:
    """Links may lead away; scripts, styles, fonts and pictures may not."""
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 60
    for page in pages:
        text = page.read_text(encoding="utf-8")
        for tag in re.findall(r"<(?:script|link|img|iframe|source)\b[^>]*>", text):
            away = re.search(r'(?:src|href)="?(?:https?:)?//', tag)
            assert away is None or 'rel="canonical"' in tag, (page, tag)
    for style in site.rglob("*.css"):
        asked = re.findall(r"(?:@import|url\()[^)]*https?://", style.read_text(encoding="utf-8"))
        assert not [one for one in asked if not re.match(r"url\(['\"]?data:", one)]


def test_names_have_a_place_with_an_example(site: Path) -> None:
    text = "".join(page.read_text(encoding="utf-8") for page in (site / "api").glob("*.html"))
    for name in public_names():
        value = getattr(importlib.import_module(name.rpartition(".")[0]), name.rpartition(".")[2])
        assert f'id="{value.__module__}.{value.__qualname__}"' in text or f'id="{name}"' in text
    assert "&gt;&gt;&gt;" in text
    assert "<blockquote" not in text  # an example that was read as running text


def test_descriptions_of_fields_are_in_the_reference(site: Path) -> None:
    page = html.unescape((site / "api" / "models.html").read_text(encoding="utf-8"))
    shown = " ".join(re.sub(r"<[^>]+>", "", page).split())
    for config in (coterie.MultVAEConfig, coterie.EaseConfig, coterie.RecVAEConfig):
        for field in config.model_fields.values():
            assert field.description is None or field.description in shown


def test_the_search_index_is_a_file_of_the_site(site: Path) -> None:
    index = (site / "search" / "search_index.json").read_text(encoding="utf-8")
    for word in ("LinearPathVAEConfig", "rollback", "sharing radius"):
        assert word in index
