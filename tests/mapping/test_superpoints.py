# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Superpoints: against literal twins, ScanNet's own segments, and surfaces whose parts are known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from seg3d_core.errors import Seg3DError
from seg3d_core.mapping.neighbours import Neighbours, nearest_neighbours
from seg3d_core.mapping.superpoints import (
    LEVELS,
    Unlikeness,
    mesh_superpoints,
    superpoints,
    surface_components,
)
from seg3d_core.types import Cloud

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "segdino3d"
SPACING = 0.02
GREY = (128, 128, 128)


def plate(origin, along, across, normal, colour=GREY, side=12) -> tuple[np.ndarray, ...]:
    """Points of a square grid, its normals and colours."""
    i, j = (axis.ravel()[:, None] for axis in np.meshgrid(np.arange(side), np.arange(side)))
    xyz = np.asarray(origin) + SPACING * (i * np.asarray(along) + j * np.asarray(across))
    return xyz, np.tile(np.asarray(normal, float), (len(xyz), 1)), np.tile(colour, (len(xyz), 1))


def cloud_of(*plates) -> Cloud:
    xyz, normals, rgb = (np.concatenate(parts) for parts in zip(*plates, strict=True))
    ids = np.arange(1, len(xyz) + 1)
    weight = np.ones(len(xyz), np.float32)
    return Cloud(ids, xyz.astype(np.float32), rgb.astype(np.uint8), normals.astype(np.float32), weight)


X, Y, Z = np.eye(3)
FLOOR = plate((0, 0, 0), X, Y, Z)
WALL = plate((0, -SPACING, SPACING), X, Z, Y)  # concave with the floor
FRONT = plate((0, -SPACING, -SPACING), X, -Z, -Y)  # convex with the floor
SHELF = plate((12 * SPACING, 0, 1.2 * SPACING), X, Y, Z)  # a step beside the floor
PAINT = plate((12 * SPACING, 0, 0), X, Y, Z, (250, 20, 20))


def graph_of(cloud: Cloud) -> Neighbours:
    return nearest_neighbours(cloud.xyz, SPACING)


def literal_superpoints(cloud: Cloud, graph: Neighbours, threshold: float, min_points: int, u: Unlikeness):
    """The docstrings of `Unlikeness` and `superpoints`, sentence by sentence."""
    edges = []
    for p in range(len(cloud)):
        for q in graph.indices[graph.indptr[p] : graph.indptr[p + 1]]:
            if p < q:
                edges.append((literal_weight(cloud, p, int(q), u), p, int(q)))
    edges.sort(key=lambda edge: edge[0])
    part = list(range(len(cloud)))
    members = {i: [i] for i in part}
    heaviest = dict.fromkeys(part, 0.0)

    def join(a: int, b: int) -> None:
        for i in members[b]:
            part[i] = a
        members[a] += members.pop(b)

    def allowed(a: int, w: float) -> bool:
        return w <= heaviest[a] + np.float32(threshold) / np.float32(len(members[a])) + 1e-9

    for w, p, q in edges:
        a, b = part[p], part[q]
        if a != b and allowed(a, w) and allowed(b, w):
            join(a, b)
            heaviest[a] = w
    for _, p, q in edges:
        a, b = part[p], part[q]
        if a != b and min(len(members[a]), len(members[b])) < min_points:
            join(a, b)
    return renumbered(part)


def literal_weight(cloud: Cloud, p: int, q: int, u: Unlikeness) -> float:
    difference = cloud.rgb[p].astype(float) - cloud.rgb[q]
    weight = u.colour * min(1.0, (difference @ difference) / u.contrast**2)
    n_p, n_q = cloud.normals[p], cloud.normals[q]
    if n_p.any() and n_q.any():
        v = cloud.xyz[q] - cloud.xyz[p]
        v = v / np.linalg.norm(v)
        weight += (1 - n_p @ n_q) * (u.convex if v @ n_q > v @ n_p else 1)
        weight += u.step * min(abs(v @ n_p), abs(v @ n_q)) ** 2 * max(0.0, n_p @ n_q)
    return float(np.floor(min(weight, 1.0) * (LEVELS - 1) + 1e-4) / (LEVELS - 1))


def renumbered(labels) -> np.ndarray:
    first: dict[int, int] = {}
    return np.array([first.setdefault(int(label), len(first)) for label in labels])


def rough_cloud(seed: int, count: int = 300) -> Cloud:
    random = np.random.default_rng(seed)
    xyz = random.uniform(0, 0.3, (count, 3)) * (1, 1, 0.1)
    normals = random.normal(size=(count, 3)) * 0.3 + (0, 0, 1)
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    normals[random.random(count) < 0.1] = 0
    return cloud_of((xyz, normals, random.integers(100, 140, (count, 3))))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("threshold", "min_points"), [(0.07, 1), (0.3, 1), (0.1, 8)])
def test_parts_are_those_of_the_literal_twin(seed, threshold, min_points) -> None:
    cloud = rough_cloud(seed)
    graph = graph_of(cloud)
    expected = literal_superpoints(cloud, graph, threshold, min_points, Unlikeness())
    found = superpoints(cloud, graph, threshold, min_points)
    assert found.dtype == np.int32
    assert 1 < expected.max() < len(cloud) - 1
    # A weight may fall on the other side of a rounding step in float32.
    assert (found == expected).mean() > 0.98


