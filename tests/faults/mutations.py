# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Spoiling files: what disks, networks and hostile people do to them, chosen by a seeded generator.

Below checksums too: members of zips and chunks of PNGs are spoiled and wrapped again, so that what lies inside is
reached and not only the check around it.
"""

from __future__ import annotations

import io
import re
import struct
import zipfile
import zlib
from collections.abc import Callable
from contextlib import suppress

import numpy as np

Generator = np.random.Generator
EXTREMES = (0, -1, 1, 2, 127, 255, 32767, 65535, 2**31 - 1, -(2**31), 2**32 - 1, 2**40, 2**62, 2**63 - 1, -(2**63))
WORDS = (
    b"0", b"-1", b"nan", b"inf", b"-inf", b"1e308", b"1e-320", b"99999999999", b"9" * 25, b"9" * 5000, b"", b"abc",
    b"0x10", b"1_000", b"null", b"{}", b"[]", b"\"x\"", b"\xff", b"\x00", b"../../evil", b"/evil", b"-",
)  # fmt: skip
NAMES = ("../../evil", "/evil", "..\\evil", "a/../../../evil", "a" * 300, "evil\0.npy", "", ".", "C:\\evil")


def flip(data: bytearray, rng: Generator) -> None:
    for at in rng.integers(0, len(data), rng.integers(1, 17)):
        data[at] ^= 1 << int(rng.integers(8))


def truncate(data: bytearray, rng: Generator) -> None:
    del data[int(rng.integers(len(data))) :]


def _span(data: bytearray, rng: Generator) -> slice:
    start = int(rng.integers(len(data)))
    return slice(start, start + int(2 ** rng.uniform(0, 12)))


def delete(data: bytearray, rng: Generator) -> None:
    del data[_span(data, rng)]


def zero(data: bytearray, rng: Generator) -> None:
    span = _span(data, rng)
    data[span] = bytes(len(data[span]))


def insert(data: bytearray, rng: Generator) -> None:
    start = _span(data, rng)
    data[start.start : start.start] = rng.bytes(start.stop - start.start)


def duplicate(data: bytearray, rng: Generator) -> None:
    span = _span(data, rng)
    data[span.start : span.start] = data[span]


def swap(data: bytearray, rng: Generator) -> None:
    a, b = _span(data, rng), int(rng.integers(len(data)))
    piece = bytes(data[a])
    data[a] = data[b : b + len(piece)]
    data[b : b + len(piece)] = piece


def extreme(data: bytearray, rng: Generator) -> None:
    """A whole number of 2, 4 or 8 bytes becomes one that no file means: sizes and counts are such."""
    width = int(rng.choice([2, 4, 8]))
    ends = rng.random() < 0.5
    room = max(len(data) - width, 1)
    at = int(rng.integers(min(room, 256))) * (1 if rng.random() < 0.5 else -1) if ends else int(rng.integers(room))
    at %= room
    value = int(rng.choice(np.array(EXTREMES, object)))
    data[at : at + width] = (value & (1 << 8 * width) - 1).to_bytes(width, str(rng.choice(["little", "big"])))


def header(data: bytearray, rng: Generator) -> None:
    for at in rng.integers(0, min(len(data), 96), rng.integers(1, 6)):
        data[at] = int(rng.integers(256))


def token(data: bytearray, rng: Generator) -> None:
    """A number that is written as text, or a word, becomes another."""
    found = list(re.finditer(rb"[-+.\w]+", bytes(data[:200_000])))
    if found:
        chosen = found[int(rng.integers(len(found)))]
        data[chosen.start() : chosen.end()] = WORDS[int(rng.integers(len(WORDS)))]


def nested(data: bytearray, rng: Generator) -> None:
    """Brackets that open and open: recursive parsers."""
    data[_span(data, rng).start :] = bytes(rng.choice(np.array([b"[", b"{", b"(", b'{"a":', b"- "]))) * 100_000


PLAIN: tuple[Callable[[bytearray, Generator], None], ...] = (
    flip, truncate, delete, zero, insert, duplicate, swap, extreme, extreme, header, token, token,
)  # fmt: skip


def plain(data: bytes, rng: Generator) -> bytes:
    """One to three of the simple ones."""
    spoiled = bytearray(data)
    for _ in range(int(rng.choice([1, 1, 1, 2, 3]))):
        if spoiled:
            PLAIN[int(rng.integers(len(PLAIN)))](spoiled, rng)
    return bytes(spoiled)


def inside_zip(data: bytes, rng: Generator) -> bytes:
    """One member spoiled, renamed, left out, there twice or of a false size; with the right checksums."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = [(info, archive.read(info)) for info in archive.infolist()]
    chosen = int(rng.integers(len(members)))
    kind = str(rng.choice(["content"] * 6 + ["array"] * 6 + ["rename", "drop", "twice", "bomb", "swap"]))
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for number, (info, content) in enumerate(members):
            name, compression = info.filename, info.compress_type
            if number == chosen:
                if kind == "drop":
                    continue
                if kind == "content":
                    content = plain(content, rng) if content else b"x"
                elif kind == "array":
                    content = inside_npy(content, rng)
                elif kind == "rename":
                    name = NAMES[int(rng.integers(len(NAMES)))]
                elif kind == "bomb":
                    content, compression = bytes(30_000_000), zipfile.ZIP_DEFLATED
                elif kind == "swap":
                    content = members[int(rng.integers(len(members)))][1]
                elif kind == "twice":
                    archive.writestr(zipfile.ZipInfo(name), content, compression)
            archive.writestr(zipfile.ZipInfo(name), content, compression)
    return out.getvalue()


