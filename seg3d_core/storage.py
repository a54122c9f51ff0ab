# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Saving and loading a scene: one file, no pickle, replaced in one step (design in `archive`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .archive import Archive, read_archive, write_archive
from .config import Config
from .errors import MapFileError, printable
from .scene import Scene
from .types import Array

_LONGEST_NAME = 200  # characters, of a label or an encoder


@dataclass(frozen=True, eq=False)
class SavedScene:
    """A scene's state, copied: may be written by any thread while the scene goes on.

    `names` maps instance ids to labels, `encoder_id` says whose; `map_kind` is `fused` or `fixed`.
    """

    meta: Mapping[str, Any]
    arrays: Mapping[str, Array]
    blobs: Mapping[str, bytes]
    config: Mapping[str, Any]
    map_kind: str
    names: Mapping[int, str]
    encoder_id: str


def copy_scene(scene: Scene, names: Mapping[int, str], encoder_id: str) -> SavedScene:
    """The state as of now. Call it in the thread that owns the scene."""
    meta, arrays, blobs = scene.state()
    return SavedScene(meta, arrays, blobs, scene.config.model_dump(), map_kind_of(scene), dict(names), encoder_id)


def map_kind_of(scene: Scene) -> str:
    """`fixed` where the cloud was given, `fused` where frames make it."""
    from .mapping.fixed_map import FixedMap

    return "fixed" if isinstance(scene.map, FixedMap) else "fused"


def write_scene(path: Path, saved: SavedScene, *, overwrite: bool = False) -> None:
    """Writes beside the target and renames. Raises MapFileError; an existing file stays whole."""
    meta = {
        "scene": dict(saved.meta),
        "config": dict(saved.config),
        "map_kind": saved.map_kind,
        "names": {str(i): name for i, name in saved.names.items()},
        "encoder_id": saved.encoder_id,
    }
    write_archive(path, meta, saved.arrays, saved.blobs, overwrite=overwrite)


def read_scene(path: Path) -> SavedScene:
    """Reads and checks a saved scene. Raises MapFileError."""
    archive = read_archive(path)
    try:
        return _parse(archive)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise MapFileError(
            "damaged", f"{path} is a map archive, but its description is incomplete: {error!r}"
        ) from None


def _parse(archive: Archive) -> SavedScene:
    meta = archive.meta
    if meta["map_kind"] not in ("fused", "fixed"):
        raise ValueError(f"map_kind {meta['map_kind']!r}")
    return SavedScene(
        dict(meta["scene"]),
        archive.arrays,
        archive.blobs,
        dict(meta["config"]),
        str(meta["map_kind"]),
        {int(i): printable(str(name), _LONGEST_NAME) for i, name in meta["names"].items()},
        printable(str(meta["encoder_id"]), _LONGEST_NAME),
    )


def config_of(saved: SavedScene) -> Config:
    """The settings that the map was made with. Unknown settings of a newer version fall back to defaults."""
    tree = {}
    for name, field in Config.model_fields.items():
        value = saved.config.get(name, field.default)
        known = getattr(type(field.default), "model_fields", None)
        tree[name] = {k: v for k, v in value.items() if k in known} if known and isinstance(value, Mapping) else value
    try:
        return Config.model_validate(tree)
    except ValueError as error:
        raise MapFileError("damaged", f"the map's settings are not valid: {error}") from None


def restore_scene(scene: Scene, saved: SavedScene) -> None:
    """Continues a saved map in a scene of the same kind: same instance ids. Raises MapFileError."""
    if map_kind_of(scene) != saved.map_kind:
        raise MapFileError(
            "wrong_kind",
            f"the file holds a {saved.map_kind} map, this scene a {map_kind_of(scene)} one: "
            "fixed maps go with a given cloud of points, fused ones without",
        )
    try:
        voxel = float(saved.config.get("map", {}).get("voxel_size", scene.config.map.voxel_size))
    except (AttributeError, TypeError, ValueError) as error:
        raise MapFileError("damaged", f"the map's settings are not valid: no map.voxel_size ({error})") from None
    if saved.map_kind == "fused" and voxel != scene.config.map.voxel_size:
        raise MapFileError(
            "wrong_voxel_size",
            f"the map was made with voxels of {voxel} m, this scene has {scene.config.map.voxel_size} m: "
            f"set map.voxel_size={voxel}",
        )
    scene.restore(saved.meta, saved.arrays, saved.blobs)
