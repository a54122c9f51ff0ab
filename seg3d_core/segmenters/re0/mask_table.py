"""Which masks the parts of the map were seen on: a sparse table that is made anew at each snapshot."""

# numba infers the types of kernels.
# mypy: allow-untyped-defs

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numba import njit

from ...lifting.keyframe_log import LoggedKeyframe, contingency
from ...types import Array

# A segment is held by a mask that has more than half of its visible points, and so many.
MIN_HELD = 8
# Masks that hold more segments are floors and walls.
MOST_HELD = 400


@dataclass(frozen=True, eq=False)
class MaskTable:
    """How many visible points of each of S segments lie on each mask.

    A *picture* is one label image of one keyframe. Segment s has the entries `starts[s]:starts[s + 1]` of `columns`
    int32 (ascending) and `counts` float32. Column c belongs to picture `pictures[c]`, int32; it is a mask of
    `sizes[c]` visible points, float32, or the points on no mask where that is 0.
    """

    starts: Array
    columns: Array
    counts: Array
    pictures: Array
    sizes: Array

    def on_masks(self) -> Array:
        """Whether any mask shows a segment, bool (S,)."""
        entries = np.repeat(np.arange(len(self.starts) - 1), np.diff(self.starts))
        return np.bincount(entries, self.sizes[self.columns], len(self.starts) - 1) > 0


def mask_table(keyframes: Sequence[LoggedKeyframe], by_row: Array, segment_count: int) -> MaskTable:
    """The table of segments 0..S-1; by_row int32 (rows,) is the segment of each map row, below 0 = counts nowhere."""
    owners, columns, counts = [np.empty(0, np.int64)], [np.empty(0, np.int32)], [np.empty(0, np.float32)]
    pictures, sizes = [np.empty(0, np.int32)], [np.empty(0, np.float32)]
    offset, picture = 0, 0
    for keyframe in keyframes:
        labels = by_row[keyframe.rows] + np.int32(1)
        for masks, mask_count in zip(keyframe.masks, keyframe.mask_counts, strict=True):
            present, on_mask = contingency(labels, masks, segment_count + 1, mask_count)
            row, mask = np.nonzero(on_mask)
            owners.append(present[row] - 1)
            columns.append((offset + mask).astype(np.int32))
            counts.append(on_mask[row, mask].astype(np.float32))
            size = on_mask.sum(axis=0).astype(np.float32)
            size[0] = 0
            sizes.append(size)
            pictures.append(np.full(mask_count + 1, picture, np.int32))
            offset += mask_count + 1
            picture += 1
    owner = np.concatenate(owners)
    # Columns are ascending already: a stable sort keeps them so within a segment.
    order = np.argsort(owner, kind="stable")
    starts = np.searchsorted(owner[order], np.arange(segment_count + 1)).astype(np.int64)
    return MaskTable(
        starts,
        np.concatenate(columns)[order],
        np.concatenate(counts)[order],
        np.concatenate(pictures),
        np.concatenate(sizes),
    )


class Fits(NamedTuple):
    """Of each of C columns of a table: the thing int32 (C,) of highest IoU with the mask, ties to the smaller, -1 = a
    mask without points or the points on no mask; and that IoU float32 (C,), over the picture's visible points."""

    thing: Array
    iou: Array


def fits_of(table: MaskTable, thing_of_segment: Array) -> Fits:
    """How well masks fit things that are made of whole segments; thing_of_segment int32 (S,) from 0 on."""
    by_thing = np.argsort(thing_of_segment, kind="stable")
    return Fits(
        *_fits(thing_of_segment, by_thing, table.starts, table.columns, table.counts, table.pictures, table.sizes)
    )


def near_pairs(table: MaskTable, low: Array, high: Array, gap: float) -> tuple[Array, Array]:
    """Pairs a < b of segments that a mask holds most of, and whose boxes are less than `gap` metres apart.

    low and high float (S, 3) are the corners of the segments' boxes. Masks that hold more than MOST_HELD
    segments give no pairs. Gives int64 (pairs,) twice, sorted, each pair once.
    """
    segment_count = len(table.starts) - 1
    owner = np.repeat(np.arange(segment_count), np.diff(table.starts))
    first_of_picture = np.flatnonzero(
        np.diff(owner * (1 + len(table.pictures)) + table.pictures[table.columns], prepend=-1)
    )
    seen = np.add.reduceat(table.counts, first_of_picture) if len(owner) else table.counts
    share = table.counts / np.repeat(seen, np.diff(np.append(first_of_picture, len(owner))))
    held = (share > 0.5) & (table.sizes[table.columns] > 0) & (table.counts >= MIN_HELD)
    column, segment = table.columns[held], owner[held]
    # Along x, so that a search can end early.
    rank = np.empty(segment_count, np.int64)
    rank[np.argsort(low[:, 0], kind="stable")] = np.arange(segment_count)
    order = np.argsort(column * np.int64(segment_count) + rank[segment])
    keys = np.unique(_near_keys(column[order], segment[order], low, high, gap * gap))
    return keys // max(segment_count, 1), keys % max(segment_count, 1)


@njit(cache=True, nogil=True)
def _fits(thing_of_segment, by_thing, starts, columns, counts, pictures, sizes):
    best, fit = np.full(len(sizes), -1, np.int32), np.zeros(len(sizes), np.float32)
    common, visible = np.zeros(len(sizes)), np.zeros(pictures[-1] + 1 if len(pictures) else 0)
    touched = np.empty(len(sizes), np.int64)
    begin = 0
    while begin < len(by_thing):
        thing = thing_of_segment[by_thing[begin]]
        end, found = begin, 0
        while end < len(by_thing) and thing_of_segment[by_thing[end]] == thing:
            for e in range(starts[by_thing[end]], starts[by_thing[end] + 1]):
                column = columns[e]
                if common[column] == 0:
                    touched[found] = column
                    found += 1
                common[column] += counts[e]
                visible[pictures[column]] += counts[e]
            end += 1
        # Things ascend, so a tie leaves the smaller one.
        for column in touched[:found]:
            if sizes[column] > 0:
                iou = np.float32(common[column] / (sizes[column] + visible[pictures[column]] - common[column]))
                if iou > fit[column]:
                    best[column], fit[column] = thing, iou
        for column in touched[:found]:
            common[column] = 0
            visible[pictures[column]] = 0
        begin = end
    return best, fit


@njit(cache=True, nogil=True)
def _near_keys(column, segment, low, high, most_squared):
    """a * S + b of each pair a < b of segments with equal column that are near, int64, repeated where several are.

    Segments of a column come in ascending order of `low[:, 0]`.
    """
    keys, found = np.empty(1024, np.int64), 0
    begin = 0
    while begin < len(column):
        end = begin
        while end < len(column) and column[end] == column[begin]:
            end += 1
        if end - begin <= MOST_HELD:
            for i in range(begin, end):
                for j in range(i + 1, end):
                    a, b = segment[i], segment[j]
                    if max(0.0, low[b, 0] - high[a, 0]) ** 2 >= most_squared:
                        break
                    squared = 0.0
                    for k in range(3):
                        squared += max(0.0, max(low[a, k], low[b, k]) - min(high[a, k], high[b, k])) ** 2
                    if squared < most_squared:
                        if found == len(keys):
                            longer = np.empty(2 * found, np.int64)
                            longer[:found] = keys
                            keys = longer
                        keys[found] = min(a, b) * len(low) + max(a, b)
                        found += 1
        begin = end
    return keys[:found]
