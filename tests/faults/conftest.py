# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""A runtime beside a stream, as the fault tests use it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from seg3d_core.config import build
from seg3d_core.runtime import LiveRuntime, mask_worker

SETTINGS = {
    "map.voxel_size": 0.05,
    "re0.min_points": 20,
    "runtime.segment_every": 3,
    "keyframes.translation": 0.0,
    "perception.masks": "ground_truth",
    "query.encoder": "none",
}


class Live:
    """A LiveRuntime and what it told."""

    def __init__(self, settings: dict[str, Any], until: Callable[..., bool]):
        self.until = until
        self.events: list[tuple[str, str]] = []
        self.runtime = LiveRuntime(build({**SETTINGS, **settings}), on_event=lambda *event: self.events.append(event))

    @property
    def counters(self) -> dict[str, int]:
        return self.runtime.statistics().counters

    @property
    def drops(self) -> dict[str, int]:
        return self.runtime.statistics().drops

    def accounted(self) -> int:
        """Frames that were taken or dropped with a reason."""
        statistics = self.runtime.statistics()
        return statistics.counters.get("frames", 0) + sum(statistics.drops.values())

    def feed(self, frames: Any) -> None:
        """One after the other, so that nothing is overtaken."""
        for frame in frames:
            before = self.accounted()
            self.runtime.submit(frame)
            assert self.until(lambda before=before: self.accounted() > before), "a frame left no trace"
            assert self.until(lambda: not self.runtime.statistics().queues["perception"].length)


@pytest.fixture
def live(monkeypatch: pytest.MonkeyPatch, until: Callable[..., bool]) -> Iterator[Callable[..., Live]]:
    """`live(model, **settings)` starts a runtime; a `model` takes the place of the mask generator."""
    running: list[Live] = []
    others = set(threading.enumerate())

    def start(model: Any = None, **settings: Any) -> Live:
        if model is not None:
            monkeypatch.setattr(mask_worker, "build_masks", lambda config: model)
            monkeypatch.setattr(mask_worker, "warm_up", lambda config, model=None: 0.0)
        running.append(Live({name.replace("__", "."): value for name, value in settings.items()}, until))
        running[-1].runtime.start()
        return running[-1]

    yield start
    for each in running:
        each.runtime.stop()
    for thread in set(threading.enumerate()) - others:
        if thread.name.startswith("seg3d-") and "perception" not in thread.name:
            thread.join(30)
            assert not thread.is_alive(), thread.name
