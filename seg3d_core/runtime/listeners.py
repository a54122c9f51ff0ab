# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Whoever listens to a live map: gets each snapshot, and in words what a person should know."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import replace

from ..types import Frame, Masks2D, Snapshot
from .offline import Observer
from .statistics import Recorder

log = logging.getLogger(__name__)

_REPORT_INTERVAL = 10.0


class Listeners:
    """Told from any thread, which none of them can stop. What they get is as in `LiveRuntime`.

    `snapshot` is the newest one; it is replaced, never changed.
    """

    def __init__(
        self,
        recorder: Recorder,
        observer: Observer | None,
        on_snapshot: Callable[[Snapshot], None] | None,
        on_event: Callable[[str, str], None] | None,
    ):
        self.snapshot = Snapshot.empty()
        self._recorder, self._observer = recorder, observer
        self._on_snapshot, self._on_event = on_snapshot, on_event
        self._publish_lock = threading.Lock()
        self._reported: dict[str, float] = {}

    def publish(self, snapshot: Snapshot) -> None:
        """A new snapshot."""
        with self._publish_lock:
            self._show(snapshot)

    def publish_names(self, snapshot: Snapshot, names: tuple[str, ...]) -> None:
        """The labels of a snapshot are known. Those of one that was replaced are not told."""
        with self._publish_lock:
            # Numbers would not do: a loaded map counts on from its own.
            if snapshot is self.snapshot:
                self._show(replace(snapshot, names=names))

    def _show(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        if self._on_snapshot is not None:
            self._tell(self._on_snapshot, snapshot)
        if self._observer is not None:
            self._tell(self._observer.snapshot, snapshot)

    def keyframe(self, frame: Frame, masks: Masks2D) -> None:
        """A keyframe was taken."""
        if self._observer is not None:
            self._tell(self._observer.frame, frame, masks)

    def report(self, level: str, kind: str, text: str) -> None:
        """A sentence for people, of each kind one in 10 s."""
        now = time.monotonic()
        if now - self._reported.get(kind, -_REPORT_INTERVAL) >= _REPORT_INTERVAL:
            self._reported[kind] = now
            if self._on_event is not None:
                self._tell(self._on_event, level, text)

    def _tell(self, callback: Callable[..., object], *news: object) -> None:
        try:
            callback(*news)
        except Exception:
            self._recorder.count("callback errors")
            log.exception("a callback of the runtime failed")
