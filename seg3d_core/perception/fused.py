# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Depth segments and colour masks of one frame made into one set of disjoint masks.

Depth ends things where their surfaces end, but cannot see what lies flat on something, and takes thin things apart.
A colour model sees both, and joins and cuts at will. So depth decides, and colour adds two things: what lies well
inside a depth segment and is small against it becomes a mask of its own, and a few small segments that fill one
confident colour mask become one. Where depth is noisy the other way round is better: confident colour masks first,
and depth segments where those leave most of them free.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from ..types import Array, Frame, Masks2D
from .base import MaskGenerator
from .label_cleanup import without_specks
from .pixels import in_colour

_INSIDE = 0.8
"""A segment belongs to a mask that holds this share of it."""
_FILLED = 0.7
"""Segments fill a mask of which they are this share."""
_SPLIT_INSIDE = 0.85
"""A mask lies on a segment that holds this share of it."""
_FREE = 0.5
"""A mask of which less than this share is left by surer ones is left out."""


@dataclass(frozen=True)
class FusionLimits:
    """When a colour mask changes what depth says. Chosen by mean best IoU on the house scenes.

    Areas are shares of the image. The confidence of a mask is its predicted IoU.
    """

    join_confidence: float = 0.9
    join_area: float = 0.025
    join_segments: int = 3
    split_confidence: float = 0.8
    split_share: float = 0.25
    """A mask larger than this share of the segment on which it lies is no thing on it, but a part of it."""
    paint_confidence: float = 0.9
    paint_area: float = 0.3
    """Colour first: larger masks are left to depth."""


@dataclass(frozen=True, eq=False)
class ColourMasks:
    """Masks bool (K, H, W), which may overlap, and their confidence (K,)."""

    masks: Array
    confidence: Array


class NestedMasks(Protocol):
    """A model that sees wholes and parts."""

    id: str

    def nested_masks(self, frame: Frame, segments: Array) -> ColourMasks:
        """All its masks; `segments` int (H, W) are what depth says, 0 = none."""
        ...


class FusedMasks:
    """Masks of depth, amended by those of a colour model (implements `MaskGenerator`)."""

    chooses_keyframes = False

    def __init__(
        self,
        depth: MaskGenerator,
        colour: NestedMasks,
        first: Literal["depth", "colour"] = "depth",
        limits: FusionLimits | None = None,
        least_area: float = 0.0,
    ):
        self._depth, self._colour = depth, colour
        self._fuse = fuse if first == "depth" else fuse_colour_first
        self._limits, self._least_area = limits or FusionLimits(), least_area
        self.id = f"fused({depth.id}, {colour.id}, {first} first)-v1"

    def masks(self, frame: Frame) -> Masks2D | None:
        """Disjoint masks; what depth alone found scores 1, what colour changed has its mask's confidence."""
        frame = in_colour(frame)
        by_depth = self._depth.masks(frame)
        segments = by_depth.labels if by_depth is not None else np.zeros(frame.depth.shape, np.int32)
        return self._fuse(segments, self._colour.nested_masks(frame, segments), self._limits, self._least_area)


def fuse(segments: Array, colour: ColourMasks, limits: FusionLimits, least_area: float = 0.0) -> Masks2D:
    """Disjoint masks of segments int (H, W), 0 = none, and colour masks of the same image.

    Where depth says nothing, colour masks are taken as they are. Pieces of things below the share
    `least_area` of the image go.
    """
    count = int(segments.max(initial=0)) + 1
    area = colour.masks.sum((1, 2))
    kept = np.argsort(-colour.confidence, kind="stable")
    kept = kept[area[kept] > 0]
    masks, confidence, area = colour.masks[kept], colour.confidence[kept], area[kept]
    common = np.array([np.bincount(segments[mask], minlength=count) for mask in masks]).reshape(len(masks), count)
    of_segment = common / np.maximum(np.bincount(segments.ravel(), minlength=count), 1)
    of_mask = common / np.maximum(area, 1)[:, None]

    scores = np.ones(count, np.float32)
    is_small = (confidence >= limits.join_confidence) & (area <= limits.join_area * segments.size)
    table = _joined(of_segment, of_mask, np.flatnonzero(is_small), limits.join_segments, confidence, scores)
    is_sure = confidence >= limits.split_confidence
    things, added = _things(masks, of_segment, of_mask, np.flatnonzero(is_sure), limits.split_share)
    things = without_specks(things, least_area)
    labels = np.where(things > 0, count - 1 + things, table[segments])
    scores = np.concatenate([scores, confidence[added]])
    used = np.unique(labels)
    return Masks2D.from_labels(labels, np.clip(scores[used[used > 0]], 0, 1))


def fuse_colour_first(segments: Array, colour: ColourMasks, limits: FusionLimits, least_area: float = 0.0) -> Masks2D:
    """Disjoint masks: confident colour masks, the smaller on top, and then depth segments that are mostly free.

    Arguments as of `fuse`.
    """
    area = colour.masks.sum((1, 2))
    chosen = (colour.confidence >= limits.paint_confidence) & (area <= limits.paint_area * segments.size)
    kept = np.flatnonzero(chosen)[np.argsort(-area[chosen], kind="stable")]
    labels = np.zeros(segments.shape, np.int32)
    for number, k in enumerate(kept, 1):
        labels[colour.masks[k]] = number
    labels = without_specks(labels, least_area)
    whole = np.bincount(segments.ravel())
    free = np.bincount(segments[labels == 0], minlength=len(whole))
    is_free = free >= _FREE * np.maximum(whole, 1)
    is_free[0] = False
    labels = np.where((labels == 0) & is_free[segments], len(kept) + segments, labels)
    scores = np.concatenate([[0], colour.confidence[kept], np.ones(len(whole) - 1)])
    used = np.unique(labels)
    return Masks2D.from_labels(labels, np.clip(scores[used[used > 0]], 0, 1))


def _joined(of_segment: Array, of_mask: Array, candidates: Array, most: int, confidence: Array, scores: Array) -> Array:
    """New labels int32 of the old ones: two to `most` segments that fill a candidate mask become one.

    of_segment, of_mask (K, S): what share of a segment a mask holds, and of a mask a segment. Joined segments get
    their mask's confidence in `scores` (S,).
    """
    table = np.arange(of_segment.shape[1], dtype=np.int32)
    is_joined = np.zeros(len(table), bool)
    for k in candidates:
        inside = np.flatnonzero(of_segment[k, 1:] > _INSIDE) + 1
        fills = of_mask[k, inside].sum() > _FILLED
        if 2 <= len(inside) <= most and fills and not is_joined[inside].any():
            table[inside], is_joined[inside] = inside[0], True
            scores[inside[0]] = confidence[k]
    return table


def _things(masks: Array, of_segment: Array, of_mask: Array, candidates: Array, most: float) -> tuple[Array, list[int]]:
    """Labels int32 (H, W) 1..n of the masks that lie on one segment, or on none, and those masks' numbers."""
    things = np.zeros(masks.shape[1:], np.int32)
    added: list[int] = []
    for k in candidates:
        base = int(of_mask[k].argmax())
        is_thing = of_mask[k, base] > _SPLIT_INSIDE and (base == 0 or of_segment[k, base] < most)
        free = masks[k] & (things == 0)
        if is_thing and np.count_nonzero(free) >= _FREE * np.count_nonzero(masks[k]):
            added.append(int(k))
            things[free] = len(added)
    return things, added
