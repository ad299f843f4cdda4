"""The package's door, its rooms and its documentation, held by tests."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import coterie
from coterie.cli import app

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "coterie"

KNOWS = {
    "errors": set(),
    "extras": {"errors"},
    "fingerprints": set(),
    "files": {"errors"},
    "locks": {"errors", "files"},
    "plain_table": set(),
    "sparse": set(),
    "running": {"errors", "sparse"},
    "data": {"errors", "files"},
    "simulation": {"errors", "files", "data"},
    "objectives": {"errors", "sparse"},
    "models": {"errors", "sparse"},
    "config": {"errors", "models", "evaluation"},
    "recommend": {"errors", "files", "plain_table", "sparse", "data"},
    "stream": {"errors", "files", "data", "recommend"},
    "evaluation": {"errors", "files", "plain_table", "sparse", "data", "recommend"},
    "export": {"errors", "files", "models", "training"},
    "training": {
        "errors", "files", "fingerprints", "locks", "sparse", "running", "data", "objectives",
        "models", "config", "recommend", "evaluation",
    },
    "tuning": {
        "errors", "files", "locks", "plain_table", "running", "data", "models", "config",
        "evaluation", "training",
    },
}  # fmt: skip
"""The arrows of docs/architecture.md; lab and cli may know everything."""


def imports_of(path: Path) -> set[str]:
    """The rooms that a module imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = (
            [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else [a.name for a in node.names]
            if isinstance(node, ast.Import)
            else []
        )
        found |= {name.split(".")[1] for name in names if name.startswith("coterie.")}
    return found


@pytest.mark.parametrize("room", KNOWS)
def test_rooms_know_only_what_the_architecture_says(room: str) -> None:
    modules = (
        [SOURCE / f"{room}.py"]
        if (SOURCE / f"{room}.py").exists()
        else sorted((SOURCE / room).glob("*.py"))
    )
    assert modules
    for module in modules:
        assert imports_of(module) <= KNOWS[room] | {room}, module


def test_every_room_is_in_the_architecture() -> None:
    told = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    for path in SOURCE.iterdir():
        if path.suffix == ".py" and path.stem != "__init__":
            assert f"`{path.name}`" in told, path
        elif path.is_dir() and path.name != "__pycache__":
            assert f"`{path.name}/`" in told, path


def test_every_public_name_can_be_reached_and_is_documented() -> None:
    assert sorted(coterie.__all__) == sorted(coterie._HOME)
    for name in coterie.__all__:
        value = getattr(coterie, name)
        assert value.__doc__, name
        assert value.__module__ == f"coterie.{coterie._HOME[name]}", name


def test_unknown_public_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = coterie.no_such_name


def test_import_of_the_package_and_its_data_needs_no_torch() -> None:
    code = (
        "import sys, coterie; coterie.read_log; coterie.prepare; coterie.Dataset; assert 'torch'"
        " not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_verb_is_told_of_in_the_readme() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for group in app.registered_groups:
        assert group.typer_instance is not None
        for command in group.typer_instance.registered_commands:
            assert command.callback is not None
            assert f"coterie {command.callback.__name__}" in readme, command.callback.__name__


def test_every_page_is_in_the_site() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    for page in (ROOT / "docs").rglob("*.md"):
        assert str(page.relative_to(ROOT / "docs")) in navigation, page
