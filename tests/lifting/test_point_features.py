# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Features of the nearest views: as frames arrive, what a search through all frames would have chosen."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seg3d_core.errors import MapFileError, Seg3DError
from seg3d_core.lifting.point_features import PointFeatures, view_distances
from seg3d_core.types import Camera, FeatureMap

CHANNELS, WIDTH, HEIGHT = 6, 64, 48


class Look:
    """One frame: rows that it sees, where, how far, and two feature levels."""

    def __init__(self, random: np.random.Generator, points: int, share: float = 0.5, ties: bool = False) -> None:
        self.rows = np.flatnonzero(random.random(points) < share)
        n = len(self.rows)
        self.pixels = random.uniform((-0.5, -0.5), (WIDTH - 0.5, HEIGHT - 0.5), (n, 2)).astype(np.float32)
        self.distances = (random.integers(1, 4, n) if ties else random.uniform(1, 5, n)).astype(np.float32)
        self.levels = [
            FeatureMap(random.normal(size=(CHANNELS, HEIGHT // s, WIDTH // s)).astype(np.float32), float(s), "encoder")
            for s in (4, 8)
        ]


def looks(seed: int, count: int, points: int = 60, **options) -> list[Look]:
    random = np.random.default_rng(seed)
    return [Look(random, points, **options) for _ in range(count)]


def literal_sample(level: FeatureMap, u: float, v: float) -> np.ndarray:
    """Bilinear by the weights of the four cells around, which are clamped to the map."""
    x, y = (u + 0.5) / level.stride - 0.5, (v + 0.5) / level.stride - 0.5
    out = np.zeros(level.values.shape[0])
    for j in (int(np.floor(y)), int(np.floor(y)) + 1):
        for i in (int(np.floor(x)), int(np.floor(x)) + 1):
            weight = max(0, 1 - abs(x - i)) * max(0, 1 - abs(y - j))
            cell = level.values[:, np.clip(j, 0, level.values.shape[1] - 1), np.clip(i, 0, level.values.shape[2] - 1)]
            out += weight * cell
    return out


def batch(frames: list[Look], points: int, views: int, nearest: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """All frames at once: of each point's sightings the nearest, sampled, averaged."""
    out, counts = np.zeros((points, CHANNELS)), np.zeros(points, int)
    for row in range(points):
        sightings = []
        for number, frame in enumerate(frames):
            for i in np.flatnonzero(frame.rows == row):
                rank = frame.distances[i] if nearest else -frame.distances[i]
                samples = [literal_sample(level, *frame.pixels[i]) for level in frame.levels]
                sightings.append((float(rank), number, np.mean(samples, axis=0)))
        best = sorted(sightings, key=lambda s: s[:2])[:views]
        counts[row] = len(best)
        if best:
            out[row] = np.mean([s[2] for s in best], axis=0)
    return out, counts


def fed(features: PointFeatures, frames: list[Look]) -> PointFeatures:
    for frame in frames:
        features.observe(frame.rows, frame.pixels, frame.distances, frame.levels)
    return features


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 12), st.integers(1, 4), st.booleans(), st.booleans())
def test_at_the_end_it_is_the_batch_over_all_frames(seed, count, views, nearest, ties) -> None:
    frames = looks(seed, count, ties=ties)
    found, counts = fed(PointFeatures(views, nearest=nearest), frames).features(np.arange(60))
    expected, expected_counts = batch(frames, 60, views, nearest)
    assert np.array_equal(counts, expected_counts)
    assert np.allclose(found, expected, atol=2e-3)  # half precision
    assert found.dtype == np.float32


def test_the_order_of_frames_does_not_matter() -> None:
    frames = looks(3, 12)
    one = fed(PointFeatures(), frames).features(np.arange(60))[0]
    other = fed(PointFeatures(), frames[::-1]).features(np.arange(60))[0]
    assert np.array_equal(one, other)


def test_means_are_those_of_the_stored_halves_exactly() -> None:
    frames = looks(5, 8)
    features = fed(PointFeatures(), frames)
    state = features.state()
    kept = np.isfinite(state["distances"])
    values = np.where(kept[:, :, None], state["features"].astype(np.float64), 0).sum(axis=1)
    expected = (values / kept.sum(axis=1, keepdims=True)).astype(np.float32)
    found, counts = features.features(state["rows"])
    assert np.array_equal(counts, kept.sum(axis=1))
    assert np.allclose(found, expected, rtol=1e-7, atol=0)


def test_tiny_and_large_numbers_survive_half_precision() -> None:
    values = np.array([1e-7, -3e-6, 65504, -65504, 0.333, 0], np.float32)[:, None, None]
    features = PointFeatures(1)
    one = np.zeros(1, np.int64)
    features.observe(one, np.zeros((1, 2), np.float32), np.ones(1), FeatureMap(values, 1.0, "e"))
    assert np.array_equal(features.features(one)[0][0], values.ravel().astype(np.float16).astype(np.float32))


def test_points_without_a_view_have_zero_features() -> None:
    features = PointFeatures()
    assert features.features(np.arange(3))[0].shape == (3, 0)
    frame = looks(0, 1)[0]
    frame.rows = frame.rows[frame.rows != 2]
    frame.pixels, frame.distances = frame.pixels[: len(frame.rows)], frame.distances[: len(frame.rows)]
    fed(features, [frame])
    found, counts = features.features(np.array([2, 10_000]))
    assert not found.any() and not counts.any()
    features.observe(np.empty(0, np.int64), np.empty((0, 2)), np.empty(0), frame.levels)


def test_numbers_that_half_cannot_hold_are_left_out_and_counted() -> None:
    good, bad = looks(1, 2, share=1.0)
    for value in (np.nan, np.inf, 1e6):
        for level in bad.levels:
            level.values[2] = value
        features = fed(PointFeatures(), [good, bad])
        assert features.refused == 60
        assert np.array_equal(
            features.features(np.arange(60))[0], fed(PointFeatures(), [good]).features(np.arange(60))[0]
        )


def per_point(views: int) -> int:
    return views * (2 * CHANNELS + 8) + 4


def with_room_for(points: int, views: int, rows: int) -> PointFeatures:
    """Of a map of so many rows, which take 10 bytes each."""
    features = PointFeatures(views, budget_mb=(points * per_point(views) + 10 * rows + 1) / 1e6)
    features.grow(rows)
    return features


def test_the_budget_holds_and_the_least_seen_go_first() -> None:
    features = with_room_for(20, 3, 60)
    often, rare, late = np.arange(0, 15), np.arange(15, 25), np.arange(25, 30)
    frame = Look(np.random.default_rng(0), 60, 1.0)
    for rows in (often, rare, often, late, late):
        features.observe(rows, frame.pixels[: len(rows)], frame.distances[: len(rows)], frame.levels)
        assert len(features) <= features.capacity == 20
        assert features.memory_bytes <= features.budget_bytes
    held = set(features.state()["rows"].tolist())
    # `rare` were seen once and had room for five; `late` were seen twice at the end, and took it.
    assert held == {*often.tolist(), *late.tolist()}
    assert features.evicted >= 10


def test_among_the_least_seen_those_longest_unseen_go_then_the_largest_rows() -> None:
    features = with_room_for(4, 1, 60)
    frame = Look(np.random.default_rng(0), 60, 1.0)
    for rows, held in (([0, 1, 2], {0, 1, 2}), ([3, 4, 5], {3, 4, 5, 0}), ([6, 7, 8, 9, 10], {6, 7, 8, 9})):
        features.observe(np.array(rows), frame.pixels[: len(rows)], frame.distances[: len(rows)], frame.levels)
        assert set(features.state()["rows"].tolist()) == held


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.floats(0.2, 1.0))
def test_a_lowered_budget_and_a_map_that_grows_keep_the_most_seen(seed, share) -> None:
    """The use stays below the budget while the tables grow, and who leaves is who had least sightings."""
    features = fed(with_room_for(60, 3, 60), looks(seed, 6))
    state = features.state()
    key = dict(zip(state["rows"].tolist(), features._keys(state["rows"].astype(np.int64)).tolist(), strict=True))
    before = dict(zip(state["rows"].tolist(), features.features(state["rows"])[0].tolist(), strict=True))
    features.budget_bytes = int(share * features.budget_bytes)
    features.grow(70)
    assert features.memory_bytes <= max(features.budget_bytes, 10 * 90)
    held = features.state()["rows"].tolist()
    assert sorted(held) == sorted(sorted(before, key=key.__getitem__)[len(before) - len(held) :])
    assert [features.features(np.array([r]))[0][0].tolist() for r in held] == [before[r] for r in held]
    fed(features, looks(seed + 1, 3))
    assert features.memory_bytes <= max(features.budget_bytes, 10 * 90)


def test_a_budget_with_room_for_nothing_gives_nothing() -> None:
    features = fed(PointFeatures(3, budget_mb=1e-6), looks(0, 3))
    assert len(features) == 0 and not features.features(np.arange(60))[1].any()


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.sampled_from([20, 1000]))
def test_rows_move_with_the_map(seed, capacity) -> None:
    random = np.random.default_rng(seed)
    before, after = looks(seed, 4, share=0.3), looks(seed + 1, 4, share=0.3)
    alive = random.random(60) < 0.7
    new_rows = np.where(alive, np.cumsum(alive) - 1, -1)
    budget = capacity * per_point(3) / 1e6
    moved, still = fed(PointFeatures(3, budget), before), fed(PointFeatures(3, budget), before)
    moved.remap(new_rows)
    rows = np.flatnonzero(alive)
    assert all(np.array_equal(a, b) for a, b in zip(moved.features(new_rows[rows]), still.features(rows), strict=True))
    if capacity == 1000:
        for frame in after:
            keep = alive[frame.rows]
            seen = frame.rows[keep]
            for one, where in ((moved, new_rows[seen]), (still, seen)):
                one.observe(where, frame.pixels[keep], frame.distances[keep], frame.levels)
        assert np.array_equal(moved.features(new_rows[rows])[0], still.features(rows)[0])
    assert len(moved) <= moved.capacity


