# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""What images said follows points that merge, and forgets what was seen from a wrong place."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from seg3d_core.lifting.keyframe_log import APART, KeyframeLog
from seg3d_core.lifting.mask_votes import MaskVotes
from seg3d_core.lifting.object_queries import ObjectQueryBank
from seg3d_core.lifting.point_features import PointFeatures
from seg3d_core.types import Camera, FeatureMap, Frame, MapCorrection, Masks2D, ObjectQueries2D


def correction(gone, kept, before, after=None, keyframes=(), deltas=()) -> MapCorrection:
    gone, kept = np.array(gone, np.int64), np.array(kept, np.int64)
    before = np.asarray(before, np.float32)
    after = before if after is None else np.asarray(after, np.float32)
    moves = np.array(deltas, float).reshape(-1, 4, 4)
    return MapCorrection(gone + 1, kept + 1, gone, kept, before, after, np.array(keyframes, np.int64), moves)


def shift(x: float) -> np.ndarray:
    out = np.eye(4)
    out[0, 3] = x
    return out


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_the_log_is_the_literal_one(seed):
    random = np.random.default_rng(seed)
    points, log = 60, KeyframeLog(100)
    seen = []
    for number in range(5):
        rows = np.flatnonzero(random.random(points) < 0.6)
        masks = random.integers(0, 4, (2, len(rows)))
        pixels = random.integers(0, 99, (len(rows), 2))
        log.append(number, rows, masks, pixels, (3, 3))
        seen.append((rows, masks, pixels))
    before = random.uniform(-1, 1, (points, 3)).astype(np.float32)
    visit = random.integers(0, 2, points)
    after = before + np.array([[0, 0, 0], [0.3, 0, 0]], np.float32)[visit]
    kept = random.integers(0, 10, 12)
    gone = random.choice(np.arange(20, points), 12, replace=False)
    log.correct(correction(gone, kept, before, after, [1, 3], [shift(0.3)] * 2))
    new_of = dict(zip(gone.tolist(), kept.tolist(), strict=True))
    for number, keyframe in enumerate(log):
        moved = 0.3 if number in (1, 3) else 0.0
        expected = {}
        rows, masks, pixels = seen[number]
        for own in (True, False):
            for i, row in enumerate(rows.tolist()):
                if abs(0.3 * visit[row] - moved) > APART or (row in new_of) == own:
                    continue
                expected.setdefault(new_of.get(row, row), (masks[:, i].tolist(), pixels[i].tolist()))
        assert keyframe.rows.tolist() == sorted(expected)
        assert [(m.tolist(), p.tolist()) for m, p in zip(keyframe.masks.T, keyframe.pixels, strict=True)] == [
            expected[row] for row in sorted(expected)
        ]
    held = np.concatenate([k.rows for k in log])
    assert np.array_equal(log._cover[:points], np.bincount(held, minlength=points)), "what says who is redundant"


def test_a_log_that_is_corrected_again_and_again_goes_on_dropping_what_adds_nothing():
    """The first two keyframes show what nobody else does, and stay: the search must get beyond them."""
    logs = [KeyframeLog(1000, enough=3) for _ in range(2)]
    nothing_moved = correction([], [], np.zeros((40, 3)))
    for number in range(30):
        rows = np.arange(20 * number, 20 * number + 20) if number < 2 else np.arange(10, 30)
        for log in logs:
            log.append(number, rows, np.ones((1, 20)), np.zeros((20, 2)), (1,))
        logs[1].correct(nothing_moved)
    assert [k.number for k in logs[0]] == [k.number for k in logs[1]]
    assert len(logs[0]) < 10


def test_a_small_difference_of_moves_is_no_mistake():
    log = KeyframeLog(5)
    log.append(0, np.arange(3), np.ones((1, 3)), np.zeros((3, 2)), (1,))
    before = np.zeros((3, 3))
    after = before + np.array([[0.1], [0.1 + 0.9 * APART], [0.1 + 1.1 * APART]]) * [1, 0, 0]
    log.correct(correction([], [], before, after, [0], [shift(0.1)]))
    assert next(iter(log)).rows.tolist() == [0, 1]


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_votes_of_merged_points_add_up_and_the_strongest_stay(seed):
    random = np.random.default_rng(seed)
    votes, points = MaskVotes(slots=4), 10
    votes.grow(points)
    cast: dict[int, Counter] = {row: Counter() for row in range(points)}
    for _ in range(12):
        rows = np.flatnonzero(random.random(points) < 0.7)
        labels = random.integers(0, 4, len(rows)).astype(np.int32)
        votes.cast(rows, labels)
        for row, label in zip(rows.tolist(), labels.tolist(), strict=True):
            cast[row][label] += 1
    gone, kept = np.array([5, 7, 9, 12]), np.array([2, 2, 0, 3])
    votes.merge(gone, kept)
    for g, k in zip(gone.tolist()[:3], kept.tolist()[:3], strict=True):
        cast[k] += cast[g]
        cast[g] = Counter()
    for row in range(points):
        copied = votes.copy(np.array([row]))
        assert int(copied.sightings[0]) == sum(cast[row].values())
        found = {int(n): int(w) for n, w in zip(copied.labels[0], copied.weights[0], strict=True) if w}
        assert found == {label: n for label, n in cast[row].items() if label and n}


