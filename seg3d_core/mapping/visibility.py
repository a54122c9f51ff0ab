# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Kernels that find the map points which a depth image sees, and those it sees through."""

# numba infers the types of kernels.
# mypy: allow-untyped-defs

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from .block_index import BLOCK_SIDE, remove_row
from .fusion import WEIGHT

TILE = 16
# A point is seen through when everything around its pixel lies this far behind it: noise and rims pass.
CLEAR_FACTOR, CLEAR_MARGIN = 3.0, 0.05


class Agreement(NamedTuple):
    """When depths agree: |z - D| <= tolerance + relative * z + slope * local slope; z from near to far."""

    near: float
    far: float
    tolerance: float
    relative: float
    slope: float


@njit(cache=True, nogil=True)
def _slope_at(du, dv, v, u):
    a, b = abs(du[v, u]), abs(dv[v, u])
    return (a if a < np.inf else np.float32(0)) + (b if b < np.inf else np.float32(0))


@njit(cache=True, nogil=True)
def tile_limits(image, slope_factor, limits):
    """The farthest depth in each tile of 16 x 16 pixels, slope tolerance included: float32 (rows, columns)."""
    depth, du, dv = image
    h, w = du.shape
    limits[:] = 0
    for v in range(h):
        row = limits[v // TILE]
        for column in range(len(row)):
            most = row[column]
            for u in range(column * TILE, min((column + 1) * TILE, w)):
                d = depth[v + 1, u + 1]
                limit = d + np.float32(slope_factor) * _slope_at(du, dv, v, u) if d > 0 else np.float32(0)
                most = max(most, limit)
            row[column] = most


@njit(cache=True, nogil=True)
def _farthest_seen(x0, x1, y0, y1, z0, z1, camera, limits, w, h):
    """The largest tile limit under the image of a box given by its camera-frame bounds, z0 > 0."""
    u0 = camera.fx * (x0 / z0 if x0 < 0 else x0 / z1) + camera.cx
    u1 = camera.fx * (x1 / z1 if x1 < 0 else x1 / z0) + camera.cx
    v0 = camera.fy * (y0 / z0 if y0 < 0 else y0 / z1) + camera.cy
    v1 = camera.fy * (y1 / z1 if y1 < 0 else y1 / z0) + camera.cy
    farthest = np.float32(0)
    for row in range(int(max(v0 - 1, 0)) // TILE, int(min(v1 + 1, h - 1)) // TILE + 1):
        for column in range(int(max(u0 - 1, 0)) // TILE, int(min(u1 + 1, w - 1)) // TILE + 1):
            farthest = max(farthest, limits[row, column])
    return farthest


@njit(cache=True, nogil=True)
def cull_blocks(blocks, count, voxel_size, camera, agreement, limits, w, h, out):
    """Writes the blocks that the image may see into `out`: (how many, points in them)."""
    edge = BLOCK_SIDE * voxel_size
    # Half a voxel more than half: corrected poses may have left a point that far beside its voxel; and a rounding.
    half = 0.501 * edge + 0.5 * voxel_size + 1e-4
    r, t = camera.rotation, camera.translation
    ex = half * (abs(r[0, 0]) + abs(r[0, 1]) + abs(r[0, 2]))
    ey = half * (abs(r[1, 0]) + abs(r[1, 1]) + abs(r[1, 2]))
    ez = half * (abs(r[2, 0]) + abs(r[2, 1]) + abs(r[2, 2]))
    # The four sides of the frustum as fx x + offset z >= 0 and the like, and the box's reach along each.
    left, right = camera.cx + 1, camera.cx - w
    top, bottom = camera.cy + 1, camera.cy - h
    reach_left = reach_right = reach_top = reach_bottom = 0.0
    for axis in range(3):
        reach_left += half * abs(camera.fx * r[0, axis] + left * r[2, axis])
        reach_right += half * abs(camera.fx * r[0, axis] + right * r[2, axis])
        reach_top += half * abs(camera.fy * r[1, axis] + top * r[2, axis])
        reach_bottom += half * abs(camera.fy * r[1, axis] + bottom * r[2, axis])
    kept = points = 0
    for block in range(count):
        if blocks.points[block] == 0:
            continue
        px = (blocks.coordinates[block, 0] + 0.5) * edge
        py = (blocks.coordinates[block, 1] + 0.5) * edge
        pz = (blocks.coordinates[block, 2] + 0.5) * edge
        z = r[2, 0] * px + r[2, 1] * py + r[2, 2] * pz + t[2]
        if z + ez < agreement.near or z - ez > agreement.far:
            continue
        x = r[0, 0] * px + r[0, 1] * py + r[0, 2] * pz + t[0]
        if camera.fx * x + left * z < -reach_left or camera.fx * x + right * z > reach_right:
            continue
        y = r[1, 0] * px + r[1, 1] * py + r[1, 2] * pz + t[1]
        if camera.fy * y + top * z < -reach_top or camera.fy * y + bottom * z > reach_bottom:
            continue
        nearest = z - ez
        if nearest > 1e-3:
            farthest = _farthest_seen(x - ex, x + ex, y - ey, y + ey, nearest, z + ez, camera, limits, w, h)
            if farthest == 0 or nearest - agreement.tolerance - agreement.relative * nearest > farthest + 1e-4:
                continue
        out[kept] = block
        kept += 1
        points += blocks.points[block]
    return kept, points


@njit(cache=True, nogil=True)
def _is_clear(depth, v, u, z):
    """Whether every valid depth in the 3 x 3 pixels around (u, v) lies behind z."""
    for j in range(3):
        for i in range(3):
            d = depth[v + j, u + i]
            if d > 0 and d <= z:
                return False
    return True


@njit(cache=True, nogil=True)
def find_visible(chosen, blocks, points, image, camera, agreement, sums, touched, seen, pixels, through):
    """Projects the points of the chosen blocks (RE0 eq. 1) and compares depths.

    Writes rows of visible points into `seen` int64 and (u, v, z) into `pixels` float32 (n, 3); (row, block)
    of points that are seen through into `through` int32 (n, 2), unless that is empty. Points that this
    frame touched (`sums`) are not seen through. Returns both counts.
    """
    depth, du, dv = image
    first, chain = blocks.first, blocks.following
    h, w = du.shape
    r, t = camera.rotation, camera.translation
    n_seen = n_through = 0
    for block in chosen:
        following = first[block]
        while following >= 0:
            row = following
            following = chain[row]
            px, py, pz = np.float64(points[row, 0]), np.float64(points[row, 1]), np.float64(points[row, 2])
            z = r[2, 0] * px + r[2, 1] * py + r[2, 2] * pz + t[2]
            if not (agreement.near <= z <= agreement.far and z > 0):
                continue
            x = r[0, 0] * px + r[0, 1] * py + r[0, 2] * pz + t[0]
            y = r[1, 0] * px + r[1, 1] * py + r[1, 2] * pz + t[1]
            u = np.float32(x * camera.fx / z + camera.cx)
            v = np.float32(y * camera.fy / z + camera.cy)
            if not (-1 < u < w and -1 < v < h):
                continue
            # Rounded as whoever reads the float32 pixels will round them.
            column, line = int(np.rint(u)), int(np.rint(v))
            if not (0 <= column < w and 0 <= line < h):
                continue
            d = depth[line + 1, column + 1]
            if d <= 0:
                continue
            allowed = agreement.tolerance + agreement.relative * z + agreement.slope * _slope_at(du, dv, line, column)
            if abs(z - d) <= allowed:
                seen[n_seen] = row
                pixels[n_seen, 0] = u
                pixels[n_seen, 1] = v
                pixels[n_seen, 2] = z
                n_seen += 1
            elif len(through) > 0 and d - z > CLEAR_FACTOR * allowed + CLEAR_MARGIN:
                place = sums.places[row]
                is_fresh = place < touched and sums.rows[place] == row
                if not is_fresh and _is_clear(depth, line, column, z + CLEAR_FACTOR * allowed + CLEAR_MARGIN):
                    through[n_through, 0] = row
                    through[n_through, 1] = block
                    n_through += 1
    return n_seen, n_through


@njit(cache=True, nogil=True)
def in_order(order, pixels, ids, out_ids, out_pixels, out_depths, out_rows):
    """Spreads what `find_visible` found over the arrays of a `Visible`, as `order` (row << 32 | place) says."""
    for i in range(len(order)):
        row, place = order[i] >> 32, order[i] & 0xFFFFFFFF
        out_ids[i] = ids[row]
        out_pixels[i, 0] = pixels[place, 0]
        out_pixels[i, 1] = pixels[place, 1]
        out_depths[i] = pixels[place, 2]
        out_rows[i] = row


@njit(cache=True, nogil=True)
def fade(through, amount, blocks, points, removed):
    """Takes weight from points seen through; those left with none leave the map. Returns how many did."""
    n = 0
    for i in range(len(through)):
        row, block = through[i, 0], through[i, 1]
        points[row, WEIGHT] -= amount
        if points[row, WEIGHT] <= 0:
            points[row, WEIGHT] = 0
            remove_row(blocks, block, row)
            removed[n] = row
            n += 1
    return n
