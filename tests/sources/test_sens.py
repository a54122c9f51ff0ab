# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""`.sens` files: written and read back, as a source, and refused when damaged."""

from __future__ import annotations

import resource
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from seg3d_core.errors import FrameError, SourceError
from seg3d_core.sources.guess import guess_kind, open_source
from seg3d_core.sources.sens import SensFile, SensFrame, SensHeader, SensSource, write_sens
from seg3d_core.types import Camera

COLOUR = Camera(48, 36, 40.0, 40.0, 23.5, 17.5)
DEPTH = Camera(24, 18, 20.0, 20.0, 11.5, 8.5)
HEAD = 4 + 8 + len("StructureSensor")
FIXED = 64 * 4 + 2 * 4 + 4 * 4 + 4 + 8
FRAME = 64 + 32


def frames(count: int = 4, seed: int = 0, stamps: bool = False) -> list[SensFrame]:
    rng = np.random.default_rng(seed)
    out = []
    for number in range(count):
        smooth = cv2.resize(rng.integers(0, 256, (4, 4, 3), np.uint8), COLOUR.size, interpolation=cv2.INTER_CUBIC)
        depth = rng.integers(500, 4000, (DEPTH.height, DEPTH.width)).astype(np.uint16)
        depth[0, 0], depth[0, 1] = 0, 65535
        pose = np.eye(4)
        pose[:3, 3] = number / 8, 0, 1
        out.append(SensFrame(smooth, depth, pose, number / 4 if stamps else 0.0))
    return out


@pytest.fixture
def sens(tmp_path: Path) -> Path:
    path = tmp_path / "scene0000_00.sens"
    write_sens(path, SensHeader(COLOUR, DEPTH), frames())
    return path


@pytest.mark.parametrize("colour", ["raw", "png", "jpeg"])
@pytest.mark.parametrize("depth", ["raw", "zlib"])
def test_what_is_written_is_read(tmp_path: Path, colour: str, depth: str):
    path, made = tmp_path / "a.sens", frames(3, stamps=True)
    assert write_sens(path, SensHeader(COLOUR, DEPTH, colour, depth, 500.0, "a sensor"), made) == 3
    file = SensFile(path)
    assert len(file) == 3
    assert (file.header.colour_camera, file.header.depth_camera) == (COLOUR, DEPTH)
    assert (file.header.sensor, file.header.depth_shift) == ("a sensor", 500.0)
    assert file.stamps.tolist() == [0.0, 0.25, 0.5]
    for number in (2, 0, 1):
        assert np.array_equal(file.depth(number), made[number].depth)
        assert np.array_equal(file.poses[number], made[number].T_world_camera)
        error = np.abs(file.colour(number).astype(int) - made[number].rgb).mean()
        assert error == 0 if colour != "jpeg" else error < 12


def test_bytes_lie_as_the_format_says(sens: Path):
    """Read without our reader, by the layout alone."""
    data, made = sens.read_bytes(), frames()
    version, length = struct.unpack_from("<IQ", data)
    assert (version, data[12 : 12 + length]) == (4, b"StructureSensor")
    matrices = np.frombuffer(data, "<f4", 64, HEAD).reshape(4, 4, 4)
    assert np.array_equal(matrices[0][:3, :3], COLOUR.matrix) and np.array_equal(matrices[2][:3, :3], DEPTH.matrix)
    assert np.array_equal(matrices[1], np.eye(4)) and np.array_equal(matrices[3], np.eye(4))
    place = HEAD + 256
    assert struct.unpack_from("<iiIIIIfQ", data, place) == (2, 1, 48, 36, 24, 18, 1000.0, 4)
    place = HEAD + FIXED
    for frame in made:
        pose = np.frombuffer(data, "<f4", 16, place).reshape(4, 4)
        _, _, colour, depth = struct.unpack_from("<4Q", data, place + 64)
        place += FRAME
        assert np.array_equal(pose, frame.T_world_camera)
        assert data[place : place + 2] == b"\xff\xd8"
        raw = zlib.decompress(data[place + colour : place + colour + depth])
        assert np.array_equal(np.frombuffer(raw, "<u2").reshape(18, 24), frame.depth)
        place += colour + depth
    (records,) = struct.unpack_from("<Q", data, place)
    assert len(data) == place + 8 + 128 * records


def test_as_a_source(sens: Path):
    assert guess_kind(sens) == "sens"
    source = open_source(sens, stride=2)
    assert (source.kind, source.name, len(source), list(source.frame_names)) == ("sens", "scene0000_00", 2, ["0", "2"])
    got = list(source)
    assert [frame.index for frame in got] == [0, 1]
    assert [frame.stamp for frame in got] == [0.0, 2 / 30]
    made = frames()[2]
    assert got[1].camera == DEPTH and got[1].rgb.shape == (18, 24, 3)
    assert got[1].depth[0, 0] == 0 and got[1].depth[0, 1] == 0
    np.testing.assert_allclose(got[1].depth[1:], made.depth[1:] / 1000, atol=1e-6)
    np.testing.assert_allclose(got[1].T_world_camera, made.T_world_camera)
    assert [f.stamp for f in list(source)] == [f.stamp for f in got]


def test_rising_stamps_are_taken(tmp_path: Path):
    path = tmp_path / "a.sens"
    write_sens(path, SensHeader(COLOUR, DEPTH), frames(3, stamps=True))
    assert [frame.stamp for frame in SensSource(path)] == [0.0, 0.25, 0.5]


