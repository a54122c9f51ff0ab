# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""A Scene beside a live stream: threads, bounded queues, newest wins.

One thread owns the scene and takes frames, finished observations and requests in turn; nobody else touches
it, so it needs no locks. 2D models work in a second thread with a queue of one, a segmentation in a third on
copied state, text features in a fourth. Snapshots are immutable and replaced, never changed.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from ..budgets import Use, is_out_of_memory, megabytes, use_of
from ..build import build_scene
from ..config import Config
from ..errors import FrameError
from ..perception.topic import PushedMasks
from ..scene import SegmentationJob, Segmented
from ..storage import SavedScene, copy_scene, read_scene, restore_scene, write_scene
from ..types import Frame, Masks2D, Objects2D, PoseCorrection, QueryResult, Snapshot, Visible
from .answers import answer
from .autosave import Autosaver
from .correction_desk import CorrectionDesk
from .free_memory import FreeMemory
from .listeners import Listeners
from .mailbox import Inbox, Mailbox
from .mask_worker import MaskWorker
from .offline import Observer
from .query_desk import QueryDesk
from .recent_frames import RecentFrames
from .scene_desk import SceneDesk
from .statistics import Queue, Recorder, Save, Statistics
from .text_worker import TextWorker

log = logging.getLogger(__name__)
# Frames wait here while the scene is busy with one: a few hide the jitter, more would only add latency.
_FRAMES_WAITING = 4
# A camera that stands still brings no keyframes: what it saw last is segmented after so many seconds all the same.
_STANDSTILL = 2.0


@dataclass(frozen=True)
class _Observation:
    generation: int
    frame: Frame
    visible: Visible
    masks: Masks2D
    objects: Objects2D | None = None


