# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""What the readers share: decoding of image files, cleaning of depth, registration of colour, sequences of files.

A frame that can't keep the promises of `base.Source` raises `FrameError` in here; `FileSequence` counts it by
its reason and goes on. The reasons: `no_colour`, `no_depth`, `no_pose` (the file is missing or nothing was
recorded near enough in time), `colour_unreadable`, `depth_unreadable` (damaged or truncated),
`depth_encoding` (not 16-bit integers of one channel), `size_mismatch` (an image of another size than its
fellows), `bad_pose` (not finite, as ScanNet writes lost tracking), `bad_rotation` (no rotation at all).
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from ..errors import FrameError, SourceError
from ..geometry import nearest_rotation, rotation_error
from ..image_file import decode_image
from ..types import Array, Camera, Frame

log = logging.getLogger(__name__)

# Tracked poses are orthonormal to about 4e-4, poses written with two digits to 2e-2; beyond this it is no rotation.
ROTATION_LIMIT = 0.05
NO_DEPTH = 65535
PROBES = 50


@dataclass(frozen=True, eq=False)
class FrameFiles:
    """Where one frame's parts lie; a part that was not found is None, with `missing` as reason to drop it."""

    name: str
    stamp: float
    colour: Path | None
    depth: Path | None
    pose: Array | None
    instance: Path | None = None
    missing: str = ""


class FileSequence:
    """A `Source` over image files: one `FrameFiles` per frame, a camera per image kind, a depth scale.

    `depth_scale` is the number that stands for one metre. `colour_camera` differs from `camera` where the colour
    images have another size or other intrinsics than depth; colour is then carried onto the depth image.
    A camera with distortion is taken out of the images: frames hold plain pinhole cameras.
    """

    def __init__(
        self,
        name: str,
        kind: str,
        files: Sequence[FrameFiles],
        camera: Camera,
        depth_scale: float,
        *,
        colour_camera: Camera | None = None,
        stride: int = 1,
        max_frames: int | None = None,
    ):
        if not depth_scale > 0:
            raise SourceError(f"{name}: depth_scale {depth_scale!r} must be above 0 (1000 for millimetres)")
        self.name, self.kind = name, kind
        self.files = thin(files, stride, max_frames)
        self.drops: dict[str, int] = {}
        self.depth_scale = float(depth_scale)
        self.colour_camera = colour_camera
        self.rectifier = Rectifier(camera)
        self.camera = self.rectifier.camera

    def __len__(self) -> int:
        return len(self.files)

    @property
    def frame_names(self) -> list[str]:
        return [files.name for files in self.files]

    def __iter__(self) -> Iterator[Frame]:
        self.drops = {}
        for index, files in enumerate(self.files):
            try:
                yield self.read(index, files)
            except FrameError as error:
                count_drop(self.drops, error, self.name)

    def read(self, index: int, files: FrameFiles) -> Frame:
        """One frame. Raises FrameError."""
        if files.missing:
            raise FrameError(files.missing, f"{files.name}: {files.missing.replace('_', ' ')}")
        if files.colour is None or files.depth is None or files.pose is None:
            part = "colour" if files.colour is None else "depth" if files.depth is None else "pose"
            raise FrameError(f"no_{part}", f"{files.name}: has no {part}")
        pose = checked_pose(files.pose, files.name)
        depth = self.rectifier.nearest(depth_in_metres(read_depth(files.depth), self.depth_scale))
        if depth.shape != (self.camera.height, self.camera.width):
            size = f"{depth.shape[1]}x{depth.shape[0]}, not {self.camera.width}x{self.camera.height}"
            raise FrameError("size_mismatch", f"{files.depth}: depth is {size}")
        rgb = self.rectifier.linear(register_colour(read_colour(files.colour), self.rectifier.raw, self.colour_camera))
        instance = None
        if files.instance is not None and files.instance.is_file():
            instance = read_labels(files.instance, self.camera.size)
            instance = None if instance is None else self.rectifier.nearest(instance)
        return Frame(index, files.stamp, rgb, depth, self.camera, pose, files.name, instance)


