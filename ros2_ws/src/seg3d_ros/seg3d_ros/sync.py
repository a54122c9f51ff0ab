# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Approximate-time matching of several stamped streams. No ROS import."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Any


class Synchroniser:
    """Calls `on_match(*items)` once per set of items whose stamps lie within `slop` seconds.

    Each item is used at most once; sets leave in order of time. Of two candidates in a stream the
    one nearer to the newest head wins. A stream whose stamps jump back by more than `reset_after`
    seconds (a bag that loops, a simulator that restarts) empties all queues and calls `on_reset`.
    Counts per stream: `received`, `unmatched` (left without a partner), `backward` (repeated or earlier stamps).
    """

    def __init__(
        self,
        streams: int,
        on_match: Callable[..., None],
        *,
        slop: float = 0.02,
        queue: int = 10,
        reset_after: float = 1.0,
        on_reset: Callable[[], None] = lambda: None,
    ):
        self.slop, self.reset_after = slop, reset_after
        self.on_match, self.on_reset = on_match, on_reset
        self.queues: list[deque[tuple[float, Any]]] = [deque(maxlen=queue) for _ in range(streams)]
        self.last = [float("-inf")] * streams
        self.received = [0] * streams
        self.unmatched = [0] * streams
        self.backward = [0] * streams
        self.matched = self.resets = 0
        self._lock = threading.RLock()

    def add(self, stream: int, stamp: float, item: Any) -> None:
        with self._lock:
            self.received[stream] += 1
            if stamp < self.last[stream] - self.reset_after:
                self._clear()
                self.last = [float("-inf")] * len(self.last)
                self.resets += 1
                self.on_reset()
            elif stamp <= self.last[stream]:
                self.backward[stream] += 1
                return
            self.last[stream] = stamp
            self._push(stream, stamp, item)

    def _clear(self) -> None:
        for stream, queue in enumerate(self.queues):
            self.unmatched[stream] += len(queue)
            queue.clear()

    def _push(self, stream: int, stamp: float, item: Any) -> None:
        queue = self.queues[stream]
        self.unmatched[stream] += len(queue) == queue.maxlen
        queue.append((stamp, item))
        while all(self.queues):
            self._match_heads()

    def _match_heads(self) -> None:
        pivot = max(queue[0][0] for queue in self.queues)
        for stream, queue in enumerate(self.queues):
            while len(queue) > 1 and abs(queue[1][0] - pivot) <= abs(queue[0][0] - pivot):
                queue.popleft()
                self.unmatched[stream] += 1
        heads = [queue[0][0] for queue in self.queues]
        if max(heads) - min(heads) <= self.slop:
            items = [queue.popleft()[1] for queue in self.queues]
            self.matched += 1
            self.on_match(*items)
        else:
            oldest = heads.index(min(heads))
            self.queues[oldest].popleft()
            self.unmatched[oldest] += 1
