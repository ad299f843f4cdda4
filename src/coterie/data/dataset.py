"""The data set: interactions, vocabularies, titles and split, in memory and as a folder on disk.

On disk it is four plain files: ``interactions.safetensors`` (CSR and parts), ``users.parquet``,
``items.parquet`` (ids and titles) and ``manifest.json`` (sources, rules, counts, checksums). The
same input, rules and seed give the same bytes, so the fingerprint of a data set identifies it.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from scipy.sparse import csr_array

from coterie.data.ids import IdMap
from coterie.data.split import (
    Cases,
    Part,
    Split,
    cases_of,
    check_split,
    hold_out_trainers,
    select,
)
from coterie.errors import ArtifactError, DataError
from coterie.files import local, publish_folder, read_manifest, write_manifest

SCHEMA = "coterie.dataset/1"


@dataclass(frozen=True, eq=False)
class Interactions:
    """Who interacted with what: a binary CSR between two vocabularies.

    Args:
        users: ``[n_users]`` ids of the rows.
        items: ``[n_items]`` ids of the columns.
        indptr: ``[n_users + 1]`` int64 row starts.
        indices: ``[n_interactions]`` int32 item indices, ascending within a row, each once.
        timestamps: ``[n_interactions]`` int64 seconds since 1970 (UTC) of the latest time, where
            the source has times.
        counts: ``[n_interactions]`` int64, how often each was seen; None if each was once.
        first_timestamps: ``[n_interactions]`` int64 seconds of the first time; None if each is
            that of ``timestamps``.

    Raises:
        DataError: if the arrays do not form such a matrix.
    """

    users: IdMap
    items: IdMap
    indptr: np.ndarray
    indices: np.ndarray
    timestamps: np.ndarray | None = None
    counts: np.ndarray | None = None
    first_timestamps: np.ndarray | None = None

    def __post_init__(self) -> None:
        n = len(self.indices)
        if (
            self.indptr.shape != (len(self.users) + 1,)
            or self.indptr[0] != 0
            or self.indptr[-1] != n
            or (np.diff(self.indptr) < 0).any()
        ):
            raise DataError(
                f"indptr must rise from 0 to {n} in {len(self.users) + 1} steps, found shape"
                f" {self.indptr.shape}."
            )
        if n and not (int(self.indices.min()) >= 0 and int(self.indices.max()) < len(self.items)):
            raise DataError(
                f"item indices must be in [0, {len(self.items)}), found {self.indices.min()} to"
                f" {self.indices.max()}."
            )
        rises = np.diff(self.indices.astype(np.int64)) > 0
        if not rises[_inside_rows(self.indptr, n)].all():
            raise DataError(
                "item indices must ascend within every row, each once; merge repeated interactions"
                " first."
            )
        for name, array in self.columns.items():
            if array.shape != (n,):
                raise DataError(
                    f"{name} must have one entry an interaction ({n}), found shape {array.shape}."
                )
        if self.counts is not None and (self.counts < 1).any():
            raise DataError(
                f"counts must be at least 1, found {self.counts.min()}; leave out what was not"
                " seen."
            )
        if self.first_timestamps is not None and (
            self.timestamps is None or (self.first_timestamps > self.timestamps).any()
        ):
            raise DataError(
                "first_timestamps must be no later than timestamps; leave them out where they are"
                " not known."
            )

    @property
    def columns(self) -> dict[str, np.ndarray]:
        """What is known of every interaction, by name."""
        optional = {name: getattr(self, name) for name in _OPTIONAL}
        return {name: array for name, array in optional.items() if array is not None}

    @property
    def n_users(self) -> int:
        """Number of rows."""
        return len(self.users)

    @property
    def n_items(self) -> int:
        """Number of columns."""
        return len(self.items)


_OPTIONAL = ("timestamps", "counts", "first_timestamps")


def _inside_rows(indptr: np.ndarray, n: int) -> np.ndarray:
    """``[n - 1]`` bool: entries i and i + 1 lie in the same row."""
    inside = np.ones(max(n - 1, 0), dtype=bool)
    starts = indptr[1:-1]
    inside[starts[(starts > 0) & (starts < n)] - 1] = False
    return inside


@dataclass(frozen=True, eq=False)
class Dataset:
    """Interactions with titles, a split, and the record of how they came to be.

    Args:
        interactions: All kept interactions.
        split: Who trains and what is hidden.
        titles: ``[n_items]`` strings or None, in item order; None if the source has none.
        provenance: Sources, rules and counts, as written to the manifest. JSON values only.
        folder: Where it was loaded from, if it was.

    Example:
        >>> from coterie.simulation.service import simulate_dataset
        >>> data = simulate_dataset(n_users=300, n_items=60, held_out_users=40, seed=1)
        >>> data.train.shape == (220, data.n_items)
        True
    """

    interactions: Interactions
    split: Split
    titles: tuple[str | None, ...] | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)
    folder: Path | None = None

    def __post_init__(self) -> None:
        check_split(self.split, self.interactions.indptr)
        if self.titles is not None and len(self.titles) != self.n_items:
            raise DataError(
                f"titles must have one entry an item ({self.n_items}), found {len(self.titles)}."
            )

    def __eq__(self, other: object) -> bool:
        """Whether content and titles are the same, wherever they come from or lie."""
        return (
            isinstance(other, Dataset)
            and self.fingerprint == other.fingerprint
            and self.titles == other.titles
        )

    def __hash__(self) -> int:
        return hash(self.fingerprint)

    @property
    def users(self) -> IdMap:
        """``[n_users]`` user ids."""
        return self.interactions.users

    @property
    def items(self) -> IdMap:
        """``[n_items]`` item ids."""
        return self.interactions.items

    @property
    def n_users(self) -> int:
        """Number of users of all parts."""
        return self.interactions.n_users

    @property
    def n_items(self) -> int:
        """Number of items, all of them seen in training."""
        return self.interactions.n_items

    @cached_property
    def train(self) -> csr_array:
        """``[n_train_users, n_items]`` interactions to train on, values one."""
        x, split = self.interactions, self.split
        rows = select(x.indptr, x.indices, x.n_items, split.folded_in(Part.TRAIN))
        return rows[np.flatnonzero(split.user_part == Part.TRAIN)]

    @property
    def train_timestamps(self) -> np.ndarray | None:
        """``[n_train_interactions]`` int64 seconds since 1970 of the interactions of `train`, in
        its order, where the source has them.
        """
        return self._of_training(self.interactions.timestamps)

    @property
    def train_counts(self) -> np.ndarray | None:
        """``[n_train_interactions]`` int64, how often each interaction of `train` was seen, in its
        order; None if each was once.
        """
        counts = self._of_training(self.interactions.counts)
        return None if counts is None or (counts == 1).all() else counts

    def _of_training(self, column: np.ndarray | None) -> np.ndarray | None:
        if column is None:
            return None
        of_train_user = np.repeat(
            self.split.user_part == Part.TRAIN, np.diff(self.interactions.indptr)
        )
        kept: np.ndarray = column[of_train_user & self.split.folded_in(Part.TRAIN)]
        return kept

    def cases(self, part: Part) -> Cases:
        """The users with a history to validate or test on, with what is folded in and what is held
        out.
        """
        cases = self._cases(part)
        return cases.where(cases.has_history)

    def new_user_cases(self, part: Part) -> Cases:
        """Users with something to find and nothing known before: no model can tell them apart, so
        their scores stand beside those of `cases`, not among them.

        Example:
            >>> from coterie.simulation.service import simulate_dataset
            >>> data = simulate_dataset(n_users=300, n_items=60, held_out_users=40, seed=1)
            >>> len(data.new_user_cases(Part.TEST).user_index)
            0
        """
        cases = self._cases(part)
        return cases.where(~cases.has_history)

    def _cases(self, part: Part) -> Cases:
        x = self.interactions
        return cases_of(part, x.indptr, x.indices, x.n_items, self.split)

    def without_validation(self) -> "Dataset":
        """The same with everything that was for validation in training: for the last training,
        after all is chosen.

        Test users and what is hidden of them stay. Nothing is left to validate on.
        """
        split = self.split.without_validation()
        provenance = dict(self.provenance)
        if "counts" in provenance:
            stale = count_parts(self.interactions, self.split)
            read = {name: n for name, n in provenance["counts"].items() if name not in stale}
            provenance["counts"] = read | count_parts(self.interactions, split)
        return Dataset(self.interactions, split, self.titles, provenance)

    def with_validation_users(self, share: float, seed: int = 0) -> "Dataset":
        """The same with a share of the training users held out to validate on: the last fifth of
        what is known of each is to be found.

        Example:
            >>> from coterie.simulation.service import simulate_dataset
            >>> data = simulate_dataset(n_users=300, n_items=60, held_out_users=0, seed=1)
            >>> held_out = data.with_validation_users(0.1)
            >>> held_out.train.shape[0], len(held_out.cases(Part.VALIDATION).user_index)
            (270, 30)
        """
        x = self.interactions
        order = np.zeros(len(x.indices)) if x.timestamps is None else x.timestamps
        split = hold_out_trainers(self.split, (x.indptr, x.indices), order, share, seed)
        told = {**self.provenance, "validation_users": {"share": share, "seed": seed}}
        return Dataset(x, split, self.titles, told)

    def for_refit(self) -> "Dataset":
        """The same with everybody and everything in training: nobody is left to measure on."""
        split = Split(
            np.zeros_like(self.split.user_part), np.zeros_like(self.split.interaction_part)
        )
        provenance = dict(self.provenance)
        if "counts" in provenance:
            stale = count_parts(self.interactions, self.split)
            read = {name: n for name, n in provenance["counts"].items() if name not in stale}
            provenance["counts"] = read | count_parts(self.interactions, split)
        return Dataset(self.interactions, split, self.titles, provenance, self.folder)

    @cached_property
    def fingerprint(self) -> str:
        """Hex SHA-256 over ids, interactions and split: two data sets with the same one train the
        same model.
        """
        digest = hashlib.sha256()
        for ids in (self.users, self.items):
            digest.update(str(ids.values.type).encode())
            for one in ids.values.to_pylist() if not ids.are_integers else []:
                digest.update(one.encode() + b"\0")
            if ids.are_integers:
                digest.update(ids.values.to_numpy().tobytes())
        for name, array in sorted(self._arrays().items()):
            digest.update(name.encode() + array.tobytes())
        return digest.hexdigest()

    def _arrays(self) -> dict[str, np.ndarray]:
        arrays = {
            "indptr": self.interactions.indptr.astype(np.int64),
            "indices": self.interactions.indices.astype(np.int32),
        }
        arrays |= self.split.arrays | self.interactions.columns
        return {name: np.ascontiguousarray(array) for name, array in arrays.items()}

    def save(self, folder: str | Path) -> None:
        """Writes the data set as a folder, whole or not at all; an older one there is replaced."""
        with publish_folder(folder) as aside:
            save_file(self._arrays(), aside / "interactions.safetensors")
            pq.write_table(pa.table({"user_id": self.users.values}), aside / "users.parquet")
            columns = {"item_id": self.items.values}
            if self.titles is not None:
                columns["title"] = pa.array(self.titles, pa.string())
            pq.write_table(pa.table(columns), aside / "items.parquet")
            write_manifest(aside, SCHEMA, fingerprint=self.fingerprint, **self.provenance)

    @classmethod
    def load(cls, folder: str | Path) -> "Dataset":
        """Reads a data set folder and checks every checksum and shape.

        Raises:
            ArtifactError: if the folder is no data set, is damaged, or has another schema version.
        """
        # A link is followed once, so that all files are of one version.
        folder = local(folder).resolve()
        manifest = read_manifest(folder, SCHEMA)
        try:
            arrays = load_file(folder / "interactions.safetensors")
            users = pq.read_table(folder / "users.parquet")
            items = pq.read_table(folder / "items.parquet")
            ids = IdMap.of(users["user_id"]), IdMap.of(items["item_id"])
            interactions = Interactions(
                *ids,
                arrays["indptr"],
                arrays["indices"],
                *(arrays.get(name) for name in _OPTIONAL),
            )
            titles = tuple(items["title"].to_pylist()) if "title" in items.column_names else None
            provenance = {
                key: value
                for key, value in manifest.items()
                if key not in ("schema", "files", "fingerprint")
            }
            return cls(
                interactions,
                Split(arrays["user_part"], arrays["interaction_part"], arrays.get("repeats")),
                titles,
                provenance,
                folder,
            )
        except (KeyError, OSError, SafetensorError, pa.ArrowException, DataError) as error:
            raise ArtifactError(
                f"{folder}: not a whole data set ({error}); prepare it anew."
            ) from error


def count_parts(x: Interactions, split: Split) -> dict[str, int]:
    """How much there is, and who is evaluated: what a data set's provenance says of its own."""
    sizes = np.bincount(split.user_part, minlength=3)
    counts = {
        "users": x.n_users,
        "items": x.n_items,
        "interactions": len(x.indices),
        "train_users": int(sizes[Part.TRAIN]),
        "validation_users": int(sizes[Part.VALIDATION]),
        "test_users": int(sizes[Part.TEST]),
    }
    found = {
        part: cases_of(part, x.indptr, x.indices, x.n_items, split)
        for part in (Part.VALIDATION, Part.TEST)
    }
    for part, cases in found.items():
        counts[f"{part.name.lower()}_cases"] = int(cases.has_history.sum())
    for part, cases in found.items():
        counts |= _count_others(part, cases, split)
    if x.timestamps is not None:
        first = x.timestamps if x.first_timestamps is None else x.first_timestamps
        counts |= {
            "first_timestamp": int(first.min()),
            "last_timestamp": int(x.timestamps.max()),
        }
    return counts


def _count_others(part: Part, cases: Cases, split: Split) -> dict[str, int]:
    """Users of ``part`` who are no case, and cases without a history, where there may be any."""
    of_part, counts = split.user_part == part, {}
    if of_part.any():
        of_part[cases.user_index] = False
        counts[f"{part.name.lower()}_users_not_evaluated"] = int(of_part.sum())
    n_new = int((~cases.has_history).sum())
    if n_new:
        counts[f"{part.name.lower()}_new_user_cases"] = n_new
    return counts
