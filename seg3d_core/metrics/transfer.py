# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Labels and predictions carried from one cloud's points to another's: the nearest point's, within a radius."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_matrix
from scipy.spatial import cKDTree

from ..errors import Seg3DError
from ..types import Array
from .ground_truth import GroundTruth
from .predictions import Predictions
from .scene_counts import SceneEvaluation

TRANSFER_VOXELS = 2
"""Voxels of the map between a vertex and the point that speaks for it, at most."""


@dataclass(frozen=True)
class Transfer:
    """How predictions came onto the ground truth's vertices.

    `radius` in metres, None where both have the same points; `beyond` of the `vertices` have no point within it.
    """

    radius: float | None
    vertices: int
    beyond: int = 0


def on_vertices(predictions: Predictions, truth: GroundTruth, radius: float) -> tuple[SceneEvaluation, Transfer]:
    """The predictions on the ground truth's vertices: each takes the memberships of the nearest point within `radius`.

    Points that are the vertices themselves, or that both come without positions, correspond by number. Raises
    Seg3DError where the clouds differ and positions are missing.
    """
    count = len(truth.ids)
    if not count:
        raise Seg3DError("the ground truth has no vertices: an empty file, perhaps")
    indptr, members, how = predictions.indptr, predictions.members, Transfer(None, count)
    if _has_own_points(predictions, truth):
        index = nearest_within(_positions(predictions.xyz), _positions(truth.xyz), radius)
        indptr, members = transfer_members(indptr, members, index, predictions.point_count)
        how = Transfer(radius, count, int((index < 0).sum()))
    elif len(predictions) and predictions.point_count != count:
        remedy = (
            "the ground truth came without positions to match them: name the vertices' <scene>.ply or <scene>.npz"
            " (`xyz`) with --points"
            if truth.xyz is None
            else "the predictions came without positions to match them: `xyz` belongs into the npz file, for text "
            "into <scene>.npz beside it"
        )
        raise Seg3DError(
            f"predictions are over {predictions.point_count:,} points, the ground truth over {count:,} vertices, "
            f"and {remedy}"
        )
    return SceneEvaluation(
        truth.ids, indptr, members, predictions.labels, predictions.scores, predictions.names, truth.names
    ), how


def _has_own_points(predictions: Predictions, truth: GroundTruth) -> bool:
    a, b = predictions.xyz, truth.xyz
    return a is not None and b is not None and not (a.shape == b.shape and np.allclose(a, b, rtol=0, atol=1e-4))


def _positions(xyz: Array | None) -> Array:
    return np.empty((0, 3)) if xyz is None else xyz


def nearest_within(points_from: Array, points_to: Array, radius: float) -> Array:
    """Index int64 (M,) of the nearest of `points_from` (N, 3) to each of `points_to` (M, 3), -1 beyond radius (m)."""
    if not len(points_from):
        return np.full(len(points_to), -1, np.int64)
    distance, index = cKDTree(points_from).query(points_to, distance_upper_bound=radius)
    return np.where(np.isfinite(distance), index, -1).astype(np.int64)


def transfer(points_from: Array, points_to: Array, labels: Array, radius: float) -> Array:
    """Labels (N,) of `points_from` carried to `points_to`, (M,): the nearest one's, 0 beyond `radius` (m)."""
    index = nearest_within(points_from, points_to, radius)
    out = np.zeros(len(points_to), labels.dtype)
    out[index >= 0] = labels[index[index >= 0]]
    return out


def transfer_members(indptr: Array, members: Array, index: Array, count: int) -> tuple[Array, Array]:
    """CSR sets over `count` points, carried to M others whose nearest is `index` (M,), -1 = none; may overlap.

    Each of the M takes all memberships of its nearest point. Returns (indptr, members) int64, members ascending.
    """
    known = np.flatnonzero(index >= 0)
    ones = np.ones(len(known), np.int8)
    carry = csr_matrix((ones, (index[known], known)), shape=(count, len(index)))
    sets = csr_matrix((np.ones(len(members), np.int8), members, indptr), shape=(len(indptr) - 1, count))
    out = (sets @ carry).sorted_indices()
    return out.indptr.astype(np.int64), out.indices.astype(np.int64)
