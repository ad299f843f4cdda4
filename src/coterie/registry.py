"""Versions of a model on plain files, and which of them is live.

A version is a folder: the model, whole, and its card, which says where it comes from. The pointer
is one file, ``live.json``, replaced in one rename; it holds every earlier move, too, so that what
is live and how it came to be can never differ. Reading needs no torch.
"""

import json
import re
import shutil
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from coterie.errors import ArtifactError, ConfigError, ConflictError, NotFoundError
from coterie.files import local, publish_folder, write_json
from coterie.locks import file_lock
from coterie.training.artifact import read_model_manifest

CARD, POINTER = "card.json", "live.json"
SCHEMA, POINTER_SCHEMA = "coterie.version/1", "coterie.live/1"


@dataclass(frozen=True)
class Version:
    """A registered model.

    Args:
        name: Unique in its registry.
        folder: Where it lies; the model is its folder ``model``.
        card: Where it comes from, JSON values: ``fingerprint`` of the model, ``created``, and what
            whoever registered it said.
    """

    name: str
    folder: Path
    card: Mapping[str, Any]

    @property
    def model(self) -> Path:
        """The model's folder."""
        return self.folder / "model"

    @property
    def is_arm(self) -> bool:
        """Whether it was trained for an arm of an experiment: no candidate for being live."""
        return "arm" in self.card

    @property
    def passed(self) -> bool:
        """Whether it was registered as fit to be live."""
        return bool(self.card["passed"])


@dataclass(frozen=True)
class Move:
    """A move of the pointer.

    Args:
        to: The version that became live.
        was: The one before it; None if there was none.
        time: UTC, ISO 8601.
        kind: ``promote`` or ``rollback``.
        by: Who or what moved it.
        because: Why; of a forced move always given.
        forced: Whether the version had not passed its gates.
    """

    to: str
    was: str | None
    time: str
    kind: str
    by: str
    because: str | None = None
    forced: bool = False


