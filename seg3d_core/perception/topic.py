# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Masks that arrive from outside while frames arrive."""

from __future__ import annotations

import math
import threading
from collections import OrderedDict

from ..errors import ConfigError, FrameError
from ..types import Frame, Masks2D


class PushedMasks:
    """Holds the newest masks by stamp and gives each frame the nearest one (implements `MaskGenerator`).

    `push` and `masks` may be called from different threads. Masks that serve a frame are gone, so that no two
    frames share them; the oldest go when more than `capacity` or `budget_bytes` of them wait.
    """

    id = "topic"
    chooses_keyframes = True

    def __init__(self, slop: float = 0.02, capacity: int = 30, budget_bytes: int = 50_000_000):
        """`slop`: largest distance between stamps, seconds; `capacity`: masks that may wait."""
        if not slop >= 0 or capacity < 1:
            raise ConfigError(f"slop = {slop} s and capacity = {capacity}: slop must be 0 or more, capacity 1 or more")
        self.slop = slop
        self._capacity = capacity
        self.budget_bytes = budget_bytes
        self._waiting: OrderedDict[float, Masks2D] = OrderedDict()
        self._lock = threading.Lock()
        self._bytes = 0
        self.evicted = 0
        """Masks that left unused because newer ones came."""

    @property
    def memory_bytes(self) -> int:
        return self._bytes

    def __len__(self) -> int:
        with self._lock:
            return len(self._waiting)

    def push(self, stamp: float, masks: Masks2D) -> None:
        """Masks of the image taken at `stamp`, seconds; later ones of the same stamp replace earlier ones."""
        if not math.isfinite(stamp):
            raise FrameError("bad_mask_stamp", f"masks with stamp {stamp}: a finite time in seconds is wanted")
        with self._lock:
            self._bytes += masks.memory_bytes
            if stamp in self._waiting:
                self._bytes -= self._waiting.pop(stamp).memory_bytes
            self._waiting[stamp] = masks
        self.make_room()

    def make_room(self) -> None:
        """The newest masks always stay."""
        with self._lock:
            while len(self._waiting) > self._capacity or (self._bytes > self.budget_bytes and len(self._waiting) > 1):
                self._bytes -= self._waiting.popitem(last=False)[1].memory_bytes
                self.evicted += 1

    def clear(self) -> None:
        """Forgets what waits, as after a jump back in time."""
        with self._lock:
            self._waiting.clear()
            self._bytes = 0

    def masks(self, frame: Frame) -> Masks2D | None:
        """The masks nearest in time within the slop, or None. FrameError `mask_size` when they have another size."""
        with self._lock:
            if not self._waiting:
                return None
            nearest = min(self._waiting, key=lambda stamp: abs(stamp - frame.stamp))
            if abs(nearest - frame.stamp) > self.slop:
                return None
            found = self._waiting.pop(nearest)
            self._bytes -= found.memory_bytes
        if found.labels.shape != frame.depth.shape:
            raise FrameError(
                "mask_size",
                f"masks are {found.labels.shape[1]}x{found.labels.shape[0]}, the frame is "
                f"{frame.depth.shape[1]}x{frame.depth.shape[0]}: publish masks of the frame's size",
            )
        return found
