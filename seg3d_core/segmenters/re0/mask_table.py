"""Which masks the parts of the map were seen on: a sparse table that is made anew at each snapshot."""

# numba infers the types of kernels.
# mypy: allow-untyped-defs

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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
    order = np.argsort(column, kind="stable")
    keys = np.unique(_near_keys(column[order], segment[order], low, high, gap * gap))
    return keys // max(segment_count, 1), keys % max(segment_count, 1)


@njit(cache=True, nogil=True)
def _near_keys(column, segment, low, high, most_squared):
    """a * S + b of each pair a < b of segments with equal column that are near, int64, repeated where several are."""
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
