# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Numba kernels over label images: regions grow over their edges, and merge over weak boundaries.

All images are (H, W); label 0 is none.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from ..types import Array
from .geometric_kernels import Intrinsics, offset_pair


@njit(cache=True, nogil=True)
def give_back(depth: Array, z: Array, labels: Array, rounds: int) -> None:
    """Labels (H, W) int32 grow in place into unlabelled valid pixels, one ring a round.

    A pixel goes to the neighbour (of four) whose depth is nearest, within 2 cm + 2 %; a tie to the first of right,
    left, below, above. `z` is the denoised depth where known, else `depth`.
    """
    h, w = depth.shape
    todo = np.empty(h * w, np.int32)
    count = 0
    for i in range(h * w):
        if labels.flat[i] == 0 and depth.flat[i] > 0:
            todo[count] = i
            count += 1
    won = np.empty(count, np.int32)
    for _ in range(rounds):
        changed = False
        for k in range(count):
            v, u = todo[k] // w, todo[k] % w
            measured = depth[v, u]
            nearest = 0.02 + 0.02 * measured
            won[k] = 0
            for dv, du in ((0, 1), (0, -1), (1, 0), (-1, 0)):
                y, x = v + dv, u + du
                if 0 <= y < h and 0 <= x < w and labels[y, x] > 0:
                    error = abs(z[y, x] - measured)
                    if error < nearest:
                        nearest = error
                        won[k] = labels[y, x]
                        changed = True
        if not changed:
            return
        kept = 0
        for k in range(count):
            if won[k] > 0:
                labels[todo[k] // w, todo[k] % w] = won[k]
            else:
                todo[kept] = todo[k]
                kept += 1
        count = kept


@njit(cache=True, nogil=True)
def label_leftovers(depth: Array, labels: Array, count: int, least: float, most: int) -> int:
    """Labels what is still free and connected in depth, in place: thin things that the cuts on both sides ate up.

    Pieces of at least `least` pixels take the numbers after `count`, up to `most`; returns the last number taken.
    """
    h, w = depth.shape
    queue = np.empty(h * w, np.int32)
    for seed in range(h * w):
        if labels[seed // w, seed % w] != 0 or depth[seed // w, seed % w] <= 0:
            continue
        queue[0] = seed
        start, end = 0, 1
        labels[seed // w, seed % w] = count + 1
        while start < end:
            v, u = queue[start] // w, queue[start] % w
            start += 1
            for dv, du in ((0, 1), (0, -1), (1, 0), (-1, 0)):
                y, x = v + dv, u + du
                if not (0 <= y < h and 0 <= x < w) or labels[y, x] != 0 or depth[y, x] <= 0:
                    continue
                if abs(depth[y, x] - depth[v, u]) < 0.02 + 0.02 * depth[v, u]:
                    labels[y, x] = count + 1
                    queue[end] = y * w + x
                    end += 1
        if end >= least and count < most:
            count += 1
        else:
            for k in range(end):
                labels[queue[k] // w, queue[k] % w] = -1
    for v in range(h):
        for u in range(w):
            labels[v, u] = max(labels[v, u], 0)
    return count


@njit(cache=True, nogil=True)
def boundary_evidence(
    labels: Array,
    z: Array,
    normals: Array,
    intrinsics: Intrinsics,
    back: int,
    gap: float,
    gap_quadratic: float,
    fold_depth: float,
    evidence: Array,
) -> None:
    """Sums over the boundary of every two regions into `evidence` (4, R, R), symmetric.

    Planes: pixel pairs; jump off both tangent planes over its limit (at most 4); concavity in pixels of the
    distance (within +-2, convex below 0); pairs that would be cut on their own. Each side is measured up to `back`
    pixels away from the boundary, where the normals are good.
    """
    h, w = z.shape
    for v in range(h):
        for u in range(w):
            one = labels[v, u]
            if one == 0:
                continue
            for down in range(2):
                right = 1 - down
                y, x = v + down, u + right
                if y >= h or x >= w or labels[y, x] == 0 or labels[y, x] == one:
                    continue
                other = labels[y, x]
                here = _away(labels, z, v, u, -down, -right, back)
                there = _away(labels, z, y, x, down, right, back)
                if here < 0 or there < 0:
                    continue
                v1, u1, v2, u2 = v - down * here, u - right * here, y + down * there, x + right * there
                d, e = offset_pair(z, normals, v1, u1, v2, u2, intrinsics)
                depth = 0.5 * (z[v1, u1] + z[v2, u2])
                jump = min(abs(d), abs(e)) / (gap + gap_quadratic * depth * depth)
                fold = (d + e) * intrinsics[0] / ((here + there + 1) * depth)
                is_cut = 1.0 if jump > 1.0 or fold > fold_depth else 0.0
                jump, fold = min(jump, 4.0), max(min(fold, 2.0), -2.0)
                for i, j in ((one, other), (other, one)):
                    evidence[0, i, j] += 1.0
                    evidence[1, i, j] += jump
                    evidence[2, i, j] += fold
                    evidence[3, i, j] += is_cut


@njit(cache=True, nogil=True)
def _away(labels: Array, z: Array, v: int, u: int, dv: int, du: int, back: int) -> int:
    """The largest step, at most `back`, that stays in the region and has a plane; -1 where there is none."""
    for step in range(back, -1, -1):
        y, x = v + dv * step, u + du * step
        if 0 <= y < labels.shape[0] and 0 <= x < labels.shape[1] and labels[y, x] == labels[v, u] and z[y, x] > 0:
            return step
    return -1


@njit(cache=True, nogil=True)
def merge_regions(evidence: Array, least: int, jump: float, fold: float, share: float) -> Array:
    """Merges regions over their flattest common boundary first; returns the new label of each old one, int32 (R,).

    A boundary of at least `least` pairs gives way while its mean jump, mean concavity and share of cut pairs are all
    below their limits; the evidence of joined boundaries adds up. `evidence` is changed.
    """
    count = evidence.shape[1]
    scores = np.full((count, count), np.inf)
    for i in range(1, count):
        for j in range(i + 1, count):
            scores[i, j] = _boundary_score(evidence, i, j, least, jump, fold, share)
    target = np.arange(count).astype(np.int32)
    while True:
        best, keep, gone = 1.0, -1, -1
        for i in range(1, count):
            for j in range(i + 1, count):
                if scores[i, j] < best:
                    best, keep, gone = scores[i, j], i, j
        if keep < 0:
            return target
        for k in range(count):
            if target[k] == gone:
                target[k] = keep
        for k in range(1, count):
            scores[min(gone, k), max(gone, k)] = np.inf
            if k in (keep, gone) or evidence[0, gone, k] == 0:
                continue
            for m in range(4):
                evidence[m, keep, k] += evidence[m, gone, k]
                evidence[m, k, keep] = evidence[m, keep, k]
                evidence[m, gone, k] = evidence[m, k, gone] = 0.0
            scores[min(keep, k), max(keep, k)] = _boundary_score(evidence, keep, k, least, jump, fold, share)


@njit(cache=True, nogil=True)
def _boundary_score(evidence: Array, i: int, j: int, least: int, jump: float, fold: float, share: float) -> float:
    n = evidence[0, i, j]
    if n < least:
        return np.inf
    return max(evidence[1, i, j] / jump, evidence[2, i, j] / fold, evidence[3, i, j] / share) / n
