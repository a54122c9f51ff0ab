# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Generated rooms as a raw ScanNet v2 release: the files that a person with the agreement downloads, byte for byte
in their formats.

    release/
    ├── scans/<scene>/<scene>.sens, .txt, _vh_clean_2.ply, _vh_clean_2.0.010000.segs.json, .aggregation.json
    ├── scans_test/<scene>/<scene>.sens, .txt, _vh_clean_2.ply
    ├── scannetv2-labels.combined.tsv
    └── scannetv2_train.txt, scannetv2_val.txt, scannetv2_test.txt
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from ...errors import SourceError
from ...metrics.classes import class_lists
from ...types import Array
from ..sens import SensFrame, SensHeader, write_sens
from .classes import CLASSES
from .export_mesh import ScanMesh, scan_mesh
from .source import SyntheticSource

Segmenter = Callable[[Array, Array], Array]

# Ids of ScanNet's table that no benchmark lists, for what its 200 classes lack.
_OTHER_IDS = {"wall": 1, "floor": 3, "rug": 1350, "vase": 1351}
_NYU40 = {
    "wall": 1, "floor": 2, "cabinet": 3, "kitchen cabinet": 3, "bed": 4, "chair": 5, "office chair": 5, "armchair": 5,
    "stool": 5, "couch": 6, "table": 7, "coffee table": 7, "door": 8, "window": 9, "bookshelf": 10, "picture": 11,
    "desk": 14, "shelf": 15, "curtain": 16, "dresser": 17, "pillow": 18, "mirror": 19, "rug": 20, "ceiling": 22,
    "book": 23, "refrigerator": 24, "tv": 25, "towel": 27, "box": 29, "nightstand": 32, "toilet": 33, "sink": 34,
    "lamp": 35, "bathtub": 36,
}  # fmt: skip
_OTHER_FURNITURE, _OTHER_PROP = 39, 40
_FURNITURE = frozenset({"tv stand", "wardrobe", "bench", "ottoman", "stove", "radiator"})
_COLUMNS = (
    "id", "raw_category", "category", "count", "nyu40id", "eigen13id", "nyuClass", "nyu40class", "eigen13class",
    "ModelNet40", "ModelNet10", "ShapeNetCore55", "synsetoffset", "wnsynsetid", "wnsynsetkey", "mpcat40",
    "mpcat40index",
)  # fmt: skip


def export_raw_scannet(
    rooms: Mapping[str, Sequence[SyntheticSource]], folder: str | Path, segment: Segmenter, edge: float = 0.05
) -> Path:
    """Writes rooms by split (`train`, `val`, `test`) as a whole release; returns the folder.

    `segment` gives the superpoints int (N,) of a mesh of vertices (N, 3) and faces (F, 3), such as
    `seg3d_core.mapping.superpoints.mesh_superpoints`. Scenes are named scene0000_00, scene0001_00, ... Raises
    SourceError where the folder can't be written or holds files already.
    """
    root = Path(folder)
    try:
        if root.exists() and any(root.iterdir()):
            raise SourceError(f"{root} is not empty: name a new folder for the exported release")
        root.mkdir(parents=True, exist_ok=True)
        write_release_tables(root, {split: len(sources) for split, sources in rooms.items()})
        names = iter(f"scene{number:04d}_00" for number in range(10_000))
        for split, sources in rooms.items():
            for source in sources:
                export_raw_scan(source, root, next(names), segment, split == "test", edge)
    except OSError as error:
        raise SourceError(f"cannot write the release to {root}: {error}") from error
    return root


def write_release_tables(root: Path, counts: Mapping[str, int]) -> None:
    """The table of labels, and the lists of scenes by split, numbered through in the order of `counts`."""
    names = iter(f"scene{number:04d}_00" for number in range(10_000))
    for split, count in counts.items():
        lines = "".join(f"{next(names)}\n" for _ in range(count))
        (root / f"scannetv2_{split}.txt").write_text(lines, encoding="utf-8")
    (root / "scannetv2-labels.combined.tsv").write_text(_label_table(), encoding="utf-8")


