# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Reads a given cloud from a PLY or npz file."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

import numpy as np

from ..array_file import read_npz
from ..errors import SourceError
from ..types import Array

Points = tuple[Array, "Array | None", "Array | None"]

_NAMES = (
    "char uchar short ushort int uint float double int8 uint8 int16 uint16 int32 uint32 float32 float64",
    "i1 u1 i2 u2 i4 u4 f4 f8 i1 u1 i2 u2 i4 u4 f4 f8",
)
_TYPES = dict(zip(*(names.split() for names in _NAMES), strict=True))
_ORDERS = {"binary_little_endian": "<", "binary_big_endian": ">", "ascii": "="}
_MAX_HEADER_LINES = 1000


def read_points(path: str | Path) -> Points:
    """Positions float32 (N, 3), colours uint8 (N, 3) or None, unit-scale normals float32 (N, 3) or None.

    PLY (ascii or binary, `x y z`, `red green blue`, `nx ny nz` of any type and order) or npz with `xyz` and
    optionally `rgb` and `normals` (or `normal`, int8 x 127). Raises SourceError.
    """
    path = Path(path)
    try:
        points = _read(path)
    except OSError as error:
        raise SourceError(f"cannot read points from {path}: {error.strerror or error}") from None
    if not len(points[0]):
        raise SourceError(f"{path} holds no points: give a cloud with some")
    broken = int((~np.isfinite(points[0]).all(axis=1)).sum())
    if broken:
        raise SourceError(f"{path}: {broken} of {len(points[0])} points have NaN or infinite positions: leave them out")
    return points


def _read(path: Path) -> Points:
    with path.open("rb") as file:
        start = file.read(4)
        file.seek(0)
        if start.startswith(b"ply"):
            return _read_ply(file, path)
    if start.startswith(b"PK"):
        return _read_npz(path)
    raise SourceError(f"{path} is neither PLY nor npz: give a cloud in one of these")


def _read_npz(path: Path) -> Points:
    try:
        arrays = read_npz(path, ("xyz", "rgb", "normal", "normals"))
    except ValueError as error:
        raise SourceError(f"{path} is a damaged npz file: {error}") from None
    if "xyz" not in arrays:
        raise SourceError(f"{path} has no array `xyz`: expected positions (N, 3) in metres")
    for name, array in arrays.items():
        if array.dtype.kind not in "iuf":
            raise SourceError(f"{path}: `{name}` holds {array.dtype}, not numbers")
        if array.ndim != 2 or array.shape != (len(arrays["xyz"]), 3):
            raise SourceError(
                f"{path}: `{name}` has shape {array.shape}; expected (N, 3) with one row per point of `xyz`"
            )
    normals = arrays.get("normals", arrays.get("normal"))
    if normals is not None:
        normals = normals.astype(np.float32) / (127 if normals.dtype == np.int8 else 1)
    return arrays["xyz"].astype(np.float32), _colours(arrays.get("rgb"), path), normals


def _read_ply(file: BinaryIO, path: Path) -> Points:
    form, count, properties = _read_header(file, path)
    dtype = np.dtype([(name, _ORDERS[form] + kind) for name, kind in properties])
    if form == "ascii":
        table = _read_ascii(file, path, count, len(properties))
        columns = {name: table[:, i] for i, (name, _) in enumerate(properties)}
        columns = {name: columns[name].astype(dtype[name]) for name in columns}
    else:
        # The file's own size is asked first: a false count must not make us allocate.
        there = (path.stat().st_size - file.tell()) // dtype.itemsize
        if there < count:
            raise SourceError(f"{path} ends early: {there} of {count} points are there")
        table = np.frombuffer(file.read(count * dtype.itemsize), dtype, count)
        columns = {name: table[name] for name in dtype.names or ()}

    def group(*names: str) -> Array | None:
        return np.stack([columns[name] for name in names], axis=1) if all(name in columns for name in names) else None

    xyz = group("x", "y", "z")
    if xyz is None:
        raise SourceError(f"{path} has no vertex properties x, y, z")
    rgb = group("red", "green", "blue")
    if rgb is None:
        rgb = group("r", "g", "b")
    normals = group("nx", "ny", "nz")
    return xyz.astype(np.float32), _colours(rgb, path), None if normals is None else normals.astype(np.float32)


def _read_header(file: BinaryIO, path: Path) -> tuple[str, int, list[tuple[str, str]]]:
    """Format, number of vertices, and their properties as (name, numpy kind). The vertices must come first."""
    form, count, element, properties = "", -1, "", []
    for _ in range(_MAX_HEADER_LINES):
        words = file.readline(1000).decode("ascii", "replace").split()
        match words:
            case ["end_header"]:
                break
            case ["format", name, _]:
                form = name
            case ["element", name, number]:
                element = name
                if count < 0 and name != "vertex":
                    raise SourceError(
                        f"{path}: its first element is {name!r}; only files that begin with vertices are read"
                    )
                if name == "vertex":
                    count = int(number) if number.isdigit() else -1
            case ["property", kind, name] if element == "vertex":
                if kind not in _TYPES:
                    raise SourceError(f"{path}: vertex property {name!r} has the unknown type {kind!r}")
                properties.append((name, _TYPES[kind]))
            case ["property", "list", *_] if element == "vertex":
                raise SourceError(f"{path}: vertices with list properties are not read")
    else:
        raise SourceError(f"{path} has no end_header: a damaged PLY file")
    if form not in _ORDERS:
        raise SourceError(f"{path}: PLY format {form!r} is none of {', '.join(_ORDERS)}")
    if count < 0 or not properties:
        raise SourceError(f"{path} declares no vertices")
    if len({name for name, _ in properties}) < len(properties):
        raise SourceError(f"{path} declares a vertex property twice")
    return form, count, properties


def _read_ascii(file: BinaryIO, path: Path, count: int, columns: int) -> Array:
    lines = [line for _, line in zip(range(count), file, strict=False)]
    if len(lines) < count:
        raise SourceError(f"{path} ends early: {len(lines)} of {count} points are there")
    try:
        table = np.array(b" ".join(lines).split(), dtype=np.float64)
        return table.reshape(count, columns)
    except ValueError:
        raise SourceError(f"{path}: its vertex lines do not hold {columns} numbers each") from None


def _colours(rgb: Array | None, path: Path) -> Array | None:
    """uint8 from uint8, other integers up to 255, or floats in [0, 1] (up to 255 if any is over 1)."""
    if rgb is None or rgb.dtype == np.uint8:
        return rgb
    values = rgb.astype(np.float64)
    if rgb.dtype.kind == "f" and values.size and np.nanmax(values) <= 1:
        values *= 255
    if not ((values >= 0) & (values <= 255)).all():
        raise SourceError(f"{path}: colours must lie in 0 to 255, or in 0 to 1 as floats")
    return np.rint(values).astype(np.uint8)
