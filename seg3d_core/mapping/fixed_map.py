# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""A given cloud as a map that frames look at and never change (`--points FILE`)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..config import MapConfig, MemoryConfig
from ..errors import MapFileError, SourceError
from ..types import Array, Frame, Visible
from .base import BaseMap
from .block_index import VOXEL_LIMIT
from .fusion import COLUMNS, NORMAL, RGB, WEIGHT, XYZ
from .point_map import checked_array


class FixedMap(BaseMap):
    """Points in the order given, under the ids 1 to N, for good. They may lie closer or wider than voxels.

    xyz float (N, 3) in metres; rgb uint8 (N, 3) and normals float (N, 3) where known. Raises SourceError.
    """

    def __init__(
        self,
        config: MapConfig,
        xyz: Array,
        rgb: Array | None = None,
        normals: Array | None = None,
        budget_mb: float = MemoryConfig().map_mb,
    ) -> None:
        super().__init__(config, with_slots=False, budget_mb=budget_mb)
        self._take(_stacked(xyz, rgb, normals, config))
        if self.memory_bytes > self.budget_bytes:
            raise SourceError(
                f"the given cloud takes {self.memory_bytes / 1e6:.1f} MB, memory.map_mb is {budget_mb:g}: "
                "raise it or thin out"
            )

    def _take(self, points: Array) -> None:
        self._clear()
        n = len(points)
        self._reserve_rows(n)
        self._points[:n] = points
        self._ids[:n] = np.arange(1, n + 1)
        self._rows = self._live = n
        voxels = np.floor(points[:, XYZ].astype(np.float64) / self.config.voxel_size).astype(np.int32)
        self._index.insert(voxels, np.ones(n, bool))

    def integrate(self, frame: Frame) -> Visible:
        """The points that the frame sees, ids ascending. Raises FrameError (`size`, `pose`, `rotation`, `camera`)."""
        camera = self._prepare(frame)
        visible, _ = self._look(frame, camera, touched=0, with_through=False)
        return visible

    def compact(self) -> None:
        """Nothing dies here, so there is nothing to squeeze out."""
        return None

    def reset(self) -> None:
        """Frames have added nothing: the cloud and its ids stay."""

    def state(self) -> dict[str, Array]:
        """`fixed_points` float32 (N, 10)."""
        return {"fixed_points": self._points[: self._rows].copy()}

    def restore(self, state: Mapping[str, Array]) -> None:
        """Takes the cloud of a `state`. Raises MapFileError (`damaged`); the map is untouched then."""
        rows = len(np.atleast_1d(state.get("fixed_points", 0)))
        points = checked_array(state, "fixed_points", np.float32, (rows, COLUMNS))
        try:
            points = _stacked(points[:, XYZ], points[:, RGB], points[:, NORMAL], self.config)
        except SourceError as error:
            raise MapFileError("damaged", f"this saved map cannot be continued: {error}") from None
        self._take(points)
        self.epoch += 1


def _stacked(xyz: Array, rgb: Array | None, normals: Array | None, config: MapConfig) -> Array:
    """The map's columns float32 (N, 10), checked. Raises SourceError."""
    xyz = np.asarray(xyz)
    if xyz.ndim != 2 or xyz.shape[1] != 3:
        raise SourceError(f"the given cloud has shape {xyz.shape}: expected positions (N, 3) in metres")
    if len(xyz) > config.max_points:
        raise SourceError(
            f"the given cloud has {len(xyz)} points, map.max_points is {config.max_points}: raise it or thin out"
        )
    points = np.zeros((len(xyz), COLUMNS), np.float32)
    for columns, name, values in ((XYZ, "positions", xyz), (RGB, "colours", rgb), (NORMAL, "normals", normals)):
        if values is None:
            continue
        if np.shape(values) != xyz.shape:
            raise SourceError(f"the given cloud has {name} of shape {np.shape(values)} for {len(xyz)} points")
        points[:, columns] = values
    if not np.isfinite(points).all():
        raise SourceError("the given cloud holds NaN or infinite numbers: leave those points out")
    limit = VOXEL_LIMIT * config.voxel_size
    if len(xyz) and np.abs(xyz).max() >= limit:
        raise SourceError(f"the given cloud reaches beyond {limit:.0f} m: is it in metres?")
    points[:, WEIGHT] = 1
    return points
