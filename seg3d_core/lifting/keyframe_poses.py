# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Where the camera stood at each keyframe."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from ..errors import MapFileError
from ..types import Array

# Of a pose: its matrix, the array that holds it, its stamp, and their entries in the tables.
POSE_BYTES = 450


class KeyframePoses:
    """T_world_camera float64 (4, 4) by keyframe number, within a budget; the oldest go first. Those of a known stamp
    can be corrected."""

    def __init__(self, budget_bytes: int):
        self.budget_bytes = budget_bytes
        self.reset()

    def reset(self) -> None:
        self._poses: dict[int, Array] = {}
        self._stamps: dict[int, float] = {}
        self.evicted = 0
        """Poses that left for the budget."""

    def __len__(self) -> int:
        return len(self._poses)

    @property
    def memory_bytes(self) -> int:
        return POSE_BYTES * len(self._poses)

    def add(self, keyframe: int, T_world_camera: Array, stamp: float = np.nan) -> None:
        """Numbers ascend; a number that is known gets the new pose. NaN: the stamp is not known."""
        self._poses[keyframe] = np.array(T_world_camera, float)
        if np.isfinite(stamp):
            self._stamps[keyframe] = stamp
        self.make_room()

    def time_ran_back(self) -> None:
        """Stamps of before mean other frames from now on: poses that had them stay where they are."""
        self._stamps.clear()

    def correct(self, moved: Callable[[Array, Array], Array]) -> tuple[Array, Array]:
        """Gives the keyframes the poses that `moved(stamps, poses)` says: their numbers int64 (k,), ascending, and
        their moves float64 (k, 4, 4)."""
        numbers = sorted(self._stamps)
        old = np.array([self._poses[n] for n in numbers], float).reshape(-1, 4, 4)
        new = moved(np.array([self._stamps[n] for n in numbers], float), old)
        self._poses.update(zip(numbers, new, strict=True))
        return np.array(numbers, np.int64), new @ np.linalg.inv(old)

    def make_room(self) -> None:
        """The newest pose always stays."""
        while self.memory_bytes > self.budget_bytes and len(self._poses) > 1:
            oldest = next(iter(self._poses))
            del self._poses[oldest]
            self._stamps.pop(oldest, None)
            self.evicted += 1

    def in_order(self) -> list[Array]:
        """The poses, oldest first."""
        return list(self._poses.values())

    def state(self) -> dict[str, Array]:
        """`numbers` int64 (K,), ascending, `poses` float64 (K, 4, 4), `stamps` float64 (K,), NaN = not known."""
        return {
            "numbers": np.array(list(self._poses), np.int64),
            "poses": np.array(self.in_order(), float).reshape(-1, 4, 4),
            "stamps": np.array([self._stamps.get(n, np.nan) for n in self._poses], float),
        }

    def restore(self, state: Mapping[str, Array]) -> None:
        """From `state`; older files tell no stamps. Raises MapFileError where the arrays differ in length."""
        numbers, poses = state["numbers"], state["poses"]
        stamps = state.get("stamps", np.full(len(numbers), np.nan))
        if poses.shape != (len(numbers), 4, 4) or stamps.shape != (len(numbers),):
            raise MapFileError(
                "damaged",
                f"the map has {len(numbers)} keyframes, but poses of shape {poses.shape} and stamps {stamps.shape}",
            )
        self.reset()
        for i in np.argsort(numbers, kind="stable").tolist():
            self.add(int(numbers[i]), poses[i], float(stamps[i]))
