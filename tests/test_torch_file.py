# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Reading what torch.save wrote: both containers, every element type; hostile and broken files execute nothing."""

from __future__ import annotations

import os
import pickle
import struct
import zipfile
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seg3d_core.errors import WeightsError
from seg3d_core.torch_file import read_torch_file

CONTAINERS = ("zip", "legacy")


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def number(value: int) -> bytes:
    if -(2**31) <= value < 2**31:
        return b"J" + struct.pack("<i", value)
    data = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(data)]) + data


def numbers(values: tuple[int, ...]) -> bytes:
    return b"(" + b"".join(map(number, values)) + b"t"


def tensor(
    key: str, count: int, size: tuple, stride: tuple | None = None, offset: int = 0, kind: str = "Float"
) -> bytes:
    """The opcodes that torch writes for a tensor; C order by default."""
    if stride is None:
        stride = tuple(int(np.prod(size[i + 1 :])) for i in range(len(size)))
    storage = b"(" + text("storage") + f"ctorch\n{kind}Storage\n".encode() + text(key) + text("cpu") + number(count)
    arguments = b"(" + storage + b"tQ" + number(offset) + numbers(size) + numbers(stride)
    return b"ctorch._utils\n_rebuild_tensor_v2\n" + arguments + b"\x89ccollections\nOrderedDict\n)RtR"


def dictionary(items: dict[str, bytes]) -> bytes:
    return b"}(" + b"".join(text(name) + value for name, value in items.items()) + b"u"


def write(path: Path, container: str, content: bytes, storages: dict[str, np.ndarray] | None = None) -> Path:
    """A file around `content`, the opcodes of one object."""
    storages = storages or {}
    if container == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("weights/data.pkl", b"\x80\x02" + content + b".")
            archive.writestr("weights/byteorder", "little")
            for key, values in storages.items():
                archive.writestr(f"weights/data/{key}", values.tobytes())
        return path
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}
    parts = [pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001, system)]
    parts += [b"\x80\x02" + content + b".", pickle.dumps(list(storages), 2)]
    parts += [struct.pack("<q", len(values)) + values.tobytes() for values in storages.values()]
    path.write_bytes(b"".join(parts))
    return path


@pytest.fixture(params=CONTAINERS)
def container(request) -> str:
    return request.param


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [("Double", "f8"), ("Float", "f4"), ("Half", "f2"), ("Long", "i8"), ("Int", "i4"), ("Short", "i2"),
     ("Char", "i1"), ("Byte", "u1"), ("Bool", "?")],
)  # fmt: skip
def test_every_element_type_in_both_containers(tmp_path, container, kind, dtype) -> None:
    values = np.array([0, 1, 1, 0, 100, 3], dtype)
    path = write(tmp_path / "w.pt", container, dictionary({"a": tensor("0", 6, (2, 3), kind=kind)}), {"0": values})
    found = read_torch_file(path)["a"]
    assert found.dtype == values.dtype
    assert np.array_equal(found, values.reshape(2, 3))
    assert not found.flags.writeable


def test_bfloat16_becomes_float32(tmp_path, container) -> None:
    exact = np.array([1.5, -2, 0, 3e38, np.inf], np.float32)
    bits = (exact.view(np.uint32) >> 16).astype(np.uint16)
    path = write(tmp_path / "w.pt", container, dictionary({"a": tensor("0", 5, (5,), kind="BFloat16")}), {"0": bits})
    found = read_torch_file(path)["a"]
    assert found.dtype == np.float32
    assert found == pytest.approx(exact, rel=1e-2)


def test_views_lie_on_their_storage(tmp_path, container) -> None:
    values = np.arange(12, dtype=np.float32)
    items = {
        "part": tensor("7", 12, (2, 3), offset=4),
        "transposed": tensor("7", 12, (4, 3), (1, 4)),
        "scalar": tensor("7", 12, (), offset=11),
        "empty": tensor("7", 12, (0, 5)),
    }
    found = read_torch_file(write(tmp_path / "w.pt", container, dictionary(items), {"7": values}))
    assert np.array_equal(found["part"], values[4:10].reshape(2, 3))
    assert np.array_equal(found["transposed"], values.reshape(3, 4).T)
    assert found["scalar"] == 11
    assert found["scalar"].shape == ()
    assert found["empty"].shape == (0, 5)
    assert np.shares_memory(found["part"], found["transposed"])


def test_dictionaries_join_their_names_and_what_is_no_tensor_is_left_out(tmp_path, container) -> None:
    state = dictionary({"w": tensor("0", 2, (2,)), "version": number(3)})
    listed = b"](" + tensor("1", 3, (3,)) + b"e"
    content = dictionary({"model": state, "epoch": number(9), "loss": b"G" + struct.pack(">d", 0.5), "more": listed})
    storages = {"0": np.array([1, 2], np.float32), "1": np.zeros(3, np.float32)}
    found = read_torch_file(write(tmp_path / "w.pt", container, content, storages))
    assert {name: values.tolist() for name, values in found.items()} == {"model.w": [1, 2]}


