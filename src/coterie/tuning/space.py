"""What is searched: fields of a configuration, each with a range or some values, as text, checked,
and as Optuna knows it.

The ranges themselves stand beside the fields they are of, as ``SEARCH`` of each configuration;
those know no Optuna.
"""

import json
import re
import tomllib
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from coterie.config import RunConfig, overlay
from coterie.errors import ConfigError
from coterie.models.fields import SearchChoice, SearchRange, StrictConfig

if TYPE_CHECKING:
    import optuna

Space: TypeAlias = Mapping[str, SearchRange | SearchChoice]
"""From ``"model.pia"`` and its like to what may be tried."""

# What they are makes values comparable at all.
_NEVER = (".name", "training.metric")


def own_space(base: RunConfig) -> Space:
    """What the configuration's own classes say to search.

    Example:
        >>> {
        ...     key: str(tried)
        ...     for key, tried in own_space(RunConfig.of({"model": {"name": "ease"}})).items()
        ... }
        {'model.l2': '10..10000:log', 'model.popularity_exponent': '0..0.5'}
    """
    return {
        f"{name}.{field}": tried
        for name, part in _parts(base).items()
        for field, tried in part.SEARCH.items()
    }


def read_space(base: RunConfig, wanted: Sequence[str], fixed: Collection[str] = ()) -> Space:
    """The space of command line options.

    Args:
        base: The configuration that is varied.
        asked: ``KEY=LOW..HIGH``, ``KEY=LOW..HIGH:log``, ``KEY=VALUE,VALUE,…`` or ``KEY`` alone, for
            the model's own range; without any, all of the model's own space.
        fixed: Keys that keep the value of ``base``.

    Raises:
        ConfigError: if a text cannot be read, or a key is both fixed and searched.

    Example:
        >>> read_space(RunConfig(), ["model.pia=0.05..5:log", "model.latent_dim=64,128"])
        {'model.pia': SearchRange(low=0.05, high=5.0, log=True),
         'model.latent_dim': SearchChoice(values=(64, 128))}
    """
    own = own_space(base)
    if not wanted:
        return {key: tried for key, tried in own.items() if key not in fixed}
    space: dict[str, SearchRange | SearchChoice] = {}
    for text in wanted:
        key, equals, values = text.partition("=")
        if key in fixed:
            raise ConfigError(
                f"{key} must be either fixed (--set) or searched (--search), found both; leave one"
                " out."
            )
        kind = _kind(base, key)
        if not equals and key not in own:
            raise ConfigError(
                f"--search {key} needs values, as in {key}=1..10 or {key}=1,5: the model has no"
                " range of its own for it."
            )
        space[key] = _read(key, values, kind) if equals else own[key]
    return space


def _read(key: str, text: str, kind: Any) -> SearchRange | SearchChoice:
    if match := re.fullmatch(r"(.+?)\.\.(.+?)(:log)?", text):
        try:
            number = int if kind is int else float
            low, high = number(match[1]), number(match[2])
        except ValueError as error:
            raise ConfigError(
                f"--search {key}: a range must lie between numbers that the field takes, found"
                f" {text!r} ({error})."
            ) from error
        return SearchRange(low, high, log=match[3] is not None)
    try:
        return SearchChoice(tuple(tomllib.loads(f"values = [{text}]")["values"]))
    except tomllib.TOMLDecodeError:
        return SearchChoice(tuple(word.strip() for word in text.split(",")))


def check_space(base: RunConfig, space: Space) -> None:
    """Refuses a space before the first trial.

    Raises:
        ConfigError: if it is empty, a field is unknown, is not a number but has a range, or does
            not take an end of it.
    """
    if not space:
        raise ConfigError(
            f"tuning must have something to search, {base.model.name} has nothing left; name fields"
            " with --search."
        )
    for key, tried in space.items():
        if _kind(base, key) not in (int, float) and isinstance(tried, SearchRange):
            raise ConfigError(
                f"--search {key}: only numbers have a range, found {tried}; list values, as in"
                f" {key}=A,B."
            )
        for end in tried.ends:
            if fault := _refusal(base, space, {key: end}):
                raise ConfigError(
                    f"--search {key}={tried}: the field must take every value, {end} is refused:"
                    f" {fault}"
                )


