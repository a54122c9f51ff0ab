# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Arrays out of `.npy` and `.npz` files that others made: no pickle, and no memory for what a header merely claims."""

from __future__ import annotations

import math
import struct
import zipfile
import zlib
from collections.abc import Collection
from pathlib import Path
from typing import IO

import numpy as np

from .errors import printable
from .types import Array

MOST_BYTES = 1 << 32
"""Of all arrays of one file, unpacked."""
_CHUNK = 1 << 20
# Deflate makes nothing smaller than a thousandth: what claims to be is false, or meant to fill memory.
_LARGEST_RATIO = 1100
_KINDS = "biufcSU"
DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    LookupError,
    MemoryError,
    OverflowError,
    RuntimeError,
    ValueError,
)
"""What zipfile and its codecs, numpy and json raise on damaged or hostile bytes, beside OSError."""


def read_npy(path: Path) -> Array:
    """The array of a `.npy` file. Raises OSError, and ValueError with a short reason for what is no such file."""
    with path.open("rb") as file:
        try:
            return read_array(file, path.stat().st_size)
        except DAMAGE as error:
            raise _short(error) from None


def read_npz(path: Path, names: Collection[str]) -> dict[str, Array]:
    """Those of the arrays `names` that a `.npz` file has. Raises as `read_npy`."""
    try:
        with zipfile.ZipFile(path) as archive:
            wanted = [info for info in archive.infolist() if info.filename.removesuffix(".npy") in names]
            _check_members(wanted)
            arrays = {}
            for info in wanted:
                with archive.open(info) as member:
                    arrays[info.filename.removesuffix(".npy")] = read_array(member, info.file_size)
            return arrays
    except DAMAGE as error:
        raise _short(error) from None


def _check_members(members: list[zipfile.ZipInfo]) -> None:
    for info in members:
        # As numpy writes them. Others pack tighter than any bound, and raise what nobody expects.
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError(f"{info.filename} is compressed in a way that .npz files never are")
        if info.file_size > _LARGEST_RATIO * (info.compress_size + 64):
            raise ValueError(f"{info.filename} claims {info.file_size} bytes out of {info.compress_size}")
    if sum(info.file_size for info in members) > MOST_BYTES:
        raise ValueError(f"its arrays claim more than {MOST_BYTES} bytes")


def read_array(stream: IO[bytes], size: int) -> Array:
    """The array of a stream of `size` bytes in all, which its header must promise before memory is taken for them.

    Raises ValueError or EOFError, and what the stream raises.
    """
    major = np.lib.format.read_magic(stream)[0]
    if major not in (1, 2):
        raise ValueError(f"unknown .npy version {major}")
    read_header = np.lib.format.read_array_header_1_0 if major == 1 else np.lib.format.read_array_header_2_0
    try:
        shape, fortran, dtype = read_header(stream)
    except Exception as error:  # numpy tries several parsers on it, each with exceptions of its own
        raise ValueError(f"its header is unreadable ({error})") from error
    if dtype.kind not in _KINDS or dtype.itemsize == 0:
        raise ValueError(f"arrays of type {dtype} are not allowed")
    if any(n < 0 for n in shape):
        raise ValueError(f"shape {shape} is negative")
    left = size - stream.tell()
    if math.prod(shape) * dtype.itemsize != left:
        raise ValueError(f"shape {shape} of {dtype} does not fit the {left} bytes that follow")
    out = np.empty(left, np.uint8)
    done = 0
    while done < left:
        chunk = stream.read(min(_CHUNK, left - done))
        if not chunk:
            raise EOFError("cut short")
        out[done : done + len(chunk)] = np.frombuffer(chunk, np.uint8)
        done += len(chunk)
    if stream.read(1):
        raise ValueError("more bytes than promised")
    array = out.view(dtype)
    return array.reshape(shape[::-1]).T if fortran else array.reshape(shape)


def _short(error: Exception) -> ValueError:
    """A text with surrogates in it cannot be shown; neither can a header of many pages."""
    return ValueError(printable(str(error) or type(error).__name__, 200))
