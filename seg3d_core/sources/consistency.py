# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""How well posed RGB-D frames agree with each other: depth and colour of one frame carried into another.

Everything here works on a small copy of the frames (`Sample`), on a few hundred pixels of each, for all pairs of
frames at once. Tolerances are shares of depth, never metres, so a wrong unit is no better than a right one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np

from ..types import Array, Camera, Frame

WIDTH = 320
PIXELS = 200
TOLERANCE = 0.025
# A pair says little about poses unless the camera has moved between the two.
MOVED, TURNED = 0.08, 0.06
WIDEST_GAP = 30
MAX_PAIRS = 120


@dataclass(frozen=True, eq=False)
class Sample:
    """F frames, small: depth float32 (F, h, w) metres, grey float32 (F, h, w), poses float64 (F, 4, 4).

    `nearest`, `farthest` (F, h, w) are the extremes of depth's 3x3 neighbours, so that slopes and half pixels
    don't count as disagreement. `u`, `v`, `d` (F, PIXELS): the pixels that are carried; d = 0 where too few.
    """

    depth: Array
    nearest: Array
    farthest: Array
    grey: Array
    poses: Array
    camera: Camera
    u: Array
    v: Array
    d: Array

    def __len__(self) -> int:
        return len(self.poses)


@dataclass(frozen=True, eq=False)
class Setup:
    """How a sample is to be read: poses (F, 4, 4) and, if some are unknown, which; factors; shift of colour."""

    poses: Array
    depth_factor: float = 1.0
    camera_factor: float = 1.0
    colour_shift: int = 0
    known: Array = field(default_factory=lambda: np.ones(0, bool))


@dataclass(frozen=True)
class Agreement:
    """`share` in [0, 1]: of the carried pixels in open view in the other frame, those whose depth agrees.

    Pixels that end behind what the other frame sees are hidden there and prove nothing; right frames hide up to
    half where views differ much. Wrong ones can't hide behind that: pairs are carried both ways, and what is
    behind one way is in front the other way. `overlap`: share of the carried pixels that meet a measurement;
    `hidden`: share of those that are behind it; `median_error`: median relative difference in depth; `pairs`
    that overlap at all.
    """

    share: float
    overlap: float
    hidden: float
    median_error: float
    pairs: int