class Rectifier:
    """Takes the distortion out of images; does nothing where the camera has none.

    `model` is `plumb_bob` or `rational_polynomial` (OpenCV's order, 4, 5, 8, 12 or 14 numbers) or
    `equidistant` (fisheye, 4 numbers).
    """

    def __init__(self, camera: Camera, model: str = "plumb_bob"):
        self.raw = camera
        self.camera = Camera(camera.width, camera.height, camera.fx, camera.fy, camera.cx, camera.cy)
        self._maps: tuple[Array, Array] | None = None
        if camera.distortion is None or not np.any(camera.distortion):
            return
        numbers = np.asarray(camera.distortion, float)
        if model in ("equidistant", "fisheye"):
            self._maps = cv2.fisheye.initUndistortRectifyMap(
                camera.matrix, numbers[:4], np.eye(3), camera.matrix, camera.size, cv2.CV_32FC1
            )
        else:
            self._maps = cv2.initUndistortRectifyMap(
                camera.matrix, numbers, np.eye(3), camera.matrix, camera.size, cv2.CV_32FC1
            )

    def linear(self, image: Array) -> Array:
        """For colour (H, W, 3)."""
        return image if self._maps is None else cv2.remap(image, *self._maps, cv2.INTER_LINEAR)

    def nearest(self, image: Array) -> Array:
        """For depth and labels (H, W): no mixing across edges."""
        if self._maps is None or image.shape[:2] != (self.raw.height, self.raw.width):
            return image
        if image.dtype == np.int32:
            return cv2.remap(image.astype(np.float64), *self._maps, cv2.INTER_NEAREST).astype(np.int32)
        return cv2.remap(image, *self._maps, cv2.INTER_NEAREST)


def thin(items: Sequence[FrameFiles], stride: int, max_frames: int | None) -> list[FrameFiles]:
    """Every `stride`-th, at most `max_frames`. Raises SourceError."""
    check_thinning(stride, max_frames)
    return list(items[::stride][:max_frames])


def check_thinning(stride: int, max_frames: int | None) -> None:
    """Raises SourceError unless stride >= 1 and max_frames is None or >= 1."""
    if stride < 1:
        raise SourceError(f"stride {stride} must be 1 or more (every how many-th frame is taken)")
    if max_frames is not None and max_frames < 1:
        raise SourceError(f"max_frames {max_frames} must be 1 or more, or left out for all frames")


def check_rate(rate: float) -> None:
    """Raises SourceError unless frames per second are above 0 and finite."""
    if not 0 < rate < math.inf:
        raise SourceError(f"rate {rate!r} must be above 0 and finite (frames per second)")


def count_drop(drops: dict[str, int], error: FrameError, source: str) -> None:
    """Counts a dropped frame; the first of each reason is logged."""
    drops[error.reason] = drops.get(error.reason, 0) + 1
    if drops[error.reason] == 1:
        log.warning("%s: frame dropped (%s): %s; more like it are only counted", source, error.reason, error)


def checked_pose(matrix: Array, name: str) -> Array:
    """The pose float64 (4, 4) with a proper rotation. Raises FrameError where it can't be one."""
    if matrix.shape != (4, 4) or not np.isfinite(matrix).all():
        raise FrameError("bad_pose", f"{name}: the pose is not sixteen finite numbers")
    if rotation_error(matrix) > ROTATION_LIMIT:
        raise FrameError("bad_rotation", f"{name}: the pose's 3x3 part is no rotation")
    return nearest_rotation(matrix)


