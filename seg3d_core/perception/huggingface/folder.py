# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""A local folder of weights as a model hub lays it out. Nothing here imports torch, and nothing downloads."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ...errors import WeightsError, printable

_WEIGHTS = ("*.safetensors", "pytorch_model*.bin")


def checked_folder(folder: str | Path, setting: str, example: str) -> Path:
    """The folder, if it holds a model; `example` is a hub's name of one. WeightsError says how to get it."""
    how = (
        f"models are not fetched by name; download one, for example `hf download {example} --local-dir FOLDER`, "
        f"and set {setting} to that folder"
    )
    if not str(folder):
        raise WeightsError(f"{setting} is empty: {how}")
    path = Path(folder).expanduser()
    if not path.is_dir():
        raise WeightsError(f"{setting} = {folder}: no such folder; {how}")
    if not (path / "config.json").is_file():
        raise WeightsError(f"{setting} = {folder}: the folder has no config.json; {how}")
    if not weight_files(path):
        raise WeightsError(f"{setting} = {folder}: the folder has no weights (model.safetensors); {how}")
    return path


def weight_files(path: Path) -> list[Path]:
    """The safetensors files of a folder, else its pytorch_model files."""
    found = (sorted(path.glob(pattern)) for pattern in _WEIGHTS)
    return next((files for files in found if files), [])


def model_type(path: Path) -> str:
    """`model_type` of the folder's config.json. Raises WeightsError."""
    return str(read_json(path / "config.json").get("model_type", ""))


def checked_type(path: Path, known: Iterable[str]) -> str:
    """The folder's model type. Raises WeightsError where it is none of `known`."""
    found, wanted = model_type(path), list(known)
    if found not in wanted:
        raise WeightsError(f"{path} holds a model of type {printable(found, 60)!r}; wanted here: {', '.join(wanted)}")
    return found


def preprocessor_settings(path: Path) -> dict[str, Any]:
    """What the folder says of its image input, {} where it says nothing."""
    if (path / "preprocessor_config.json").is_file():
        return read_json(path / "preprocessor_config.json")
    if (path / "processor_config.json").is_file():
        settings = read_json(path / "processor_config.json").get("image_processor") or {}
        if not isinstance(settings, dict):
            raise WeightsError(f"{path}/processor_config.json: image_processor holds no settings; download it again")
        return settings
    return {}


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object. Raises WeightsError."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise WeightsError(f"cannot read {path}: {printable(str(error), 200)}; download the folder again") from None
    if not isinstance(content, dict):
        raise WeightsError(f"{path} holds no JSON object; download the folder again")
    return content


def fingerprint(files: Iterable[Path]) -> str:
    """Eight hex digits of the files' content: other weights, other features."""
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()[:8]
