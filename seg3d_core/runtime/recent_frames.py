# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Frames that are kept for masks which arrive from outside, a while after their image."""

from __future__ import annotations

from collections import deque

from ..types import Frame, Visible


class RecentFrames:
    """The newest frames with what they see of the map, within a budget; the oldest go first."""

    def __init__(self, budget_bytes: int):
        self.budget_bytes = budget_bytes
        self._pairs: deque[tuple[Frame, Visible]] = deque()
        self._bytes = 0
        self.evicted = 0
        """Frames that left for the budget, as each one does that has become old."""

    def __len__(self) -> int:
        return len(self._pairs)

    @property
    def memory_bytes(self) -> int:
        return self._bytes

    def add(self, frame: Frame, visible: Visible) -> None:
        self._pairs.append((frame, visible))
        self._bytes += _bytes_of(frame, visible)
        self.make_room()

    def make_room(self) -> None:
        """The newest frame always stays."""
        while self._bytes > self.budget_bytes and len(self._pairs) > 1:
            self._bytes -= _bytes_of(*self._pairs.popleft())
            self.evicted += 1

    def nearest(self, stamp: float, slop: float) -> tuple[Frame, Visible] | None:
        """The frame nearest in time within `slop` seconds, and what it sees."""
        found = min(self._pairs, key=lambda pair: abs(pair[0].stamp - stamp), default=None)
        # Written so that a stamp that is no number finds nothing.
        return found if found is not None and abs(found[0].stamp - stamp) <= slop else None

    def clear(self) -> None:
        self._pairs.clear()
        self._bytes = 0


def _bytes_of(frame: Frame, visible: Visible) -> int:
    arrays = (frame.rgb, frame.depth, visible.ids, visible.pixels, visible.depths, visible.rows)
    return sum(array.nbytes for array in arrays)
