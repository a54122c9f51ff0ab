# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Which masks the parts of the map were seen on: a sparse table that is made anew at each snapshot."""

# numba infers the types of kernels.
# mypy: allow-untyped-defs

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numba import njit

from ...lifting.keyframe_log import LoggedKeyframe
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
    slots = np.full(segment_count, -1, np.int32)
    owners, columns, counts = [np.empty(0, np.int32)], [np.empty(0, np.int32)], [np.empty(0, np.float32)]
    pictures, sizes = [np.empty(0, np.int32)], [np.empty(0, np.float32)]
    offset = 0
    for keyframe in keyframes:
        for masks, mask_count in zip(keyframe.masks, keyframe.mask_counts, strict=True):
            owner, column, count, size = _entries(keyframe.rows, by_row, masks, mask_count, slots, offset)
            owners.append(owner)
            columns.append(column)
            counts.append(count)
            sizes.append(size)
            pictures.append(np.full(mask_count + 1, len(pictures) - 1, np.int32))
            offset += mask_count + 1
    starts, by_segment, their_counts = _sorted_by_owner(
        segment_count, np.concatenate(owners), np.concatenate(columns), np.concatenate(counts)
    )
    return MaskTable(starts, by_segment, their_counts, np.concatenate(pictures), np.concatenate(sizes))


@njit(cache=True, nogil=True)
def _entries(rows, by_row, masks, mask_count, slots, offset):
    """Of one picture: segment, column and count of each entry, columns ascending within a segment, and the masks'
    sizes. `slots` are -1 between calls."""
    present, found = np.empty(len(rows), np.int32), 0
    for row in rows:
        segment = by_row[row]
        if segment >= 0 and slots[segment] < 0:
            slots[segment], present[found] = found, segment
            found += 1
    on_mask, filled = np.zeros((found, mask_count + 1), np.int32), 0
    for i in range(len(rows)):
        segment = by_row[rows[i]]
        if segment >= 0:
            filled += on_mask[slots[segment], masks[i]] == 0
            on_mask[slots[segment], masks[i]] += 1
    owner, column, count = np.empty(filled, np.int32), np.empty(filled, np.int32), np.empty(filled, np.float32)
    sizes, e = np.zeros(mask_count + 1, np.float32), 0
    for k in range(found):
        slots[present[k]] = -1
        for mask in range(mask_count + 1):
            if on_mask[k, mask] > 0:
                owner[e], column[e], count[e] = present[k], offset + mask, on_mask[k, mask]
                sizes[mask] += on_mask[k, mask]
                e += 1
    sizes[0] = 0
    return owner, column, count, sizes


@njit(cache=True, nogil=True)
def _sorted_by_owner(owner_count, owners, columns, counts):
    """Where each owner's entries start, and the entries by owner, else in their order."""
    starts = np.zeros(owner_count + 1, np.int64)
    for owner in owners:
        starts[owner + 1] += 1
    starts = np.cumsum(starts)
    filled, out_columns, out_counts = starts[:-1].copy(), np.empty_like(columns), np.empty_like(counts)
    for e in range(len(owners)):
        place = filled[owners[e]]
        out_columns[place], out_counts[place] = columns[e], counts[e]
        filled[owners[e]] += 1
    return starts, out_columns, out_counts


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
    # Along x, so that a search can end early.
    along = np.argsort(low[:, 0], kind="stable")
    held = _held(table.starts, table.columns, table.counts, table.pictures, table.sizes)
    keys = _near_keys(along, table.starts, table.columns, held, len(table.sizes), low, high, gap * gap)
    keys.sort()
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
def _held(starts, columns, counts, pictures, sizes):
    """Which entries are of a mask that holds their segment, bool."""
    held = np.zeros(len(columns), np.bool_)
    for s in range(len(starts) - 1):
        e = starts[s]
        while e < starts[s + 1]:
            end, visible = e, np.float32(0)
            while end < starts[s + 1] and pictures[columns[end]] == pictures[columns[e]]:
                visible += counts[end]
                end += 1
            for k in range(e, end):
                held[k] = counts[k] / visible > 0.5 and sizes[columns[k]] > 0 and counts[k] >= MIN_HELD
            e = end
    return held


@njit(cache=True, nogil=True)
def _near_keys(along, starts, columns, held, column_count, low, high, most_squared):
    """a * S + b of each pair a < b of segments that a mask holds and that are near, int64, each once; `along` are the
    segments in ascending order of `low[:, 0]`."""
    begins = np.zeros(column_count + 1, np.int64)
    for e in range(len(columns)):
        begins[columns[e] + 1] += held[e]
    begins = np.cumsum(begins)
    ends, members = begins[:-1].copy(), np.empty(begins[-1], np.int32)
    for s in along:
        for e in range(starts[s], starts[s + 1]):
            if held[e]:
                members[ends[columns[e]]] = s
                ends[columns[e]] += 1
    following, looked_at_by = begins[:-1].copy(), np.full(len(along), -1, np.int32)
    keys, found = np.empty(1024, np.int64), 0
    for a in along:
        for e in range(starts[a], starts[a + 1]):
            if not held[e]:
                continue
            column = columns[e]
            following[column] += 1
            if ends[column] - begins[column] > MOST_HELD:
                continue
            for b in members[following[column] : ends[column]]:
                if max(0.0, low[b, 0] - high[a, 0]) ** 2 >= most_squared:
                    break
                if looked_at_by[b] == a:
                    continue
                looked_at_by[b] = a
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
    return keys[:found]
