# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Fast kernels beside literal twins of the formulas they implement."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from seg3d_core.perception import geometric_kernels as kernels
from seg3d_core.perception import region_kernels as regions

INTRINSICS = (30.0, 31.0, 11.3, 8.7)
SHAPE = (18, 24)


def scene(seed: int) -> np.ndarray:
    """A small depth image of a few slanted planes with steps, noise and holes."""
    rng = np.random.default_rng(seed)
    u, v = np.meshgrid(np.arange(SHAPE[1]), np.arange(SHAPE[0]))
    depth = np.full(SHAPE, 3.0)
    for _ in range(3):
        a, b = rng.uniform(-0.006, 0.006, 2)
        plane = 1 / (rng.uniform(0.3, 0.9) + a * (u - 12) + b * (v - 9))
        inside = (u > rng.integers(0, 12)) & (v > rng.integers(0, 9)) & (u < rng.integers(14, 24))
        depth = np.where(inside & (plane > 0.2), plane, depth)
    depth += rng.normal(0, 0.002, SHAPE)
    depth[rng.random(SHAPE) < 0.08] = 0
    return depth.astype(np.float32)


def disparity_of(depth: np.ndarray) -> np.ndarray:
    return np.where(depth > 0, 1 / np.maximum(depth, 1e-6), 0).astype(np.float32)


def fast_fit(disparity: np.ndarray, r: int) -> tuple[np.ndarray, ...]:
    out = tuple(np.empty(disparity.shape, np.float32) for _ in range(5))
    kernels.fit_planes(disparity, r, *out)
    return out


