# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""From what networks answer to boxes and disjoint masks in the image's pixels."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from ...types import Array, Masks2D


def pixel_boxes(boxes: Tensor, size: tuple[int, int]) -> Array:
    """xyxy float32 (n, 4) in pixels, clipped to the image (H, W), of boxes (n, 4) as cx, cy, w, h in 0..1."""
    centre, half = boxes.float()[:, :2].cpu().numpy(), boxes.float()[:, 2:].cpu().numpy() / 2
    height, width = size
    corners = np.concatenate([centre - half, centre + half], 1) * np.array([width, height, width, height], np.float32)
    return corners.clip(0, np.array([width, height, width, height], np.float32)).astype(np.float32)


def without_duplicates(boxes: Array, scores: Array, most_overlap: float) -> Array:
    """Rows int64 (m,), best score first: of two boxes whose IoU exceeds `most_overlap` the better one. boxes (n, 4)."""
    order = np.argsort(-scores, kind="stable")
    boxes = boxes[order]
    area = np.prod(np.maximum(boxes[:, 2:] - boxes[:, :2], 0), axis=1)
    low = np.maximum(boxes[:, None, :2], boxes[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    common = np.prod(np.maximum(high - low, 0), axis=2)
    overlap = common / np.maximum(area[:, None] + area[None] - common, 1e-9)
    keep = np.ones(len(order), bool)
    for k in range(len(order)):
        if keep[k]:
            keep[k + 1 :] &= overlap[k, k + 1 :] <= most_overlap
    return order[keep]


def paint(masks: Array, scores: Array, min_pixels: float) -> tuple[Masks2D, Array]:
    """Masks bool (n, H, W) that may overlap as disjoint ones, smaller over larger, and the rows (m,) that are left.

    What keeps fewer than `min_pixels` uncovered is left out, and shows what lies under it. scores (n,).
    """
    order = np.argsort(np.count_nonzero(masks, axis=(1, 2)), kind="stable")
    while len(order):
        visible = masks[order]
        labels = np.where(visible.any(0), visible.argmax(0) + 1, 0).astype(np.int32)
        left = np.bincount(labels.ravel(), minlength=len(order) + 1)[1:] >= max(min_pixels, 1)
        if left.all():
            return Masks2D(labels, np.clip(scores[order], 0, 1).astype(np.float32)), order
        order = order[left]
    return Masks2D(np.zeros(masks.shape[1:], np.int32), np.empty(0, np.float32)), order
