# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Which points lie beside which: neighbour graphs of clouds, as symmetric sparse rows.

Points are sorted by cells of a grid, and a search goes cell by cell: the cells around one are nine runs of the
sorted points, and all nine move forward together with the cell. So no tree is built and no hash table asked.
"""

# numba infers the types of kernels.
# mypy: allow-untyped-defs

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit

from ..errors import Seg3DError
from ..types import Array

SPACING_SAMPLE = 128
MOST_NEIGHBOURS = 64
_MOST_POINTS = 0.95
# Grid coordinates below this make a key of 63 bits.
_MOST_CELLS = 1 << 20
_FAR = np.float32(3e38)


@dataclass(frozen=True, eq=False)
class Neighbours:
    """A graph of N points in CSR form: the neighbours of i are `indices[indptr[i]:indptr[i + 1]]`, ascending.

    indptr int64 (N + 1,); indices int32 (E,). Symmetric, and no point is its own neighbour.
    """

    indptr: Array
    indices: Array

    def __len__(self) -> int:
        """Points, not edges."""
        return len(self.indptr) - 1


def nearest_neighbours(xyz: Array, spacing: float | None = None, count: int = 8, reach: float = 3.0) -> Neighbours:
    """The `count` nearest points of each point within `reach` x `spacing`, exactly, and who has it among theirs.

    xyz float (N, 3) in metres; spacing in metres, the usual distance of a point to its nearest one, estimated
    where None. At equal distances the smaller row is nearer. The same cloud gives the same graph.
    Raises Seg3DError for NaN, for a spacing that is not above 0, and for a cloud too wide for it.
    """
    xyz = checked_positions(xyz)
    if not 1 <= count <= MOST_NEIGHBOURS:
        raise Seg3DError(f"count = {count} neighbours: choose 1 to {MOST_NEIGHBOURS}")
    if len(xyz) < 2:
        return Neighbours(np.zeros(len(xyz) + 1, np.int64), np.empty(0, np.int32))
    spacing = usual_spacing(xyz) if spacing is None else float(spacing)
    radius = reach * spacing
    if not (np.isfinite(radius) and radius > 0):
        raise Seg3DError(f"points {spacing} m apart, looked for within {reach} times that: both must be above 0")
    low = xyz.min(axis=0).astype(np.float64)
    edge = cell_edge(radius)
    order, keys, strides = _sort_by_cell(xyz, low, edge)
    nearest = np.full((len(xyz), count), -1, np.int32)
    wanted = np.ones(len(xyz), np.bool_)
    search(xyz[order], order, keys, strides, low, edge, np.float32(radius * radius), wanted, nearest)
    return _symmetric(nearest, order)


def map_neighbours(xyz: Array) -> Neighbours:
    """`nearest_neighbours` of a cloud that was fused in voxels, float (N, 3) in metres.

    Where the surface lies beside a face that two voxels share, their points lie close together, so that in a densely
    seen map the usual spacing says little of how far apart voxels are. What all but a few points keep does.
    """
    if len(xyz) < 2 or not np.ptp(np.asarray(xyz), axis=0).any():
        return nearest_neighbours(xyz, 1.0)
    return nearest_neighbours(xyz, usual_spacing(xyz, _MOST_POINTS))


def usual_spacing(xyz: Array, share: float = 0.5) -> float:
    """The distance in metres to its nearest point that a `share` of the points does not exceed, by default the median,
    over a sample; xyz float (N, 3), N at least 2.

    Points in one place count as one. Raises Seg3DError where all are in one place.
    """
    xyz = checked_positions(xyz)
    step = max(len(xyz) // SPACING_SAMPLE, 1)
    squared = _nearest_squared(np.ascontiguousarray(xyz.T), np.arange(0, len(xyz), step))
    squared = squared[squared < _FAR]
    if not len(squared):
        raise Seg3DError("all points of the cloud lie in one place: it has no spacing")
    return float(np.sqrt(np.quantile(squared, share)))


def checked_positions(xyz: Array) -> Array:
    xyz = np.require(xyz, np.float32, ["C", "A", "W"])
    if xyz.ndim != 2 or xyz.shape[1] != 3:
        raise Seg3DError(f"positions of shape {xyz.shape}: expected (N, 3) in metres")
    if not np.isfinite(xyz).all():
        raise Seg3DError("the cloud holds NaN or infinite positions: leave those points out")
    return xyz


def cell_edge(radius: float) -> float:
    """Of the cells for a search within `radius`."""
    # A little wider than the reach, so that rounding never puts a cell between two points within reach.
    return 1.0001 * radius


def _sort_by_cell(xyz: Array, low: Array, edge: float) -> tuple[Array, Array, Array]:
    """Rows int32 (N,) ordered by cell, their cells' keys int64 (N,), and the key's strides int64 (3,)."""
    sides = np.floor((xyz.max(axis=0) - low) / edge).astype(np.int64) + 1
    if sides.max() >= _MOST_CELLS:
        raise Seg3DError(
            f"a cloud {float((sides * edge).max()):.0f} m wide is too wide for cells of {edge:.2g} m: "
            "is the spacing right, and is some point far off?"
        )
    # Room of one cell around, so that no neighbour of a border cell wraps into another row of cells.
    strides = np.array([(sides[1] + 2) * (sides[2] + 2), sides[2] + 2, 1], np.int64)
    keys = cell_keys(xyz, low, edge, strides)
    order = np.argsort(keys, kind="stable").astype(np.int32)
    return order, keys[order], strides


@njit(cache=True, nogil=True)
def cell_keys(xyz, low, edge, strides):
    keys = np.empty(len(xyz), np.int64)
    for i in range(len(xyz)):
        key = np.int64(0)
        for axis in range(3):
            key += (np.int64((xyz[i, axis] - low[axis]) / edge) + 1) * strides[axis]
        keys[i] = key
    return keys


@njit(cache=True, nogil=True, fastmath={"contract", "reassoc", "nnan", "ninf", "nsz"})
def _nearest_squared(columns, sample):
    """Squared distance of each sampled point to the nearest one elsewhere, `_FAR` if none."""
    x, y, z = columns
    out = np.empty(len(sample), np.float32)
    for s in range(len(sample)):
        i = sample[s]
        px, py, pz = x[i], y[i], z[i]
        nearest = _FAR
        for j in range(len(x)):
            d = (x[j] - px) * (x[j] - px) + (y[j] - py) * (y[j] - py) + (z[j] - pz) * (z[j] - pz)
            d = d if d > np.float32(0) else _FAR
            nearest = d if d < nearest else nearest
        out[s] = nearest
    return out


@njit(cache=True, nogil=True)
def search(xyz, order, keys, strides, low, edge, limit, wanted, nearest):
    """Fills `nearest` int32 (W, count), which is -1, with the places within reach, nearest first, of what is `wanted`.

    The W wanted places, bool (N,), have their rows in order.
    xyz (N, 3) and `order` (the rows) are sorted by `keys`; a place is an index into them; `limit` is the reach squared.
    The nine runs of cells around a cell are followed by cursors. The cell's own column is searched first, since
    what is found there shortens the search in the others.
    """
    n, count = len(keys), nearest.shape[1]
    cursors, ends = np.zeros(9, np.int64), np.zeros(9, np.int64)
    squared, places = np.empty(count, np.float32), np.empty(count, np.int32)
    first = row = 0
    while first < n:
        last, is_wanted = cell_end(keys, first, wanted)
        if not is_wanted:
            first = last
            continue
        follow(keys, keys[first], strides, cursors, ends)
        for i in range(first, last):
            if not wanted[i]:
                continue
            worst = limit
            found = _scan(xyz, order, i, cursors[4], ends[4], worst, squared, places, 0)
            across, along = _place_in_cell(xyz[i, 0] - low[0], edge), _place_in_cell(xyz[i, 1] - low[1], edge)
            for run in range(9):
                if run == 4 or cursors[run] == ends[run]:
                    continue
                if found == count:
                    worst = squared[count - 1]
                gap_x = across if run < 3 else (edge - across if run > 5 else 0.0)
                gap_y = along if run % 3 == 0 else (edge - along if run % 3 == 2 else 0.0)
                if (gap_x * gap_x + gap_y * gap_y) * 0.999 <= worst:
                    found = _scan(xyz, order, i, cursors[run], ends[run], worst, squared, places, found)
            for k in range(found):
                nearest[row, k] = places[k]
            row += 1
        first = last


@njit(cache=True, nogil=True)
def cell_end(keys, first, wanted):
    """Where the cell of place `first` ends, and whether any of its points is wanted."""
    last, found = first, False
    while last < len(keys) and keys[last] == keys[first]:
        found |= wanted[last]
        last += 1
    return last, found


@njit(cache=True, nogil=True)
def follow(keys, key, strides, cursors, ends):
    """Moves the nine runs of cells on to those around the cell `key`."""
    n = len(keys)
    for run in range(9):
        middle = key + (run // 3 - 1) * strides[0] + (run % 3 - 1) * strides[1]
        place = cursors[run]
        while place < n and keys[place] < middle - 1:
            place += 1
        cursors[run] = place
        place = max(place, ends[run])
        while place < n and keys[place] <= middle + 1:
            place += 1
        ends[run] = place


@njit(cache=True, nogil=True)
def _place_in_cell(offset, edge):
    """How far from the low side of its cell, which is found as `cell_keys` finds it."""
    return offset - np.int64(offset / edge) * edge


@njit(cache=True, nogil=True)
def _scan(xyz, order, i, start, end, worst, squared, places, found):
    """Puts the points `start` to `end` that are nearer than those kept so far into `squared` and `places`, sorted."""
    count = len(places)
    x, y, z = xyz[i, 0], xyz[i, 1], xyz[i, 2]
    for j in range(start, end):
        dx, dy, dz = xyz[j, 0] - x, xyz[j, 1] - y, xyz[j, 2] - z
        d = dx * dx + dy * dy + dz * dz
        if d > worst or j == i:
            continue
        if found == count:
            if d == worst and order[j] > order[places[count - 1]]:
                continue
            k = count - 1
        else:
            k = found
            found += 1
        while k > 0 and (squared[k - 1] > d or (squared[k - 1] == d and order[places[k - 1]] > order[j])):
            squared[k], places[k] = squared[k - 1], places[k - 1]
            k -= 1
        squared[k], places[k] = d, j
        if found == count:
            worst = squared[count - 1]
    return found


def _symmetric(nearest: Array, order: Array) -> Neighbours:
    """The graph whose edges are those of `nearest` int32 (N, k), -1 = none, in both directions.

    `nearest` numbers points by their place in `order` int32 (N,), which keeps what is near in space near in memory.
    """
    degrees = np.zeros(len(nearest) + 1, np.int64)
    one_way = _count_edges(nearest, order, degrees)
    indptr = np.cumsum(degrees)
    indices = np.empty(indptr[-1], np.int32)
    _fill_edges(nearest, order, one_way, indptr, indices)
    return Neighbours(indptr, indices)


@njit(cache=True, nogil=True)
def _count_edges(nearest, order, degrees):
    """Adds the degree of row i to `degrees[i + 1]`; which entries of `nearest` are not answered, bool (N, k)."""
    one_way = np.zeros(nearest.shape, np.bool_)
    for i in range(len(nearest)):
        for k in range(nearest.shape[1]):
            j = nearest[i, k]
            if j < 0:
                break
            degrees[order[i] + 1] += 1
            answered = False
            for m in range(nearest.shape[1]):
                answered |= nearest[j, m] == i
            if not answered:
                one_way[i, k] = True
                degrees[order[j] + 1] += 1
    return one_way


@njit(cache=True, nogil=True)
def _fill_edges(nearest, order, one_way, indptr, indices):
    filled = np.empty(len(nearest), np.int64)
    for i in range(len(nearest)):
        filled[i] = indptr[order[i]]
    for i in range(len(nearest)):
        for k in range(nearest.shape[1]):
            j = nearest[i, k]
            if j < 0:
                break
            indices[filled[i]] = order[j]
            filled[i] += 1
            if one_way[i, k]:
                indices[filled[j]] = order[i]
                filled[j] += 1
    for i in range(len(nearest)):
        sort_short(indices, indptr[i], indptr[i + 1])


@njit(cache=True, nogil=True)
def sort_short(values, start, end):
    """Insertion sort of a few values in place."""
    for i in range(start + 1, end):
        value = values[i]
        j = i
        while j > start and values[j - 1] > value:
            values[j] = values[j - 1]
            j -= 1
        values[j] = value
