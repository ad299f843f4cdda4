"""Most watched's network: a number an item, for each segment of users."""

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor

from coterie.errors import ConfigError
from coterie.networks.network import Network
from coterie.networks.onnx_graph import OnnxGraph
from coterie.sparse import SparseRows

_DAY = 86_400
_TIE = 2.0**-20
"""Of everybody's count, which thus orders what a segment has not watched."""


class MostWatched(Network):
    """Scores an item by how much the users of the history's segment have watched it of late. An
    empty history belongs to no segment and has everybody's counts.

    Args:
        n_items: Size of the catalogue.
        n_segments: Segments of users, by the length of their history.
    """

    counts: Tensor
    starts: Tensor

    def __init__(self, n_items: int, n_segments: int) -> None:
        super().__init__()
        self.n_items = n_items
        self.register_buffer("counts", torch.zeros(1 + n_segments, n_items))
        self.register_buffer("starts", torch.ones(n_segments, dtype=torch.int64))

    @classmethod
    def fit(
        cls,
        train: csr_array,
        timestamps: np.ndarray | None,
        half_life_days: float,
        n_segments: int,
    ) -> "MostWatched":
        """Counts each interaction by ½^(age / half-life), for everybody and in each segment.

        Args:
            train: ``[n_users, n_items]`` binary.
            timestamps: ``[n_interactions]`` seconds, in its order; None = all at one time.
            half_life_days: Age, before the newest interaction, at which one counts half.
            n_segments: Parted at quantiles of the lengths of histories.
        """
        model, lengths = cls(train.shape[1], n_segments), np.diff(train.indptr)
        starts = _starts(lengths, n_segments)
        segment = np.repeat(_segments(lengths, starts), lengths)
        counts = np.zeros((1 + n_segments, train.shape[1]))
        np.add.at(counts, (segment, train.indices), _weights(timestamps, half_life_days))
        counts[0] = counts[1:].sum(axis=0)
        model.counts.copy_(torch.from_numpy(counts + _TIE * counts[0]))
        model.starts.copy_(torch.from_numpy(starts))
        return model

    def score(self, rows: SparseRows) -> Tensor:
        """``[n_users, n_items]``: the counts of each history's segment."""
        return self.counts[self._segment(rows)]

    def score_items(self, rows: SparseRows, items: Tensor) -> Tensor:
        """``[n_users, m]``."""
        return self.counts[:, items][self._segment(rows)]

    def _segment(self, rows: SparseRows) -> Tensor:
        return (rows.counts[:, None] >= self.starts).sum(dim=1)

    def item_vectors(self) -> Tensor:
        """Refused: counts are no representation."""
        raise ConfigError(
            "similar items need learned item vectors, most-watched has none; use mult-vae, mult-dae"
            " or ease."
        )

    def add_scores(self, graph: OnnxGraph, **output: str) -> str:
        """Adds the nodes of `score`."""
        starts = graph.constant(self.starts.tolist(), np.float32)
        reached = graph.node("GreaterOrEqual", graph.lengths, starts)
        numbers = graph.node("Cast", reached, to=graph.types.INT64)
        segment = graph.node("ReduceSum", numbers, graph.constant([1]), keepdims=0)
        return graph.node("Gather", graph.weight(self.counts), segment, axis=0, **output)


def _starts(lengths: np.ndarray, n_segments: int) -> np.ndarray:
    """``[n_segments]`` int64 length that each segment begins with; the first begins with 1."""
    inner = np.arange(1, n_segments) / n_segments
    parted = np.quantile(lengths, inner, method="higher") if len(lengths) else np.ones(len(inner))
    starts: np.ndarray = np.maximum(np.append(1, parted), 1).astype(np.int64)
    return starts


def _segments(lengths: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """``[n]`` the segment of each history, from 1; 0 of an empty one."""
    found: np.ndarray = np.searchsorted(starts, lengths, side="right")
    return found


def _weights(timestamps: np.ndarray | None, half_life_days: float) -> np.ndarray | float:
    if timestamps is None or not len(timestamps):
        return 1.0
    weights: np.ndarray = 0.5 ** ((timestamps.max() - timestamps) / _DAY / half_life_days)
    return weights
