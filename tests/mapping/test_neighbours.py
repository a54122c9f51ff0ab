# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Neighbour graphs: exactly those of a search through all pairs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from seg3d_core.errors import Seg3DError
from seg3d_core.mapping.neighbours import Neighbours, map_neighbours, nearest_neighbours, usual_spacing


def of_all_pairs(xyz: np.ndarray, spacing: float, count: int, reach: float) -> list[set[int]]:
    """The slow twin of `nearest_neighbours`."""
    xyz = xyz.astype(np.float32)
    out: list[set[int]] = [set() for _ in xyz]
    for i, p in enumerate(xyz):
        d = ((xyz - p)[:, 0] ** 2 + (xyz - p)[:, 1] ** 2) + (xyz - p)[:, 2] ** 2
        near = [j for j in np.argsort(d, kind="stable") if j != i and d[j] <= np.float32((reach * spacing) ** 2)]
        for j in near[:count]:
            out[i].add(int(j))
            out[int(j)].add(i)
    return out


def as_sets(graph: Neighbours) -> list[set[int]]:
    rows = [graph.indices[graph.indptr[i] : graph.indptr[i + 1]] for i in range(len(graph))]
    assert all((np.diff(row) > 0).all() for row in rows)
    return [set(row.tolist()) for row in rows]


@settings(max_examples=60, deadline=None)
@given(
    points=st.lists(st.tuples(*[st.integers(-6, 6)] * 3), min_size=2, max_size=60),
    count=st.integers(1, 10),
    reach=st.sampled_from([1.0, 1.5, 3.0]),
    jitter=st.sampled_from([0.0, 0.3]),
)
def test_it_is_the_search_through_all_pairs(points, count, reach, jitter) -> None:
    xyz = np.array(points, np.float32) + jitter * np.random.default_rng(0).random((len(points), 3), np.float32)
    xyz *= np.float32(0.02)
    graph = nearest_neighbours(xyz, 0.02, count, reach)
    assert as_sets(graph) == of_all_pairs(xyz, 0.02, count, reach)


def test_many_points_of_a_surface_agree_with_all_pairs() -> None:
    random = np.random.default_rng(3)
    xyz = random.uniform(-1, 1, (1500, 3)) * (1, 1, 0.02) + 100
    spacing = usual_spacing(xyz)
    assert as_sets(nearest_neighbours(xyz)) == of_all_pairs(xyz, spacing, 8, 3.0)


def test_the_spacing_is_that_of_the_grid_even_with_points_given_twice() -> None:
    x, y = np.meshgrid(np.arange(30), np.arange(30))
    xyz = np.stack([x.ravel(), y.ravel(), 0 * x.ravel()], axis=1) * 0.05
    assert usual_spacing(np.concatenate([xyz, xyz])) == pytest.approx(0.05)


def test_a_densely_seen_wall_beside_a_voxel_face_hangs_together() -> None:
    """Its points lie in pairs on either side of the face, much closer than voxels are apart."""
    random = np.random.default_rng(0)
    wall = random.uniform(0, 2, (3, 200_000))
    wall[2] = random.normal(0, 0.001, 200_000)
    cells, of_point = np.unique(np.floor(wall.T / 0.02).astype(int), axis=0, return_inverse=True)
    counts = np.bincount(of_point.ravel())
    xyz = np.stack([np.bincount(of_point.ravel(), axis) / counts for axis in wall], axis=1)
    assert len(cells) == len(xyz) and usual_spacing(xyz) < 0.004

    def parts(graph: Neighbours) -> int:
        return connected_components(csr_array((np.ones(len(graph.indices)), graph.indices, graph.indptr)))[0]

    assert parts(map_neighbours(xyz)) < 5 < 500 < parts(nearest_neighbours(xyz))


@pytest.mark.parametrize("xyz", [np.zeros((0, 3)), np.zeros((1, 3)), np.ones((5, 3))])
def test_a_map_of_one_place_has_a_graph(xyz) -> None:
    assert len(map_neighbours(xyz)) == len(xyz)


@pytest.mark.parametrize("count", [0, 1])
def test_a_cloud_of_no_pair_has_no_edges(count) -> None:
    graph = nearest_neighbours(np.zeros((count, 3)))
    assert len(graph) == count and len(graph.indices) == 0


@pytest.mark.parametrize(
    ("xyz", "spacing", "says"),
    [
        (np.zeros((5, 3)), None, "one place"),
        (np.array([[0, 0, np.nan], [0, 0, 0]]), None, "NaN"),
        (np.zeros((5, 2)), None, "(5, 2)"),
        (np.eye(3), 0.0, "above 0"),
        (np.array([[0, 0, 0], [0, 0, 1e6]]), 0.01, "wide"),
    ],
)
def test_what_has_no_neighbours_is_said(xyz, spacing, says) -> None:
    with pytest.raises(Seg3DError) as error:
        nearest_neighbours(xyz, spacing)
    assert says in str(error.value)


def test_too_many_neighbours_are_refused() -> None:
    with pytest.raises(Seg3DError, match="65"):
        nearest_neighbours(np.eye(3), 1.0, 65)
