# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""What each keyframe saw: rows of map points, the mask that each lay on, and its pixel.

Questions about labels of today are answered by replaying the log, so nothing has to be decided when a
keyframe arrives.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numba import njit

from ..errors import MapFileError
from ..types import Array, MapCorrection

# A keyframe is redundant when this share of its points is in two or more others.
REDUNDANT = 0.9
# A keyframe is spent when half of its points are in enough others, and nearly all in a few: the rest are fewer than
# the points of a thing.
SPENT, FEW, NEARLY_ALL = 0.5, 3, 0.995
# So many are looked at with each keyframe that comes.
LOOKED_AT = 2
NO_LIMIT = 1 << 62
# A point that a correction moves this far from where the keyframe that saw it goes (m) was not where it was seen.
APART = 0.04


@dataclass(frozen=True, eq=False)
class LoggedKeyframe:
    """rows int32 (n,); masks int16 (L, n), of each of L label images, 0 = none; pixels uint16 (n, 2) as (u, v).

    `mask_counts` are the masks in all of each label image. The arrays are never written to: copies may be shared
    between threads.
    """

    number: int
    rows: Array
    masks: Array
    pixels: Array
    mask_counts: tuple[int, ...]

    @property
    def memory_bytes(self) -> int:
        return self.rows.nbytes + self.masks.nbytes + self.pixels.nbytes


