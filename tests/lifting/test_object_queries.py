# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""The bank of 2D object queries: where objects stand, which are kept, and which a scene gives."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from seg3d_core.errors import MapFileError, Seg3DError
from seg3d_core.geometry import back_project, transform
from seg3d_core.lifting.object_queries import ObjectQueryBank
from seg3d_core.types import Frame, Masks2D, ObjectQueries2D


def detected(frame: Frame, scores, encoder_id: str = "detector", channels: int = 8) -> ObjectQueries2D:
    """One query per box of the box room, by its true mask."""
    labels = np.where(frame.instance <= len(scores), frame.instance, 0)
    features = np.random.default_rng(frame.index).normal(size=(len(scores), channels)).astype(np.float32)
    masks = Masks2D(labels.astype(np.int32), np.asarray(scores, np.float32))
    return ObjectQueries2D(features, np.zeros((len(scores), 4)), np.asarray(scores), encoder_id, masks=masks)


def literal_centre(frame: Frame, mask: np.ndarray) -> np.ndarray:
    points = back_project(frame.depth.astype(float), frame.camera)[mask & (frame.depth > 0)]
    sums = [np.linalg.norm(points - p, axis=1).sum() for p in points]
    return transform(frame.T_world_camera, points[[int(np.argmin(sums))]])[0]


def test_objects_stand_at_the_medoid_of_their_pixels_and_only_sure_ones_count(box_room) -> None:
    frame = box_room(3)[1]
    seen = [label for label in (1, 2, 3) if (frame.instance == label).sum() > 5]
    assert len(seen) >= 2
    scores = np.array([0.9, 0.31, 0.6])
    bank = ObjectQueryBank(min_score=0.3)
    queries = detected(frame, scores)
    bank.add(7, frame, queries)
    given = bank.queries()
    assert len(given) == len(seen) and set(given.keyframes) == {7}
    for k, label in enumerate(seen):
        assert np.allclose(given.centres[k], literal_centre(frame, frame.instance == label), atol=1e-5)
        assert np.allclose(given.features[k], queries.features[label - 1], atol=2e-3)
    again = ObjectQueryBank(min_score=0.6)
    again.add(0, frame, queries)
    assert len(again) == 1 and again.queries().scores[0] == np.float32(0.9)


def test_pixels_without_depth_or_too_far_do_not_count(box_room) -> None:
    frame = box_room(3)[1]
    frame = replace(frame, depth=np.where(frame.instance == 1, 0, frame.depth))
    bank = ObjectQueryBank(depth_max=1e-3)
    assert bank.add(0, frame, detected(frame, [0.9, 0.9, 0.9])) == 0 and bank.refused == 3
    bank = ObjectQueryBank()
    bank.add(0, frame, detected(frame, [0.9, 0.9, 0.9]))
    assert bank.refused >= 1 and len(bank) == 3 - bank.refused


def test_features_that_are_no_numbers_are_left_out_and_counted(box_room) -> None:
    frame = box_room(3)[1]
    queries = detected(frame, [0.9, 0.9, 0.9])
    whole = ObjectQueryBank()
    whole.add(0, frame, queries)
    queries.features[1] = np.nan
    queries.features[2, 0] = 1e6  # beyond half precision
    bank = ObjectQueryBank()
    bank.add(0, frame, queries)
    assert len(bank) == len(whole) - bank.refused + whole.refused < len(whole)


def test_beyond_the_capacity_the_lowest_scores_leave(box_room) -> None:
    frames = box_room(6)
    bank, small = ObjectQueryBank(), ObjectQueryBank(capacity=4)
    for frame in frames:
        scores = 0.4 + 0.1 * ((np.arange(3) + frame.index) % 4)
        bank.add(frame.index, frame, detected(frame, scores))
        small.add(frame.index, frame, detected(frame, scores))
    every, kept = bank.queries(), small.queries()
    assert len(every) > 8 and len(kept) == 4
    assert sorted(kept.scores) == sorted(every.scores)[-4:]
    assert (np.diff(kept.keyframes) >= 0).all()


def test_a_scene_gives_objects_far_from_one_another(box_room) -> None:
    bank = ObjectQueryBank()
    for frame in box_room(6):
        bank.add(frame.index, frame, detected(frame, [0.9] * 3))
    every, few = bank.queries(), bank.queries(3)
    assert len(few) == 3 and np.array_equal(few.centres[0], every.centres[0])
    farthest = np.linalg.norm(every.centres - every.centres[0], axis=1).argmax()
    assert np.array_equal(few.centres[1], every.centres[farthest])
    assert np.array_equal(few.features[1], every.features[farthest])


def test_other_encoders_and_wrong_masks_are_refused(box_room) -> None:
    frame = box_room(1)[0]
    bank = ObjectQueryBank()
    good = detected(frame, [0.9] * 3)
    bank.add(0, frame, good)
    for bad, says in (
        (detected(frame, [0.9] * 3, "another"), "another"),
        (detected(frame, [0.9] * 3, channels=5), "5 channels"),
        (replace(good, masks=None), "box segmenter"),
        (replace(good, masks=Masks2D(good.masks.labels[:-1], good.masks.scores)), "frame 0"),
        (replace(good, masks=Masks2D(good.masks.labels + 3, good.masks.scores)), "labels"),
        (replace(good, scores=good.scores[:2]), "2 scores"),
    ):
        with pytest.raises(Seg3DError, match=says):
            bank.add(1, frame, bad)


def test_no_object_is_no_query(box_room) -> None:
    frame = box_room(1)[0]
    bank = ObjectQueryBank()
    nothing = ObjectQueries2D(
        np.empty((0, 8)), np.empty((0, 4)), np.empty(0), "d", masks=Masks2D(np.zeros((60, 80), np.int32), np.empty(0))
    )
    assert bank.add(0, frame, nothing) == 0
    assert len(bank.queries()) == 0 and bank.queries().centres.shape == (0, 3)


def test_a_bank_goes_on_from_its_state(box_room) -> None:
    frames = box_room(4)
    bank, other = ObjectQueryBank(), ObjectQueryBank()
    for frame in frames[:2]:
        bank.add(frame.index, frame, detected(frame, [0.5, 0.6, 0.7]))
    other.restore(bank.state())
    for frame in frames[2:]:
        for one in (bank, other):
            one.add(frame.index, frame, detected(frame, [0.5, 0.6, 0.7]))
    for a, b in zip(vars(bank.queries()).values(), vars(other.queries()).values(), strict=True):
        assert np.array_equal(a, b)
    assert other.encoder_id == "detector" and other.memory_bytes == bank.memory_bytes
    for name, wrong in (("centres", np.zeros((2, 3))), ("features", np.full((len(bank), 8), np.nan))):
        with pytest.raises(MapFileError):
            other.restore({**bank.state(), name: wrong})
