# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Points drawn as small discs that lie in their surfaces, with a depth buffer."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numba import njit
from scipy.ndimage import distance_transform_edt
from scipy.spatial import cKDTree

from ..types import Array


def spacing(xyz: Array) -> float:
    """Typical distance in metres between neighbours on the surface, of points (N, 3)."""
    if len(xyz) < 8:
        return 0.02
    sample = xyz[:: max(1, len(xyz) // 4000)]
    distances, _ = cKDTree(xyz).query(sample, k=5)
    return float(np.median(distances[:, 4])) or 0.02


def splat(points: Array, normals: Array, radius: float, focal: float, size: tuple[int, int]) -> tuple[Array, Array]:
    """Which point shows in which pixel: indices int32 (H, W), -1 = none, and depths float32 (H, W), inf = none.

    points, normals float32 (N, 3) in camera axes (z forward; a zero normal means a disc that faces the
    camera); radius of the discs in metres; focal length in pixels, principal point in the middle;
    size (width, height) in pixels.
    """
    width, height = size
    index = np.full((height, width), -1, np.int32)
    depth = np.full((height, width), np.inf, np.float32)
    nearness = np.full((height, width), np.inf, np.float32)
    _splat(
        np.ascontiguousarray(points, np.float32),
        np.ascontiguousarray(normals, np.float32),
        radius,
        focal,
        index,
        depth,
        nearness,
    )
    return index, depth


def fill_pinholes(index: Array, depth: Array, pixels: int) -> tuple[Array, Array]:
    """Gives gaps narrower than `pixels` the nearest drawn pixel's point and depth; shapes as in `splat`."""
    drawn = (index >= 0).astype(np.uint8)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (pixels, pixels))
    holes = (cv2.morphologyEx(drawn, cv2.MORPH_CLOSE, kernel) > 0) & (drawn == 0)
    if not holes.any():
        return index, depth
    rows, columns = distance_transform_edt(drawn == 0, return_distances=False, return_indices=True)[:, holes]
    index, depth = index.copy(), depth.copy()
    index[holes], depth[holes] = index[rows, columns], depth[rows, columns]
    return index, depth


@njit(cache=True, nogil=True)
def _splat(points: Any, normals: Any, radius: float, focal: float, index: Any, depth: Any, nearness: Any) -> None:
    height, width = index.shape
    cx, cy = (width - 1) / 2, (height - 1) / 2
    for i in range(len(points)):
        x, y, z = points[i]
        if z < 4 * radius:
            continue
        length = np.sqrt(x * x + y * y + z * z)
        nx, ny, nz = normals[i]
        facing = -(nx * x + ny * y + nz * z) / length
        if facing < 0:
            nx, ny, nz, facing = -nx, -ny, -nz, -facing
        if facing < 0.35:
            # Discs seen edge-on would be thinner than a pixel and leave gaps: bend them towards the eye.
            bend = 0.45 - facing
            nx, ny, nz = nx - bend * x / length, ny - bend * y / length, nz - bend * z / length
            norm = np.sqrt(nx * nx + ny * ny + nz * nz)
            nx, ny, nz = nx / norm, ny / norm, nz / norm
        offset = nx * x + ny * y + nz * z
        u, v, r = cx + focal * x / z, cy + focal * y / z, focal * radius / z + 0.5
        for row in range(max(0, int(np.ceil(v - r))), min(height, int(np.floor(v + r)) + 1)):
            for column in range(max(0, int(np.ceil(u - r))), min(width, int(np.floor(u + r)) + 1)):
                ray_x, ray_y = (column - cx) / focal, (row - cy) / focal
                along = nx * ray_x + ny * ray_y + nz
                if along > -1e-6:
                    continue
                d = offset / along
                squared = ((d * ray_x - x) ** 2 + (d * ray_y - y) ** 2 + (d - z) ** 2) / (radius * radius)
                if squared > 1 and (row != int(np.rint(v)) or column != int(np.rint(u))):
                    continue
                # Where discs of one surface overlap, the one whose centre is nearest shows.
                key = d + 0.8 * radius * squared
                if key < nearness[row, column]:
                    nearness[row, column] = key
                    depth[row, column] = d
                    index[row, column] = i
