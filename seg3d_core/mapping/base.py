# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""What fused and given maps share: rows of points under ascending ids, found by block, looked at by a frame."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

import numpy as np

from ..budgets import megabytes
from ..config import MapConfig
from ..errors import FrameError
from ..geometry import checked_pose, invert
from ..types import Array, Cloud, Frame, Visible
from .block_index import BLOCK_SIDE, VOXEL_LIMIT, BlockIndex, grown
from .fusion import COLUMNS, WEIGHT, DepthImage, Pinhole, Sums, copy_points, prepare_depth
from .visibility import TILE, Agreement, cull_blocks, find_visible, in_order, tile_limits


def plain(array: Array, dtype: type) -> Array:
    """The array, copied only where it must be: numba compiles anew for each layout and for read-only arrays."""
    return np.require(array, dtype, ["C", "A", "W"])


class BaseMap(ABC):
    """Points in rows. Rows keep their place until `compact`, which raises `epoch`; dead rows stay till then.

    Not safe for several threads at once: whoever owns the map calls it, and hands out snapshots.
    """

    def __init__(self, config: MapConfig, with_slots: bool, budget_mb: float) -> None:
        self.config = config
        self.budget_bytes = megabytes(budget_mb)
        self.evicted = 0
        """Points that left for the budget."""
        self.epoch = 0
        self.corrected_epoch = 0
        """The epoch that the last correction of poses began: what a frame said before was posed otherwise."""
        self.dropped_pixels = 0
        self._with_slots = with_slots
        self._agreement = Agreement(
            config.depth_min,
            config.depth_max,
            config.depth_tolerance,
            config.depth_tolerance_relative,
            config.slope_tolerance,
        )
        self._image = DepthImage(*(np.empty((0, 0), np.float32) for _ in range(3)))
        self._limits = np.empty((0, 0), np.float32)
        self._sums = Sums(
            np.empty((0, COLUMNS)), np.empty(0, np.int32), np.empty((0, 3), np.int32), np.empty(0, np.int32)
        )
        self._found: tuple[Array, ...] = (
            np.empty(0, np.int64),
            np.empty((0, 3), np.float32),
            np.empty((0, 2), np.int32),
        )
        self._clear()

    def _clear(self) -> None:
        self._index = BlockIndex(self._with_slots)
        self._ids = np.empty(0, np.int64)
        self._points = np.empty((0, COLUMNS), np.float32)
        self._rows = 0
        self._live = 0
        self._removed_ids = np.empty(0, np.int64)
        self._sums = self._sums._replace(places=np.empty(0, np.int32))

    def __len__(self) -> int:
        """Live points."""
        return self._live

    @property
    def rows(self) -> int:
        """Rows in use, dead ones included: how long arrays beside the map must be."""
        return self._rows

    @property
    def saturated(self) -> bool:
        """Whether the budget kept pixels out until points had left for them; `dropped_pixels` says how many."""
        return self.dropped_pixels > 0

    @property
    def removed_ids(self) -> Array:
        """Ids int64 (n,), ascending, of the points that the last `integrate` removed."""
        return self._removed_ids

    @property
    def memory_bytes(self) -> int:
        """Bytes allocated for points and their index, room to grow included."""
        return self._ids.nbytes + self._points.nbytes + self._sums.places.nbytes + self._index.memory_bytes

    @property
    def working_bytes(self) -> int:
        """Bytes that go with the size of a frame and with what it sees, not with the map."""
        sums: list[Array] = [self._sums.values, self._sums.rows, self._sums.voxels]
        arrays: list[Array] = [*self._image, self._limits, *sums, *self._found]
        return sum(array.nbytes for array in arrays)

    def make_room(self) -> None:
        """Evicts until `budget_bytes` are kept; a given cloud stays as it is."""
        return

    @abstractmethod
    def integrate(self, frame: Frame) -> Visible:
        """Takes in a frame and says which points it sees. Raises FrameError for a frame that can't be used."""

    @abstractmethod
    def compact(self) -> Array | None:
        """Squeezes dead rows out when it is worth it: the new row int64 of each old one, -1 = gone, or None."""

    @abstractmethod
    def reset(self) -> None:
        """Forgets what frames have added. Ids go on counting."""

    @abstractmethod
    def state(self) -> dict[str, Array]:
        """Arrays from which `restore` continues with the same ids and rows."""

    @abstractmethod
    def restore(self, state: Mapping[str, Array]) -> None:
        """Takes the place of a map whose `state` this was. Raises MapFileError (`damaged`)."""

    def rows_of(self, visible: Visible) -> Array:
        """Today's rows int64 (n,) of the points of `visible`, -1 where the point is gone."""
        if not self._rows:
            return np.full(len(visible), -1, np.int64)
        rows, known = visible.rows, np.True_
        if visible.epoch != self.epoch:
            ids = self._ids[: self._rows]
            rows = np.minimum(np.searchsorted(ids, visible.ids), self._rows - 1)
            known = ids[rows] == visible.ids
        return np.where(known & (self._points[rows, WEIGHT] > 0), rows, -1)

    def snapshot(self) -> tuple[Cloud, Array]:
        """The live points, copied, ids ascending, and their rows int64 (N,)."""
        rows = np.flatnonzero(self._points[: self._rows, WEIGHT] > 0)
        cloud = Cloud(
            self._ids[rows],
            np.empty((len(rows), 3), np.float32),
            np.empty((len(rows), 3), np.uint8),
            np.empty((len(rows), 3), np.float32),
            np.empty(len(rows), np.float32),
        )
        copy_points(self._points, rows, cloud.xyz, cloud.rgb, cloud.normals, cloud.weight)
        return cloud, rows

    def _reserve_rows(self, more: int, most: int | None = None) -> None:
        """Room for `more` rows on top of those in use, and for `most` at most where that is given."""
        wanted = self._rows + more
        if wanted <= len(self._ids):
            return
        room = max(wanted, 2 * len(self._ids) if most is None else min(2 * len(self._ids), most))
        self._grow_rows(room)

    def _grow_rows(self, room: int) -> None:
        # All or none: memory may run out in between, and kernels check no indices.
        self._index.reserve_rows(room)
        places, points, ids = grown(self._sums.places, room, fill=0), grown(self._points, room), grown(self._ids, room)
        self._sums, self._points, self._ids = self._sums._replace(places=places), points, ids

    def _prepare(self, frame: Frame) -> Pinhole:
        """Checks the frame and fills the depth image; the camera that takes camera points to the world."""
        h, w = frame.depth.shape[:2] if frame.depth.ndim == 2 else (0, 0)
        if h == 0 or w == 0 or frame.rgb.shape != (h, w, 3) or frame.camera.size != (w, h):
            raise FrameError(
                "size",
                f"frame {frame.index}: depth {frame.depth.shape}, colour {frame.rgb.shape} and camera "
                f"{frame.camera.width}x{frame.camera.height} must be of one size; register depth to colour",
            )
        pose = checked_pose(frame.T_world_camera)
        c = frame.camera
        lens = (float(c.fx), float(c.fy), float(c.cx), float(c.cy))
        if not np.isfinite(lens).all() or c.fx <= 0 or c.fy <= 0:
            raise FrameError("camera", f"frame {frame.index}: fx, fy, cx, cy = {lens} are no intrinsics in pixels")
        sideways = (max(c.cx, w - c.cx) / c.fx) + (max(c.cy, h - c.cy) / c.fy)
        reach = float(np.abs(pose[:3, 3]).max()) + self.config.depth_max * (1 + sideways)
        limit = (VOXEL_LIMIT - BLOCK_SIDE) * self.config.voxel_size
        if reach >= limit:
            raise FrameError(
                "pose", f"frame {frame.index}: {reach:.0f} m from the origin, beyond {limit:.0f} m; move the origin"
            )
        if self._image.du.shape != (h, w):
            self._image = DepthImage(
                np.zeros((h + 2, w + 2), np.float32), np.empty((h, w), np.float32), np.empty((h, w), np.float32)
            )
            self._limits = np.empty((-(-h // TILE), -(-w // TILE)), np.float32)
        depth = plain(frame.depth, np.float32)
        prepare_depth(depth, np.float32(self.config.depth_min), np.float32(self.config.depth_max), self._image)
        return Pinhole(*lens, np.ascontiguousarray(pose[:3, :3]), np.ascontiguousarray(pose[:3, 3]))

    def _look(self, frame: Frame, camera: Pinhole, touched: int, with_through: bool) -> tuple[Visible, Array]:
        """What the prepared frame sees, and (row, block) int32 (m, 2) of the points that it sees through."""
        back = invert(np.asarray(frame.T_world_camera, np.float64))
        camera = camera._replace(
            rotation=np.ascontiguousarray(back[:3, :3]), translation=np.ascontiguousarray(back[:3, 3])
        )
        h, w = self._image.du.shape
        tile_limits(self._image, self._agreement.slope, self._limits)
        chosen = np.empty(self._index.count, np.int32)
        blocks = self._index.blocks
        kept, most = cull_blocks(
            blocks, self._index.count, self.config.voxel_size, camera, self._agreement, self._limits, w, h, chosen
        )
        if most > len(self._found[0]):
            self._found = tuple(np.empty((2 * most, *a.shape[1:]), a.dtype) for a in self._found)
        seen, pixels, through = self._found
        through = through if with_through else through[:0]
        n, m = find_visible(
            chosen[:kept], blocks, self._points, self._image, camera, self._agreement, self._sums, touched,
            seen, pixels, through,
        )  # fmt: skip
        # Row and place in one number: sorting these is several times cheaper than an argsort.
        order = seen[:n] << 32 | np.arange(n)
        order.sort()
        visible = Visible(
            np.empty(n, np.int64),
            np.empty((n, 2), np.float32),
            np.empty(n, np.float32),
            np.empty(n, np.int64),
            self.epoch,
        )
        in_order(order, pixels, self._ids, visible.ids, visible.pixels, visible.depths, visible.rows)
        return visible, through[:m]
