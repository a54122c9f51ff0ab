"""Which part of its box an instance covers in a view, from the map points that the keyframe saw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

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
        cells = cells_of(slots[np.maximum(by_row[keyframe.rows], 0)], keyframe.pixels, boxes)
        for (k, place), covered in zip(places, cells, strict=True):
            out[k][place] = replace(out[k][place], shape=np.packbits(covered).tobytes())
    return tuple(tuple(chosen) for chosen in out)


def cells_of(owners: Array, pixels: Array, boxes: Array) -> Array:
    """Covered cells of each box, bool (m, 16, 16), rows first.

    Point i at `pixels` (n, 2) as (u, v) belongs to box `owners[i]`, below 0 to none; boxes (m, 4) xyxy. A point covers
    what lies within half the mean distance of points, so that sparse points leave no holes.
    """
    cells = np.zeros((len(boxes), CELLS, CELLS), np.bool_)
    _mark(np.asarray(owners, np.int32), np.asarray(pixels, np.float32), np.asarray(boxes, np.float64), cells)
    return cells


@njit(cache=True, nogil=True)
def _mark(owners: Array, pixels: Array, boxes: Array, cells: Array) -> None:
    count = np.zeros(len(boxes), np.int64)
    for owner in owners:
        if owner >= 0:
            count[owner] += 1
    for i in range(len(owners)):
        k = owners[i]
        if k < 0:
            continue
        width = max(boxes[k, 2] - boxes[k, 0], 1.0)
        height = max(boxes[k, 3] - boxes[k, 1], 1.0)
        reach = 0.5 * np.sqrt(width * height / count[k])
        u, v = pixels[i, 0] - boxes[k, 0], pixels[i, 1] - boxes[k, 1]
        left = min(max(int((u - reach) / width * CELLS), 0), CELLS - 1)
        right = min(max(int((u + reach) / width * CELLS), 0), CELLS - 1)
        top = min(max(int((v - reach) / height * CELLS), 0), CELLS - 1)
        bottom = min(max(int((v + reach) / height * CELLS), 0), CELLS - 1)
        for row in range(top, bottom + 1):
            for column in range(left, right + 1):
                cells[k, row, column] = True
