# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Clouds from PLY and npz files, whole and broken."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from seg3d_core.errors import SourceError
from seg3d_core.mapping import read_points

XYZ = np.array([[0.5, -1.25, 2.0], [3.0, 0.0, -0.125], [1.0, 2.0, 4.0]])
RGB = np.array([[0, 128, 255], [1, 2, 3], [200, 100, 50]], np.uint8)
NORMALS = np.array([[0.0, 0.0, 1.0], [0.0, -1.0, 0.0], [1.0, 0.0, 0.0]])
PLY_NAMES = {"f4": "float", "f8": "double", "u1": "uchar", "i4": "int", "u2": "ushort"}


def write_ply(
    path: Path, form: str, fields: list[tuple[str, str]], count: int | None = None, tail: bytes = b""
) -> Path:
    sources = {**dict(zip("xyz", XYZ.T, strict=True)), **dict(zip(("red", "green", "blue"), RGB.T, strict=True))}
    sources.update(zip(("nx", "ny", "nz"), NORMALS.T, strict=True))
    order = {"ascii": "=", "binary_little_endian": "<", "binary_big_endian": ">"}[form]
    table = np.zeros(len(XYZ), [(name, order + kind) for name, kind in fields])
    for name, _ in fields:
        table[name] = sources.get(name, 7)
    header = ["ply", f"format {form} 1.0", "comment made by a test", f"element vertex {count or len(XYZ)}"]
    header += [f"property {PLY_NAMES[kind]} {name}" for name, kind in fields]
    header += ["element face 0", "property list uchar int vertex_indices", "end_header"]
    body = "".join(" ".join(str(v) for v in row) + "\n" for row in table.tolist()).encode()
    path.write_bytes("\n".join(header).encode() + b"\n" + (body if form == "ascii" else table.tobytes()) + tail)
    return path


@pytest.mark.parametrize("form", ["ascii", "binary_little_endian", "binary_big_endian"])
@pytest.mark.parametrize(
    "fields",
    [
        "x:f4 y:f4 z:f4 red:u1 green:u1 blue:u1 nx:f4 ny:f4 nz:f4",
        "blue:u1 label:u2 z:f8 green:u1 y:f4 red:u1 alpha:u1 x:f8 nz:f8 ny:f4 nx:f4 quality:i4",
    ],
)
def test_ply_of_any_type_and_order(tmp_path: Path, form: str, fields: str) -> None:
    path = write_ply(tmp_path / "cloud.ply", form, [tuple(f.split(":")) for f in fields.split()], tail=b"\x03rest")
    xyz, rgb, normals = read_points(path)
    np.testing.assert_array_equal(xyz, XYZ)
    np.testing.assert_array_equal(rgb, RGB)
    np.testing.assert_array_equal(normals, NORMALS)
    assert (xyz.dtype, rgb.dtype, normals.dtype) == (np.float32, np.uint8, np.float32)


def test_ply_without_colours_and_with_float_colours(tmp_path: Path) -> None:
    _, rgb, normals = read_points(write_ply(tmp_path / "a.ply", "ascii", [(n, "f4") for n in "xyz"]))
    assert rgb is None
    assert normals is None
    header = "ply\nformat ascii 1.0\nelement vertex 1\n" + "".join(
        f"property float {n}\n" for n in ("x", "y", "z", "red", "green", "blue")
    )
    path = tmp_path / "b.ply"
    path.write_text(header + "end_header\n1 2 3 0.0 0.5 1.0\n")
    np.testing.assert_array_equal(read_points(path)[1], [[0, 128, 255]])
    path.write_text(header + "end_header\n1 2 3 0.0 0.5 900\n")
    with pytest.raises(SourceError, match="colours"):
        read_points(path)


HEADER = "ply\nformat ascii 1.0\nelement vertex 2\nproperty float x\nproperty float y\nproperty float z\nend_header\n"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"hello",
        b"ply\n",
        b"ply\nformat ascii 1.0\nelement vertex 2\nproperty float x\n",
        HEADER.replace("ascii", "morse").encode() + b"1 2 3\n4 5 6\n",
        HEADER.replace("float x", "quaternion x").encode() + b"1 2 3\n4 5 6\n",
        HEADER.replace("float x", "float w").encode() + b"1 2 3\n4 5 6\n",
        HEADER.replace("float x", "float y").encode() + b"1 2 3\n4 5 6\n",
        HEADER.replace("float x", "list uchar int x").encode() + b"1 2 3\n4 5 6\n",
        HEADER.replace("vertex 2", "vertex two").encode() + b"1 2 3\n4 5 6\n",
        HEADER.replace("vertex", "face").encode() + b"1 2 3\n4 5 6\n",
        HEADER.encode() + b"1 2 3\n",
        HEADER.encode() + b"1 2 3\n4 5\n",
        HEADER.encode() + b"1 2 3\n4 5 abc\n",
        HEADER.replace("ascii", "binary_little_endian").encode() + b"\0" * 23,
        HEADER.replace("ascii", "binary_little_endian").replace("vertex 2", "vertex 900000000000").encode()
        + b"\0" * 24,
        HEADER.replace("vertex 2", "vertex 900000000000").encode() + b"1 2 3\n4 5 6\n",
        b"PK\x03\x04 no zip after all",
    ],
)
def test_broken_files_are_refused_with_their_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "cloud.ply"
    path.write_bytes(content)
    with pytest.raises(SourceError, match=r"cloud\.ply"):
        read_points(path)


def test_npz(tmp_path: Path) -> None:
    path = tmp_path / "cloud.npz"
    np.savez(path, xyz=XYZ, rgb=RGB, normal=(NORMALS * 127).astype(np.int8), instance=np.zeros(3))
    xyz, rgb, normals = read_points(path)
    np.testing.assert_array_equal(xyz, XYZ)
    np.testing.assert_array_equal(rgb, RGB)
    np.testing.assert_allclose(normals, NORMALS)
    np.savez_compressed(path, xyz=XYZ, normals=NORMALS)
    xyz, rgb, normals = read_points(path)
    assert rgb is None
    np.testing.assert_allclose(normals, NORMALS)


@pytest.mark.parametrize(
    "arrays",
    [
        {"points": XYZ},
        {"xyz": XYZ[:, :2]},
        {"xyz": XYZ, "rgb": RGB[:2]},
        {"xyz": np.array([["a", "b", "c"]])},
        {"xyz": np.array([[None, None, None]], object)},
        {"xyz": np.float32(1)},
    ],
)
def test_broken_npz(tmp_path: Path, arrays: dict) -> None:
    path = tmp_path / "cloud.npz"
    np.savez(path, **arrays)
    with pytest.raises(SourceError, match=r"cloud\.npz"):
        read_points(path)


def test_truncated_npz_and_missing_files(tmp_path: Path) -> None:
    path = tmp_path / "cloud.npz"
    np.savez(path, xyz=np.random.default_rng(0).random((1000, 3)))
    data = path.read_bytes()
    for length in (10, 200, len(data) - 30):
        path.write_bytes(data[:length])
        with pytest.raises(SourceError, match=r"cloud\.npz"):
            read_points(path)
    for missing in (tmp_path / "none.ply", tmp_path):
        with pytest.raises(SourceError):
            read_points(missing)
