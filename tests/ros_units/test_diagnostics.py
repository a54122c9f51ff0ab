# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""The diagnostics go on when time stands still, and end without a word."""

import threading
from types import SimpleNamespace

import pytest
from rclpy.clock import ClockType
from seg3d_ros import demo
from seg3d_ros import diagnostics as room
from seg3d_ros.inputs import Inputs
from seg3d_ros.report import Reporter

from seg3d_core.budgets import Use
from seg3d_core.runtime.statistics import Model, Stage, Statistics


class CountingRuntime:
    """Tells `counters`, `stages` and `models` as its statistics."""

    def __init__(self):
        self.counters, self.stages, self.models, self.memory = {}, {}, {}, {}

    def statistics(self):
        return Statistics(dict(self.counters), {}, dict(self.stages), {}, self.memory, 0, 0, models=self.models)

    def submit(self, frame):
        pass

    def count_drop(self, reason, n=1):
        pass


@pytest.fixture
def clock(monkeypatch):
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(room.time, "monotonic", lambda: clock.now)
    return clock


@pytest.fixture
def made(node, clock, input_parameters):
    """(diagnostics, inputs, runtime) of a node whose own clock stands at 0."""
    node.get_topic_names_and_types = list
    node.count_publishers = lambda topic: 0
    node.get_clock = lambda: SimpleNamespace(
        now=lambda: SimpleNamespace(nanoseconds=0, to_msg=lambda: room.DiagnosticArray().header.stamp)
    )
    parameters = {**input_parameters, "use_sim_time": True}
    runtime, report = CountingRuntime(), Reporter(node.logger)
    inputs = Inputs(node, parameters, runtime, report)
    return room.Diagnostics(node, parameters, inputs, runtime, report), inputs, runtime


def test_timers_run_while_simulated_time_stands_still(node, made):
    assert len(node.timers) == 2
    assert all(timer.clock.clock_type == ClockType.STEADY_TIME for timer in node.timers)


def test_a_clock_that_never_comes_is_said(node, clock, made):
    clock.now += 6
    node.timers[-1].callback()
    status = node.sent["/diagnostics"][-1].status[0]
    assert status.level == room.WARN
    assert "use_sim_time is true and no /clock has come" in status.message
    (line,) = [text for level, text in node.logger.lines if level == "warning"]
    assert "nobody publishes /rgb (colour)" in line
    clock.now += 7
    node.timers[-1].callback()
    assert len([1 for level, _ in node.logger.lines if level == "warning"]) == 1, "the same cause is not said each time"


def test_frames_that_the_map_refuses_are_said(node, clock, made):
    _, inputs, runtime = made
    runtime.counters["frames"] = 3
    for _ in range(4):
        inputs.frames, inputs.last_frame = inputs.frames + 9, clock.now
        node.timers[-1].callback()
        clock.now += 2.5
    assert "the map has taken none of them for" in node.sent["/diagnostics"][-1].status[0].message
    runtime.counters["frames"] = 4
    inputs.last_frame = clock.now
    node.timers[-1].callback()
    assert node.sent["/diagnostics"][-1].status[0].message == "frames arrive"


def test_each_model_tells_latency_rate_and_what_is_wrong_with_it(node, clock, made):
    _, _, runtime = made
    runtime.models = {"masks": Model("mobile_sam", "masks", dropped=7), "text": Model("none", "features", "no weights")}
    for runs in (10, 16):
        runtime.stages = {"masks": Stage(410.0, 520.5, runs)}
        clock.now += 3
        node.timers[-1].callback()
    masks, text = node.sent["/diagnostics"][-1].status[-2:]
    assert masks.name.endswith("model masks") and masks.level == room.DiagnosticStatus.OK
    values = {pair.key: pair.value for pair in masks.values}
    assert values["latency"] == "median 410.0 ms, p95 520.5 ms" and values["overtaken"] == "7"
    assert values["runs per second"] == "2.00" and values["model"] == "mobile_sam"
    assert text.level == room.WARN and text.message == "no weights"


def test_each_part_tells_its_use_and_its_budget(node, made):
    _, _, runtime = made

    def status():
        node.timers[-1].callback()
        (found,) = [s for s in node.sent["/diagnostics"][-1].status if s.name.endswith(": memory")]
        return found, {pair.key: pair.value for pair in found.values}

    runtime.memory = {"map": Use(412.34, 500.0), "snapshot": Use(3.0)}
    found, values = status()
    assert (found.level, found.message) == (room.OK, "all within their budgets")
    assert values["map"] == "412.3 of 500.0 MB, 0 evicted" and values["snapshot"] == "3.0 MB" and "process" in values
    runtime.memory = {"map": Use(450.0, 500.0, 12), "views": Use(2.0, 200.0)}
    found, values = status()
    assert (found.level, found.message) == (room.OK, "at their budgets: map")
    assert values["map"] == "450.0 of 500.0 MB, 12 evicted"
    told = {s.name.rpartition(": ")[2]: s for s in node.sent["/diagnostics"][-1].status}
    read = demo.read_statistics(told).memory
    assert read["map"] == runtime.memory["map"] and read["views"] == runtime.memory["views"]
    runtime.counters["out of memory"] = 2
    found, _ = status()
    assert found.level == room.WARN and "memory ran out 2 times" in found.message


def test_closing_waits_for_a_publication_under_way_and_lets_no_other_begin(node, made, monkeypatch):
    diagnostics, inputs, _ = made
    inside, go_on = threading.Event(), threading.Event()
    before = diagnostics._publish

    def slow():
        inside.set()
        assert go_on.wait(5)
        before()

    monkeypatch.setattr(diagnostics, "_publish", slow)
    publisher = threading.Thread(target=node.timers[-1].callback)
    publisher.start()
    assert inside.wait(5)
    closer = threading.Thread(target=diagnostics.close)
    closer.start()
    assert not node.destroyed, "what is still in use is not taken away"
    go_on.set()
    for thread in (publisher, closer):
        thread.join(5)
    assert len(node.destroyed) == 2
    inputs.close()
    sent = len(node.sent["/diagnostics"])
    for timer in node.timers:
        timer.callback()
    assert len(node.sent["/diagnostics"]) == sent
    assert not [text for _, text in node.logger.lines if "this is a bug" in text]


def test_callbacks_are_timed(node, clock, made, messages):
    def said():
        node.timers[-1].callback()
        (values,) = [s.values for s in node.sent["/diagnostics"][-1].status if s.name.endswith("input")]
        return {v.key: v.value for v in values}["sensor callbacks"]

    assert said() == "none yet"
    node.hear("/rgb", messages.rgb())
    assert said().startswith("median ") and "p95 " in said()
