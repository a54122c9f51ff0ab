# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Numba kernels of the geometric masks: plane fits and where surfaces end.

All images are (H, W); disparity here means inverse depth, 1/m, 0 = none.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numba import njit

from ..types import Array

Intrinsics: TypeAlias = tuple[float, float, float, float]
"""fx, fy, cx, cy in pixels."""

MIN_FILL = 0.4
WORST_FIT = np.float32(1e6)


@njit(cache=True, nogil=True, fastmath={"contract", "reassoc", "nsz"})
def fit_planes(disparity: Array, r: int, a: Array, b: Array, c: Array, relative: Array, rms: Array) -> None:
    """Least-squares plane d = a u + b v + c in every (2r + 1)^2 window, u and v counted from its centre.

    Only valid pixels count. Fills a, b, c, the fit's rms and rms / c, float32 (H, W); both are WORST_FIT where
    less than `MIN_FILL` of the window is valid or its pixels lie on a line.
    """
    h, w = disparity.shape
    column = np.zeros((6, w))
    row = np.empty((10, w))
    least = MIN_FILL * (2 * r + 1) ** 2
    for top in range(min(r, h)):
        _add_row(disparity, top, 1.0, column)
    for v in range(h):
        if v + r < h:
            _add_row(disparity, v + r, 1.0, column)
        if v - r - 1 >= 0:
            _add_row(disparity, v - r - 1, -1.0, column)
        _window_sums(column, r, row)
        for u in range(w):
            n = row[0, u]
            inv = 1.0 / max(n, 1.0)
            # Moments about the window's mean; the sums are about pixel (0, 0).
            mu, mv, md = row[1, u] * inv, row[3, u] * inv, row[6, u] * inv
            cuu = row[2, u] * inv - mu * mu
            cvv = row[4, u] * inv - mv * mv
            cuv = row[5, u] * inv - mu * mv
            cud = row[7, u] * inv - mu * md
            cvd = row[8, u] * inv - mv * md
            cdd = row[9, u] * inv - md * md
            det = cuu * cvv - cuv * cuv
            good = n >= least and det > 1e-3
            inv_det = 1.0 / det if good else 0.0
            slope_u = (cud * cvv - cvd * cuv) * inv_det
            slope_v = (cvd * cuu - cud * cuv) * inv_det
            centre = md - slope_u * (mu - u) - slope_v * (mv - v)
            error = np.sqrt(max(cdd - slope_u * cud - slope_v * cvd, 0.0))
            a[v, u] = slope_u
            b[v, u] = slope_v
            c[v, u] = centre
            rms[v, u] = error if good else WORST_FIT
            relative[v, u] = error / max(centre, 1e-3) if good else WORST_FIT


@njit(cache=True, nogil=True, fastmath={"contract"})
def _add_row(disparity: Array, v: int, sign: float, column: Array) -> None:
    """Adds row v to the sums (n, v, v^2, d, v d, d^2) of each column."""
    for u in range(disparity.shape[1]):
        d = np.float64(disparity[v, u])
        n = sign if d > 0 else 0.0
        d *= sign
        column[0, u] += n
        column[1, u] += n * v
        column[2, u] += n * v * v
        column[3, u] += d
        column[4, u] += d * v
        column[5, u] += d * d * sign


@njit(cache=True, nogil=True, fastmath={"contract"})
def _window_sums(column: Array, r: int, row: Array) -> None:
    """Sums of (1, u, u^2, v, v^2, u v, d, u d, v d, d^2) over columns u - r .. u + r, for every u."""
    w = column.shape[1]
    n = nu = nuu = nv = nvv = nuv = d = ud = vd = dd = 0.0
    for u in range(-r, w):
        last = u + r
        if last < w:
            n += column[0, last]
            nu += column[0, last] * last
            nuu += column[0, last] * last * last
            nv += column[1, last]
            nvv += column[2, last]
            nuv += column[1, last] * last
            d += column[3, last]
            ud += column[3, last] * last
            vd += column[4, last]
            dd += column[5, last]
        gone = u - r - 1
        if gone >= 0:
            n -= column[0, gone]
            nu -= column[0, gone] * gone
            nuu -= column[0, gone] * gone * gone
            nv -= column[1, gone]
            nvv -= column[2, gone]
            nuv -= column[1, gone] * gone
            d -= column[3, gone]
            ud -= column[3, gone] * gone
            vd -= column[4, gone]
            dd -= column[5, gone]
        if u >= 0:
            row[0, u] = n
            row[1, u] = nu
            row[2, u] = nuu
            row[3, u] = nv
            row[4, u] = nvv
            row[5, u] = nuv
            row[6, u] = d
            row[7, u] = ud
            row[8, u] = vd
            row[9, u] = dd


