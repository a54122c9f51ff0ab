# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""ScanNet's `.sens` files: one recording with compressed colour and depth, poses and intrinsics.

Little-endian: uint32 version (4); uint64 length and name of the sensor; four float32 4x4 matrices, row by row (colour
intrinsics and extrinsics, depth intrinsics and extrinsics); int32 colour compression (0 raw, 1 PNG, 2 JPEG) and depth
compression (0 raw, 1 zlib, 2 occi); uint32 width and height of colour, of depth; float32 depth shift (the number that
stands for a metre); uint64 number of frames. Of each frame: float32 4x4 camera to world (-inf where tracking was
lost), uint64 stamps of colour and depth in microseconds, uint64 sizes of both in bytes, and both. Then uint64 number
of inertial records and these, which are not read here.

A file is bigger than memory: what is held are poses and places of images; an image is read when it is asked for.
Sizes are compared with the file and with the images' own before anything is allocated.
"""

from __future__ import annotations

import itertools
import math
import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np

from ..errors import FrameError, SourceError
from ..image_file import declared_size
from ..types import Array, Camera, Frame
from .images import (
    check_rate,
    check_thinning,
    checked_pose,
    count_drop,
    decode_colour,
    depth_in_metres,
    register_colour,
)

VERSION = 4
JPEG_QUALITY = 90
_COLOUR_KINDS = {0: "raw", 1: "png", 2: "jpeg"}
_DEPTH_KINDS = {0: "raw", 1: "zlib"}
_HEADER = struct.Struct("<64f2i4IfQ")
_FRAME = struct.Struct("<16f4Q")
_MOST_NAME, _MOST_PIXELS, _IMAGE_OVERHEAD = 4096, 16384, 1 << 16
_IMU = struct.Struct("<15dQ")


@dataclass(frozen=True, eq=False)
class SensHeader:
    """What a `.sens` file says of all its frames; the cameras have the sizes of colour and depth images."""

    colour_camera: Camera
    depth_camera: Camera
    colour_kind: str = "jpeg"
    depth_kind: str = "zlib"
    depth_shift: float = 1000.0
    sensor: str = "StructureSensor"


@dataclass(frozen=True, eq=False)
class SensFrame:
    """What `write_sens` takes: rgb uint8 (H, W, 3), depth uint16 (h, w) in units of 1 / depth_shift metres,
    T_world_camera (4, 4), stamp in seconds."""

    rgb: Array
    depth: Array
    T_world_camera: Array
    stamp: float = 0.0


class SensFile:
    """A `.sens` file open for reading any frame. Raises SourceError where it is none, or is cut short.

    `poses` float64 (F, 4, 4), as written: not finite where tracking was lost; `stamps` float64 (F,) of depth, seconds.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        try:
            self._size = self.path.stat().st_size
            with self.path.open("rb") as file:
                self.header, count = self._read_header(file)
                self._read_index(file, count)
        except OSError as error:
            raise SourceError(f"cannot read {path}: {error.strerror or error}") from None

    def __len__(self) -> int:
        return len(self.poses)

    def _take(self, file: BinaryIO, size: int) -> bytes:
        data = file.read(size)
        if len(data) < size:
            raise SourceError(f"{self.path} ends within its header: download it again")
        return data

    def _read_header(self, file: BinaryIO) -> tuple[SensHeader, int]:
        version, length = struct.unpack("<IQ", self._take(file, 12))
        if version != VERSION or length > _MOST_NAME:
            raise SourceError(
                f"{self.path} is no .sens file of version {VERSION}: it begins with version {version} and a name of "
                f"{length} bytes"
            )
        sensor = self._take(file, length).decode("utf-8", "replace")
        values = _HEADER.unpack(self._take(file, _HEADER.size))
        colour_kind, depth_kind = (
            self._kind("colour", values[64], _COLOUR_KINDS),
            self._kind("depth", values[65], _DEPTH_KINDS),
        )
        matrices = np.array(values[:64]).reshape(4, 4, 4)
        colour_camera = self._camera("colour", matrices[0], values[66], values[67])
        depth_camera = self._camera("depth", matrices[2], values[68], values[69])
        if not (math.isfinite(values[70]) and values[70] > 0):
            raise SourceError(f"{self.path}: {values[70]} units of depth per metre; ScanNet has 1000")
        return SensHeader(colour_camera, depth_camera, colour_kind, depth_kind, values[70], sensor), values[71]

    def _kind(self, part: str, code: int, kinds: dict[int, str]) -> str:
        if code not in kinds:
            raise SourceError(
                f"{self.path}: {part} compression {code} is not read; only "
                + ", ".join(f"{number} ({name})" for number, name in kinds.items())
            )
        return kinds[code]

    def _camera(self, part: str, matrix: Array, width: int, height: int) -> Camera:
        if not (1 <= width <= _MOST_PIXELS and 1 <= height <= _MOST_PIXELS):
            raise SourceError(f"{self.path}: {part} images of {width}x{height} pixels; the header is damaged")
        if not np.isfinite(matrix).all() or matrix[0, 0] <= 0 or matrix[1, 1] <= 0:
            raise SourceError(f"{self.path}: {part} intrinsics fx = {matrix[0, 0]:g}, fy = {matrix[1, 1]:g}")
        return Camera.from_matrix(matrix, width, height)

    def _read_index(self, file: BinaryIO, count: int) -> None:
        there = (self._size - file.tell()) // _FRAME.size
        if count > there:
            raise SourceError(
                f"{self.path} declares {count} frames, for which its {self._size} bytes have no room: download it again"
            )
        poses = np.empty((count, 4, 4), np.float32)
        self._places, self.stamps = np.empty((count, 3), np.int64), np.empty(count)
        place = file.tell()
        for number in range(count):
            file.seek(place)
            head = file.read(_FRAME.size)
            values = _FRAME.unpack(head.ljust(_FRAME.size, b"\0"))
            colour, depth = values[18:]
            start, place = place + _FRAME.size, place + _FRAME.size + colour + depth
            if place > self._size:
                raise SourceError(f"{self.path} ends early: {number} of {count} frames are whole; download it again")
            poses[number] = np.reshape(values[:16], (4, 4))
            self.stamps[number] = values[17] * 1e-6
            self._places[number] = start, colour, depth
        self.poses = poses.astype(np.float64)

    def colour(self, number: int) -> Array:
        """Frame `number`'s colour, uint8 (H, W, 3), red first. Raises FrameError."""
        camera = self.header.colour_camera
        start, size, _ = self._places[number].tolist()
        where = f"{self.path}, colour of frame {number}"
        data = self._image(start, size, 4 * camera.width * camera.height, where, "colour_unreadable")
        if self.header.colour_kind == "raw":
            if len(data) != 3 * camera.width * camera.height:
                raise FrameError("colour_unreadable", f"{where}: {len(data)} bytes for {camera.width}x{camera.height}")
            return np.frombuffer(data, np.uint8).reshape(camera.height, camera.width, 3).copy()
        if declared_size(data) != camera.size:
            raise FrameError("colour_unreadable", f"{where}: no image of {camera.width}x{camera.height} pixels")
        return decode_colour(data, where)

    def depth(self, number: int) -> Array:
        """Frame `number`'s depth, uint16 (h, w), as written. Raises FrameError."""
        camera = self.header.depth_camera
        start, before, size = self._places[number].tolist()
        where = f"{self.path}, depth of frame {number}"
        wanted = 2 * camera.width * camera.height
        data = self._image(start + before, size, wanted, where, "depth_unreadable")
        if self.header.depth_kind == "zlib":
            try:
                data = zlib.decompressobj().decompress(data, wanted)
            except zlib.error as error:
                raise FrameError("depth_unreadable", f"{where}: {error}") from None
        if len(data) != wanted:
            raise FrameError("depth_unreadable", f"{where}: {len(data)} bytes, not {wanted}")
        return np.frombuffer(data, "<u2").reshape(camera.height, camera.width).astype(np.uint16)

    def _image(self, start: int, size: int, most: int, where: str, reason: str) -> bytes:
        if size > most + _IMAGE_OVERHEAD:
            raise FrameError(reason, f"{where}: {size} bytes are more than such an image can have")
        try:
            with self.path.open("rb") as file:
                file.seek(start)
                data = file.read(size)
        except OSError as error:
            raise FrameError(reason, f"{where}: {error.strerror or error}") from None
        if len(data) < size:
            raise FrameError(reason, f"{where}: the file has become shorter")
        return data


