# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""The files of a ScanNet v2 release as they are downloaded, save for `.sens` (`seg3d_core.sources.sens`)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from seg3d_core.errors import SourceError, printable
from seg3d_core.mapping.points_file import read_points
from seg3d_core.types import Array

from .files import read_names
from .readers_labels import TABLE_NAME, CategoryIds

SPLITS = ("train", "val", "test")
_SIZES = {"char": 1, "uchar": 1, "int8": 1, "uint8": 1, "short": 2, "ushort": 2, "int16": 2, "uint16": 2, "int": 4,
          "uint": 4, "int32": 4, "uint32": 4, "float": 4, "float32": 4, "double": 8, "float64": 8}  # fmt: skip
_LISTS = {
    f"property list {count} {index}" for count in ("uchar", "uint8") for index in ("int", "uint", "int32", "uint32")
}
_HEADER_LINES, _MOST_JSON, _LARGEST_ID = 1000, 1 << 29, 2**31 - 1


@dataclass(frozen=True)
class ScanFiles:
    """Where one scan's files lie; a scan of the hidden test set has no annotation."""

    scene: str
    folder: Path
    is_test: bool

    @property
    def sens(self) -> Path:
        return self.folder / f"{self.scene}.sens"

    @property
    def mesh(self) -> Path:
        return self.folder / f"{self.scene}_vh_clean_2.ply"

    @property
    def segments(self) -> Path:
        return self.folder / f"{self.scene}_vh_clean_2.0.010000.segs.json"

    @property
    def aggregation(self) -> Path:
        """Of the decimated mesh; `_vh_clean.aggregation.json` is of another one."""
        return self.folder / f"{self.scene}.aggregation.json"

    def missing(self, with_images: bool = True) -> list[str]:
        """Names of files that are not there."""
        wanted = [self.mesh] + [self.sens] * with_images
        if not self.is_test:
            wanted += [self.segments, self.aggregation]
        return [path.name for path in wanted if not path.is_file()]


def find_scans(root: Path, splits: tuple[str, ...] = SPLITS) -> dict[str, list[ScanFiles]]:
    """The scans of a release by split, of lists `scannetv2_<split>.txt`. Raises SourceError where there is none.

    Scans stand in root/scans, those of the test split in root/scans_test.
    """
    found: dict[str, list[ScanFiles]] = {}
    for split in splits:
        path = _find(root, f"scannetv2_{split}.txt")
        if path is None:
            continue
        names = read_names(path)
        folder = root / ("scans_test" if split == "test" else "scans")
        found[split] = [ScanFiles(name, folder / name, split == "test") for name in names]
    if not found:
        raise SourceError(
            f"{root} has no list of scenes: put scannetv2_train.txt, scannetv2_val.txt and scannetv2_test.txt there "
            "(they are in ScanNet's repository, Tasks/Benchmark)"
        )
    return found


def find_label_table(root: Path) -> Path:
    """Raises SourceError where it is missing."""
    path = _find(root, TABLE_NAME)
    if path is None:
        raise SourceError(f"{root} has no {TABLE_NAME}: ScanNet's download script fetches it beside the scans")
    return path


def _find(root: Path, name: str) -> Path | None:
    places = (root, root / "tasks", root / "Tasks" / "Benchmark", root / "meta_data", root / "splits")
    return next((place / name for place in places if (place / name).is_file()), None)


def read_mesh(path: Path) -> tuple[Array, Array, Array]:
    """Vertices float32 (N, 3) in metres, colours uint8 (N, 3) and faces int32 (F, 3). Raises SourceError."""
    xyz, rgb, _ = read_points(path)
    if rgb is None:
        raise SourceError(f"{path} has no colours: take the _vh_clean_2.ply of the scan")
    try:
        with path.open("rb") as file:
            vertex_size, face_count = _mesh_header(file, path)
            file.seek(len(xyz) * vertex_size, 1)
            face = np.dtype([("count", "u1"), ("corners", "<i4", 3)])
            there = (path.stat().st_size - file.tell()) // face.itemsize
            if there < face_count:
                raise SourceError(f"{path} ends early: {there} of {face_count} triangles are there; download it again")
            table = np.frombuffer(file.read(face_count * face.itemsize), face)
    except OSError as error:
        raise SourceError(f"cannot read {path}: {error.strerror or error}") from None
    corners = table["corners"]
    if (table["count"] != 3).any() or (len(corners) and (corners.min() < 0 or corners.max() >= len(xyz))):
        raise SourceError(f"{path}: its faces are not triangles of its {len(xyz)} vertices")
    return xyz, rgb, np.ascontiguousarray(corners, np.int32)


