# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""The free floor of a room as a grid."""

from __future__ import annotations

import cv2
import numpy as np

from ...types import Array
from .room import Room

CELL = 0.05
# Half a body: the camera's centre keeps this far from everything at any height below the ceiling lamps.
BODY = 0.34


def clearance(room: Room) -> Array:
    """Metres from each cell (ny, nx) of `CELL` to the nearest wall or piece, 0 inside them; cell (j, i) has its
    centre at ((i + 0.5) CELL, (j + 0.5) CELL)."""
    nx, ny = int(np.ceil(room.width / CELL)), int(np.ceil(room.depth / CELL))
    free = np.ones((ny + 2, nx + 2), np.uint8)
    free[[0, -1]] = 0
    free[:, [0, -1]] = 0
    polygons = [f.corners() for f in room.obstacles() if f.z0 < 2.0]
    if room.notch is not None:
        x0, y0, x1, y1 = room.notch
        polygons.append(np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]]))
    for corners in polygons:
        pixels = np.round((corners / CELL + 0.5) * 16).astype(np.int32)
        cv2.fillConvexPoly(free, pixels, 0, cv2.LINE_8, 4)
    distance = cv2.distanceTransform(free, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.maximum(distance[1:-1, 1:-1] - 1.0, 0) * CELL


def walkable(room: Room) -> Array:
    """The largest connected part of the floor where a body fits, bool (ny, nx)."""
    fits = (clearance(room) > BODY).astype(np.uint8)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(fits, connectivity=4)
    if count < 2:
        return np.zeros(fits.shape, bool)
    return labels == 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())


def can_be_walked(room: Room) -> bool:
    """Whether there is enough floor for a body, nearly all of it in one piece."""
    fits, one_piece = float((clearance(room) > BODY).sum()), float(walkable(room).sum())
    return one_piece * CELL**2 > 0.1 * room.area and one_piece > 0.85 * fits
