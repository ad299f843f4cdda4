"""The maps of all settings, laid over the first one's."""

from collections.abc import Sequence

import numpy as np

from coterie.lab.collaboration.analysis import Findings, LatentMap
from coterie.lab.collaboration.maps import align, pca_map, tsne_map


def pca_maps(settings: Sequence[Findings], items: np.ndarray) -> tuple[LatentMap, ...]:
    """Principal components, one a setting, with the anchors of ``items``."""
    maps = [pca_map(one.map_posteriors.mu) for one in settings]
    laid = [align(one.points, maps[0].points, rescale=False) for one in maps]
    anchors = [
        None if one.anchors is None else move.apply(plane.transform(one.anchors[items]))
        for one, plane, move in zip(settings, maps, laid, strict=True)
    ]
    return tuple(
        LatentMap(one.name, move.apply(plane.points), placed, plane.shares, move.disparity)
        for one, plane, placed, move in zip(settings, maps, anchors, laid, strict=True)
    )


def tsne_maps(settings: Sequence[Findings], items: np.ndarray, seed: int) -> tuple[LatentMap, ...]:
    """Neighbourhoods, one a setting, with the anchors of ``items``."""
    first = tsne_map(settings[0].map_posteriors.mu, seed=seed)
    maps = []
    for one in settings:
        found = (
            first
            if one is settings[0]
            else tsne_map(one.map_posteriors.mu, seed=seed, initial=first.points)
        )
        move = align(found.points, first.points)
        anchors = None if one.anchors is None else move.apply(found.transform(one.anchors[items]))
        maps.append(LatentMap(one.name, move.apply(found.points), anchors, None, move.disparity))
    return tuple(maps)
