"""Arms of experiments in the daily job: whose lists are of which version.

Each history is scored once, by the model of the arm that its user is in: users are divided before
anything is scored, by the version behind their arm; those in no experiment are the live model's.
"""

import json
import logging
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from coterie.config import RunConfig
from coterie.data.ids import IdMap
from coterie.errors import ConfigError, NotFoundError
from coterie.experiment import Arm, Assigner, Assignment, Experiments, Running
from coterie.experiment.definition import ERROR, LISTS, LIVE
from coterie.files import publish_file
from coterie.jobs.config import Service
from coterie.registry import Registry, Version

log = logging.getLogger(__name__)

Values: TypeAlias = Mapping[str, Any]
"""Of an arm's configuration."""


@dataclass(frozen=True)
class Part:
    """Users whose lists are of one version.

    Args:
        version: The model's.
        folder: Of their part of the day's work.
        histories: Their file.
    """

    version: Version
    folder: Path
    histories: Path


@dataclass(frozen=True, eq=False)
class Arms:
    """The experiments by whose arms a day's lists are.

    Args:
        service: The service.
        day: The lists are for it.
        live: The version of those in no experiment.
    """

    service: Service
    day: date
    live: Version

    @cached_property
    def running(self) -> list[Running]:
        """Experiments whose arms are models."""
        found = self.service.experiments.on(self.day)
        return [one for one in found if one.definition.layer == LISTS]

    @cached_property
    def versions(self) -> dict[Assignment, Version]:
        """Of every arm.

        Raises:
            NotFoundError: if an arm has none.
        """
        return {
            Assignment(one.name, arm.name): version_of(
                self.service, self.live, one.name, arm, one.configs.get(arm.name)
            )
            for one in self.running
            for arm in one.definition.arms
        }

    @cached_property
    def request(self) -> list[dict[str, Any]]:
        """What of them decides the lists; empty without an experiment. JSON values."""
        return [self._told(one, lambda _: {}) for one in self.running]

    def _told(
        self, running: Running, more: Callable[[Assignment], Mapping[str, Any]]
    ) -> dict[str, Any]:
        arms = {}
        for arm in running.definition.arms:
            place = Assignment(running.name, arm.name)
            version = self.versions[place]
            named = {"version": version.name, "model": version.card["fingerprint"]}
            arms[arm.name] = {**named, **more(place)}
        return {**running.allocation(self.day).to_json(), "arms": arms}

    def divided(self, histories: Path, folder: Path) -> list[Part]:
        """Everybody's histories as a file a version, that of the live one first; without an
        experiment the file as it is.

        Args:
            histories: A row a user: user_id, item_ids.
            folder: Of the day's work, which holds the parts; what is there stays.
        """
        if not self.running:
            return [Part(self.live, folder, histories)]
        parts = [
            Part(version, place, place / "histories.parquet")
            for version in self._distinct
            for place in [folder / ".arms" / version.name]
        ]
        if not all(part.histories.exists() for part in parts):
            self._divide(histories, parts)
        return [part for part in parts if pq.read_metadata(part.histories).num_rows]

    @cached_property
    def _distinct(self) -> list[Version]:
        found = {one.name: one for one in (self.live, *self.versions.values())}
        return list(found.values())

    def _divide(self, histories: Path, parts: list[Part]) -> None:
        with ExitStack() as stack, pq.ParquetFile(histories) as file:
            writers = []
            for part in parts:
                aside = stack.enter_context(publish_file(part.histories))
                writers.append(stack.enter_context(pq.ParquetWriter(aside, file.schema_arrow)))
            for batch in file.iter_batches():
                places = self._places(batch["user_id"])
                for number, writer in enumerate(writers):
                    writer.write_batch(batch.filter(pa.array(places == number)))

    def _places(self, users: pa.Array) -> np.ndarray:
        """``[n]`` number of each user's version among the distinct ones."""
        names = [version.name for version in self._distinct]
        choices = self._assigner.choices(LISTS)
        number = [*(names.index(self.versions[one].name) for one in choices), 0]
        found: np.ndarray = np.array(number)[self._assigner.codes(LISTS, users.to_pylist())]
        return found

    @cached_property
    def _assigner(self) -> Assigner:
        return Assigner(one.allocation(self.day) for one in self.running)

    def facts(
        self, lists: Iterable[pa.Table], items: IdMap, sizes: Mapping[str, int]
    ) -> list[dict[str, Any]]:
        """`request`, and of each arm how its lists look: users, share of them without a known
        item, share of the model's catalogue in somebody's list.

        Args:
            lists: Of one card row, as they are published.
            items: The catalogue of ``lists``.
            sizes: Of each version's own.
        """
        choices = self._assigner.choices(LISTS)
        tally = _Tally(len(choices), len(items))
        for table in lists:
            tally.add(self._assigner.codes(LISTS, table["user_id"].to_pylist()), table)

        def looks(place: Assignment) -> dict[str, Any]:
            number, size = choices.index(place), sizes.get(self.versions[place].name, 0)
            return tally.of(number, size)

        return [self._told(one, looks) for one in self.running]


