# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest

from seg3d_core.build import build_scene
from seg3d_core.config import build
from seg3d_core.errors import MapFileError, QueryError
from seg3d_core.runtime import LiveRuntime
from seg3d_core.storage import copy_scene, write_scene
from seg3d_core.types import Masks2D

SETTINGS = {
    "map.voxel_size": 0.05,
    "re0.min_points": 20,
    "runtime.segment_every": 3,
    "perception.masks": "ground_truth",
    "query.encoder": "none",
}


@pytest.fixture
def live():
    """Starts runtimes and stops them; `live(settings, **callbacks)`."""
    running = []

    def start(settings=SETTINGS, **callbacks):
        running.append(LiveRuntime(build(settings), **callbacks))
        running[-1].start()
        return running[-1]

    yield start
    for runtime in running:
        runtime.stop()
        assert not any(t.is_alive() for t in threading.enumerate() if t.name.startswith("seg3d-"))


def test_frames_in_instances_out(live, box_room, feed):
    snapshots = []
    runtime = live(on_snapshot=snapshots.append)
    feed(runtime, box_room())
    snapshot = runtime.segment_now()
    assert len(snapshot.instances) == 3
    assert snapshots[-1].sequence == snapshot.sequence
    numbers = [s.sequence for s in snapshots]
    assert numbers == sorted(numbers)
    stages = runtime.statistics().stages
    assert {"integrate", "masks", "observe", "segment"} <= stages.keys()


def test_a_flood_of_frames_drops_the_old_ones_and_counts_them(live, box_room, until):
    runtime = live()
    frames = [replace(f, stamp=i * 0.001) for i, f in enumerate(box_room(4) * 100)]
    for frame in frames:
        runtime.submit(frame)

    def accounted():
        counted = runtime.statistics()
        return counted.counters.get("frames", 0) + sum(counted.drops.values())

    assert until(lambda: accounted() == len(frames))
    assert runtime.statistics().drops["overtaken"] > 0


def test_bad_frames_are_counted_and_the_rest_goes_on(live, box_room, until):
    events = []
    runtime = live(on_event=lambda level, text: events.append((level, text)))
    good = box_room(3)
    bad = replace(good[1], T_world_camera=np.zeros((4, 4)))
    runtime.submit(good[0])
    assert until(lambda: runtime.statistics().counters.get("frames") == 1)
    runtime.submit(bad)
    assert until(lambda: runtime.statistics().drops.get("rotation") == 1)
    runtime.submit(good[2])
    assert until(lambda: runtime.statistics().counters.get("frames") == 2)
    assert [level for level, _ in events] == ["warning"]


def test_a_model_that_throws_stops_nothing(live, box_room, monkeypatch, feed, until):
    events = []
    runtime = live(on_event=lambda level, text: events.append(level))
    calls = []

    def throw(frame):
        calls.append(frame.index)
        if len(calls) == 1:
            raise RuntimeError("out of order")
        return Masks2D.from_labels(frame.instance)

    monkeypatch.setattr(runtime._masks.generator, "masks", throw)
    feed(runtime, box_room(5))
    assert until(lambda: runtime.statistics().counters.get("keyframes", 0) >= 3)
    assert runtime.statistics().counters["perception errors"] == 1 and "error" in events


def test_reset_save_load_keep_ids(live, box_room, tmp_path, feed):
    runtime = live()
    feed(runtime, box_room())
    before = runtime.segment_now()
    runtime.save(tmp_path / "m.seg3d")
    with pytest.raises(MapFileError) as error:
        runtime.save(tmp_path / "m.seg3d")
    assert error.value.code == "exists"
    runtime.reset()
    assert not len(runtime.snapshot.instances) and runtime.statistics().points == 0
    loaded = runtime.load(tmp_path / "m.seg3d")
    assert loaded.instances.ids.tolist() == before.instances.ids.tolist()
    with pytest.raises(MapFileError):
        runtime.load(tmp_path / "none.seg3d")
    assert len(runtime.snapshot.instances) == len(before.instances)


def test_queries_without_an_encoder_say_so(live, box_room, feed):
    runtime = live()
    feed(runtime, box_room())
    runtime.segment_now()
    result = runtime.query("the box")
    assert not result.matched and not result.answers and "encoder" in result.message
    for text, code in (("  ", "empty_text"), ("x" * 10_000, "too_long")):
        with pytest.raises(QueryError) as error:
            runtime.query(text)
        assert error.value.code == code


