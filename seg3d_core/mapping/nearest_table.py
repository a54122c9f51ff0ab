# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""The neighbour graph of a cloud that grows: what comes, moves or goes is looked for, the rest stays as it is.

The outcome is that of `nearest_neighbours` on the same positions, at a cost that follows what has changed.
"""

# numba infers the types of kernels.
# mypy: allow-untyped-defs

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit

from ..errors import Seg3DError
from ..types import Array
from .neighbours import Neighbours, cell_edge, cell_end, cell_keys, checked_positions, follow, search, sort_short

# Cells on each side of the first cloud's corner for which keys have room.
_HALF = 1 << 19
_STRIDES = np.array([1 << 41, 1 << 20, 1], np.int64)
_NOBODY = np.float32(-1)


@dataclass(frozen=True, eq=False)
class NearestTable:
    """The `count` nearest points of each of S points within a radius, and the graph of them; nothing is ever
    written to.

    xyz float32 (S, 3) in metres; nearest int32 (S, count), nearest first, -1 = fewer; worst float32 (S,), the squared
    distance at which a point would enter that list, -1 for points that are gone; order int32 (A,), the points that
    are there by cell, and keys int64 (A,) of the cells.
    """

    radius: float
    low: Array
    xyz: Array
    nearest: Array
    worst: Array
    order: Array
    keys: Array
    graph: Neighbours

    @classmethod
    def empty(cls, low: Array, spacing: float, count: int = 8, reach: float = 3.0) -> NearestTable:
        """For points around `low` (3,), searched within `reach` x `spacing` (metres)."""
        radius = reach * spacing
        return cls(
            radius,
            np.asarray(low, np.float64) - _HALF * cell_edge(radius),
            np.empty((0, 3), np.float32),
            np.empty((0, count), np.int32),
            np.empty(0, np.float32),
            np.empty(0, np.int32),
            np.empty(0, np.int64),
            Neighbours(np.zeros(1, np.int64), np.empty(0, np.int32)),
        )

    def __len__(self) -> int:
        """Points, with those that are gone."""
        return len(self.xyz)

    def updated(self, xyz: Array, moved: Array, gone: Array) -> NearestTable:
        """The table after some of its points have moved or gone and others have come, which stand behind them.

        xyz float (S', 3) are the positions of now; moved and gone bool (S,). What has neither moved nor gone is taken
        to be where it was. What is gone stays so. Raises Seg3DError for NaN, and for a point too far off.
        """
        xyz = checked_positions(xyz)
        before, size = len(self), len(xyz)
        fresh = np.ones(size, np.bool_)
        fresh[:before] = moved & (self.worst >= 0)
        left = np.zeros(size, np.bool_)
        left[:before] = (gone | moved) & (self.worst >= 0)
        fresh[:before] &= ~gone
        positions = np.concatenate([self.xyz, xyz[before:]])
        positions[fresh] = xyz[fresh]
        nearest = _roomy(size, self.nearest.shape[1])
        nearest[:before], nearest[before:] = self.nearest, -1
        worst = np.concatenate([self.worst, np.full(size - before, self._limit)])
        worst[:before][gone] = _NOBODY
        order, keys = self._sorted(positions, fresh, left)
        lost = left.copy()
        _mark_lost(self.graph.indptr, self.graph.indices, left[:before], nearest, lost)
        edge = cell_edge(self.radius)
        sorted_xyz, wanted = positions.take(order, axis=0), (lost | fresh).take(order)
        _mark_reached(sorted_xyz, keys, _STRIDES, fresh.take(order), worst.take(order), wanted)
        places = np.full((np.count_nonzero(wanted), nearest.shape[1]), -1, np.int32)
        search(sorted_xyz, order, keys, _STRIDES, self.low, edge, self._limit, wanted, places)
        again = left
        again[order[wanted]] = True
        nearest[again] = -1
        _write_lists(places, order, wanted, sorted_xyz, self._limit, nearest, worst)
        graph = _mended(self.graph, nearest, again)
        return NearestTable(self.radius, self.low, positions, nearest, worst, order, keys, graph)

    def without(self, kept: Array) -> NearestTable:
        """The same of the points `kept` bool (S,) alone; only those that are gone may be left out."""
        number = np.append(np.where(kept, np.cumsum(kept) - 1, -1), -1).astype(np.int32)
        rows = np.flatnonzero(kept)
        degrees = np.diff(self.graph.indptr)[rows]
        graph = Neighbours(np.concatenate([[0], np.cumsum(degrees)]), number[self.graph.indices])
        return NearestTable(
            self.radius,
            self.low,
            self.xyz[rows],
            number[self.nearest[rows]],
            self.worst[rows],
            number[self.order],
            self.keys,
            graph,
        )

    @property
    def _limit(self) -> np.float32:
        return np.float32(self.radius * self.radius)

    def _sorted(self, xyz: Array, fresh: Array, left: Array) -> tuple[Array, Array]:
        """Order and keys, with what has come at its place."""
        edge = cell_edge(self.radius)
        coming = np.flatnonzero(fresh).astype(np.int32)
        if len(coming) and np.abs((xyz[coming] - self.low) / edge - _HALF).max() >= _HALF - 2:
            raise Seg3DError(
                f"a cloud over {_HALF * edge:.0f} m wide is too wide for a search within {self.radius:.2g} m"
            )
        keys = cell_keys(xyz[coming], self.low, edge, _STRIDES)
        by_cell = np.argsort(keys, kind="stable")
        stay = ~left.take(self.order)
        return _merged(self.order[stay], self.keys[stay], coming[by_cell], keys[by_cell])


def _roomy(rows: int, columns: int) -> Array:
    """int32 (rows, columns) in a block of one of few sizes: what grows a little each time would never fit into memory
    that was given back, and fresh pages cost more than what is written to them."""
    step = 1 << max(rows.bit_length() - 3, 0)
    return np.empty((-(-rows // step) * step, columns), np.int32)[:rows]


def _mended(graph: Neighbours, nearest: Array, again: Array) -> Neighbours:
    """The symmetric graph of `nearest` int32 (S, k), given the one of before the lists of `again` bool (S,) changed."""
    size = len(nearest)
    open_rows, added = _rows_to_mend(graph.indptr, graph.indices, nearest, again)
    starts = np.cumsum(added)
    links = np.empty(starts[-1], np.int32)
    _add_links(nearest, again, starts[:-1].copy(), links)
    indptr = np.zeros(size + 1, np.int64)
    indices = _roomy(len(graph.indices) + len(links), 1)[:, 0]
    _write_rows(graph.indptr, graph.indices, nearest, again, open_rows, starts, links, indptr, indices)
    return Neighbours(indptr, indices[: indptr[-1]])


@njit(cache=True, nogil=True)
def _merged(order, keys, coming, coming_keys):
    """Two orders by key as one."""
    size = len(order) + len(coming)
    out, out_keys = np.empty(size, np.int32), np.empty(size, np.int64)
    i = j = 0
    for place in range(size):
        if j >= len(coming) or (i < len(order) and keys[i] <= coming_keys[j]):
            out[place], out_keys[place] = order[i], keys[i]
            i += 1
        else:
            out[place], out_keys[place] = coming[j], coming_keys[j]
            j += 1
    return out, out_keys


@njit(cache=True, nogil=True)
def _mark_lost(indptr, indices, left, nearest, lost):
    """Marks the points that have one among their nearest which is not where it was."""
    for p in range(len(left)):
        if left[p]:
            for e in range(indptr[p], indptr[p + 1]):
                if _has(nearest, indices[e], p):
                    lost[indices[e]] = True


@njit(cache=True, nogil=True)
def _mark_reached(xyz, keys, strides, fresh, worst, wanted):
    """Marks the points whose lists a fresh one enters; all arrays are sorted by `keys`."""
    cursors, ends = np.zeros(9, np.int64), np.zeros(9, np.int64)
    first = 0
    while first < len(keys):
        last, is_fresh = cell_end(keys, first, fresh)
        if is_fresh:
            follow(keys, keys[first], strides, cursors, ends)
            for i in range(first, last):
                if not fresh[i]:
                    continue
                x, y, z = xyz[i, 0], xyz[i, 1], xyz[i, 2]
                for run in range(9):
                    for j in range(cursors[run], ends[run]):
                        dx, dy, dz = xyz[j, 0] - x, xyz[j, 1] - y, xyz[j, 2] - z
                        wanted[j] |= dx * dx + dy * dy + dz * dz <= worst[j]
        first = last


@njit(cache=True, nogil=True)
def _write_lists(places, order, wanted, xyz, limit, nearest, worst):
    """Lists of points found by place into those by point, and the distance of the last one in a full list."""
    count, row = nearest.shape[1], -1
    for i in range(len(order)):
        if not wanted[i]:
            continue
        p = order[i]
        row += 1
        for k in range(count):
            nearest[p, k] = order[places[row, k]] if places[row, k] >= 0 else -1
        worst[p] = limit
        last = places[row, count - 1]
        if last >= 0:
            dx, dy, dz = xyz[last, 0] - xyz[i, 0], xyz[last, 1] - xyz[i, 1], xyz[last, 2] - xyz[i, 2]
            worst[p] = dx * dx + dy * dy + dz * dz


@njit(inline="always")
def _has(nearest, p, q):
    found = False
    for k in range(nearest.shape[1]):
        found |= nearest[p, k] == q
    return found


@njit(cache=True, nogil=True)
def _rows_to_mend(indptr, indices, nearest, again):
    """Which rows of the graph may change, and how many links each gets from lists made again: (S + 1,), one later."""
    open_rows, added = again.copy(), np.zeros(len(nearest) + 1, np.int64)
    for p in range(len(nearest)):
        if not again[p]:
            continue
        if p + 1 < len(indptr):
            for e in range(indptr[p], indptr[p + 1]):
                open_rows[indices[e]] = True
        for k in range(nearest.shape[1]):
            q = nearest[p, k]
            if q < 0:
                break
            open_rows[q] = True
            added[p + 1] += 1
            added[q + 1] += 1
    return open_rows, added


@njit(cache=True, nogil=True)
def _add_links(nearest, again, filled, links):
    for p in range(len(nearest)):
        if again[p]:
            for k in range(nearest.shape[1]):
                q = nearest[p, k]
                if q < 0:
                    break
                links[filled[p]] = q
                links[filled[q]] = p
                filled[p] += 1
                filled[q] += 1


@njit(cache=True, nogil=True)
def _write_rows(old_indptr, old_indices, nearest, again, open_rows, starts, links, indptr, indices):
    filled, p = np.int64(0), 0
    while p < len(nearest):
        begin, closed = filled, p
        while closed + 1 < len(old_indptr) and not open_rows[closed]:
            closed += 1
        if closed > p:
            # All at once: most rows stay as they are.
            start, end = old_indptr[p], old_indptr[closed]
            indices[filled : filled + end - start] = old_indices[start:end]
            indptr[p + 1 : closed + 1] = old_indptr[p + 1 : closed + 1] + (filled - start)
            filled += end - start
            p = closed
            continue
        if p + 1 < len(old_indptr):
            for e in range(old_indptr[p], old_indptr[p + 1]):
                q = old_indices[e]
                is_same = not (again[p] or again[q])
                if is_same or _has(nearest, p, q) or _has(nearest, q, p):
                    indices[filled] = q
                    filled += 1
        for e in range(starts[p], starts[p + 1]):
            is_there = False
            for k in range(begin, filled):
                is_there |= indices[k] == links[e]
            if not is_there:
                indices[filled] = links[e]
                filled += 1
        sort_short(indices, begin, filled)
        indptr[p + 1] = filled
        p += 1