def fast_surfaces(depth: np.ndarray, r: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    disparity = disparity_of(depth)
    z, noise, normals = np.empty(SHAPE, np.float32), np.empty(SHAPE, np.float32), np.empty((*SHAPE, 3), np.float32)
    kernels.best_windows(disparity, *fast_fit(disparity, r), r, INTRINSICS, z, normals, noise)
    return z, normals, noise


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("r", [2, 3])
def test_plane_fit_is_least_squares_in_each_window(seed: int, r: int):
    disparity = disparity_of(scene(seed))
    a, b, c, relative, rms = fast_fit(disparity, r)
    for v in range(SHAPE[0]):
        for u in range(SHAPE[1]):
            rows, columns = np.mgrid[max(0, v - r) : v + r + 1, max(0, u - r) : u + r + 1]
            inside = (rows < SHAPE[0]) & (columns < SHAPE[1])
            rows, columns = rows[inside], columns[inside]
            valid = disparity[rows, columns] > 0
            if valid.sum() < kernels.MIN_FILL * (2 * r + 1) ** 2:
                assert rms[v, u] == relative[v, u] == kernels.WORST_FIT
                continue
            d = disparity[rows, columns][valid].astype(float)
            system = np.stack([columns[valid] - u, rows[valid] - v, np.ones(len(d))], 1)
            solution = np.linalg.lstsq(system, d, rcond=None)[0]
            error = np.sqrt(np.mean((system @ solution - d) ** 2))
            np.testing.assert_allclose((a[v, u], b[v, u], c[v, u]), solution, atol=2e-6)
            np.testing.assert_allclose(rms[v, u], error, atol=2e-6)
            np.testing.assert_allclose(relative[v, u], error / max(solution[2], 1e-3), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_best_window_is_the_literal_one(seed: int):
    r, depth = 2, scene(seed)
    disparity = disparity_of(depth)
    a, b, c, relative, rms = fast_fit(disparity, r)
    z, normals, noise = fast_surfaces(depth, r)
    fx, fy, cx, cy = INTRINSICS
    for v in range(SHAPE[0]):
        for u in range(SHAPE[1]):
            options = []
            for dv in (0, -r, r):
                for du in (0, -r, r):
                    y, x = v + dv, u + du
                    if disparity[v, u] == 0 or not (0 <= y < SHAPE[0] and 0 <= x < SHAPE[1]):
                        continue
                    error = relative[y, x]
                    error = error if du == dv == 0 else error * np.float32(1.05) + np.float32(1e-6)
                    here = c[y, x] - a[y, x] * du - b[y, x] * dv
                    near = abs(here - disparity[v, u]) < (0.03 + 3 * min(error, 1)) * disparity[v, u]
                    if near and error < kernels.WORST_FIT:
                        options.append((error, len(options), here, y, x))
            if not options or min(options)[2] <= 1e-3:
                assert z[v, u] == 0
                continue
            _, _, here, y, x = min(options)
            n = np.array([a[y, x] * fx, b[y, x] * fy, here - a[y, x] * (u - cx) - b[y, x] * (v - cy)])
            np.testing.assert_allclose(z[v, u], 1 / here, rtol=1e-5)
            np.testing.assert_allclose(normals[v, u], -n / np.linalg.norm(n), atol=1e-5)
            assert noise[v, u] == rms[y, x]


def points_of(z: np.ndarray) -> np.ndarray:
    fx, fy, cx, cy = INTRINSICS
    u, v = np.meshgrid(np.arange(SHAPE[1]), np.arange(SHAPE[0]))
    return np.stack([(u - cx) / fx * z, (v - cy) / fy * z, z], -1).astype(float)


@pytest.mark.parametrize("seed", range(4))
def test_edges_are_the_literal_ones(seed: int):
    z, normals, _ = fast_surfaces(scene(seed), 2)
    gap_step, fold_step, gap, quadratic, cosine, fold = 1, 2, 0.005, 0.003, math.cos(0.4), 0.6
    free = np.empty(SHAPE, np.uint8)
    kernels.find_edges(z, normals, INTRINSICS, gap_step, fold_step, gap, quadratic, cosine, fold, free)
    p = points_of(z)
    expected = z > 0
    for v in range(SHAPE[0]):
        for u in range(SHAPE[1]):
            for reach in (gap_step, fold_step):
                for dv, du in ((0, reach), (0, -reach), (reach, 0), (-reach, 0)):
                    y, x = v + dv, u + du
                    if not (0 <= y < SHAPE[0] and 0 <= x < SHAPE[1]) or z[v, u] == 0 or z[y, x] == 0:
                        continue
                    d, e = (p[y, x] - p[v, u]) @ normals[v, u], (p[v, u] - p[y, x]) @ normals[y, x]
                    limit = gap + quadratic * z[v, u] ** 2
                    if reach == gap_step and min(abs(d), abs(e)) > limit:
                        expected[v, u] = False
                    folded = normals[v, u] @ normals[y, x] < cosine and max(abs(d), abs(e)) < 0.05 + 4 * limit
                    if reach == fold_step and folded and d + e > fold * reach * max(z[v, u], 0.3) / INTRINSICS[0]:
                        expected[v, u] = False
    assert 0 < expected.sum() < expected.size
    assert np.mean(free.astype(bool) != expected) <= 0.005, "float order may move a pixel that sits on a limit"


def rings(depth: np.ndarray, z: np.ndarray, labels: np.ndarray, rounds: int) -> np.ndarray:
    """Ring by ring over whole images, as the formulas say it."""
    labels = labels.copy()
    for _ in range(rounds):
        best, won = (0.02 + 0.02 * depth).astype(float), labels.copy()
        for axis, shift in ((1, -1), (1, 1), (0, -1), (0, 1)):
            other, depth_there = np.roll(labels, shift, axis), np.roll(z, shift, axis)
            edge = [slice(None), slice(None)]
            edge[axis] = slice(-1, None) if shift == -1 else slice(0, 1)
            other[tuple(edge)] = 0
            error = np.abs(depth_there - depth)
            wins = (labels == 0) & (depth > 0) & (other > 0) & (error < best)
            best[wins], won[wins] = error[wins], other[wins]
        labels = won
    return labels


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32 - 1), st.integers(0, 6))
def test_giving_back_is_ring_by_ring(seed: int, rounds: int):
    rng = np.random.default_rng(seed)
    depth = (1 + rng.integers(0, 6, SHAPE) * 0.015).astype(np.float32)
    depth[rng.random(SHAPE) < 0.1] = 0
    labels = np.where(rng.random(SHAPE) < 0.1, rng.integers(1, 5, SHAPE), 0).astype(np.int32)
    labels[depth == 0] = 0
    expected = rings(depth, depth, labels, rounds)
    regions.give_back(depth, depth, labels, rounds)
    assert np.array_equal(labels, expected)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32 - 1), st.integers(1, 8))
