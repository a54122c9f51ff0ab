# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Every frame, in order, in one thread: the same input gives the same bytes."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from ..budgets import is_out_of_memory
from ..errors import FrameError
from ..mapping.corrections import CorrectionOutcome
from ..perception.base import MaskGenerator, look
from ..scene import Scene
from ..sources.base import Source
from ..types import Frame, Masks2D, PoseCorrection, Snapshot, Visible
from .correction_counts import count_correction
from .statistics import Recorder, Statistics

log = logging.getLogger(__name__)

# Where memory runs out each makes the map smaller; after so many the last snapshot stays.
_SEGMENTATION_ATTEMPTS = 4


class Observer(Protocol):
    """Somebody who watches a run: a recording, a progress bar."""

    def frame(self, frame: Frame, masks: Masks2D | None) -> None: ...

    def snapshot(self, snapshot: Snapshot) -> None: ...


@dataclass(frozen=True)
class OfflineResult:
    """The last snapshot, and what was counted on the way."""

    snapshot: Snapshot
    statistics: Statistics
    corrected: CorrectionOutcome | None = None


def run_offline(
    scene: Scene,
    source: Source,
    masks: MaskGenerator,
    *,
    observers: tuple[Observer, ...] = (),
    on_frame: Callable[[int, int], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
    correction: PoseCorrection | None = None,
) -> OfflineResult:
    """Runs a scene over a source. A bad frame is dropped and counted; `on_frame(done, points)` shows progress.

    `should_stop` is asked after each frame; the result is then what was seen so far. The map follows a `correction`
    after the last frame.
    """
    recorder = Recorder()
    since_segmentation = 0
    for done, frame in enumerate(source, 1):
        with recorder.stage("frame"):
            observed = _one_frame(scene, frame, masks, recorder, observers)
        since_segmentation += observed
        if since_segmentation >= scene.config.runtime.segment_every:
            since_segmentation = 0
            _segment(scene, recorder, observers)
        if on_frame:
            on_frame(done, len(scene.map))
        if should_stop and should_stop():
            break
    if since_segmentation or not scene.snapshot.sequence:
        _segment(scene, recorder, observers)
    corrected = None if correction is None else _correct(scene, correction, recorder, observers)
    for reason, n in source.drops.items():
        recorder.drop(f"source: {reason}", n)
    statistics = recorder.read(
        memory=scene.memory,
        points=len(scene.map),
        instances=len(scene.snapshot.instances),
        last_stamp=scene.stamp,
    )
    return OfflineResult(scene.snapshot, statistics, corrected)


def _one_frame(
    scene: Scene, frame: Frame, masks: MaskGenerator, recorder: Recorder, observers: tuple[Observer, ...]
) -> bool:
    """True when the frame was a keyframe with masks."""
    found: Masks2D | None = None
    try:
        last_stamp = scene.stamp
        with recorder.stage("integrate"):
            visible = scene.add_frame(frame)
        recorder.frame(frame.stamp, last_stamp, len(visible))
        recorder.count("visible_points", len(visible))
        if masks.chooses_keyframes or scene.is_keyframe(frame, visible):
            found = _observe(scene, frame, visible, masks, recorder)
    except FrameError as error:
        if recorder.drop(error.reason) == 1:
            log.warning("frame %s dropped: %s", frame.name or frame.index, error)
        return False
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        recorder.drop("out_of_memory")
        _make_room(scene, recorder, f"frame {frame.name or frame.index}")
        return False
    for observer in observers:
        observer.frame(frame, found)
    return found is not None


def _observe(scene: Scene, frame: Frame, visible: Visible, masks: MaskGenerator, recorder: Recorder) -> Masks2D | None:
    with recorder.stage("masks"):
        found, objects = look(masks, frame, scene.wants_objects)
    if found is None:
        return None
    scene.mark_keyframe(frame, visible)
    with recorder.stage("observe"):
        scene.add_observation(frame, visible, found, objects)
    recorder.count("keyframes")
    recorder.count("masks", sum(map(len, found.label_images)))
    return found


def _correct(
    scene: Scene, correction: PoseCorrection, recorder: Recorder, observers: tuple[Observer, ...]
) -> CorrectionOutcome:
    offered = scene.offer_correction(correction)
    count_correction(recorder, offered)
    with recorder.stage("correct"):
        applied = scene.apply_correction()
    if applied is None:
        return offered
    count_correction(recorder, applied)
    _segment(scene, recorder, observers)
    return applied


def _segment(scene: Scene, recorder: Recorder, observers: tuple[Observer, ...]) -> None:
    for _ in range(_SEGMENTATION_ATTEMPTS):
        try:
            with recorder.stage("segment"):
                snapshot = scene.segment()
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            _make_room(scene, recorder, "segmentation")
            continue
        recorder.count("segmentations")
        for observer in observers:
            observer.snapshot(snapshot)
        return


def _make_room(scene: Scene, recorder: Recorder, who: str) -> None:
    """Memory ran out: the scene gives some back, and the run goes on with less."""
    recorder.count("out of memory")
    log.warning("memory ran out (%s): all budgets shrink, the map goes on with less", who)
    with suppress(MemoryError):  # it runs out again: the next one finds less to do
        scene.shrink()
