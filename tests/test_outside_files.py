# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""What arrays, images, settings and words from outside may claim, and what they get."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zipfile
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from seg3d_core import array_file
from seg3d_core.config import build, load_file, parse_assignments
from seg3d_core.errors import ConfigError, printable
from seg3d_core.image_file import declared_size, decode_image


@settings(deadline=None)
@given(arrays.arrays(st.sampled_from(["f4", "i8", "u1", "?", "U3", "c8"]), arrays.array_shapes(min_dims=0, min_side=0)))
def test_arrays_are_read_as_numpy_reads_them(tmp_path_factory, array):
    folder = tmp_path_factory.mktemp("arrays")
    np.save(folder / "a.npy", array)
    np.savez_compressed(folder / "a.npz", a=array, b=array.copy(order="F"))
    (folder / "a.npz").touch()
    one, both = array_file.read_npy(folder / "a.npy"), array_file.read_npz(folder / "a.npz", ("a", "b", "c"))
    assert both.keys() == {"a", "b"}
    for found in (one, *both.values()):
        assert found.dtype == array.dtype and found.shape == array.shape
        assert found.tobytes() == array.tobytes() and found.flags.writeable


@pytest.mark.parametrize(("change", "says"), [(0, None), (1, "does not fit"), (-1, "does not fit")])
def test_a_large_array_is_whole_or_refused(tmp_path, change, says):
    array = np.arange(330_000, dtype=np.int64)[::-1]
    np.save(tmp_path / "a.npy", array)
    content = (tmp_path / "a.npy").read_bytes()
    (tmp_path / "a.npy").write_bytes(content[: len(content) + min(change, 0)] + bytes(max(change, 0)))
    if says is None:
        assert np.array_equal(array_file.read_npy(tmp_path / "a.npy"), array)
    else:
        with pytest.raises(ValueError, match=says):
            array_file.read_npy(tmp_path / "a.npy")


@pytest.mark.parametrize(("sent", "says"), [(2_639_999, "cut short"), (2_640_001, "more bytes than promised")])
def test_a_stream_of_another_length_than_it_said_is_refused(sent, says):
    """As a member of a zip may be, whose table says what its bytes do not hold."""
    header = npy("{'descr': '|u1', 'fortran_order': False, 'shape': (2640000,), }")
    with pytest.raises((ValueError, EOFError), match=says):
        array_file.read_array(io.BytesIO(header + bytes(sent)), len(header) + 2_640_000)


def npy(header: str, body: bytes = b"") -> bytes:
    text = header.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + body


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PK",
        npy("{'descr': '<f8', 'fortran_order': False, 'shape': (3999999999960,), }", bytes(8)),
        npy("{'descr': '<f8', 'fortran_order': False, 'shape': (99999999999999999999999,), }", bytes(8)),
        npy("{'descr': '<f8', 'fortran_order': False, 'shape': (1,"),
        npy("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }", b"\x80\x04N."),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_arrays_that_are_none_are_a_short_valueerror_and_no_memory(tmp_path, content):
    (tmp_path / "a.npy").write_bytes(content)
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("a.npy", content)
    tracemalloc.start()
    for read in (lambda: array_file.read_npy(tmp_path / "a.npy"), lambda: array_file.read_npz(tmp_path / "a.npz", "a")):
        with pytest.raises(ValueError, match=r".") as caught:
            read()
        assert len(str(caught.value)) <= 200
    assert tracemalloc.get_traced_memory()[1] < 5_000_000
    tracemalloc.stop()


def test_a_zip_that_claims_more_than_deflate_can_give_is_refused(tmp_path: Path):
    path = tmp_path / "a.npz"
    np.savez_compressed(path, a=np.zeros(100_000))
    data = bytearray(path.read_bytes())
    for mark, at in ((b"PK\x01\x02", 24), (b"PK\x03\x04", 22)):
        place = data.index(mark) + at
        data[place : place + 4] = (2**31).to_bytes(4, "little")
    path.write_bytes(data)
    with pytest.raises(ValueError, match="claims 2147483648 bytes"):
        array_file.read_npz(path, ("a",))


@pytest.mark.parametrize("compression", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_zip_that_is_compressed_as_numpy_never_does_is_refused(tmp_path: Path, compression: int):
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("a.npy", npy("{'descr': '<f8', 'fortran_order': False, 'shape': (1,), }", bytes(8)))
    with pytest.raises(ValueError, match="compressed in a way"):
        array_file.read_npz(path, ("a",))


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def test_an_image_of_a_claimed_size_is_not_decoded():
    for size in ((40_000, 40_000), (2**31 - 1, 1), (0, 5)):
        head = struct.pack(">IIBBBBB", *size, 8, 0, 0, 0, 0)
        pixels = zlib.compress(bytes(1000))
        data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
        assert decode_image(data, cv2.IMREAD_UNCHANGED) is None
    good = cv2.imencode(".png", np.arange(12, dtype=np.uint16).reshape(3, 4))[1].tobytes()
    assert declared_size(good) == (4, 3)
    assert np.array_equal(decode_image(good, cv2.IMREAD_UNCHANGED), np.arange(12).reshape(3, 4))


def test_a_chunk_longer_than_its_file_is_damage():
    good = cv2.imencode(".png", np.zeros((30, 40), np.uint8))[1].tobytes()
    at = good.index(b"IDAT") - 4
    assert decode_image(good[:at] + struct.pack(">I", 2**31 - 1) + good[at + 4 :], cv2.IMREAD_UNCHANGED) is None


LAUGHS = "[&a0 [x, x], " + ", ".join(f"&a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, 40)) + "]"


@pytest.mark.parametrize(
    "text",
    [
        f"map: {{voxel_size: {LAUGHS}}}",
        f"query: {{crop_growth: {LAUGHS}}}",
        "map: {voxel_size: " + "9" * 100_000 + "}",
        "map: {voxel_size: 2001-99-99}",
        "[" * 100_000,
        "9" * 5000 + ": 3",
        "\x00: 3",
    ],
)
def test_settings_that_no_one_wrote_are_refused_in_a_sentence(tmp_path, text):
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        build(load_file(tmp_path / "a.yaml"))
    assert len(str(caught.value)) < 2500
    with pytest.raises(ConfigError) as caught:
        build(parse_assignments([f"map.voxel_size={text}"]))
    assert len(str(caught.value)) < 2500


def test_printable_keeps_what_a_person_can_read():
    assert printable("Stühle 椅子 ☕") == "Stühle 椅子 ☕"
    assert printable("a\nb\x1b[31m\ud800\u202e") == "a b [31m  "
    assert printable("x" * 10, 5) == "xxxx…"
