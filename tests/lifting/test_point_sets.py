# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Medoids and farthest points: exactly those of a search through all pairs."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seg3d_core.errors import Seg3DError
from seg3d_core.lifting.point_sets import BUCKET, farthest_points, group_medoids, medoid

GRID = st.lists(st.tuples(*[st.integers(-4, 4)] * 3), min_size=1, max_size=150)


def literal_medoid(points: np.ndarray) -> int:
    """The first of the points whose sums are the smallest but for rounding."""
    sums = np.array([np.linalg.norm(points - p, axis=1).sum() for p in points])
    return int(np.flatnonzero(sums <= sums.min() * (1 + 1e-12))[0])


def literal_farthest(points: np.ndarray, count: int) -> np.ndarray:
    nearest = np.full(len(points), np.inf)
    out = [0]
    while len(out) < min(count, len(points)):
        offsets = points - points[out[-1]]
        nearest = np.minimum(nearest, offsets[:, 0] ** 2 + offsets[:, 1] ** 2 + offsets[:, 2] ** 2)
        nearest[out] = -1
        out.append(int(nearest.argmax()))
    return np.array(out)


@settings(max_examples=150, deadline=None)
@given(GRID, st.booleans())
def test_the_medoid_is_that_of_all_pairs(points, jittered) -> None:
    xyz = np.array(points, float) + jittered * np.random.default_rng(0).normal(size=(len(points), 3))
    assert medoid(xyz) == literal_medoid(xyz)


SHAPES = {
    "cloud": lambda r: r.normal(size=(1200, 3)),
    "plate": lambda r: r.uniform(size=(1200, 3)) * (1, 1, 1e-3),
    "line": lambda r: r.uniform(size=(1200, 3)) * (1, 0, 0),
    "two clusters": lambda r: r.normal(size=(1200, 3)) * 0.1 + (np.arange(1200) % 2)[:, None] * 5,
    "sphere": lambda r: (lambda q: q / np.linalg.norm(q, axis=1, keepdims=True))(r.normal(size=(1200, 3))),
    "far outliers": lambda r: r.standard_cauchy(size=(1200, 3)),
    "far from the origin": lambda r: r.uniform(size=(1200, 3)) + 1e4,
}


@pytest.mark.parametrize("name", SHAPES)
def test_the_medoid_of_any_shape_is_that_of_all_pairs(name) -> None:
    points = SHAPES[name](np.random.default_rng(1))
    assert medoid(points) == literal_medoid(points)


def test_among_equals_the_first_is_the_medoid() -> None:
    assert medoid(np.ones((500, 3))) == 0


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(-60, 60), min_size=2, max_size=40, unique=True))
def test_on_a_line_the_first_of_the_two_in_the_middle_is_the_medoid(places) -> None:
    """Their sums are equal, though one of them may be much nearer to the mean."""
    xyz = np.zeros((len(places), 3))
    # Far outliers take the mean to one side.
    xyz[:, 0] = [place + 1000 * (place > 50) for place in places]
    order = np.argsort(xyz[:, 0])
    middle = order[(len(places) - 1) // 2 : len(places) // 2 + 1]
    assert medoid(xyz) == middle.min()
    assert medoid(np.array([[9.0, 0, 0], [1, 0, 0], [1, 0, 0], [0, 0, 0]])) == 1


def test_groups_have_their_own_medoids() -> None:
    points = np.random.default_rng(2).normal(size=(90, 3))
    starts = np.array([0, 1, 40, 90])
    expected = [a + medoid(points[a:b]) for a, b in pairwise(starts)]
    assert group_medoids(points, starts).tolist() == expected


@settings(max_examples=60, deadline=None)
@given(GRID, st.integers(1, 200), st.booleans())
def test_farthest_points_are_those_of_the_literal_twin(points, count, jittered) -> None:
    xyz = np.array(points, float) + jittered * np.random.default_rng(0).normal(size=(len(points), 3))
    assert np.array_equal(farthest_points(xyz, count), literal_farthest(xyz, count))


@pytest.mark.parametrize("n", [BUCKET, 3 * BUCKET + 1, 5000])
def test_many_buckets_change_nothing(n) -> None:
    points = np.random.default_rng(3).uniform(size=(n, 3)) * (10, 6, 2.5)
    assert np.array_equal(farthest_points(points, 300), literal_farthest(points, 300))


def test_no_point_and_no_count_give_none() -> None:
    assert len(farthest_points(np.empty((0, 3)), 5)) == len(farthest_points(np.ones((5, 3)), 0)) == 0


@pytest.mark.parametrize("points", [np.empty((0, 3)), np.ones((4, 2)), np.full((3, 3), np.nan)])
def test_what_has_no_medoid_is_said(points) -> None:
    with pytest.raises(Seg3DError, match=r"shape|NaN"):
        medoid(points)


def test_farthest_points_refuse_infinity() -> None:
    with pytest.raises(Seg3DError, match="infinite"):
        farthest_points(np.array([[0, 0, np.inf]]), 1)
