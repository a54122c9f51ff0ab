# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Fault 12: a model that throws, hangs, or returns what makes no sense. Throwing and hanging mask models are in
tests/runtime/test_mask_worker.py."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest

from seg3d_core.build import build_scene
from seg3d_core.config import build
from seg3d_core.errors import Seg3DError, WeightsError
from seg3d_core.query.text import TextQuery
from seg3d_core.runtime import text_worker
from seg3d_core.runtime.offline import run_offline
from seg3d_core.scene import SegmentationJob
from seg3d_core.types import Masks2D

SETTINGS = {"map.voxel_size": 0.05, "re0.min_points": 20, "keyframes.translation": 0.0, "query.encoder": "none"}


class Model:
    """Good masks, spoiled from call `first` on."""

    id, chooses_keyframes = "odd", False

    def __init__(self, spoil, first: int = 1):
        self.spoil, self.first, self.calls = spoil, first, 0

    def masks(self, frame):
        self.calls += 1
        good = Masks2D.from_labels(frame.instance)
        return self.spoil(good) if self.calls >= self.first else good


NONSENSE = {
    "mask_size": lambda m: replace(m, labels=m.labels[:-1]),
    "mask_size of planes": lambda m: replace(m, labels=m.labels[None]),
    "mask_size of others": lambda m: replace(m, others=(replace(m, labels=m.labels.T),)),
    "mask_numbers": lambda m: replace(m, labels=m.labels + 100),
    "mask_numbers below 0": lambda m: replace(m, labels=m.labels - 1),
    "mask_numbers of NaN": lambda m: replace(m, labels=np.full(m.labels.shape, np.nan)),
    "mask_scores": lambda m: replace(m, scores=np.full(len(m), np.nan, np.float32)),
    "mask_scores of two axes": lambda m: replace(m, scores=m.scores[:, None]),
    "masks_type": lambda m: (m.labels, m.scores),
}


@pytest.mark.parametrize("case", NONSENSE)
def test_masks_that_make_no_sense_switch_the_model_off_with_a_reason_and_the_map_grows(live, box_room, case) -> None:
    running = live(Model(NONSENSE[case]))
    running.feed(box_room(6))
    assert running.until(lambda: running.runtime.statistics().models["masks"].fault)
    counted = running.runtime.statistics()
    assert counted.drops == {case.split()[0]: 3}
    assert counted.counters["frames"] == 6 and counted.points > 100 and "keyframes" not in counted.counters
    assert "odd" in counted.models["masks"].fault
    assert [text for _, text in running.events if "masks are off" in text]
    assert not len(running.runtime.segment_now().instances)


@pytest.mark.parametrize("case", NONSENSE)
def test_offline_each_such_keyframe_is_dropped_and_counted(box_room, case) -> None:
    class Frames(list):
        name, kind, drops = "frames", "list", {}

    def run(model, frames):
        scene = build_scene(build(SETTINGS))
        return scene, run_offline(scene, Frames(frames), model)

    frames = box_room(6)
    scene, result = run(Model(NONSENSE[case], first=4), frames)
    assert result.statistics.drops == {case.split()[0]: 3}
    assert result.statistics.counters["frames"] == 6 and result.statistics.counters["keyframes"] == 3

    class Mute(Model):
        def masks(self, frame):
            return super().masks(frame) if self.calls < 3 else None

    expected, _ = run(Mute(lambda m: m), frames)
    one, other = scene.state()[1], expected.state()[1]
    assert {n: a.tobytes() for n, a in one.items()} == {n: a.tobytes() for n, a in other.items()}


class Encoder:
    """Text features that `spoil` makes of good ones."""

    id, dim, approximate = "odd", 4, False

    def __init__(self, spoil):
        self.spoil = spoil

    def encode_text(self, texts):
        return self.spoil(np.full((len(texts), 4), 0.5, np.float32))

    def encode_images(self, crops):
        return np.full((len(crops), 4), 0.5, np.float32)


@pytest.mark.parametrize(
    "spoil", [lambda f: f * np.nan, lambda f: f[:, :2], lambda f: f[:-1], lambda f: f.sum(), lambda f: f * np.inf]
)
@pytest.mark.parametrize("method", ["encode_text", "encode_images"])
def test_features_that_make_no_sense_answer_no_question(box_room, spoil, method) -> None:
    scene = build_scene(build({**SETTINGS, "perception.masks": "ground_truth"}))
    for frame in box_room(3):
        scene.add_observation(frame, scene.add_frame(frame), Masks2D.from_labels(frame.instance))
    snapshot = scene.segment()
    assert len(snapshot.instances)
    encoder = Encoder(spoil)
    if method == "encode_images":
        encoder.encode_text, encoder.encode_images = encoder.encode_images, encoder.encode_text
    query = TextQuery(build().query, encoder)
    for _ in range(2):
        with pytest.raises(WeightsError, match="the text encoder odd gave features"):
            query.answer("box", snapshot)


def test_a_text_encoder_that_makes_no_sense_is_a_fault_on_diagnostics_and_the_map_goes_on(
    live, box_room, monkeypatch
) -> None:
    encoder = Encoder(lambda f: f * np.nan)
    monkeypatch.setattr(text_worker, "build_query", lambda config: TextQuery(config.query, encoder))
    running = live()
    running.feed(box_room(6))
    snapshot = running.runtime.segment_now()
    assert len(snapshot.instances) == 3
    assert running.until(lambda: "no finite numbers" in running.runtime.statistics().models["text"].fault)
    assert running.counters["text errors"] >= 1
    with pytest.raises(WeightsError):
        running.runtime.query("box")


def test_a_segmentation_that_hangs_stops_no_frame(live, box_room, monkeypatch) -> None:
    """A core that hangs or is slow works beside the frames, and who asks it is refused after a deadline."""
    running = live()
    release, run = threading.Event(), SegmentationJob.run
    monkeypatch.setattr(SegmentationJob, "run", lambda job: release.wait(60) and run(job))
    frames = box_room(8)
    running.feed(frames[:4])
    with pytest.raises(Seg3DError, match="the segmentation did not finish within"):
        running.runtime.segment_now(timeout=0.2)
    running.feed(frames[4:])
    assert running.counters["frames"] == 8
    release.set()
    assert len(running.runtime.segment_now().instances) == 3
