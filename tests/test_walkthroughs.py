"""Tutorials and how-to pages, lived through: every command and example of a page in its order, in
one empty folder, and what it prints beside what the page says.
"""

import doctest
import os
import re
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from doc_blocks import DOCS, Block, Command, blocks, commands

PAGES = sorted(page for folder in ("tutorials", "how-to") for page in (DOCS / folder).glob("*.md"))
RunCoterie = Callable[..., int]

_NUMBER = re.compile(r"[-+−]?\d+\.\d+")
_NAME = re.compile(r"\b(?=[0-9a-f]*\d)[0-9a-f]{8,}\b")
"""Fingerprints, which differ where a processor rounds otherwise."""


_PIECES = re.compile(f"…|{_NAME.pattern}|{_NUMBER.pattern}")


def agree(told: str, printed: str) -> bool:
    """Whether the page tells what was printed: ``…`` stands for anything, blanks do not count,
    decimals may differ by a tenth or by .02, as processors round differently.
    """
    words = told.split()
    found = re.fullmatch(r"\s+".join(map(_as_pattern, words)), printed.strip(), re.DOTALL)
    if found is None:
        return False
    numbers = [one for word in words for one in _PIECES.findall(word) if _NUMBER.fullmatch(one)]
    pairs = zip(map(_value, numbers), map(_value, found.groups()), strict=True)
    return all(shown == pytest.approx(number, rel=0.1, abs=0.02) for number, shown in pairs)


def _value(text: str) -> float:
    return float(text.replace("−", "-"))


def _as_pattern(word: str) -> str:
    pattern, end = "", 0
    for found in _PIECES.finditer(word):
        pattern += re.escape(word[end : found.start()]) + _piece(found[0])
        end = found.end()
    return pattern + re.escape(word[end:])


def _piece(text: str) -> str:
    if text == "…":
        return ".*?"
    return f"({_NUMBER.pattern})" if _NUMBER.fullmatch(text) else "[0-9a-f]+"


class Agreement(doctest.OutputChecker):
    """Of examples in Python: as doctest has it, or as the command line's."""

    def check_output(self, want: str, got: str, optionflags: int) -> bool:
        return super().check_output(want, got, optionflags) or agree(want, got)


class Reader:
    """Does what a page says, as a reader at a terminal would."""

    def __init__(self, run_coterie: RunCoterie, capture: pytest.CaptureFixture[str]) -> None:
        self.run_coterie, self.capture = run_coterie, capture
        self.names: dict[str, object] = {}
        self.servers: list[subprocess.Popen[bytes]] = []
        self.port = str(_free_port())

    def do(self, block: Block) -> None:
        if block.title is not None:
            Path(block.title).parent.mkdir(parents=True, exist_ok=True)
            Path(block.title).write_text(block.text, encoding="utf-8")
        elif block.is_python:
            self.read_python(block)
        elif block.language == "console":
            for command in commands(block):
                self.run(block, command)

    def read_python(self, block: Block) -> None:
        options = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
        parsed = doctest.DocTestParser().get_doctest(
            block.text, self.names, str(block), str(block.page), block.line - 1
        )
        doctest.DebugRunner(Agreement(), optionflags=options).run(parsed, clear_globs=False)
        self.names |= parsed.globs

    def run(self, block: Block, command: Command) -> None:
        self.capture.readouterr()
        text = command.text.replace("8080", self.port)
        code, printed = self.run_line(text)
        assert code == command.exit_code, f"{block}: {command.text}\n{printed}"
        told = command.printed.replace("8080", self.port)
        assert not told or agree(told, printed), f"{block}: {command.text}\n{printed}"

    def run_line(self, text: str) -> tuple[int, str]:
        words = re.sub(r"  #.*$", "", text).strip()
        if words.endswith("&"):
            return self.serve(words.removesuffix("&").split())
        if words.startswith("coterie ") and not re.search(r"[|;<]", words):
            return self.run_verb(words)
        done = subprocess.run(
            ["bash", "-c", words], capture_output=True, text=True, check=False, env=_environment()
        )
        return done.returncode, done.stdout + ("" if done.returncode == 0 else done.stderr)

    def run_verb(self, words: str) -> tuple[int, str]:
        """In this process, where torch is loaded already; into a file, if the line says so."""
        words, _, target = words.partition(" > ")
        code = self.run_coterie(*shlex.split(words)[1:])
        printed = self.capture.readouterr()
        if target:
            Path(target).write_text(printed.out, encoding="utf-8")
            return code, ""
        errors = re.findall(r"^error: .*", printed.err, re.MULTILINE) if code else []
        return code, printed.out + "\n".join(errors)

    def serve(self, words: list[str]) -> tuple[int, str]:
        python = [sys.executable, "-m", "coterie.cli", *words[1:]]
        self.servers.append(subprocess.Popen(python, env=_environment()))
        for _ in range(300):
            if _answers(int(self.port)):
                return 0, ""
            time.sleep(0.1)
        return 1, "the server did not answer within 30 s"

    def leave(self) -> None:
        for server in self.servers:
            server.terminate()
            server.wait(30)


def _environment() -> dict[str, str]:
    """With the ``coterie`` of this Python first on the path."""
    folder = str(Path(sys.executable).parent)
    return os.environ | {"PATH": folder + os.pathsep + os.environ["PATH"]}


def _free_port() -> int:
    with closing(socket.socket()) as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _answers(port: int) -> bool:
    with closing(socket.socket()) as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def reader(
    run_coterie: RunCoterie,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Reader]:
    monkeypatch.chdir(tmp_path)
    one = Reader(run_coterie, capsys)
    yield one
    one.leave()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: f"{page.parent.name}/{page.stem}")
def test_a_page_does_what_it_says(page: Path, reader: Reader) -> None:
    for block in blocks(page):
        reader.do(block)


@pytest.mark.parametrize(
    ("told", "printed"),
    [("0.31  passed", "0.32 passed"), ("live 2026-W17-9adf84d6", "live 2026-W17-0011aa22"),
     ("a …\nz 3", "a b\n c\nz 3\n"), ("+1.3 %", "+1.4 %"), ("3,000 users", "3,000 users")],
)  # fmt: skip
def test_what_agrees(told: str, printed: str) -> None:
    assert agree(told, printed)


@pytest.mark.parametrize(
    ("told", "printed"),
    [("0.31  passed", "0.41 passed"), ("0.31 passed", "0.31 failed"), ("3 users", "4 users"),
     ("a …\nz 3", "a b\n c\nz 4"), ("live", "live 1"), ("+1.3 %", "-1.3 %")],
)  # fmt: skip
def test_what_does_not(told: str, printed: str) -> None:
    assert not agree(told, printed)


def test_a_page_that_is_wrong_is_found(reader: Reader, tmp_path: Path) -> None:
    page = DOCS / "index.md"
    wrong = [
        Block(page, 1, "console", None, "$ coterie config ease\nname = 3\n"),
        Block(page, 1, "console", None, "$ coterie show nowhere\n"),
        Block(page, 1, "console", None, "$ ls nowhere\n"),
        Block(page, 1, "python", None, ">>> 1 + 1\n3\n"),
    ]
    for block in wrong:
        with pytest.raises((AssertionError, doctest.DocTestFailure)):
            reader.do(block)
