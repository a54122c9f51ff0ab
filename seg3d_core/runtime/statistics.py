# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Counters and stage latencies, written by any thread, read for diagnostics and reports."""

from __future__ import annotations

import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ..budgets import Use

_SAMPLES = 1000


@dataclass(frozen=True)
class Stage:
    """Latency of the newest thousand runs of one stage, and how often it ran in all."""

    median_ms: float
    p95_ms: float
    count: int


@dataclass(frozen=True)
class Queue:
    """What waits, how much may wait, and how much was thrown away for newer things."""

    length: int
    capacity: int
    dropped: int


@dataclass(frozen=True)
class Model:
    """A network or the like that runs in a worker: its id, the stage that times it, and what is wrong, "" if nothing.

    `dropped` counts what it was too slow for.
    """

    id: str
    stage: str
    fault: str = ""
    dropped: int = 0


@dataclass(frozen=True)
class Save:
    """The last save to a file: when (seconds since 1970, None = never), how many there were, how long it took, and
    what went wrong with the newest try, "" if nothing."""

    path: str = ""
    at: float | None = None
    count: int = 0
    seconds: float = 0.0
    fault: str = ""

    def tried(self, write: Callable[[], object]) -> Save:
        """After a successful `write`."""
        start = time.monotonic()
        write()
        return Save(self.path, time.time(), self.count + 1, time.monotonic() - start)

    def failed(self, error: Exception) -> Save:
        return replace(self, fault=str(error) or type(error).__name__)


@dataclass(frozen=True)
class Statistics:
    """A consistent reading of everything that was counted."""

    counters: dict[str, int] = field(default_factory=dict)
    drops: dict[str, int] = field(default_factory=dict)
    stages: dict[str, Stage] = field(default_factory=dict)
    queues: dict[str, Queue] = field(default_factory=dict)
    memory: dict[str, Use] = field(default_factory=dict)
    points: int = 0
    instances: int = 0
    last_stamp: float | None = None
    models: dict[str, Model] = field(default_factory=dict)
    saves: dict[str, Save] = field(default_factory=dict)

    @property
    def memory_mb(self) -> dict[str, float]:
        """What each part holds."""
        return {name: use.used_mb for name, use in self.memory.items()}

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "counters": self.counters,
            "drops": self.drops,
            "stages_ms": {
                n: {"median": round(s.median_ms, 3), "p95": round(s.p95_ms, 3), "count": s.count}
                for n, s in self.stages.items()
            },
            "queues": {n: vars(q) for n, q in self.queues.items()},
            "memory_mb": {n: round(mb, 2) for n, mb in self.memory_mb.items()},
            "budgets": {
                n: {"used_mb": round(u.used_mb, 2), "limit_mb": round(u.limit_mb, 2), "evicted": u.evicted}
                for n, u in self.memory.items()
                if u.limit_mb is not None
            },
        }


class Recorder:
    """Thread-safe counters and timers."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counters: Counter[str] = Counter()
        self._drops: Counter[str] = Counter()
        self._times: dict[str, deque[float]] = defaultdict(lambda: deque(maxlen=_SAMPLES))
        self._runs: Counter[str] = Counter()

    def count(self, name: str, n: int = 1) -> None:
        with self._lock:
            self._counters[name] += n

    def drop(self, reason: str, n: int = 1) -> int:
        """Counts a dropped frame; returns how often this reason was seen."""
        with self._lock:
            self._drops[reason] += n
            return self._drops[reason]

    def frame(self, stamp: float, last_stamp: float, seen: int) -> None:
        """Counts a frame that the map took; `last_stamp` is that of the frame before, `seen` the points it sees."""
        self.count("frames")
        if stamp < last_stamp:  # only what is over a second gets so far: a bag that loops, a simulator's restart
            self.count("time restarts")
        if not seen:
            self.count("frames that saw nothing")

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Times the block, also when it throws."""
        start = time.perf_counter()
        try:
            yield
        finally:
            elapsed = (time.perf_counter() - start) * 1e3
            with self._lock:
                self._times[name].append(elapsed)
                self._runs[name] += 1

    def read(self, **rest: Any) -> Statistics:
        """Everything as of now; `rest` are the further fields of Statistics."""
        with self._lock:
            times = {name: np.array(values) for name, values in self._times.items()}
            runs, counters, drops = dict(self._runs), dict(self._counters), dict(self._drops)
        stages = {
            name: Stage(float(np.median(values)), float(np.percentile(values, 95)), runs[name])
            for name, values in times.items()
        }
        return Statistics(counters, drops, stages, **rest)
