from __future__ import annotations

import threading
import time
from dataclasses import replace

import numpy as np
import pytest

from seg3d_core.config import build
from seg3d_core.errors import MapFileError, QueryError
from seg3d_core.runtime import LiveRuntime
from seg3d_core.types import Masks2D

SETTINGS = {
    "map.voxel_size": 0.05,
    "re0.min_points": 20,
    "runtime.segment_every": 3,
    "perception.masks": "ground_truth",
    "query.encoder": "none",
}


def until(condition, limit=20.0):
    end = time.monotonic() + limit
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


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


def feed(runtime, frames):
    """One after the other, so that nothing is overtaken."""
    for frame in frames:
        seen = runtime.statistics().counters.get("frames", 0)
        runtime.submit(frame)
        assert until(lambda seen=seen: runtime.statistics().counters.get("frames", 0) > seen)
        assert until(lambda: not runtime.statistics().queues["perception"].length)


def test_frames_in_instances_out(live, box_room):
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


def test_a_flood_of_frames_drops_the_old_ones_and_counts_them(live, box_room):
    runtime = live()
    frames = [replace(f, stamp=i * 0.001) for i, f in enumerate(box_room(4) * 100)]
    for frame in frames:
        runtime.submit(frame)
    assert until(lambda: not runtime.statistics().queues["frames"].length)
    time.sleep(0.05)
    counted = runtime.statistics()
    assert counted.counters["frames"] + sum(counted.drops.values()) == pytest.approx(len(frames), abs=1)
    assert counted.drops["overtaken"] > 0


def test_bad_frames_are_counted_and_the_rest_goes_on(live, box_room):
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


def test_a_model_that_throws_stops_nothing(live, box_room, monkeypatch):
    events = []
    runtime = live(on_event=lambda level, text: events.append(level))
    calls = []

    def throw(frame):
        calls.append(frame.index)
        if len(calls) == 1:
            raise RuntimeError("out of order")
        return Masks2D.from_labels(frame.instance)

    monkeypatch.setattr(runtime._masks, "masks", throw)
    feed(runtime, box_room(5))
    assert until(lambda: runtime.statistics().counters.get("keyframes", 0) >= 3)
    assert runtime.statistics().counters["perception errors"] == 1 and "error" in events


def test_reset_save_load_keep_ids(live, box_room, tmp_path):
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


def test_queries_without_an_encoder_say_so(live, box_room):
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
def test_pushed_masks_find_their_frame_in_either_order(live, box_room, first):
    runtime = live({**SETTINGS, "perception.masks": "topic"})
    frame = box_room(1)[0]
    masks = Masks2D.from_labels(frame.instance)
    steps = [lambda: runtime.submit_masks(frame.stamp, masks), lambda: runtime.submit(frame)]
    for step in steps if first == "masks" else steps[::-1]:
        step()
        time.sleep(0.1)
    assert until(lambda: runtime.statistics().counters.get("keyframes") == 1)


def test_stop_answers_those_who_wait(box_room):
    runtime = LiveRuntime(build(SETTINGS))
    runtime.start()
    errors = []

    def wait():
        try:
            runtime.segment_now(10)
        except Exception as error:
            errors.append(error)

    # A scene thread that is busy: the request can't be served before the stop.
    runtime._inbox.put(lambda: time.sleep(0.3))
    thread = threading.Thread(target=wait)
    thread.start()
    time.sleep(0.1)
    runtime.stop()
    thread.join(12)
    assert not thread.is_alive()
