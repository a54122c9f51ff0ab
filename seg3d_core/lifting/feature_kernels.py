# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Kernels of `point_features`: which views to keep, bilinear samples, means of half-precision numbers."""

# numba infers the types of kernels.
# mypy: allow-untyped-defs

from __future__ import annotations

import numpy as np
from numba import njit

HALF_MAX = np.float32(65504)


@njit(cache=True, nogil=True)
def choose_slots(places, ranks, kept, stamps):
    """Which of n points take a new view, and where: points int64 (m,), slots int64 (m,).

    places int32 (n,), -1 = none; ranks float32 (n,), small is good; kept float32 and stamps int32 (P, k) are the
    ranks and observations that places hold, infinity where a slot is empty. A new view replaces the worst one, of
    equals the latest, and must be better.
    """
    points, slots = np.empty(len(places), np.int64), np.empty(len(places), np.int64)
    m = 0
    for i in range(len(places)):
        place = places[i]
        if place < 0:
            continue
        worst = 0
        for k in range(1, kept.shape[1]):
            a, b = kept[place, k], kept[place, worst]
            if a > b or (a == b and a < np.inf and stamps[place, k] > stamps[place, worst]):
                worst = k
        if ranks[i] < kept[place, worst]:
            points[m], slots[m] = i, worst
            m += 1
    return points[:m], slots[:m]


@njit(cache=True, nogil=True)
def _add_sample(values, x, y, share, out):
    """Adds `share` x the bilinear sample of values (h, w, C) at cell (x, y) to `out` (C,)."""
    h, w = values.shape[:2]
    x = min(max(x, np.float32(0)), np.float32(w - 1))
    y = min(max(y, np.float32(0)), np.float32(h - 1))
    x0, y0 = int(x), int(y)
    x1, y1 = min(x0 + 1, w - 1), min(y0 + 1, h - 1)
    fx, fy = x - np.float32(x0), y - np.float32(y0)
    one = np.float32(1)
    w00, w01 = share * (one - fx) * (one - fy), share * fx * (one - fy)
    w10, w11 = share * (one - fx) * fy, share * fx * fy
    a, b, c, d = values[y0, x0], values[y0, x1], values[y1, x0], values[y1, x1]
    for k in range(len(out)):
        out[k] += w00 * a[k] + w01 * b[k] + w10 * c[k] + w11 * d[k]


@njit(cache=True, nogil=True)
def sample_levels(pixels, levels, strides):
    """The mean of the levels' samples, float32 (n, C), and which of them half precision holds, bool (n,).

    pixels float32 (n, 2) as (u, v); levels: a tuple of float32 (h, w, C); strides float32 (levels,).
    """
    n, channels = len(pixels), levels[0].shape[2]
    out, good = np.zeros((n, channels), np.float32), np.empty(n, np.bool_)
    share, half = np.float32(1) / np.float32(len(levels)), np.float32(0.5)
    for i in range(n):
        for level in range(len(levels)):
            x = (pixels[i, 0] + half) / strides[level] - half
            y = (pixels[i, 1] + half) / strides[level] - half
            _add_sample(levels[level], x, y, share, out[i])
        bad = 0
        for k in range(channels):
            # Not written as >: that is false for NaN.
            bad += not abs(out[i, k]) <= HALF_MAX
        good[i] = bad == 0
    return out, good


@njit(cache=True, nogil=True)
def mean_of_views(places, halves, kept):
    """The mean over the views of each place int32 (n,), float32 (n, C), 0 for none (-1), and their number uint8 (n,).

    halves uint16 (P, k, C) are the bits of half-precision numbers, which Numba cannot read: moved to where float32
    has its exponent and fraction they are that number x 2^-112.
    """
    channels = halves.shape[2]
    out, counts = np.zeros((len(places), channels), np.float32), np.zeros(len(places), np.uint8)
    bits = np.empty(channels, np.uint32)
    numbers = bits.view(np.float32)
    # In double precision the sum of halves is exact, and does not depend on the order in which views came.
    total = np.empty(channels, np.float64)
    for i in range(len(places)):
        place = places[i]
        if place < 0:
            continue
        total[:] = 0
        for view in range(halves.shape[1]):
            if not kept[place, view] < np.inf:
                continue
            counts[i] += 1
            for k in range(channels):
                half = np.uint32(halves[place, view, k])
                bits[k] = (half & np.uint32(0x8000)) << np.uint32(16) | (half & np.uint32(0x7FFF)) << np.uint32(13)
            for k in range(channels):
                total[k] += np.float64(numbers[k])
        if counts[i]:
            scale = 2.0**112 / counts[i]
            for k in range(channels):
                out[i, k] = np.float32(total[k] * scale)
    return out, counts
