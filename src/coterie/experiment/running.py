"""Which experiments run: each has a record beside its definition, ``experiments/NAME.json``.

From its start on the record counts, not the definition: a file that is edited meanwhile moves
nobody. Only a larger share is taken over, by `Experiments.change`; all else is another experiment.
"""

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Self

from coterie.errors import ArtifactError, ConfigError, ConflictError, NotFoundError
from coterie.experiment.assignment import Allocation, Assigner, Holdout, check_apart
from coterie.experiment.definition import Experiment, read_experiment
from coterie.files import write_json
from coterie.locks import file_lock

SCHEMA = "coterie.experiment/1"
_LATER = frozenset({"share", "plan"})
"""What of a definition may be another once it runs."""


@dataclass(frozen=True)
class Running:
    """An experiment that was started.

    Args:
        definition: As it was agreed.
        started: The first day by its arms.
        ended: The first day that is so no longer; None while it runs.
        because: Why it was ended.
        shares: By the day from which it holds, the share of the layer's users, days rising.
        configs: Of arms that weekly trains, the values of their configurations.
        holdout: Who is in no experiment.
    """

    definition: Experiment
    started: date
    ended: date | None
    because: str | None
    shares: Mapping[date, float]
    configs: Mapping[str, Mapping[str, Any]]
    holdout: Holdout

    @property
    def name(self) -> str:
        """The experiment's."""
        return self.definition.name

    def runs_on(self, day: date) -> bool:
        """Whether a day's lists are by its arms."""
        return self.started <= day and (self.ended is None or day < self.ended)

    def runs_from(self, day: date) -> bool:
        """Whether it runs on a day or later."""
        return self.ended is None or max(day, self.started) < self.ended

    def day_number(self, day: date) -> int:
        """Which day of the experiment a date is, from 1; past the planned days it goes on."""
        return (day - self.started).days + 1

    def allocation(self, day: date) -> Allocation:
        """Who is in which arm on a day of it."""
        share = [share for since, share in self.shares.items() if since <= day][-1]
        return Allocation.of(self.definition.model_copy(update={"share": share}), self.holdout)

    @property
    def last_allocation(self) -> Allocation:
        """Who is in which arm with the largest share so far."""
        return self.allocation(max(self.shares))

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "schema": SCHEMA,
            "definition": self.definition.model_dump(mode="json"),
            "started": self.started.isoformat(),
            "ended": None if self.ended is None else self.ended.isoformat(),
            "because": self.because,
            "shares": {day.isoformat(): share for day, share in self.shares.items()},
            "configs": dict(self.configs),
            "holdout": dict(vars(self.holdout)),
        }

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> Self:
        """Reads what `to_json` gave."""
        ended = told["ended"]
        return cls(
            Experiment(**told["definition"]),
            date.fromisoformat(told["started"]),
            None if ended is None else date.fromisoformat(ended),
            told["because"],
            {date.fromisoformat(day): share for day, share in told["shares"].items()},
            told["configs"],
            Holdout(**told["holdout"]),
        )


