# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Random changes of a training scene, drawn in the published order (SegDINO3D, release; numbers of `RandomState`).

The order: query dropout, mirror x, mirror y, turn, scale, shift, elastic. `numpy.random.seed(n)` and
`RandomState(n)` draw the same numbers.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage

from seg3d_core.types import Array

from .data_config import AugmentConfig


@dataclass(frozen=True, eq=False)
class Sample:
    """Points xyz and 2D query positions float32 (n, 3) in metres; `warped` float32 (N, 3), in voxel units, are the
    elastically moved points, which stand beside the points and never replace them."""

    xyz: Array
    query_positions: Array
    warped: Array | None = None


def drop_queries(count: int, rate: float, random: np.random.RandomState) -> Array:
    """Which of `count` 2D object queries stay, int64 (int(count (1 - rate)),), in the order drawn."""
    return random.choice(count, int(count * (1 - rate)), replace=False)


def augment(sample: Sample, random: np.random.RandomState, config: AugmentConfig, voxel_size: float) -> Sample:
    """All changes; without any (`enabled` off) `warped` is the points in voxel units."""
    if not config.enabled:
        return replace(sample, warped=sample.xyz / np.float32(voxel_size))
    for axis in (0, 1):
        sample = flip(sample, axis, random, config.flip_probability)
    sample = rotate(sample, random, config.rotation)
    sample = rescale(sample, random, config.scale)
    sample = translate(sample, random, config.translation)
    return elastic(sample, random, config, voxel_size)


def flip(sample: Sample, axis: int, random: np.random.RandomState, probability: float) -> Sample:
    if random.rand() >= probability:
        return sample
    sign = np.ones(3, np.float32)
    sign[axis] = -1
    return replace(sample, xyz=sample.xyz * sign, query_positions=sample.query_positions * sign)


def rotate(sample: Sample, random: np.random.RandomState, limit: float) -> Sample:
    """Counter-clockwise about z by an angle from -limit to limit, in radians."""
    angle = np.float32(random.uniform(-limit, limit))
    cos, sin = np.cos(angle), np.sin(angle)
    return replace(sample, xyz=_turned(sample.xyz, cos, sin), query_positions=_turned(sample.query_positions, cos, sin))


def _turned(points: Array, cos: np.float32, sin: np.float32) -> Array:
    x, y, z = points.T
    return np.stack([x * cos - y * sin, x * sin + y * cos, z], axis=1)


def rescale(sample: Sample, random: np.random.RandomState, limits: tuple[float, float]) -> Sample:
    factor = np.float32(random.uniform(*limits))
    return replace(sample, xyz=sample.xyz * factor, query_positions=sample.query_positions * factor)


def translate(sample: Sample, random: np.random.RandomState, deviation: float) -> Sample:
    shift = random.normal(scale=(deviation,) * 3, size=3).astype(np.float32)
    return replace(sample, xyz=sample.xyz + shift, query_positions=sample.query_positions + shift)


def elastic(sample: Sample, random: np.random.RandomState, config: AugmentConfig, voxel_size: float) -> Sample:
    """Moves points along smooth noise, once per granularity; each stage sees the result of the one before."""
    moved = sample.xyz / np.float32(voxel_size)
    if random.rand() < config.elastic_probability:
        for granularity, magnitude in zip(config.elastic_granularity, config.elastic_magnitude, strict=True):
            moved = moved + _smooth_noise(moved, granularity, random) * magnitude
    return replace(sample, warped=moved.astype(np.float32))


def _smooth_noise(points: Array, granularity: int, random: np.random.RandomState) -> Array:
    """Noise float64 (N, 3) at points in voxel units, of a blurred grid whose nodes lie 2 x granularity apart."""
    dims = np.abs(points).max(axis=0).astype(np.int32) // granularity + 3
    nodes = ((points + (dims - 1) * granularity) / (2.0 * granularity)).T
    grids = [random.randn(*dims).astype(np.float32) for _ in range(3)]
    noise = [ndimage.map_coordinates(_blurred(grid), nodes, np.float64, order=1, mode="constant") for grid in grids]
    return np.stack(noise, axis=1)


def _blurred(grid: Array) -> Array:
    """By a box of three nodes along x, y, z, twice; outside of the grid is zero."""
    box = np.full(3, 1 / 3, np.float32)
    for axis in (0, 1, 2, 0, 1, 2):
        grid = ndimage.convolve1d(grid, box, axis, mode="constant")
    return grid
