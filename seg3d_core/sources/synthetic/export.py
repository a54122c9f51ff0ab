# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Writing a generated room in ScanNet's exported layout, for tools that read folders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ...errors import SourceError
from ...types import Array, Frame
from .source import SyntheticSource

_VIEW_PIXELS = 60


def export_scannet(source: SyntheticSource, folder: str | Path, points: int = 200_000) -> Path:
    """Writes `color/<i>.jpg` (quality 90), `depth/<i>.png` (16-bit millimetres), `pose/<i>.txt` (camera to world),
    `intrinsic/intrinsic_depth.txt` and `intrinsic_color.txt` (4x4), `instance/<i>.png` (16-bit ids), `points.npz`
    (`xyz` float32, `rgb` uint8, `instance` int32, `normal` int8 x127) and `instances.json`; returns the folder.

    A noisy source gives its noisy depth and poses; `points.npz` is exact always. `SourceError` where the folder
    can't be written or holds files already.
    """
    root = Path(folder)
    try:
        if root.exists() and any(root.iterdir()):
            raise SourceError(f"{root} is not empty: name a new folder for the exported room")
        for name in ("color", "depth", "pose", "intrinsic", "instance"):
            (root / name).mkdir(parents=True, exist_ok=True)
        views: dict[int, int] = {}
        for frame in source:
            assert frame.instance is not None
            _write_frame(root, frame, frame.instance)
            ids, pixels = np.unique(frame.instance, return_counts=True)
            for number in ids[pixels >= _VIEW_PIXELS]:
                views[int(number)] = views.get(int(number), 0) + 1
        matrix = np.eye(4)
        matrix[:3, :3] = source.camera.matrix
        for name in ("depth", "color"):
            np.savetxt(root / "intrinsic" / f"intrinsic_{name}.txt", matrix, fmt="%.6f")
        xyz, rgb, normals, instance = source.surface_points(points)
        normal = np.round(normals * 127).astype(np.int8)
        np.savez_compressed(root / "points.npz", xyz=xyz, rgb=rgb, instance=instance, normal=normal)
        table = {"instances": _table(source, views, xyz, instance)}
        (root / "instances.json").write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise SourceError(f"cannot write the room to {root}: {error}") from error
    return root


def _write_frame(root: Path, frame: Frame, instance: Array) -> None:
    millimetres = np.clip(np.round(frame.depth * 1000), 0, 65535).astype(np.uint16)
    images: dict[str, tuple[Array, list[int]]] = {
        f"color/{frame.name}.jpg": (cv2.cvtColor(frame.rgb, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 90]),
        f"depth/{frame.name}.png": (millimetres, []),
        f"instance/{frame.name}.png": (instance.astype(np.uint16), []),
    }
    for name, (image, options) in images.items():
        done, data = cv2.imencode(Path(name).suffix, image, options)
        if not done:
            raise SourceError(f"{root / name} could not be encoded")
        (root / name).write_bytes(data.tobytes())
    np.savetxt(root / "pose" / f"{frame.name}.txt", frame.T_world_camera, fmt="%.9f")


def _table(source: SyntheticSource, views: dict[int, int], xyz: Array, instance: Array) -> dict[str, Any]:
    """The rows of `instances.json`: those instances that frames or points show."""
    table: dict[str, Any] = {}
    for number, facts in source.instances.items():
        rows = xyz[instance == number]
        if not len(rows) and number not in views:
            continue
        box = {"box_min": rows.min(0).tolist(), "box_max": rows.max(0).tolist()} if len(rows) else {}
        table[str(number)] = {
            "label": facts["label"], "category": facts["label"], "class_id": facts["class_id"], "points": len(rows),
            "views": views.get(number, 0), **box, "is_structure": facts["is_structure"],
            "is_carpet": facts["is_carpet"],
        }  # fmt: skip
    return table
