# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Masks made elsewhere: a folder of label images, one per frame."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np

from ..array_file import read_npy
from ..errors import FrameError, SourceError, listed
from ..image_file import decode_image
from ..types import Array, Frame, Masks2D

logger = logging.getLogger(__name__)

# Colour and depth of one camera differ by this much at most (ScanNet's by 0.006).
_SHAPE_TOLERANCE = 0.05


class LabelFiles:
    """Reads `<frame name>.png`: 8 or 16 bit, one channel, 0 = none (implements `MaskGenerator`); or `.npy` (H, W).

    Another size than the frame's is brought to it by nearest neighbour. Frames without a file have no masks, so
    the files choose the keyframes. Scores are unknown and 1. ScanNet's own `instance/` folder is such a folder, and
    so is what MaskClustering's script (PNG named up to the image's first dot) and RE0's (npy named by the image's
    number) write.
    """

    id = "files"
    chooses_keyframes = True

    def __init__(self, folder: str | Path):
        """Raises SourceError when the folder is missing, holds no label image, or holds colour pictures."""
        self._folder = Path(folder)
        if not self._folder.is_dir():
            raise SourceError(f"no folder of masks at {self._folder}: give one with a label PNG per frame")
        try:
            found = sorted(self._folder.iterdir())
        except OSError as error:
            raise SourceError(f"cannot read the folder of masks {self._folder}: {error.strerror}") from None
        # Of two files for one frame the PNG is taken.
        self._files = {p.stem: p for suffix in (".npy", ".png") for p in found if p.suffix.lower() == suffix}
        if not self._files:
            inner = self._folder / "output" / "mask"
            hint = f" (did you mean {inner}?)" if inner.is_dir() else ""
            raise SourceError(
                f"{self._folder} holds no .png and no .npy: one label image per frame is wanted, "
                f"named as the frame{hint}"
            )
        with suppress(FrameError):
            read_labels(next(iter(self._files.values())))

    @property
    def names(self) -> tuple[str, ...]:
        """The frames that have a file."""
        return tuple(self._files)

    def check_against(self, names: Iterable[str]) -> int:
        """How many of these frame names have masks; raises SourceError when none has."""
        wanted = list(names)
        matched = sum(self._path(name) is not None for name in wanted)
        if wanted and not matched:
            raise SourceError(
                f"no file in {self._folder} is named as a frame: files are {listed(map(repr, self._files), 3)}, "
                f"frames are {listed(map(repr, wanted), 3)}; rename the files to <frame name>.png"
            )
        if matched < len(self._files):
            logger.info("%d of %d mask files in %s match a frame", matched, len(self._files), self._folder)
        return matched

    def masks(self, frame: Frame) -> Masks2D | None:
        """The file's masks, or None without a file. FrameError `bad_mask_file` when it cannot be read."""
        path = self._path(frame.name)
        if path is None:
            return None
        labels = read_labels(path)
        h, w = frame.depth.shape
        if abs(labels.shape[1] / labels.shape[0] - w / h) > _SHAPE_TOLERANCE:
            raise SourceError(
                f"{path} is {labels.shape[1]}x{labels.shape[0]}, the frames are {w}x{h}: of another shape; "
                "make the masks of the frames' own images"
            )
        if labels.shape != (h, w):
            labels = cv2.resize(labels, (w, h), interpolation=cv2.INTER_NEAREST_EXACT)
        return Masks2D.from_labels(labels)

    def _path(self, name: str) -> Path | None:
        """The frame's file: under its name, its name up to the first dot, or its number without leading zeros."""
        stem, _, rest = name.partition(".")
        # Of stamps such as 12.04 the part before the dot belongs to many frames.
        short = stem if rest and not rest.isdecimal() else name
        number = str(int(short)) if short.isdecimal() else short
        return next((self._files[n] for n in (name, short, number) if n in self._files), None)


def read_labels(path: Path) -> Array:
    """A label image, uint8 or uint16 (H, W). FrameError when unreadable, SourceError when it is a colour picture."""
    return _read_array(path) if path.suffix.lower() == ".npy" else _read_png(path)


def _read_array(path: Path) -> Array:
    try:
        labels = read_npy(path)
    except (OSError, ValueError) as error:
        raise FrameError("bad_mask_file", f"cannot read {path}: {error}; write it again, or remove it") from None
    _refuse_pictures(labels, path)
    if labels.dtype.kind not in "ui" or not labels.size or labels.min() < 0 or labels.max() > np.iinfo(np.uint16).max:
        raise FrameError("bad_mask_file", f"{path} holds {labels.dtype} values: labels are integers from 0 to 65535")
    return labels.astype(np.uint16)


def _read_png(path: Path) -> Array:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise FrameError("bad_mask_file", f"cannot read {path}: {error.strerror}") from None
    image = decode_image(data, cv2.IMREAD_UNCHANGED)
    if image is None:
        raise FrameError(
            "bad_mask_file", f"{path} is no readable PNG, cut short, or too large: write it again, or remove it"
        )
    _refuse_pictures(image, path)
    if image.dtype not in (np.uint8, np.uint16):
        raise FrameError("bad_mask_file", f"{path} holds {image.dtype} values: labels are 8 or 16 bit")
    return image


def _refuse_pictures(image: Array, path: Path) -> None:
    if image.ndim != 2:
        what = f"a colour picture with {image.shape[2]} channels" if image.ndim == 3 else f"an array {image.shape}"
        raise SourceError(
            f"{path} is {what}, labels are wanted: one channel of 8 or 16 "
            "bit, 0 = none, a number per mask. Segmentation demos often save a drawing, CropFormer's too; save the "
            "label image instead, as MaskClustering's mask script does"
        )
