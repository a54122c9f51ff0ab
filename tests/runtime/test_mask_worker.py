# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""A 2D model beside the map: slow, hanging, throwing, missing; the map goes on and says what is wrong."""

from __future__ import annotations

import threading

import pytest

from seg3d_core.config import build
from seg3d_core.errors import ConfigError, FrameError, WeightsError
from seg3d_core.perception import weights
from seg3d_core.runtime import LiveRuntime, mask_worker
from seg3d_core.types import Masks2D

SETTINGS = {
    "map.voxel_size": 0.05,
    "re0.min_points": 20,
    "keyframes.translation": 0.0,
    "perception.masks": "geometric",
    "query.encoder": "none",
}


class Model:
    """Answers with one mask, after `action(number of the call)`."""

    id, chooses_keyframes = "model", False

    def __init__(self, action=lambda call: None):
        self.action, self.calls, self.seen = action, 0, []

    def masks(self, frame):
        self.calls += 1
        self.seen.append(frame.index)
        self.action(self.calls)
        return Masks2D.from_labels(frame.instance > 0)


@pytest.fixture
def live(monkeypatch):
    """Starts a runtime whose masks come from a model; `runtime.events` are what it told."""
    monkeypatch.setattr(mask_worker, "warm_up", lambda config, model=None: 0.0)
    running = []

    def start(model):
        monkeypatch.setattr(mask_worker, "build_masks", lambda config: model)
        events = []
        runtime = LiveRuntime(build(SETTINGS), on_event=lambda *event: events.append(event))
        runtime.events = events
        runtime.start()
        running.append(runtime)
        return runtime

    yield start
    for runtime in running:
        runtime.stop()


def test_a_model_that_hangs_stops_no_frame_and_the_newest_keyframe_waits(live, box_room, monkeypatch, feed, until):
    monkeypatch.setattr(mask_worker, "_PATIENCE", 0.05)
    release = threading.Event()
    model = Model(lambda call: release.wait(20))
    runtime = live(model)
    frames = box_room(6)
    feed(runtime, frames[:1], perceived=False)
    assert until(lambda: runtime.statistics().models["masks"].fault), "its patience is over"
    feed(runtime, frames[1:], perceived=False)
    counted = runtime.statistics()
    assert counted.counters["frames"] == 6 and counted.counters["keyframes overtaken"] == 4
    assert counted.models["masks"].dropped == 4 and "no answer for" in counted.models["masks"].fault
    assert [level for level, text in runtime.events if "has not answered" in text] == ["error"]
    release.set()
    assert until(lambda: model.calls == 2 and runtime.statistics().counters.get("keyframes") == 2)
    assert model.seen == [frames[0].index, frames[5].index]
    assert runtime.statistics().models["masks"].fault == ""


def test_a_stop_does_not_wait_for_a_model_that_hangs(live, box_room, feed, until):
    release, answers = threading.Event(), []
    model = Model(lambda call: answers.append(release.wait(60)))
    runtime = live(model)
    feed(runtime, box_room(1), perceived=False)
    assert until(lambda: model.calls == 1)
    runtime.stop(timeout=0.3)
    assert not answers, "it hangs still"
    release.set()


def fail(error):
    def action(call):
        raise error

    return action


@pytest.mark.parametrize(
    ("error", "calls"),
    [
        (RuntimeError("out of memory"), 3),
        (WeightsError("perception.device is `cuda`, but torch sees no GPU"), 1),
        (ImportError("no torch"), 1),
    ],
)
def test_a_model_that_cannot_work_is_off_and_the_map_grows(live, box_room, error, calls, feed, until):
    model = Model(fail(error))
    runtime = live(model)
    for frame in box_room(6):
        before = model.calls
        feed(runtime, [frame], perceived=False)
        assert until(lambda before=before: model.calls > before or runtime.statistics().models["masks"].fault)
    assert until(lambda: runtime.statistics().models["masks"].fault == str(error))
    counted = runtime.statistics()
    assert counted.counters["frames"] == 6 and counted.points > 100 and "keyframes" not in counted.counters
    assert model.calls == calls == counted.counters["perception errors"]
    (text,) = [text for level, text in runtime.events if level == "error" and "masks are off" in text]
    assert str(error) in text
    assert runtime.segment_now().sequence > 0


def test_failures_now_and_then_switch_nothing_off(live, box_room, feed, until):
    def odd(call):
        if call % 2:
            raise RuntimeError("this one")

    model = Model(odd)
    runtime = live(model)
    for number, frame in enumerate(box_room(8), 1):
        feed(runtime, [frame], perceived=False)
        assert until(lambda number=number: model.calls == number)
    assert until(lambda: runtime.statistics().counters.get("keyframes") == 4)
    assert runtime.statistics().models["masks"].fault == ""


def test_an_image_that_a_model_refuses_is_a_dropped_keyframe(live, box_room, feed, until):
    model = Model(fail(FrameError("bad_colour", "an image of 8 or 16 bit is wanted")))
    runtime = live(model)
    for number, frame in enumerate(box_room(5), 1):
        feed(runtime, [frame], perceived=False)
        assert until(lambda number=number: model.calls == number)
    assert until(lambda: runtime.statistics().drops.get("bad_colour") == 5)
    assert runtime.statistics().models["masks"].fault == ""


def test_weights_that_are_not_here_leave_a_map_and_the_command_that_mends_it(box_room, monkeypatch, tmp_path, feed):
    pytest.importorskip("torch", reason="needs torch: pip install 'seg3d[sam]'")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(weights, "_installed", lambda entry: [])
    events = []
    runtime = LiveRuntime(
        build({**SETTINGS, "perception.masks": "mobile_sam"}), on_event=lambda *event: events.append(event)
    )
    runtime.start()
    try:
        feed(runtime, box_room(2), perceived=False)
        assert runtime.statistics().points > 100
        assert "seg3d models fetch mobile_sam" in runtime.statistics().models["masks"].fault
        assert any("masks are off" in text and "fetch mobile_sam" in text for _, text in events)
    finally:
        runtime.stop()


def test_settings_that_contradict_each_other_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="masks_dir"):
        LiveRuntime(build({**SETTINGS, "perception.masks": "files"}))


def test_a_model_that_fails_at_its_first_call_is_off_before_a_frame_comes(monkeypatch, box_room, feed):
    monkeypatch.setattr(mask_worker, "build_masks", lambda config: Model(fail(WeightsError("no GPU"))))
    runtime = LiveRuntime(build(SETTINGS))
    runtime.start()
    try:
        assert runtime.statistics().models["masks"].fault == "no GPU"
        feed(runtime, box_room(1), perceived=False)
    finally:
        runtime.stop()
