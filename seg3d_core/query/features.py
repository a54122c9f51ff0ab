# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""One feature per instance from its best views (RE0 section 3.3, eqs. 6 and 7), computed when asked and kept."""

from __future__ import annotations

import threading
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence

import cv2
import numpy as np

from .. import image_file
from ..errors import WeightsError
from ..perception.base import Encoder
from ..types import Array, Snapshot, View

_CACHE_BYTES = 64_000_000
# Views that are encoded while the lock is held: others wait no longer than this takes.
_CHUNK = 4

_Key = tuple[int, tuple[float, ...], int, bytes]


class InstanceFeatures:
    """Features of instances, cached per view, so that a new snapshot costs only what changed.

    Safe to call from several threads: the encoder runs under a lock, a few views at a time.
    """

    def __init__(self, encoder: Encoder, views: int, crop_growth: Sequence[float], background: float = 1.0):
        """`background`: the brightness that is left to what is not the instance, where a view knows its shape."""
        self._encoder = encoder
        self._views = views
        self._background = background
        self._growth = tuple(crop_growth)
        self._cache: OrderedDict[_Key, Array] = OrderedDict()
        self._capacity = max(_CACHE_BYTES // (4 * encoder.dim), 64)
        self.lock = threading.RLock()
        """Guards the encoder and the cache; whoever calls the encoder elsewhere takes it too."""

    @property
    def memory_bytes(self) -> int:
        return len(self._cache) * 4 * self._encoder.dim

    def of(self, snapshot: Snapshot) -> Array:
        """Unit vectors float32 (K, dim), the mean over views and crops; a row of zeros for an instance not seen."""
        keys = self._keys(snapshot)
        found = self._encode_missing(snapshot, keys, lambda: False)
        out = np.zeros((len(keys), self._encoder.dim), np.float32)
        for row, instance in enumerate(keys):
            vectors = [found[key] for key in instance if key in found]
            if vectors:
                mean = np.mean(vectors, axis=0)
                out[row] = mean / max(float(np.linalg.norm(mean)), 1e-9)
        return out

    def prepare(self, snapshot: Snapshot, should_stop: Callable[[], bool]) -> bool:
        """Computes what is missing until done (True) or told to stop (False)."""
        keys = self._keys(snapshot)
        self._encode_missing(snapshot, keys, should_stop)
        return not should_stop()

    def _keys(self, snapshot: Snapshot) -> list[list[_Key]]:
        """Of each instance its views with an image. A checksum of the image keeps old maps' features apart."""
        sums: dict[int, int] = {}
        chosen: list[list[_Key]] = []
        for instance_id in snapshot.instances.ids:
            views: Sequence[View] = snapshot.views.get(int(instance_id), ())
            seen = [v for v in views if v.keyframe in snapshot.images][: self._views]
            for number in {v.keyframe for v in seen} - sums.keys():
                sums[number] = zlib.crc32(snapshot.images[number])
            chosen.append([(v.keyframe, tuple(v.box), sums[v.keyframe], v.shape) for v in seen])
        return chosen

    def _encode_missing(
        self, snapshot: Snapshot, keys: list[list[_Key]], should_stop: Callable[[], bool]
    ) -> dict[_Key, Array]:
        wanted = sorted({key for instance in keys for key in instance})
        found: dict[_Key, Array] = {}
        for start in range(0, len(wanted), _CHUNK):
            if should_stop():
                break
            with self.lock:
                chunk = wanted[start : start + _CHUNK]
                self._encode([key for key in chunk if key not in self._cache], snapshot)
                for key in chunk:
                    if key in self._cache:
                        self._cache.move_to_end(key)
                        found[key] = self._cache[key]
                while len(self._cache) > self._capacity:
                    self._cache.popitem(last=False)
        return found

    def _encode(self, keys: list[_Key], snapshot: Snapshot) -> None:
        crops: list[Array] = []
        owners: list[_Key] = []
        image: Array | None = None
        decoded = -1
        for key in keys:
            if key[0] != decoded:
                image, decoded = decode_image(snapshot.images[key[0]]), key[0]
            if image is not None:
                shown = dimmed(image, key[1], key[3], self._background)
                for crop in grown_crops(shown, key[1], self._growth):
                    crops.append(crop)
                    owners.append(key)
        if not crops:
            return
        vectors = checked_features(self._encoder, self._encoder.encode_images(crops), len(crops))
        for key in dict.fromkeys(owners):
            rows = [i for i, owner in enumerate(owners) if owner == key]
            self._cache[key] = vectors[rows].mean(0).astype(np.float32)


def checked_features(encoder: Encoder, features: Array, count: int) -> Array:
    """What an encoder gave for `count` texts or crops. Raises WeightsError where that compares with nothing."""
    shape, wanted = np.shape(features), (count, encoder.dim)
    if shape != wanted:
        raise WeightsError(f"the text encoder {encoder.id} gave features of {shape}, not {wanted}: do its files fit?")
    if not np.isfinite(features).all():
        raise WeightsError(f"the text encoder {encoder.id} gave features that are no finite numbers: check its weights")
    return features


def decode_image(jpeg: bytes) -> Array | None:
    """JPEG bytes to RGB uint8 (H, W, 3), or None where they are damaged."""
    pixels = image_file.decode_image(jpeg, cv2.IMREAD_COLOR)
    return None if pixels is None else cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)


def dimmed(image: Array, box: Sequence[float], shape: bytes, background: float) -> Array:
    """The image uint8 (H, W, 3) with what is not the instance at `background` of its brightness, softly bounded.

    `shape` as in `View`; the image itself where that is unknown or `background` is 1.
    """
    cells = View.SHAPE_CELLS
    if background >= 1 or len(shape) != cells * cells // 8:
        return image
    height, width = image.shape[:2]
    left, top = max(int(np.floor(box[0])), 0), max(int(np.floor(box[1])), 0)
    right, bottom = min(int(np.ceil(box[2])), width), min(int(np.ceil(box[3])), height)
    if right <= left or bottom <= top:
        return image
    covered = np.unpackbits(np.frombuffer(shape, np.uint8)).reshape(cells, cells).astype(np.float32)
    light = np.full((height, width, 1), background, np.float32)
    inside = cv2.resize(covered, (right - left, bottom - top), interpolation=cv2.INTER_LINEAR)
    light[top:bottom, left:right, 0] += (1 - background) * inside
    return np.rint(image * light).astype(np.uint8)


def grown_crops(image: Array, box: Sequence[float], growth: Sequence[float]) -> Iterator[Array]:
    """RE0 eq. 7: the box xyxy (pixels) grown by each share of its size on each side, clipped to the image (H, W, 3).

    The paper's formula shrinks the box and gives lambda no unit; growing by a share is what its figures show.
    Nothing where the box does not meet the image.
    """
    height, width = image.shape[:2]
    x0, y0, x1, y1 = box
    if not (x1 > 0 and y1 > 0 and x0 < width and y0 < height and x1 >= x0 and y1 >= y0):
        return
    for share in growth:
        dx, dy = share * (x1 - x0), share * (y1 - y0)
        left, top = max(int(np.floor(x0 - dx)), 0), max(int(np.floor(y0 - dy)), 0)
        right, bottom = min(int(np.ceil(x1 + dx)), width), min(int(np.ceil(y1 + dy)), height)
        yield image[top : max(bottom, top + 1), left : max(right, left + 1)]
