# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Faults of topics in any order: nothing is lost uncounted, waits for ever or stops the rest."""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from seg3d_ros import inputs as room
from seg3d_ros.report import Reporter

SIZE = (8, 6)
# In 1/100 s: in step, repeated, a little and much earlier, of another clock, none at all.
STAMPS = st.one_of(st.integers(1000, 1060), st.sampled_from([0, 1000, 500, 100_000, 2_000_000_000 * 100]))


@pytest.fixture
def fresh(node, runtime, input_parameters):
    """Inputs that know the camera; everything made before is forgotten."""

    def make(**changes):
        node.subscriptions.clear()
        runtime.frames.clear()
        runtime.drops.clear()
        report = Reporter(node.logger)
        report.count_drop = runtime.count_drop
        return room.Inputs(node, {**input_parameters, **changes}, runtime, report)

    return make


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    events=st.lists(st.tuples(st.sampled_from(["rgb", "depth"]), STAMPS), max_size=60),
    order=st.randoms(use_true_random=False),
)
def test_any_order_of_any_stamps_leaves_every_image_counted(fresh, node, runtime, messages, events, order) -> None:
    inputs = fresh()
    node.hear("/info", messages.info())
    node.hear("/tf_static", messages.tf(0.0))
    good = [(stream, 1000 + 10 * k) for k in range(5) for stream in ("rgb", "depth")]
    order.shuffle(good)
    for stream, stamp in events + good:
        node.hear(f"/{stream}", getattr(messages, stream)(stamp / 100))
    sync = inputs.sync
    for k in (0, 1):
        waiting = len(sync.queues[k])
        assert sync.received[k] == sync.matched + sync.unmatched[k] + sync.backward[k] + waiting
    zero = sum(stamp == 0 for _, stamp in events)
    assert runtime.drops.get("zero_stamp", 0) == zero
    assert sum(sync.received) + zero == len(events) + len(good)
    inputs._count_unmatched()
    assert runtime.drops.get("no_partner", 0) == sum(sync.unmatched)
    jumped = runtime.drops.get("stamp_backward", 0) - sum(sync.backward)
    assert sync.matched == len(runtime.frames) + len(inputs.waiting) + jumped
    assert "internal_error" not in runtime.drops
    taken = [frame.stamp for frame in runtime.frames]
    # Where time started anew, anything may follow: the scene's own gate looks at that.
    assert sync.resets or all(b > a for a, b in pairwise(taken))


