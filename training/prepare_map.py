# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""The points that the running core would have of a scan: its fused map, with the mesh's labels.

A network that is to run in the core is best trained on what it will see there.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy.spatial import cKDTree

from seg3d_core.config import MapConfig
from seg3d_core.errors import FrameError, SourceError
from seg3d_core.mapping.point_map import PointMap
from seg3d_core.sources.sens import SensSource
from seg3d_core.types import Array, Cloud

NEAREST = 0.06
"""Metres: a point takes the labels of the mesh's nearest vertex within this; without one it has none."""


def fused_cloud(sens: Path, frame_stride: int, voxel_size: float) -> Cloud:
    """The core's map of every `frame_stride`-th frame; `voxel_size` in metres.

    Raises SourceError where no frame can be used.
    """
    fused = PointMap(MapConfig(voxel_size=voxel_size))
    source = SensSource(sens, stride=frame_stride)
    for frame in source:
        try:
            fused.integrate(frame)
        except FrameError:
            continue
    cloud, _ = fused.snapshot()
    if not len(cloud):
        raise SourceError(f"{sens}: none of its frames could be fused ({source.drops or 'no depth'})")
    return cloud


def thinned(xyz: Array, rgb: Array, parts: Array, edge: float) -> tuple[Array, Array, Array]:
    """One point for each superpoint and cube of `edge` metres, the mean of those there: points float32 (M, 3), colours
    uint8 (M, 3) and superpoints int32 (M,). No superpoint is lost."""
    cells = np.floor(xyz.astype(np.float64) / edge).astype(np.int64)
    cells -= cells.min(axis=0)
    sides = cells.max(axis=0) + 1
    keys = np.ravel_multi_index((parts, *cells.T), (int(parts.max()) + 1, *sides))
    _, first, group = np.unique(keys, return_index=True, return_inverse=True)
    counts = np.bincount(group)

    def means(columns: Array) -> Array:
        return np.stack([np.bincount(group, column) / counts for column in columns.T], axis=1)

    return means(xyz).astype(np.float32), np.round(means(rgb)).astype(np.uint8), parts[first]


def nearest_vertices(xyz: Array, vertices: Array, limit: float = NEAREST) -> Array:
    """The vertex (M, 3) nearest to each point (N, 3), int64 (N,); -1 where none lies within `limit` metres."""
    distance, index = cKDTree(vertices).query(xyz, distance_upper_bound=limit)
    return np.where(np.isfinite(distance), index, -1).astype(np.int64)