class Registry:
    """The versions in a folder, which is made by the first one that is registered.

    Several processes may read while one writes; two that write wait for each other.

    Args:
        folder: Of the registry, on a local disk.

    Example:
        >>> import tempfile
        >>> from coterie.models.popularity import PopularityConfig
        >>> from coterie.simulation.service import simulate_dataset
        >>> from coterie.training.trainer import train
        >>> data = simulate_dataset(n_users=300, n_items=60, held_out_users=40, seed=1)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     model = train(data, PopularityConfig())
        ...     model.save(Path(folder) / "model")
        ...     registry = Registry(Path(folder) / "registry")
        ...     card = {"fingerprint": model.fingerprint}
        ...     version = registry.register("a", Path(folder) / "model", card, passed=True)
        ...     _ = registry.promote("a", by="ann")
        ...     print(registry.live.name, [move.kind for move in registry.moves])
        a ['promote']
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = local(folder)

    @property
    def versions(self) -> list[Version]:
        """All of them, oldest first."""
        return sorted(self._found(), key=lambda version: (version.card["created"], version.name))

    def version(self, name: str) -> Version:
        """One of them.

        Raises:
            NotFoundError: if there is none of that name.
            ArtifactError: if its card is damaged.
        """
        folder = self._versions / _checked(name)
        if not (folder / CARD).is_file():
            there = ", ".join(version.name for version in self.versions[-8:]) or "none"
            raise NotFoundError(
                f"{self.folder}: must hold the version asked for, {name!r} was not found; there"
                f" are: {there}."
            )
        return _read(folder)

    @property
    def moves(self) -> list[Move]:
        """Every move of the pointer, oldest first.

        Raises:
            ArtifactError: if the pointer is damaged.
        """
        path = self.folder / POINTER
        if not path.exists():
            return []
        try:
            told = json.loads(path.read_text(encoding="utf-8"))
            if told["schema"] != POINTER_SCHEMA:
                raise ValueError(f"schema {told['schema']!r}")
            return [Move(**move) for move in told["moves"]]
        except (ValueError, KeyError, TypeError) as error:
            raise ArtifactError(
                f"{path}: must be the pointer of a registry ({error}); restore it from a copy."
            ) from error

    @property
    def live(self) -> Version | None:
        """The version in use, None before the first."""
        moves = self.moves
        return self.version(moves[-1].to) if moves else None

    def register(
        self, name: str, model: str | Path, card: Mapping[str, Any], *, passed: bool
    ) -> Version:
        """Copies a model in, as a new version; nothing becomes live.

        Args:
            name: Of the version.
            model: A model's folder, which is left as it is.
            card: Where it comes from; JSON values, with the model's ``fingerprint``.
            passed: Whether it is fit to be live.

        Returns:
            The version. The same name and fingerprint again is the version that is there.

        Raises:
            ConfigError: if the name is no plain name.
            ConflictError: if the name is another model's.
        """
        folder = self._versions / _checked(name)
        with file_lock(self._lock()):
            if (folder / CARD).is_file():
                return self._same(name, card)
            self._sweep()
            created = datetime.now(UTC).isoformat(timespec="seconds")
            with publish_folder(folder, CARD) as aside:
                shutil.copytree(model, aside / "model")
                facts = {"created": created, "passed": passed, **card}
                write_json(aside / CARD, {"schema": SCHEMA, **facts})
        return _read(folder)

    def promote(
        self, name: str, *, by: str, force: bool = False, because: str | None = None
    ) -> Move:
        """Makes a version live.

        Args:
            name: Of the version; the live one stays so, and no move is noted.
            by: Who or what asks.
            force: Also one that did not pass.
            because: Why; with ``force`` needed. It is kept.

        Raises:
            NotFoundError: if there is none of that name.
            ConfigError: if it did not pass and is not forced, or is forced without a reason.
            ArtifactError: if a file of the model is damaged.
        """
        if force and not (because or "").strip():
            raise ConfigError("a forced promotion must say why; found no reason (--because).")
        _checked(name)
        with file_lock(self._lock()):
            version = self.version(name)
            if not (version.passed or force):
                raise ConfigError(
                    f"{name}: must have passed its gates to be promoted, found"
                    f" {', '.join(version.card.get('failed', ())) or 'that it did not'}; train"
                    ' anew, or promote --force --because "…".'
                )
            return self._move(version, "promote", by, because, forced=force and not version.passed)

    def rollback(self, *, by: str, because: str | None = None) -> Move:
        """Makes the version live that was so before the one that is.

        Raises:
            NotFoundError: if there is none, or it is no longer kept.
        """
        with file_lock(self._lock()):
            names = self.lived
            if len(names) < 2:
                raise NotFoundError(
                    f"{self.folder}: must hold a version that was live before, none was found;"
                    " promote one by its name."
                )
            return self._move(self.version(names[-2]), "rollback", by, because)

    def prune(self, keep: int, needed: Collection[str] = ()) -> list[str]:
        """Removes the oldest versions but ``keep``, never the live one or the one before it. An
        arm's is not counted: it goes with the candidates of its time.

        Args:
            keep: How many stay.
            needed: Names of further ones that stay.

        Returns:
            The names that went.
        """
        with file_lock(self._lock()):
            stay = {*self.lived[-2:], *needed}
            gone = [version for version in self._old(keep) if version.name not in stay]
            for version in gone:
                # Renamed first: a reader finds it whole, or not at all.
                version.folder.rename(version.folder.with_name(f".{version.name}.part"))
            self._sweep()
        return [version.name for version in gone]

    def _old(self, keep: int) -> list[Version]:
        """All before the last ``keep`` candidates."""
        versions = self.versions
        if not keep:
            return versions
        candidates = [version for version in versions if not version.is_arm]
        return versions[: versions.index(candidates[-keep])] if len(candidates) > keep else []

    @property
    def lived(self) -> list[str]:
        """Names of what was live, oldest first, as if what was rolled back had never been."""
        lived: list[str] = []
        for move in self.moves:
            if move.kind == "rollback" and move.to in lived:
                del lived[lived.index(move.to) + 1 :]
            elif [move.to] != lived[-1:]:
                lived.append(move.to)
        return lived

    def _move(
        self, version: Version, kind: str, by: str, because: str | None, *, forced: bool = False
    ) -> Move:
        """Under the lock, so that what it points to is not pruned meanwhile."""
        read_model_manifest(version.model)
        self._sweep()
        moves = self.moves
        was = moves[-1].to if moves else None
        now = datetime.now(UTC).isoformat(timespec="seconds")
        move = Move(version.name, was, now, kind, by, because, forced)
        if was != version.name:
            told = [asdict(one) for one in [*moves, move]]
            write_json(self.folder / POINTER, {"schema": POINTER_SCHEMA, "moves": told})
        return move

    def _found(self) -> Iterator[Version]:
        for card in self._versions.glob(f"[!.]*/{CARD}"):
            try:
                yield _read(card.parent)
            except ArtifactError:
                # One that was pruned between two looks is not damaged.
                if card.exists():
                    raise

    def _sweep(self) -> None:
        """Under the lock: removes what was pruned, and what a kill left half-written."""
        for aside in [*self._versions.glob(".*.part"), *self.folder.glob(".live.*.part.json")]:
            if aside.is_dir():
                shutil.rmtree(aside, ignore_errors=True)
            else:
                aside.unlink(missing_ok=True)

    def _same(self, name: str, card: Mapping[str, Any]) -> Version:
        there = self.version(name)
        if there.card.get("fingerprint") != card.get("fingerprint"):
            raise ConflictError(
                f"{name}: a version's name must be new, found another model of that name in"
                f" {self.folder}; choose another name."
            )
        return there

    @property
    def _versions(self) -> Path:
        return self.folder / "versions"

    def _lock(self) -> Path:
        self.folder.mkdir(parents=True, exist_ok=True)
        return self.folder / "registry.lock"


def _checked(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name):
        raise ConfigError(
            "a version's name must be letters, digits, '.', '_' and '-', and begin with one of the"
            f" first two, found {name!r}; choose another."
        )
    return name


def _read(folder: Path) -> Version:
    path = folder / CARD
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
        if card["schema"] != SCHEMA:
            raise ValueError(f"schema {card['schema']!r}")
        return Version(folder.name, folder, {"created": card["created"], **card})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(
            f"{path}: must be the card of a version ({error}); restore it from a copy."
        ) from error
