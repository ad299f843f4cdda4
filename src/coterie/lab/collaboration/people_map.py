"""Maps for the dashboard: an analysis' own, and a live model's of as many people as one can see,
laid over an earlier model's, so that people stay where they were.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.sparse import csr_array, eye_array
from torch import Tensor
from torch.nn import functional

from coterie.data.dataset import Dataset
from coterie.data.ids import Id
from coterie.data.split import Part
from coterie.evaluation.cohorts import cohort_members
from coterie.lab.collaboration.analysis import Analysis, LatentMap
from coterie.lab.collaboration.distances import nearest_neighbours
from coterie.lab.collaboration.figures import interactions
from coterie.lab.collaboration.interactive import anchor_titles
from coterie.lab.collaboration.maps import Alignment, align, pca_map
from coterie.lab.collaboration.posteriors import encode_users
from coterie.map_file import Layout, MapFile
from coterie.networks.autoencoder import Autoencoder
from coterie.sparse import SparseRows

FEWEST_IN_COMMON = 10
"""People of two maps; with fewer the later map lies by itself."""


def analysis_map(analysis: Analysis) -> MapFile:
    """The maps of an analysis: every setting by principal components, then by neighbourhoods."""
    dataset, counts = analysis.dataset, interactions(analysis)
    rows = np.flatnonzero(dataset.split.user_part == Part.TRAIN)[analysis.map_users]
    named = ("principal components", analysis.pca), ("neighbourhoods", analysis.tsne)
    return MapFile(
        dataset.users.ids_of(rows),
        counts,
        *cohorts_of(counts),
        [_layout(one, kind) for kind, maps in named for one in maps],
        dataset.items.ids_of(analysis.anchor_items),
        anchor_titles(analysis),
        {"of": dataset.n_users},
    )


def _layout(one: LatentMap, kind: str) -> Layout:
    facts = {"disparity": one.disparity, "items_are": "anchors"}
    return Layout(f"{one.name}, {kind}", one.users, one.anchors, facts)


def cohorts_of(counts: np.ndarray) -> tuple[list[str], np.ndarray]:
    """Names of the cohorts of activity, and ``[n]`` whose each person is."""
    members = cohort_members(counts)
    numbers: np.ndarray = np.argmax(list(members.values()), axis=0)
    return list(members), numbers.astype(np.uint8)


def sample_of(ids: Sequence[Id], most: int) -> np.ndarray:
    """Which people are shown: those whose ids have the smallest hashes, so that the sample of the
    next week has the same people, but for those who came and went.

    Args:
        ids: Of everybody.
        most: How many.

    Returns:
        ``[n]`` places among ``ids``, by hash.

    Example:
        >>> ids = [f"user {n}" for n in range(100)]
        >>> few, more = (set(sample_of(ids, n).tolist()) for n in (10, 20))
        >>> len(few), few < more
        (10, True)
    """
    hashes = [hashlib.blake2b(str(one).encode(), digest_size=8).digest() for one in ids]
    numbers = np.frombuffer(b"".join(hashes), ">u8")
    chosen: np.ndarray = np.argsort(numbers, kind="stable")[:most]
    return chosen


@dataclass(frozen=True, eq=False)
class LatentPeople:
    """People and titles in a model's latent space.

    Args:
        user_ids: ``n`` of them, by their hashes.
        counts: ``[n]`` items of each.
        users: ``[n, latent_dim]`` posterior means.
        item_ids: ``m`` of them.
        titles: ``m`` names, where known.
        items: ``[m, latent_dim]``.
        items_are: ``anchors`` of PIA, or ``alone``: where somebody would be who has nothing else.
    """

    user_ids: Sequence[Id]
    counts: np.ndarray
    users: Tensor
    item_ids: Sequence[Id]
    titles: Sequence[str | None]
    items: Tensor
    items_are: str

    @classmethod
    def of(
        cls, network: Autoencoder, dataset: Dataset, anchors: Tensor | None, most: int
    ) -> "LatentPeople":
        """Encodes a sample of the people of ``dataset`` who train.

        Args:
            network: A variational autoencoder of the data set's items.
            dataset: Of people and titles.
            anchors: ``[n_items, latent_dim]`` PIA's, if they were kept.
            most: People at most.
        """
        ids = dataset.users.ids_of(np.flatnonzero(dataset.split.user_part == Part.TRAIN))
        known = np.flatnonzero(np.diff(dataset.train.indptr))
        rows = known[sample_of([ids[row] for row in known], most)]
        histories = dataset.train[rows]
        alone = csr_array(eye_array(dataset.n_items, format="csr"))
        return cls(
            [ids[row] for row in rows],
            np.diff(histories.indptr),
            encode_users(network, SparseRows.from_csr(histories)).mu,
            dataset.items.ids_of(np.arange(dataset.n_items)),
            dataset.titles or [None] * dataset.n_items,
            encode_users(network, SparseRows.from_csr(alone)).mu if anchors is None else anchors,
            "alone" if anchors is None else "anchors",
        )

    def map(self, name: str, before: MapFile | None, of: int) -> MapFile:
        """Their plane of largest variance, turned, mirrored and scaled to lie over an earlier map.

        Args:
            name: Of the model.
            before: The earlier map.
            of: How many people there are.
        """
        plane = pca_map(self.users)
        move = None if before is None else self._move(plane.points, before)
        facts: dict[str, Any] = {"shares": plane.shares.tolist(), "items_are": self.items_are}
        users, items = plane.points, plane.transform(self.items)
        if move is not None:
            facts |= {"disparity": move.disparity, "scale": move.scale}
            users, items = move.apply(users), move.apply(items)
        return MapFile(
            self.user_ids,
            self.counts,
            *cohorts_of(self.counts),
            [Layout(name, users, items, facts)],
            self.item_ids,
            self.titles,
            {"of": of},
        )

    def _move(self, points: np.ndarray, before: MapFile) -> Alignment | None:
        here, there = in_common(self.user_ids, before.user_ids)
        if len(here) < FEWEST_IN_COMMON:
            return None
        return align(points[here], before.layouts[0].users[there].astype(float))


def in_common(ids: Sequence[Id], others: Sequence[Id]) -> tuple[np.ndarray, np.ndarray]:
    """Places of those in both, in either.

    Example:
        >>> [one.tolist() for one in in_common(["a", "b", "c"], ["c", "x", "a"])]
        [[0, 2], [2, 0]]
    """
    places = {one: at for at, one in enumerate(others)}
    pairs = [(at, places[one]) for at, one in enumerate(ids) if one in places]
    here, there = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    return here, there


def neighbours_kept(now: Tensor, then: Tensor, k: int) -> np.ndarray:
    """``[n]``: of each person's k nearest by latent angle, the share that already was so.

    Args:
        now: ``[n, latent_dim]`` means of people.
        then: ``[n, other_dim]`` means of the same people in another model.
        k: Size of a neighbourhood, below n.

    Example:
        >>> import torch
        >>> points = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0]])
        >>> turned = points @ torch.tensor([[0.0, 1.0], [-1.0, 0.0]])
        >>> neighbours_kept(points, turned, 1).tolist()
        [1.0, 1.0, 1.0, 1.0]
    """
    near = [
        nearest_neighbours(functional.normalize(one, dim=1), k)[0].numpy() for one in (now, then)
    ]
    kept: np.ndarray = (near[0][:, :, None] == near[1][:, None, :]).any(axis=2).mean(axis=1)
    return kept