def test_leftovers_are_the_connected_pieces(seed: int, least: int):
    rng = np.random.default_rng(seed)
    depth = np.where(rng.random(SHAPE) < 0.6, 1.0, 0).astype(np.float32)
    labels = np.where((rng.random(SHAPE) < 0.3) & (depth > 0), 1, 0).astype(np.int32)
    before = labels.copy()
    pieces, count = ndimage.label((labels == 0) & (depth > 0))
    sizes = np.bincount(pieces.ravel(), minlength=count + 1)
    kept = [k for k in range(1, count + 1) if sizes[k] >= least]
    last = regions.label_leftovers(depth, labels, 1, least, 1000)
    assert last == 1 + len(kept)
    expected = before.copy()
    for number, k in enumerate(kept):
        expected[pieces == k] = number + 2
    assert np.array_equal(labels, expected)


@pytest.mark.parametrize("seed", range(3))
def test_boundary_evidence_is_the_literal_sum(seed: int):
    z, normals, _ = fast_surfaces(scene(seed), 2)
    labels = ndimage.zoom(np.random.default_rng(seed).integers(0, 5, (3, 4)), 6, order=0).astype(np.int32)
    back, gap, quadratic, fold = 2, 0.005, 0.003, 0.6
    evidence = np.zeros((4, 5, 5))
    regions.boundary_evidence(labels, z, normals, INTRINSICS, back, gap, quadratic, fold, evidence)
    expected, p = np.zeros((4, 5, 5)), points_of(z)

    def end(v: int, u: int, dv: int, du: int) -> tuple[int, int, int] | None:
        for k in range(back, -1, -1):
            y, x = v + dv * k, u + du * k
            inside = 0 <= y < SHAPE[0] and 0 <= x < SHAPE[1]
            if inside and labels[y, x] == labels[v, u] and z[y, x] > 0:
                return y, x, k
        return None

    for v in range(SHAPE[0]):
        for u in range(SHAPE[1]):
            for dv, du in ((0, 1), (1, 0)):
                y, x = v + dv, u + du
                if y >= SHAPE[0] or x >= SHAPE[1] or labels[v, u] == labels[y, x] or 0 in (labels[v, u], labels[y, x]):
                    continue
                one, two = end(v, u, -dv, -du), end(y, x, dv, du)
                if one is None or two is None:
                    continue
                a, b = one[:2], two[:2]
                d, e = (p[b] - p[a]) @ normals[a], (p[a] - p[b]) @ normals[b]
                depth = (z[a] + z[b]) / 2
                jump = min(abs(d), abs(e)) / (gap + quadratic * depth**2)
                bend = (d + e) * INTRINSICS[0] / ((one[2] + two[2] + 1) * depth)
                row = [1, min(jump, 4), np.clip(bend, -2, 2), float(jump > 1 or bend > fold)]
                for i, j in ((labels[v, u], labels[y, x]), (labels[y, x], labels[v, u])):
                    expected[:, i, j] += row
    np.testing.assert_allclose(evidence, expected, atol=1e-2)
    assert np.array_equal(evidence[0], expected[0])


def merge_literally(evidence: np.ndarray, least: int, limits: tuple[float, float, float]) -> list[set[int]]:
    """Joins the pair of groups with the lowest score until none is below 1, every sum taken anew."""
    groups = [{k} for k in range(1, evidence.shape[1])]
    while True:
        best = (1.0, -1, -1)
        for i, one in enumerate(groups):
            for j in range(i + 1, len(groups)):
                sums = sum(evidence[:, a, b] for a in one for b in groups[j])
                if sums[0] >= least:
                    score = max(sums[1] / limits[0], sums[2] / limits[1], sums[3] / limits[2]) / sums[0]
                    best = min(best, (score, i, j))
        if best[1] < 0:
            return groups
        groups[best[1]] |= groups.pop(best[2])


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32 - 1))
def test_merging_joins_the_flattest_boundary_first(seed: int):
    rng = np.random.default_rng(seed)
    count = 9
    pairs = np.triu(rng.integers(0, 12, (count, count)) * (rng.random((count, count)) < 0.5), 1).astype(float)
    evidence = pairs * np.stack([np.ones((count, count)), *rng.uniform(0, 2, (3, count, count))])
    evidence = evidence + evidence.transpose(0, 2, 1)
    evidence[:, 0] = evidence[:, :, 0] = 0
    groups = merge_literally(evidence, 4, (1.0, 0.9, 0.8))
    target = regions.merge_regions(evidence.copy(), 4, 1.0, 0.9, 0.8)
    found = [set(np.flatnonzero(target == k).tolist()) for k in np.unique(target[1:])]
    assert sorted(map(sorted, found)) == sorted(map(sorted, groups))
    assert target[0] == 0