@pytest.mark.parametrize("first", ["masks", "frame"])
def test_pushed_masks_find_their_frame_in_either_order(live, box_room, first, until):
    runtime = live({**SETTINGS, "perception.masks": "topic"})
    frame = box_room(1)[0]
    masks = Masks2D.from_labels(frame.instance)
    if first == "masks":
        runtime.submit_masks(frame.stamp, masks)
        assert until(lambda: runtime._pushed), "they wait"
        runtime.submit(frame)
    else:
        runtime.submit(frame)
        assert until(lambda: runtime.statistics().counters.get("frames") == 1)
        runtime.submit_masks(frame.stamp, masks)
    assert until(lambda: runtime.statistics().counters.get("keyframes") == 1)


def test_callbacks_that_throw_stop_nothing(live, box_room, feed, until):
    class Broken:
        def frame(self, frame, masks):
            raise RuntimeError("disk full")

        def snapshot(self, snapshot):
            raise RuntimeError("disk full")

    def throw(*_):
        raise RuntimeError("no listener")

    runtime = live(on_snapshot=throw, on_event=throw, observer=Broken())
    feed(runtime, box_room())
    runtime.submit(replace(box_room(1)[0], T_world_camera=np.zeros((4, 4))))
    assert until(lambda: runtime.statistics().drops.get("rotation") == 1)
    # Segmentations go on by themselves, and for whoever asks.
    assert until(lambda: runtime.statistics().counters.get("segmentations", 0) >= 1)
    first = runtime.segment_now(20)
    assert runtime.segment_now(20).sequence > first.sequence
    assert runtime.statistics().counters["callback errors"] > 0


def test_a_segmentation_that_fails_is_told_to_who_asked_and_the_next_one_works(live, box_room, monkeypatch, feed):
    runtime = live()
    feed(runtime, box_room(2))
    for step in ("begin_segmentation", "finish_segmentation"):
        with monkeypatch.context() as patch:
            patch.setattr(runtime._scene, step, lambda *_: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                runtime.segment_now(20)
        assert runtime.segment_now(20).sequence > 0


def test_labels_of_the_map_before_a_load_are_not_shown_on_the_loaded_one(live, box_room, tmp_path, feed):
    runtime = live()
    feed(runtime, box_room())
    runtime.segment_now()
    runtime.save(tmp_path / "m.seg3d")
    before = runtime.segment_now()
    after = runtime.load(tmp_path / "m.seg3d")
    # As when the text thread was busy with the old snapshot meanwhile.
    runtime._listeners.publish_names(before, ("old",) * len(before.instances))
    assert after.sequence == before.sequence and runtime.snapshot is after


def test_a_map_that_does_not_fit_leaves_names_and_snapshot(live, box_room, tmp_path, feed):
    other = build_scene(build({**SETTINGS, "map.voxel_size": 0.06}))
    write_scene(tmp_path / "other.seg3d", copy_scene(other, {}, ""))
    runtime = live()
    feed(runtime, box_room())
    runtime._text.restore_names({1: "box"})
    before = runtime.segment_now()
    with pytest.raises(MapFileError) as error:
        runtime.load(tmp_path / "other.seg3d")
    assert error.value.code == "wrong_voxel_size"
    assert runtime.snapshot is before and runtime._text.names[1] == "box"


def test_pushed_masks_without_a_time_belong_to_no_frame(live, box_room, until):
    runtime = live({**SETTINGS, "perception.masks": "topic"})
    frame = box_room(1)[0]
    runtime.submit(frame)
    assert until(lambda: runtime.statistics().counters.get("frames") == 1)
    runtime.submit_masks(float("nan"), Masks2D.from_labels(frame.instance))
    assert until(lambda: runtime.statistics().drops.get("bad_mask_stamp") == 1)
    assert "keyframes" not in runtime.statistics().counters


def test_a_camera_that_stands_still_gets_its_instances_too(live, box_room, monkeypatch, until):
    monkeypatch.setattr("seg3d_core.runtime.live._STANDSTILL", 0.05)
    runtime = live()
    frame, stamps = box_room(1)[0], iter(range(10_000))

    def is_segmented():
        runtime.submit(replace(frame, stamp=next(stamps) / 30))
        return len(runtime.snapshot.instances) > 0

    assert until(is_segmented)
    assert runtime.statistics().counters["keyframes"] == 1 < runtime.config.runtime.segment_every
