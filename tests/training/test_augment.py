# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Augmentation: equal to the published one with the same random numbers, and what each step keeps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from scipy.interpolate import RegularGridInterpolator

from training.augment import Sample, augment, drop_queries, elastic, flip, rescale, rotate, translate
from training.data_config import AugmentConfig

GOLDEN = Path(__file__).parents[1] / "golden" / "segdino3d" / "i_transforms.npz"
SEEDS = (0, 1, 2, 3, 7)


def sample(seed: int = 0, points: int = 200) -> Sample:
    rng = np.random.default_rng(seed)
    return Sample(rng.uniform(-3, 3, (points, 3)).astype(np.float32), rng.uniform(-3, 3, (9, 3)).astype(np.float32))


@pytest.mark.parametrize("seed", SEEDS)
def test_equal_to_the_published_sequence(seed: int):
    golden = np.load(GOLDEN, allow_pickle=False)
    start = Sample(golden["points"][:, :3].copy(), golden["query2d_pos"].copy())
    got = augment(start, np.random.RandomState(seed), AugmentConfig(), 0.02)
    np.testing.assert_allclose(got.xyz, golden[f"seed{seed}_points"][:, :3], atol=1e-5)
    np.testing.assert_allclose(got.query_positions, golden[f"seed{seed}_query2d_pos"], atol=1e-5)
    np.testing.assert_allclose(got.warped, golden[f"seed{seed}_elastic_coords"], atol=1e-3)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_global_generator_draws_the_same(seed: int):
    """What parity with the release rests on."""
    np.random.seed(seed)  # noqa: NPY002
    expected = np.random.rand(), np.random.uniform(-3.14, 3.14), np.random.randn(2, 3)  # noqa: NPY002
    random = np.random.RandomState(seed)
    got = random.rand(), random.uniform(-3.14, 3.14), random.randn(2, 3)
    assert all(np.array_equal(a, b) for a, b in zip(expected, got, strict=True))


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_rigid_steps_keep_distances_and_move_queries_along(seed: int):
    random, start = np.random.RandomState(seed), sample()
    together = np.concatenate([start.xyz, start.query_positions])
    before = np.linalg.norm(together[:, None] - together[None], axis=2)
    moved = translate(rotate(flip(start, 0, random, 0.5), random, 3.14), random, 0.1)
    after = np.concatenate([moved.xyz, moved.query_positions])
    np.testing.assert_allclose(np.linalg.norm(after[:, None] - after[None], axis=2), before, atol=2e-5)
    assert moved.xyz.dtype == moved.query_positions.dtype == np.float32


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_scale_stays_in_its_range(seed: int):
    start = sample()
    got = rescale(start, np.random.RandomState(seed), (0.8, 1.2))
    factor = got.xyz[0] / start.xyz[0]
    assert np.ptp(factor) < 1e-5 and 0.8 <= factor[0] <= 1.2


def test_a_turn_is_counter_clockwise_about_z():
    start = Sample(np.array([[1, 0, 5]], np.float32), np.zeros((0, 3), np.float32))
    random = np.random.RandomState(4)
    angle = np.random.RandomState(4).uniform(-3.14, 3.14)
    np.testing.assert_allclose(rotate(start, random, 3.14).xyz[0], [np.cos(angle), np.sin(angle), 5], atol=1e-6)


def slow_elastic(points: np.ndarray, random: np.random.RandomState, stages) -> np.ndarray:
    """The published text word for word, by scipy's interpolator."""
    x = points / 0.02
    for granularity, magnitude in stages:
        dims = np.abs(x).max(0).astype(int) // granularity + 3
        noise = [random.randn(*dims).astype(np.float32) for _ in range(3)]
        for _ in range(2):
            for axis in range(3):
                shape = [1, 1, 1]
                shape[axis] = 3
                box = np.ones(shape, np.float32) / 3
                noise = [ndimage.convolve(n, box, mode="constant", cval=0) for n in noise]
        axes = [np.linspace(-(d - 1) * granularity, (d - 1) * granularity, d) for d in dims]
        fields = [RegularGridInterpolator(axes, n, bounds_error=False, fill_value=0) for n in noise]
        x = x + np.stack([field(x) for field in fields], axis=1) * magnitude
    return x


@pytest.mark.parametrize("stages", [((6, 40.0), (20, 160.0)), ((3, 10.0),), ((50, 5.0), (7, 1.0), (4, 2.0))])
def test_elastic_equals_its_slow_twin(stages):
    start = sample(3)
    config = AugmentConfig(
        elastic_probability=1,
        elastic_granularity=tuple(g for g, _ in stages),
        elastic_magnitude=tuple(m for _, m in stages),
    )
    random = np.random.RandomState(5)
    got = elastic(start, random, config, 0.02)
    twin = np.random.RandomState(5)
    twin.rand()
    np.testing.assert_allclose(got.warped, slow_elastic(start.xyz, twin, stages), atol=1e-3)
    assert np.array_equal(got.xyz, start.xyz)
    assert random.rand() == twin.rand()


def test_without_elastic_the_warped_points_are_the_points():
    start = sample()
    got = elastic(start, np.random.RandomState(0), AugmentConfig(elastic_probability=0), 0.02)
    np.testing.assert_allclose(got.warped, start.xyz / 0.02, rtol=1e-6)
    still = augment(start, np.random.RandomState(0), AugmentConfig(enabled=False), 0.02)
    assert np.array_equal(still.xyz, start.xyz) and np.array_equal(still.warped, got.warped)


@given(count=st.integers(1, 300), rate=st.floats(0, 0.99), seed=st.integers(0, 1000))
@settings(max_examples=50, deadline=None)
def test_dropout_keeps_distinct_queries(count: int, rate: float, seed: int):
    kept = drop_queries(count, rate, np.random.RandomState(seed))
    assert len(kept) == len(set(kept.tolist())) == int(count * (1 - rate))
    assert len(kept) == 0 or (kept.min() >= 0 and kept.max() < count)


def test_published_dropout():
    assert len(drop_queries(2048, 0.7, np.random.RandomState(0))) == 614


@pytest.mark.parametrize(
    "values", [{"scale": (1.2, 0.8)}, {"scale": (0, 1)}, {"elastic_granularity": (6,)}, {"rotation": 7}]
)
def test_settings_out_of_range_are_refused(values):
    with pytest.raises(ValueError):
        AugmentConfig(**values)
