# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Which frames a scene takes, and which of those 2D models look at."""

from __future__ import annotations

import math
from collections import deque

import numpy as np

from .config import KeyframeConfig
from .errors import FrameError
from .geometry import rotation_angle
from .mapping.corrections import Moves
from .types import Array, Frame, MapCorrection, Visible

RESTART = 1.0
"""Stamps that run back by so many seconds are a bag that starts over or a simulator's restart: those are followed."""

# A relocalised camera is believed after this many frames that agree with each other.
_FRAMES_TO_TRUST_A_JUMP = 5
# Of the cells in which the overlap of two frames is counted.
_CELLS_PER_WIDTH = 20


class PoseGate:
    """Keeps teleporting poses out until several in a row agree with each other (a relocalised camera)."""

    def __init__(self, limits: KeyframeConfig):
        self._limit = limits.pose_jump
        self._last: tuple[float, Array] | None = None
        self._suspects: deque[tuple[float, Array]] = deque(maxlen=_FRAMES_TO_TRUST_A_JUMP)

    def check(self, stamp: float, pose: Array) -> None:
        """Raises FrameError for a stamp that is none or runs back a little, or a pose that jumps."""
        if not math.isfinite(stamp):
            raise FrameError("stamp", f"the stamp is {stamp}: a finite time in seconds is wanted")
        if self._last is not None:
            since = stamp - self._last[0]
            if -RESTART < since < 0.0:
                raise FrameError("stamp", f"the stamp runs back by {-since:.3f} s")
            if self._jumps(self._last, stamp, pose) and not self._settled(stamp, pose):
                raise FrameError("pose_jump", f"the pose jumps by more than {self._limit} m within a second")

    def accept(self, stamp: float, pose: Array) -> None:
        """The frame was used: the next ones are compared with it."""
        self._suspects.clear()
        self._last = (stamp, pose)

    def correct(self, moves: Moves) -> None:
        """The last pose was corrected: what comes next is compared with where the camera really was."""
        self._suspects.clear()
        if self._last is not None:
            stamp, pose = self._last
            self._last = stamp, moves.moved(np.array([stamp]), pose[None])[0]

    def _jumps(self, before: tuple[float, Array], stamp: float, pose: Array) -> bool:
        distance = float(np.linalg.norm(pose[:3, 3] - before[1][:3, 3]))
        return distance > self._limit and abs(stamp - before[0]) <= 1.0

    def _settled(self, stamp: float, pose: Array) -> bool:
        if self._suspects and self._jumps(self._suspects[-1], stamp, pose):
            self._suspects.clear()
        self._suspects.append((stamp, pose))
        return len(self._suspects) == _FRAMES_TO_TRUST_A_JUMP


class KeyframeChoice:
    """Which frames 2D models look at: those that see something, and enough of it new or from elsewhere.

    A frame is compared with the last keyframe: how far the camera has moved and turned, and how much of the image
    shows what that keyframe saw too. Points are told by their ids, which outlive every compaction of the map.
    """

    def __init__(self, limits: KeyframeConfig):
        self._limits = limits
        self._last: tuple[float, Array, Array] | None = None

    def wants(self, frame: Frame, visible: Visible) -> bool:
        if not len(visible):
            return False
        if self._last is None:
            return True
        _, pose, ids = self._last
        if float(np.linalg.norm(frame.T_world_camera[:3, 3] - pose[:3, 3])) >= self._limits.translation:
            return True
        if rotation_angle(frame.T_world_camera, pose) >= self._limits.rotation:
            return True
        return share_seen_before(visible, ids, frame.camera.size) < self._limits.overlap

    def mark(self, frame: Frame, visible: Visible) -> None:
        self._last = frame.stamp, frame.T_world_camera, visible.ids

    def correct(self, moves: Moves, done: MapCorrection) -> None:
        """The last keyframe's pose was corrected, and some of its points merged."""
        if self._last is not None:
            stamp, pose, ids = self._last
            self._last = stamp, moves.moved(np.array([stamp]), pose[None])[0], np.unique(done.renamed(ids))


def share_seen_before(visible: Visible, ids: Array, size: tuple[int, int]) -> float:
    """The share of the seen image of `size` (width, height) that shows a point of `ids` (n,), ascending; 0 to 1.

    Counted in cells of a 20th of the image's width and not in points: before a camera that stands still, depth noise
    adds points around every surface for a hundred frames, and half of what is visible would soon count as new.
    """
    width, height = size
    side = max(1, width // _CELLS_PER_WIDTH)
    columns, rows = -(-width // side), -(-height // side)
    u, v = ((visible.pixels.T + 0.5) / side).astype(np.int32)
    cells = np.minimum(v, rows - 1) * columns + np.minimum(u, columns - 1)
    seen, known = np.zeros(rows * columns, bool), np.zeros(rows * columns, bool)
    seen[cells] = True
    known[cells[np.isin(visible.ids, ids, assume_unique=True)]] = True
    return int(known.sum()) / max(int(seen.sum()), 1)