class _Tally:
    def __init__(self, n_arms: int, n_items: int) -> None:
        self.users, self.strangers = np.zeros((2, n_arms), np.int64)
        self.shown = np.zeros((n_arms, n_items), dtype=bool)

    def add(self, codes: np.ndarray, table: pa.Table) -> None:
        """Counts some lists, ``[n]`` codes of whose users are given; -1 are in no arm."""
        inside, n_arms = codes >= 0, len(self.users)
        sources = table["source"].cast(pa.string())
        strange = pc.equal(sources, "popularity").to_numpy(zero_copy_only=False)
        self.users += np.bincount(codes[inside], minlength=n_arms)
        self.strangers += np.bincount(codes[inside & strange], minlength=n_arms)
        lengths = pc.list_value_length(table["items"]).to_numpy(zero_copy_only=False)
        of_item, item = np.repeat(codes, lengths), pc.list_flatten(table["items"]).to_numpy()
        self.shown[of_item[of_item >= 0], item[of_item >= 0]] = True

    def of(self, number: int, size: int) -> dict[str, Any]:
        """An arm's figures."""
        users, shown = int(self.users[number]), int(self.shown[number].sum())
        return {
            "users": users,
            "fallback_share": float(self.strangers[number]) / max(users, 1),
            "coverage": shown / size if size else None,
        }


def all_items(catalogues: Iterable[IdMap]) -> IdMap:
    """Several models' items: the first one's in its order, then what each further one adds."""
    first, *others = catalogues
    for one in others:
        new = one.values.filter(pa.array(first.index_of(one.values) < 0))
        if len(new):
            first = IdMap(pa.concat_arrays([first.values, new.cast(first.values.type)]))
    return first


def version_of(
    service: Service, live: Version | None, experiment: str, arm: Arm, config: Values | None
) -> Version:
    """The version behind an arm: the live one, the one that it names, or the newest that weekly
    trained of its configuration.

    Raises:
        NotFoundError: if there is none.
    """
    if arm.version == LIVE:
        if live is None:
            raise NotFoundError(f"{experiment}: a model must be live, none is; promote a version.")
        return live
    registry = Registry(service.registry)
    if arm.version is not None:
        return registry.version(arm.version)
    found = [one for one in registry.versions if config and one.card.get("arm") == config]
    if not found:
        raise NotFoundError(
            f"{experiment}: the arm {arm.name!r} must have a version of {arm.config}, none is"
            " registered; run coterie weekly, which trains it."
        )
    return found[-1]


def arm_configs(service: Service, day: date) -> list[Values]:
    """What weekly trains for the arms of experiments that have not ended on a day, each
    configuration once; also of those that have yet to start: they start when their models are
    there. A definition that is wrong is left out, with a warning.
    """
    found: dict[str, Values] = {}
    for name in service.experiments.defined:
        try:
            configs = _configs(service.experiments, name, day)
        except ConfigError as error:
            log.warning("experiment %s: its arms are not trained: %s", name, error)
            continue
        found |= {json.dumps(one, sort_keys=True): one for one in configs.values()}
    return list(found.values())


def _configs(experiments: Experiments, name: str, day: date) -> Mapping[str, Values]:
    started = {one.name: one for one in experiments.records}
    if name not in started:
        configs = experiments.configs(experiments.definition(name))
        for config in configs.values():
            RunConfig.of(config)
        return configs
    ended = started[name].ended
    return started[name].configs if ended is None or day < ended else {}


def start_experiment(service: Service, name: str, today: date) -> Running:
    """Starts an experiment whose arms all have their models.

    Raises:
        NotFoundError: if it is not defined, or an arm has no version.
        ConfigError: as `coterie.experiment.Experiments.start`; or if it is to be looked at before
            its end, and has no plan.
        ConflictError: likewise.
    """
    experiments = service.experiments
    definition, live = experiments.definition(name), Registry(service.registry).live
    if definition.looks.kind != "fixed" and ERROR not in definition.plan:
        raise ConfigError(
            f"{name}: looks before the end must know how much was planned, there is no {ERROR}"
            " under [plan]; run coterie experiment plan and keep what it says."
        )
    configs = experiments.configs(definition)
    for arm in definition.arms if definition.layer == LISTS else ():
        version_of(service, live, name, arm, configs.get(arm.name))
    return experiments.start(name, today)


def used_versions(service: Service) -> set[str]:
    """Names of versions that experiments need which have not ended."""
    live, found = Registry(service.registry).live, set()
    for one in service.experiments.records:
        if one.ended is None and one.definition.layer == LISTS:
            for arm in one.definition.arms:
                with suppress(NotFoundError):
                    config = one.configs.get(arm.name)
                    found.add(version_of(service, live, one.name, arm, config).name)
    return found
