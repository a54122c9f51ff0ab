# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""The container of saved maps: round trips, hostile files, killed writers."""

from __future__ import annotations

import fcntl
import io
import json
import os
import subprocess
import sys
import time
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from seg3d_core.archive import FORMAT, VERSION, Archive, read_archive, write_archive
from seg3d_core.errors import MapFileError

META = {"config": {"map.voxel_size": 0.02}, "names": ["Sofa", "Stühle"], "none": None}
ARRAYS = {
    "map/xyz": np.arange(30, dtype=np.float32).reshape(10, 3),
    "map/ids": np.arange(10, dtype=np.int64),
    "empty": np.empty((0, 3), np.float16),
    "fortran": np.asfortranarray(np.arange(12, dtype=np.uint8).reshape(3, 4)),
    "scalar": np.array(3.5),
    "names": np.array(["a", "sofa"]),
}
BLOBS = {"views/7.jpg": b"\xff\xd8" + bytes(200), "nothing": b""}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "room.seg3d"
    write_archive(path, META, ARRAYS, BLOBS, overwrite=False)
    return path


def same(archive: Archive) -> bool:
    return (
        archive.meta == META
        and archive.blobs == BLOBS
        and archive.arrays.keys() == ARRAYS.keys()
        and all(
            np.array_equal(archive.arrays[name], array) and archive.arrays[name].dtype == array.dtype
            for name, array in ARRAYS.items()
        )
    )


def code_of(path: Path) -> str:
    with pytest.raises(MapFileError) as caught:
        read_archive(path)
    assert len(str(caught.value)) < 600
    return caught.value.code


def header(**changes: object) -> bytes:
    return json.dumps({"format": FORMAT, "version": "1.0", "members": [], "meta": {}, **changes}).encode()


def make(path: Path, members: list[tuple[str, bytes]], compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members:
            archive.writestr(zipfile.ZipInfo(name), content, compress_type=compression)
    return path


def npy(header_text: str, body: bytes = b"") -> bytes:
    text = header_text.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + body


def with_array(path: Path, content: bytes) -> Path:
    return make(path, [("meta.json", header(members=["arrays/x.npy"])), ("arrays/x.npy", content)])


def test_round_trip(path: Path):
    archive = read_archive(path)
    assert same(archive)
    assert archive.version == VERSION
    assert archive.saved.endswith("+00:00")
    assert all(array.flags.writeable for array in archive.arrays.values())


def test_it_is_a_plain_zip_of_stored_npy(path: Path):
    with zipfile.ZipFile(path) as archive:
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}
        assert np.array_equal(np.load(io.BytesIO(archive.read("arrays/map/xyz.npy"))), ARRAYS["map/xyz"])


def test_existing_file_is_kept_unless_overwriting(path: Path):
    before = path.read_bytes()
    with pytest.raises(MapFileError) as caught:
        write_archive(path, {}, {}, {}, overwrite=False)
    assert caught.value.code == "exists"
    assert path.read_bytes() == before
    write_archive(path, {"new": 1}, {}, {}, overwrite=True)
    assert read_archive(path).meta == {"new": 1}


def test_failed_write_leaves_old_file_and_no_temporary(path: Path):
    before = path.read_bytes()
    with pytest.raises(ValueError, match="pickle"):
        write_archive(path, {}, {"fine": np.zeros(9), "bad": np.array([object()])}, {}, overwrite=True)
    with pytest.raises(ValueError, match="JSON"):
        write_archive(path, {"x": float("nan")}, {}, {}, overwrite=True)
    with pytest.raises(ValueError, match="letters"):
        write_archive(path, {}, {}, {"../evil": b""}, overwrite=True)
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_unwritable_places(tmp_path: Path):
    for target in (tmp_path / "no" / "map.seg3d", tmp_path):
        with pytest.raises(MapFileError) as caught:
            write_archive(target, {}, {}, {}, overwrite=True)
        assert caught.value.code == "unwritable"


