# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Requests to a live map are bounded: one more than may wait is refused, and what was given up is not done later."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from seg3d_core.config import build
from seg3d_core.errors import BusyError, QueryError, Seg3DError
from seg3d_core.runtime import LiveRuntime
from seg3d_core.runtime.mailbox import Inbox
from seg3d_core.types import Masks2D

SETTINGS = {
    "map.voxel_size": 0.05,
    "re0.min_points": 20,
    "perception.masks": "ground_truth",
    "query.encoder": "none",
    "runtime.max_waiting": 10,
    "runtime.query_deadline": 5.0,
}


@pytest.fixture
def live():
    made: list[LiveRuntime] = []

    def start(**more):
        made.append(LiveRuntime(build({**SETTINGS, **more})))
        made[-1].start()
        return made[-1]

    yield start
    for runtime in made:
        runtime.stop()


@pytest.fixture
def blocked():
    """`blocked(runtime)` keeps the scene's thread busy until the event that it returns is set."""
    events: list[threading.Event] = []

    def block(runtime: LiveRuntime) -> threading.Event:
        go_on, inside = threading.Event(), threading.Event()
        events.append(go_on)
        runtime._inbox.put(lambda: inside.set() or go_on.wait(20))
        assert inside.wait(5)
        return go_on

    yield block
    for event in events:
        event.set()


def test_an_inbox_takes_so_many_requests_and_all_of_its_workers() -> None:
    inbox = Inbox(frames=2, requests=3)
    assert [inbox.offer(lambda: None) for _ in range(5)] == [True, True, True, False, False]
    inbox.put(lambda: None)
    assert (inbox.waiting_requests, inbox.refused_requests) == (4, 2)


def test_of_a_hundred_requests_at_once_those_that_cannot_wait_are_refused(live, blocked, until) -> None:
    runtime = live()
    go_on = blocked(runtime)
    with ThreadPoolExecutor(100) as pool:
        asked = [pool.submit(runtime.reset, 20.0) for _ in range(100)]
        assert until(lambda: runtime.statistics().queues["requests"].dropped == 90)
        go_on.set()
        errors = [each.exception() for each in asked]
    refused = [e for e in errors if e is not None]
    assert len(refused) == 90 and all(isinstance(e, BusyError) and e.code == "busy" for e in refused)
    assert runtime.statistics().queues["requests"].length == 0


def test_a_request_that_was_given_up_is_not_done_later(live, blocked) -> None:
    runtime = live()
    go_on, done = blocked(runtime), []
    with pytest.raises(BusyError) as error:
        runtime._requests.call(lambda: done.append(1), 0.05, "it")
    assert error.value.code == "timeout" and isinstance(error.value, Seg3DError)
    go_on.set()
    runtime.reset()
    assert not done


def test_calls_that_wait_or_come_after_a_stop_are_answered_at_once(live, blocked, until) -> None:
    runtime = live()
    blocked(runtime)
    with ThreadPoolExecutor(3) as pool:
        asked = [pool.submit(call, 600) for call in (runtime.segment_now, runtime.reset)]
        assert until(lambda: runtime._inbox.waiting_requests == len(asked))
        runtime.stop(timeout=0.1)
        asked.append(pool.submit(runtime.reset, 600))
        errors = [each.exception(timeout=60) for each in asked]
    assert all(isinstance(e, Seg3DError) and "shutting down" in str(e) for e in errors), errors


def test_a_flood_of_masks_from_a_topic_is_bounded_and_counted(live, blocked, until) -> None:
    runtime = live(**{"perception.masks": "topic"})
    go_on = blocked(runtime)
    masks = Masks2D.from_labels(np.ones((4, 4), np.int32))
    for k in range(50):
        runtime.submit_masks(float(k), masks)
    assert runtime.statistics().drops["masks_overtaken"] == 40
    go_on.set()
    assert until(lambda: len(runtime._pushed) == 10)


def test_what_waits_for_masks_has_a_budget_that_is_told(live, box_room) -> None:
    runtime = live(**{"perception.masks": "topic", "memory.topic_masks_mb": 1.0})
    frames = box_room(8, 320, 240)
    for k in range(16):
        runtime._take_frame(frames[k % 8])
        memory = runtime.statistics().memory
        assert memory["frames for masks"].used_mb <= memory["frames for masks"].limit_mb or len(runtime._recent) == 1
    assert memory["frames for masks"].evicted and memory["masks for frames"].limit_mb == 0.25


def test_a_hundred_queries_at_once_are_answered_or_refused(live, box_room, until) -> None:
    runtime = live()
    for frame in box_room():
        runtime.submit(frame)
        assert until(lambda: not runtime.statistics().queues["frames"].length)
    assert until(lambda: runtime.statistics().counters.get("keyframes", 0) >= 1)
    found = runtime.segment_now()
    wanted = int(found.instances.ids[0])

    def ask(_):
        try:
            return runtime.query(f"instance {wanted}")
        except BusyError as error:
            return error.code

    start = time.monotonic()
    with ThreadPoolExecutor(100) as pool:
        outcomes = list(pool.map(ask, range(100)))
    assert time.monotonic() - start < 10
    answered = [o for o in outcomes if not isinstance(o, str)]
    assert answered and all(o.answers[0].instance_id == wanted for o in answered)
    assert {o for o in outcomes if isinstance(o, str)} <= {"busy", "timeout"}
    with pytest.raises(QueryError):
        runtime.query("x" * 10_000)
