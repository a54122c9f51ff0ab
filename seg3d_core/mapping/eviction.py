# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Which points leave a map that has reached its budget: those far from the camera and seen least.

A point's merit is its sightings over the squared distance from the camera: one that 16 frames saw, 4 m away, ranks with
one that a single frame saw, 1 m away. Those of least merit leave, and what the newest frame sees leaves after all else.
Merits are compared in steps of a 16th of a power of two; within the last step blocks that were mapped first go first.

Nothing is sorted and next to nothing allocated, since this runs where memory has run out, too.
"""

# numba infers the types of kernels.
# mypy: allow-untyped-defs

from __future__ import annotations

import numpy as np
from numba import njit

from ..types import Array
from .block_index import BLOCK_SLOTS, Blocks
from .fusion import WEIGHT

# Bytes of a row (id, columns, place in the sums, chain, number of its pose) and of a block (slots, coordinates, chain's
# head and length, its part of the hash table), at most.
ROW_BYTES = 8 + 40 + 4 + 4 + 4
BLOCK_BYTES = 4 * BLOCK_SLOTS + 12 + 4 + 4 + 96
# Above this share of the budget points leave, until this share is held: rarely, and then many at once, for a map is
# looked at as a whole and squeezed each time.
EVICT_ABOVE, EVICT_TO = 0.9, 0.75

# A positive float32 without sign and all but four bits of its mantissa.
_DROPPED_BITS = 19
_STEPS = 1 << (31 - _DROPPED_BITS)


def evict(
    blocks: Blocks, count: int, points: Array, seen: Array, camera: Array, surplus_points: int, surplus_bytes: int
) -> Array:
    """Takes points out of chains, slots and the map until so many, and so many bytes, are freed: their rows, int64.

    `points` float32 (R, 10), whose weights become 0; `seen` bool (R,): what the newest frame sees, or (0,) where that
    is unknown; `camera` float64 (3,) in metres. A block is freed with the last of its points.
    """
    rows_at, blocks_at = np.zeros(2 * _STEPS, np.int64), np.zeros(2 * _STEPS, np.int64)
    _count_steps(blocks, count, points, seen, camera, rows_at, blocks_at)
    gone = np.cumsum(rows_at)
    freed = ROW_BYTES * gone + BLOCK_BYTES * np.cumsum(blocks_at)
    last = max(int(np.searchsorted(gone, surplus_points)), int(np.searchsorted(freed, surplus_bytes)))
    last = min(last, 2 * _STEPS - 1)
    before = (int(gone[last - 1]), int(freed[last - 1])) if last else (0, 0)
    rows = np.empty(int(gone[last]), np.int64)
    n = _take_steps(
        blocks, count, points, seen, camera, last, surplus_points - before[0], surplus_bytes - before[1], rows
    )
    return rows[:n]


@njit(cache=True, nogil=True)
def _step_of(points, row, seen, camera):
    x = np.float32(points[row, 0] - np.float32(camera[0]))
    y = np.float32(points[row, 1] - np.float32(camera[1]))
    z = np.float32(points[row, 2] - np.float32(camera[2]))
    squared = max(x * x + y * y + z * z, np.float32(1e-6))
    merit = np.float32(points[row, WEIGHT] / squared)
    step = merit.view(np.int32) >> _DROPPED_BITS
    return step + _STEPS if len(seen) > 0 and seen[row] else step


@njit(cache=True, nogil=True)
def _count_steps(blocks, count, points, seen, camera, rows_at, blocks_at):
    """How many points each step has, and in how many blocks it is the largest."""
    for block in range(count):
        top = -1
        row = blocks.first[block]
        while row >= 0:
            step = _step_of(points, row, seen, camera)
            rows_at[step] += 1
            top = max(top, step)
            row = blocks.following[row]
        if top >= 0:
            blocks_at[top] += 1


@njit(cache=True, nogil=True)
def _take_steps(blocks, count, points, seen, camera, last, rest_points, rest_bytes, out):
    """All points below the step `last`, and those in it, block by block, while more must be freed: how many."""
    n = 0
    for block in range(count):
        takes_last = rest_points > 0 or rest_bytes > 0
        before, begin, has_last = -1, n, False
        row = blocks.first[block]
        while row >= 0:
            after = blocks.following[row]
            step = _step_of(points, row, seen, camera)
            if step < last or (step == last and takes_last):
                out[n] = row
                n += 1
                if step == last:
                    has_last = True
                    rest_points -= 1
                    rest_bytes -= ROW_BYTES
                if before < 0:
                    blocks.first[block] = after
                else:
                    blocks.following[before] = after
            else:
                before = row
            row = after
        if n == begin:
            continue
        blocks.points[block] -= n - begin
        if blocks.points[block] == 0 and has_last:
            rest_bytes -= BLOCK_BYTES
        for i in range(begin, n):
            points[out[i], WEIGHT] = 0
        for slot in range(len(blocks.slots[block])):
            row = blocks.slots[block, slot]
            if row >= 0 and points[row, WEIGHT] <= 0:
                blocks.slots[block, slot] = -1
    return n


@njit(cache=True, nogil=True)
def squeeze_rows(ids, points, anchors, new_rows):
    """Moves live rows to the front, in order; writes where each of R rows is now, -1 = nowhere, into int64 (R,)."""
    n = 0
    for row in range(len(new_rows)):
        if points[row, WEIGHT] <= 0:
            new_rows[row] = -1
            continue
        new_rows[row] = n
        if n < row:
            ids[n] = ids[row]
            points[n, :] = points[row, :]
            anchors[n] = anchors[row]
        n += 1
