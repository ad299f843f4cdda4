"""How the reference reads our docstrings: the examples of a section ``Example:`` are code."""

import re
from typing import Any

import griffe

_HEADING = re.compile(r"^( *)Example:$", re.MULTILINE)


class OurDocstrings(griffe.Extension):
    """Google's name of the section is ``Examples:``; any other is read as running text."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Renames the section of whatever has a docstring."""
        if obj.docstring is not None:
            obj.docstring.value = _HEADING.sub(r"\1Examples:", obj.docstring.value)
