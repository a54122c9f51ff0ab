# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""The TUM RGB-D benchmark's layout: lists of stamped files, and a trajectory.

    scene/
    ├── rgb.txt            lines `stamp rgb/1305031102.175304.png`; lines that begin with # are comments
    ├── depth.txt          lines `stamp depth/1305031102.160407.png`
    ├── groundtruth.txt    lines `stamp tx ty tz qx qy qz qw`: camera to world, metres
    ├── rgb/*.png          8-bit colour
    ├── depth/*.png        16-bit, 5000 to the metre; 0 = none
    └── camera.txt         optional: `fx fy cx cy`, then distortion `k1 k2 p1 p2 k3` if there is any

Colour and depth are paired by nearest stamp within 0.02 s (`slop`), each used once. The pose is interpolated at
the stamp of depth between poses at most 0.1 s apart (`max_gap`), or the nearest within 0.02 s; frames without
a partner or a pose are counted as `no_depth` or `no_pose`. Names are the stems of the colour files.

Intrinsics come from `camera.txt` (or `calibration.txt`) in the folder; else, from the benchmark's calibration
of freiburg1, 2 or 3 when the folder's name holds it; else the ROS default 525, 525, 319.5, 239.5 for 640x480,
scaled to the images' size, with a warning. Distortion is taken out of colour and depth.
`trajectory=` names another pose file, such as one that a SLAM system wrote.
"""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from ..errors import SourceError
from ..types import Array, Camera, PoseCorrection
from .images import FileSequence, FrameFiles, first_size
from .trajectory import Trajectory, are_poses, associate

log = logging.getLogger(__name__)

_BENCHMARK = {
    "freiburg1": (517.3, 516.5, 318.6, 255.3, 0.2624, -0.9531, -0.0054, 0.0026, 1.1633),
    "freiburg2": (520.9, 521.0, 325.1, 249.7, 0.2312, -0.7849, -0.0033, -0.0001, 0.9172),
    "freiburg3": (535.4, 539.2, 320.1, 247.6),
}
_ROS_DEFAULT = (525.0, 525.0, 319.5, 239.5)


class TumSource(FileSequence):
    """Posed RGB-D from a TUM RGB-D folder; the module's docstring is the layout. Raises SourceError."""

    def __init__(
        self,
        path: str | Path,
        *,
        stride: int = 1,
        max_frames: int | None = None,
        depth_scale: float | None = None,
        trajectory: str = "groundtruth.txt",
        slop: float = 0.02,
        max_gap: float = 0.1,
    ):
        root = Path(path)
        colour_stamps, colours = _read_list(root / "rgb.txt")
        depth_stamps, depths = _read_list(root / "depth.txt")
        partner = associate(colour_stamps, depth_stamps, slop)
        stamps = np.where(partner >= 0, depth_stamps[partner], colour_stamps)
        track = read_trajectory(root / trajectory)
        poses, posed = track.at(stamps, max_gap, slop)
        if not (posed & (partner >= 0)).any():
            raise SourceError(
                f"{root}: no colour image has a depth image within {slop:g} s and a pose: colour spans "
                f"{_span(colour_stamps)}, depth {_span(depth_stamps)}, poses {_span(track.stamps)}"
            )
        files = [
            FrameFiles(
                Path(colour).stem,
                float(colour_stamps[i]),
                root / colour,
                root / depths[partner[i]] if partner[i] >= 0 else None,
                poses[i] if posed[i] else None,
            )
            for i, colour in enumerate(colours)
        ]
        camera = _camera(root, first_size((f.depth for f in files), "depth"))
        super().__init__(
            root.resolve().name, "tum", files, camera, depth_scale or 5000.0, stride=stride, max_frames=max_frames
        )


def read_trajectory(path: Path) -> Trajectory:
    """`stamp tx ty tz qx qy qz qw` a line. Raises SourceError."""
    table = _pose_table(path)
    return Trajectory(table[:, 0], table[:, 1:4], table[:, 4:8])


def read_correction(path: Path) -> PoseCorrection:
    """The same lines as corrected poses of frames, as they are; what is no pose is NaN. Raises SourceError."""
    if not path.is_file():
        raise SourceError(
            f"{path} is no file: corrected poses are lines of `stamp tx ty tz qx qy qz qw`, as TUM's tools write them"
        )
    table = _pose_table(path)
    good = np.isfinite(table[:, 0]) & are_poses(table[:, 1:4], table[:, 4:8])
    poses = np.full((len(table), 4, 4), np.nan)
    poses[good] = np.eye(4)
    poses[good, :3, 3] = table[good, 1:4]
    poses[good, :3, :3] = Rotation.from_quat(table[good, 4:8]).as_matrix()
    return PoseCorrection(table[:, 0], poses)


def _pose_table(path: Path) -> Array:
    rows = [line.replace(",", " ").split() for line in _lines(path)]
    try:
        table = np.array([row[:8] for row in rows], float).reshape(-1, 8)
    except ValueError:
        raise SourceError(f"{path}: every line must be eight numbers: stamp tx ty tz qx qy qz qw") from None
    if not len(table):
        raise SourceError(f"{path} holds no poses")
    return table


def _read_list(path: Path) -> tuple[Array, list[str]]:
    """Stamps (n,), ascending, and the files beside them."""
    rows = [line.replace(",", " ").split() for line in _lines(path)]
    try:
        entries = sorted((float(row[0]), row[1]) for row in rows)
    except (ValueError, IndexError):
        raise SourceError(f"{path}: every line must be a stamp in seconds and a file name") from None
    if not entries:
        raise SourceError(f"{path} lists no images")
    return np.array([stamp for stamp, _ in entries]), [file for _, file in entries]


def _lines(path: Path) -> list[str]:
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(
            f"cannot read {path}: {getattr(error, 'strerror', None) or error}; "
            "TUM's layout has rgb.txt, depth.txt, groundtruth.txt"
        ) from None
    return [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]


def _camera(root: Path, size: tuple[int, int]) -> Camera:
    for name in ("camera.txt", "calibration.txt"):
        if (root / name).is_file():
            return _camera_of_file(root / name, size)
    for name, numbers in _BENCHMARK.items():
        if name in root.resolve().name.lower():
            return _of_numbers(numbers, (640, 480)).scaled(*size)
    log.warning(
        "%s names no freiburg camera and holds no camera.txt (`fx fy cx cy`): taking the ROS default %s of 640x480",
        root,
        _ROS_DEFAULT,
    )
    return _of_numbers(_ROS_DEFAULT, (640, 480)).scaled(*size)


def _camera_of_file(path: Path, size: tuple[int, int]) -> Camera:
    try:
        numbers = [float(word) for line in _lines(path) for word in line.replace(",", " ").split()]
    except ValueError:
        numbers = []
    if len(numbers) == 9 and numbers[1] == 0 and numbers[8] == 1:
        numbers = [numbers[0], numbers[4], numbers[2], numbers[5]]
    if len(numbers) not in (4, 8, 9) or min(numbers[:2]) <= 0:
        raise SourceError(f"{path} must hold `fx fy cx cy`, and distortion `k1 k2 p1 p2 k3` if there is any")
    return _of_numbers(tuple(numbers), size)


def _of_numbers(numbers: tuple[float, ...], size: tuple[int, int]) -> Camera:
    fx, fy, cx, cy = numbers[:4]
    return Camera(*size, fx, fy, cx, cy, tuple(numbers[4:]) or None)


def _span(stamps: Array) -> str:
    return f"{stamps.min():.3f} to {stamps.max():.3f}" if len(stamps) else "nothing"