def test_it_goes_on_from_its_state() -> None:
    frames = looks(8, 10)
    whole, first = fed(PointFeatures(), frames), fed(PointFeatures(), frames[:5])
    other = PointFeatures()
    other.restore(first.state())
    fed(other, frames[5:])
    for a, b in zip(whole.features(np.arange(60)), other.features(np.arange(60)), strict=True):
        assert np.array_equal(a, b)
    small = with_room_for(10, 3, len(whole.state()["last"]))
    small.restore(whole.state())
    assert len(small) == 10
    held = small.state()["rows"]
    assert np.array_equal(small.features(held)[0], whole.features(held)[0])
    empty = PointFeatures()
    empty.restore(PointFeatures().state())
    assert len(empty) == 0


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("rows", np.array([3, 2])),
        ("rows", np.arange(100, 160)),
        ("features", np.zeros((60, 2, CHANNELS), np.float16)),
        ("distances", np.zeros((60, 2), np.float32)),
        ("sightings", np.zeros(3, np.uint16)),
    ],
)
def test_a_state_that_does_not_fit_is_refused(name, wrong) -> None:
    state = fed(PointFeatures(), looks(0, 3, share=1.0)).state()
    with pytest.raises(MapFileError):
        PointFeatures().restore({**state, name: wrong})