def test_lost_tracking_and_broken_images_are_dropped_and_counted(tmp_path: Path):
    path, made = tmp_path / "a.sens", frames(3)
    lost = SensFrame(made[0].rgb, made[0].depth, np.full((4, 4), -np.inf))
    write_sens(path, SensHeader(COLOUR, DEPTH), [lost, *made])
    data = bytearray(path.read_bytes())
    first = HEAD + FIXED
    colour, depth = struct.unpack_from("<2Q", data, first + 80)
    second = first + FRAME + colour + depth
    data[second + FRAME : second + FRAME + 40] = bytes(40)
    path.write_bytes(data)
    source = SensSource(path)
    assert [frame.name for frame in source] == ["2", "3"]
    assert source.drops == {"bad_pose": 1, "colour_unreadable": 1}


@given(share=st.floats(0, 1))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_truncated_files_are_refused(sens: Path, share: float):
    data = sens.read_bytes()
    frames_end = len(data) - 136
    cut = sens.with_name("cut.sens")
    cut.write_bytes(data[: int(share * (frames_end - 1))])
    with pytest.raises(SourceError, match=r"cut\.sens"):
        SensFile(cut)


@given(place=st.integers(0, HEAD + FIXED + FRAME + 200), values=st.binary(min_size=1, max_size=8))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damage_is_told_or_harmless(sens: Path, place: int, values: bytes):
    data = bytearray(sens.read_bytes())
    data[place : place + len(values)] = values
    other = sens.with_name("damaged.sens")
    other.write_bytes(data)
    try:
        source = SensSource(other)
    except SourceError:
        return
    for frame in source:
        assert np.isfinite(frame.T_world_camera).all() and frame.depth.shape == frame.rgb.shape[:2]


@pytest.mark.parametrize(
    ("place", "form", "values", "match"),
    [
        (0, "<I", (5,), "version"),
        (0, "<I", (0x89504E47,), "version"),
        (4, "<Q", (2**63,), "name of"),
        (HEAD + 256, "<i", (7,), "colour compression 7"),
        (HEAD + 260, "<i", (2,), "depth compression 2"),
        (HEAD + 264, "<II", (2**31, 2**31), "pixels"),
        (HEAD + 272, "<II", (0, 10), "pixels"),
        (HEAD + 280, "<f", (0.0,), "per metre"),
        (HEAD + 280, "<f", (float("nan"),), "per metre"),
        (HEAD + 284, "<Q", (2**62,), "no room"),
        (HEAD + 284, "<Q", (9,), "no room|ends early"),
        (HEAD, "<f", (-1.0,), "intrinsics"),
        (HEAD + FIXED + 80, "<Q", (2**63,), "ends early"),
        (HEAD + FIXED + 88, "<Q", (2**64 - 1,), "ends early"),
    ],
)
def test_wrong_headers_and_absurd_sizes_are_refused(sens: Path, place: int, form: str, values: tuple, match: str):
    data = bytearray(sens.read_bytes())
    struct.pack_into(form, data, place, *values)
    sens.write_bytes(data)
    with pytest.raises(SourceError, match=match):
        SensFile(sens)


def _with_images(path: Path, colour: bytes, depth: bytes, header: SensHeader | None = None) -> SensFile:
    write_sens(path, header or SensHeader(COLOUR, DEPTH), frames(0))
    data = bytearray(path.read_bytes()[: HEAD + FIXED])
    struct.pack_into("<Q", data, HEAD + FIXED - 8, 1)
    data += struct.pack("<16f4Q", *np.eye(4).ravel(), 0, 0, len(colour), len(depth)) + colour + depth
    path.write_bytes(data)
    return SensFile(path)


def test_images_that_unpack_to_more_than_they_may_take_no_memory(tmp_path: Path):
    bomb = zlib.compress(bytes(300_000_000), 9)
    _, large = cv2.imencode(".png", np.zeros((8000, 8000), np.uint8))
    file = _with_images(tmp_path / "a.sens", large.tobytes()[: 60_000 + 4 * 48 * 36], bomb[:60_000])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(FrameError, match="no image of 48x36") as told:
        file.colour(0)
    assert told.value.reason == "colour_unreadable"
    depth = file.depth(0)
    assert depth.shape == (18, 24)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000


def test_images_larger_than_they_can_be_are_not_read(tmp_path: Path):
    file = _with_images(tmp_path / "a.sens", bytes(1_000_000), bytes(1_000_000))
    for read in (file.colour, file.depth):
        with pytest.raises(FrameError, match="more than such an image can have"):
            read(0)


def test_a_file_of_no_frames_is_no_source(tmp_path: Path):
    path = tmp_path / "a.sens"
    write_sens(path, SensHeader(COLOUR, DEPTH), [])
    assert len(SensFile(path)) == 0
    with pytest.raises(SourceError, match="no frame"):
        open_source(path)


def test_a_writer_refuses_other_sizes_and_leaves_nothing(tmp_path: Path):
    path = tmp_path / "a.sens"
    with pytest.raises(SourceError, match="sizes of the header"):
        write_sens(path, SensHeader(DEPTH, DEPTH), frames(1))
    assert list(tmp_path.iterdir()) == []


def test_missing_and_empty_files(tmp_path: Path):
    with pytest.raises(SourceError, match="cannot read"):
        SensFile(tmp_path / "none.sens")
    (tmp_path / "empty.sens").write_bytes(b"")
    with pytest.raises(SourceError, match="ends within its header"):
        SensFile(tmp_path / "empty.sens")
