# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Similarities become probabilities, and thresholds keep the precision that they promise."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seg3d_core.query import calibration


def sample(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    present = rng.random(count) < 0.3
    return np.where(present, 0.4, 0.2) + 0.1 * rng.standard_normal(count), present


def test_the_fitted_curve_is_the_one_that_made_the_data() -> None:
    rng = np.random.default_rng(1)
    x = rng.uniform(-1, 1, 40_000)
    y = rng.random(len(x)) < 1 / (1 + np.exp(-(4 * x)))
    slope, intercept = calibration.fit(x, y)
    assert slope == pytest.approx(4, abs=0.2)
    assert intercept == pytest.approx(0, abs=0.1)


def test_both_classes_weigh_the_same_however_many_there_are() -> None:
    x, y = sample(4000)
    slope, intercept = calibration.fit(x, y)
    doubled = np.r_[x, x[~y]], np.r_[y, y[~y]]
    assert calibration.fit(*doubled) == pytest.approx((slope, intercept), rel=1e-2)


def test_kinds_of_absent_texts_weigh_the_same_however_many_there_are() -> None:
    weight = calibration.class_weights(np.array([0, 0, 1, 2, 2, 2, 2]))
    assert weight == pytest.approx([0.25, 0.25, 0.25, *[0.0625] * 4])
    assert calibration.class_weights(np.array([True, False, False])) == pytest.approx([0.5, 0.25, 0.25])


def test_separable_data_give_a_finite_curve() -> None:
    slope, intercept = calibration.fit(np.r_[np.zeros(5), np.ones(5)], np.r_[np.zeros(5), np.ones(5)].astype(bool))
    assert np.isfinite(slope) and np.isfinite(intercept) and slope > 0


@pytest.mark.parametrize("present", [np.zeros(4, bool), np.ones(4, bool)])
def test_one_class_alone_cannot_be_fitted(present: np.ndarray) -> None:
    with pytest.raises(ValueError, match="absent"):
        calibration.fit(np.arange(4.0), present)


@settings(deadline=None)
@given(st.integers(0, 10_000))
def test_area_under_curve_agrees_with_counting_pairs(seed: int) -> None:
    rng = np.random.default_rng(seed)
    score, present = rng.integers(0, 5, 30).astype(float), rng.random(30) < 0.5
    pairs = [(a > b) + 0.5 * (a == b) for a in score[present] for b in score[~present]]
    expected = np.mean(pairs) if pairs else 0.0
    assert calibration.area_under_curve(score, present) == pytest.approx(expected)


@settings(deadline=None)
@given(st.integers(0, 10_000))
def test_answers_above_a_threshold_reach_its_precision(seed: int) -> None:
    x, present = sample(200, seed)
    limits = calibration.thresholds(x, present)
    assert list(limits) == sorted(limits)
    weight = calibration.class_weights(present)
    for wanted, limit in list(zip(calibration.PRECISIONS, limits, strict=True))[:4]:
        answered = x >= limit
        assert (weight * present)[answered].sum() / weight[answered].sum() >= wanted - 1e-9


def make(precisions: tuple[float, ...], thresholds: tuple[float, ...]) -> calibration.Calibration:
    return calibration.Calibration(
        "x", 5.0, -1.0, precisions, thresholds, 1, 1, 0.9, 2, (0.2,), ("house",), "2026-01-01"
    )


def test_the_threshold_is_that_of_the_next_stricter_precision() -> None:
    curve = make((0.5, 0.8, 0.9), (0.1, 0.4, 0.7))
    assert [curve.threshold(p) for p in (0.2, 0.5, 0.6, 0.8, 0.85, 0.99)] == [0.1, 0.1, 0.4, 0.4, 0.7, 0.7]


def test_probability_rises_and_stays_between_zero_and_one() -> None:
    values = make((0.5,), (0.1,)).probability(np.array([-1e9, -1, 0, 1, 1e9]))
    assert (np.diff(values) >= 0).all()
    assert values.min() >= 0
    assert values.max() <= 1


def test_an_unknown_encoder_has_no_calibration() -> None:
    assert calibration.load("no such encoder") is None


def test_the_stand_in_comes_with_its_calibration() -> None:
    curve = calibration.load("conse-efficientnet_lite0-minilm_l6-classes-T0.03-v1")
    assert curve is not None
    assert 0.5 < curve.auc <= 1
    assert curve.slope > 0
    assert curve.present > 50
    assert curve.absent > 100
