# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""One process, many lives: what configure and activate make, deactivate and cleanup give back."""

import gc
import threading

import pytest
import rclpy
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter
from seg3d_ros.segment_node import SegmentNode

from seg3d_core.perception import weights

SUCCESS = TransitionCallbackReturn.SUCCESS


@pytest.fixture
def node():
    context = rclpy.Context()
    context.init()
    made = SegmentNode(context=context, parameter_overrides=[Parameter("query.encoder", value="none")])
    yield made
    made.close()
    made.destroy_node()
    context.try_shutdown()


def belongings(node):
    gc.collect()
    threads = sorted(t.name for t in threading.enumerate() if t.name.startswith("seg3d"))
    return threads, *(len(list(each)) for each in (node.publishers, node.subscriptions, node.timers, node.services))


def test_three_lives_leave_nothing_behind(node):
    unborn = belongings(node)
    alive = set()
    for _ in range(3):
        assert node.trigger_configure() == SUCCESS
        for _ in range(2):
            assert node.trigger_activate() == SUCCESS
            alive.add(str(belongings(node)))
            assert node.trigger_deactivate() == SUCCESS
        assert node.trigger_cleanup() == SUCCESS
        assert belongings(node) == unborn
    assert len(alive) == 1, "each life has the same"


def test_a_model_whose_weights_are_not_here_is_told_at_start_and_the_node_maps_without_it(monkeypatch, tmp_path, capfd):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(weights, "_installed", lambda entry: [])
    context = rclpy.Context()
    context.init()
    overrides = [Parameter("profile", value="cpu"), Parameter("query.encoder", value="none")]
    made = SegmentNode(context=context, parameter_overrides=overrides)
    try:
        assert made.trigger_configure() == SUCCESS
        told = "".join(capfd.readouterr())
        assert "profile cpu: masks from mobile_sam and geometric, core re0" in told
        assert "missing: " in told
        assert "masks are off" in told
        assert made.runtime.statistics().models["masks"].fault
        assert made.trigger_activate() == SUCCESS
    finally:
        made.close()
        made.destroy_node()
        context.try_shutdown()