def test_names_that_would_hide_one_another_are_refused(tmp_path, container) -> None:
    one = tensor("0", 1, (1,))
    content = dictionary({"a.b": one, "a": dictionary({"b": one})})
    with pytest.raises(WeightsError, match=r"two of its tensors are named a\.b"):
        read_torch_file(write(tmp_path / "w.pt", container, content, {"0": np.zeros(1, np.float32)}))


class Evil:
    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("protocol", [2, 4])
def test_a_hostile_pickle_is_named_and_not_executed(tmp_path, container, protocol) -> None:
    created = tmp_path / "created"
    content = pickle.dumps({"a": Evil(created)}, protocol)
    path = write(tmp_path / "w.pt", container, content[2:-1])
    with pytest.raises(WeightsError, match=r"w\.pt.*asks for (posix|nt|os)\.mkdir"):
        read_torch_file(path)
    assert not created.exists()
    # On purpose, and of this test's own making: a sample that does no harm where it is loaded would prove nothing.
    pickle.loads(content)
    assert created.exists(), "the pickle is hostile indeed"


@pytest.mark.parametrize("protocol", [2, 4])
def test_settings_of_unknown_classes_are_left_out_and_nothing_of_them_runs(tmp_path, container, protocol) -> None:
    created = tmp_path / "created"
    arguments = {"evil": Evil(created), "odd": {frozenset({1}): Path("x")}, "set": {1, 2}, "array": np.arange(3)}
    pickled = pickle.dumps([arguments, Fraction(1, 3)], protocol)[2:-1]
    content = b"}(" + text("model") + dictionary({"a": tensor("0", 2, (2,))}) + text("args") + pickled + b"u"
    path = write(tmp_path / "w.pt", container, content, {"0": np.array([1, 2], np.float32)})
    found = read_torch_file(path, under="model", allow_unknown=True)
    assert found.keys() == {"a"}
    assert found["a"].tolist() == [1, 2]
    assert not created.exists()
    with pytest.raises(WeightsError, match="asks for"):
        read_torch_file(path)
    assert read_torch_file(path, under="ema_model", allow_unknown=True).keys() == {"model.a"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"cbuiltins\neval\n", r"builtins\.eval"),
        (b"ctorch.storage\n_load_from_bytes\n", r"torch\.storage\._load_from_bytes"),
        (b"ctorch\nFloatStorage\n)R", "no function"),
        (b"ccollections\nOrderedDict\n)\x81", "NEWOBJ"),
        (b"S'x'\n", "STRING"),
        (b"}}}s", "has a dict for a key"),
        (b")ccollections\nOrderedDict\n}b", "no dict"),
        (b"K\x01", "no dictionary of tensors, but one int"),
        (b"h\x00", "damaged"),
        (b"t", "more than it has put"),
        (b"a", "more than it has put"),
        (b"", "damaged"),
        (text("x") + b"Q", "no storage"),
    ],
)
def test_what_no_dictionary_of_tensors_needs_is_refused(tmp_path, container, content, message) -> None:
    with pytest.raises(WeightsError, match=message):
        read_torch_file(write(tmp_path / "w.pt", container, content))


@pytest.mark.parametrize(
    "bad",
    [
        tensor("0", 4, (5,)),
        tensor("0", 4, (2, 2), (4, 1)),
        tensor("0", 4, (4,), offset=1),
        tensor("0", 4, (4,), offset=-1),
        tensor("0", 4, (2,), (-1,)),
        tensor("0", 4, (2**40,), (0,)),
        tensor("0", 4, (2**33, 2**33), (0, 0)),
        tensor("0", 4, (2, 2), (1,)),
        tensor("0", 4, (1,) * 40, (1,) * 40),
        tensor("0", 2**40, (2**40,)),
        tensor("0", 2**70, (1,)),
        tensor("0", 5, (4,)),
        tensor("0", 2, (2,), kind="Half"),
        tensor("1", 4, (4,)),
        tensor("../0", 4, (4,)),
        tensor("0", 4, (4,), kind="Quantised"),
    ],
)
def test_sizes_are_checked_before_anything_is_allocated(tmp_path, container, bad) -> None:
    path = write(tmp_path / "w.pt", container, dictionary({"a": bad}), {"0": np.zeros(4, np.float32)})
    with pytest.raises(WeightsError, match=r"w\.pt"):
        read_torch_file(path)


def test_small_files_cannot_name_very_many_tensors(tmp_path, container) -> None:
    """Each dictionary holds the one before twice: 2^40 names, were they all followed."""
    content = dictionary({"w": tensor("0", 1, (1,))}) + b"q\x00"
    for i in range(40):
        content += b"r" + struct.pack("<I", i)
        content += b"}(" + text("a") + b"j" + struct.pack("<I", i) + text("b") + b"j" + struct.pack("<I", i) + b"u"
    path = write(tmp_path / "w.pt", container, content, {"0": np.zeros(1, np.float32)})
    with pytest.raises(WeightsError, match=r"deep, or twice"):
        read_torch_file(path)


