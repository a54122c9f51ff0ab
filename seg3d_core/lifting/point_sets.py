# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Which points stand for many: the exact medoid of a set, and points that lie far from one another."""

# numba infers the types of kernels.
# mypy: allow-untyped-defs

from __future__ import annotations

import numpy as np
from numba import njit

from ..errors import Seg3DError
from ..types import Array

# Points of one bucket of the farthest point sampling: large enough to keep the list of buckets short.
BUCKET = 48
# Rounding of sums must not exclude a point from being the medoid, nor spare a bucket that a point comes near.
SLACK = 1e-9
# Sums of distances that differ by less, relatively, are equal.
ROUNDING = 1e-12


def medoid(points: Array) -> int:
    """The index of the point with the smallest sum of Euclidean distances to the others; the first among equals.

    points float (n, 3), n at least 1. Exact, in far less than n^2: the sum of distances f is convex, so that its
    gradient g at any point x bounds it everywhere, f(y) >= f(x) + g . (y - x), and the few points whose bound does
    not exceed the best sum found are the only ones to be tried. Raises Seg3DError for no point, NaN and infinity.
    """
    points = np.asarray(points)
    if points.ndim != 2 or points.shape[1] != 3 or not len(points):
        raise Seg3DError(f"a medoid of points of shape {points.shape}: expected (n, 3), n at least 1")
    if not np.isfinite(points).all():
        raise Seg3DError("a medoid of points with NaN or infinite coordinates: leave those out")
    return int(group_medoids(points, np.array([0, len(points)]))[0])


def group_medoids(points: Array, starts: Array) -> Array:
    """The medoid of each run of points: indices int64 (g,) into `points` float (n, 3), which must be finite.

    starts int64 (g + 1,): run k is `points[starts[k]:starts[k + 1]]`; no run may be empty.
    """
    return _group_medoids(np.ascontiguousarray(points.T, np.float64), np.require(starts, np.int64, ["C", "A", "W"]))


def farthest_points(points: Array, count: int) -> Array:
    """Indices int64 (min(count, n),) of points (n, 3), each the farthest from all before it, starting with 0.

    Exact: among equals the first one, no point twice, though points may coincide.
    Raises Seg3DError for NaN and infinity.
    """
    points = np.asarray(points)
    if points.ndim != 2 or points.shape[1] != 3:
        raise Seg3DError(f"points of shape {points.shape}: expected (n, 3)")
    if not np.isfinite(points).all():
        raise Seg3DError("points with NaN or infinite coordinates: leave those out")
    if count <= 0 or not len(points):
        return np.empty(0, np.int64)
    order = _by_bucket(points)
    starts = np.append(np.arange(0, len(points), BUCKET), len(points))
    columns = np.ascontiguousarray(points[order].T, np.float64)
    return _farthest(columns, order, starts, min(count, len(points)))