def test_where_slots_run_out_the_weakest_label_gives_way():
    votes = MaskVotes(slots=2)
    votes.grow(2)
    for row, label, times in ((0, 1, 5), (0, 2, 2), (1, 3, 3), (1, 4, 1)):
        for _ in range(times):
            votes.cast(np.array([row]), np.array([label], np.int32))
    votes.merge(np.array([1]), np.array([0]))
    kept = votes.copy(np.array([0]))
    assert dict(zip(kept.labels[0].tolist(), kept.weights[0].tolist(), strict=True)) == {1: 5, 3: 3}


def looked(random, points, frames, features):
    """Random frames into `features`; what each row was seen as: (distance, stamp, value)."""
    seen: dict[int, list] = {row: [] for row in range(points)}
    for stamp in range(1, frames + 1):
        rows = np.flatnonzero(random.random(points) < 0.5)
        distances = random.uniform(1, 5, len(rows)).astype(np.float32)
        value = float(stamp)
        level = FeatureMap(np.full((4, 6, 8), value, np.float32), 8.0, "encoder")
        features.observe(rows, np.full((len(rows), 2), 20.0, np.float32), distances, level)
        for row, distance in zip(rows.tolist(), distances.tolist(), strict=True):
            seen[row].append((distance, stamp, value))
    return seen


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_merged_points_keep_the_nearest_views_of_all(seed):
    random = np.random.default_rng(seed)
    features, points = PointFeatures(views=2, budget_mb=1), 12
    seen = looked(random, points, 5, features)
    gone, kept = np.array([6, 8, 11]), np.array([1, 1, 4])
    used = len(features)
    features.merge(gone, kept)
    assert len(features) <= used

    def best(row):
        return sorted(seen[row])[:2]

    for g, k in zip(gone.tolist(), kept.tolist(), strict=True):
        mine = best(k)
        stamps = {stamp for _, stamp, _ in mine}
        seen[k] = sorted(mine + [view for view in best(g) if view[1] not in stamps])[:2]
        seen[g] = []
    means, counts = features.features(np.arange(points))
    for row in range(points):
        views = best(row)
        assert counts[row] == len(views)
        assert np.allclose(means[row], np.mean([value for _, _, value in views]) if views else 0, atol=1e-2)
    again = PointFeatures(views=2, budget_mb=1)
    again.restore(features.state())
    assert np.array_equal(again.features(np.arange(points))[0], means)


def test_merging_points_without_features_changes_nothing():
    features = PointFeatures(views=2)
    features.grow(4)
    features.merge(np.array([2, 9]), np.array([1, 0]))
    assert len(features) == 0 and not features.features(np.arange(4))[1].any()


def test_objects_move_with_their_keyframes():
    camera = Camera(8, 6, 7.0, 7.0, 3.5, 2.5)
    bank = ObjectQueryBank(min_score=0.0)
    labels = np.zeros((6, 8), np.int32)
    labels[2:4, 2:4] = 1
    for keyframe in (0, 3, 7):
        frame = Frame(0, 0.0, np.zeros((6, 8, 3), np.uint8), np.full((6, 8), 2.0, np.float32), camera, np.eye(4))
        masks = Masks2D.from_labels(labels)
        bank.add(
            keyframe, frame, ObjectQueries2D(np.ones((1, 4)), np.zeros((1, 4)), np.ones(1), "encoder", masks=masks)
        )
    before = bank.queries().centres
    bank.move(np.array([1, 3]), np.array([shift(9.0), shift(0.5)]))
    assert np.allclose(bank.queries().centres - before, [[0, 0, 0], [0.5, 0, 0], [0, 0, 0]])
    bank.move(np.empty(0, np.int64), np.empty((0, 4, 4)))
    ObjectQueryBank().move(np.array([1]), np.eye(4)[None])
