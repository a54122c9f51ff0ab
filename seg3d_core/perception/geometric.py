# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Masks from depth and, where it helps, colour: no weights.

Surfaces end where depth jumps and where they fold towards the camera; convex pieces stay whole. Planes are fitted
to inverse depth, in which a plane is affine and structured-light noise is constant over the image, so the fit's
residual is the noise that the limits follow.
"""

from __future__ import annotations

import math

import numpy as np

from ..config import PerceptionConfig
from ..types import Array, Frame, Masks2D
from . import geometric_kernels as kernels
from . import region_kernels as regions
from .colour_regions import join_by_colour, split_by_colour
from .label_cleanup import largest_pieces
from .pixels import in_colour

NEAREST, FARTHEST = 0.1, 12.0
"""Depth outside these is no surface, metres."""

# How far noise raises the gap limits, per 1/m of residual: white noise of a structured-light camera at 320 pixels
# asks for about 10 mm + 5 mm/m^2 where a noise-free image is best with 5 and 3.
_GAP_PER_NOISE, _QUADRATIC_PER_NOISE = 1.2, 0.5

# A boundary between two regions stays when any of these means over it is exceeded.
_MERGE_JUMP, _MERGE_FOLD, _MERGE_CUT_SHARE, _MERGE_LEAST_PAIRS = 1.0, 0.4, 0.4, 4
# Across a boundary, farther from the edge than where cuts are made, a fold counts as cut from this share on.
_CUT_FOLD_SHARE = 0.7

# A region is flat when this share of its pixels lies this near (m, and three times the noise) to one plane.
_PLANE_SHARE, _PLANE_TOLERANCE = 0.8, 0.02

# The merge is quadratic in regions; the largest are kept, and thin leftovers up to this number.
_MOST_REGIONS, _MOST_WITH_LEFTOVERS = 255, 400
_SEED_SHARE = 1 / 9600


class GeometricMasks:
    """Masks of convex surface pieces from one RGB-D image (implements `MaskGenerator`).

    Steps: a plane for every pixel, the best of nine windows; cuts at depth gaps and concave folds; connected
    regions, grown back over the cuts; neighbours whose common boundary is no gap and no fold on average are
    joined; what is left below `min_area` is dropped; colour splits and joins. Walls and floors are masks too,
    unless `drop_planes` is set. Scores are 1.
    """

    id = "geometric-v1"
    chooses_keyframes = False

    def __init__(self, config: PerceptionConfig | None = None):
        self._config = config or PerceptionConfig()

    def masks(self, frame: Frame) -> Masks2D:
        """Masks of the frame; none at all where depth is missing everywhere. FrameError `bad_colour`."""
        frame = in_colour(frame)
        config, camera = self._config, frame.camera
        intrinsics = (float(camera.fx), float(camera.fy), float(camera.cx), float(camera.cy))
        depth = np.where((frame.depth > NEAREST) & (frame.depth < FARTHEST), frame.depth, 0).astype(np.float32)
        radius, step = _reaches(depth.shape[1])
        z, normals, noise = fit_surfaces(depth, intrinsics, radius)
        labels = _segment(depth, z, normals, noise, intrinsics, config)
        if config.colour:
            labels = split_by_colour(labels, frame.rgb, config.colour_contrast, step)
            labels = join_by_colour(labels, frame.rgb, depth)
        if config.drop_planes > 0:
            labels = _drop_planes(labels, z, _noise_level(z, noise), intrinsics, config.drop_planes)
        return _as_masks(labels)


def _as_masks(labels: Array) -> Masks2D:
    """As `Masks2D.from_labels`, without sorting the pixels: the labels are small."""
    is_used = np.bincount(labels.ravel()) > 0
    is_used[0] = False
    table = np.where(is_used, np.cumsum(is_used), 0).astype(np.int32)
    return Masks2D(table[labels], np.ones(int(is_used.sum()), np.float32))


def _reaches(width: int) -> tuple[int, int]:
    """Radius of the plane fit and distance over which a gap is looked for, pixels, for an image of this width."""
    return max(2, round(width / 107)), max(1, round(width / 213))


def _segment(
    depth: Array, z: Array, normals: Array, noise: Array, intrinsics: kernels.Intrinsics, config: PerceptionConfig
) -> Array:
    """Labels int32 (H, W), 0 = none, any positive numbers, from depth (H, W), 0 = none, and what fits it."""
    radius, step = _reaches(depth.shape[1])
    gap, gap_quadratic = _gap_limits(config, z, noise)
    least = max(1.0, config.min_area * depth.size)
    free = np.empty(depth.shape, np.uint8)
    kernels.find_edges(
        z, normals, intrinsics, step, 2 * step, gap, gap_quadratic, math.cos(config.fold_angle), config.fold_depth, free
    )
    labels, count = largest_pieces(free, _SEED_SHARE, _MOST_REGIONS)
    known = np.where(z > 0, z, depth)
    rounds = 2 * radius + 2
    regions.give_back(depth, known, labels, rounds)
    count = regions.label_leftovers(depth, labels, count, least, _MOST_WITH_LEFTOVERS)

    evidence = np.zeros((4, count + 1, count + 1))
    cut_fold = _CUT_FOLD_SHARE * config.fold_depth
    regions.boundary_evidence(labels, z, normals, intrinsics, 2 * step, gap, gap_quadratic, cut_fold, evidence)
    labels = regions.merge_regions(evidence, _MERGE_LEAST_PAIRS, _MERGE_JUMP, _MERGE_FOLD, _MERGE_CUT_SHARE)[labels]
    area = np.bincount(labels.ravel())
    labels[area[labels] < least] = 0
    regions.give_back(depth, known, labels, rounds)
    return labels


def fit_surfaces(depth: Array, intrinsics: kernels.Intrinsics, radius: int) -> tuple[Array, Array, Array]:
    """Denoised depth (H, W), unit normals towards the camera (H, W, 3) and the fit's residual (H, W) in 1/m.

    All float32 and 0 where no plane fits. `depth` float32 (H, W) metres, 0 = none; windows are
    (2 radius + 1)^2 pixels.
    """
    with np.errstate(divide="ignore"):
        disparity = np.where(depth > 0, np.float32(1) / depth, np.float32(0))
    a, b, c, relative, rms, z, noise = (np.empty(depth.shape, np.float32) for _ in range(7))
    normals = np.empty((*depth.shape, 3), np.float32)
    kernels.fit_planes(disparity, radius, a, b, c, relative, rms)
    kernels.best_windows(disparity, a, b, c, relative, rms, radius, intrinsics, z, normals, noise)
    return z, normals, noise


def _noise_level(z: Array, noise: Array) -> float:
    """Median residual of the plane fits, 1/m; 0 without any."""
    sample = noise[::2, ::2][z[::2, ::2] > 0]
    return float(np.median(sample)) if len(sample) else 0.0


def _gap_limits(config: PerceptionConfig, z: Array, noise: Array) -> tuple[float, float]:
    """The constant (m) and the quadratic (m/m^2) part of the depth step that ends a surface."""
    level = _noise_level(z, noise) if config.auto_noise else 0.0
    return config.gap + _GAP_PER_NOISE * level, config.gap_quadratic + _QUADRATIC_PER_NOISE * level


def _drop_planes(labels: Array, z: Array, noise: float, intrinsics: kernels.Intrinsics, least: float) -> Array:
    """Labels without the flat regions of at least `least` square metres that reach the image's border.

    With the ray r = (x, y, 1) of a pixel, a plane is 1/z = N.r; a pixel of it covers z^3 |N| / (fx fy) square metres.
    """
    fx, fy, cx, cy = intrinsics
    count = int(labels.max(initial=0)) + 1
    known = z > 0
    region, depth = labels[known], z[known].astype(np.float64)
    v, u = np.nonzero(known)
    rays = np.stack([(u - cx) / fx, (v - cy) / fy, np.ones(len(u))])
    moments = np.empty((count, 3, 4))
    for i in range(3):
        for j in range(3):
            moments[:, i, j] = np.bincount(region, rays[i] * rays[j], count)
        moments[:, i, 3] = np.bincount(region, rays[i] / depth, count)
    planes = np.linalg.solve(moments[:, :, :3] + 1e-9 * np.eye(3), moments[:, :, 3:])[:, :, 0]
    off = np.abs(1 / depth - np.einsum("ni,in->n", planes[region], rays)) * depth**2
    is_on = off < _PLANE_TOLERANCE + 3 * noise * depth**2
    share = np.bincount(region, is_on, count) / np.maximum(np.bincount(region, minlength=count), 1)
    area = np.bincount(region, depth**3, count) * np.linalg.norm(planes, axis=1) / (fx * fy)
    border = np.zeros(count, bool)
    border[np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])] = True
    drop = border & (area >= least) & (share >= _PLANE_SHARE)
    return np.where(drop[labels], 0, labels).astype(np.int32)