def test_deep_nesting_is_refused_and_breaks_nothing(tmp_path, container) -> None:
    deep = (b"}" + text("a")) * 2000 + b"}" + b"s" * 2000
    with pytest.raises(WeightsError, match="deep"):
        read_torch_file(write(tmp_path / "w.pt", container, deep))
    tuples = b"}" + b")" + b"\x85" * 100_000 + b"Ns"
    with pytest.raises(WeightsError, match="has a tuple for a key"):
        read_torch_file(write(tmp_path / "t.pt", container, tuples))


def test_other_byte_orders_and_compressed_members_are_refused(tmp_path) -> None:
    path = tmp_path / "w.pt"
    content = b"\x80\x02" + dictionary({"a": tensor("0", 1, (1,))}) + b"."
    for order, method, message in (("big", zipfile.ZIP_STORED, "little"), ("little", zipfile.ZIP_DEFLATED, "compress")):
        with zipfile.ZipFile(path, "w", method) as archive:
            archive.writestr("w/data.pkl", content)
            archive.writestr("w/byteorder", order)
            archive.writestr("w/data/0", bytes(4))
        with pytest.raises(WeightsError, match=message):
            read_torch_file(path)
    write(path, "legacy", dictionary({}))
    path.write_bytes(path.read_bytes().replace(b"little_endianq\x02\x88", b"little_endianq\x02\x89"))
    with pytest.raises(WeightsError, match="little-endian"):
        read_torch_file(path)


@pytest.mark.parametrize("content", [b"", b"nothing", b"PK\x03\x04", b"\x80\x02}."])
def test_what_is_no_such_file_is_refused(tmp_path, content) -> None:
    (tmp_path / "w.pt").write_bytes(content)
    with pytest.raises(WeightsError, match=r"w\.pt"):
        read_torch_file(tmp_path / "w.pt")
    with pytest.raises(WeightsError, match=r"none\.pt"):
        read_torch_file(tmp_path / "none.pt")


@pytest.mark.parametrize("kind", CONTAINERS)
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_damaged_files_are_refused_or_read_never_worse(tmp_path_factory, kind, data) -> None:
    path = tmp_path_factory.mktemp("damaged") / "w.pt"
    storages = {"0": np.arange(6, dtype=np.float32), "1": np.ones(2, np.float32)}
    items = {"a": tensor("0", 6, (2, 3)), "b": dictionary({"c": tensor("1", 2, (2,))})}
    whole = write(path, kind, dictionary(items), storages).read_bytes()
    if data.draw(st.booleans()):
        path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
        with pytest.raises(WeightsError):
            read_torch_file(path)
        return
    place, value = data.draw(st.integers(0, len(whole) - 1)), data.draw(st.integers(0, 255))
    path.write_bytes(whole[:place] + bytes([value]) + whole[place + 1 :])
    try:
        found = read_torch_file(path)
    except WeightsError:
        return
    assert all(isinstance(values, np.ndarray) and values.size <= 6 for values in found.values())


@pytest.mark.parametrize("is_zip", [True, False])
def test_what_torch_saves_is_read_as_torch_reads_it(tmp_path, is_zip) -> None:
    torch = pytest.importorskip("torch", reason="compares with torch: pip install torch")
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    shared = torch.arange(20.0)
    saved = {
        "model": network.state_dict(),
        "parameter": torch.nn.Parameter(torch.ones(2)),
        "views": {"a": shared[3:9].reshape(2, 3), "b": shared.reshape(4, 5).T},
        "kinds": {str(t): torch.tensor([0, 1, 5]).to(t) for t in (torch.float16, torch.int8, torch.bool, torch.int64)},
        "half": torch.tensor([1.25, -3]).to(torch.bfloat16),
        "epoch": 3,
    }
    path = tmp_path / "w.pt"
    torch.save(saved, path, _use_new_zipfile_serialization=is_zip)
    expected = {}

    def collect(prefix: str, value) -> None:
        if isinstance(value, torch.Tensor):
            expected[prefix] = (
                value.detach().to(torch.float32 if value.dtype == torch.bfloat16 else value.dtype).numpy()
            )
        elif isinstance(value, dict):
            for name, inner in value.items():
                collect(f"{prefix}.{name}" if prefix else name, inner)

    collect("", torch.load(path, weights_only=True))
    found = read_torch_file(path)
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        assert found[name].dtype == values.dtype
        assert np.array_equal(found[name], values)


def test_a_text_is_told_from_weights(tmp_path) -> None:
    (tmp_path / "w.pth").write_text("hello\n")
    with pytest.raises(WeightsError, match="no file of PyTorch weights: it refers to 101, which is not in it"):
        read_torch_file(tmp_path / "w.pth")