def thumbnail(frame: Frame) -> tuple[Array, Array, Camera]:
    """Depth float32 (h, w), grey uint8 (h, w), and their camera; at most WIDTH wide, by taking every n-th pixel."""
    step = max(1, frame.camera.width // WIDTH)
    grey = cv2.cvtColor(frame.rgb, cv2.COLOR_RGB2GRAY)
    grey = cv2.blur(grey, (2 * step + 1, 2 * step + 1))[::step, ::step]
    depth = np.ascontiguousarray(frame.depth[::step, ::step])
    c = frame.camera
    camera = Camera(depth.shape[1], depth.shape[0], c.fx / step, c.fy / step, c.cx / step, c.cy / step)
    return depth, np.ascontiguousarray(grey), camera


def make_sample(depths: Sequence[Array], greys: Sequence[Array], poses: Sequence[Array], camera: Camera) -> Sample:
    """A sample of frames of one size; the carried pixels are drawn with a fixed seed."""
    depth = np.stack(depths)
    random = np.random.default_rng(0)
    kernel = np.ones((3, 3), np.uint8)
    nearest = np.stack([cv2.erode(np.where(d > 0, d, np.float32(1e6)), kernel) for d in depth])
    farthest = np.stack([cv2.dilate(d, kernel) for d in depth])
    rows = np.zeros((len(depth), PIXELS), np.int64)
    values = np.zeros((len(depth), PIXELS), np.float32)
    for k, image in enumerate(depth):
        valid = np.flatnonzero(image)
        if len(valid):
            rows[k] = random.choice(valid, PIXELS)
            values[k] = image.ravel()[rows[k]]
    v, u = np.divmod(rows, camera.width)
    return Sample(depth, nearest, farthest, np.stack(greys).astype(np.float32), np.stack(poses), camera, u, v, values)


def choose_pairs(poses: Array) -> Array:
    """Pairs of frames (P, 2), i < j: neighbours, and for each frame the next one from where the camera has moved."""
    count = len(poses)
    pairs = {(i, i + 1) for i in range(count - 1)}
    pairs |= {(i, i + 2) for i in range(count - 2)}
    for i in range(count):
        span = poses[i + 1 : i + 1 + WIDEST_GAP]
        moved = np.linalg.norm(span[:, :3, 3] - poses[i, :3, 3], axis=1) > MOVED
        cosine = (np.einsum("ij,nij->n", poses[i, :3, :3], span[:, :3, :3]) - 1) / 2
        far = np.flatnonzero(moved | (np.arccos(np.clip(cosine, -1, 1)) > TURNED))
        if len(far) and far[0] > 1:
            pairs -= {(i, i + 1), (i, i + 2)}
            pairs.add((i, i + 1 + int(far[0])))
        elif not len(far) and len(span) == WIDEST_GAP:
            pairs -= {(i, i + 1), (i, i + 2)}
            pairs.add((i, i + WIDEST_GAP))
    out = np.array(sorted(pairs), np.int64).reshape(-1, 2)
    if len(out) > MAX_PAIRS:
        out = out[np.linspace(0, len(out) - 1, MAX_PAIRS).round().astype(int)]
    return out


def _carry(sample: Sample, pairs: Array, setup: Setup) -> tuple[Array, Array, Array, Array]:
    """Pixels of i in j: u, v int64 (P, PIXELS), depth there (P, PIXELS), and whether they are in the image."""
    c, f = sample.camera, setup.camera_factor
    fx, fy, cx, cy = c.fx * f, c.fy * f, (c.cx + 0.5) * f - 0.5, (c.cy + 0.5) * f - 0.5
    i, j = pairs.T
    relative = np.linalg.solve(setup.poses[j], setup.poses[i]).astype(np.float32)
    d = sample.d[i] * np.float32(setup.depth_factor)
    rays = np.stack([(sample.u[i] - cx) / fx * d, (sample.v[i] - cy) / fy * d, d], axis=1).astype(np.float32)
    moved = relative[:, :3, :3] @ rays + relative[:, :3, 3:]
    z = moved[:, 2]
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        u = np.nan_to_num(moved[:, 0] / z * fx + cx, nan=-1e6).clip(-1e6, 1e6)
        v = np.nan_to_num(moved[:, 1] / z * fy + cy, nan=-1e6).clip(-1e6, 1e6)
    u, v = np.rint(u).astype(np.int64), np.rint(v).astype(np.int64)
    inside = (d > 0) & (z > 0) & (u >= 0) & (v >= 0) & (u < c.width) & (v < c.height)
    if len(setup.known):
        inside &= np.logical_and(setup.known[i], setup.known[j])[:, None]
    return np.where(inside, u, 0), np.where(inside, v, 0), z, inside


def agreement(sample: Sample, pairs: Array, setup: Setup) -> Agreement:
    """How well depth carried from i to j, and from j to i, agrees with what is there, over all pairs (P, 2)."""
    if not len(pairs):
        return Agreement(0.0, 0.0, 0.0, 0.0, 0)
    both_ways = np.concatenate([pairs, pairs[:, ::-1]])
    u, v, z, inside = _carry(sample, both_ways, setup)
    row, column = np.nonzero(inside)
    place = both_ways[row, 1], v[row, column], u[row, column]
    measured = sample.depth[place]
    row, z, place = row[measured > 0], z[row, column][measured > 0], tuple(axis[measured > 0] for axis in place)
    factor = np.float32(setup.depth_factor)
    in_front = z < sample.nearest[place] * factor * (1 - TOLERANCE)
    hidden = z > sample.farthest[place] * factor * (1 + TOLERANCE)
    carried = sample.d[both_ways[:, 0]] > 0
    if len(setup.known):
        carried &= np.logical_and(setup.known[both_ways[:, 0]], setup.known[both_ways[:, 1]])[:, None]
    both, total = len(row), int(carried.sum())
    good = both - int(in_front.sum()) - int(hidden.sum())
    error = np.abs(z / (sample.depth[place] * factor) - 1)
    return Agreement(
        good / max(1, good + int(in_front.sum())),
        both / max(1, total),
        int(hidden.sum()) / max(1, both),
        float(np.median(error)) if both else 0.0,
        len(np.unique(row % len(pairs))),
    )


def colour_likeness(sample: Sample, pairs: Array, setup: Setup, least: int = 60) -> Array:
    """Correlation in [-1, 1] of grey at the two ends of the carried pixels, float (P,); NaN where too few agree.

    Colour is taken from frame + `colour_shift`; only pixels whose depths agree are compared.
    """
    count = len(sample)
    shifted = pairs + setup.colour_shift
    there = ((shifted >= 0) & (shifted < count)).all(axis=1)
    out = np.full(len(pairs), np.nan)
    if not there.any():
        return out
    use = pairs[there]
    u, v, z, inside = _carry(sample, use, setup)
    i, j = use[:, :1], use[:, 1:]
    low = sample.nearest[j, v, u] * np.float32(setup.depth_factor)
    high = sample.farthest[j, v, u] * np.float32(setup.depth_factor)
    same = inside & (z > low * (1 - TOLERANCE)) & (z < high * (1 + TOLERANCE))
    a = sample.grey[i + setup.colour_shift, sample.v[use[:, 0]], sample.u[use[:, 0]]]
    b = sample.grey[j + setup.colour_shift, v, u]
    n = same.sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        a = (a - ((a * same).sum(1) / n)[:, None]) * same
        b = (b - ((b * same).sum(1) / n)[:, None]) * same
        likeness = (a * b).sum(1) / np.sqrt((a * a).sum(1) * (b * b).sum(1))
    out[there] = np.where(n >= least, likeness, np.nan)
    return out
