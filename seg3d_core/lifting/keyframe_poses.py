"""Where the camera stood at each keyframe."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..errors import MapFileError
from ..types import Array

# Of a pose: its matrix, the array that holds it, and its entry in the table.
POSE_BYTES = 350


class KeyframePoses:
    """T_world_camera float64 (4, 4) by keyframe number, within a budget; the oldest go first."""

    def __init__(self, budget_bytes: int):
        self.budget_bytes = budget_bytes
        self.reset()

    def reset(self) -> None:
        self._poses: dict[int, Array] = {}
        self.evicted = 0
        """Poses that left for the budget."""

    def __len__(self) -> int:
        return len(self._poses)

    @property
    def memory_bytes(self) -> int:
        return POSE_BYTES * len(self._poses)

    def add(self, keyframe: int, T_world_camera: Array) -> None:
        """Numbers ascend; a number that is known gets the new pose."""
        self._poses[keyframe] = np.array(T_world_camera, float)
        self.make_room()

    def make_room(self) -> None:
        """The newest pose always stays."""
        while self.memory_bytes > self.budget_bytes and len(self._poses) > 1:
            del self._poses[next(iter(self._poses))]
            self.evicted += 1

    def in_order(self) -> list[Array]:
        """The poses, oldest first."""
        return list(self._poses.values())

    def state(self) -> dict[str, Array]:
        """`numbers` int64 (K,), ascending, and `poses` float64 (K, 4, 4)."""
        return {
            "numbers": np.array(list(self._poses), np.int64),
            "poses": np.array(self.in_order(), float).reshape(-1, 4, 4),
        }

    def restore(self, state: Mapping[str, Array]) -> None:
        """From `state`. Raises MapFileError where numbers and poses differ."""
        numbers, poses = state["numbers"], state["poses"]
        if poses.shape != (len(numbers), 4, 4):
            raise MapFileError("damaged", f"the map has {len(numbers)} keyframes, but poses of shape {poses.shape}")
        self.reset()
        for number, pose in sorted(zip(numbers.tolist(), poses, strict=True), key=lambda pair: int(pair[0])):
            self.add(int(number), pose)