def export_raw_scan(
    source: SyntheticSource, root: Path, scene: str, segment: Segmenter, is_test: bool = False, edge: float = 0.05
) -> Path:
    """Writes one scan, without annotation where `is_test`; returns its folder. Raises SourceError."""
    place = root / ("scans_test" if is_test else "scans") / scene
    place.mkdir(parents=True, exist_ok=True)
    count = write_sens(place / f"{scene}.sens", SensHeader(source.camera, source.camera), _frames(source))
    mesh = scan_mesh(source, edge)
    write_mesh(place / f"{scene}_vh_clean_2.ply", mesh)
    if not is_test:
        segments = np.asarray(segment(mesh.vertices, mesh.faces))
        parameters = {"kThresh": "0.01", "segMinVerts": "20", "minPoints": "750", "maxPoints": "30000"}
        described = {"params": parameters, "sceneId": scene, "segIndices": segments.tolist()}
        (place / f"{scene}_vh_clean_2.0.010000.segs.json").write_text(json.dumps(described), encoding="utf-8")
        (place / f"{scene}.aggregation.json").write_text(
            json.dumps(_aggregation(mesh, segments, scene)), encoding="utf-8"
        )
    facts = {
        "axisAlignment": " ".join(f"{number:.6f}" for number in np.eye(4).ravel()),
        "colorHeight": source.camera.height, "colorWidth": source.camera.width,
        "depthHeight": source.camera.height, "depthWidth": source.camera.width,
        "fx_color": source.camera.fx, "fy_color": source.camera.fy, "mx_color": source.camera.cx,
        "my_color": source.camera.cy, "numDepthFrames": count, "numColorFrames": count, "sceneType": source.room.kind,
    }  # fmt: skip
    (place / f"{scene}.txt").write_text("".join(f"{key} = {value}\n" for key, value in facts.items()), encoding="utf-8")
    return place


def _frames(source: SyntheticSource) -> Iterator[SensFrame]:
    for frame in source:
        depth = np.clip(np.round(frame.depth * 1000), 0, 65535).astype(np.uint16)
        yield SensFrame(frame.rgb, depth, frame.T_world_camera, frame.stamp)


def write_mesh(path: Path, mesh: ScanMesh) -> None:
    """Binary PLY with the properties that ScanNet's meshes have."""
    vertices = np.zeros(len(mesh.vertices), [("xyz", "<f4", 3), ("rgba", "u1", 4)])
    vertices["xyz"], vertices["rgba"][:, :3], vertices["rgba"][:, 3] = mesh.vertices, mesh.rgb, 255
    faces = np.zeros(len(mesh.faces), [("count", "u1"), ("corners", "<i4", 3)])
    faces["count"], faces["corners"] = 3, mesh.faces
    lines = ["ply", "format binary_little_endian 1.0", f"element vertex {len(vertices)}"]
    lines += [f"property float {name}" for name in "xyz"]
    lines += [f"property uchar {name}" for name in ("red", "green", "blue", "alpha")]
    lines += [f"element face {len(faces)}", "property list uchar int vertex_indices", "end_header", ""]
    path.write_bytes("\n".join(lines).encode() + vertices.tobytes() + faces.tobytes())


def _aggregation(mesh: ScanMesh, segments: Array, scene: str) -> dict[str, object]:
    """Each segment goes to the object that most of its vertices belong to."""
    pairs, counts = np.unique(np.stack([segments, mesh.objects]), axis=1, return_counts=True)
    order = np.lexsort((counts, pairs[0]))
    last = np.append(np.diff(pairs[0][order]) != 0, True)
    owner = pairs[:, order[last]]
    groups: list[dict[str, object]] = []
    for number, label in mesh.labels.items():
        own = owner[0][owner[1] == number].tolist()
        if own:
            groups.append({"id": len(groups), "objectId": len(groups), "segments": own, "label": label})
    return {
        "sceneId": f"scannet.{scene}",
        "appId": "seg3d.synthetic",
        "segGroups": groups,
        "segmentsFile": f"scannet.{scene}_vh_clean_2.0.010000.segs.json",
    }


def _label_table() -> str:
    known = {name: number for number, name in class_lists()["scannet200"].names.items()}
    rows = ["\t".join(_COLUMNS)]
    for name in CLASSES:
        other = _OTHER_FURNITURE if name in _FURNITURE else _OTHER_PROP
        row = {
            "id": str(known.get(name, _OTHER_IDS.get(name, 0))), "raw_category": name, "category": name, "count": "1",
            "nyu40id": str(_NYU40.get(name, other)),
        }  # fmt: skip
        rows.append("\t".join(row.get(column, "") for column in _COLUMNS))
    return "\n".join(rows) + "\n"
