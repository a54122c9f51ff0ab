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
    # Points that are all in one place have no spacing: any will do.
    spacing = usual_spacing(cloud.xyz) if len(cloud) > 1 and np.ptp(cloud.xyz, axis=0).any() else 1.0
    neighbours = nearest_neighbours(cloud.xyz, spacing)
    of_point = superpoints(cloud, neighbours, SUPERPOINT_THRESHOLD, SUPERPOINT_POINTS)
    if not cloud.normals.any():
        of_point = _cut(of_point, cloud.xyz, CELL * spacing)
    count = int(of_point.max(initial=-1)) + 1
    colour = lab_colour(cloud.rgb)
    xyz = np.ascontiguousarray(cloud.xyz, np.float32)
    normals = np.ascontiguousarray(cloud.normals, np.float32)
    sizes, sums, low, high = _add_up(of_point, count, colour, normals, xyz)
    keys, values = _contacts(neighbours.indptr, neighbours.indices, of_point, count, xyz, normals, colour)
    first, second, contact = _summed(keys, values, count)
    return Regions(neighbours, of_point, sizes, sums, low, high, first, second, contact)


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
    keys = np.minimum(a, b)[across] * count + np.maximum(a, b)[across]
    first, second, contact = _summed(keys, regions.contact[across], count)
    of_point = groups[regions.of_point].astype(np.int32)
    return Regions(regions.neighbours, of_point, sizes, sums, low, high, first, second, contact)


def _summed(keys: Array, values: Array, count: int) -> tuple[Array, Array, Array]:
    """Pairs first < second int32 (E,), from keys first * count + second, and the sums of their values (E, 4)."""
    pairs, place = np.unique(keys, return_inverse=True)
    sums = np.stack([np.bincount(place.reshape(-1), column, len(pairs)) for column in values.T], axis=1)
    return (pairs // max(count, 1)).astype(np.int32), (pairs % max(count, 1)).astype(np.int32), sums


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
def _contacts(indptr, indices, of_point, count, xyz, normals, colour):
    """Keys int64 (pairs of points,) and values (pairs, 4): 1, step, convexity, difference of colour.

    With v the unit vector from p to q: step = max(|v . n_p|, |v . n_q|), convexity = v . (n_q - n_p); both 0 where a
    normal is unknown.
    """
    crossing = 0
    for p in range(len(of_point)):
        for k in range(indptr[p], indptr[p + 1]):
            crossing += indices[k] > p and of_point[indices[k]] != of_point[p]
    keys, values = np.empty(crossing, np.int64), np.empty((crossing, 4))
    e = 0
    for p in range(len(of_point)):
        for k in range(indptr[p], indptr[p + 1]):
            q = indices[k]
            if q < p or of_point[p] == of_point[q]:
                continue
            a, b = of_point[p], of_point[q]
            cosine, up_p, up_q = fold_between(xyz, normals, p, q)
            step, convexity = 0.0, 0.0
            if cosine <= 1:
                step, convexity = max(abs(up_p), abs(up_q)), up_q - up_p
            difference = 0.0
            for c in range(3):
                difference += (colour[p, c] - colour[q, c]) ** 2
            keys[e] = np.int64(min(a, b)) * count + max(a, b)
            values[e, 0], values[e, 1], values[e, 2] = 1, step, convexity
            values[e, 3] = min(np.sqrt(difference), MOST_COLOUR_STEP)
            e += 1
    return keys, values