class LiveRuntime:
    """See the module. Callbacks run in worker threads; they must not call back into the runtime.

    `observer` (a recording) sees each keyframe with its masks and each snapshot.
    `on_snapshot` gets every new snapshot, and the same one again when its labels are known;
    `on_event(level, text)` gets what a person should know, each kind once per 10 s.
    `autosave` is the file that is written every `runtime.autosave_minutes` and at the end.
    """

    def __init__(
        self,
        config: Config,
        *,
        points: str | Path | None = None,
        observer: Observer | None = None,
        on_snapshot: Callable[[Snapshot], None] | None = None,
        on_event: Callable[[str, str], None] | None = None,
        autosave: Path | None = None,
    ):
        self.config = config
        self._autosave_path, self._saved = autosave, Save()
        self._autosaver: Autosaver | None = None
        self._scene = build_scene(config, points)
        self._recorder = Recorder()
        self._listeners = Listeners(self._recorder, observer, on_snapshot, on_event)
        report = self._listeners.report
        self._inbox = Inbox(_FRAMES_WAITING, config.runtime.max_waiting)
        self._requests = SceneDesk(self._inbox, self._on_worker_error)
        self._corrections = CorrectionDesk(self._scene, self._recorder, report)
        self._last_submitted = -math.inf
        self._masks = MaskWorker(config, self._recorder, report, self._hand_over, self._on_worker_error)
        self._masks.wants_objects = self._scene.wants_objects
        generator = self._masks.generator
        self._pushed = generator if isinstance(generator, PushedMasks) else None
        self._segmentation: Mailbox[SegmentationJob] = Mailbox(1)
        self._text = TextWorker(config, self._recorder, report, self._listeners.publish_names, self._on_worker_error)
        self._queries = QueryDesk(config.runtime.max_waiting, config.runtime.query_deadline)
        self._waiters: deque[Future[Snapshot]] = deque()
        self._answering: list[Future[Snapshot]] = []
        self._segmenting = False
        self._since_segmentation = 0
        self._observed_at = 0.0
        self._recent = RecentFrames(megabytes(config.memory.topic_masks_mb * 3 / 4))
        self._is_short_of_memory = False
        self._threads: list[threading.Thread] = []

    # --- life --------------------------------------------------------------------------------

    def start(self) -> None:
        """Compiles and loads what must be, then starts the threads: no frame waits for a compiler or a library."""
        self._masks.warm_up()
        self._text.load()
        loops = (("scene", self._run_scene), ("segment", self._run_segmentation))
        self._threads = [threading.Thread(target=loop, name=f"seg3d-{name}", daemon=True) for name, loop in loops]
        for thread in self._threads:
            thread.start()
        self._masks.start()
        self._text.start()
        self._queries.start()
        minutes = self.config.runtime.autosave_minutes
        if self._autosave_path is not None and minutes:
            self._autosaver = Autosaver(
                self._autosave_path, 60 * minutes, lambda: self._inbox.put(self._offer_autosave)
            )

    def stop(self, timeout: float = 5.0) -> None:
        """Ends the threads; what they hold is thrown away, and who waits for an answer gets an error.

        Where the map is saved by itself, that is done once more.
        """
        deadline = time.monotonic() + timeout
        for box in (self._inbox, self._masks, self._segmentation):
            box.close()
        self._queries.stop(timeout)
        self._text.stop(max(0.0, deadline - time.monotonic()))
        self._masks.join(max(0.0, deadline - time.monotonic()))
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        self._requests.stop()
        if self._autosaver is not None:
            self._autosaver.stop(max(0.0, deadline - time.monotonic()))
            if not any(thread.is_alive() for thread in self._threads) and self._scene.frames:
                self._autosaver.save(self._copy())
            self._autosaver = None

    # --- what any thread may call --------------------------------------------------------------

    @property
    def snapshot(self) -> Snapshot:
        """The newest one."""
        return self._listeners.snapshot

    def submit(self, frame: Frame) -> None:
        """Hands a frame over; never blocks. When the scene can't keep up, older frames are dropped."""
        self._last_submitted = frame.stamp
        if self._inbox.put_frame(frame):
            self._recorder.drop("overtaken")

    def submit_masks(self, stamp: float, masks: Masks2D) -> None:
        """Masks made elsewhere for the frame with this stamp (`perception.masks` is `topic`)."""
        if not self._inbox.offer(lambda: self._take_pushed_masks(stamp, masks)):
            self._recorder.drop("masks_overtaken")

    def submit_correction(self, correction: PoseCorrection) -> None:
        """New poses for frames of before. They are applied before the next segmentation, which begins as soon as it
        can; of several that wait, the newest. Frames handed over from now on are posed in the corrected world."""
        if self._corrections.offer(correction, self._last_submitted):
            self._inbox.put(self._take_correction)

    def count_drop(self, reason: str, n: int = 1) -> None:
        """A frame that did not even reach the runtime."""
        self._recorder.drop(reason, n)

    def segment_now(self, timeout: float = 30.0) -> Snapshot:
        """A segmentation that begins after this call."""

        def request(future: Future[Snapshot]) -> None:
            self._waiters.append(future)
            self._begin_segmentation()

        return self._requests.ask(request, timeout, "the segmentation")

    def reset(self, timeout: float = 10.0) -> None:
        """An empty map; ids go on counting."""
        self._requests.call(self._reset, timeout, "the reset")

    def query(self, text: str, top_k: int | None = None, patience: float | None = None) -> QueryResult:
        """Answers from the newest snapshot. Raises QueryError, and BusyError where it can't within the deadline.

        `patience`: less time than `runtime.query_deadline`, in seconds.
        """
        self._text.check(text)
        return self._queries.ask(partial(self._text.answer, text, self.snapshot, top_k), patience)

    def save(self, path: Path, *, overwrite: bool = False, timeout: float = 60.0) -> Snapshot:
        """Writes the map as of now; mapping goes on meanwhile. Raises MapFileError."""
        saved = self._requests.call(self._copy, timeout, "the map's copy")
        state = replace(self._saved, path=str(path))
        try:
            with self._recorder.stage("save"):
                self._saved = state.tried(lambda: write_scene(path, saved, overwrite=overwrite))
        except Exception as error:
            self._saved = state.failed(error)
            raise
        return self.snapshot

    def _copy(self) -> SavedScene:
        with self._recorder.stage("save: copy"):
            return copy_scene(self._scene, self._text.names, self._text.encoder_id)

    def _offer_autosave(self) -> None:
        scene, autosaver = self._scene, self._autosaver
        if scene.frames and autosaver is not None:
            autosaver.offer(self._copy, (scene.generation, scene.corrector.count, scene.frames, scene.keyframes))

    def load(self, path: Path, timeout: float = 60.0) -> Snapshot:
        """Replaces the map by a saved one and goes on from there. Raises MapFileError; then the map is as before
        when the file itself was bad or is of another kind, and empty when its parts did not fit together."""
        with self._recorder.stage("load"):
            saved = read_scene(path)

        def replace_scene() -> None:
            before = self._scene.generation
            try:
                restore_scene(self._scene, saved)
            finally:
                if self._scene.generation != before:
                    self._forget_work()
                    self._listeners.publish(self._scene.snapshot)
            # Labels of another encoder are kept as words: they are shown, never compared.
            self._text.restore_names(saved.names)

        self._requests.call(replace_scene, timeout, "loading")
        return self.segment_now(timeout)

    def statistics(self) -> Statistics:
        """Counters, latencies, queues and memory as of now."""
        queues = {
            "frames": Queue(self._inbox.waiting_frames, _FRAMES_WAITING, self._inbox.dropped_frames),
            "perception": self._masks.queue,
            "segmentation": Queue(len(self._segmentation), 1, self._segmentation.dropped),
            "requests": Queue(
                self._inbox.waiting_requests, self.config.runtime.max_waiting, self._inbox.refused_requests
            ),
            "queries": self._queries.queue,
        }
        scene, autosaver = self._scene, self._autosaver
        return self._recorder.read(
            queues=queues,
            memory={**scene.memory, **self._own_memory()},
            points=len(scene.map),
            instances=len(self.snapshot.instances),
            last_stamp=scene.stamp or None,
            models={"masks": self._masks.model, "text": self._text.model},
            saves={"request": self._saved} | ({"autosave": autosaver.state} if autosaver else {}),
        )

    def _own_memory(self) -> dict[str, Use]:
        own = {"text features": Use(self._text.memory_bytes / 1e6)}
        if self._pushed is not None:
            own |= {"frames for masks": use_of(self._recent), "masks for frames": use_of(self._pushed)}
        return own

    # --- the scene's thread --------------------------------------------------------------------

    def _run_scene(self) -> None:
        while (work := self._inbox.get()) is not None:
            try:
                if isinstance(work, Frame):
                    self._take_frame(work)
                else:
                    work()
            except FrameError as error:
                self._recorder.drop(error.reason)
                self._listeners.report("warning", error.reason, f"frame dropped: {error}")
            except Exception as error:  # no memory, or a bug: say it, and go on mapping
                if is_out_of_memory(error):
                    self._make_room("mapping")
                    continue
                self._recorder.count("scene errors")
                log.exception("the scene's thread failed on one item")
                self._listeners.report(
                    "error", "scene", "the mapping thread failed on one item (traceback in the log); it goes on"
                )

    def _take_frame(self, frame: Frame) -> None:
        last_stamp = self._scene.stamp
        with self._recorder.stage("integrate"):
            visible = self._scene.add_frame(frame)
        self._recorder.frame(frame.stamp, last_stamp, len(visible))
        if self._pushed is not None:
            self._recent.add(frame, visible)
            masks = self._pushed.masks(frame)
            if masks is not None:
                self._observe(_Observation(self._scene.generation, frame, visible, masks))
        elif self._masks.chooses_keyframes or self._scene.is_keyframe(frame, visible):
            self._scene.mark_keyframe(frame, visible)
            self._recorder.count("keyframes chosen")
            self._masks.offer(self._scene.generation, frame, visible)
        if self._since_segmentation and time.monotonic() - self._observed_at > _STANDSTILL:
            self._begin_segmentation()

    def _take_pushed_masks(self, stamp: float, masks: Masks2D) -> None:
        """Masks usually come after their frame, now and then before it: then they wait in the generator."""
        if self._pushed is None:
            raise FrameError("unexpected_masks", "masks arrived, but perception.masks is not `topic`")
        found = self._recent.nearest(stamp, self._pushed.slop)
        if found is None:
            self._pushed.push(stamp, masks)
            return
        self._observe(_Observation(self._scene.generation, *found, masks))

    def _make_room(self, who: str) -> None:
        """Memory ran out: the scene gives some back, and mapping goes on with less."""
        self._is_short_of_memory = False
        self._recorder.count("out of memory")
        # Workers have told where.
        log.warning("memory ran out (%s): all budgets shrink", who, exc_info=who == "mapping")
        try:
            self._recent.clear()
            self._scene.shrink()
        except Exception:  # most likely it ran out again: the next one finds less to do
            log.exception("budgets could not shrink")
        self._listeners.report(
            "error", "out_of_memory", f"memory ran out ({who}): budgets shrink, the map goes on with less"
        )

    def _take_correction(self) -> None:
        if self._corrections.take():
            self._begin_segmentation()

    def _observe(self, seen: _Observation) -> None:
        if seen.generation != self._scene.generation:
            return
        with self._recorder.stage("observe"):
            self._scene.add_observation(seen.frame, seen.visible, seen.masks, seen.objects)
        self._recorder.count("keyframes")
        self._recorder.count("masks", sum(map(len, seen.masks.label_images)))
        self._listeners.keyframe(seen.frame, seen.masks)
        self._observed_at = time.monotonic()
        self._since_segmentation += 1
        if self._since_segmentation >= self.config.runtime.segment_every:
            self._begin_segmentation()

    def _begin_segmentation(self) -> None:
        if self._segmenting:
            return
        self._segmenting = True
        self._since_segmentation = 0
        self._answering, waiting = list(self._waiters), self._waiters
        waiting.clear()
        try:
            self._corrections.apply()
            with self._recorder.stage("segment: copy"):
                job = self._scene.begin_segmentation()
        except BaseException as error:
            self._end_segmentation(error)
            raise
        self._segmentation.put(job)

    def _finish_segmentation(self, job: SegmentationJob, outcome: Segmented | Exception) -> None:
        if isinstance(outcome, Exception):
            self._end_segmentation(outcome)
            return
        is_current = self._scene.is_current(job)
        try:
            with self._recorder.stage("segment: ids"):
                snapshot = self._scene.finish_segmentation(job, outcome)
        except Exception as error:
            self._end_segmentation(error)
            raise
        self._recorder.count("segmentations")
        for change in snapshot.changes:
            self._recorder.count(f"instances {change.kind}")
        if is_current:
            self._listeners.publish(self._text.with_names(snapshot))
            self._text.offer(self.snapshot)
        self._end_segmentation(self.snapshot)

    def _end_segmentation(self, outcome: Snapshot | BaseException) -> None:
        self._segmenting = False
        for future in self._answering:
            answer(future, outcome)
        self._answering = []
        due = self._since_segmentation >= self.config.runtime.segment_every
        if self._waiters or due or self._corrections.waits:
            self._begin_segmentation()

    def _reset(self) -> None:
        self._forget_work()
        self._scene.reset()
        self._listeners.publish(self._scene.snapshot)

    def _forget_work(self) -> None:
        self._masks.clear()
        self._recent.clear()
        if self._pushed is not None:
            self._pushed.clear()
        self._since_segmentation = 0
        self._text.forget()

    # --- the workers ---------------------------------------------------------------------------

    def _hand_over(
        self, generation: int, frame: Frame, visible: Visible, masks: Masks2D, objects: Objects2D | None
    ) -> None:
        """From the mask worker: what the scene's thread shall take."""
        self._inbox.put(partial(self._observe, _Observation(generation, frame, visible, masks, objects)))

    def _run_segmentation(self) -> None:
        free_memory = FreeMemory()
        while (job := self._segmentation.get()) is not None:
            outcome: Segmented | Exception
            try:
                with self._recorder.stage("segment"):
                    outcome = job.run()
            except Exception as error:
                self._recorder.count("segmentation errors")
                log.exception("a segmentation failed")
                self._listeners.report(
                    "error", "segment", "a segmentation failed (traceback in the log); the last one stays"
                )
                outcome = error
                self._on_worker_error(error, "segmentation")
            self._inbox.put(partial(self._finish_segmentation, job, outcome))
            # The votes of the whole map would wait here for the next job.
            del job, outcome
            free_memory.give_back()

    def _on_worker_error(self, error: Exception, who: str) -> None:
        """From any worker, which has told of it: where memory ran out, the scene can help, once for all."""
        if is_out_of_memory(error) and not self._is_short_of_memory:
            self._is_short_of_memory = True
            self._inbox.put(partial(self._make_room, who))
