# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""The cache that training reads: one npz of each scene, one npz of its 2D features; and published feature files.

    cache/
    ├── splits/train.txt, val.txt, test.txt     names of scenes, one a line
    ├── scenes/<scene>.npz                      `CachedScene`
    └── features/<name>/<scene>.npz             `SceneFeatures`

Files are written beside their place and moved there, so that a killed run leaves whole ones alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from seg3d_core.errors import Seg3DError, SourceError
from seg3d_core.metrics.npz_arrays import check_array, read_arrays
from seg3d_core.types import Array

from .files import read_names, replacing

FORMAT = 1
_SCENE = {
    "xyz": "numbers", "rgb": "integers", "superpoints": "integers", "instance": "integers",
    "scannet20_ids": "integers", "scannet200_ids": "integers", "poses": "numbers", "frames": "integers",
    "depth_intrinsics": "numbers", "colour_intrinsics": "numbers", "sizes": "integers",
}  # fmt: skip
_FEATURES = {"image_features": "numbers", "queries": "numbers", "query_positions": "numbers", "scores": "numbers"}


@dataclass(frozen=True, eq=False)
class CachedScene:
    """One scan: N points (the vertices of its mesh, in its raw frame) and F chosen frames.

    Args:
        xyz: float32 (N, 3) metres; rgb: uint8 (N, 3).
        superpoints: int32 (N,), 0 .. S - 1, each used.
        instance: int32 (N,), objects from 1, 0 = none.
        scannet20_ids, scannet200_ids: int16 (N,) ids of the data set (NYU40's and ScanNet's own), 0 = none.
        frames: int32 (F,) numbers of the chosen frames; poses: float64 (F, 4, 4), camera to world.
        depth_intrinsics, colour_intrinsics: float64 (4, 4), for `sizes` int32 (2, 2): width and height of both.
        settings: what made it, as text.
    """

    xyz: Array
    rgb: Array
    superpoints: Array
    instance: Array
    scannet20_ids: Array
    scannet200_ids: Array
    frames: Array
    poses: Array
    depth_intrinsics: Array
    colour_intrinsics: Array
    sizes: Array
    settings: str = ""

    @property
    def is_annotated(self) -> bool:
        """Scans of the hidden test set are not."""
        return bool((self.scannet200_ids > 0).any() or (self.instance > 0).any())

    def ids(self, benchmark: str) -> Array:
        """The data set's ids int16 (N,) that `benchmark` counts in."""
        return self.scannet20_ids if benchmark == "scannet20" else self.scannet200_ids


@dataclass(frozen=True, eq=False)
class SceneFeatures:
    """What 2D models saw: image features float (N, C), zeros where no view saw the point; O object queries (O, C) at
    query_positions float32 (O, 3) with scores float32 (O,). Features of different `encoder_id`s are never mixed."""

    image_features: Array
    queries: Array
    query_positions: Array
    scores: Array
    encoder_id: str
    settings: str = ""


def write_scene(path: Path, scene: CachedScene) -> None:
    """Raises Seg3DError where the place can't be written."""
    arrays: dict[str, Array] = {name: getattr(scene, name) for name in _SCENE}
    arrays["settings"] = np.array(scene.settings)
    _write(path, arrays, compress=True)


def write_features(path: Path, features: SceneFeatures) -> None:
    """At half precision, uncompressed: it is read each epoch. Raises Seg3DError where the place can't be written."""
    arrays: dict[str, Array] = {
        "image_features": features.image_features.astype(np.float16),
        "queries": features.queries.astype(np.float16),
        "query_positions": features.query_positions.astype(np.float32),
        "scores": features.scores.astype(np.float32),
        "encoder_id": np.array(features.encoder_id),
        "settings": np.array(features.settings),
    }
    _write(path, arrays, compress=False)


def _write(path: Path, arrays: Mapping[str, Array], compress: bool) -> None:
    save = np.savez_compressed if compress else np.savez
    with replacing(path) as file:
        save(file, format=np.array(FORMAT), **arrays)  # type: ignore[arg-type]


def read_scene(path: Path) -> CachedScene:
    """Raises Seg3DError that names a damaged file and the command that makes it again."""
    arrays = _read(path, {*_SCENE, "settings"}, "scenes")
    n, f = len(arrays.get("xyz", ())), len(arrays.get("frames", ()))
    shapes: dict[str, tuple[int | None, ...]] = dict.fromkeys(_SCENE, (n,))
    shapes |= {"xyz": (n, 3), "rgb": (n, 3), "frames": (f,), "poses": (f, 4, 4), "sizes": (2, 2)}
    shapes |= {"depth_intrinsics": (4, 4), "colour_intrinsics": (4, 4)}
    try:
        checked = {name: check_array(path, arrays, name, shapes[name], kind) for name, kind in _SCENE.items()}
        superpoints = checked["superpoints"]
        if not n or superpoints.min() < 0 or not np.bincount(superpoints).all():
            raise Seg3DError(f"{path}: superpoints are not numbered 0, 1, 2, ... without gaps")
    except Seg3DError as error:
        raise Seg3DError(f"{error}; {_remedy(path, 'scenes')}") from None
    return CachedScene(**checked, settings=str(arrays.get("settings", "")))


def read_own_features(path: Path) -> SceneFeatures:
    """What `write_features` wrote. Raises Seg3DError."""
    arrays = _read(path, {*_FEATURES, "encoder_id", "settings"}, "features")
    o = len(arrays.get("queries", ()))
    shapes = {"image_features": (None, None), "queries": (o, None), "query_positions": (o, 3), "scores": (o,)}
    try:
        checked = {name: check_array(path, arrays, name, shapes[name], kind) for name, kind in _FEATURES.items()}
    except Seg3DError as error:
        raise Seg3DError(f"{error}; {_remedy(path, 'features')}") from None
    return SceneFeatures(
        **checked, encoder_id=str(arrays.get("encoder_id", "")), settings=str(arrays.get("settings", ""))
    )


def _read(path: Path, names: set[str], command: str) -> dict[str, Array]:
    try:
        arrays = read_arrays(path, {*names, "format"})
    except Seg3DError as error:
        raise Seg3DError(f"{error}; {_remedy(path, command)}") from None
    found = arrays.get("format")
    if found is None or found.shape != () or found.dtype.kind not in "iu" or int(found) != FORMAT:
        raise Seg3DError(f"{path} is no cache file of format {FORMAT}; {_remedy(path, command)}")
    return arrays


def _remedy(path: Path, command: str) -> str:
    return f"`python -m training.prepare {command}` makes {path.name} again and leaves the others alone"


def read_split(root: Path, split: str) -> list[str]:
    """Scene names of root/splits/`split`.txt. Raises Seg3DError."""
    path = root / "splits" / f"{split}.txt"
    try:
        return read_names(path)
    except SourceError as error:
        known = ", ".join(sorted(p.stem for p in path.parent.glob("*.txt"))) or "none"
        raise SourceError(f"{error}; splits there: {known}") from None