def inside_npy(data: bytes, rng: Generator) -> bytes:
    """Another header, or values that no writer of ours would write in a well-formed array."""
    try:
        array = np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, EOFError, OSError):
        return plain(data, rng) if data else b"x"
    kind = str(rng.choice(["value"] * 5 + ["dtype", "shape", "shorter", "longer", "header", "fortran"]))
    if kind == "value" and array.size and array.dtype.kind in "iufb":
        array = array.copy()
        places = rng.integers(0, array.size, int(rng.integers(1, 9)))
        values = EXTREMES if array.dtype.kind in "iub" else (0.0, -1.0, np.nan, np.inf, -np.inf, 1e30, -1e30, 1e-40)
        with np.errstate(all="ignore"):
            array.flat[places] = (
                np.array(values, object)[rng.integers(len(values))]
                if array.dtype.kind == "f"
                else (
                    np.array([int(v) & 0x7FFFFFFFFFFFFFFF for v in values]).astype(array.dtype)[
                        rng.integers(len(values))
                    ]
                )
            )
    elif kind == "dtype":
        kind = str(rng.choice(["f8", "i8", "u1", "f2", "S3", "U2", "c16", "?"]))
        with suppress(ValueError):  # a text that is no number
            array = array.astype(kind, copy=True)
    elif kind == "shape":
        array = array.reshape([(-1, 1), (1, -1), (-1,), (1, 1, -1)][int(rng.integers(4))])
    elif kind == "shorter":
        array = array[: len(array) // 2] if array.ndim else np.zeros(0)
    elif kind == "longer":
        array = np.concatenate([array, array]) if array.ndim else np.zeros((3, 3))
    elif kind == "fortran":
        array = np.asfortranarray(array)
    out = io.BytesIO()
    np.save(out, array, allow_pickle=False)
    if kind != "header":
        return out.getvalue()
    text = bytearray(out.getvalue())
    spot = bytearray(text[10:128])
    token(spot, rng)
    return bytes(text[:10] + bytes(spot).ljust(118)[:118] + text[128:])


def inside_png(data: bytes, rng: Generator) -> bytes:
    """One chunk spoiled, its checksum right: other sizes, depths and colour types, damaged or endless pixels."""
    chunks, at = [], 8
    while at + 12 <= len(data):
        (size,) = struct.unpack_from(">I", data, at)
        chunks.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + size]))
        at += 12 + size
    chosen = int(rng.integers(len(chunks)))
    kind, content = chunks[chosen]
    if kind == b"IHDR" or rng.random() < 0.3:
        kind, fields = b"IHDR", list(struct.unpack(">IIBBBBB", chunks[0][1]))
        sizes = (0, 1, 7, 16384, 40000, 2**20, 2**31 - 1, 2**32 - 1)
        for field in rng.integers(0, 7, rng.integers(1, 3)):
            fields[field] = int(rng.choice(sizes)) if field < 2 else int(rng.choice([0, 1, 2, 3, 4, 6, 8, 16, 255]))
        chosen, content = 0, struct.pack(">IIBBBBB", *fields)
    elif kind == b"IDAT" and rng.random() < 0.5:
        content = zlib.compress(plain(zlib.decompress(content), rng))
    elif content:
        content = plain(content, rng)
    chunks[chosen] = kind, content
    body = b"".join(struct.pack(">I", len(c)) + k + c + struct.pack(">I", zlib.crc32(k + c)) for k, c in chunks)
    return data[:8] + body


def mutate(data: bytes, rng: Generator) -> bytes:
    """The file's bytes, spoiled in one of the ways that its kind knows."""
    deep: Callable[[bytes, Generator], bytes] | None = None
    if data.startswith(b"PK"):
        deep = inside_zip
    elif data.startswith(b"\x89PNG"):
        deep = inside_png
    elif data.startswith(b"\x93NUMPY"):
        deep = inside_npy
    if deep is not None and rng.random() < 0.6:
        return deep(data, rng)
    if data[:1] in b"{[" and rng.random() < 0.05:
        spoiled = bytearray(data)
        nested(spoiled, rng)
        return bytes(spoiled)
    return plain(data, rng)
