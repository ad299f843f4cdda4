"""Who is in which arm: a salted hash of the user's id, the same in Python and in SQL.

Nothing is stored of a user. A layer's hash says where in the layer somebody is, an experiment has a
stretch of it, and a second hash, of the experiment's own salt, draws the arm. So a longer stretch
moves nobody, and experiments of two layers, or one after the other, are independent.

Hashes are whole numbers below 2³², and bounds are rounded to the same grid: no rounding differs
between languages.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Any, Literal, NamedTuple, Self, TypeAlias

import numpy as np

from coterie.data.ids import Id
from coterie.errors import ConflictError
from coterie.experiment.definition import Experiment

Dialect: TypeAlias = Literal["duckdb", "postgresql"]

_STEPS = 2**32


def bucket(salt: str, user_id: Id) -> float:
    """Where a user is among all: the first 32 bits of the MD5 of ``salt:user_id``, over 2³².

    Args:
        salt: Two salts put people in places that are independent of each other.
        user_id: A whole number and its text are the same user.

    Returns:
        In [0, 1).

    Example:
        >>> bucket("a", 7) == bucket("a", "7"), round(bucket("a", 7), 3), round(bucket("b", 7), 3)
        (True, 0.239, 0.675)
    """
    return float(buckets(salt, [user_id])[0])


def buckets(salt: str, user_ids: Iterable[Id]) -> np.ndarray:
    """``[n]`` float64, `bucket` of each user."""
    begun = hashlib.md5(f"{salt}:".encode(), usedforsecurity=False)
    found = np.frombuffer(b"".join(_digests(begun, user_ids)), dtype=">u4")
    return found.astype(np.float64) / _STEPS


def _digests(begun: Any, user_ids: Iterable[Id]) -> Iterable[bytes]:
    for user_id in user_ids:
        hashed = begun.copy()
        # What is not UTF-8 is nobody's id, yet may be asked for.
        hashed.update(str(user_id).encode("utf-8", "surrogatepass"))
        yield hashed.digest()[:4]


def bucket_sql(salt: str, column: str, dialect: Dialect) -> str:
    """SQL for the `bucket` of a column of user ids.

    Args:
        salt: As in `bucket`.
        column: SQL of the ids: whole numbers or text.
        dialect: Whose SQL.

    Example:
        >>> import duckdb
        >>> query = f"SELECT {bucket_sql('a', 'user_id', 'duckdb')} FROM (SELECT 7 AS user_id)"
        >>> duckdb.sql(query).fetchall()[0][0] == bucket("a", 7)
        True
    """
    digits = f"substr(md5({_literal(salt + ':')} || CAST({column} AS VARCHAR)), 1, 8)"
    number = {
        "duckdb": f"CAST(('0x' || {digits}) AS BIGINT)",
        "postgresql": f"CAST(CAST(('x' || {digits}) AS BIT(32)) AS BIGINT)",
    }[dialect]
    return f"(CAST({number} AS DOUBLE PRECISION) / {_number(_STEPS)})"


def _literal(text: str) -> str:
    # Not that of data.scan, which loads DuckDB: the server assigns, too.
    return "'" + text.replace("'", "''") + "'"


def _number(value: float) -> str:
    return f"CAST({value!r} AS DOUBLE PRECISION)"


def _on_grid(share: float) -> float:
    """The next bound that every language can compare a bucket with."""
    return round(share * _STEPS) / _STEPS


@dataclass(frozen=True)
class Holdout:
    """People who are in no experiment, so that all of them together can be judged.

    Args:
        share: Of all users.
        salt: Of the service.
    """

    share: float = 0.0
    salt: str = "holdout"

    def holds(self, user_ids: Sequence[Id]) -> np.ndarray:
        """``[n]`` bool."""
        if not self.share:
            return np.zeros(len(user_ids), dtype=bool)
        held: np.ndarray = buckets(self._salt, user_ids) < _on_grid(self.share)
        return held

    def sql(self, column: str, dialect: Dialect) -> str:
        """SQL of whether it holds a user."""
        return f"{bucket_sql(self._salt, column, dialect)} < {_number(_on_grid(self.share))}"

    @property
    def _salt(self) -> str:
        return f"holdout:{self.salt}"


@dataclass(frozen=True)
class Allocation:
    """All that decides who is in which arm of an experiment.

    Args:
        experiment: Its name.
        layer: Its layer's.
        salt: Of the arms' hash.
        first: Where in the layer its stretch begins.
        share: How long that is.
        weights: Of each arm; their order counts.
        holdout: Who is in no experiment.

    Example:
        >>> from dataclasses import replace
        >>> half = Allocation("new", "lists", "new", 0.0, 0.5, {"a": 1, "b": 1})
        >>> half.arms(range(1, 9))
        [None, 'a', None, None, 'b', 'a', 'a', 'a']
        >>> replace(half, share=1.0).arms(range(1, 9))
        ['a', 'a', 'a', 'a', 'b', 'a', 'a', 'a']
    """

    experiment: str
    layer: str
    salt: str
    first: float
    share: float
    weights: Mapping[str, float]
    holdout: Holdout = Holdout()

    @classmethod
    def of(cls, experiment: Experiment, holdout: Holdout = Holdout()) -> Self:
        """An experiment's."""
        one = experiment
        return cls(one.name, one.layer, one.salt, one.first, one.share, dict(one.weights), holdout)

    @classmethod
    def of_json(cls, told: Mapping[str, Any]) -> Self:
        """Reads what `to_json` gave; more fields than these do not matter."""
        return cls(
            told["experiment"],
            told["layer"],
            told["salt"],
            told["first"],
            told["share"],
            dict(told["weights"]),
            Holdout(**told["holdout"]),
        )

    def to_json(self) -> dict[str, Any]:
        """As JSON values; weights as pairs, as who sorts the names of a mapping would move
        people.
        """
        weights = [[arm, weight] for arm, weight in self.weights.items()]
        return {**vars(self), "weights": weights, "holdout": dict(vars(self.holdout))}

    @property
    def stretch(self) -> tuple[float, float]:
        """Where in the layer it begins and ends."""
        return _on_grid(self.first), _on_grid(self.first + self.share)

    def overlaps(self, other: "Allocation") -> bool:
        """Whether somebody could be in both and must not."""
        (start, stop), (other_start, other_stop) = self.stretch, other.stretch
        return self.layer == other.layer and start < other_stop and other_start < stop

    def codes(self, user_ids: Sequence[Id]) -> np.ndarray:
        """``[n]`` int64 number of each user's arm; -1 for those in none."""
        (start, stop), where = self.stretch, buckets(f"layer:{self.layer}", user_ids)
        drawn = np.searchsorted(self._ends, buckets(f"arm:{self.salt}", user_ids), side="right")
        inside = (start <= where) & (where < stop) & ~self.holdout.holds(user_ids)
        return np.where(inside, drawn, -1)

    def arms(self, user_ids: Sequence[Id]) -> list[str | None]:
        """The arm of each user; None for those in none."""
        names = [*self.weights, None]
        return [names[code] for code in self.codes(user_ids).tolist()]

    def sql(self, column: str, dialect: Dialect) -> str:
        """SQL of a user's arm, NULL for those in none.

        Args:
            column: SQL of the ids: whole numbers or text.
            dialect: Whose SQL.
        """
        (start, stop), where = self.stretch, bucket_sql(f"layer:{self.layer}", column, dialect)
        drawn = bucket_sql(f"arm:{self.salt}", column, dialect)
        outside = f"{where} < {_number(start)} OR {where} >= {_number(stop)}"
        held = f" OR {self.holdout.sql(column, dialect)}" if self.holdout.share else ""
        cases = [
            f"WHEN {drawn} < {_number(end)} THEN {_literal(arm)}"
            for arm, end in zip(self.weights, self._ends, strict=True)
        ]
        return f"CASE WHEN {outside}{held} THEN NULL {' '.join(cases)} END"

    @property
    def _ends(self) -> list[float]:
        total = sum(self.weights.values())
        ends = [_on_grid(end / total) for end in accumulate(self.weights.values())]
        return [*ends[:-1], 1.0]