def test_features_of_another_encoder_are_refused() -> None:
    features = fed(PointFeatures(), looks(0, 1))
    rows, pixels, one = np.zeros(1, np.int64), np.zeros((1, 2), np.float32), np.ones(1)
    for level, says in (
        (FeatureMap(np.zeros((CHANNELS, 2, 2)), 4.0, "other"), "other"),
        (FeatureMap(np.zeros((CHANNELS + 1, 2, 2)), 4.0, "encoder"), "7 channels"),
        (FeatureMap(np.zeros((CHANNELS, 0, 2)), 4.0, "encoder"), "shape"),
        (FeatureMap(np.zeros((CHANNELS, 2, 2)), 0.0, "encoder"), "stride"),
    ):
        with pytest.raises(Seg3DError, match=says):
            features.observe(rows, pixels, one, level)
    with pytest.raises(Seg3DError, match="no feature map"):
        features.observe(rows, pixels, one, [])


def test_distances_are_from_the_cameras_centre() -> None:
    camera = Camera(64, 48, 50.0, 60.0, 31.5, 23.5)
    xyz = np.random.default_rng(0).uniform((-1, -1, 1), (1, 1, 4), (20, 3))
    pixels = np.stack([xyz[:, 0] * 50 / xyz[:, 2] + 31.5, xyz[:, 1] * 60 / xyz[:, 2] + 23.5], axis=1)
    assert np.allclose(view_distances(pixels, xyz[:, 2], camera), np.linalg.norm(xyz, axis=1), rtol=1e-6)
