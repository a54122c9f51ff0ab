# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""A snapshot as binary PLY, which every point viewer opens."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..errors import Seg3DError
from ..types import Snapshot
from .colours import id_colours

_VERTEX = np.dtype(
    [
        *((name, "<f4") for name in ("x", "y", "z", "nx", "ny", "nz")),
        *((name, "u1") for name in ("red", "green", "blue")),
        *((name, "u1") for name in ("instance_red", "instance_green", "instance_blue")),
        ("instance", "<i4"),
    ]
)
_PLY_TYPES = {"<f4": "float", "|u1": "uchar", "<i4": "int"}


def export_ply(snapshot: Snapshot, path: str | Path, *, colour_by_instance: bool = False) -> None:
    """Writes position, normal, colour, instance colour and instance id (0 = none) of every point.

    Viewers show `red, green, blue`: the camera's colours, or those of the instances with `colour_by_instance`.
    Raises Seg3DError when the file can't be written.
    """
    cloud = snapshot.cloud
    tint = id_colours(snapshot.labels)
    vertices = np.empty(len(cloud), _VERTEX)
    for axis, name in enumerate("xyz"):
        vertices[name] = cloud.xyz[:, axis]
        vertices["n" + name] = cloud.normals[:, axis]
    for channel, name in enumerate(("red", "green", "blue")):
        vertices[name] = (tint if colour_by_instance else cloud.rgb)[:, channel]
        vertices["instance_" + name] = tint[:, channel]
    vertices["instance"] = snapshot.labels
    fields = [f"property {_PLY_TYPES[_VERTEX[name].str]} {name}" for name in _VERTEX.names or ()]
    header = "\n".join(
        ["ply", "format binary_little_endian 1.0", "comment seg3d, metres", f"element vertex {len(cloud)}", *fields]
    )
    try:
        with Path(path).open("wb") as file:
            file.write(f"{header}\nend_header\n".encode())
            file.write(vertices.tobytes())
    except OSError as error:
        raise Seg3DError(f"cannot write {path}: {error.strerror or error}; check its folder") from error
