# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""The map that grows from posed depth images: one point per voxel, under an id that is never reused."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import suppress

import numpy as np

from ..config import MapConfig, MemoryConfig
from ..errors import MapFileError
from ..types import Array, Frame, MapCorrection, PoseCorrection, Visible
from .base import BaseMap, plain
from .block_index import MIN_BLOCKS, VOXEL_LIMIT, BlockIndex, grown
from .corrections import Moves, deltas_of, index_merging, move_points, plan
from .eviction import BLOCK_BYTES, EVICT_ABOVE, EVICT_TO, ROW_BYTES, evict, squeeze_rows
from .fusion import BLOCKS, COLUMNS, DROPPED, LIVE, NEXT_ID, ROWS, TOUCHED, WEIGHT, XYZ, Pinhole, apply_sums, sum_rows
from .pose_history import NO_POSE, PoseHistory
from .visibility import fade

logger = logging.getLogger(__name__)

# Dead rows are squeezed out when they are this many and this share of all.
COMPACT_ROWS, COMPACT_SHARE = 10_000, 0.25
# Or when the budget is short, and they take this share of it. Room grows by at least as much of it, so seldom.
COMPACT_BUDGET, GROW_BUDGET = 0.05, 1 / 32


class PointMap(BaseMap):
    """Fuses frames into voxels of `config.voxel_size`: running means of position, colour and normal.

    What a frame shows in a voxel without a point goes to a point that is near in a voxel beside it, if there is one
    (`fusion.TWIN`): surfaces are one layer of points, wherever they lie.
    A point's weight is the number of frames that saw its voxel, at most `max_weight`. Frames that see
    through a point take `fade` off its weight; at 0 it leaves the map, and its voxel may be born again
    under a new id. Images are taken as rectified: lens distortion is not applied.

    A map of `max_points` or of its budget in MB goes on: far and least seen points leave it (`eviction`), at the end of
    a frame, and what a frame had no room for comes with the next. Ids of the others stay.

    Each point remembers the pose that it was made under (4 bytes), and moves with it when poses are corrected.
    """

    def __init__(
        self,
        config: MapConfig,
        budget_mb: float = MemoryConfig().map_mb,
        history_mb: float = MemoryConfig().pose_history_mb,
    ) -> None:
        super().__init__(config, with_slots=True, budget_mb=budget_mb)
        self._next_id = 1
        self._camera = np.zeros(3)
        self._is_full = False
        self.poses = PoseHistory(int(history_mb * 1e6))

    def _clear(self) -> None:
        super()._clear()
        self._anchors = np.empty(0, np.int32)

    def _grow_rows(self, room: int) -> None:
        anchors = grown(self._anchors, room, fill=NO_POSE)
        super()._grow_rows(room)
        self._anchors = anchors

    @property
    def memory_bytes(self) -> int:
        """Bytes allocated for points, the numbers of their poses and their index, room to grow included."""
        return super().memory_bytes + int(self._anchors.nbytes)

    def integrate(self, frame: Frame) -> Visible:
        """Fuses a frame and returns the points it sees, new ones included, ids ascending.

        Raises FrameError (`size`, `pose`, `rotation`, `camera`) and leaves the map as it was. Where memory runs out,
        MemoryError: the map is whole then, and may have taken in the frame.
        """
        camera = self._prepare(frame)
        born = self._rows
        try:
            touched = self._fuse(frame, camera)
        finally:
            self._remember_pose(frame.stamp, camera, born)
        visible, through = self._look(frame, camera, touched, with_through=self.config.fade > 0)
        self._removed_ids = self._fade(through)
        self._camera = camera.translation
        evicted = self._evict(visible.rows)
        if len(evicted):
            self._removed_ids = np.sort(np.concatenate([self._removed_ids, evicted]))
        return visible

    def _remember_pose(self, stamp: float, camera: Pinhole, born: int) -> None:
        """The points from row `born` on were made under the camera's pose."""
        # Where memory runs out now, they remember none.
        self._anchors[born : self._rows] = NO_POSE
        anchor = self.poses.add(stamp, np.column_stack([camera.rotation, camera.translation]))
        if self.poses.renumbered is not None:
            old = self._anchors[:born]
            self._anchors[:born] = np.where(old >= 0, self.poses.renumbered[old], NO_POSE)
        self._anchors[born : self._rows] = anchor

    def _fuse(self, frame: Frame, camera: Pinhole) -> int:
        h, w = self._image.du.shape
        if len(self._sums.rows) < h * w:
            self._sums = self._sums._replace(
                values=np.empty((h * w, COLUMNS)), rows=np.empty(h * w, np.int32), voxels=np.empty((h * w, 3), np.int32)
            )
        rgb = plain(frame.rgb, np.uint8)
        counters = np.zeros(6, np.int64)
        counters[[BLOCKS, ROWS, LIVE, NEXT_ID]] = self._index.count, self._rows, self._live, self._next_id
        reached, limit = 0, self.config.max_points
        ran_out: MemoryError | None = None
        while True:
            try:
                if limit > self._live and not self._reserve(w):
                    limit, self._is_full = self._live, True
            except MemoryError as error:
                limit, ran_out = self._live, error
            reached = sum_rows(
                reached, self._image, rgb, camera, 1.0 / self.config.voxel_size, limit,
                self._index.blocks, self._ids, self._points, self._sums, counters,
            )  # fmt: skip
            self._index.count, self._rows, self._live, self._next_id = (
                int(counters[i]) for i in (BLOCKS, ROWS, LIVE, NEXT_ID)
            )
            if reached == h:
                break
        apply_sums(
            self._sums, counters[TOUCHED], camera.rotation, self.config.voxel_size, self.config.max_weight, self._points
        )
        self.dropped_pixels += int(counters[DROPPED])
        if ran_out:
            raise ran_out
        return int(counters[TOUCHED])

    def _reserve(self, width: int) -> bool:
        """Room for what an image row may bring; False where the budget has none.

        By a quarter of what is left of it at a time: neither rows nor blocks take all, and a small map doubles.
        """
        index = self._index
        for grow, wanted, room, size in (
            (self._reserve_rows, self._rows + width, len(self._ids), ROW_BYTES),
            (index.reserve_blocks, index.count + width, index.room, BLOCK_BYTES),
        ):
            if wanted <= room:
                continue
            left = self.budget_bytes - ROW_BYTES * len(self._ids) - BLOCK_BYTES * index.room
            least = max((wanted - room) * size, int(GROW_BUDGET * self.budget_bytes))
            if left < least:
                return False
            grow(width, room + max(left // 4, least) // size)
        return True

    # --- the budget ----------------------------------------------------------------------------

    @property
    def _kept_bytes(self) -> int:
        """What would be held without dead rows and empty blocks, and without room to grow."""
        return ROW_BYTES * self._live + BLOCK_BYTES * self._index.used

    def make_room(self) -> None:
        """Evicts points until the budget is kept with some room; `compact` gives the memory back."""
        self._evict(np.empty(0, np.int64))

    def _evict(self, seen_rows: Array) -> Array:
        """Ids int64 (n,), ascending, of the points that leave for the budget, in the order that `eviction` states."""
        kept, points = self._kept_bytes, self.config.max_points
        above = EVICT_TO + COMPACT_BUDGET if self._is_full else EVICT_ABOVE
        if kept <= above * self.budget_bytes and self._live <= EVICT_ABOVE * points:
            return np.empty(0, np.int64)
        if not self.evicted:
            logger.warning(
                "the map has reached its budget at %d points (map.max_points, memory.map_mb): far and least seen "
                "points make way from here on", self._live,
            )  # fmt: skip
        seen = np.zeros(self._rows if len(seen_rows) else 0, bool)
        seen[seen_rows] = True
        gone = evict(
            self._index.blocks, self._index.count, self._points, seen, self._camera,
            self._live - int(EVICT_TO * points), kept - int(EVICT_TO * self.budget_bytes),
        )  # fmt: skip
        self._live -= len(gone)
        self.evicted += len(gone)
        return np.sort(self._ids[gone])

    def _fade(self, through: Array) -> Array:
        removed = np.empty(len(through), np.int64)
        n = fade(through, self.config.fade, self._index.blocks, self._points, removed)
        self._live -= int(n)
        return np.sort(self._ids[removed[:n]])

    # --- corrected poses ---------------------------------------------------------------------

    @property
    def unanchored(self) -> int:
        """Live points that remember no pose, since a file without poses brought them: they never move."""
        alive = self._points[: self._rows, WEIGHT] > 0
        return int(np.count_nonzero(alive & (self._anchors[: self._rows] < 0)))

    def plan_correction(self, correction: PoseCorrection, until: float) -> Moves:
        """What the correction would move of what was posed up to the stamp `until`; nothing is changed."""
        return plan(self.poses, correction, until, VOXEL_LIMIT * self.config.voxel_size / 2)

    def correct(self, moves: Moves) -> MapCorrection:
        """Moves the points with their poses; what meets in one voxel merges, weights added, and the older id stays.

        Where memory runs out, MemoryError, and the map is as it was.
        """
        deltas, chosen, new_poses = deltas_of(self.poses, moves)
        # On copies: where memory runs out, the map is as it was.
        points, anchors = self._points[: self._rows].copy(), self._anchors[: self._rows].copy()
        before = points[:, XYZ].copy()
        move_points(points, anchors, deltas)
        after = points[:, XYZ].copy()
        index, gone, kept = index_merging(
            self._index, before, after, points, anchors, self.config.voxel_size, self.config.max_weight
        )
        index.reserve_rows(len(self._ids))
        self._index, self._live = index, self._live - len(gone)
        self._points[: self._rows], self._anchors[: self._rows] = points, anchors
        self.poses.replace(chosen, new_poses)
        self.epoch += 1
        self.corrected_epoch = self.epoch
        none = np.empty(0, np.int64), np.empty((0, 4, 4))
        return MapCorrection(self._ids[gone], self._ids[kept], gone, kept, before, after, *none)

    def compact(self) -> Array | None:
        """Squeezes dead rows out when they are over 10 000 and over a quarter of all, or when the budget is short.

        Returns the new row int64 (old rows,) of each old row, -1 = gone, and raises `epoch`; or None. In place but for
        these numbers: where there is no memory for them, MemoryError, and the map is as it was.
        """
        dead = self._rows - self._live
        is_short = self._is_short
        if dead <= max(COMPACT_ROWS, COMPACT_SHARE * self._rows) and not is_short:
            return None
        new_rows = np.empty(self._rows, np.int64)
        squeeze_rows(self._ids, self._points, self._anchors, new_rows)
        self._index.squeeze(self._rows, new_rows)
        self._rows = self._live
        self.epoch += 1
        if is_short:
            self._trim()
        return new_rows

    def _trim(self) -> None:
        """Gives back the room to grow, so that rows and blocks share it anew; where memory is short, a part of it."""
        rows = self._rows
        with suppress(MemoryError):
            self._index.trim_blocks()
            places, points, ids = np.zeros(rows, np.int32), self._points[:rows].copy(), self._ids[:rows].copy()
            following, anchors = self._index.blocks.following[:rows].copy(), self._anchors[:rows].copy()
            # All or none: kernels check no indices.
            self._sums, self._points, self._ids = self._sums._replace(places=places), points, ids
            self._index.blocks = self._index.blocks._replace(following=following)
            self._anchors = anchors
            self._is_full = False

    @property
    def _is_short(self) -> bool:
        """Whether more is held than the budget allows, or it is nearly used up and dead rows and empty blocks hold
        much of it."""
        if ROW_BYTES * len(self._ids) + BLOCK_BYTES * self._index.room > self.budget_bytes:
            return len(self._ids) > self._rows
        held = ROW_BYTES * self._rows + BLOCK_BYTES * self._index.count
        if not self._is_full and held <= EVICT_ABOVE * self.budget_bytes:
            return False
        return held - self._kept_bytes >= COMPACT_BUDGET * self.budget_bytes

    def _take_rows(self, ids: Array, points: Array, anchors: Array, voxels: Array, blocks: int) -> None:
        """Takes the arrays as they are; `blocks`: how many the voxels lie in."""
        alive = points[:, WEIGHT] > 0
        index = BlockIndex(room=max(MIN_BLOCKS, blocks + 1))
        if index.insert(voxels, alive) >= 0:
            raise _damaged("two points share a voxel")
        places = np.zeros(len(ids), np.int32)
        self._clear()
        self._index, self._ids, self._points, self._anchors = index, ids, points, anchors
        self._sums = self._sums._replace(places=places)
        self._rows, self._live = len(ids), int(alive.sum())
        self._is_full = False

    def reset(self) -> None:
        """Empties the map. Ids go on counting; points of earlier `Visible`s are gone."""
        self._clear()
        self.poses.reset()
        self.dropped_pixels = self.evicted = 0
        self._is_full = False
        self.epoch += 1

    def state(self) -> dict[str, Array]:
        """`ids` int64 (R,), `points` float32 (R, 10), `voxels` int32 (R, 3), `counters` int64 (2,): next id and
        dropped pixels, `voxel_size` float64 (). R rows, dead ones (weight 0) included. `anchors` int32 (R,) are the
        numbers of the poses, -1 = none, which `PoseHistory.state` adds."""
        return {
            "ids": self._ids[: self._rows].copy(),
            "points": self._points[: self._rows].copy(),
            "voxels": self._index.voxels(self._rows),
            "counters": np.array([self._next_id, self.dropped_pixels], np.int64),
            "voxel_size": np.array(self.config.voxel_size),
            "anchors": self._anchors[: self._rows].copy(),
            **self.poses.state(),
        }

    def restore(self, state: Mapping[str, Array]) -> None:
        """Continues a map from its `state`, rows and ids as they were; the map is untouched if that fails.

        A state without anchors, of an older file, gives points that no correction moves. Raises MapFileError
        (`damaged`).
        """
        ids, points, voxels, counters = self._checked(state)
        anchors, history = _checked_poses(state, len(ids))
        blocks = len(np.unique(voxels >> 3, axis=0))
        self._take_rows(ids.copy(), points.copy(), anchors.copy(), voxels, blocks)
        self.poses.restore(*history)
        self._next_id, self.dropped_pixels = int(counters[0]), int(counters[1])
        self.epoch += 1

    def _checked(self, state: Mapping[str, Array]) -> tuple[Array, Array, Array, Array]:
        rows = len(np.atleast_1d(state.get("ids", 0)))
        ids = checked_array(state, "ids", np.int64, (rows,))
        points = checked_array(state, "points", np.float32, (rows, COLUMNS))
        voxels = checked_array(state, "voxels", np.int32, (rows, 3))
        counters = checked_array(state, "counters", np.int64, (2,))
        size = float(checked_array(state, "voxel_size", np.float64, ()))
        if not np.isclose(size, self.config.voxel_size, rtol=1e-9):
            raise _damaged(f"its voxels are {size} m, but map.voxel_size is {self.config.voxel_size}: set that")
        if (counters < 0).any() or counters[0] < 1:
            raise _damaged("its counters are out of range")
        if rows and (ids[0] < 1 or ids[-1] >= counters[0] or (np.diff(ids) <= 0).any()):
            raise _damaged("its point ids are not ascending from 1 to the next id")
        if not np.isfinite(points).all() or (points[:, WEIGHT] < 0).any():
            raise _damaged("its points are not finite numbers")
        if rows and np.abs(voxels.astype(np.int64)).max() >= VOXEL_LIMIT:
            raise _damaged("its voxels are out of range")
        alive = points[:, WEIGHT] > 0
        place = points[alive, XYZ] / size - voxels[alive]
        # A correction may leave a point half a voxel beside its voxel.
        slack = 0.5 + 1e-3 + 1e-6 * np.abs(voxels[alive])
        if ((place < -slack) | (place > 1 + slack)).any():
            raise _damaged("its points lie outside their voxels")
        return ids, points, voxels, counters


def _checked_poses(state: Mapping[str, Array], rows: int) -> tuple[Array, tuple[Array, Array, Array]]:
    """The anchors of the rows, and what `PoseHistory.restore` takes."""
    if "anchors" not in state:
        return np.full(rows, NO_POSE, np.int32), (np.empty(0), np.empty((0, 3, 4)), np.zeros(2, np.int64))
    anchors = checked_array(state, "anchors", np.int32, (rows,))
    count = len(np.atleast_1d(state.get("pose_stamps", 0)))
    stamps = checked_array(state, "pose_stamps", np.float64, (count,))
    poses = checked_array(state, "poses", np.float64, (count, 3, 4))
    stretch = checked_array(state, "pose_stretch", np.int64, (2,))
    if rows and (anchors.min() < NO_POSE or anchors.max() >= count):
        raise _damaged("its points remember poses that are not there")
    if not (np.isfinite(stamps).all() and np.isfinite(poses).all()):
        raise _damaged("its poses are not finite numbers")
    begin, floating = int(stretch[0]), int(stretch[1])
    if not 0 <= begin <= count or floating not in (0, 1) or floating > count - begin:
        raise _damaged("its poses begin nowhere")
    if (np.diff(stamps[begin:]) <= 0).any():
        raise _damaged("its poses are not in the order of their stamps")
    return anchors, (stamps, poses, stretch)


def checked_array(state: Mapping[str, Array], name: str, dtype: type, shape: tuple[int, ...]) -> Array:
    """`state[name]` if it is there with this dtype and shape. Raises MapFileError (`damaged`)."""
    array = state.get(name)
    if array is None:
        raise _damaged(f"it has no {name!r}")
    array = np.asarray(array)
    if array.dtype != dtype or array.shape != shape:
        raise _damaged(f"{name!r} is {array.dtype} {array.shape}, not {np.dtype(dtype)} {shape}")
    return plain(array, dtype)


def _damaged(what: str) -> MapFileError:
    return MapFileError("damaged", f"this saved map cannot be continued: {what}")