@pytest.mark.parametrize("shift", [-9.0, 1.7e9])
def test_images_of_another_clock_than_the_poses_are_said_and_come_through_once_it_is_set(
    fresh, node, runtime, messages, shift, monkeypatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr(room.time, "monotonic", lambda: clock[0])
    inputs = fresh()
    node.hear("/info", messages.info())
    for k in range(60):
        clock[0] += 0.1
        node.hear("/tf", messages.tf(10 + k * 0.1))
        for stream in ("rgb", "depth"):
            node.hear(f"/{stream}", getattr(messages, stream)(10 + shift + k * 0.1))
    assert runtime.frames == [] and runtime.drops["no_pose"] >= 30 and len(inputs.waiting) < 30
    assert "is known from 10.000 to" in inputs.report.last["no_pose"]
    for k in range(60, 70):
        node.hear("/tf", messages.tf(10 + k * 0.1))
        for stream in ("rgb", "depth"):
            node.hear(f"/{stream}", getattr(messages, stream)(10 + k * 0.1))
    assert len(runtime.frames) == 10


def test_intrinsics_that_change_are_taken_and_those_that_are_none_are_not(fresh, node, runtime, messages) -> None:
    fresh()
    node.hear("/tf_static", messages.tf(0.0))
    zoomed = messages.info().k * 1
    zoomed[0], zoomed[4] = 14.0, 14.0
    spoiled = [float("nan")] * 9
    for stamp, changes in ((10.0, {}), (11.0, {"k": zoomed}), (12.0, {"k": spoiled}), (13.0, {"k": [0.0] * 9})):
        node.hear("/info", messages.info(stamp, **changes))
        for stream in ("rgb", "depth"):
            node.hear(f"/{stream}", getattr(messages, stream)(stamp))
    assert [frame.camera.fx for frame in runtime.frames] == [7.0, 14.0, 14.0, 14.0]
    assert runtime.drops == {"camera_info": 2}


def test_colour_and_depth_of_two_clocks_are_each_without_partner(fresh, node, runtime, messages) -> None:
    inputs = fresh()
    node.hear("/info", messages.info())
    node.hear("/tf_static", messages.tf(0.0))
    for k in range(40):
        node.hear("/rgb", messages.rgb(10 + k * 0.1))
        node.hear("/depth", messages.depth(1.7e9 + k * 0.1))
    assert runtime.frames == [] and set(runtime.drops) == {"no_partner"}
    assert runtime.drops["no_partner"] + sum(map(len, inputs.sync.queues)) == 80
    assert "sync_slop" in inputs.report.last["no_partner"]


def test_one_stamp_from_the_far_future_costs_one_frame(fresh, node, runtime, messages) -> None:
    """On every topic at once, as when a clock is set: what comes next is a restart of time."""
    fresh()
    node.hear("/info", messages.info())
    for stamp in (10.0, 10.1, 2e9, 10.2, 10.3, 10.4):
        node.hear("/tf", messages.tf(stamp))
        node.hear("/rgb", messages.rgb(stamp))
        node.hear("/depth", messages.depth(stamp))
    assert [frame.stamp for frame in runtime.frames if frame.stamp < 1e9] == [10.0, 10.1, 10.2, 10.3, 10.4]
    assert any("jumped back by more than a second" in text for _, text in node.logger.lines)


def test_transforms_of_every_kind_block_nothing(fresh, node, runtime, messages) -> None:
    inputs = fresh()
    node.hear("/info", messages.info())
    bad = [
        messages.tf(10.0, quaternion=(0.0, 0.0, 0.0, 0.0)),
        messages.tf(10.0, translation=(float("inf"), 0.0, 0.0)),
        messages.tf(10.0, parent="camera", child="camera"),
        messages.tf(10.0, parent="", child="camera"),
        messages.tf(10.0, parent="camera", child="map"),
    ]
    for message in bad:
        node.hear("/tf", message)
        node.hear("/rgb", messages.rgb(10.0))
        node.hear("/depth", messages.depth(10.0))
    assert runtime.drops["tf_rotation"] == runtime.drops["tf_pose_not_finite"] == 1
    assert runtime.drops["tf_empty_frame_id"] == 2
    # The last one is a transform, the other way round: it is used as it is.
    assert len(runtime.frames) == 1 and np.allclose(runtime.frames[0].T_world_camera[:3, 3], (-1, -2, -3))
    node.hear("/tf", messages.tf(11.0, parent="map", child="camera"))
    for stream in ("rgb", "depth"):
        node.hear(f"/{stream}", getattr(messages, stream)(11.0))
    assert len(runtime.frames) == 1 and len(inputs.waiting) == 1
    assert "the transform tree has a loop" in inputs.poses.explain("camera", 11.0)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from([0, 1, 1500, 65535]), min_size=48, max_size=48))
def test_sixteen_bit_depth_of_any_values_is_a_frame_of_its_valid_pixels_or_no_depth(
    fresh, node, runtime, messages, values
) -> None:
    pixels = np.array(values, np.uint16).reshape(SIZE[1], SIZE[0])
    fresh()
    node.hear("/info", messages.info())
    node.hear("/tf_static", messages.tf(0.0))
    node.hear("/rgb", messages.rgb())
    node.hear("/depth", messages.depth(pixels=pixels))
    valid = (pixels > 0) & (pixels < 65535)
    if not valid.any():
        assert runtime.frames == [] and runtime.drops == {"no_depth": 1}
    else:
        assert ((runtime.frames[0].depth > 0) == valid).all() and runtime.drops == {}


@pytest.mark.skipif(not room.HEARS_NUMBERS, reason="this rclpy tells no numbers of messages")
def test_messages_that_newer_ones_pushed_out_of_the_queue_are_counted(fresh, node, messages) -> None:
    """At 200 Hz beside a busy machine: DDS keeps the newest ten and tells nobody."""
    inputs = fresh()
    colour = inputs.inputs["colour"]

    def camera(gid):
        node.publishers["/rgb"] = [SimpleNamespace(endpoint_gid=g, qos_profile=colour.asked) for g in gid]
        inputs._on_timer()

    def hear(*numbers):
        for n in numbers:
            node.hear("/rgb", messages.rgb(10 + n / 100), number=n)

    camera([b"one"])
    hear(40, 41, 50, 51)
    assert colour.lost == 8
    camera([b"another"])
    hear(90, 92)
    assert colour.lost == 9, "another publisher has a count of its own"
    camera([b"another", b"one"])
    hear(100, 200)
    camera([b"another"])
    hear(300, 302)
    assert colour.lost == 10
