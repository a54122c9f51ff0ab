"""Which points leave a map that has reached its budget: those far from the camera and seen least.

The order of leaving is by distance from the camera over the root of the sightings, the largest first: a point that 16
frames saw, 4 m away, ranks with one that a single frame saw, 1 m away. What the newest frame sees leaves after all
else, and of equals the older goes.
"""

# numba infers the types of kernels.
# mypy: allow-untyped-defs

from __future__ import annotations

import numpy as np
from numba import njit

from ..types import Array
from .block_index import BLOCK_SLOTS
from .fusion import WEIGHT, XYZ

# Bytes of a row (id, columns, place in the sums, chain) and of a block (slots, coordinates, chain's head and length,
# its part of the hash table), at most.
ROW_BYTES = 8 + 40 + 4 + 4
BLOCK_BYTES = 4 * BLOCK_SLOTS + 12 + 4 + 4 + 96
# Above this share of the budget points leave, until this share is held: rarely, and then many at once, for a map is
# looked at as a whole and squeezed each time.
EVICT_ABOVE, EVICT_TO = 0.9, 0.75


def order_of_leaving(points: Array, rows: Array, seen: Array, camera: Array) -> Array:
    """The rows int64 (n,), ascending before, who leaves first in front.

    `points` float32 (R, 10) of the map; `seen` bool (n,): whether the newest frame sees them; `camera` (3,) in metres.
    """
    squared = ((points[rows, XYZ] - np.asarray(camera, np.float32)) ** 2).sum(axis=1)
    merit = points[rows, WEIGHT] / np.maximum(squared, np.float32(1e-6))
    parts = [np.flatnonzero(~seen), np.flatnonzero(seen)]
    order = np.concatenate([part[np.argsort(merit[part], kind="stable")] for part in parts])
    return rows[order]


def leaving(order: Array, block_of_row: Array, surplus_points: int, surplus_bytes: int) -> Array:
    """Of rows in their order of leaving, as few as free so many points and bytes: int64, ascending.

    A block is freed with the last of its points. `block_of_row` int32 (R,).
    """
    count = len(order)
    last_of_block = np.full(int(block_of_row.max(initial=-1)) + 1, -1, np.int64)
    last_of_block[block_of_row[order]] = np.arange(count)
    emptied = np.bincount(last_of_block[last_of_block >= 0], minlength=count)
    freed = ROW_BYTES * np.arange(1, count + 1) + BLOCK_BYTES * np.cumsum(emptied)
    enough = int(np.searchsorted(freed, surplus_bytes)) + 1 if surplus_bytes > 0 else 0
    return np.sort(order[: max(enough, surplus_points)])


@njit(cache=True, nogil=True)
def blocks_of_rows(blocks, count, out):
    """Writes the block of each row that is in a chain into `out` int32 (R,)."""
    for block in range(count):
        row = blocks.first[block]
        while row >= 0:
            out[row] = block
            row = blocks.following[row]


@njit(cache=True, nogil=True)
def remove_dead(blocks, count, points):
    """Takes all rows without weight out of chains and slots."""
    for block in range(count):
        before, dead = -1, 0
        row = blocks.first[block]
        while row >= 0:
            after = blocks.following[row]
            if points[row, WEIGHT] <= 0:
                dead += 1
                if before < 0:
                    blocks.first[block] = after
                else:
                    blocks.following[before] = after
            else:
                before = row
            row = after
        blocks.points[block] -= dead
        if dead == 0 or len(blocks.slots) == 0:
            continue
        for slot in range(BLOCK_SLOTS):
            row = blocks.slots[block, slot]
            if row >= 0 and points[row, WEIGHT] <= 0:
                blocks.slots[block, slot] = -1
