# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Masks of everything in an image: where to click, which answers to keep.

Clicks go first to one interior point of each segment that depth shows, then to grid points, coarse to fine; a grid
point inside a mask that was kept already is left out, and a budget of clicks ends it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import cv2
import numpy as np
from numba import njit
from scipy import ndimage

from ...types import Array

GRID_LEVELS = (4, 8, 16)
"""Cells a side of the grids of points, one after the other."""


@dataclass(frozen=True)
class Limits:
    """Which answers are kept. Areas are shares of the image."""

    least_iou: float = 0.8
    least_stability: float = 0.9
    stability_offset: float = 1.0
    least_area: float = 1 / 1600
    most_area: float = 0.95
    most_overlap: float = 0.7
    """Of two masks whose IoU is above this, the one of higher predicted IoU stays."""


@dataclass(frozen=True, eq=False)
class Candidates:
    """K masks that may overlap, best predicted IoU first.

    logits float32 (K, h, w) at a quarter of the resized image's resolution, > 0 inside; iou (predicted) and stability
    float32 (K,); tokens float32 (K, 256); output int (K,): which of the three readings of a click; prompt int (K,).
    """

    logits: Array
    iou: Array
    stability: Array
    tokens: Array
    output: Array
    prompt: Array

    def __len__(self) -> int:
        return len(self.iou)

    def select(self, keep: Array) -> Candidates:
        """The candidates of these numbers, or this boolean mask, in that order."""
        return Candidates(
            self.logits[keep],
            self.iou[keep],
            self.stability[keep],
            self.tokens[keep],
            self.output[keep],
            self.prompt[keep],
        )


def interior_points(labels: Array) -> Array:
    """One point (x, y) of each label 1..m of an image int (H, W): the pixel farthest from the label's edge.

    float32 (m, 2), the largest label first; labels without pixels have no point.
    """
    padded = np.pad(labels, 1)
    inside = np.zeros(padded.shape, np.uint8)
    middle = padded[1:-1, 1:-1]
    inside[1:-1, 1:-1] = (
        (middle > 0)
        & (padded[:-2, 1:-1] == middle)
        & (padded[2:, 1:-1] == middle)
        & (padded[1:-1, :-2] == middle)
        & (padded[1:-1, 2:] == middle)
    )
    distance = cv2.distanceTransform(inside, cv2.DIST_L2, 3)[1:-1, 1:-1]
    area = np.bincount(labels.ravel())
    area[0] = 0
    order = np.argsort(-area, kind="stable")[: int((area > 0).sum())]
    if not len(order):
        return np.empty((0, 2), np.float32)
    places = ndimage.maximum_position(distance + (middle > 0), labels, order)
    return np.asarray(places, np.float32).reshape(-1, 2)[:, ::-1]


def grid_points(count: int, height: int, width: int) -> Array:
    """Cell centres (x, y), float32 (count^2, 2), of count x count cells over an image, in pixels."""
    unit = (np.arange(count, dtype=np.float32) + 0.5) / count
    x, y = np.meshgrid(unit * width - 0.5, unit * height - 0.5)
    return np.stack([x.ravel(), y.ravel()], 1)


def find_candidates(
    click: Callable[[Array], tuple[Array, Array, Array]],
    rounds: Iterable[Array],
    size: tuple[int, int],
    budget: int,
    batch: int,
    limits: Limits,
) -> tuple[Candidates, int]:
    """Candidates of all rounds of points (n, 2) in pixels of an image of `size` (H, W), and the clicks made.

    `click` takes points (n, 2) and gives logits (n, 3, h, w), predicted IoU (n, 3) and tokens (n, 3, 256). At most
    `budget` clicks are made, `batch` at once. The points of the first round are all clicked, those of the others
    where no mask is so far.
    """
    parts: list[Candidates] = []
    covered = np.zeros(size, bool)
    spent = 0
    for number, points in enumerate(rounds):
        rest, is_first = points, number == 0
        while spent < budget:
            if not is_first:
                pixel = np.floor(rest + 0.5).astype(int)
                rest = rest[~covered[pixel[:, 1], pixel[:, 0]]]
            count = min(batch, budget - spent, len(rest))
            if not count:
                break
            found = _filtered(*click(rest[:count]), spent, limits)
            parts.append(found)
            rest, spent = rest[count:], spent + count
            inside = (found.logits > 0).any(0).astype(np.uint8)
            covered |= cv2.resize(inside, size[::-1], interpolation=cv2.INTER_NEAREST) > 0
    return _joined(parts), spent


