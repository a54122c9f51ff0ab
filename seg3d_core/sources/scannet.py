# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""ScanNet's exported layout: one folder per kind of file, one file per frame.

    scene/
    ├── color/<i>.jpg or .png           8-bit colour
    ├── depth/<i>.png                   16-bit millimetres along the optical axis; 0 and 65535 = none
    ├── pose/<i>.txt                    4x4 camera to world; camera x right, y down, z forward; metres
    ├── intrinsic/intrinsic_depth.txt   4x4 (or 3x3) matrix for the depth images' own size
    ├── intrinsic/intrinsic_color.txt   the same for the colour images; optional
    └── instance/<i>.png                optional ground truth: 16-bit instance ids, 0 = none

This is what ScanNet's `SensReader` writes, and the easiest layout to write oneself. `<i>` is any number; frames
are taken in order of the numbers, and gaps are fine. Colour larger than depth (1296x968 beside 640x480 in
ScanNet) is resized to depth's size, by the intrinsics of both where they differ. Poses with `inf` or NaN
(ScanNet writes -inf where tracking was lost) are dropped and counted as `bad_pose`.

Where only one of the two intrinsic files exists it serves both, scaled by the size of the images.
The layout holds no clock. Stamps are the number in the name / `rate`; by default 30 Hz as ScanNet was
recorded, or 1 Hz where 30 Hz would mean that the camera flies (median above 3 m/s: keyframes were kept).
The folders may have other names: `color=`, `depth=`, `pose=`, `instance=` (e.g. `depth="depth_noisy"`).
"""

from __future__ import annotations

import itertools
import logging
import re
from pathlib import Path

import numpy as np

from ..errors import SourceError
from ..types import Array, Camera
from .images import FileSequence, FrameFiles, by_stem, check_rate, first_size, read_matrix

log = logging.getLogger(__name__)

SENSOR_RATE = 30.0
FASTEST = 3.0


class ScanNetSource(FileSequence):
    """Posed RGB-D from ScanNet's exported layout; the module's docstring is the layout. Raises SourceError."""

    def __init__(
        self,
        path: str | Path,
        *,
        stride: int = 1,
        max_frames: int | None = None,
        depth_scale: float | None = None,
        color: str = "color",
        depth: str = "depth",
        pose: str = "pose",
        instance: str = "instance",
        rate: float | None = None,
    ):
        root = Path(path)
        colours = by_stem(_folder(root, color), (".jpg", ".jpeg", ".png"))
        depths = by_stem(_folder(root, depth), (".png",))
        poses = by_stem(_folder(root, pose), (".txt",))
        labels = by_stem(root / instance, (".png",)) if (root / instance).is_dir() else {}
        matrices = {stem: read_matrix(file) for stem, file in poses.items() if stem in colours}
        complete = [stem for stem in colours if stem in depths and stem in poses]
        if complete and all(matrices[stem] is None for stem in complete):
            raise SourceError(
                f"{poses[complete[0]]} holds no 4x4 matrix of numbers, and no other pose does: 16 are wanted"
            )
        if not complete:
            raise SourceError(
                f"{root}: no frame has colour, depth and pose of one name "
                f"({len(colours)} in {color}/, {len(depths)} in {depth}/, {len(poses)} in {pose}/); "
                "name them alike: color/0.jpg, depth/0.png, pose/0.txt"
            )
        alone = len((depths.keys() & poses.keys()) - colours.keys())
        if alone:
            log.warning("%s: %d depth images with a pose have no colour of their name and are left out", root, alone)
        if rate is not None:
            check_rate(rate)
        numbers = _numbers(list(colours))
        period = 1.0 / (rate or _guess_rate(numbers, [matrices.get(stem) for stem in colours]))
        files = [
            FrameFiles(stem, number * period, file, depths.get(stem), matrices.get(stem), labels.get(stem))
            for number, (stem, file) in zip(numbers, colours.items(), strict=True)
        ]
        camera, colour_camera = _cameras(
            root, first_size((f.depth for f in files), "depth"), first_size((f.colour for f in files), "colour")
        )
        super().__init__(
            root.name,
            "scannet",
            files,
            camera,
            depth_scale or 1000.0,
            colour_camera=colour_camera,
            stride=stride,
            max_frames=max_frames,
        )


def _folder(root: Path, name: str) -> Path:
    if not (root / name).is_dir():
        raise SourceError(f"{root} has no folder {name}/; ScanNet's layout has color/, depth/, pose/ and intrinsic/")
    return root / name


def _cameras(root: Path, depth_size: tuple[int, int], colour_size: tuple[int, int]) -> tuple[Camera, Camera]:
    of_depth = _intrinsics(root, "depth")
    of_colour = _intrinsics(root, "color")
    if of_depth is None and of_colour is None:
        raise SourceError(
            f"{root}/intrinsic/ holds neither intrinsic_depth.txt nor intrinsic_color.txt; write the 4x4 matrix "
            "fx 0 cx 0 / 0 fy cy 0 / 0 0 1 0 / 0 0 0 1 of the depth images there"
        )
    colour_camera = None if of_colour is None else Camera.from_matrix(of_colour, *colour_size)
    if of_depth is None:
        assert colour_camera is not None
        return colour_camera.scaled(*depth_size), colour_camera
    camera = Camera.from_matrix(of_depth, *depth_size)
    return camera, colour_camera or camera.scaled(*colour_size)


def _intrinsics(root: Path, which: str) -> Array | None:
    file = root / "intrinsic" / f"intrinsic_{which}.txt"
    matrix = read_matrix(file)
    if matrix is None:
        if file.exists():
            raise SourceError(f"{file} is no 4x4 or 3x3 matrix of numbers")
        return None
    if not np.isfinite(matrix).all() or matrix[0, 0] <= 0 or matrix[1, 1] <= 0:
        raise SourceError(f"{file}: fx = {matrix[0, 0]:g} and fy = {matrix[1, 1]:g} must be above 0")
    return matrix


def _numbers(stems: list[str]) -> list[int]:
    """The last number in each name where those rise, else 0, 1, 2, ..."""
    found = [re.findall(r"\d+", stem) for stem in stems]
    numbers = [int(digits[-1]) if digits else -1 for digits in found]
    rises = all(a < b for a, b in itertools.pairwise(numbers)) and numbers[0] >= 0
    return numbers if rises else list(range(len(stems)))


def _guess_rate(numbers: list[int], poses: list[Array | None]) -> float:
    known = [(n, p[:3, 3]) for n, p in zip(numbers, poses, strict=True) if p is not None and np.isfinite(p).all()]
    if len(known) < 2:
        return SENSOR_RATE
    steps = np.diff(np.array([n for n, _ in known]))
    speed = np.linalg.norm(np.diff(np.stack([t for _, t in known]), axis=0), axis=1) / steps * SENSOR_RATE
    return SENSOR_RATE if np.median(speed) < FASTEST else 1.0
