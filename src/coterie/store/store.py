"""The interface of a store, and the reading that its back ends share."""

import threading
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import NamedTuple, Self

import pyarrow as pa

from coterie.errors import NotFoundError, UnavailableError
from coterie.store.contents import Contents, ListKey, PackedList
from coterie.store.edition import JSON, Edition, Found, Note, as_json, checked_name
from coterie.store.packing import Packer
from coterie.store.users import Key, Kind

# Each try needs a publisher between two statements of the one before.
_TRIES = 20
# Editions asked for by name, besides the live one, whose catalogues are kept.
_KEPT = 4
PAGE = 8192
"""Lists that are read at once."""


class Opened(NamedTuple):
    """An edition as a reader holds it: where its lists are, and the rest of it."""

    place: str
    edition: Edition
    contents: Contents


class Store(ABC):
    """Editions of lists, one of which is live; made by `coterie.store.open_store`.

    Any number of threads may read from one store while others publish, here or in other processes.
    A publish, a rollback or a pruning is seen at the next look-up. Each answer comes from one
    edition.

    While the database is away every call raises `UnavailableError` within a time limit; the first
    call after its return works.
    """

    def __init__(self) -> None:
        self._opened: dict[str | None, Opened] = {}
        self._opening = threading.Lock()

    def publish(
        self,
        edition: str,
        catalogue: pa.Table,
        lists: Iterable[pa.Table],
        facts: Mapping[str, JSON],
        *,
        live: bool = True,
    ) -> Edition:
        """Writes an edition and, last of all, shows it to readers.

        An edition of that name is replaced whole. Whatever ends this early, readers keep what they
        had, and the next `publish` clears away what is left.

        Args:
            edition: Its name: letters, digits, ``.``, ``_``, ``-``. Names are sorted as text.
            catalogue: ``item_id`` (whole numbers or text, each once) and ``title`` (text, may be
                null), a row an item.
            lists: Tables with a row a user and card row, taken one by one: ``user_id`` (whole
                numbers or text; null: the fall-back of that card row), ``row`` (the card row's
                name), ``items`` (lists of positions in the catalogue, best first), ``scores``
                (lists of float32, finite), ``source`` (what made the list).
            facts: What readers may ask of the edition, such as the model's version.
            live: Whether readers are given it from now on. An edition that is live stays so.

        Returns:
            The edition as published.

        Raises:
            ConfigError: if the name or the facts cannot be kept.
            ConflictError: if another publisher is at work.
            DataError: if lists or catalogue break a rule; two lists of a user in a card row do.
            CannotWriteError: if there are no rights or there is no room.
            UnavailableError: if the database cannot be reached.
        """
        name, told = checked_name(edition, "an edition"), as_json(facts, "an edition's facts")
        self._publish(name, told, Packer(catalogue), lists, live)
        return self._listed(name)

    @abstractmethod
    def editions(self) -> list[Edition]:
        """Every edition, the newest name first."""

    def live(self) -> Edition | None:
        """The edition that readers are given, or None before the first."""
        return next((one for one in self.editions() if one.live), None)

    def point(self, edition: str) -> Edition:
        """Shows another edition to readers, from their next look-up on.

        Raises:
            NotFoundError: if there is none of that name.
        """
        if not self._point(checked_name(edition, "an edition")):
            raise self._not_found(edition)
        return self._listed(edition)

    @abstractmethod
    def prune(self, keep: int) -> list[str]:
        """Removes old editions, never the live one; who is reading one reads on.

        Args:
            keep: How many stay, those with the newest names; the live one stays besides.

        Returns:
            The names of those removed, newest first.
        """

    def note(self, kind: str, name: str, values: Mapping[str, JSON]) -> None:
        """Keeps a small record; an earlier one of that kind and name is replaced.

        Raises:
            ConfigError: if a name or the values cannot be kept.
        """
        told = as_json(values, "a note")
        self._note(checked_name(kind, "a kind of note"), checked_name(name, "a note"), told)

    @abstractmethod
    def notes(self, kind: str, limit: int = 100) -> list[Note]:
        """Records of a kind, the newest names first, at most ``limit``."""

    @abstractmethod
    def close(self) -> None:
        """Closes the connections; another call opens new ones."""

    def find(
        self, user_id: int | str, row: str = "main", *, edition: str | None = None
    ) -> Found | None:
        """A user's list.

        Args:
            user_id: A whole number and its text are the same user.
            row: The name of the card row.
            edition: The live one if None.

        Returns:
            The list, or None if the edition has none for this user and card row.

        Raises:
            NotFoundError: if nothing was published yet, or there is no edition of that name.
            UnavailableError: if the database cannot be reached.
        """
        return self.find_many([(user_id, row)], edition=edition)[0]

    def find_many(
        self, wanted: Sequence[tuple[int | str, str]], *, edition: str | None = None
    ) -> list[Found | None]:
        """Several lists in one question to the database, all of one edition.

        Args:
            wanted: Users and card rows, as `find` takes them.
            edition: The live one if None.

        Returns:
            For each what `find` gives.

        Raises:
            NotFoundError: as `find`.
            UnavailableError: as `find`.
        """
        opened, packed = self._follow(edition, wanted)
        return [
            None if one is None else opened.contents.found(one, opened.edition) for one in packed
        ]

    def fallback(self, row: str = "main", *, edition: str | None = None) -> Found | None:
        """The list for whoever has none of their own, or None if the edition has none.

        Raises:
            NotFoundError: as `find`.
            UnavailableError: as `find`.
        """
        opened, _ = self._follow(edition, ())
        packed = opened.contents.fallbacks.get(row)
        return None if packed is None else opened.contents.found(packed, opened.edition)

    def rows(self, *, edition: str | None = None) -> list[str]:
        """Names of the edition's card rows, sorted.

        Raises:
            NotFoundError: as `find`.
            UnavailableError: as `find`.
        """
        return sorted(self._follow(edition, ())[0].contents.rows)

    def lists(self, row: str = "main", *, edition: str | None = None) -> Iterator[pa.RecordBatch]:
        """Everybody's lists in a card row, some thousand at a time, by user; not the fall-back.

        All are of the edition that was live when the first were asked for, whatever is published
        meanwhile.

        Args:
            row: The name of the card row; one that the edition has not has no lists.
            edition: The live one if None.

        Yields:
            ``user_id`` (null where it has more than 1,000 bytes: of those only a hash is kept) and
            ``item_ids``: lists, best first, of a dictionary of the whole catalogue, whose indices
            are positions in it.

        Raises:
            NotFoundError: as `find`, and if the edition is pruned before its end.
            UnavailableError: as `find`.

        Example:
            >>> import tempfile
            >>> from coterie.store import open_store
            >>> catalogue = pa.table({"item_id": ["red", "teal"], "title": ["Red", "Teal"]})
            >>> columns = {"user_id": [7], "row": ["main"], "items": [[1]], "scores": [[2.5]]}
            >>> folder = tempfile.TemporaryDirectory()
            >>> with open_store(f"sqlite:///{folder.name}/store") as store:
            ...     table = pa.table({**columns, "source": ["model"]})
            ...     _ = store.publish("2027-01-15", catalogue, [table], {})
            ...     [batch.to_pylist() for batch in store.lists()]
            [[{'user_id': 7, 'item_ids': ['teal']}]]
            >>> folder.cleanup()
        """
        opened, _ = self._follow(edition, ())
        contents = opened.contents
        page: list[tuple[Key, bytes]] = []
        while row in contents.rows:
            after = page[-1][0] if page else None
            page = self._page(opened.place, contents.users, contents.rows.index(row), after)
            if not page:
                return
            yield contents.batch(page)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @abstractmethod
    def _publish(
        self, name: str, facts: str, packer: Packer, lists: Iterable[pa.Table], live: bool
    ) -> None: ...

    @abstractmethod
    def _point(self, name: str) -> bool:
        """Whether there is an edition of that name, which is live then."""

    @abstractmethod
    def _note(self, kind: str, name: str, values: str) -> None: ...

    @abstractmethod
    def _look_up(
        self, name: str | None, opened: Opened | None, keys: Sequence[ListKey | None]
    ) -> tuple[str | None, list[PackedList | None]]:
        """Where the edition is now and, if that is where ``opened`` is, the list of each key."""

    @abstractmethod
    def _open(self, place: str) -> Opened | None:
        """The edition at a place, or None if it has just gone."""

    @abstractmethod
    def _page(
        self, place: str, users: Kind, row: int, after: Key | None
    ) -> list[tuple[Key, bytes]]:
        """Users and packed items of the next lists of a card row, by key.

        Raises:
            NotFoundError: if the edition is gone.
        """

    def _follow(
        self, name: str | None, wanted: Sequence[tuple[int | str, str]]
    ) -> tuple[Opened, list[PackedList | None]]:
        """The edition that has the name now, and what is wanted from it."""
        opened = self._opened.get(name)
        for _ in range(_TRIES):
            keys = [opened.contents.key(*one) for one in wanted] if opened else []
            place, packed = self._look_up(name, opened, keys)
            if place is None:
                raise self._not_found(name)
            if opened is not None and opened.place == place:
                return opened, packed
            opened = self._reopen(name, place)
        raise UnavailableError(
            f"{self}: an edition must stay long enough to be read, found it gone {_TRIES} times;"
            " publish less often, or publish again if its lists are lost."
        )

    def _reopen(self, name: str | None, place: str) -> Opened | None:
        # One thread reads the catalogue; those who wait for it find it read.
        with self._opening:
            known = {one.place: one for one in self._opened.values()}
            opened = known.get(place) or self._open(place)
            if opened is not None:
                self._opened.pop(name, None)
                self._opened[name] = opened
                self._forget()
            return opened

    def _forget(self) -> None:
        named = [name for name in self._opened if name is not None]
        for name in named[:-_KEPT]:
            del self._opened[name]

    def _listed(self, name: str) -> Edition:
        found = next((one for one in self.editions() if one.name == name), None)
        if found is None:
            raise self._not_found(name)
        return found

    def _gone(self) -> NotFoundError:
        return NotFoundError(
            f"{self}: an edition must stay while its lists are read, found it pruned; read again."
        )

    def _not_found(self, name: str | None) -> NotFoundError:
        if name is None:
            return NotFoundError(f"{self}: an edition must be live, found none; publish one first.")
        known: Sequence[str] = [one.name for one in self.editions()][:10]
        return NotFoundError(
            f"{self}: edition {name[:120]!r} must be there, found {', '.join(known) or 'none'};"
            " publish it or choose another."
        )
