# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""From class and mask logits to disjoint scored masks, as the entity project publishes them and plainly.

Each pixel belongs to the query of highest p (probability of being an entity) among those whose mask holds it. Queries
are visited in descending p, so that a query only claims what is free, and a query that cannot reach the threshold is
never upsampled: it could not have covered a kept one either.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ...errors import ConfigError
from ...types import Array, Masks2D
from .images import View
from .layers import resize

Scoring = Literal["published", "plain"]

BEST_QUERIES = 100
"""Of a plain Mask2Former this many queries of highest p are looked at (detections per image)."""

# sigmoid(1): what the published quality of a mask of certain pixels is at most, as it is squashed twice.
LARGEST_QUALITY = 0.7310585786300049
_EPS = 1e-6
_ROUNDING = 1e-5
_CHUNK = 16


@dataclass(frozen=True)
class EntityMasks:
    """Disjoint masks in descending p. queries int64 (m,): rows of the predictions; scores float64 (m,);
    areas int64 (m,); owner int64 (H, W): place in this list, -1 = none. Empty ones have area and score 0.
    """

    queries: Tensor
    scores: Tensor
    areas: Tensor
    owner: Tensor


def score_threshold(confidence: float, scoring: Scoring) -> float:
    """The least score to keep. `confidence` is a published score; a mask of certain pixels needs the same p in both.

    Raises ConfigError where nothing could reach it.
    """
    if not 0 <= confidence <= LARGEST_QUALITY:
        raise ConfigError(
            f"confidence {confidence}: between 0 and {LARGEST_QUALITY:.3f}, which published scores cannot exceed "
            "(their mask quality is squashed twice); the paper takes 0.25"
        )
    return confidence if scoring == "published" else confidence / LARGEST_QUALITY


def candidates(class_logits: Tensor, confidence: float, most: int | None) -> tuple[Tensor, Tensor]:
    """(queries, p), descending in p: the `most` best that can reach the confidence at all."""
    p, queries = class_logits.float().softmax(-1)[:, 0].sort(descending=True, stable=True)
    queries, p = queries[:most], p[:most]
    possible = p >= confidence / LARGEST_QUALITY - _ROUNDING
    return queries[possible], p[possible]


def claim(
    queries: Tensor,
    p: Tensor,
    upsample: Callable[[Tensor], Tensor],
    size: tuple[int, int],
    *,
    is_probability: bool,
    scoring: Scoring,
) -> EntityMasks:
    """Gives the pixels of an image of `size` (H, W) to `queries` in this order, which is descending p.

    `upsample` maps queries (n,) to planes (n, H, W) of logits, or of probabilities where `is_probability`.
    """
    owner = torch.full(size, -1, dtype=torch.long, device=queries.device)
    value = torch.zeros(size, device=queries.device)
    for start in range(0, len(queries), _CHUNK):
        planes = upsample(queries[start : start + _CHUNK])
        inside = planes > (0.5 if is_probability else 0.0)
        first = inside.int().argmax(0)
        new = inside.any(0) & (owner < 0)
        owner = torch.where(new, first + start, owner)
        value = torch.where(new, planes.gather(0, first[None])[0], value)
        if (owner >= 0).all():
            break
    return _scored(queries, p, owner, value if is_probability else value.sigmoid(), scoring)


def _scored(queries: Tensor, p: Tensor, owner: Tensor, probability: Tensor, scoring: Scoring) -> EntityMasks:
    inside = owner >= 0
    rows = owner[inside]
    # The published code squashes probabilities once more and so gives nearly the same quality to every mask.
    quality = (probability.sigmoid() if scoring == "published" else probability)[inside].double()
    areas = torch.bincount(rows, minlength=len(queries))
    sums = torch.zeros(len(queries), dtype=torch.double, device=rows.device).index_add_(0, rows, quality)
    return EntityMasks(queries, p.double() * sums / (areas + _EPS), areas, owner)


def finish(masks: EntityMasks, least_score: float, least_area: float = 0.0) -> tuple[Masks2D, Array]:
    """What is kept, numbered 1.. in descending p, and the places (m,) of the kept in `masks`; areas in pixels."""
    keep = ((masks.scores >= least_score) & (masks.areas >= max(least_area, 1))).cpu().numpy()
    number = np.zeros(len(keep) + 1, np.int32)
    number[1:][keep] = np.arange(1, keep.sum() + 1)
    scores = masks.scores.cpu().numpy()[keep].astype(np.float32)
    return Masks2D(number[masks.owner.cpu().numpy() + 1], scores), np.flatnonzero(keep)


def image_upsampler(
    masks: Callable[[Tensor], Tensor], padded: tuple[int, int], view: View
) -> Callable[[Tensor], Tensor]:
    """For a plain Mask2Former: `masks` gives (n, 1, h, w) logits; two resizes bring them to the image's size."""

    def upsample(queries: Tensor) -> Tensor:
        return _upsample(masks(queries)[:, 0], padded, view)

    return upsample


def crops_upsampler(
    masks: Callable[[Tensor], Tensor], padded: tuple[int, int], views: list[View]
) -> Callable[[Tensor], Tensor]:
    """For CropFormer: `masks` gives (n, V, h, w) logits; the probability at a pixel is the mean of its views'."""
    _, _, width, height = views[0].box
    count = torch.zeros(height, width)
    for view in views:
        x0, y0, x1, y1 = view.box
        count[y0:y1, x0:x1] += 1

    def upsample(queries: Tensor) -> Tensor:
        logits = masks(queries)
        total = logits.new_zeros(len(queries), height, width)
        for plane, view in zip(logits.unbind(1), views, strict=True):
            x0, y0, x1, y1 = view.box
            total[:, y0:y1, x0:x1] += _upsample(plane, padded, view).sigmoid()
        return total / count.to(total.device)

    return upsample


def _upsample(logits: Tensor, padded: tuple[int, int], view: View) -> Tensor:
    """(n, h, w) at stride 4 to the view's own pixels, through the padded input's size."""
    x0, y0, x1, y1 = view.box
    inside = resize(logits[None].float(), padded)[:, :, : view.size[0], : view.size[1]]
    return resize(inside, (y1 - y0, x1 - x0))[0]
