# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Replica as NICE-SLAM renders and lays it out.

    Replica/
    ├── cam_params.json              {"camera": {"w", "h", "fx", "fy", "cx", "cy", "scale"}}
    └── room0/
        ├── traj.txt                 a line per frame: 16 numbers, 4x4 camera to world by rows, OpenCV axes, metres
        └── results/
            ├── frame000000.jpg      8-bit colour
            └── depth000000.png      16-bit, `scale` (6553.5) to the metre; 0 = none

`cam_params.json` may also lie in the scene's own folder. Line i of traj.txt belongs to frame number i. The
layout holds no clock: stamps are the number / `rate` (30 Hz). Names are the stems of the colour files.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import SourceError, printable
from ..types import Array, Camera
from .images import FileSequence, FrameFiles, by_stem, check_rate


class ReplicaSource(FileSequence):
    """Posed RGB-D from a Replica folder; the module's docstring is the layout. Raises SourceError."""

    def __init__(
        self,
        path: str | Path,
        *,
        stride: int = 1,
        max_frames: int | None = None,
        depth_scale: float | None = None,
        rate: float = 30.0,
    ):
        root = Path(path)
        check_rate(rate)
        camera, scale = _camera(root)
        poses = _poses(root / "traj.txt")
        if not (root / "results").is_dir():
            raise SourceError(f"{root} has no folder results/ with frame000000.jpg and depth000000.png")
        images = by_stem(root / "results", (".jpg", ".jpeg", ".png"))
        files = []
        for stem, file in images.items():
            digits = stem.removeprefix("frame")
            if not digits.isdecimal() or digits == stem:
                continue
            number = int(digits)
            pose = poses[number] if number < len(poses) else None
            files.append(FrameFiles(stem, number / rate, file, images.get(f"depth{digits}"), pose))
        if not any(f.depth is not None and f.pose is not None for f in files):
            raise SourceError(
                f"{root}: no frame has colour, depth and a pose ({len(files)} frame*.jpg in results/, {len(poses)} "
                "lines in traj.txt)"
            )
        super().__init__(
            root.resolve().name, "replica", files, camera, depth_scale or scale, stride=stride, max_frames=max_frames
        )


def _poses(path: Path) -> Array:
    """(n, 4, 4) of the lines of traj.txt."""
    try:
        return np.array(path.read_text().split(), float).reshape(-1, 4, 4)
    except (OSError, ValueError, UnicodeDecodeError) as error:
        raise SourceError(f"{path} must hold 16 numbers a line, camera to world: {printable(str(error))}") from None


def _camera(root: Path) -> tuple[Camera, float]:
    places = [root / "cam_params.json", root.resolve().parent / "cam_params.json"]
    file = next((place for place in places if place.is_file()), None)
    if file is None:
        raise SourceError(
            f"cam_params.json lies neither in {root} nor beside it; write "
            '{"camera": {"w": 1200, "h": 680, "fx": 600, "fy": 600, "cx": 599.5, "cy": 339.5, "scale": 6553.5}}'
        )
    try:
        values: dict[str, Any] = json.loads(file.read_text())
        values = values.get("camera", values)
        size = int(values["w"]), int(values["h"])
        fx, fy, cx, cy = (float(values[k]) for k in ("fx", "fy", "cx", "cy"))
        scale = float(values.get("scale", 6553.5))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        raise SourceError(f"{file} must hold w, h, fx, fy, cx, cy and scale as numbers") from None
    if not min(*size, fx, fy, scale) > 0:
        raise SourceError(f"{file}: w, h, fx, fy and scale must be above 0")
    return Camera(*size, fx, fy, cx, cy), scale