def _by_bucket(points: Array) -> Array:
    """An order of the points int64 (n,) in which each run of `BUCKET` is a compact part of space."""
    n = len(points)
    sides = max(int(np.ceil((n / BUCKET) ** (1 / 3))), 1)
    # Runs are whole numbers of buckets, so that no bucket has points of two.
    plane = BUCKET * max(int(np.ceil(n / (BUCKET * sides))), 1)
    line = BUCKET * max(int(np.ceil(plane / (BUCKET * sides))), 1)
    order = np.argsort(points[:, 0], kind="stable")
    group = np.arange(n) // plane
    order = order[np.lexsort((points[order, 1], group))]
    group = group * (plane // BUCKET + 1) + np.arange(n) % plane // line
    return order[np.lexsort((points[order, 2], group))]


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract", "nsz"})
def _sum_and_gradient(columns, i, distances):
    """Writes the distances of all points to point i; their sum and its gradient there."""
    # Rows by their numbers: numba makes no vector instructions of rows that are unpacked.
    x, y, z = columns[0], columns[1], columns[2]
    px, py, pz = x[i], y[i], z[i]
    total = gx = gy = gz = 0.0
    for k in range(len(x)):
        dx, dy, dz = px - x[k], py - y[k], pz - z[k]
        d = np.sqrt(dx * dx + dy * dy + dz * dz)
        distances[k] = d
        inverse = 1.0 / max(d, 1e-300)
        total += d
        gx += dx * inverse
        gy += dy * inverse
        gz += dz * inverse
    return total, gx, gy, gz


@njit(cache=True, nogil=True)
def _medoid(columns):
    """Columns float64 (3, n) about their mean."""
    x, y, z = columns[0], columns[1], columns[2]
    distances = np.empty(len(x))
    # Who may still be it, and what his sum is at least.
    left, bounds = np.arange(len(x)), np.zeros(len(x))
    chosen = np.argmin(x * x + y * y + z * z)
    best, best_sum = chosen, np.inf
    while len(left):
        total, gx, gy, gz = _sum_and_gradient(columns, chosen, distances)
        if total < best_sum * (1 - ROUNDING) or (total <= best_sum * (1 + ROUNDING) and chosen < best):
            best = chosen
        best_sum = min(best_sum, total)
        offset = total - gx * x[chosen] - gy * y[chosen] - gz * z[chosen]
        kept, lowest = 0, np.inf
        for i in range(len(left)):
            k = left[i]
            bound = max(bounds[i], offset + gx * x[k] + gy * y[k] + gz * z[k])
            # Who lies in the same place has the same sum, and a larger index or was tried before.
            if bound <= best_sum * (1 + SLACK) and distances[k] > 0:
                left[kept], bounds[kept] = k, bound
                kept += 1
                if bound < lowest:
                    lowest, chosen = bound, k
        left, bounds = left[:kept], bounds[:kept]
    return best


@njit(cache=True, nogil=True)
def _group_medoids(columns, starts):
    out = np.empty(len(starts) - 1, np.int64)
    for k in range(len(out)):
        run = columns[:, starts[k] : starts[k + 1]].copy()
        for axis in range(3):
            run[axis] -= run[axis].mean()
        out[k] = starts[k] + _medoid(run)
    return out


@njit(cache=True, nogil=True)
def _boxes(columns, starts):
    """Low and high corners float64 (3, B) of the buckets."""
    low, high = np.empty((3, len(starts) - 1)), np.empty((3, len(starts) - 1))
    for bucket in range(len(starts) - 1):
        for axis in range(3):
            part = columns[axis, starts[bucket] : starts[bucket + 1]]
            low[axis, bucket], high[axis, bucket] = part.min(), part.max()
    return low, high


@njit(cache=True, nogil=True)
def _farthest(columns, order, starts, count):
    """Farthest point sampling over buckets of points: those too far from the new point to change are left alone."""
    x, y, z = columns[0], columns[1], columns[2]
    low, high = _boxes(columns, starts)
    buckets = len(starts) - 1
    nearest = np.full(len(x), np.inf)
    largest, at = np.full(buckets, np.inf), np.zeros(buckets, np.int64)
    out = np.empty(count, np.int64)
    chosen = np.argmin(order)
    for s in range(count):
        out[s] = order[chosen]
        nearest[chosen] = -1.0
        px, py, pz = x[chosen], y[chosen], z[chosen]
        home = chosen // BUCKET
        top = -2.0
        for bucket in range(buckets):
            gx = max(low[0, bucket] - px, px - high[0, bucket], 0.0)
            gy = max(low[1, bucket] - py, py - high[1, bucket], 0.0)
            gz = max(low[2, bucket] - pz, pz - high[2, bucket], 0.0)
            if bucket == home or (gx * gx + gy * gy + gz * gz) * (1 - SLACK) < largest[bucket]:
                best, where = -2.0, starts[bucket]
                for k in range(starts[bucket], starts[bucket + 1]):
                    dx, dy, dz = x[k] - px, y[k] - py, z[k] - pz
                    d = min(nearest[k], dx * dx + dy * dy + dz * dz)
                    nearest[k] = d
                    if d > best or (d == best and order[k] < order[where]):
                        best, where = d, k
                largest[bucket], at[bucket] = best, where
            if largest[bucket] > top or (largest[bucket] == top and order[at[bucket]] < order[chosen]):
                top, chosen = largest[bucket], at[bucket]
    return out
