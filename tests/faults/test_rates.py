# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Faults 5, 6 and 9 as the runtime meets them: any rate, bursts, silence, stamps of every kind. Matching and waiting
before it are in tests/ros_units/test_inputs.py and test_faults.py."""

from __future__ import annotations

import threading
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seg3d_core.build import build_scene
from seg3d_core.config import build
from seg3d_core.errors import FrameError


def stamped(frames, stamps):
    return [replace(f, index=k, stamp=s) for k, (f, s) in enumerate(zip(frames, stamps, strict=False))]


@pytest.mark.parametrize("period", [10.0, 1.5, 0.2, 0.005])
def test_a_frame_every_ten_seconds_and_two_hundred_a_second_are_all_taken_where_there_is_time(
    live, box_room, period
) -> None:
    running = live()
    running.feed(stamped(box_room(8), [k * period for k in range(8)]))
    assert running.counters["frames"] == 8 and not running.drops
    assert len(running.runtime.segment_now().instances) == 3


def test_a_burst_keeps_the_newest_and_counts_the_rest(live, box_room) -> None:
    running = live()
    hold, held = threading.Event(), threading.Event()
    running.runtime._inbox.put(lambda: held.set() or hold.wait(30))
    assert held.wait(30)
    frames = stamped(box_room(10) * 50, [k / 200 for k in range(500)])
    longest = 0
    for frame in frames:
        running.runtime.submit(frame)
        longest = max(longest, running.runtime.statistics().queues["frames"].length)
    hold.set()
    assert running.until(lambda: running.accounted() == 500)
    counted = running.runtime.statistics()
    assert longest == counted.queues["frames"].capacity == counted.counters["frames"]
    assert counted.drops == {"overtaken": 500 - longest} and counted.queues["frames"].dropped == 500 - longest
    assert counted.last_stamp == frames[-1].stamp, "what is newest is what is seen"


def test_bursts_with_silence_between_leave_nothing_uncounted(live, box_room) -> None:
    running = live()
    base = box_room(10)
    for burst in range(5):
        for frame in stamped(base * 6, [burst * 20 + k / 200 for k in range(60)]):
            running.runtime.submit(frame)
        assert running.until(lambda burst=burst: running.accounted() == 60 * (burst + 1))
        assert running.runtime.statistics().last_stamp == burst * 20 + 59 / 200
    assert set(running.drops) == {"overtaken"}


def test_simulated_time_that_restarts_is_counted_and_followed(live, box_room) -> None:
    running = live()
    frames = box_room(8)
    shown = []
    for _ in range(3):
        running.feed(stamped(frames, [100 + k * 0.5 for k in range(8)]))
        shown.append(sorted(running.runtime.segment_now().instances.ids.tolist()))
    assert running.counters["frames"] == 24 and running.counters["time restarts"] == 2 and not running.drops
    assert shown[0] == shown[1] == shown[2], "the same things keep their ids"


@settings(max_examples=30, deadline=None)
@given(
    stamps=st.lists(
        st.one_of(
            st.sampled_from([0.0, 10.0, 10.0 + 1e-9, 10.5, 11.0, 1.7e9, -5.0, float("nan"), float("inf")]),
            st.floats(-1e10, 1e10),
            st.floats(9.0, 12.0),
        ),
        min_size=1,
        max_size=12,
    )
)
def test_whatever_the_stamps_say_a_frame_is_taken_or_refused_with_its_reason(box_room, stamps) -> None:
    scene = build_scene(build({"map.voxel_size": 0.1, "query.encoder": "none"}))
    frame, taken = box_room(1, 16, 12)[0], []
    reasons = set()
    for stamp in stamps:
        try:
            scene.add_frame(replace(frame, stamp=stamp))
            taken.append(stamp)
        except FrameError as error:
            reasons.add(error.reason)
    assert scene.frames == len(taken) and reasons <= {"stamp"}
    assert all(b >= a or b <= a - 1 for a, b in pairwise(taken))