def read_matrix(path: Path) -> Array | None:
    """A text file of numbers as float64 (4, 4), or (3, 3) padded to it; None where it is missing or no matrix.

    Raises OSError where it is there and can't be read.
    """
    try:
        numbers = np.array(path.read_text().replace(",", " ").split(), float)
    except (FileNotFoundError, ValueError, UnicodeDecodeError):
        return None
    if numbers.size == 16:
        return numbers.reshape(4, 4)
    if numbers.size in (9, 12):
        out = np.eye(4)
        out[:3, : numbers.size // 3] = numbers.reshape(3, -1)
        return out
    return None


def read_colour(path: Path) -> Array:
    """uint8 (H, W, 3), red first. Raises FrameError."""
    return decode_colour(_bytes(path, "colour"), str(path))


def read_depth(path: Path) -> Array:
    """uint16 (H, W), raw numbers. Raises FrameError."""
    return decode_depth(_bytes(path, "depth"), str(path))


def decode_colour(data: bytes, where: str) -> Array:
    """JPEG or PNG bytes to uint8 (H, W, 3), red first. Raises FrameError."""
    image = decode_image(data, cv2.IMREAD_COLOR)
    if image is None:
        raise FrameError("colour_unreadable", f"{where}: the colour image is damaged, truncated or too large")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def decode_depth(data: bytes, where: str) -> Array:
    """PNG bytes to uint16 (H, W). Raises FrameError."""
    image = decode_image(data, cv2.IMREAD_UNCHANGED)
    if image is None:
        raise FrameError("depth_unreadable", f"{where}: the depth image is damaged, truncated or too large")
    if image.dtype != np.uint16 or image.ndim != 2:
        raise FrameError(
            "depth_encoding",
            f"{where}: depth must be 16-bit of one channel, not {image.dtype} of {image[0, 0].size}: write 16-bit PNG",
        )
    return image


def read_labels(path: Path, size: tuple[int, int]) -> Array | None:
    """A label image as int32 (H, W) of `size` (width, height), by nearest pixel; None where it can't be read."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    image = decode_image(data, cv2.IMREAD_UNCHANGED)
    if image is None or image.ndim != 2:
        log.warning("%s is no label image of one channel; the frame goes without", path)
        return None
    if image.shape[::-1] != size:
        image = cv2.resize(image, size, interpolation=cv2.INTER_NEAREST)
    return image.astype(np.int32)


def depth_in_metres(raw: Array, scale: float) -> Array:
    """float32 (H, W) metres, 0 = none, from integers (65535 means none too) or floats of which `scale` are a metre."""
    depth = raw.astype(np.float32) / np.float32(scale)
    if raw.dtype == np.uint16:
        depth[raw == NO_DEPTH] = 0.0
    else:
        depth[~np.isfinite(depth) | (depth < 0)] = 0.0
    return depth


def register_colour(rgb: Array, camera: Camera, colour_camera: Camera | None = None) -> Array:
    """Colour (h, w, 3) as the depth camera sees it, (H, W, 3).

    Size and intrinsics are made depth's; the few centimetres between the two lenses are not (that would need
    depth at every colour pixel), which is how ScanNet's exported images are used.
    """
    height, width = rgb.shape[:2]
    if abs(width / height - camera.width / camera.height) > 0.05 and colour_camera is None:
        raise FrameError("size_mismatch", f"colour of {width}x{height} is of another shape than depth")
    if colour_camera is None or not _differs(colour_camera.scaled(*camera.size), camera):
        if (width, height) == camera.size:
            return rgb
        shrinks = width >= camera.width
        return cv2.resize(rgb, camera.size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    if (width, height) != colour_camera.size:
        colour_camera = colour_camera.scaled(width, height)
    # Shrinking first by area keeps fine patterns from aliasing; then the two pinholes differ by an affine map.
    factor = min(1.0, camera.fx / colour_camera.fx)
    small = (max(1, round(width * factor)), max(1, round(height * factor)))
    rgb = cv2.resize(rgb, small, interpolation=cv2.INTER_AREA)
    source = colour_camera.scaled(*small)
    sx, sy = source.fx / camera.fx, source.fy / camera.fy
    affine = np.array([[sx, 0, source.cx - sx * camera.cx], [0, sy, source.cy - sy * camera.cy]])
    return cv2.warpAffine(rgb, affine, camera.size, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)


def first_size(paths: Iterable[Path | None], read_as: str) -> tuple[int, int]:
    """(width, height) of the first readable image. Raises SourceError when none of the first 50 can be read."""
    tried = 0
    for path in paths:
        if path is None:
            continue
        try:
            image = read_depth(path) if read_as == "depth" else read_colour(path)
        except FrameError as error:
            tried += 1
            if tried >= PROBES:
                raise SourceError(
                    f"none of the first {tried} {read_as} images can be read; the last: {error}"
                ) from None
            reason = str(error)
            continue
        return image.shape[1], image.shape[0]
    raise SourceError(f"no {read_as} image can be read" + (f": {reason}" if tried else ""))


def by_stem(folder: Path, suffixes: Sequence[str]) -> dict[str, Path]:
    """{stem: path} of the files of these suffixes, in order of the numbers in their names."""
    found = [p for p in folder.iterdir() if p.suffix.lower() in suffixes and not p.name.startswith(".")]
    return {p.stem: p for p in sorted(found, key=lambda p: natural(p.stem))}


def natural(text: str) -> tuple[tuple[int, int, str], ...]:
    """A key that sorts 2 before 10."""
    parts = re.findall(r"\d+|\D+", text)
    return tuple((0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts)


def _differs(a: Camera, b: Camera) -> bool:
    """Whether two cameras of one size put a corner of the image more than a pixel and a half apart."""
    corners = np.array([[0.0, 0.0], [b.width - 1, b.height - 1]])
    rays = (corners - (b.cx, b.cy)) / (b.fx, b.fy)
    return bool(np.abs(rays * (a.fx, a.fy) + (a.cx, a.cy) - corners).max() > 1.5)


def _bytes(path: Path, part: str) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise FrameError(f"no_{part}", f"{path} is missing") from None
    except (OSError, ValueError) as error:  # a name with a zero byte is a ValueError
        raise FrameError(f"{part}_unreadable", f"{path}: {getattr(error, 'strerror', None) or error}") from None
