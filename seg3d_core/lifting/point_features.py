# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Image features of map points: of each point's k nearest visible views, kept up to date frame by frame.

SegDINO3D's image level (eqs. 1 and 2). What is kept after the last frame is what a search through all frames would
have chosen, as long as the budget holds all points that were seen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ..budgets import megabytes
from ..errors import MapFileError, Seg3DError
from ..types import Array, Camera, FeatureMap
from .feature_kernels import choose_slots, mean_of_views, sample_levels

# Bits of an eviction key: sightings, then the last observation, then the row.
_OBSERVATION_BITS, _ROW_BITS = 22, 26


def view_distances(pixels: Array, depths: Array, camera: Camera) -> Array:
    """Euclidean distance float32 (n,) from the camera's centre (SegDINO3D eq. 1); pixels (n, 2), depths (n,) in m."""
    x = (pixels[:, 0] - camera.cx) / camera.fx
    y = (pixels[:, 1] - camera.cy) / camera.fy
    return np.asarray(depths * np.sqrt(1 + x * x + y * y), np.float32)


class PointFeatures:
    """Features of the `views` nearest views of each map row (or the farthest, with `nearest` False), half precision.

    A point that has features takes 2 C + 8 bytes a view and 4 more, and every map row 10 bytes, of `budget_mb` million
    bytes in all. The budget's address range is set aside at the first frame, memory as it fills. When it is full, the
    points that were seen in the fewest frames lose their features, among these the ones not seen for longest, then
    those of the largest rows; later sightings may bring new ones.
    """

    def __init__(self, views: int = 3, budget_mb: float = 768.0, nearest: bool = True) -> None:
        self.views, self.nearest = views, nearest
        self.budget_bytes = megabytes(budget_mb)
        self.reset()

    def reset(self) -> None:
        self.encoder_id = ""
        self.channels = 0
        self.refused = 0
        """Samples left out because they were no finite numbers of half precision."""
        self.evicted = 0
        """How often a point lost its features to the budget, or found no room."""
        self._observed = 0
        self._place_of_row = np.empty(0, np.int32)
        self._sightings = np.empty(0, np.uint16)
        self._last = np.empty(0, np.int32)
        self._allocate(0)

    @property
    def _table_bytes(self) -> int:
        return self._place_of_row.nbytes + self._sightings.nbytes + self._last.nbytes

    def _affordable(self, channels: int) -> int:
        """Points that the budget has room for beside the tables of rows."""
        per_point = self.views * (2 * channels + 8) + 4
        return max(self.budget_bytes - self._table_bytes, 0) // per_point if channels else 0

    def _allocate(self, channels: int) -> None:
        capacity = self._affordable(channels)
        self._features = np.empty((capacity, self.views, channels), np.float16)
        self._distances = np.empty((capacity, self.views), np.float32)
        self._stamps = np.empty((capacity, self.views), np.int32)
        self._row_of_place = np.empty(capacity, np.int32)
        self.channels = channels
        self._used = 0
        self._free = np.empty(0, np.int64)

    def __len__(self) -> int:
        """Points that have features."""
        return self._used - len(self._free)

    @property
    def capacity(self) -> int:
        """Points that the budget has room for; 0 before the first frame says how many channels there are."""
        return len(self._row_of_place)

    @property
    def memory_bytes(self) -> int:
        """Bytes in use."""
        return self._used * (self.views * (2 * self.channels + 8) + 4) + self._table_bytes

    def grow(self, rows: int) -> None:
        """Makes room for rows 0 .. `rows` - 1; the new ones are unseen."""
        more = rows - len(self._last)
        if more <= 0:
            return
        more = max(more, len(self._last) // 2)
        places = np.concatenate([self._place_of_row, np.full(more, -1, np.int32)])
        sightings = np.concatenate([self._sightings, np.zeros(more, np.uint16)])
        last = np.concatenate([self._last, np.zeros(more, np.int32)])
        # All or none: memory may run out in between.
        self._place_of_row, self._sightings, self._last = places, sightings, last
        self.make_room()

    def make_room(self) -> None:
        """Gives up places until the budget is kept: tables that grow with the map take theirs from the features."""
        capacity = self._affordable(self.channels)
        if capacity >= self.capacity:
            return
        held = self._held_rows()
        surplus = len(held) - capacity
        if surplus > 0:
            self.evicted += surplus
            leaving = held[np.argsort(self._keys(held))[:surplus]]
            self._place_of_row[leaving] = -1
            held = np.setdiff1d(held, leaving)
        places = self._place_of_row[held]
        features, distances, stamps = self._features[places], self._distances[places], self._stamps[places]
        self._allocate(self.channels)
        self._used = len(held)
        self._features[: len(held)], self._distances[: len(held)] = features, distances
        self._stamps[: len(held)], self._row_of_place[: len(held)] = stamps, held
        self._place_of_row[held] = np.arange(len(held))

    def observe(self, rows: Array, pixels: Array, distances: Array, levels: FeatureMap | Sequence[FeatureMap]) -> None:
        """One frame: the rows int64 (n,) it sees, once each, ascending, pixels (n, 2) as (u, v), distances (n,) in m.

        `levels` are the frame's feature maps, all of one encoder and as many channels; a point takes their mean,
        each sampled bilinearly at ((u, v) + 0.5) / stride - 0.5, at the border by the cells there. Of two views at
        one distance the earlier counts as nearer. Raises Seg3DError for another encoder than before.
        """
        levels = [levels] if isinstance(levels, FeatureMap) else list(levels)
        self._check(levels)
        self._observed += 1
        if not len(rows):
            return
        self.grow(int(rows[-1]) + 1)
        self._sightings[rows] += self._sightings[rows] < np.iinfo(np.uint16).max
        self._last[rows] = self._observed
        self._admit(rows)
        places = self._place_of_row[rows]
        ranks = np.asarray(distances if self.nearest else -distances, np.float32)
        chosen, slots = choose_slots(places, ranks, self._distances, self._stamps)
        samples, good = sample_levels(
            np.asarray(pixels, np.float32)[chosen],
            tuple(np.ascontiguousarray(level.values.transpose(1, 2, 0), np.float32) for level in levels),
            np.array([level.stride for level in levels], np.float32),
        )
        self.refused += int(len(good) - good.sum())
        chosen, slots = chosen[good], slots[good]
        taken = places[chosen]
        self._features[taken, slots] = samples[good].astype(np.float16)
        self._distances[taken, slots], self._stamps[taken, slots] = ranks[chosen], self._observed

    def _check(self, levels: list[FeatureMap]) -> None:
        if not levels:
            raise Seg3DError("no feature map was given")
        known, channels = self.encoder_id or levels[0].encoder_id, self.channels or levels[0].values.shape[0]
        for level in levels:
            if level.values.ndim != 3 or 0 in level.values.shape or not level.stride > 0:
                raise Seg3DError(
                    f"{level.encoder_id}: a feature map of shape {level.values.shape} and stride {level.stride}"
                )
            if (level.encoder_id, level.values.shape[0]) != (known, channels):
                raise Seg3DError(
                    f"features of {level.encoder_id} ({level.values.shape[0]} channels) do not compare with those of "
                    f"{known} ({channels}) in this map: start a new one"
                )
        if not self.channels:
            self._allocate(channels)
        self.encoder_id = known

    def _admit(self, rows: Array) -> None:
        """Gives those of the rows a place that have none, as far as they are seen more than who must give way."""
        new = rows[self._place_of_row[rows] < 0]
        surplus = len(self) + len(new) - self.capacity
        if surplus > 0:
            self.evicted += surplus
            held = np.concatenate([self._held_rows(), new])
            keys = self._keys(held)
            leaving = held[keys < np.partition(keys, surplus)[surplus]] if surplus < len(held) else held
            self._release(leaving[self._place_of_row[leaving] >= 0])
            new = new[~np.isin(new, leaving)]
        free, self._free = self._free[: len(new)], self._free[len(new) :]
        places = np.concatenate([free, np.arange(self._used, self._used + len(new) - len(free))])
        self._used += len(new) - len(free)
        self._place_of_row[new] = places
        self._row_of_place[places] = new
        self._distances[places] = np.inf

    def _keys(self, rows: Array) -> Array:
        """The order in which rows lose their features, uint64, all different."""
        last = np.minimum(self._last[rows], (1 << _OBSERVATION_BITS) - 1).astype(np.uint64)
        key = self._sightings[rows].astype(np.uint64) << np.uint64(_OBSERVATION_BITS) | last
        return key << np.uint64(_ROW_BITS) | np.uint64((1 << _ROW_BITS) - 1) - rows.astype(np.uint64)

    def _held_rows(self) -> Array:
        held = self._row_of_place[: self._used]
        return held[held >= 0].astype(np.int64)

    def _release(self, rows: Array) -> None:
        places = self._place_of_row[rows]
        self._place_of_row[rows], self._row_of_place[places] = -1, -1
        self._free = np.sort(np.concatenate([self._free, places]))

    def features(self, rows: Array) -> tuple[Array, Array]:
        """The mean over each point's views, float32 (n, C), 0 where there is none, and their number uint8 (n,).

        rows int64 (n,). Copies, that any thread may keep.
        """
        places = np.full(len(rows), -1, np.int32)
        known = rows < len(self._place_of_row)
        places[known] = self._place_of_row[rows[known]]
        return mean_of_views(places, self._features.view(np.uint16), self._distances)

    def remap(self, new_rows: Array) -> None:
        """Row r moves to `new_rows[r]`, or is forgotten where that is -1."""
        new_rows = new_rows[: len(self._last)]
        old = np.flatnonzero(new_rows >= 0)
        gone = np.flatnonzero(new_rows < 0)
        self._release(gone[self._place_of_row[gone] >= 0])
        places, sightings, last = self._place_of_row[old], self._sightings[old], self._last[old]
        self._place_of_row = np.empty(0, np.int32)
        self._sightings, self._last = np.empty(0, np.uint16), np.empty(0, np.int32)
        self.grow(int(new_rows.max(initial=-1)) + 1)
        new = new_rows[old]
        self._place_of_row[new], self._sightings[new], self._last[new] = places, sightings, last
        self._row_of_place[places[places >= 0]] = new[places >= 0]

    def merge(self, gone: Array, kept: Array) -> None:
        """Rows `gone` int64 (m,) give their views to the rows `kept`, which keep the best of all; of one frame, one."""
        known = gone < len(self._last)
        gone, kept = gone[known], kept[known]
        # Several that go to one row do so one after the other.
        order = np.argsort(kept, kind="stable")
        first = np.searchsorted(kept[order], kept[order])
        turns = np.empty(len(kept), np.int64)
        turns[order] = np.arange(len(kept)) - first
        for turn in range(int(turns.max(initial=-1)) + 1):
            self._merge(gone[turns == turn], kept[turns == turn])

    def _merge(self, gone: Array, kept: Array) -> None:
        sightings = self._sightings[kept].astype(np.int64) + self._sightings[gone]
        self._sightings[kept] = np.minimum(sightings, np.iinfo(np.uint16).max)
        self._last[kept] = np.maximum(self._last[kept], self._last[gone])
        self._sightings[gone], self._last[gone] = 0, 0
        gone, kept = (rows[self._place_of_row[gone] >= 0] for rows in (gone, kept))
        alone = self._place_of_row[kept] < 0
        places = self._place_of_row[gone[alone]]
        self._place_of_row[kept[alone]], self._row_of_place[places] = places, kept[alone]
        self._place_of_row[gone[alone]] = -1
        gone, kept = gone[~alone], kept[~alone]
        a, b = self._place_of_row[kept], self._place_of_row[gone]
        again = (self._stamps[b][:, :, None] == self._stamps[a][:, None]) & np.isfinite(self._distances[a])[:, None]
        ranks = np.concatenate([self._distances[a], np.where(again.any(axis=2), np.inf, self._distances[b])], axis=1)
        stamps = np.concatenate([self._stamps[a], self._stamps[b]], axis=1)
        best = np.lexsort((stamps, ranks), axis=-1)[:, : self.views]
        features = np.concatenate([self._features[a], self._features[b]], axis=1)
        self._features[a] = np.take_along_axis(features, best[:, :, None], axis=1)
        self._distances[a] = np.take_along_axis(ranks, best, axis=1)
        self._stamps[a] = np.take_along_axis(stamps, best, axis=1)
        self._release(gone)

    def state(self) -> dict[str, Array]:
        """Arrays for `restore`: S points with features, R rows."""
        rows = np.sort(self._held_rows())
        places = self._place_of_row[rows]
        return {
            "rows": rows,
            "features": self._features[places],
            "distances": self._distances[places],
            "stamps": self._stamps[places],
            "sightings": self._sightings.copy(),
            "last": self._last.copy(),
            "counters": np.array([self._observed, self.refused, self.evicted], np.int64),
            "encoder_id": np.array(self.encoder_id),
        }

    def restore(self, state: Mapping[str, Array]) -> None:
        """From `state`, which must have as many views; the budget may be another. Raises MapFileError."""
        self._check_state(state)
        self.reset()
        self.encoder_id = str(state["encoder_id"])
        self._observed, self.refused, self.evicted = (int(n) for n in state["counters"])
        self.grow(len(state["last"]))
        self._sightings[: len(state["last"])] = state["sightings"]
        self._last[: len(state["last"])] = state["last"]
        if state["features"].shape[2]:
            self._allocate(state["features"].shape[2])
        rows = state["rows"].astype(np.int64)
        self._admit(rows)
        kept = self._place_of_row[rows] >= 0
        places = self._place_of_row[rows[kept]]
        self._features[places] = state["features"][kept]
        self._distances[places] = state["distances"][kept]
        self._stamps[places] = state["stamps"][kept]

    def _check_state(self, state: Mapping[str, Array]) -> None:
        rows, features, last = state["rows"], state["features"], state["last"]
        if features.ndim != 3 or features.shape[:2] != (len(rows), self.views):
            raise MapFileError(
                "damaged", f"point features of shape {features.shape} for {len(rows)} points of {self.views} views each"
            )
        if not (state["distances"].shape == state["stamps"].shape == features.shape[:2]):
            raise MapFileError("damaged", "point features and their distances differ in number")
        if state["counters"].shape != (3,) or last.ndim != 1 or state["sightings"].shape != last.shape:
            raise MapFileError("damaged", "the point features' sightings and counters do not belong together")
        if len(rows) and (rows[0] < 0 or rows[-1] >= len(last) or (np.diff(rows) <= 0).any()):
            raise MapFileError("damaged", "the rows of point features are not ascending and within the map")
