# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""What colour adds to regions found in depth.

What lies flush (a picture, a book, a worktop) shows in colour only, so flat regions are split along colour edges.
What folds in itself (seat and back of an armchair, a chair's slats and legs) keeps its colour, so small pieces that
touch and look alike are joined.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from numba import njit
from scipy.sparse.csgraph import connected_components

from ..types import Array
from .label_cleanup import largest_pieces
from .region_kernels import merge_regions

# Lightness counts half: shadows change it, not the hue.
_LIGHTNESS_WEIGHT = 0.5
# An edge is looked for at this share of the contrast that two pieces must show along their whole boundary.
_EDGE_SHARE = 0.8
_SEED_SHARE = 1 / 600
_MOST_PIECES = 255

# Pieces are joined when this share of the shorter outline touches, none is larger than this share of the image, and
# their mean colours differ by less than this; lightness counts little, as it changes over a fold.
_JOIN_OUTLINE, _JOIN_SIZE, _JOIN_DIFFERENCE, _JOIN_LIGHTNESS = 0.1, 0.05, 10.0, 0.3
_JOIN_LEAST_PAIRS = 4


def split_by_colour(labels: Array, rgb: Array, contrast: float, step: int) -> Array:
    """Labels int32 (H, W), 0 = none, of regions cut where colour changes; no piece leaves its region.

    rgb uint8 (H, W, 3). Two pieces stay apart where their mean difference along the common boundary exceeds
    `contrast` (8-bit CIELAB units, lightness halved). `step` is the reach of the comparison in pixels.
    """
    smooth = cv2.GaussianBlur(cv2.medianBlur(rgb, 5), (0, 0), float(step))
    lab = cv2.cvtColor(smooth, cv2.COLOR_RGB2LAB)
    free = np.empty(labels.shape, np.uint8)
    _find_colour_edges(labels, lab, 2 * step, _EDGE_SHARE * contrast, free)
    pieces, count = _seeds(labels, free)
    _grow_within(labels, pieces)
    evidence = np.zeros((4, count + 1, count + 1))
    _colour_evidence(labels, pieces, lab, 3 * step, evidence)
    return merge_regions(evidence, 1, contrast, 1.0, 1.0)[pieces]


def join_by_colour(labels: Array, rgb: Array, depth: Array) -> Array:
    """Labels int32 (H, W) with small alike neighbours joined. depth float32 (H, W) metres, 0 = none."""
    count = int(labels.max(initial=0)) + 1
    pairs = np.zeros((2, count, count))
    _touching_pairs(labels, depth, pairs)
    index = labels.ravel()
    area = np.bincount(index, minlength=count)
    lab = cv2.cvtColor(rgb, cv2.COLOR_RGB2LAB).reshape(-1, 3)
    mean: Array = np.stack([np.bincount(index, lab[:, k], minlength=count) for k in range(3)], 1)
    mean = mean / np.maximum(area, 1)[:, None] * (_JOIN_LIGHTNESS, 1.0, 1.0)
    alike = np.linalg.norm(mean[:, None] - mean[None], axis=-1) < _JOIN_DIFFERENCE
    outline = pairs[0].sum(1)
    touching = pairs[1] >= np.maximum(_JOIN_OUTLINE * np.minimum(outline[:, None], outline[None]), _JOIN_LEAST_PAIRS)
    small = area < _JOIN_SIZE * labels.size
    _, group = connected_components(alike & touching & small[:, None] & small[None], directed=False)
    group = group.astype(np.int32) + 1
    group[0] = 0
    return group[labels]


def _seeds(labels: Array, free: Array) -> tuple[Array, int]:
    """Connected free pieces that are large enough, and every region that has none, as labels 1..count, and count."""
    pieces, count = largest_pieces(free, _SEED_SHARE, _MOST_PIECES)
    is_whole = np.bincount(labels.ravel()) > 0
    is_whole[0] = False
    is_whole[labels[pieces > 0]] = False
    whole = np.where(is_whole, count + np.cumsum(is_whole), 0).astype(np.int32)
    return np.maximum(pieces, whole[labels]), count + int(is_whole.sum())


@njit(cache=True, nogil=True, inline="always")
def _difference(lab: Array, v: int, u: int, y: int, x: int) -> float:
    lightness = _LIGHTNESS_WEIGHT * (np.float64(lab[v, u, 0]) - lab[y, x, 0])
    a = np.float64(lab[v, u, 1]) - lab[y, x, 1]
    b = np.float64(lab[v, u, 2]) - lab[y, x, 2]
    return math.sqrt(lightness * lightness + a * a + b * b)


@njit(cache=True, nogil=True)
def _find_colour_edges(labels: Array, lab: Array, reach: int, limit: float, free: Array) -> None:
    """Fills `free` (H, W) uint8: 0 outside regions, on their outlines, and midway between unlike pixels."""
    h, w = labels.shape
    for v in range(h):
        for u in range(w):
            free[v, u] = 1 if labels[v, u] > 0 else 0
    for v in range(h):
        for u in range(w):
            own = labels[v, u]
            if own == 0:
                continue
            for down in range(2):
                right = 1 - down
                if v + down < h and u + right < w and labels[v + down, u + right] != own:
                    free[v, u] = 0
                y, x = v + down * reach, u + right * reach
                if y < h and x < w and labels[y, x] == own and _difference(lab, v, u, y, x) > limit:
                    free[(v + y) // 2, (u + x) // 2] = 0


@njit(cache=True, nogil=True)
def _grow_within(labels: Array, pieces: Array) -> None:
    """Pieces grow in place, breadth first, over the rest of their own regions."""
    h, w = labels.shape
    queue = np.empty(h * w, np.int32)
    end = 0
    for v in range(h):
        for u in range(w):
            if pieces[v, u] > 0:
                queue[end] = v * w + u
                end += 1
    start = 0
    while start < end:
        v, u = queue[start] // w, queue[start] % w
        start += 1
        for dv, du in ((0, 1), (0, -1), (1, 0), (-1, 0)):
            y, x = v + dv, u + du
            if 0 <= y < h and 0 <= x < w and pieces[y, x] == 0 and labels[y, x] == labels[v, u]:
                pieces[y, x] = pieces[v, u]
                queue[end] = y * w + x
                end += 1


@njit(cache=True, nogil=True)
def _colour_evidence(labels: Array, pieces: Array, lab: Array, back: int, evidence: Array) -> None:
    """Pixel pairs and summed differences along the boundaries of pieces of one region into planes 0 and 1."""
    h, w = labels.shape
    for v in range(h):
        for u in range(w):
            one = pieces[v, u]
            if one == 0:
                continue
            for down in range(2):
                right = 1 - down
                y, x = v + down, u + right
                if y >= h or x >= w or pieces[y, x] == one or labels[y, x] != labels[v, u] or pieces[y, x] == 0:
                    continue
                other = pieces[y, x]
                here, there = back, back
                while v - down * here < 0 or u - right * here < 0 or pieces[v - down * here, u - right * here] != one:
                    here -= 1
                while (
                    y + down * there >= h
                    or x + right * there >= w
                    or pieces[y + down * there, x + right * there] != other
                ):
                    there -= 1
                difference = _difference(lab, v - down * here, u - right * here, y + down * there, x + right * there)
                evidence[0, one, other] += 1.0
                evidence[0, other, one] += 1.0
                evidence[1, one, other] += difference
                evidence[1, other, one] += difference


@njit(cache=True, nogil=True)
def _touching_pairs(labels: Array, depth: Array, pairs: Array) -> None:
    """Pixel pairs along the boundary of every two regions: all of them, and those without a step in depth."""
    h, w = labels.shape
    for v in range(h):
        for u in range(w):
            one = labels[v, u]
            if one == 0:
                continue
            for down in range(2):
                y, x = v + down, u + 1 - down
                if y >= h or x >= w or labels[y, x] == 0 or labels[y, x] == one:
                    continue
                other = labels[y, x]
                touches = 1.0 if abs(depth[v, u] - depth[y, x]) < 0.015 + 0.015 * depth[v, u] else 0.0
                pairs[0, one, other] += 1.0
                pairs[0, other, one] += 1.0
                pairs[1, one, other] += touches
                pairs[1, other, one] += touches
