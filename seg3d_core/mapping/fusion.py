# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Kernels that fuse one depth image into the map: image gradients, per-voxel sums, running means.

Why numba: voxels are found by a hash while the sums of a run of pixels stay in registers, in one pass over
the image. At 640x480, `np.unique` of packed voxel keys costs three times as much for the grouping alone.
"""

# numba infers the types of kernels.
# mypy: allow-untyped-defs

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from ..types import Array
from .block_index import add_row, find_or_add_block, slot_of

# Columns of the map's points and of a frame's sums alike.
XYZ, RGB, NORMAL, WEIGHT = slice(0, 3), slice(3, 6), slice(6, 9), 9
COLUMNS = 10

# A surface on the border of two voxels, as many a floor, would leave a layer of points on either side of it. So a pixel
# in a voxel without a point goes to the nearest point within so many voxels in the voxels beside it, if there is one.
TWIN = 0.65

# Entries of `counters`.
BLOCKS, ROWS, LIVE, TOUCHED, DROPPED, NEXT_ID = range(6)


class Pinhole(NamedTuple):
    """A camera as kernels take it: intrinsics in pixels, and the rotation (3, 3) and translation (3,)
    from the camera to the world when fusing, from the world to the camera when looking."""

    fx: float
    fy: float
    cx: float
    cy: float
    rotation: Array
    translation: Array


class DepthImage(NamedTuple):
    """A depth image ready for use. Rows and columns -1 and H, W exist, so neighbours need no test.

    depth float32 (H + 2, W + 2), 0 = none or out of range; du, dv float32 (H, W): the smaller one-sided
    difference to a valid neighbour, in metres per pixel, infinite where there is none.
    """

    depth: Array
    du: Array
    dv: Array


class Sums(NamedTuple):
    """What a frame says of the voxels that it touches.

    values float64 (n, 10): sums over pixels of position, colour and normal, and their number; rows int32
    (n,) of those voxels, and voxels int32 (n, 3); places int32 (R,): for each row of the map its place in `values`,
    meaningful only if `rows` there gives the row back (a sparse set, which needs no clearing).
    """

    values: Array
    rows: Array
    voxels: Array
    places: Array


@njit(cache=True, nogil=True)
def prepare_depth(raw, near, far, image):
    """Fills a `DepthImage` from depth float32 (H, W): NaN, infinite and out-of-range values become 0."""
    h, w = raw.shape
    depth, du, dv = image
    for v in range(h):
        for u in range(w):
            d = raw[v, u]
            depth[v + 1, u + 1] = d if (d >= near) & (d <= far) else np.float32(0)
    none = np.float32(np.inf)
    zero = np.float32(0)
    for v in range(h):
        for u in range(w):
            d = depth[v + 1, u + 1]
            left, right = depth[v + 1, u], depth[v + 1, u + 2]
            up, down = depth[v, u + 1], depth[v + 2, u + 1]
            a = d - left if left > zero else none
            b = right - d if right > zero else none
            du[v, u] = a if abs(a) <= abs(b) else b
            a = d - up if up > zero else none
            b = down - d if down > zero else none
            dv[v, u] = a if abs(a) <= abs(b) else b


@njit(cache=True, nogil=True)
def _back_project_row(v, image, camera, inverse_size, xyz, voxels, normals):
    """World positions, voxels and unit normals (in the camera's axes) of image row v."""
    r, t = camera.rotation, camera.translation
    y = (v - camera.cy) / camera.fy
    for axis in range(3):
        along, start, shift = r[axis, 0], r[axis, 1] * y + r[axis, 2], t[axis]
        for u in range(image.du.shape[1]):
            x = (u - camera.cx) / camera.fx
            position = image.depth[v + 1, u + 1] * (along * x + start) + shift
            xyz[axis, u] = position
            voxels[axis, u] = np.int32(np.floor(position * inverse_size))
    fx, fy, cx, yf = np.float32(camera.fx), np.float32(camera.fy), np.float32(camera.cx), np.float32(v - camera.cy)
    zero, one, none = np.float32(0), np.float32(1), np.float32(np.inf)
    for u in range(image.du.shape[1]):
        du, dv = image.du[v, u], image.dv[v, u]
        known = (du < none) & (dv < none)
        nx = fx * du if known else zero
        ny = fy * dv if known else zero
        nz = image.depth[v + 1, u + 1] + (np.float32(u) - cx) * du + yf * dv if known else one
        length = np.sqrt(nx * nx + ny * ny + nz * nz)
        scale = one / length if (length > zero) & known else zero
        normals[0, u] = nx * scale
        normals[1, u] = ny * scale
        normals[2, u] = -nz * scale


@njit(cache=True, nogil=True)
def _bear_row(blocks, block, slot, ids, points, counters):
    """A new point in a free slot; its row."""
    row = counters[ROWS]
    counters[ROWS] += 1
    counters[LIVE] += 1
    ids[row] = counters[NEXT_ID]
    counters[NEXT_ID] += 1
    points[row, :] = 0
    blocks.slots[block, slot] = row
    add_row(blocks, block, row)
    return row


@njit(cache=True, nogil=True)
def _twin(blocks, home, points, px, py, pz, x, y, z, inverse_size):
    """The nearest point within `TWIN` of a position in voxel (x, y, z) of block `home` (-1 = none), of the seven voxels
    at the nearest corner: its row, -1 = none, and its voxel."""
    slots = blocks.slots
    fx, fy, fz = px * inverse_size - x, py * inverse_size - y, pz * inverse_size - z
    dx = np.int32(1 if fx >= 0.5 else -1)
    dy = np.int32(1 if fy >= 0.5 else -1)
    dz = np.int32(1 if fz >= 0.5 else -1)
    ax, ay, az = min(fx, 1 - fx) ** 2, min(fy, 1 - fy) ** 2, min(fz, 1 - fz) ** 2
    found, tx, ty, tz = -1, x, y, z
    nearest = TWIN * TWIN
    for corner in range(1, 8):
        # A voxel that is farther than the nearest point needs no look.
        least = (ax if corner & 1 else 0.0) + (ay if corner & 2 else 0.0) + (az if corner & 4 else 0.0)
        if least >= nearest:
            continue
        vx = x + dx if corner & 1 else x
        vy = y + dy if corner & 2 else y
        vz = z + dz if corner & 4 else z
        block = home
        if vx >> 3 != x >> 3 or vy >> 3 != y >> 3 or vz >> 3 != z >> 3:
            block = find_or_add_block(blocks, -1, vx >> 3, vy >> 3, vz >> 3)
        row = slots[block, slot_of(vx, vy, vz)] if block >= 0 else -1
        if row < 0:
            continue
        away = (points[row, 0] - px) ** 2 + (points[row, 1] - py) ** 2 + (points[row, 2] - pz) ** 2
        away *= inverse_size * inverse_size
        if away < nearest:
            found, tx, ty, tz, nearest = row, vx, vy, vz, away
    return found, tx, ty, tz


@njit(cache=True, nogil=True)
def _begin_sums(sums, counters, row, x, y, z):
    """An empty place in the sums for a row, of voxel (x, y, z), that this frame had not touched."""
    place = counters[TOUCHED]
    counters[TOUCHED] += 1
    sums.places[row] = place
    sums.rows[place] = row
    sums.voxels[place, 0], sums.voxels[place, 1], sums.voxels[place, 2] = x, y, z
    sums.values[place, :] = 0
    return place


@njit(cache=True, nogil=True)
def sum_rows(start, image, rgb, camera, inverse_size, max_points, blocks, ids, points, sums, counters):
    """Adds image rows from `start` to the voxels' sums; returns the row reached.

    That is H, or earlier when the arrays may run out of room within the next image row: let them grow and
    call again. Arrays are taken out of their tuples, and calls kept to rare events: in numba each costs
    reference counts that add up to more than the work.
    """
    depth, slots = image.depth, blocks.slots
    values, places, row_at = sums.values, sums.places, sums.rows
    h, w = image.du.shape
    xyz = np.empty((3, w))
    voxels = np.empty((3, w), np.int32)
    normals = np.empty((3, w), np.float32)
    lx = ly = lz = np.int32(0)
    block = -1
    room = min(len(blocks.first), len(blocks.keys) // 2)
    for v in range(start, h):
        if counters[LIVE] < max_points and (counters[ROWS] + w > len(ids) or counters[BLOCKS] + w > room):
            return v
        _back_project_row(v, image, camera, inverse_size, xyz, voxels, normals)
        u = 0
        while u < w:
            if depth[v + 1, u + 1] <= 0:
                u += 1
                continue
            x, y, z = voxels[0, u], voxels[1, u], voxels[2, u]
            if block < 0 or x >> 3 != lx or y >> 3 != ly or z >> 3 != lz:
                lx, ly, lz = x >> 3, y >> 3, z >> 3
                is_full = counters[LIVE] >= max_points
                block = find_or_add_block(blocks, -1 if is_full else counters[BLOCKS], lx, ly, lz)
                counters[BLOCKS] = max(counters[BLOCKS], block + 1)
            slot = slot_of(x, y, z)
            row = slots[block, slot] if block >= 0 else -1
            tx, ty, tz = x, y, z
            if row < 0:
                row, tx, ty, tz = _twin(blocks, block, points, xyz[0, u], xyz[1, u], xyz[2, u], x, y, z, inverse_size)
            if row < 0 and block >= 0 and counters[LIVE] < max_points:
                row = _bear_row(blocks, block, slot, ids, points, counters)
                for axis in range(3):
                    points[row, axis] = xyz[axis, u]
            place = -1
            if row >= 0:
                place = places[row]
                if place >= counters[TOUCHED] or row_at[place] != row:
                    place = _begin_sums(sums, counters, row, tx, ty, tz)
            n = 0
            px = py = pz = 0.0
            nx = ny = nz = np.float32(0)
            red = green = blue = 0
            # A run of pixels in one voxel is summed in registers.
            while u < w and voxels[0, u] == x and voxels[1, u] == y and voxels[2, u] == z and depth[v + 1, u + 1] > 0:
                px += xyz[0, u]
                py += xyz[1, u]
                pz += xyz[2, u]
                red += rgb[v, u, 0]
                green += rgb[v, u, 1]
                blue += rgb[v, u, 2]
                nx += normals[0, u]
                ny += normals[1, u]
                nz += normals[2, u]
                n += 1
                u += 1
            if place < 0:
                counters[DROPPED] += n
                continue
            values[place, 0] += px
            values[place, 1] += py
            values[place, 2] += pz
            values[place, 3] += red
            values[place, 4] += green
            values[place, 5] += blue
            values[place, 6] += nx
            values[place, 7] += ny
            values[place, 8] += nz
            values[place, 9] += n
    return h


@njit(cache=True, nogil=True)
def apply_sums(sums, touched, rotation, voxel_size, max_weight, points):
    """Moves the points' running means by what the frame says: each frame counts once, whatever its pixels. A point
    does not leave its voxel."""
    r = rotation
    for place in range(touched):
        value, point = sums.values[place], points[sums.rows[place]]
        weight = min(point[9] + 1.0, max_weight)
        share = 1.0 / weight
        for column in range(6):
            point[column] += (value[column] / value[9] - point[column]) * share
        for axis in range(3):
            low = sums.voxels[place, axis] * voxel_size
            point[axis] = min(max(point[axis], low), low + voxel_size)
        point[9] = weight
        length = np.sqrt(value[6] ** 2 + value[7] ** 2 + value[8] ** 2)
        if length > 0:
            for axis in range(3):
                normal = (r[axis, 0] * value[6] + r[axis, 1] * value[7] + r[axis, 2] * value[8]) / length
                point[6 + axis] += (normal - point[6 + axis]) * share


@njit(cache=True, nogil=True)
def copy_points(points, rows, xyz, rgb, normals, weight):
    """What the map's rows are, as in `Cloud`: colours rounded, normals of unit length, 0 where unknown."""
    for i in range(len(rows)):
        r = rows[i]
        x, y, z = points[r, 6], points[r, 7], points[r, 8]
        length = np.sqrt(x * x + y * y + z * z)
        for k in range(3):
            xyz[i, k] = points[r, k]
            rgb[i, k] = np.uint8(min(max(np.rint(points[r, 3 + k]), np.float32(0)), np.float32(255)))
            normals[i, k] = points[r, 6 + k] / length if length > 1e-6 else np.float32(0)
        weight[i] = points[r, WEIGHT]
