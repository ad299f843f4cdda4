"""How the reference reads our docstrings: examples are code, descriptions of fields are told."""

import ast
import re
from typing import Any

import griffe

_HEADING = re.compile(r"^( *)Example:$", re.MULTILINE)


class OurDocstrings(griffe.Extension):
    """Two habits of ours that Griffe does not know."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """``Example:`` becomes Google's ``Examples:``; any other heading is running text."""
        if obj.docstring is not None:
            obj.docstring.value = _HEADING.sub(r"\1Examples:", obj.docstring.value)

    def on_attribute_instance(self, *, attr: griffe.Attribute, **_: Any) -> None:
        """A configuration's field: its description, and its default alone as the value."""
        call = attr.value
        if isinstance(call, griffe.ExprCall) and str(call.function) == "Field":
            named = [one for one in call.arguments if isinstance(one, griffe.ExprKeyword)]
            plain = [one for one in call.arguments if one not in named]
            for one in named:
                if one.name == "description":
                    attr.docstring = griffe.Docstring(_text(one.value), parent=attr)
            attr.value = plain[0] if plain else None


def _text(value: Any) -> str:
    return str(ast.literal_eval(str(value)))
