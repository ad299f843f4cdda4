"""What every configuration is made of, and the values that tuning may give a field."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from coterie.errors import ConfigError

PositiveInt = Annotated[int, Field(ge=1)]


@dataclass(frozen=True)
class SearchRange:
    """Numbers to search between, both ends included; whole numbers where the field is whole.

    Args:
        low: The least.
        high: The greatest.
        log: Whether to search by order of magnitude.

    Raises:
        ConfigError: if the ends are not in order, or ``log`` and not above 0.

    Example:
        >>> str(SearchRange(0.05, 5, log=True)), 0.3 in SearchRange(0.05, 5)
        ('0.05..5:log', True)
    """

    low: float
    high: float
    log: bool = False

    def __post_init__(self) -> None:
        if not self.low < self.high or (self.log and self.low <= 0):
            raise ConfigError(
                "a range must rise, and start above 0 if searched by magnitude (log), found"
                f" {self}; change its ends."
            )

    @property
    def ends(self) -> tuple[float, float]:
        """What must be allowed for all between to be allowed."""
        return self.low, self.high

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high

    def __str__(self) -> str:
        low, high = (str(end).removesuffix(".0") for end in self.ends)
        return f"{low}..{high}" + (":log" if self.log else "")


@dataclass(frozen=True)
class SearchChoice:
    """Values to choose among, without an order.

    Args:
        values: JSON values, or tuples of them.

    Raises:
        ConfigError: if there are fewer than two.

    Example:
        >>> str(SearchChoice((100, 200, 500))), (600,) in SearchChoice(((), (600,)))
        ('100,200,500', True)
    """

    values: tuple[Any, ...]

    def __post_init__(self) -> None:
        if len(self.values) < 2:
            raise ConfigError(
                f"a choice must be among two values at least, found {self.values}; set a single one"
                " with --set."
            )

    @property
    def ends(self) -> tuple[Any, ...]:
        """What must be allowed: every value."""
        return self.values

    def __contains__(self, value: Any) -> bool:
        return json.dumps(value) in map(json.dumps, self.values)

    def __str__(self) -> str:
        return ",".join(map(json.dumps, self.values))


class StrictConfig(BaseModel):
    """A frozen value whose fields are all known: a misspelt or superfluous one is an error, never
    ignored.

    Raises:
        ConfigError: naming every unknown field and every value out of range.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=False, allow_inf_nan=False)

    SEARCH: ClassVar[Mapping[str, SearchRange | SearchChoice]] = {}
    """The fields that tuning searches, and where."""

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise ConfigError(explain(error)) from error

    # Says to pydantic that nothing but errors is different here. Otherwise it would call this for
    # every configuration inside another, whose first fault would then hide all others.
    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]


def explain(
    error: ValidationError, where: str = "`coterie config MODEL` describes every field."
) -> str:
    """What is wrong with a configuration, a line a field, and where to read of it."""
    faults = [
        f"{'.'.join(map(str, fault['loc'])) or 'configuration'}: {fault['msg']}, found"
        f" {fault['input']!r}"
        for fault in error.errors()
    ]
    return ";\n".join(faults) + f"; {where}"
