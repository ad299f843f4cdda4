"""The fenced blocks of README and documentation, and what the tests read in them.

``console``: what follows ``$`` is run, what follows that is what it printed. ``python`` with
``>>>`` is run. A block with a title is a file. Commands elsewhere are parsed by the real command
line.
"""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]

_FENCE = re.compile(
    r'^```(?P<language>\w*)(?: title="(?P<title>[^"]+)")?\n(?P<text>.*?)^```$',
    re.MULTILINE | re.DOTALL,
)
_JOINT = re.compile(r"(?:;|&&|\|)\s+(?:do\s+)?")
COMMANDS = ("coterie", "torchrun", "make", "pip", "python", "curl")


@dataclass(frozen=True)
class Block:
    """One fenced block; ``line`` is that of its first line of text."""

    page: Path
    line: int
    language: str
    title: str | None
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def is_python(self) -> bool:
        return self.language in ("python", "pycon") and ">>>" in self.text


@dataclass(frozen=True)
class Command:
    """What follows one ``$``: a shell's line, what it prints, how it ends."""

    text: str
    printed: str
    exit_code: int


def blocks(page: Path) -> Iterator[Block]:
    """All of a page, in order."""
    text = page.read_text(encoding="utf-8")
    for found in _FENCE.finditer(text):
        line = text.count("\n", 0, found.start("text")) + 1
        yield Block(page, line, found["language"], found["title"], found["text"])


def commands(block: Block) -> Iterator[Command]:
    """Those of a ``console`` block, each with what it prints."""
    for part in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
        lines = part.replace("\\\n", " ").split("\n", 1)
        code = re.search(r"  # exit code (\d+)$", lines[0])
        yield Command(lines[0], lines[1].strip("\n"), int(code[1]) if code else 0)


def calls(block: Block) -> Iterator[list[str]]:
    """The words of each call of a program that the tests know, comments and pipes cut off."""
    for line in block.text.replace("\\\n", " ").splitlines():
        for part in _JOINT.split(line.removeprefix("$ ")):
            if part.split(" ")[0] in COMMANDS:
                words = shlex.split(part, comments=True)
                yield words[: words.index(">")] if ">" in words else [w for w in words if w != "&"]
