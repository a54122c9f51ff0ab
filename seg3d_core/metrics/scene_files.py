# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Which files are the predictions and the ground truth of which scene."""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..errors import Seg3DError
from .benchmark_text import read_predictions_text, read_truth_text
from .ground_truth import GroundTruth, read_house, read_truth_npz
from .predictions import Predictions, read_predictions_npz

Kind = Literal["map", "text", "npz", "house"]

_MAP = "map.seg3d"
_KINDS: dict[str, Kind] = {".seg3d": "map", ".txt": "text", ".npz": "npz"}
_PREDICTIONS = (
    "predictions are a .seg3d map, an .npz or .txt file, a folder that `seg3d run` left, or a folder of these, "
    "named by scene"
)
_TRUTH = (
    "ground truth is a .txt or .npz file, a folder of these named by scene, or a home's folder with `points.npz` and "
    "`instances.json`, or a folder of homes"
)


@dataclass(frozen=True)
class SceneFile:
    """One scene's predictions or ground truth; `path` is a file, of a `house` the folder."""

    scene: str
    path: Path
    kind: Kind


def find_predictions(path: Path) -> list[SceneFile]:
    """Maps, npz and text files by scene, sorted. Raises Seg3DError when there are none or a scene has two."""
    _check_exists(path, _PREDICTIONS)
    if path.is_file():
        return [_single(path, ("map", "text", "npz"), _PREDICTIONS)]
    if (path / _MAP).is_file():
        return [SceneFile(path.resolve().name, path / _MAP, "map")]
    maps = [SceneFile(p.parent.name, p, "map") for p in path.glob(f"*/{_MAP}")]
    return _checked(path, maps + _files(path, ("map", "text", "npz")), _PREDICTIONS)


def find_truth(path: Path) -> list[SceneFile]:
    """Homes, npz and text files by scene, sorted. Raises Seg3DError when there are none or a scene has two."""
    _check_exists(path, _TRUTH)
    if path.is_file() and path.name in ("points.npz", "instances.json") and _is_house(path.parent):
        path = path.parent
    if path.is_file():
        return [_single(path, ("text", "npz"), _TRUTH)]
    if _is_house(path):
        return [SceneFile(path.resolve().name, path, "house")]
    homes = [SceneFile(p.parent.name, p.parent, "house") for p in path.glob("*/instances.json") if _is_house(p.parent)]
    return _checked(path, homes or _files(path, ("text", "npz")), _TRUTH)


def pair(
    predictions: Sequence[SceneFile], truths: Sequence[SceneFile], *, only_common: bool = False
) -> list[tuple[SceneFile, SceneFile]]:
    """(predictions, ground truth) of each scene; one of each belong together whatever their names.

    Raises Seg3DError for scenes that only one side has, unless `only_common`.
    """
    if len(predictions) == 1 and len(truths) == 1:
        return [(predictions[0], truths[0])]
    by_scene = {file.scene: file for file in predictions}
    pairs = [(by_scene[truth.scene], truth) for truth in truths if truth.scene in by_scene]
    common = {truth.scene for _, truth in pairs}
    missing = [file.scene for file in truths if file.scene not in common]
    extra = [file.scene for file in predictions if file.scene not in common]
    if not pairs:
        raise Seg3DError(
            f"no scene has both: predictions are there for {_few(extra)}, ground truth for {_few(missing)}; "
            "files or folders of one scene must have one name"
        )
    if (missing or extra) and not only_common:
        parts = [f"no predictions for {_few(missing)}"] * bool(missing)
        parts += [f"no ground truth for {_few(extra)}"] * bool(extra)
        raise Seg3DError(
            f"{' and '.join(parts)}: an empty file says that nothing was found; "
            f"--only-common evaluates {len(pairs)} of {len(truths)} scenes with ground truth"
        )
    return pairs


def read_predictions(file: SceneFile) -> Predictions:
    """Of an npz or text file. Raises Seg3DError."""
    return read_predictions_text(file.path) if file.kind == "text" else read_predictions_npz(file.path)


def read_truth(file: SceneFile, category_ids: MutableMapping[str, int]) -> GroundTruth:
    """Of any kind; homes number their categories in `category_ids`. Raises Seg3DError."""
    if file.kind == "house":
        return read_house(file.path, category_ids)
    return read_truth_text(file.path) if file.kind == "text" else read_truth_npz(file.path)


def _check_exists(path: Path, wanted: str) -> None:
    if not path.exists():
        raise Seg3DError(f"{path} does not exist: {wanted}")


def _is_house(folder: Path) -> bool:
    return (folder / "points.npz").is_file() and (folder / "instances.json").is_file()


def _single(path: Path, kinds: Sequence[Kind], wanted: str) -> SceneFile:
    kind = _KINDS.get(path.suffix)
    if kind is None or kind not in kinds:
        raise Seg3DError(f"{path} is of no known kind: {wanted}")
    is_of_run = path.name in (_MAP, "instances.npz")
    return SceneFile(path.resolve().parent.name if is_of_run else path.stem, path, kind)


def _files(folder: Path, kinds: Sequence[Kind]) -> list[SceneFile]:
    """The folder's own files; an npz beside a text file of the same name holds its positions."""
    files = [SceneFile(p.stem, p, _KINDS[p.suffix]) for p in folder.iterdir() if p.suffix in _KINDS and p.is_file()]
    texts = {file.scene for file in files if file.kind == "text"}
    return [f for f in files if f.kind in kinds and not (f.kind == "npz" and f.scene in texts)]


def _checked(folder: Path, files: Sequence[SceneFile], wanted: str) -> list[SceneFile]:
    if not files:
        raise Seg3DError(f"nothing to evaluate in {folder}: {wanted}")
    scenes: dict[str, SceneFile] = {}
    for file in files:
        other = scenes.setdefault(file.scene, file)
        if other is not file:
            raise Seg3DError(f"scene {file.scene} is there twice, {other.path} and {file.path}: name one of them")
    return [scenes[name] for name in sorted(scenes)]


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "") or "none"
