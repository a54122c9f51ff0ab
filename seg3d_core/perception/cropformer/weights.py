# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""The published entity weights: behind a consent page, so that a person brings the file. No torch here.

No SHA-256 of them is known. The one of a file that is taken in is written beside it, and compared later.
"""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path

from ...errors import WeightsError
from ..package_index import OnProgress, sha256_of
from ..weights import atomic_file, cache_folder

logger = logging.getLogger(__name__)

CODE_LICENCE = "CC BY-NC 4.0 (the release's; the built-in network is Apache-2.0)"
WEIGHTS_LICENCE = "CC BY-NC 4.0: not for commercial use"
SOURCE = "hub data set qqlu1992/Adobe_EntitySeg, CropFormer_model/Entity_Segmentation (access on request)"
_CHUNK = 1 << 20


@dataclass(frozen=True)
class EntityWeights:
    """A published file. `size` in bytes where it is known, `megabytes` of its parameters; `purpose` in words."""

    name: str
    purpose: str
    file: str
    megabytes: float
    size: int | None = None


RECORDS: dict[str, EntityWeights] = {
    record.name: record
    for record in (
        EntityWeights(
            "cropformer_hornet",
            "class-agnostic masks, whole image and four crops (RE0's settings name it)",
            "CropFormer_hornet_3x_03823a.pth",
            888.6,
            888_996_425,
        ),
        EntityWeights(
            "mask2former_hornet",
            "class-agnostic masks, whole image only (MaskClustering runs it); a fifth of the work",
            "Mask2Former_hornet_3x_576d0b.pth",
            882.3,
        ),
        EntityWeights("cropformer_swin_large", "CropFormer, Swin-L", "CropFormer_swin_large_w7_3x_6843ef.pth", 867.3),
        EntityWeights("mask2former_swin_large", "plain, Swin-L", "Mask2Former_swin_large_w7_3x_dd4543.pth", 861.0),
        EntityWeights("cropformer_swin_tiny", "CropFormer, Swin-T", "CropFormer_swin_tiny_3x_5cea5e.pth", 195.9),
        EntityWeights("mask2former_swin_tiny", "plain, Swin-T", "Mask2Former_swin_tiny_3x_3cacfb.pth", 189.6),
    )
}


def find(name: str, weights_dir: str | Path = "") -> Path | None:
    """The file, not verified: in `weights_dir`, else in the user's cache folder."""
    folders = [Path(weights_dir).expanduser()] if weights_dir else []
    places = [folder / RECORDS[name].file for folder in (*folders, cache_folder() / "weights")]
    return next((place for place in places if place.is_file()), None)


def resolve(setting: str, weights_dir: str | Path = "") -> Path:
    """The file that a setting names, as a path or by a record's name. Raises WeightsError that says how to get it."""
    if setting in RECORDS:
        path = find(setting, weights_dir)
        if path is None:
            raise WeightsError(missing(setting))
        return path
    path = Path(setting).expanduser()
    if not setting or not path.is_file():
        raise WeightsError(f"no entity weights at {setting!r}: give a file, or one of {', '.join(RECORDS)}")
    return path


def missing(name: str) -> str:
    """What to do where the file of this name is not here."""
    file = RECORDS[name].file
    return (
        f"weights {name!r} are not here: ask for access to {SOURCE}, download {file} and run "
        f"`seg3d models fetch {name} --from {file}`; they are {WEIGHTS_LICENCE}"
    )


def take(name: str, source: Path, folder: Path | None = None, on_progress: OnProgress | None = None) -> Path:
    """Copies a file that a person brought into the cache folder and notes its SHA-256. Raises WeightsError."""
    record, size = RECORDS[name], 0
    target = (folder or cache_folder() / "weights") / record.file
    digest = hashlib.sha256()
    try:
        with source.open("rb") as stream, atomic_file(target) as out:
            while chunk := stream.read(_CHUNK):
                digest.update(chunk)
                size += len(chunk)
                out.write(chunk)
                if on_progress:
                    on_progress(size, record.size or 0)
            if record.size is not None and size != record.size:
                raise WeightsError(f"{source} has {size} bytes, {record.file} has {record.size}: download it again")
        _note(target).write_text(f"{digest.hexdigest()}  {target.name}\n")
    except OSError as error:
        raise WeightsError(f"cannot copy {source} to {target}: {error}") from None
    return target


def verify(name: str, path: Path) -> str:
    """Compares size and the noted SHA-256; says what could be compared. Raises WeightsError."""
    record = RECORDS[name]
    try:
        if record.size is not None and path.stat().st_size != record.size:
            raise WeightsError(f"{path} has {path.stat().st_size} bytes instead of {record.size}: download it again")
        noted = _note(path).read_text().split()[0] if _note(path).is_file() else ""
        if not noted:
            return "no SHA-256 is known and none was noted"
        with path.open("rb") as file:
            found = sha256_of(file)
    except (OSError, IndexError) as error:
        raise WeightsError(f"cannot verify {path}: {error}") from None
    if found != noted:
        raise WeightsError(f"{path} has changed since it was taken in (SHA-256 {found}, then {noted})")
    return "right, as it was taken in"


def _note(path: Path) -> Path:
    return path.with_name(path.name + ".sha256")