def _mesh_header(file: BinaryIO, path: Path) -> tuple[int, int]:
    """Bytes of a vertex and number of faces; the file stands at its first vertex then."""
    element, vertex_size, faces, lines = "", 0, -1, []
    for _ in range(_HEADER_LINES):
        words = file.readline(1000).decode("ascii", "replace").split()
        lines.append(words)
        if words[:1] == ["element"] and len(words) == 3:
            element = words[1]
            faces = int(words[2]) if element == "face" and words[2].isdigit() else faces
        elif words[:1] == ["property"] and len(words) > 2 and element == "vertex":
            vertex_size += _SIZES.get(words[1], 0)
        elif words == ["end_header"]:
            break
    lists = [" ".join(words[:4]) for words in lines if words[:2] == ["property", "list"]]
    if ["format", "binary_little_endian", "1.0"] not in lines or faces < 0 or len(lists) != 1 or lists[0] not in _LISTS:
        raise SourceError(f"{path} is no binary little-endian PLY of triangles, as ScanNet's _vh_clean_2.ply are")
    return vertex_size, faces


@dataclass(frozen=True)
class AnnotatedObject:
    """number from 1, raw category, segments of the mesh."""

    number: int
    category: str
    segments: tuple[int, ...]


def read_segments(path: Path, vertices: int) -> Array:
    """The segment of each of so many vertices, int64 (N,). Raises SourceError."""
    content = _read_json(path)
    values = content.get("segIndices") if isinstance(content, dict) else None
    if not isinstance(values, list) or not all(type(value) is int for value in values):
        raise SourceError(f"{path} has no list `segIndices` of integers: download it again")
    if len(values) != vertices:
        raise SourceError(
            f"{path} is of {len(values)} vertices, the mesh has {vertices}: they belong to different scans"
        )
    try:
        return np.array(values, np.int64)
    except OverflowError:
        raise SourceError(f"{path}: `segIndices` holds numbers that name no segment: download it again") from None


def read_aggregation(path: Path) -> list[AnnotatedObject]:
    """The annotated objects, in file order. Raises SourceError."""
    content = _read_json(path)
    try:
        objects = [
            AnnotatedObject(int(group["objectId"]) + 1, str(group["label"]), tuple(map(int, group["segments"])))
            for group in content["segGroups"]
        ]
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise SourceError(
            f"{path} is no aggregation ({printable(repr(error), 200)}): "
            '{"segGroups": [{"objectId", "label", "segments"}]}'
        ) from None
    if any(not 1 <= each.number <= _LARGEST_ID for each in objects):
        raise SourceError(f"{path}: an objectId is below 0, or larger than any scan has")
    if any(abs(segment) > _LARGEST_ID for each in objects for segment in each.segments):
        raise SourceError(f"{path}: a segment's number is larger than any scan has")
    return objects


def _read_json(path: Path) -> Any:
    try:
        if path.stat().st_size > _MOST_JSON:
            raise SourceError(f"{path} is too large ({path.stat().st_size} bytes) to be an annotation")
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SourceError(f"cannot read {path}: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        raise SourceError(f"{path} is damaged ({printable(str(error), 200)}): download it again") from None


@dataclass(frozen=True, eq=False)
class PointLabels:
    """Of N vertices: instance int32, objects from 1; ids int16 of ScanNet's own table and of NYU40; 0 = none."""

    instance: Array
    scannet200_ids: Array
    scannet20_ids: Array
    unknown: tuple[str, ...] = ()
    """Raw categories that the table lacks."""

    def at(self, rows: Array) -> PointLabels:
        """Those of vertices int (M,), none where that is -1."""
        parts = (self.instance, self.scannet200_ids, self.scannet20_ids)
        instance, own, nyu = (np.where(rows >= 0, part[rows], 0).astype(part.dtype) for part in parts)
        return PointLabels(instance, own, nyu, self.unknown)


def label_points(segments: Array, objects: list[AnnotatedObject], table: dict[str, CategoryIds]) -> PointLabels:
    """Objects in file order: where two claim a segment, the later one has it; so with classes, in order of the first
    object of each raw category."""
    names, of_point = np.unique(segments, return_inverse=True)
    owner, category = np.zeros(len(names), np.int32), np.full(len(names), -1)
    categories = list(dict.fromkeys(each.category for each in objects))
    rank = {name: number for number, name in enumerate(categories)}
    for each in objects:
        rows = _rows(names, each.segments)
        owner[rows] = each.number
        category[rows] = np.maximum(category[rows], rank[each.category])
    ids = [table.get(name, CategoryIds(0, 0)) for name in categories] + [CategoryIds(0, 0)]
    own, nyu = np.array([i.scannet200 for i in ids], np.int16), np.array([i.scannet20 for i in ids], np.int16)
    unknown = tuple(name for name in categories if name not in table)
    return PointLabels(owner[of_point], own[category][of_point], nyu[category][of_point], unknown)


def _rows(names: Array, wanted: tuple[int, ...]) -> Array:
    """Places in the ascending `names`; what is not there is left out."""
    values = np.array(wanted, np.int64)
    place = np.minimum(np.searchsorted(names, values), len(names) - 1)
    return place[names[place] == values]


def contiguous(segments: Array) -> Array:
    """The same parts, int32 (N,), numbered 0, 1, 2, ... by their first vertices."""
    _, first, inverse = np.unique(segments, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first)).astype(np.int32)[inverse.reshape(-1)]