class Assignment(NamedTuple):
    """The arm that a user is in."""

    experiment: str
    arm: str


class Assigner:
    """Says of users which arm of which experiment they are in, in each layer.

    Args:
        allocations: Of the experiments that run.

    Raises:
        ConflictError: if two of one layer overlap.

    Example:
        >>> whole = Allocation("new", "lists", "new", 0.0, 1.0, {"a": 1, "b": 1})
        >>> Assigner([whole]).arms([4, 5])
        {'lists': [Assignment(experiment='new', arm='a'), Assignment(experiment='new', arm='b')]}
    """

    def __init__(self, allocations: Iterable[Allocation]) -> None:
        self.allocations = tuple(allocations)
        for place, one in enumerate(self.allocations):
            for other in self.allocations[:place]:
                check_apart(one, other)

    @cached_property
    def layers(self) -> tuple[str, ...]:
        """Names, in order of first appearance."""
        return tuple(dict.fromkeys(one.layer for one in self.allocations))

    def choices(self, layer: str) -> list[Assignment]:
        """All that somebody can be in, in a layer."""
        of_layer = self._of(layer)
        return [Assignment(one.experiment, arm) for one in of_layer for arm in one.weights]

    def codes(self, layer: str, user_ids: Sequence[Id]) -> np.ndarray:
        """``[n]`` int64 place of each user's assignment among the `choices`; -1 for none."""
        found, before = np.full(len(user_ids), -1), 0
        for one in self._of(layer):
            codes = one.codes(user_ids)
            found = np.where(codes >= 0, codes + before, found)
            before += len(one.weights)
        return found

    def arms(self, user_ids: Sequence[Id]) -> dict[str, list[Assignment | None]]:
        """By layer the assignment of each user, None for those in no experiment."""
        found: dict[str, list[Assignment | None]] = {}
        for layer in self.layers:
            choices = [*self.choices(layer), None]
            found[layer] = [choices[code] for code in self.codes(layer, user_ids).tolist()]
        return found

    def _of(self, layer: str) -> list[Allocation]:
        return [one for one in self.allocations if one.layer == layer]


def assigner_of(facts: Mapping[str, Any]) -> Assigner:
    """Of a published edition: who is in which arm of the experiments that its facts tell of.

    Args:
        facts: The edition's, or those of a list that was found in it.

    Example:
        >>> assigner_of({"version": "2027-W02-0a1b2c3d"}).arms([7])
        {}
    """
    return Assigner(Allocation.of_json(one) for one in facts.get("experiments", ()))


def check_apart(one: Allocation, other: Allocation) -> None:
    """Checks that nobody can be in both.

    Raises:
        ConflictError: if they overlap in a layer.
    """
    if one.overlaps(other):
        raise ConflictError(
            f"{one.experiment}: running experiments of one layer must not overlap, found"
            f" {_told(one)} and {_told(other)} in {one.layer!r}; set first and share so that they"
            " do not, stop the other, or use another layer."
        )


def _told(one: Allocation) -> str:
    return f"{one.experiment} from {one.first:g} to {one.first + one.share:g}"
