# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Regions of the map: what can be added up when two of them become one, and where they touch."""

# numba infers the types of kernels.
# mypy: allow-untyped-defs

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numba import njit

from ...mapping.neighbours import Neighbours, nearest_neighbours, usual_spacing
from ...mapping.superpoints import fold_between, superpoints
from ...types import Array, Cloud

# Small superpoints: what belongs together is joined by evidence later, what is one superpoint is never divided.
SUPERPOINT_THRESHOLD = 0.01
SUPERPOINT_POINTS = 8
# Where no normal is known, superpoints know no folds, and are cut into cells of so many times the points' spacing.
CELL = 3.0
# Beyond this a difference of colour says nothing more, in CIELAB units.
MOST_COLOUR_STEP = 50.0


@dataclass(frozen=True, eq=False)
class Regions:
    """S superpoints of a cloud of N points, and the E pairs of them that touch.

    neighbours: the points' graph; of_point int32 (N,); sizes float64 (S,) in points; sums float64 (S, 9) of CIELAB
    colour, normal and position; low and high float64 (S, 3), the corners of their boxes; first < second int32 (E,);
    contact float64 (E, 4): of the point pairs across, how many there are, and the sums of step, convexity and
    difference of colour (see `_contacts`).
    """

    neighbours: Neighbours
    of_point: Array
    sizes: Array
    sums: Array
    low: Array
    high: Array
    first: Array
    second: Array
    contact: Array

    def __len__(self) -> int:
        return len(self.sizes)


def regions_of(cloud: Cloud) -> Regions:
    """The superpoints of a cloud, found anew."""
    spacing = spacing_of(cloud)
    neighbours = nearest_neighbours(cloud.xyz, spacing)
    return regions_on(cloud, neighbours, lab_colour(cloud.rgb), spacing)


def regions_on(cloud: Cloud, neighbours: Neighbours, colour: Array, spacing: float) -> Regions:
    """The superpoints of a cloud of which graph, CIELAB colours and spacing are known."""
    of_point = cut(cloud, neighbours, bool(cloud.normals.any()), spacing)
    xyz, normals = as_floats(cloud)
    sums = added_up(of_point, colour, normals, xyz)
    every = np.ones(len(cloud), np.bool_)
    return Regions(neighbours, of_point, *sums, *contacts(neighbours, of_point, every, xyz, normals, colour))


def spacing_of(cloud: Cloud) -> float:
    """The usual distance of a point to its nearest one, in metres."""
    # Points that are all in one place have no spacing: any will do.
    return usual_spacing(cloud.xyz) if len(cloud) > 1 and np.ptp(cloud.xyz, axis=0).any() else 1.0


def cut(cloud: Cloud, neighbours: Neighbours, has_normals: bool, spacing: float) -> Array:
    """The superpoint of each point, int32 (N,); where no normal is known they are cut into cells."""
    of_point = superpoints(cloud, neighbours, SUPERPOINT_THRESHOLD, SUPERPOINT_POINTS)
    return of_point if has_normals else _cut(of_point, cloud.xyz, CELL * spacing)


def as_floats(cloud: Cloud) -> tuple[Array, Array]:
    """Positions and normals as kernels take them."""
    return np.ascontiguousarray(cloud.xyz, np.float32), np.ascontiguousarray(cloud.normals, np.float32)


def added_up(of_point: Array, colour: Array, normals: Array, xyz: Array) -> tuple[Array, Array, Array, Array]:
    """Sizes, sums, low and high, as in `Regions`, of the regions int32 (N,) that the points are in."""
    return _add_up(of_point, int(of_point.max(initial=-1)) + 1, colour, normals, xyz)


def contacts(
    neighbours: Neighbours, of_point: Array, looked_at: Array, xyz: Array, normals: Array, colour: Array
) -> tuple[Array, Array, Array]:
    """first, second and contact, as in `Regions`, from the point pairs of which one is `looked_at`, bool (N,).

    Points in no region, below 0, have no contacts.
    """
    count = int(of_point.max(initial=-1)) + 1
    pairs, values = _contacts(
        neighbours.indptr, neighbours.indices, of_point, looked_at, np.flatnonzero(looked_at), xyz, normals, colour
    )
    return _summed(pairs, values, count)


def regrouped(regions: Regions, groups: Array) -> Regions:
    """The same points in larger regions: groups int (S,), numbered 0..K-1, say which regions become one."""
    count = int(groups.max(initial=-1)) + 1
    sizes, sums = np.bincount(groups, regions.sizes, count), np.zeros((count, 9))
    low, high = np.full((count, 3), np.inf), np.full((count, 3), -np.inf)
    np.add.at(sums, groups, regions.sums)
    np.minimum.at(low, groups, regions.low)
    np.maximum.at(high, groups, regions.high)
    a, b = groups[regions.first].astype(np.int64), groups[regions.second].astype(np.int64)
    across = a != b
    pairs = np.stack([np.minimum(a, b)[across], np.maximum(a, b)[across]], axis=1)
    first, second, contact = _summed(pairs, regions.contact[across], count)
    of_point = groups[regions.of_point].astype(np.int32)
    return Regions(regions.neighbours, of_point, sizes, sums, low, high, first, second, contact)


