# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Masks from a topic and from the source's own truth."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from seg3d_core.errors import ConfigError, FrameError
from seg3d_core.perception.ground_truth import GroundTruthMasks
from seg3d_core.perception.topic import PushedMasks
from seg3d_core.types import Array, Camera, Frame, Masks2D

SHAPE = (4, 6)


def frame(stamp: float, instance: Array | None = None) -> Frame:
    camera = Camera(SHAPE[1], SHAPE[0], 5.0, 5.0, 3.0, 2.0)
    rgb, depth = np.zeros((*SHAPE, 3), np.uint8), np.ones(SHAPE, np.float32)
    return Frame(0, stamp, rgb, depth, camera, np.eye(4), "", instance)


def masks(value: int = 1) -> Masks2D:
    return Masks2D.from_labels(np.full(SHAPE, value))


def test_truth_is_renumbered_and_missing_truth_is_none():
    truth = np.zeros(SHAPE, np.int32)
    truth[0], truth[1] = 40, 7
    found = GroundTruthMasks().masks(frame(0.0, truth))
    assert found is not None
    assert found.labels[:, 0].tolist() == [2, 1, 0, 0]
    assert GroundTruthMasks().masks(frame(0.0)) is None


def test_the_nearest_stamp_within_the_slop_is_taken_once():
    pushed = PushedMasks(slop=0.02)
    near, far = masks(), masks()
    pushed.push(1.015, far)
    pushed.push(0.995, near)
    assert pushed.masks(frame(1.0)) is near
    assert pushed.masks(frame(1.0)) is far
    assert pushed.masks(frame(1.0)) is None


def test_masks_beyond_the_slop_wait():
    pushed = PushedMasks(slop=0.02)
    pushed.push(2.0, masks())
    assert pushed.masks(frame(1.9)) is None
    assert len(pushed) == 1
    assert pushed.masks(frame(2.01)) is not None


def test_the_buffer_is_bounded_and_counts():
    pushed = PushedMasks(capacity=3)
    for k in range(5):
        pushed.push(float(k), masks())
    assert len(pushed) == 3
    assert pushed.evicted == 2
    assert pushed.masks(frame(0.0)) is None
    assert pushed.masks(frame(4.0)) is not None


def test_a_repeated_stamp_replaces():
    pushed, newer = PushedMasks(), masks()
    pushed.push(1.0, masks())
    pushed.push(1.0, newer)
    assert len(pushed) == 1
    assert pushed.masks(frame(1.0)) is newer


def test_another_size_and_a_stamp_that_is_none_are_refused():
    pushed = PushedMasks()
    pushed.push(1.0, Masks2D.from_labels(np.ones((3, 3))))
    with pytest.raises(FrameError, match="3x3, the frame is 6x4") as caught:
        pushed.masks(frame(1.0))
    assert caught.value.reason == "mask_size"
    with pytest.raises(FrameError, match="finite time"):
        pushed.push(float("nan"), masks())


@pytest.mark.parametrize("arguments", [{"slop": -1.0}, {"slop": float("nan")}, {"capacity": 0}])
def test_settings_out_of_range_are_refused(arguments: dict[str, float]):
    with pytest.raises(ConfigError):
        PushedMasks(**arguments)


def test_pushing_and_taking_from_threads_loses_nothing():
    pushed, taken = PushedMasks(slop=0.0, capacity=10_000), []

    def push(start: int) -> None:
        for k in range(start, 2000, 2):
            pushed.push(float(k), masks())

    def take() -> None:
        for k in range(2000):
            if pushed.masks(frame(float(k))) is not None:
                taken.append(k)

    threads = [threading.Thread(target=push, args=(s,)) for s in (0, 1)] + [threading.Thread(target=take)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(taken) == len(set(taken))
    assert len(pushed) + len(taken) == 2000