def _filtered(logits: Array, iou: Array, tokens: Array, first_prompt: int, limits: Limits) -> Candidates:
    """The answers that reach the limits."""
    prompts, outputs = iou.shape
    flat = logits.reshape(prompts * outputs, *logits.shape[2:])
    area, stability = areas(flat, limits.stability_offset)
    share = area / flat[0].size
    keep = np.flatnonzero(
        (iou.ravel() >= limits.least_iou)
        & (stability >= limits.least_stability)
        & (share >= limits.least_area)
        & (share <= limits.most_area)
    )
    return Candidates(
        flat[keep],
        iou.ravel()[keep],
        stability[keep].astype(np.float32),
        tokens.reshape(prompts * outputs, -1)[keep],
        keep % outputs,
        first_prompt + keep // outputs,
    )


def areas(logits: Array, offset: float) -> tuple[Array, Array]:
    """Pixels inside (K,), and the stability (K,): pixels above `offset` per pixels above its negative."""
    inner = np.count_nonzero(logits > offset, (1, 2))
    outer = np.count_nonzero(logits > -offset, (1, 2))
    return np.count_nonzero(logits > 0, (1, 2)), inner / np.maximum(outer, 1)


def _joined(parts: list[Candidates]) -> Candidates:
    if not parts:
        none, numbers = np.empty(0, np.float32), np.empty(0, int)
        tokens = np.empty((0, 256), np.float32)
        return Candidates(np.empty((0, 1, 1), np.float32), none, none, tokens, numbers, numbers)
    names = ("logits", "iou", "stability", "tokens", "output", "prompt")
    whole = Candidates(*(np.concatenate([getattr(p, n) for p in parts]) for n in names))
    return whole.select(np.argsort(-whole.iou, kind="stable"))


def without_duplicates(found: Candidates, most_overlap: float) -> Candidates:
    """Of every two masks whose IoU exceeds `most_overlap`, the one of higher predicted IoU."""
    if not len(found):
        return found
    common = _common_pixels(_packed((found.logits > 0).reshape(len(found), -1)))
    area = np.diag(common)
    overlap = common / np.maximum(area[:, None] + area - common, 1)
    keep = np.ones(len(found), bool)
    for k in range(len(found)):
        if keep[k]:
            keep[k + 1 :] &= overlap[k, k + 1 :] <= most_overlap
    return found.select(np.flatnonzero(keep))


def _packed(masks: Array) -> Array:
    """Masks bool (K, n) as bits, uint64 (K, ceil(n / 64))."""
    bits = np.packbits(masks, axis=1)
    return np.pad(bits, ((0, 0), (0, -bits.shape[1] % 8))).view(np.uint64)


@njit(cache=True, nogil=True)
def _common_pixels(packed: Array) -> Array:
    """How many bits each two rows of (K, words) share, float32 (K, K).

    A matrix product gives the same, but its threads wait busily for a core where others work too.
    """
    pairs, quads, octets = np.uint64(0x5555555555555555), np.uint64(0x3333333333333333), np.uint64(0x0F0F0F0F0F0F0F0F)
    ones = np.uint64(0x0101010101010101)
    one, two, four, top = np.uint64(1), np.uint64(2), np.uint64(4), np.uint64(56)
    out = np.zeros((len(packed), len(packed)), np.float32)
    for i in range(len(packed)):
        for j in range(i + 1):
            count = np.uint64(0)
            for k in range(packed.shape[1]):
                x = packed[i, k] & packed[j, k]
                x = x - ((x >> one) & pairs)
                x = (x & quads) + ((x >> two) & quads)
                count += (((x + (x >> four)) & octets) * ones) >> top
            out[i, j] = out[j, i] = count
    return out
