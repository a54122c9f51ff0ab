# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""2D features of scenes, wherever they come from: the cache's own files, or published ones."""

from __future__ import annotations

from pathlib import Path

from seg3d_core.errors import Seg3DError
from seg3d_core.metrics.npz_arrays import read_arrays

from .readers_cache import SceneFeatures, read_own_features
from .readers_published import published_files, read_published_features


def check_features(root: Path, name: str, scene: str) -> None:
    """Raises Seg3DError unless root/features/`name`, or the folder `name` of published files, has the scene."""
    if _own(root, name, scene).is_file():
        return
    missing = [path.name for path in published_files(Path(name), scene) if not path.is_file()]
    if missing:
        raise Seg3DError(
            f"no 2D features {name!r} of {scene}: neither {_own(root, name, scene)}, which `python -m training.prepare "
            f"features` makes, nor published files in a folder {name} ({', '.join(missing)})"
        )


def features_id(root: Path, name: str, scene: str) -> str:
    """Which 2D model they are of; of published files the folder's name. Raises Seg3DError."""
    own = _own(root, name, scene)
    return str(read_arrays(own, ("encoder_id",)).get("encoder_id", "")) if own.is_file() else Path(name).name


def read_features(root: Path, name: str, scene: str, points: int) -> SceneFeatures:
    """Of a scene of N points. Raises Seg3DError for what is missing or damaged or belongs to other points."""
    check_features(root, name, scene)
    own = _own(root, name, scene)
    features = read_own_features(own) if own.is_file() else read_published_features(Path(name), scene)
    if len(features.image_features) != points:
        raise Seg3DError(
            f"2D features {name} of {scene} are for {len(features.image_features)} points, the scene has {points}: "
            "make scenes and features from the same scans"
        )
    return features


def _own(root: Path, name: str, scene: str) -> Path:
    return root / "features" / name / f"{scene}.npz"
