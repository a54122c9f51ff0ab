# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Where each instance was seen best, and the images of those keyframes within a budget."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from types import MappingProxyType

import cv2
import numpy as np
from numba import njit

from ..types import Array, View
from .keyframe_log import LoggedKeyframe

# A view is valid when it shows this share of what the instance's fullest view shows.
ENOUGH_VISIBLE = 0.3
VIEWS_PER_INSTANCE = 8
# A keyframe counts as a sighting when it shows this share of the instance, or so many points of it.
SIGHTING_SHARE = 0.2
SIGHTING_POINTS = 500


@dataclass(frozen=True, eq=False)
class InstanceSightings:
    """How T keyframes saw K instances.

    keyframes int64 (T,) numbers; visible int32 (T, K) points; beta float32 (T, K), the share of these on the
    instance's best mask (RE0 eq. 4); iou float32 (T, K), the best of any mask, over visible points, both of any label
    image of the keyframe; boxes
    float32 (T, K, 4), the tight xyxy box of the visible points' pixels.
    """

    keyframes: Array
    visible: Array
    beta: Array
    iou: Array
    boxes: Array

    def best_views(self, keep: int = VIEWS_PER_INSTANCE) -> tuple[tuple[View, ...], ...]:
        """The best views of each instance, best first (RE0 sec. 3.3, eq. 6), ranked and scored by beta.

        Views that show less than 30 % of the points of an instance's fullest view are left out. Ties go to the
        view with more visible points, then to the earlier keyframe.
        """
        enough = (self.visible > 0) & (self.visible >= ENOUGH_VISIBLE * self.visible.max(axis=0, initial=0))
        frame, instance = np.nonzero(enough)
        beta, visible, boxes = (a[frame, instance] for a in (self.beta, self.visible, self.boxes))
        order = np.lexsort((frame, -visible, -beta, instance))
        starts = np.searchsorted(instance[order], np.arange(self.visible.shape[1] + 1))
        return tuple(
            tuple(
                View(int(self.keyframes[frame[i]]), tuple(boxes[i].tolist()), float(beta[i]))
                for i in order[begin : min(end, begin + keep)]
            )
            for begin, end in pairwise(starts)
        )

    def best_outlines(self, sizes: Array) -> Array:
        """How well the best mask of any sighting outlines each instance: its IoU over the visible points, in quarters.

        float32 (K,); sizes (K,) in points.
        """
        sighted = (self.visible > 0) & ((self.visible >= SIGHTING_SHARE * sizes) | (self.visible >= SIGHTING_POINTS))
        best = np.where(sighted, self.iou, 0).max(axis=0, initial=0)
        return (np.rint(4 * best) / 4).astype(np.float32)


def sightings(keyframes: Sequence[LoggedKeyframe], by_row: Array, count: int) -> InstanceSightings:
    """How the keyframes saw instances 1..`count`; by_row int32 (rows,) is the instance of each map row.

    0 = none; below 0 = a point that is no more, and counts nowhere, not in the size of its mask either.
    """
    shape = (len(keyframes), count)
    out = InstanceSightings(
        np.array([k.number for k in keyframes], np.int64),
        np.zeros(shape, np.int32),
        np.zeros(shape, np.float32),
        np.zeros(shape, np.float32),
        np.zeros((*shape, 4), np.float32),
    )
    for t, k in enumerate(keyframes):
        labels = by_row[k.rows]
        for masks, mask_count in zip(k.masks, k.mask_counts, strict=True):
            out.visible[t] = 0
            _sight(labels, masks, k.pixels, mask_count, out.visible[t], out.beta[t], out.iou[t], out.boxes[t])
    return out


@njit(cache=True, nogil=True)
def _sight(
    labels: Array,
    masks: Array,
    pixels: Array,
    mask_count: int,
    visible: Array,
    beta: Array,
    iou: Array,
    boxes: Array,
) -> None:
    on_mask = np.zeros((len(visible), mask_count + 1), np.int32)
    mask_sizes = np.zeros(mask_count + 1, np.int32)
    for i in range(len(labels)):
        if labels[i] < 0:
            continue
        mask_sizes[masks[i]] += 1
        if labels[i] == 0:
            continue
        k = labels[i] - 1
        u, v = np.float32(pixels[i, 0]), np.float32(pixels[i, 1])
        if visible[k] == 0:
            boxes[k, 0], boxes[k, 1], boxes[k, 2], boxes[k, 3] = u, v, u, v
        visible[k] += 1
        on_mask[k, masks[i]] += 1
        boxes[k, 0] = min(boxes[k, 0], u)
        boxes[k, 1] = min(boxes[k, 1], v)
        boxes[k, 2] = max(boxes[k, 2], u)
        boxes[k, 3] = max(boxes[k, 3], v)
    for k in range(len(visible)):
        for mask in range(1, mask_count + 1):
            common = on_mask[k, mask]
            if common > 0:
                beta[k] = max(beta[k], common / visible[k])
                iou[k] = max(iou[k], common / (visible[k] + mask_sizes[mask] - common))


class ImageStore:
    """JPEG keyframes within a budget.

    When full, the keyframe goes that is least often among the best views of instances, the oldest of such;
    keyframes newer than the last ranking go last, for nothing is known of them yet.
    """

    def __init__(self, budget_mb: float, jpeg_quality: int):
        self.budget_bytes = int(budget_mb * 1_000_000)
        self.jpeg_quality = jpeg_quality
        self.reset()

    def reset(self) -> None:
        self._images: dict[int, bytes] = {}
        self._uses: dict[int, int] = {}
        self._bytes = 0
        self.evicted = 0
        """Images that left for the budget."""

    def __len__(self) -> int:
        return len(self._images)

    @property
    def memory_bytes(self) -> int:
        return self._bytes

    def add(self, keyframe: int, rgb: Array) -> None:
        """Keeps the image uint8 (H, W, 3) of a keyframe; others may go for it."""
        _, data = cv2.imencode(".jpg", rgb[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, self.jpeg_quality])
        self._put(keyframe, data.tobytes())
        self.make_room()

    def _put(self, keyframe: int, data: bytes) -> None:
        self._bytes += len(data) - len(self._images.pop(keyframe, b""))
        self._images[keyframe] = data

    def make_room(self) -> None:
        """The last image stays, whatever its size."""
        while self._bytes > self.budget_bytes and len(self._images) > 1:
            unranked = 1 + max(self._uses.values(), default=0)
            least = min(self._images, key=lambda k: (self._uses.get(k, unranked), k))
            self._bytes -= len(self._images.pop(least))
            self._uses.pop(least, None)
            self.evicted += 1

    def rank(self, views: Iterable[Sequence[View]]) -> None:
        """Tells what the images are good for: the best views of each instance as of now."""
        uses = Counter(view.keyframe for best in views for view in best)
        self._uses = {keyframe: uses[keyframe] for keyframe in self._images}

    def get(self, keyframe: int) -> bytes | None:
        """JPEG bytes, or None where the keyframe is not kept."""
        return self._images.get(keyframe)

    def images(self) -> Mapping[int, bytes]:
        """A read-only copy: keyframe number to JPEG bytes."""
        return MappingProxyType(dict(self._images))

    def restore_image(self, keyframe: int, data: bytes) -> None:
        """Takes back JPEG bytes that `images` gave; others may go for it."""
        self._put(keyframe, data)
        self.make_room()
