"""The runbook says what is so: its tables hold every field, gate, warning and exit code.

``python tests/test_operations.py`` writes the tables of fields anew.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from pydantic.fields import FieldInfo

import coterie.errors
from coterie.errors import CoterieError
from coterie.experiment import EventSources
from coterie.jobs.config import GatesConfig, RowConfig, ServiceConfig, WatchConfig
from coterie.jobs.watching import warnings
from coterie.serving import Limits

PAGE = Path(__file__).parent.parent / "docs" / "operations.md"
SECTIONS = {
    name: field.annotation
    for name, field in ServiceConfig.model_fields.items()
    if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
} | {"rows": RowConfig, "serve.limits": Limits, "experiments.events": EventSources}
ELSEWHERE = {"model", "training"}
"""Sections of a run's configuration, which `coterie config` tells of."""


def table_of(section: type[BaseModel]) -> str:
    """Every field, its default as TOML writes it, and what it is."""
    lines = ["| field | default | |", "| --- | --- | --- |"]
    for name, field in plain_fields(section).items():
        lines.append(f"| `{name}` | {as_toml(field.default)} | {field.description} |")
    return "\n".join(lines)


def plain_fields(section: type[BaseModel]) -> dict[str, FieldInfo]:
    """All that are no section of their own."""
    fields = section.model_fields.items()
    return {name: field for name, field in fields if not isinstance(field.default, BaseModel)}


def as_toml(value: Any) -> str:
    return "absent" if value is None else f"`{json.dumps(value, ensure_ascii=False)}`"


def block(name: str, text: str) -> re.Match[str]:
    found = re.search(rf"<!-- {name} -->\n(.*?)\n<!-- /{name} -->", text, re.DOTALL)
    assert found is not None, name
    return found


def rows_of(heading: str) -> set[str]:
    """First cells of the table under a heading."""
    text = PAGE.read_text(encoding="utf-8").partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return {cell.strip(" `") for cell in re.findall(r"^\| ([^|]+) \|", text, re.MULTILINE)}


@pytest.mark.parametrize("section", SECTIONS)
def test_every_field_is_in_the_page_as_it_is(section: str) -> None:
    found = block(section, PAGE.read_text(encoding="utf-8"))
    assert found[1] == table_of(SECTIONS[section]), "python tests/test_operations.py writes it"


def test_every_section_is_in_the_page() -> None:
    plain = {"name", "start"}
    inner = {
        f"{name}.{field}"
        for name, section in SECTIONS.items()
        for field in set(section.model_fields) - set(plain_fields(section))
    }
    assert set(ServiceConfig.model_fields) | inner == set(SECTIONS) | ELSEWHERE | plain


def test_every_field_says_what_it_is() -> None:
    for section in SECTIONS.values():
        assert all(field.description for field in plain_fields(section).values()), section


def test_every_gate_is_explained() -> None:
    gates = {
        "volume", "known users", "known items", "live on new days", "live", "baselines",
        "last eight", "cohorts", "distinct", "coverage", "popularity", "turnover", "golden users",
    }  # fmt: skip
    assert gates <= rows_of("When a gate fails")
    assert len(GatesConfig.model_fields) == len(gates) + 1  # and the metric


def test_every_warning_is_explained() -> None:
    beyond = {
        "fallback_share": 1.0,
        "unknown_items": 1.0,
        "model_age_days": 99,
        "overlap": 0.0,
        "events_over_usual": 9.0,
    }
    said = {text.partition(":")[0] for text in warnings(WatchConfig(), beyond)}
    assert len(said) == len(beyond) == len(WatchConfig.model_fields)
    assert said <= rows_of("When something warns")


def kinds() -> Iterator[type[CoterieError]]:
    for one in vars(coterie.errors).values():
        if isinstance(one, type) and issubclass(one, CoterieError):
            yield one


def test_every_exit_code_is_explained() -> None:
    codes = {str(kind.exit_code) for kind in kinds()} | {"0", "130, 143"}
    assert codes <= rows_of("Exit codes")


def written_anew(text: str) -> str:
    """The page with its tables of fields as they are to be."""
    for name, section in SECTIONS.items():
        start, end = block(name, text).span(1)
        text = text[:start] + table_of(section) + text[end:]
    return text


if __name__ == "__main__":
    PAGE.write_text(written_anew(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