@njit(cache=True, nogil=True)
def best_windows(
    disparity: Array,
    a: Array,
    b: Array,
    c: Array,
    relative: Array,
    rms: Array,
    r: int,
    intrinsics: Intrinsics,
    z: Array,
    normals: Array,
    noise: Array,
) -> None:
    """Takes for each pixel the best fitting plane of nine windows, which keeps normals sharp up to an edge.

    The windows' centres lie at offsets (0, -r, r)^2. The least rms / c wins; others than the own window pay 5 %,
    and a plane must pass near the measured disparity. Fills z (0 = none), unit normals (H, W, 3) towards the
    camera and the chosen fit's rms.
    """
    h, w = disparity.shape
    fx, fy, cx, cy = intrinsics
    offsets = (0, -r, r)
    for v in range(h):
        for u in range(w):
            d = disparity[v, u]
            z[v, u] = 0.0
            noise[v, u] = 0.0
            normals[v, u, 0] = normals[v, u, 1] = normals[v, u, 2] = 0.0
            if d <= 0.0:
                continue
            best, best_d, from_v, from_u = WORST_FIT, np.float32(0.0), -1, -1
            for dv in offsets:
                y = v + dv
                if y < 0 or y >= h:
                    continue
                for du in offsets:
                    x = u + du
                    if x < 0 or x >= w:
                        continue
                    error = relative[y, x]
                    if du != 0 or dv != 0:
                        error = error * np.float32(1.05) + np.float32(1e-6)
                    if error >= best:
                        continue
                    here = c[y, x] - a[y, x] * du - b[y, x] * dv
                    if abs(here - d) < (0.03 + 3.0 * min(error, np.float32(1.0))) * d:
                        best, best_d, from_v, from_u = error, here, y, x
            if from_v < 0 or best_d <= 1e-3:
                continue
            slope_u, slope_v = a[from_v, from_u], b[from_v, from_u]
            nx, ny = slope_u * fx, slope_v * fy
            nz = best_d - slope_u * (u - cx) - slope_v * (v - cy)
            # n.X is the plane's disparity times depth here, so positive: the camera lies on the other side.
            scale = -1.0 / max(np.sqrt(nx * nx + ny * ny + nz * nz), 1e-9)
            normals[v, u, 0] = nx * scale
            normals[v, u, 1] = ny * scale
            normals[v, u, 2] = nz * scale
            z[v, u] = 1.0 / best_d
            noise[v, u] = rms[from_v, from_u]


@njit(cache=True, nogil=True, inline="always")
def offset_pair(
    z: Array, normals: Array, v: int, u: int, y: int, x: int, intrinsics: Intrinsics
) -> tuple[float, float]:
    """How far each of two pixels lies in front of the other's tangent plane, metres."""
    fx, fy, cx, cy = intrinsics
    near, far = z[v, u], z[y, x]
    dx = ((x - cx) * far - (u - cx) * near) / fx
    dy = ((y - cy) * far - (v - cy) * near) / fy
    dz = far - near
    d = dx * normals[v, u, 0] + dy * normals[v, u, 1] + dz * normals[v, u, 2]
    e = -(dx * normals[y, x, 0] + dy * normals[y, x, 1] + dz * normals[y, x, 2])
    return d, e


@njit(cache=True, nogil=True)
def find_edges(
    z: Array,
    normals: Array,
    intrinsics: Intrinsics,
    gap_step: int,
    fold_step: int,
    gap: float,
    gap_quadratic: float,
    fold_cosine: float,
    fold_depth: float,
    free: Array,
) -> None:
    """Fills `free` (H, W) uint8: 1 where z is known and no surface ends.

    A surface ends at a jump that leaves both tangent planes (over `gap_step` pixels) and at a concave fold (over
    `fold_step`); convex folds stay. `gap`, `gap_quadratic`: metres and metres per square metre of depth;
    `fold_depth`: the two offsets' sum in pixels of the distance.
    """
    h, w = z.shape
    for v in range(h):
        for u in range(w):
            free[v, u] = 1 if z[v, u] > 0 else 0
    for v in range(h):
        for u in range(w):
            if z[v, u] <= 0:
                continue
            for down in range(2):
                y, x = v + down * gap_step, u + (1 - down) * gap_step
                if y < h and x < w and z[y, x] > 0:
                    d, e = offset_pair(z, normals, v, u, y, x, intrinsics)
                    jump = min(abs(d), abs(e))
                    if jump > gap + gap_quadratic * z[v, u] ** 2:
                        free[v, u] = 0
                    if jump > gap + gap_quadratic * z[y, x] ** 2:
                        free[y, x] = 0
                y, x = v + down * fold_step, u + (1 - down) * fold_step
                if y >= h or x >= w or z[y, x] <= 0:
                    continue
                cosine = (
                    normals[v, u, 0] * normals[y, x, 0]
                    + normals[v, u, 1] * normals[y, x, 1]
                    + normals[v, u, 2] * normals[y, x, 2]
                )
                if cosine >= fold_cosine:
                    continue
                d, e = offset_pair(z, normals, v, u, y, x, intrinsics)
                largest = max(abs(d), abs(e))
                for end in range(2):
                    t, s = (v, u) if end == 0 else (y, x)
                    depth = z[t, s]
                    is_near = largest < 0.05 + 4.0 * (gap + gap_quadratic * depth * depth)
                    if is_near and d + e > fold_depth * fold_step * max(depth, 0.3) / intrinsics[0]:
                        free[t, s] = 0
