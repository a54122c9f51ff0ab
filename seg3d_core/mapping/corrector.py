# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Corrected poses on their way into the map: the newest waits for its moment, and frames that came late follow."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..config import CorrectionConfig
from ..types import Array, Frame, MapCorrection, PoseCorrection, Visible
from .base import BaseMap
from .corrections import CorrectionOutcome, Moves
from .point_map import PointMap


class Corrector:
    """Of one map. A given cloud (`FixedMap`) is never moved."""

    def __init__(self, point_map: BaseMap, limits: CorrectionConfig):
        self._map = point_map
        self._limits = limits
        self.count = 0
        """Corrections applied so far."""
        self.reset()

    def reset(self) -> None:
        """Nothing waits."""
        self._waiting: tuple[PoseCorrection, float] | None = None
        self.time_ran_back()

    def time_ran_back(self) -> None:
        """A new stretch of stamps begins: what is older cannot be late any more."""
        self._late: tuple[float, Array] = -np.inf, np.eye(4)

    @property
    def waits(self) -> bool:
        return self._waiting is not None

    def offer(self, correction: PoseCorrection, until: float) -> CorrectionOutcome:
        """Takes a correction of what was posed up to the stamp `until`, in place of one that waits.

        Frames of later stamps are posed in the corrected world already. Nothing waits where nothing is to be moved: the
        outcome's state says why.
        """
        self._waiting = None
        if not isinstance(self._map, PointMap):
            return CorrectionOutcome("fixed")
        moves = self._map.plan_correction(correction, until)
        state = "waiting"
        if not len(moves.stamps):
            state = "unknown"
        elif moves.translation < self._limits.translation and moves.rotation < self._limits.rotation:
            state = "small"
        else:
            self._waiting = correction, until
            self._map.poses.split_after(until)
        return _outcome(state, moves, unanchored=self._map.unanchored)

    def apply(self) -> tuple[CorrectionOutcome, Moves, MapCorrection] | None:
        """Moves the map as the waiting correction says; None where none waits."""
        waiting, self._waiting = self._waiting, None
        if waiting is None or not isinstance(self._map, PointMap):
            return None
        moves = self._map.plan_correction(*waiting)
        live, unanchored = len(self._map), self._map.unanchored
        done = self._map.correct(moves)
        self._late = moves.until, moves.deltas[-1]
        self.count += 1
        outcome = _outcome("applied", moves, moved=live - unanchored, merged=len(done.gone_ids), unanchored=unanchored)
        return outcome, moves, done

    def posed(self, stamp: float, pose: Array) -> Array:
        """The pose (4, 4) of a new frame, moved where it was posed before the last correction, but comes after it."""
        return self._late[1] @ pose if stamp <= self._late[0] else pose

    def as_posed_now(self, frame: Frame, visible: Visible) -> Frame:
        """A frame that the map took, with the pose that it has after the corrections since."""
        if not isinstance(self._map, PointMap):
            return frame
        if visible.epoch >= self._map.corrected_epoch and frame.stamp > self._late[0]:
            return frame
        poses, known = self._map.poses.at(np.array([frame.stamp]))
        return replace(frame, T_world_camera=poses[0]) if known[0] else frame


def _outcome(state: str, moves: Moves, moved: int = 0, merged: int = 0, unanchored: int = 0) -> CorrectionOutcome:
    return CorrectionOutcome(
        state, moves.unknown, moves.improper, moves.translation, moves.rotation, moved, merged, unanchored
    )
