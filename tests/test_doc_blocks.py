"""What the documentation tells people to type is what the programs take."""

import json
import re
import tomllib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import typer
from pydantic import BaseModel, TypeAdapter, ValidationError

from coterie.cli import app
from coterie.config import RunConfig
from coterie.dashboard.pages import PAGES as SCREENS
from coterie.errors import ConfigError
from coterie.experiment import Experiment
from coterie.jobs.config import ServiceConfig
from coterie.lab.reproduce.definition import Definition
from coterie.serving import create_app
from doc_blocks import COMMANDS, DOCS, PAGES, ROOT, Block, blocks, calls

DASHBOARD = 8081
BLOCKS = [block for page in PAGES for block in blocks(page)]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def in_language(*languages: str) -> list[Block]:
    return [block for block in BLOCKS if block.language in languages]


def parse(command: Any, words: list[str]) -> None:
    """As the command line would, but for what is looked up on disk."""
    if hasattr(command, "commands"):
        assert words[0] in command.commands, f"no verb {words[0]}"
        parse(command.commands[words[0]], words[1:])
        return
    for parameter in command.params:
        parameter.callback = None
    command.make_context(command.name, words)


def check_coterie(words: list[str]) -> None:
    parse(typer.main.get_command(app), words)


def check_torchrun(words: list[str]) -> None:
    check_coterie(words[words.index("coterie.cli") + 1 :])


def check_make(words: list[str]) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert re.search(rf"^{words[0]}:", makefile, re.MULTILINE)


def check_pip(words: list[str]) -> None:
    for extras in re.findall(r"(?:coterie|\.)\[([^]]+)\]", " ".join(words)):
        assert set(extras.split(",")) <= set(PROJECT["optional-dependencies"])


def check_python(words: list[str]) -> None:
    if words[0].endswith(".py"):
        assert (ROOT / words[0]).exists() or words[0] in titles()


def check_curl(words: list[str]) -> None:
    """A path that the API has, with parameters and fields that it knows."""
    if not (urls := [word for word in words if word.startswith("http")]):
        return
    path, query = urlsplit(urls[0]).path, urlsplit(urls[0]).query
    if urlsplit(urls[0]).port == DASHBOARD:
        assert path.removesuffix(".json") in {*SCREENS, "/today"}
        return
    api = the_api()
    (route,) = (one for one in api["paths"] if re.fullmatch(re.sub(r"{\w+}", "[^/]+", one), path))
    post = "-d" in words
    told = api["paths"][route]["post" if post else "get"]
    assert set(parse_qs(query)) <= {one["name"] for one in told.get("parameters", ())}
    if post:
        schema = told["requestBody"]["content"]["application/json"]["schema"]
        names = [one["$ref"].rpartition("/")[2] for one in schema["oneOf"]]
        body = set(json.loads(words[words.index("-d") + 1]))
        assert any(body <= set(api["components"]["schemas"][name]["properties"]) for name in names)


@cache
def the_api() -> dict[str, Any]:
    return create_app("sqlite:///nowhere/store", "nowhere/registry").openapi()


def titles() -> set[str]:
    return {block.title for block in BLOCKS if block.title is not None}


CHECKS: dict[str, Callable[[list[str]], None]] = {
    "coterie": check_coterie,
    "torchrun": check_torchrun,
    "make": check_make,
    "pip": check_pip,
    "python": check_python,
    "curl": check_curl,
}


@pytest.mark.parametrize("block", in_language("text", "console", "bash"), ids=str)
def test_commands_are_parsed(block: Block) -> None:
    for program, *words in calls(block):
        CHECKS[program](words)


WRONG = {
    "train data --ot x": "No such option",
    "train data --out x --epochs many": "valid integer",
    "train data": "Missing parameter",
    "trian data": "no verb trian",
}


@pytest.mark.parametrize("line", WRONG)
def test_parsing_finds_what_is_wrong(line: str) -> None:
    with pytest.raises(Exception, match=WRONG[line]):
        check_coterie(line.split())


@pytest.mark.parametrize(
    "line",
    ["pip install coterie[sevre]", "make tset", "python benchmarks/none.py",
     "curl http://here/recommendations/4?rows=main"],
)  # fmt: skip
def test_what_does_not_exist_is_found(line: str) -> None:
    program, *words = line.split()
    with pytest.raises(AssertionError):
        CHECKS[program](words)


def test_enough_was_parsed() -> None:
    found = [call[0] for block in BLOCKS for call in calls(block)]
    assert set(found) == set(COMMANDS) == set(CHECKS)
    assert found.count("coterie") > 100


def test_every_fence_is_a_block_of_a_known_language() -> None:
    """So that nothing escapes the tests by an indent or a misspelt word."""
    known = {"text", "console", "python", "pycon", "toml", "json", "sql"}
    for page in PAGES:
        fences = re.findall(r"^ *```", page.read_text(encoding="utf-8"), re.MULTILINE)
        found = list(blocks(page))
        assert len(fences) == 2 * len(found), page
        assert {block.language for block in found} <= known, page


MODELS: tuple[type[BaseModel], ...] = (RunConfig, ServiceConfig, Experiment, Definition)


def check_values(model: type[BaseModel], values: dict[str, Any]) -> None:
    """Each value, by the field of that name; what is left out has its default."""
    for name, value in values.items():
        kind: Any = model.model_fields[name].annotation
        TypeAdapter(kind).validate_python(value)


def takes(model: type[BaseModel], values: dict[str, Any]) -> bool:
    try:
        check_values(model, values)
    except (ValidationError, ConfigError, KeyError):
        return False
    return True


@pytest.mark.parametrize("block", in_language("toml"), ids=str)
def test_toml_is_read_by_the_real_configuration(block: Block) -> None:
    values = tomllib.loads(block.text)
    assert values
    assert any(takes(model, values) for model in MODELS)


def test_a_wrong_field_of_a_section_is_found() -> None:
    assert takes(ServiceConfig, {"prepare": {"window_days": 70}})
    assert not takes(ServiceConfig, {"prepare": {"windw_days": 70}})
    assert not takes(ServiceConfig, {"preprae": {"window_days": 70}})


def test_scripts_that_pages_show_are_where_they_say() -> None:
    assert all(not Path(title).is_absolute() for title in titles())
    assert (DOCS / "index.md").exists()
