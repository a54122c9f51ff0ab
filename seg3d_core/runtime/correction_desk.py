# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Corrected poses on their way into a live map: the newest waits, and what becomes of each is counted and told."""

from __future__ import annotations

import threading
from collections.abc import Callable

from ..scene import Scene
from ..types import PoseCorrection
from .correction_counts import count_correction, unanchored_text, why_nothing
from .statistics import Recorder


class CorrectionDesk:
    """Any thread offers; the thread that owns the scene takes and applies."""

    def __init__(self, scene: Scene, recorder: Recorder, report: Callable[[str, str, str], None]):
        self._scene, self._recorder, self._report = scene, recorder, report
        # The newest that the scene's thread has not taken yet, and the last frame's stamp when it came.
        self._offered: tuple[PoseCorrection, float] | None = None
        self._lock = threading.Lock()

    def offer(self, correction: PoseCorrection, until: float) -> bool:
        """In place of one that waits. Whether the scene's thread has to be told to `take` it; else it was told before.

        `until`: frames of later stamps are posed in the corrected world already.
        """
        with self._lock:
            overtaken, self._offered = self._offered, (correction, until)
        if overtaken is not None:
            self._recorder.count("corrections")
            self._recorder.count("corrections overtaken")
        return overtaken is None

    def take(self) -> bool:
        """Whether there is something to `apply` now."""
        with self._lock:
            offered, self._offered = self._offered, None
        if offered is None:
            return False
        overtaken = self.waits
        outcome = self._scene.offer_correction(*offered)
        count_correction(self._recorder, outcome)
        if overtaken:
            self._recorder.count("corrections overtaken")
        if outcome.state not in ("waiting", "small"):
            self._report("warning", "correction", f"a correction of poses moves nothing: {why_nothing(outcome)}")
        if outcome.unanchored:
            self._report("warning", "unanchored", unanchored_text(outcome))
        return outcome.state == "waiting"

    @property
    def waits(self) -> bool:
        """Whether one was taken and not applied yet."""
        return self._scene.corrector.waits

    def apply(self) -> None:
        """Moves the map as the one that waits says, if one does."""
        if not self.waits:
            return
        with self._recorder.stage("correct"):
            outcome = self._scene.apply_correction()
        if outcome is not None:
            count_correction(self._recorder, outcome)
