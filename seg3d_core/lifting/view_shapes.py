# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Which part of its box an instance covers in a view, from the map points that the keyframe saw."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numba import njit

from ..types import Array, View
from .keyframe_log import LoggedKeyframe

CELLS = View.SHAPE_CELLS


def with_shapes(
    views: Sequence[Sequence[View]], keyframes: Sequence[LoggedKeyframe], by_row: Array
) -> tuple[tuple[View, ...], ...]:
    """The views of instances 1..K with their shapes; `by_row` as in `sightings`."""
    wanted: dict[int, list[tuple[int, int]]] = {}
    for k, chosen in enumerate(views):
        for place, view in enumerate(chosen):
            wanted.setdefault(view.keyframe, []).append((k, place))
    out = [list(chosen) for chosen in views]
    for keyframe in keyframes:
        places = wanted.get(keyframe.number, [])
        if not places:
            continue
        slots = np.full(len(views) + 1, -1, np.int32)
        slots[[k + 1 for k, _ in places]] = np.arange(len(places))
        boxes = np.array([views[k][place].box for k, place in places])
        covered = _covered(_owners(slots, by_row, keyframe.rows), keyframe.pixels, boxes)
        for (k, place), shape in zip(places, covered, strict=True):
            view = views[k][place]
            out[k][place] = View(view.keyframe, view.box, view.score, shape.tobytes())
    return tuple(tuple(chosen) for chosen in out)


def cells_of(owners: Array, pixels: Array, boxes: Array) -> Array:
    """Covered cells of each box, bool (m, 16, 16), rows first.

    Point i at `pixels` int (n, 2) as (u, v) belongs to box `owners[i]`, below 0 to none; boxes (m, 4) xyxy. A point
    covers what lies within half the mean distance of points, so that sparse points leave no holes.
    """
    covered = _covered(np.asarray(owners, np.int32), np.asarray(pixels), np.asarray(boxes, np.float64))
    return np.unpackbits(covered.view(np.uint8), axis=1).reshape(-1, CELLS, CELLS).astype(np.bool_)


def _covered(owners: Array, pixels: Array, boxes: Array) -> Array:
    """Covered cells of each box as 16 rows of bits, the first cell highest: as `np.packbits` packs them."""
    rows = np.zeros((len(boxes), CELLS), np.uint16)
    _mark(owners, pixels, boxes, rows)
    return rows.astype(">u2")


@njit(cache=True, nogil=True)
def _owners(slots: Array, by_row: Array, rows: Array) -> Array:
    """The slot of each row's instance, -1 = none; that of no instance is none."""
    out = np.empty(len(rows), np.int32)
    for i in range(len(rows)):
        out[i] = slots[max(by_row[rows[i]], 0)]
    return out


@njit(cache=True, nogil=True)
def _mark(owners: Array, pixels: Array, boxes: Array, rows: Array) -> None:
    count, right, bottom = np.zeros(len(boxes), np.int64), 0, 0
    for i in range(len(owners)):
        if owners[i] >= 0:
            count[owners[i]] += 1
            right, bottom = max(right, pixels[i, 0]), max(bottom, pixels[i, 1])
    width, height = np.maximum(boxes[:, 2] - boxes[:, 0], 1.0), np.maximum(boxes[:, 3] - boxes[:, 1], 1.0)
    reach = 0.5 * np.sqrt(width * height / np.maximum(count, 1))
    across, down = _reached(boxes[:, 0], width, reach, right + 1), _reached(boxes[:, 1], height, reach, bottom + 1)
    for i in range(len(owners)):
        k = owners[i]
        if k < 0:
            continue
        u, v = pixels[i, 0], pixels[i, 1]
        bits = np.uint16((0xFFFF >> across[k, u, 0]) & ~(0x7FFF >> across[k, u, 1]))
        for row in range(down[k, v, 0], down[k, v, 1] + 1):
            rows[k, row] |= bits


@njit(cache=True, nogil=True, error_model="numpy")
def _reached(start: Array, side: Array, reach: Array, size: int) -> Array:
    """The first and last cell uint8 (m, size, 2) that a point at each pixel reaches along an axis of each box."""
    out = np.empty((len(start), size, 2), np.uint8)
    for k in range(len(start)):
        for pixel in range(size):
            at = pixel - start[k]
            out[k, pixel, 0] = min(max(int((at - reach[k]) / side[k] * CELLS), 0), CELLS - 1)
            out[k, pixel, 1] = min(max(int((at + reach[k]) / side[k] * CELLS), 0), CELLS - 1)
    return out