def test_full_disk_is_named():
    resource = pytest.importorskip("resource")
    del resource
    code = (
        "import resource, signal, sys, numpy as np\n"
        "from seg3d_core.archive import write_archive\n"
        "from seg3d_core.errors import MapFileError\n"
        "import tempfile, pathlib\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "folder = pathlib.Path(tempfile.mkdtemp())\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "try:\n"
        "    write_archive(folder / 'm.seg3d', {}, {'x': np.zeros(1_000_000)}, {}, overwrite=True)\n"
        "except MapFileError as error:\n"
        "    print(error.code, list(folder.iterdir()))\n"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert out.stdout.strip() == "no_space []"


def test_missing_and_foreign_files(tmp_path: Path):
    assert code_of(tmp_path / "none.seg3d") == "not_found"
    for number, content in enumerate((b"hello", b"GIF89a", b"PK\x03\x05", b"\0" * 100)):
        (tmp_path / f"foreign{number}").write_bytes(content)
        assert code_of(tmp_path / f"foreign{number}") == "not_a_map"
    assert code_of(make(tmp_path / "zip", [("readme.txt", b"hello")])) == "not_a_map"
    assert code_of(make(tmp_path / "other", [("meta.json", b'{"format": "cake"}')])) == "not_a_map"
    (tmp_path / "empty").touch()
    assert code_of(tmp_path / "empty") == "damaged"
    assert code_of(tmp_path) == "not_a_map", "a folder"


def test_a_file_that_may_not_be_read(path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_args, **_options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    assert code_of(path) == "unreadable"


def test_every_truncation_is_damage(path: Path):
    whole = path.read_bytes()
    for size in range(4, len(whole) - 1, 37):
        path.write_bytes(whole[:size])
        assert code_of(path) == "damaged"


def test_versions(tmp_path: Path):
    path = make(tmp_path / "m", [("meta.json", header(version="1.99", software="7", more=1))])
    assert read_archive(path).version == (1, 99)
    path = make(tmp_path / "n", [("meta.json", header(version="2.0", software="9.1", meta=None))])
    assert code_of(path) == "newer_version"
    with pytest.raises(MapFileError, match=r"2\.0.*9\.1.*update"):
        read_archive(path)
    for bad in ("1", "x.y", "1.0.0", 1, None, "1" * 5000 + ".0"):
        assert code_of(make(tmp_path / "o", [("meta.json", header(version=bad))])) == "damaged"


@pytest.mark.parametrize(
    "text",
    [b"", b"{", b"\xff\xfe", b"[" * 200_000, b'{"a": NaN}', b'{"a": 1e999}', b'{"a": ' + b"9" * 10_000 + b"}"],
    ids=["empty", "open", "binary", "deep", "nan", "infinite", "long-number"],
)
def test_meta_that_is_no_json(tmp_path: Path, text: bytes):
    assert code_of(make(tmp_path / "m", [("meta.json", text)])) in ("damaged", "not_a_map")


def test_compressed_members_are_refused(tmp_path: Path):
    bomb = [("meta.json", header(members=["blobs/b"])), ("blobs/b", bytes(50_000_000))]
    assert code_of(make(tmp_path / "bomb", bomb, zipfile.ZIP_DEFLATED)) == "damaged"


def test_overlapping_members_are_refused(tmp_path: Path):
    """A zip whose table points many names at the same bytes promises more than the file holds."""
    path = make(tmp_path / "m", [("meta.json", header()), ("blobs/a", bytes(5000)), ("blobs/b", b"")])
    data = bytearray(path.read_bytes())
    entry = data.rindex(b"PK\x01\x02")
    data[entry + 20 : entry + 28] = (5000).to_bytes(4, "little") * 2
    path.write_bytes(data)
    assert code_of(path) == "damaged"


@pytest.mark.parametrize(("field", "value"), [(8, 1), (10, zipfile.ZIP_DEFLATED)], ids=["encrypted", "compressed"])
def test_members_that_say_they_are_encrypted_or_compressed_are_refused(path: Path, field: int, value: int):
    data = bytearray(path.read_bytes())
    entry = data.rindex(b"PK\x01\x02")
    data[entry + field] = value
    path.write_bytes(data)
    with pytest.raises(MapFileError, match="is compressed or encrypted") as caught:
        read_archive(path)
    assert caught.value.code == "damaged"


def test_the_part_that_is_damaged_is_named_with_the_reason(tmp_path: Path):
    text = "{'descr': '<f8', 'fortran_order': False, 'shape': (3,), }"
    with pytest.raises(MapFileError, match=r"'arrays/x\.npy': shape \(3,\) of float64 does not fit the 8 bytes"):
        read_archive(with_array(tmp_path / "m", npy(text, bytes(8))))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_names_twice_or_outside(tmp_path: Path):
    assert code_of(make(tmp_path / "m", [("meta.json", header()), ("blobs/a", b"1"), ("blobs/a", b"2")])) == "damaged"
    for name in ("../a", "/a", "blobs/../../a", "blobs/", "blobs//a", "C:\\a", "blobs/.hidden"):
        assert code_of(make(tmp_path / "n", [("meta.json", header(members=[name])), (name, b"")])) == "damaged"


def test_members_that_were_removed_are_missed(tmp_path: Path):
    assert code_of(make(tmp_path / "m", [("meta.json", header(members=["blobs/a"]))])) == "damaged"


@pytest.mark.parametrize(
    "content",
    [
        npy("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }", b"\x80\x04N."),
        npy("{'descr': [('a', '|O')], 'fortran_order': False, 'shape': (1,), }", bytes(8)),
        npy("{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,), }", bytes(8)),
        npy("{'descr': '<f8', 'fortran_order': False, 'shape': (-1,), }"),
        npy("{'descr': '<f8', 'fortran_order': False, 'shape': (-1, -1), }", bytes(8)),
        npy("{'descr': '<f8', 'fortran_order': False, 'shape': (0, 10000000000000000000000000000), }"),
        npy("{'descr': '<U0', 'fortran_order': False, 'shape': (1000000000000,), }"),
        npy("{'descr': '<f8', 'fortran_order': False, 'shape': (True,), }", bytes(8))[:-3],
        npy("{'descr': 'cake', 'fortran_order': False, 'shape': (1,), }"),
        npy("{'descr': ['x'], 'fortran_order': False, 'shape': (1,), }"),
        npy("{'descr': '<M8[s]', 'fortran_order': False, 'shape': (1,), }", bytes(8)),
        npy("((((((((((((((((((((((((((((((((((((("),
        b"\x93NUMPY\x09\x00",
        b"\x93NUMPY\x02\x00\xff\xff\xff\xff",
        b"GIF89a",
        b"",
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_hostile_arrays(tmp_path: Path, content: bytes):
    path = with_array(tmp_path / "m", content)
    tracemalloc.start()
    try:
        assert code_of(path) == "damaged"
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_random_damage_is_an_error_or_harmless(path: Path, data: st.DataObject):
    """Flipped bits, cut and doubled stretches: a typed error, or every value as it was saved."""
    original = path.with_suffix(".whole")
    if not original.exists():
        original.write_bytes(path.read_bytes())
    spoiled = bytearray(original.read_bytes())
    place = st.integers(0, len(spoiled) - 1)
    for kind, at, value in data.draw(
        st.lists(
            st.tuples(st.sampled_from(["flip", "set", "cut", "double"]), place, st.integers(0, 255)),
            min_size=1,
            max_size=4,
        )
    ):
        at = min(at, len(spoiled) - 1)
        if kind == "flip":
            spoiled[at] ^= 1 << (value % 8)
        elif kind == "set":
            spoiled[at : at + 4] = bytes([value]) * len(spoiled[at : at + 4])
        elif kind == "cut":
            del spoiled[at : at + value]
        else:
            spoiled[at:at] = spoiled[at : at + value]
    path.write_bytes(spoiled)
    try:
        archive = read_archive(path)
    except MapFileError as error:
        outcome = error.code
    else:
        outcome = "same" if same(archive) else "changed"
    assert outcome in ("same", "damaged", "not_a_map", "newer_version")


def test_leftovers_of_killed_writers_are_removed_and_those_of_living_ones_stay(path: Path):
    names = ("old", "abandoned", "locked", "young")
    old, abandoned, locked, young = (path.with_name(f".{path.name}.{name}.part") for name in names)
    for leftover, age in ((old, 1e6), (abandoned, 60), (locked, 60), (young, 0)):
        leftover.touch()
        os.utime(leftover, (time.time() - age,) * 2)
    with locked.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        write_archive(path, {}, {}, {}, overwrite=True)
    assert [leftover.exists() for leftover in (old, abandoned, locked, young)] == [False, False, True, True]