def write_sens(path: str | Path, header: SensHeader, frames: Iterable[SensFrame]) -> int:
    """Writes a recording; how many frames it has. Raises SourceError for images of other sizes than the header's."""
    target = Path(path)
    temporary = target.with_name(f".{target.name}.tmp")
    try:
        with temporary.open("wb") as file:
            count = _write(file, header, frames)
        temporary.replace(target)
    except OSError as error:
        raise SourceError(f"cannot write {path}: {error.strerror or error}") from None
    finally:
        temporary.unlink(missing_ok=True)
    return count


def _write(file: BinaryIO, header: SensHeader, frames: Iterable[SensFrame]) -> int:
    name = header.sensor.encode()
    codes = [{text: code for code, text in kinds.items()} for kinds in (_COLOUR_KINDS, _DEPTH_KINDS)]
    matrices = [np.eye(4) for _ in range(4)]
    matrices[0][:3, :3], matrices[2][:3, :3] = header.colour_camera.matrix, header.depth_camera.matrix
    fixed = (
        *np.ravel(matrices), codes[0][header.colour_kind], codes[1][header.depth_kind], *header.colour_camera.size,
        *header.depth_camera.size, header.depth_shift,
    )  # fmt: skip
    file.write(struct.pack("<IQ", VERSION, len(name)) + name)
    place, count = file.tell(), 0
    file.write(_HEADER.pack(*fixed, 0))
    for frame in frames:
        colour, depth = _encode(frame, header)
        stamp = round(frame.stamp * 1e6)
        pose = np.ravel(frame.T_world_camera)
        file.write(_FRAME.pack(*pose, stamp, stamp, len(colour), len(depth)) + colour + depth)
        count += 1
    file.write(struct.pack("<Q", 1) + _IMU.pack(*(0.0,) * 15, 0))
    file.seek(place)
    file.write(_HEADER.pack(*fixed, count))
    return count