@njit(cache=True, nogil=True)
def _summed(pairs, values, count):
    """Each pair first < second int32 (E,) among pairs int (P, 2) of regions once, in order, and the sums of its values
    float64 (E, 4)."""
    starts = np.zeros(count + 1, np.int64)
    for i in range(len(pairs)):
        starts[pairs[i, 0] + 1] += 1
    starts = np.cumsum(starts)
    filled, by_first = starts[:-1].copy(), np.empty(len(pairs), np.int64)
    for i in range(len(pairs)):
        by_first[filled[pairs[i, 0]]] = i
        filled[pairs[i, 0]] += 1
    first, second = np.empty(len(pairs), np.int32), np.empty(len(pairs), np.int32)
    sums, slot = np.zeros((len(pairs), 4)), np.full(count, -1, np.int64)
    found = 0
    for region in range(count):
        begin = found
        for i in by_first[starts[region] : starts[region + 1]]:
            if slot[pairs[i, 1]] < 0:
                slot[pairs[i, 1]] = 0
                second[found] = pairs[i, 1]
                found += 1
        second[begin:found].sort()
        for e in range(begin, found):
            first[e], slot[second[e]] = region, e
        for i in by_first[starts[region] : starts[region + 1]]:
            for k in range(4):
                sums[slot[pairs[i, 1]], k] += values[i, k]
        for e in range(begin, found):
            slot[second[e]] = -1
    return first[:found].copy(), second[:found].copy(), sums[:found].copy()


def _cut(of_point: Array, xyz: Array, edge: float) -> Array:
    """The parts of each superpoint in the cells of a grid, int32 (N,) from 0 on; edge in metres."""
    cells = np.floor((xyz - xyz.min(axis=0, initial=np.inf)) / edge).astype(np.int64)
    _, numbers = np.unique(np.column_stack([of_point, cells]), axis=0, return_inverse=True)
    return numbers.reshape(-1).astype(np.int32)


def lab_colour(rgb: Array) -> Array:
    """CIELAB float32 (N, 3) of uint8 (N, 3)."""
    if not len(rgb):
        return np.empty((0, 3), np.float32)
    return cv2.cvtColor(rgb[None].astype(np.float32) / np.float32(255), cv2.COLOR_RGB2Lab)[0]


@njit(cache=True, nogil=True)
def _add_up(of_point, count, colour, normals, xyz):
    sizes, sums = np.zeros(count), np.zeros((count, 9))
    low, high = np.full((count, 3), np.inf), np.full((count, 3), -np.inf)
    for p in range(len(of_point)):
        s = of_point[p]
        sizes[s] += 1
        for k in range(3):
            sums[s, k] += colour[p, k]
            sums[s, 3 + k] += normals[p, k]
            sums[s, 6 + k] += xyz[p, k]
            low[s, k] = min(low[s, k], xyz[p, k])
            high[s, k] = max(high[s, k], xyz[p, k])
    return sizes, sums, low, high


@njit(cache=True, nogil=True)
def _contacts(indptr, indices, of_point, looked_at, looked_at_points, xyz, normals, colour):
    """Pairs int32 (pairs of points, 2), the smaller first, and values (pairs, 4): 1, step, convexity, difference of
    colour.

    With v the unit vector from p to q: step = max(|v . n_p|, |v . n_q|), convexity = v . (n_q - n_p); both 0 where a
    normal is unknown.
    """
    crossing = 0
    for p in looked_at_points:
        own = of_point[p]
        for k in range(indptr[p], indptr[p + 1]):
            q = indices[k]
            other = of_point[q]
            # Of two points that are looked at the pair is the smaller's to count.
            if other != own and other >= 0 and (q > p or not looked_at[q]):
                crossing += 1
    pairs, values = np.empty((crossing, 2), np.int32), np.empty((crossing, 4))
    e = 0
    for p in looked_at_points:
        own = of_point[p]
        for k in range(indptr[p], indptr[p + 1]):
            q = indices[k]
            other = of_point[q]
            if other == own:
                continue
            if other < 0 or (q < p and looked_at[q]):
                continue
            cosine, up_p, up_q = fold_between(xyz, normals, p, q)
            step, convexity = 0.0, 0.0
            if cosine <= 1:
                step, convexity = max(abs(up_p), abs(up_q)), up_q - up_p
            difference = 0.0
            for c in range(3):
                difference += (colour[p, c] - colour[q, c]) ** 2
            pairs[e, 0], pairs[e, 1] = min(own, other), max(own, other)
            values[e, 0], values[e, 1], values[e, 2] = 1, step, convexity
            values[e, 3] = min(np.sqrt(difference), MOST_COLOUR_STEP)
            e += 1
    return pairs, values
