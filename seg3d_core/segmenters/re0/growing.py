# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""The superpoints of a map that grows: where it has changed they are cut anew, elsewhere they stay as they are.

A superpoint is cut anew when one of its points has moved, turned or changed colour by more than noise since it was
cut, has left the map, or has got a new point beside it. All points of such superpoints and the new ones are cut as a
cloud of their own. So a snapshot costs what has changed since the last one, and what is stable does not drift.
"""

# numba infers the types of kernels.
# mypy: allow-untyped-defs

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numba import njit

from ...errors import MapFileError
from ...mapping.nearest_table import NearestTable
from ...mapping.neighbours import Neighbours
from ...types import Array, Cloud
from .regions import Regions, added_up, as_floats, contacts, cut, lab_colour, regions_on, spacing_of

# A point has changed when it has moved by more than `MOVED` spacings, or `LIFTED` of them along its normal, its normal
# has turned so that the cosine is below `TURNED`, or a channel of its colour differs by more than `RECOLOURED` of 255.
MOVED, LIFTED, TURNED, RECOLOURED = 0.6, 0.2, 0.99, 8
# All starts anew where the spacing of points is off by such a share; it is measured whenever they have doubled.
SPACING_CHANGE = 0.25
# Places of points that have left the map are squeezed out when they are this share of all.
MOST_GONE = 0.2


@dataclass(frozen=True, eq=False)
class GrowingRegions:
    """Regions of all S points there have been, by place; nothing is ever written to.

    surface: their ids, ascending, and what each was like when its region was cut, with CIELAB `colour` float32 (S, 3);
    those that are gone are in no region, -1. places int64 (N,): where the points of the cloud of now stand. spacing in
    metres, measured when there were `measured` points.
    """

    surface: Cloud
    colour: Array
    places: Array
    table: NearestTable
    regions: Regions
    spacing: float
    measured: int

    @property
    def memory_bytes(self) -> int:
        """Of what is kept for each point."""
        t, s = self.table, self.surface
        of_table = (t.xyz, t.nearest, t.worst, t.order, t.keys, t.graph.indptr, t.graph.indices)
        of_surface = (s.ids, s.xyz, s.rgb, s.normals, s.weight, self.colour, self.places, self.regions.of_point)
        return sum(array.nbytes for array in of_table + of_surface)

    @classmethod
    def of(cls, cloud: Cloud) -> GrowingRegions:
        """All cut anew."""
        spacing, nobody = spacing_of(cloud), np.empty(0, np.bool_)
        low = cloud.xyz.min(axis=0) if len(cloud) else np.zeros(3)
        table = NearestTable.empty(low, spacing).updated(cloud.xyz, nobody, nobody)
        colour = lab_colour(cloud.rgb)
        regions = regions_on(cloud, table.graph, colour, spacing)
        return cls(cloud, colour, np.arange(len(cloud)), table, regions, spacing, len(cloud))

    def state(self) -> dict[str, Array]:
        """Arrays for `restored`, of the points that are there."""
        whole = self._squeezed()
        s = whole.surface
        return {
            "ids": s.ids,
            "surface": np.concatenate([s.xyz, s.normals, whole.table.xyz], axis=1),
            "rgb": s.rgb,
            "regions": whole.regions.of_point,
            "spacing": np.array([self.spacing, self.measured], np.float64),
        }

    @classmethod
    def restored(cls, state: Mapping[str, Array]) -> GrowingRegions:
        """From `state`. Raises MapFileError where the arrays do not belong together: kernels check no index."""
        ids, surface, rgb, of_point, spacing = (state[n] for n in ("ids", "surface", "rgb", "regions", "spacing"))
        n = len(ids)
        fits = surface.shape == (n, 9) and rgb.shape == (n, 3) and of_point.shape == ids.shape == (n,)
        whole = fits and spacing.shape == (2,) and np.isfinite(surface).all() and (spacing > 0).all()
        numbers = np.unique(of_point)
        if not whole or (np.diff(ids) <= 0).any() or not np.array_equal(numbers, np.arange(len(numbers))):
            raise MapFileError("damaged", "the superpoints do not fit together: save the map again")
        xyz, normals, at = (np.ascontiguousarray(surface[:, k : k + 3], np.float32) for k in (0, 3, 6))
        cloud = Cloud(ids.astype(np.int64), xyz, rgb.astype(np.uint8), normals, np.ones(n, np.float32))
        nobody, colour, of_point = np.empty(0, np.bool_), lab_colour(cloud.rgb), of_point.astype(np.int32)
        table = NearestTable.empty(at.min(axis=0), float(spacing[0])).updated(at, nobody, nobody)
        sums = added_up(of_point, colour, normals, xyz)
        pairs = contacts(table.graph, of_point, np.ones(n, np.bool_), xyz, normals, colour)
        regions = Regions(table.graph, of_point, *sums, *pairs)
        return cls(cloud, colour, np.arange(n), table, regions, float(spacing[0]), int(spacing[1]))

    def updated(self, cloud: Cloud) -> GrowingRegions:
        """The regions of what the cloud has become; ids ascending, new points' above all others.

        All is cut anew where most points have moved, or ids are not those of a cloud that grows.
        """
        known = len(self.surface)
        places, size = _places(self.surface.ids, np.ascontiguousarray(cloud.ids))
        if size < 0 or not len(self.places):
            return GrowingRegions.of(cloud)
        measured = self.measured
        if len(cloud) >= 2 * measured:
            measured = len(cloud)
            if abs(spacing_of(cloud) / self.spacing - 1) > SPACING_CHANGE:
                return GrowingRegions.of(cloud)
        now, alive = _at_places(cloud, self.surface, places, int(size))
        was_there = self.regions.of_point >= 0
        gone = was_there & ~alive[:known]
        moved, changed = self._changes(now, alive)
        if 2 * np.count_nonzero(moved) > known:
            return GrowingRegions.of(cloud)
        if size == known and not (changed.any() or gone.any()):
            return replace(self, places=places, measured=measured)
        table = self.table.updated(now.xyz, moved, gone)
        released = _released(self.regions.of_point, len(self.regions), changed | gone, table.graph)
        out = replace(self._cut_anew(now, alive, released, table), places=places, measured=measured)
        return out._squeezed() if len(cloud) < (1 - MOST_GONE) * size else out

    def _changes(self, now: Cloud, alive: Array) -> tuple[Array, Array]:
        """Which known points have moved away from their neighbours, and which have changed in any way: bool (S,)."""
        xyz, normals = as_floats(self.surface)
        return _compared(
            self.table.xyz, xyz, normals, self.surface.rgb, *as_floats(now), now.rgb, alive,
            np.float32((MOVED * self.spacing) ** 2), np.float32(LIFTED * self.spacing),
        )  # fmt: skip

    def _cut_anew(self, now: Cloud, alive: Array, released: Array, table: NearestTable) -> GrowingRegions:
        """With the `released` regions, bool (R,), and the points in none cut anew."""
        old, known = self.regions, len(self.surface)
        kept = ~released
        number = np.append(np.where(kept, np.cumsum(kept) - 1, -1), -1).astype(np.int32)
        of_point = np.full(len(now), -1, np.int32)
        of_point[:known] = number[old.of_point]
        is_loose = (of_point < 0) & alive
        loose = np.flatnonzero(is_loose)
        part = now.select(loose)
        parts = cut(part, _part_of(table.graph, loose), bool(now.normals.any()), self.spacing)
        of_point[loose] = parts + np.int32(kept.sum())
        colour = lab_colour(part.rgb)
        fresh = added_up(parts, colour, *reversed(as_floats(part)))
        sizes, sums, low, high = (
            np.concatenate([before[kept], new])
            for before, new in zip((old.sizes, old.sums, old.low, old.high), fresh, strict=True)
        )
        surface, colour = self._with(now, part, colour, loose)
        pairs = self._contacts(number, contacts(table.graph, of_point, is_loose, *as_floats(surface), colour))
        regions = Regions(table.graph, of_point, sizes, sums, low, high, *pairs)
        return replace(self, surface=surface, colour=colour, table=table, regions=regions)

    def _with(self, now: Cloud, part: Cloud, part_colour: Array, loose: Array) -> tuple[Cloud, Array]:
        """The surface and its colours, at the places `loose` as they are now."""
        known, columns = len(self.surface), []
        for name in ("xyz", "rgb", "normals", "weight"):
            column = np.concatenate([getattr(self.surface, name), getattr(now, name)[known:]])
            column[loose] = getattr(part, name)
            columns.append(column)
        colour = np.concatenate([self.colour, np.empty((len(now) - known, 3), np.float32)])
        colour[loose] = part_colour
        return Cloud(now.ids, *columns), colour

    def _contacts(self, number: Array, fresh: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        """Those between regions that are kept, as they were, and the fresh ones, by new numbers."""
        old = self.regions
        stay = (number[old.first] >= 0) & (number[old.second] >= 0)
        before = number[old.first[stay]], number[old.second[stay]], old.contact[stay]
        first, second, contact = (np.concatenate(both) for both in zip(before, fresh, strict=True))
        order = np.lexsort((second, first))
        return first[order], second[order], contact[order]

    def _squeezed(self) -> GrowingRegions:
        """Without the places of points that are gone."""
        kept = self.regions.of_point >= 0
        surface = self.surface.select(kept)
        table = self.table.without(kept)
        regions = replace(self.regions, neighbours=table.graph, of_point=self.regions.of_point[kept])
        places = np.arange(len(surface))
        return replace(self, surface=surface, colour=self.colour[kept], table=table, regions=regions, places=places)


def _at_places(cloud: Cloud, surface: Cloud, places: Array, size: int) -> tuple[Cloud, Array]:
    """The cloud at its places among `size`, elsewhere the surface; and where the cloud has points, bool (size,)."""
    if len(cloud) == size:
        return cloud, np.ones(size, np.bool_)
    new, alive = len(cloud) - (size - len(surface)), np.zeros(size, np.bool_)
    alive[places] = True
    columns = []
    for name in ("ids", "xyz", "rgb", "normals", "weight"):
        now = getattr(cloud, name)
        column = np.concatenate([getattr(surface, name), now[new:]])
        column[places] = now
        columns.append(column)
    return Cloud(*columns), alive


def _part_of(graph: Neighbours, chosen: Array) -> Neighbours:
    """The graph of the chosen points, int64 (n,) ascending, among themselves."""
    number = np.full(len(graph), -1, np.int32)
    number[chosen] = np.arange(len(chosen), dtype=np.int32)
    indptr, indices = _chosen_rows(graph.indptr, graph.indices, chosen, number)
    return Neighbours(indptr, indices)


@njit(cache=True, nogil=True)
def _places(known, ids):
    """Where each id stands among the known ones or behind them, int64 (N,), and how many places there are then.

    Both ascending. -1 places where an id that is not known lies before one that is.
    """
    places = np.empty(len(ids), np.int64)
    place = 0
    size = len(known)
    for i in range(len(ids)):
        while place < len(known) and known[place] < ids[i]:
            place += 1
        if place == len(known):
            places[i] = size
            size += 1
        elif known[place] == ids[i]:
            places[i] = place
        else:
            return places, -1
    return places, size


@njit(cache=True, nogil=True)
def _compared(table_xyz, xyz, normals, rgb, new_xyz, new_normals, new_rgb, alive, most_moved, most_lifted):
    moved, changed = np.zeros(len(xyz), np.bool_), np.zeros(len(xyz), np.bool_)
    zero = np.float32(0)
    for p in range(len(xyz)):
        if not alive[p]:
            continue
        away, lifted, cosine, length, new_length = zero, zero, zero, zero, zero
        recoloured = np.int64(0)
        for k in range(3):
            away += (new_xyz[p, k] - table_xyz[p, k]) ** 2
            lifted += (new_xyz[p, k] - xyz[p, k]) * normals[p, k]
            cosine += normals[p, k] * new_normals[p, k]
            length += normals[p, k] ** 2
            new_length += new_normals[p, k] ** 2
            recoloured += abs(np.int64(rgb[p, k]) - np.int64(new_rgb[p, k])) > RECOLOURED
        moved[p] = away > most_moved
        turned = (length > 0) != (new_length > 0) or (length > 0 and cosine < TURNED)
        changed[p] = moved[p] or abs(lifted) > most_lifted or turned or recoloured > 0
    return moved, changed


@njit(cache=True, nogil=True)
def _released_by(of_point, changed, indptr, indices, released):
    known = len(of_point)
    for p in range(known):
        if changed[p] and of_point[p] >= 0:
            released[of_point[p]] = True
    for p in range(known, len(indptr) - 1):
        for e in range(indptr[p], indptr[p + 1]):
            if indices[e] < known:
                released[of_point[indices[e]]] = True


def _released(of_point: Array, count: int, changed: Array, graph: Neighbours) -> Array:
    """Which of `count` regions hold a point that is `changed`, bool (S,), or has a new one beside it: bool (count,)."""
    released = np.zeros(count, np.bool_)
    _released_by(of_point, changed, graph.indptr, graph.indices, released)
    return released


@njit(cache=True, nogil=True)
def _chosen_rows(indptr, indices, chosen, number):
    out_indptr = np.zeros(len(chosen) + 1, np.int64)
    most = 0
    for p in chosen:
        most += indptr[p + 1] - indptr[p]
    out, filled = np.empty(most, np.int32), 0
    for i in range(len(chosen)):
        for e in range(indptr[chosen[i]], indptr[chosen[i] + 1]):
            if number[indices[e]] >= 0:
                out[filled] = number[indices[e]]
                filled += 1
        out_indptr[i + 1] = filled
    return out_indptr, out[:filled].copy()
