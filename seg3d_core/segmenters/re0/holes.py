"""Points that no keyframe saw."""

from __future__ import annotations

import numpy as np
from numba import njit
from scipy.spatial import cKDTree

from ...types import Array
from .base import BACKGROUND

FILL_SWEEPS = 3
FILL_NEIGHBOURS = 8
# Neighbours farther than this many times the usual distance are another surface.
FILL_REACH = 3.0


def fill_holes(labels: Array, sightings: Array, xyz: Array) -> Array:
    """Points that no keyframe saw take the majority of their neighbours' labels, background included.

    labels int32 (N,), sightings (N,), xyz (N, 3); 3 sweeps, so that wide holes close from their rim. Points
    that were seen keep what they have. Ties go to the newest label.
    """
    holes = np.flatnonzero(sightings == 0)
    if len(holes) in (0, len(labels)):
        return labels
    out = np.where((labels == 0) & (sightings > 0), BACKGROUND, labels).astype(np.int32)
    tree = cKDTree(xyz, balanced_tree=False, compact_nodes=False)
    distances, neighbours = tree.query(xyz[holes], min(FILL_NEIGHBOURS + 1, len(xyz)))
    usual = np.median(distances[:, 1])
    neighbours = np.where(distances <= FILL_REACH * usual, neighbours, -1)
    for _ in range(FILL_SWEEPS):
        out[holes] = _neighbour_majority(out, holes, neighbours)
    return out


@njit(cache=True, nogil=True)
def _neighbour_majority(labels: Array, points: Array, neighbours: Array) -> Array:
    out = np.empty(len(points), np.int32)
    for i in range(len(points)):
        out[i] = labels[points[i]]
        most = 0
        if out[i] > 0:
            continue
        for j in neighbours[i]:
            if j < 0 or labels[j] == 0:
                continue
            count = 0
            for k in neighbours[i]:
                count += k >= 0 and labels[k] == labels[j]
            if count > most or (count == most and labels[j] > out[i]):
                out[i], most = labels[j], count
    return out