def _encode(frame: SensFrame, header: SensHeader) -> tuple[bytes, bytes]:
    sizes = (frame.rgb.shape[1::-1], frame.depth.shape[::-1])
    if sizes != (header.colour_camera.size, header.depth_camera.size):
        raise SourceError(f"colour and depth of {sizes[0]} and {sizes[1]} pixels do not have the sizes of the header")
    depth = np.ascontiguousarray(frame.depth, "<u2").tobytes()
    if header.depth_kind == "zlib":
        depth = zlib.compress(depth, 6)
    if header.colour_kind == "raw":
        return np.ascontiguousarray(frame.rgb, np.uint8).tobytes(), depth
    suffix, options = (
        (".png", []) if header.colour_kind == "png" else (".jpg", [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    )
    _, data = cv2.imencode(suffix, cv2.cvtColor(frame.rgb, cv2.COLOR_RGB2BGR), options)
    return data.tobytes(), depth


class SensSource:
    """Posed RGB-D out of a `.sens` file, colour carried onto depth. A `Source`. Raises SourceError.

    Frames without a pose are dropped and counted as `bad_pose`. Stamps are those of the file where they rise, else
    the frame's number / `rate`. `depth_scale` replaces the file's own depth shift.
    """

    kind = "sens"

    def __init__(
        self,
        path: str | Path,
        *,
        stride: int = 1,
        max_frames: int | None = None,
        depth_scale: float | None = None,
        rate: float = 30.0,
    ):
        check_thinning(stride, max_frames)
        check_rate(rate)
        self.file = SensFile(path)
        if not len(self.file):
            raise SourceError(f"{path} holds no frame")
        self.name, self.drops = Path(path).stem, {}
        self.camera = self.file.header.depth_camera
        self.depth_scale = depth_scale or self.file.header.depth_shift
        self.numbers = range(0, len(self.file), stride)[:max_frames]
        stamps = self.file.stamps.tolist()
        rises = all(a < b for a, b in itertools.pairwise(stamps))
        self.stamps = stamps if rises else [number / rate for number in range(len(stamps))]

    drops: dict[str, int]

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def frame_names(self) -> list[str]:
        return [str(number) for number in self.numbers]

    def __iter__(self) -> Iterator[Frame]:
        self.drops = {}
        for index, number in enumerate(self.numbers):
            try:
                yield self.read(index, number)
            except FrameError as error:
                count_drop(self.drops, error, self.name)

    def read(self, index: int, number: int) -> Frame:
        """Frame `number` of the file, as the `index`-th. Raises FrameError."""
        pose = checked_pose(self.file.poses[number], f"{self.name}, frame {number}")
        depth = depth_in_metres(self.file.depth(number), self.depth_scale)
        rgb = register_colour(self.file.colour(number), self.camera, self.file.header.colour_camera)
        return Frame(index, self.stamps[number], rgb, depth, self.camera, pose, str(number))