class KeyframeLog:
    """Keyframes in stream order, at most `capacity` and `budget_bytes`.

    When full, the oldest redundant keyframes go, of which 90 % of the points are in at least two others, else
    those of the largest such share: one, or 5 % of what is allowed at once, for the search looks at all points. Points
    that leave the map leave the log too, so that keyframes of what was evicted become empty, and go. The newest
    keyframe always stays.
    Where `enough` is given, a keyframe goes when half of its points are in so many others and nearly all of them in
    at least three: evidence beyond that counts little, and the log grows with the map and not with time. With each
    keyframe that comes two others are looked at, in turn, from the oldest to the newest.
    """

    def __init__(self, capacity: int, budget_bytes: int = NO_LIMIT, enough: int | None = None):
        self.capacity = capacity
        self.enough = enough
        self.budget_bytes = budget_bytes
        self.reset()

    def reset(self) -> None:
        self._keyframes: list[LoggedKeyframe] = []
        self._cover = np.zeros(0, np.int32)
        self._bytes = 0
        self._next_look = 0
        self.evicted = 0
        """Keyframes that left for capacity or budget."""

    def __len__(self) -> int:
        return len(self._keyframes)

    def __iter__(self) -> Iterator[LoggedKeyframe]:
        return iter(self._keyframes)

    @property
    def memory_bytes(self) -> int:
        return int(self._cover.nbytes) + self._bytes

    def append(self, number: int, rows: Array, masks: Array, pixels: Array, mask_counts: Sequence[int]) -> None:
        """Visible rows (n,), their masks (L, n) in each of L label images and pixels (n, 2); each row once."""
        keyframe = LoggedKeyframe(
            int(number),
            rows.astype(np.int32),
            masks.astype(np.int16),
            np.rint(pixels).astype(np.uint16),
            tuple(int(count) for count in mask_counts),
        )
        self._add(keyframe)
        self._drop_spent()
        self.make_room()

    def _add(self, keyframe: LoggedKeyframe) -> None:
        top = int(keyframe.rows.max(initial=-1)) + 1
        if top > len(self._cover):
            self._cover = np.concatenate([self._cover, np.zeros(max(top, top * 3 // 2) - len(self._cover), np.int32)])
        self._cover[keyframe.rows] += 1
        self._keyframes.append(keyframe)
        self._bytes += keyframe.memory_bytes

    def _uncount(self, keyframe: LoggedKeyframe) -> None:
        self._cover[keyframe.rows] -= 1
        self._bytes -= keyframe.memory_bytes

    def _drop_spent(self) -> None:
        if self.enough is None:
            return
        for _ in range(min(LOOKED_AT, len(self) - 1)):
            # The newest is not looked at: it was just added because it shows something new.
            place = self._next_look % (len(self) - 1)
            keyframe = self._keyframes[place]
            often, again = (_share_covered(self._cover, keyframe.rows, least + 1) for least in (self.enough, FEW))
            if often >= SPENT and again >= NEARLY_ALL:
                self._uncount(keyframe)
                del self._keyframes[place]
                self._next_look = place
            else:
                self._next_look = place + 1

    def make_room(self) -> None:
        """Drops keyframes until capacity and budget are kept, and some room is left."""
        if len(self) <= self.capacity and self.memory_bytes <= self.budget_bytes:
            return
        most = self.capacity - self.capacity // 20 if len(self) > self.capacity else self.capacity
        limit = self.budget_bytes - self.budget_bytes // 20
        # The newest is never dropped: it was just added because it shows something new.
        *older, newest = self._keyframes
        shares: dict[int, float] = {}
        dropped: set[int] = set()

        def drop(i: int) -> None:
            dropped.add(i)
            self._uncount(older[i])

        for i, keyframe in enumerate(older):
            if len(self) - len(dropped) <= most and self.memory_bytes <= limit:
                break
            shares[i] = _share_covered(self._cover, keyframe.rows, 3)
            if shares[i] >= REDUNDANT:
                drop(i)
        for i in sorted(shares, key=lambda i: -shares[i]):
            if len(self) - len(dropped) <= most and self.memory_bytes <= limit:
                break
            if i not in dropped:
                drop(i)
        self._keyframes = [k for i, k in enumerate(older) if i not in dropped] + [newest]
        self.evicted += len(dropped)

    def _replace_all(self, changed: Callable[[LoggedKeyframe], tuple[Array, Array]]) -> None:
        """Each keyframe keeps the entries `chosen`, of which `rows` are the rows now: changed(keyframe) = chosen, rows.

        One after the other, so that old and new are not held together. Arrays handed out before stay as they are.
        """
        old, evicted, next_look = self._keyframes, self.evicted, self._next_look
        self.reset()
        self.evicted, self._next_look = evicted, next_look
        old.reverse()
        while old:
            keyframe = old.pop()
            chosen, rows = changed(keyframe)
            masks, pixels = keyframe.masks[:, chosen], keyframe.pixels[chosen]
            self._add(replace(keyframe, rows=rows.astype(np.int32), masks=masks, pixels=pixels))

    def remap(self, new_rows: Array) -> None:
        """Row r is now `new_rows[r]`, or gone where that is -1."""

        def moved(keyframe: LoggedKeyframe) -> tuple[Array, Array]:
            rows = new_rows[keyframe.rows]
            keep = rows >= 0
            return keep, rows[keep]

        self._replace_all(moved)

    def correct(self, correction: MapCorrection) -> None:
        """Keyframes and points moved. What a keyframe saw of a point that moved otherwise than itself, by more than
        `APART` metres, was another place, and is forgotten; of points that merged, it keeps what it saw of one."""
        new_row = np.arange(len(correction.before), dtype=np.int32)
        new_row[correction.gone_rows] = correction.kept_rows
        deltas = dict(zip(correction.keyframes.tolist(), correction.deltas, strict=True))

        def moved(keyframe: LoggedKeyframe) -> tuple[Array, Array]:
            delta = deltas.get(keyframe.number, np.eye(4))
            with_it = _moved_with(keyframe.rows, correction.before, correction.after, delta, APART)
            rows = np.where(with_it, new_row[keyframe.rows], np.int32(-1))
            # What it saw of the point that stays comes first.
            order = np.lexsort((rows != keyframe.rows, rows))
            chosen = order[np.diff(rows[order], prepend=-1) > 0]
            return chosen, rows[chosen]

        self._replace_all(moved)

    def state(self) -> dict[str, Array]:
        """Arrays for `restore`."""
        frames = self._keyframes
        counts = np.array([len(k.rows) for k in frames], np.int64)
        return {
            "numbers": np.array([k.number for k in frames], np.int64),
            "label_images": np.array([len(k.masks) for k in frames], np.int32),
            "mask_counts": np.array([count for k in frames for count in k.mask_counts], np.int32),
            "counts": counts,
            "rows": np.concatenate([np.empty(0, np.int32), *(k.rows for k in frames)]),
            "masks": np.concatenate([np.empty(0, np.int16), *(k.masks.reshape(-1) for k in frames)]),
            "pixels": np.concatenate([np.empty((0, 2), np.uint16), *(k.pixels for k in frames)]),
            "next_look": np.full(min(len(frames), 1), self._next_look, np.int64),
        }

    def restore(self, state: Mapping[str, Array]) -> None:
        """From `state`. Raises MapFileError where the arrays do not belong together.

        They come from a file, and kernels do not check indices: nothing out of range may pass.
        """
        for name in ("numbers", "label_images", "mask_counts", "counts", "rows", "masks", "pixels"):
            if state[name].dtype.kind not in "iu" or state[name].ndim != 1 + (name == "pixels"):
                raise MapFileError("damaged", f"the keyframe log's {name} are no list of whole numbers")
        counts, images, mask_counts = state["counts"], state["label_images"], state["mask_counts"]
        if (
            len(state["numbers"]) != len(counts)
            or len(images) != len(counts)
            or (images < 1).any()
            or (counts < 0).any()
        ):
            raise MapFileError("damaged", "the keyframe log states keyframes that cannot be")
        total, entries = int(counts.sum()), int((counts * images).sum())
        if not (total == len(state["rows"]) == len(state["pixels"]) and entries == len(state["masks"])) or int(
            images.sum()
        ) != len(mask_counts):
            raise MapFileError("damaged", "the keyframe log's arrays differ in length")
        most = np.repeat(mask_counts, np.repeat(counts, images))
        if (
            state["rows"].min(initial=0) < 0
            or ((state["masks"] < 0) | (state["masks"] > most)).any()
            or ((mask_counts < 0) | (mask_counts > np.iinfo(np.int16).max)).any()
            or state["pixels"].shape != (total, 2)
        ):
            raise MapFileError("damaged", "the keyframe log holds rows, masks or pixels that cannot be")
        self.reset()
        # Maps of before do not have it.
        self._next_look = int(np.max(state.get("next_look", 0), initial=0))
        ends, mask_ends, image_ends = np.cumsum(counts), np.cumsum(counts * images), np.cumsum(images)
        for i in range(len(counts)):
            begin, end = int(ends[i] - counts[i]), int(ends[i])
            masks = state["masks"][mask_ends[i] - counts[i] * images[i] : mask_ends[i]]
            self._add(
                LoggedKeyframe(
                    int(state["numbers"][i]),
                    state["rows"][begin:end].astype(np.int32),
                    masks.astype(np.int16).reshape(int(images[i]), -1)
                    if counts[i]
                    else np.zeros((images[i], 0), np.int16),
                    state["pixels"][begin:end].astype(np.uint16),
                    tuple(mask_counts[image_ends[i] - images[i] : image_ends[i]].tolist()),
                )
            )


@njit(cache=True, nogil=True)
def _moved_with(rows: Array, before: Array, after: Array, delta: Array, apart: float) -> Array:
    """Which rows moved from `before` to `after` (R, 3) as a rigid move delta (4, 4) would have it, bool (n,)."""
    out = np.empty(len(rows), np.bool_)
    for i in range(len(rows)):
        p, q, error = before[rows[i]], after[rows[i]], 0.0
        for axis in range(3):
            goal = delta[axis, 0] * p[0] + delta[axis, 1] * p[1] + delta[axis, 2] * p[2] + delta[axis, 3]
            error += (goal - q[axis]) ** 2
        out[i] = error <= apart * apart
    return out


@njit(cache=True, nogil=True)
def _share_covered(cover: Array, rows: Array, least: int) -> float:
    count = 0
    for i in range(len(rows)):
        if cover[rows[i]] >= least:
            count += 1
    return count / len(rows) if len(rows) else 1.0


@njit(cache=True, nogil=True)
def contingency(labels: Array, masks: Array, label_count: int, mask_count: int) -> tuple[Array, Array]:
    """How the labels of one keyframe's points fall on its masks.

    labels int (n,) in 0..label_count - 1 (0 left out); masks int (n,) in 0..mask_count. Gives the labels that
    occur, ascending (k,), and counts int32 (k, mask_count + 1). Cost: points plus labels.
    """
    local = np.zeros(label_count, np.int32)
    for i in range(len(labels)):
        local[labels[i]] = 1
    local[0] = 0
    present = np.flatnonzero(local)
    for k in range(len(present)):
        local[present[k]] = k
    counts = np.zeros((len(present), mask_count + 1), np.int32)
    for i in range(len(labels)):
        if labels[i] > 0:
            counts[local[labels[i]], masks[i]] += 1
    return present, counts
