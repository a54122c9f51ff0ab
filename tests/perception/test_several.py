# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Several generators side by side, and that a segmenter gets all of their label images at once."""

from __future__ import annotations

import numpy as np
import pytest

from seg3d_core.build import build_scene
from seg3d_core.config import build
from seg3d_core.errors import FrameError
from seg3d_core.perception.ground_truth import GroundTruthMasks
from seg3d_core.perception.several import NewestMasks, SeveralMasks
from seg3d_core.types import Masks2D


class Fixed:
    chooses_keyframes = False

    def __init__(self, name, found):
        self.id, self.found, self.calls = name, found, 0

    def masks(self, frame):
        self.calls += 1
        return self.found


def image(value: int, shape=(4, 6)) -> Masks2D:
    return Masks2D(np.full(shape, 1, np.int32), np.float32([value / 10]))


def values(masks: Masks2D) -> list[float]:
    return [round(float(one.scores[0]) * 10) for one in masks.label_images]


def test_all_label_images_come_in_order_and_flat() -> None:
    inner = SeveralMasks((Fixed("b", image(2)), Fixed("c", image(3))))
    several = SeveralMasks((Fixed("a", image(1)), inner, Fixed("d", image(4))))
    found = several.masks(None)
    assert several.id == "a+b+c+d" and values(found) == [1, 2, 3, 4]
    assert not any(one.others for one in found.others)


def test_who_sees_nothing_is_left_out() -> None:
    assert values(SeveralMasks((Fixed("a", None), Fixed("b", image(2)))).masks(None)) == [2]
    assert SeveralMasks((Fixed("a", None),)).masks(None) is None


def test_the_newest_frame_is_remembered_and_no_other(box_room) -> None:
    inner = Fixed("a", image(1))
    newest, (one, two) = NewestMasks(inner), box_room(2)
    assert newest.masks(one) is newest.masks(one) and inner.calls == 1
    newest.masks(two)
    newest.masks(one)
    assert inner.calls == 3


class Watching:
    """A segmenter that only remembers what it was given."""

    takes_several = True

    def __init__(self):
        self.seen = []

    def observe(self, keyframe, rows, pixels, depths, masks):
        self.seen.append((keyframe, masks))


@pytest.fixture
def scene():
    made = build_scene(build({"map.voxel_size": 0.05}))
    made.segmenter = Watching()
    return made


def test_a_keyframe_is_one_observation_of_all_label_images(scene, box_room) -> None:
    truth = GroundTruthMasks()
    for frame in box_room(2):
        visible = scene.add_frame(frame)
        scene.add_observation(frame, visible, SeveralMasks((truth, truth)).masks(frame))
    assert [number for number, _ in scene.segmenter.seen] == [0, 1]
    assert all(isinstance(masks, tuple) and len(masks) == 2 for _, masks in scene.segmenter.seen)


def test_a_further_image_of_another_size_is_refused_and_leaves_no_trace(scene, box_room) -> None:
    frame = box_room(1)[0]
    visible, good = scene.add_frame(frame), GroundTruthMasks().masks(frame)
    with pytest.raises(FrameError, match=r"masks of \(4, 6\)"):
        scene.add_observation(frame, visible, Masks2D(good.labels, good.scores, (image(2),)))
    assert scene.segmenter.seen == [] and scene.keyframes == 0
