"""README and documentation: widths, links, and the files that CONTRIBUTING names."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
PAGES += [page for page in sorted((ROOT / "docs").rglob("*.md")) if page.parent.name != "decisions"]
WIDTH = 100
NOT_YET = {"architecture.md"}  # it is being written anew


def prose(page: Path) -> Iterator[tuple[int, str]]:
    """Numbered lines outside of code, tables, comments and pictures."""
    in_code = False
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), start=1):
        in_code ^= line.startswith("```")
        if not in_code and not line.startswith(("```", "|", "<!--", "![")):
            yield number, line


@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if page.name not in NOT_YET],
    ids=lambda page: f"{page.parent.name}/{page.name}",
)
def test_prose_is_within_the_width(page: Path) -> None:
    long = [number for number, line in prose(page) if len(line) > WIDTH and " " in line.strip()]
    assert not long


@pytest.mark.parametrize(
    "page",
    [*PAGES, *(ROOT / "docs" / "decisions").glob("*.md")],
    ids=lambda page: f"{page.parent.name}/{page.name}",
)
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
        if not target.startswith(("http:", "https:")):
            assert (page.parent / target).exists(), target


def test_contributing_names_files_that_exist() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    named = re.findall(r"`((?:src|tests|docs)/[^`]+|README\.md)`", text)
    assert len(named) > 10
    for path in named:
        assert (ROOT / path).exists(), path


@pytest.mark.parametrize("what", ["metric", "reader", "model", "verb", "page"])
def test_contributing_counts_the_files_of_a_recipe(what: str) -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    found = re.search(rf"## Add a {what}: (\d+) files\n(.*?)\n## ", text, re.DOTALL)
    assert found is not None
    steps = re.findall(r"^\d+\. `", found[2], re.MULTILINE)
    assert len(steps) == int(found[1])