class Experiments:
    r"""The experiments in a folder: definitions that people write, records that this writes.

    Two processes that start or stop wait for each other; reading waits for nobody.

    Args:
        folder: ``experiments`` of a service; it need not be there.
        holdout: Of the service, for those that are started from now on.

    Example:
        >>> import tempfile
        >>> folder = tempfile.TemporaryDirectory()
        >>> arms = "".join(f'[[arms]]\nname = "{n}"\nversion = "live"\n' for n in "ab")
        >>> _ = Path(folder.name, "aa.toml").write_text(f'days = 7\ncontrol = "a"\n{arms}')
        >>> experiments = Experiments(folder.name)
        >>> _ = experiments.start("aa", date(2027, 1, 18))
        >>> [one.name for one in experiments.on(date(2027, 1, 18))]
        ['aa']
        >>> experiments.stop("aa", date(2027, 1, 25), "as planned").ended.isoformat()
        '2027-01-25'
        >>> experiments.on(date(2027, 1, 25))
        []
        >>> folder.cleanup()
    """

    def __init__(self, folder: str | Path, holdout: Holdout | None = None) -> None:
        self.folder, self.holdout = Path(folder), Holdout() if holdout is None else holdout

    @property
    def defined(self) -> list[str]:
        """Names of all that are defined, sorted."""
        return sorted(path.stem for path in self.folder.glob("[!.]*.toml") if self._is_one(path))

    def _is_one(self, path: Path) -> bool:
        """Whether a file is an experiment's: arms' configurations lie beside it."""
        try:
            return "arms" in tomllib.loads(path.read_text(encoding="utf-8-sig"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError):
            return True

    def definition(self, name: str) -> Experiment:
        """What its file says now.

        Raises:
            NotFoundError: if there is none of that name.
            ConfigError: if a field is wrong.
        """
        return read_experiment(self.folder / f"{name}.toml")

    def configs(self, definition: Experiment) -> dict[str, Mapping[str, Any]]:
        """Of arms that weekly trains, what their files say now.

        Raises:
            ConfigError: if one cannot be read.
        """
        return {
            arm.name: _read_toml(self.folder / arm.config)
            for arm in definition.arms
            if arm.config is not None
        }

    @property
    def started(self) -> list[str]:
        """Names of all that were ever started, sorted; their records are not read."""
        return sorted(path.stem for path in self.folder.glob("[!.]*.json"))

    @property
    def records(self) -> list[Running]:
        """All that were ever started, by name.

        Raises:
            ArtifactError: if a record is damaged.
        """
        return [_read(path) for path in sorted(self.folder.glob("[!.]*.json"))]

    def record(self, name: str) -> Running:
        """One that was started.

        Raises:
            NotFoundError: if it was not.
            ArtifactError: if its record is damaged.
        """
        found = self._record(name)
        if found is None:
            there = ", ".join(one.name for one in self.records) or "none"
            raise NotFoundError(
                f"{name}: an experiment must have been started, it was not; there were: {there}."
            )
        return found

    def on(self, day: date) -> list[Running]:
        """Those by whose arms a day's lists are."""
        return [one for one in self.records if one.runs_on(day)]

    def assigner(self, day: date) -> Assigner:
        """Who is in which arm on a day."""
        return Assigner(one.allocation(day) for one in self.on(day))

    def start(self, name: str, today: date) -> Running:
        """Starts one as it is defined, on the day that it names or today.

        Raises:
            NotFoundError: if it is not defined.
            ConfigError: if its definition is wrong, or its first day is over.
            ConflictError: if it was started before, or overlaps with another that runs.
        """
        with self._alone():
            definition = self.definition(name)
            if self._record(name) is not None:
                raise ConflictError(
                    f"{name}: an experiment is started once, found its record; give a new one"
                    " another name, so that its users are drawn anew."
                )
            first = definition.start or today
            if first < today:
                raise ConfigError(
                    f"{name}: start must be {today} or later, found {first}: its lists were"
                    " published without it; correct it, or leave it out."
                )
            shares, configs = {first: definition.share}, self.configs(definition)
            found = Running(definition, first, None, None, shares, configs, self.holdout)
            return self._write_apart(found, first)

    def change(self, name: str, today: date) -> Running:
        """Takes over the larger share of a definition, from today on.

        Raises:
            NotFoundError: if it was not started.
            ConflictError: if it has ended, or would overlap with another.
            ConfigError: if anything but a larger share is new.
        """
        with self._alone():
            record, wanted = self._of_running(name, today), self.definition(name)
            _check_may_change(record, wanted, self.configs(wanted))
            since = max(today, record.started)
            shares = {day: share for day, share in record.shares.items() if day < since}
            shares[since] = wanted.share
            return self._write_apart(_with(record, definition=wanted, shares=shares), since)

    def stop(self, name: str, today: date, because: str) -> Running:
        """Ends one: today's lists, if they are published anew, and all later ones are without it.

        Raises:
            NotFoundError: if it was not started.
            ConflictError: if it has ended.
            ConfigError: if no reason is given.
        """
        if not because.strip():
            raise ConfigError(f"{name}: an end must have its reason, found none; say why.")
        with self._alone():
            record = self._of_running(name, today)
            return self._write(_with(record, ended=max(today, record.started), because=because))

    def _of_running(self, name: str, today: date) -> Running:
        record = self.record(name)
        if record.ended is not None:
            raise ConflictError(
                f"{name}: must be running on {today}, found it ended on {record.ended}; start"
                " another, under another name."
            )
        return record

    def _record(self, name: str) -> Running | None:
        path = self.folder / f"{name}.json"
        return _read(path) if path.is_file() else None

    def _write_apart(self, running: Running, since: date) -> Running:
        for other in self.records:
            if other.name != running.name and other.runs_from(since):
                check_apart(running.last_allocation, other.last_allocation)
        return self._write(running)

    def _write(self, running: Running) -> Running:
        write_json(self.folder / f"{running.name}.json", running.to_json())
        return running

    def _alone(self) -> Any:
        if not self.folder.is_dir():
            raise NotFoundError(
                f"{self.folder}: a folder of experiments must be there, none is; make it, and"
                " define one in it."
            )
        return file_lock(self.folder / ".lock")


def _with(running: Running, **changes: Any) -> Running:
    return Running(**{**vars(running), **changes})


def _check_may_change(
    record: Running, wanted: Experiment, configs: Mapping[str, Mapping[str, Any]]
) -> None:
    now, new = record.definition.model_dump(), wanted.model_dump()
    others = [name for name in now if name not in _LATER and now[name] != new[name]]
    others += ["config of " + arm for arm in configs if configs[arm] != record.configs.get(arm)]
    if wanted.share < record.definition.share:
        others.append(f"a share below {record.definition.share:g}")
    if others:
        raise ConfigError(
            f"{wanted.name}: only the share of a running experiment may change, and only rise,"
            f" found {', '.join(others)}; put it back, or stop this one and start another."
        )


def _read(path: Path) -> Running:
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        if told["schema"] != SCHEMA:
            raise ValueError(f"schema {told['schema']!r}")
        return Running.of(told)
    except (OSError, ValueError, KeyError, TypeError, ConfigError) as error:
        raise ArtifactError(
            f"{path}: must be the record of an experiment ({error}); restore it from a copy."
        ) from error


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        told = tomllib.loads(path.read_text(encoding="utf-8-sig"))
        # As it will be read from the record.
        return dict(json.loads(json.dumps(told)))
    except (OSError, TypeError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{path}: the configuration of an arm must be readable TOML ({error}); check config."
        ) from error