def _refusal(base: RunConfig, space: Space, values: Mapping[str, Any]) -> ConfigError | None:
    """Why these values cannot be, whether the other fields are as in ``base`` or at either end:
    some need one another.
    """
    faults = []
    for others in ({}, *({key: tried.ends[at] for key, tried in space.items()} for at in (0, -1))):
        try:
            configured(base, {**others, **values})
        except ConfigError as error:
            faults.append(error)
        else:
            return None
    return faults[0]


def configured(base: RunConfig, values: Mapping[str, Any]) -> RunConfig:
    """``base`` with some fields changed.

    Raises:
        ConfigError: if the fields contradict one another.
    """
    return RunConfig.of(overlay(base.as_json(), values))


def base_in(space: Space, base: RunConfig) -> dict[str, Any]:
    """The values of ``base``, for Optuna, where they are in the space."""
    nested = base.as_json()
    found = {key: place[field] for key in space for place, field in [_place(nested, key)]}
    return {
        key: json.dumps(value) if isinstance(space[key], SearchChoice) else value
        for key, value in found.items()
        if value in space[key]
    }


def suggest(trial: "optuna.Trial", base: RunConfig, space: Space) -> dict[str, Any]:
    """The fields that Optuna chooses for a trial, or chose already.

    A choice is among the JSON of its values, so that lists can be chosen, too.
    """
    # In an order of their own, so that the same fields in another order are the same study.
    for key, tried in sorted(space.items()):
        if isinstance(tried, SearchChoice):
            trial.suggest_categorical(key, list(map(json.dumps, tried.values)))
        elif _kind(base, key) is int:
            trial.suggest_int(key, int(tried.low), int(tried.high), log=tried.log)
        else:
            trial.suggest_float(key, tried.low, tried.high, log=tried.log)
    return values_of(space, trial.params)


def values_of(space: Space, suggested: Mapping[str, Any]) -> dict[str, Any]:
    """What Optuna suggested, as fields of a configuration; numbers to four digits, for people to
    read.
    """
    return {key: _value(space[key], value) for key, value in suggested.items()}


def _value(tried: SearchRange | SearchChoice, suggested: Any) -> Any:
    if isinstance(tried, SearchChoice):
        return json.loads(suggested)
    if isinstance(suggested, int):
        return suggested
    return min(max(float(f"{suggested:.4g}"), tried.low), tried.high)


def _place(nested: dict[str, Any], key: str) -> tuple[dict[str, Any], str]:
    """The mapping that a key's last part is in, and that part."""
    *path, field = key.split(".")
    for step in path:
        nested = nested[step]
    return nested, field


def _parts(base: RunConfig) -> dict[str, StrictConfig]:
    """Every configuration within ``base``, by what its fields' keys begin with."""
    sections = (
        {"model": base.model}
        if base.network_free()
        else {"model": base.model, "training": base.training}
    )
    inner = {
        f"{name}.{field}": value
        for name, part in sections.items()
        for field, value in part
        if isinstance(value, StrictConfig)
    }
    return {**sections, **inner}


def _kind(base: RunConfig, key: str) -> Any:
    """The type of a field's values."""
    parts = _parts(base)
    fields = {
        f"{name}.{field}": about.annotation
        for name, part in parts.items()
        for field, about in type(part).model_fields.items()
    }
    known = [name for name in fields if name not in parts and not name.endswith(_NEVER)]
    if key not in known:
        section = key.partition(".")[0]
        near = [name for name in known if name.startswith(f"{section}.")] or known
        raise ConfigError(
            f"--search {key}: {base.model.name} has no such field to search; it has"
            f" {', '.join(near)}."
        )
    return fields[key]
