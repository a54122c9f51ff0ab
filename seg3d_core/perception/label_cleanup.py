# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Connected pieces of images: the large ones stay, the specks go."""

from __future__ import annotations

import cv2
import numpy as np
from numba import njit

from ..types import Array

_PIECE_SHARE = 0.2
"""A mask keeps its pieces of at least this share of its largest one: things are seen in parts behind others."""


def without_specks(labels: Array, least: float) -> Array:
    """Labels int32 (H, W), 0 = none, of which each keeps only its large connected pieces.

    Pieces below the share `least` of the image go in any case.
    """
    pieces, owner, area = connected_pieces(np.ascontiguousarray(labels, np.int32))
    largest = np.zeros(int(labels.max(initial=0)) + 1, np.int64)
    np.maximum.at(largest, owner, area)
    keep = (area >= _PIECE_SHARE * largest[owner]) & (area >= least * labels.size)
    return np.where(keep, owner, 0).astype(np.int32)[pieces]


def largest_pieces(free: Array, least: float, most: int) -> tuple[Array, int]:
    """Connected pieces of the pixels above 0 of `free` uint8 (H, W), as labels int32 1..count, and count.

    Threads thinner than three pixels go first; then pieces below the share `least` of the image, and all but the
    `most` largest.
    """
    free = cv2.morphologyEx(free, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    _, pieces, stats, _ = cv2.connectedComponentsWithStats(free, connectivity=4, ltype=cv2.CV_32S)
    area = stats[:, cv2.CC_STAT_AREA].copy()
    area[0] = 0
    keep = np.flatnonzero(area >= max(1.0, least * free.size))
    if len(keep) > most:
        keep = np.sort(keep[np.argsort(-area[keep], kind="stable")[:most]])
    table = np.zeros(len(area), np.int32)
    table[keep] = np.arange(1, len(keep) + 1)
    return table[pieces], len(keep)


@njit(cache=True, nogil=True)
def connected_pieces(labels: Array) -> tuple[Array, Array, Array]:
    """4-connected pieces of equal labels (H, W), numbered from 0, and each piece's label and pixels."""
    h, w = labels.shape
    pieces = np.full((h, w), -1, np.int32)
    owner, area = np.empty(h * w, np.int32), np.empty(h * w, np.int64)
    queue = np.empty(h * w, np.int32)
    count = 0
    for first in range(h * w):
        if pieces[first // w, first % w] >= 0:
            continue
        label = labels[first // w, first % w]
        pieces[first // w, first % w] = count
        queue[0] = first
        start, end = 0, 1
        while start < end:
            v, u = queue[start] // w, queue[start] % w
            start += 1
            for dv, du in ((0, 1), (0, -1), (1, 0), (-1, 0)):
                y, x = v + dv, u + du
                if 0 <= y < h and 0 <= x < w and pieces[y, x] < 0 and labels[y, x] == label:
                    pieces[y, x] = count
                    queue[end] = y * w + x
                    end += 1
        owner[count], area[count] = label, end
        count += 1
    return pieces, owner[:count], area[:count]