@pytest.mark.parametrize(
    ("plates", "parts"),
    [((FLOOR,), 1), ((FLOOR, WALL), 2), ((FLOOR, SHELF), 2), ((FLOOR, PAINT), 2), ((FLOOR, WALL, SHELF, PAINT), 4)],
)
def test_folds_steps_and_paint_make_parts(plates, parts) -> None:
    cloud = cloud_of(*plates)
    expected = np.repeat(np.arange(parts), len(FLOOR[0]))
    if parts == 4:
        cloud = cloud_of(FLOOR, WALL, SHELF, plate((0, 12 * SPACING, 0), X, Y, Z, (250, 20, 20)))
    assert np.array_equal(superpoints(cloud, graph_of(cloud)), expected)


def test_a_larger_threshold_makes_larger_parts_and_none_is_too_small() -> None:
    cloud = rough_cloud(1, 2000)
    graph = graph_of(cloud)
    counts = [superpoints(cloud, graph, threshold, 10).max() for threshold in (0.01, 0.1, 1.0, 10.0)]
    assert counts == sorted(counts, reverse=True) and counts[0] > counts[-1]
    assert np.bincount(superpoints(cloud, graph, 0.01, 10)).min() >= 10


def test_without_normals_colour_decides() -> None:
    cloud = cloud_of(*((xyz, 0 * normals, rgb) for xyz, normals, rgb in (FLOOR, WALL, PAINT)))
    expected = np.repeat([0, 0, 1], len(FLOOR[0]))
    assert np.array_equal(superpoints(cloud, graph_of(cloud)), expected)


@pytest.mark.parametrize(
    ("plates", "parts"),
    [((FLOOR, WALL), [0, 1]), ((FLOOR, FRONT), [0, 0]), ((FLOOR, SHELF), [0, 1]), ((FLOOR, PAINT), [0, 0])],
)
def test_the_surface_ends_at_concave_folds_and_steps(plates, parts) -> None:
    cloud = cloud_of(*plates)
    assert np.array_equal(surface_components(cloud, graph_of(cloud)), np.repeat(parts, len(FLOOR[0])))


def test_labels_cut_the_surface_too() -> None:
    cloud = cloud_of(FLOOR)
    labels = (cloud.xyz[:, 0] > 0.1).astype(int) * 7 + (cloud.xyz[:, 0] > 0.2)
    assert np.array_equal(surface_components(cloud, graph_of(cloud), labels), renumbered(labels))


@pytest.mark.parametrize("seed", range(4))
def test_components_are_those_of_scipy(seed) -> None:
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    cloud = rough_cloud(seed, 800)
    graph = graph_of(cloud)
    p = np.repeat(np.arange(len(cloud)), np.diff(graph.indptr))
    q = graph.indices
    v = cloud.xyz[q] - cloud.xyz[p]
    v /= np.linalg.norm(v, axis=1, keepdims=True)
    n_p, n_q = cloud.normals[p], cloud.normals[q]
    known = n_p.any(axis=1) & n_q.any(axis=1)
    folded = known & ((n_p * n_q).sum(axis=1) < np.cos(np.deg2rad(25)))
    convex = ((n_q - n_p) * v).sum(axis=1) > 0.1
    step = np.maximum(np.abs((v * n_p).sum(axis=1)), np.abs((v * n_q).sum(axis=1))) > 0.35
    kept = np.where(folded, convex, ~(known & step))
    matrix = coo_matrix((np.ones(kept.sum()), (p[kept], q[kept])), shape=(len(cloud),) * 2)
    expected = renumbered(connected_components(matrix, directed=False)[1])
    found = surface_components(cloud, graph)
    assert np.array_equal(found, expected) and found.max() > 1


def test_an_empty_cloud_and_a_single_point() -> None:
    for count in (0, 1):
        cloud = cloud_of(tuple(part[:count] for part in FLOOR))
        assert np.array_equal(superpoints(cloud, graph_of(cloud)), np.zeros(count))
        assert np.array_equal(surface_components(cloud, graph_of(cloud)), np.zeros(count))


def test_a_graph_or_labels_of_another_cloud_are_refused() -> None:
    cloud, other = cloud_of(FLOOR), cloud_of(FLOOR, WALL)
    with pytest.raises(Seg3DError, match="288"):
        superpoints(cloud, graph_of(other))
    with pytest.raises(Seg3DError, match="labels"):
        surface_components(cloud, graph_of(cloud), np.zeros(3))


def test_scannets_segments_of_a_mesh_are_met_exactly() -> None:
    with np.load(GOLDEN / "k_superpoints.npz") as golden:
        for threshold, smallest in ((0.01, 20), (0.05, 20), (0.01, 5)):
            found = mesh_superpoints(golden["vertices"], golden["faces"], threshold, smallest)
            assert np.array_equal(found, golden[f"segments_k{threshold}_min{smallest}"])


def test_a_mesh_of_one_fold_has_two_parts_and_wrong_faces_are_refused() -> None:
    side = 8
    i, j = np.meshgrid(np.arange(2 * side), np.arange(side), indexing="ij")
    height = np.maximum(i - side, 0) * 0.1
    vertices = np.stack([np.minimum(i, side) * 0.1, j * 0.1, height], axis=-1).reshape(-1, 3)
    a = (i[:-1, :-1] * side + j[:-1, :-1]).ravel()
    faces = np.concatenate([np.stack([a, a + side, a + 1], 1), np.stack([a + 1, a + side, a + side + 1], 1)])
    parts = mesh_superpoints(vertices, faces, min_vertices=5)
    assert parts[0] != parts[-1] and len(np.unique(parts[: (side - 1) * side])) == 1
    with pytest.raises(Seg3DError, match="vertices"):
        mesh_superpoints(vertices, faces + 10)
    assert np.array_equal(mesh_superpoints(vertices[:3], np.empty((0, 3), int)), [0, 1, 2])
