# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Tensors out of files that `torch.save` wrote, without torch and without executing anything.

Such a file is a pickle that says how tensors lie on storages, and the storages' bytes: in a zip archive, or one after
the other in the legacy container. The pickle is read by an interpreter that knows only what a dictionary of tensors
is made of; every global it may name stands in `_GLOBALS`. Where a caller allows others, as the settings that training
code saves beside its weights, they become `_Unknown`: inert, never imported, left out of the result.
"""

from __future__ import annotations

import mmap
import pickletools
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import numpy as np

from .errors import WeightsError
from .types import Array

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001
_MAX_DEPTH = 8
_MAX_DIMENSIONS = 32

_MARK = object()
_PLAIN_KEYS = (str, bytes, int, float, bool, type(None))


class _RefusedError(ValueError):
    """What the file holds is well formed but none of ours, or is not what it claims to be."""


@dataclass(frozen=True)
class _StorageType:
    name: str
    dtype: str


@dataclass(frozen=True)
class _Storage:
    kind: _StorageType
    key: str
    count: int

    @property
    def size(self) -> int:
        """In bytes."""
        return self.count * np.dtype(self.kind.dtype).itemsize


@dataclass(frozen=True)
class _Tensor:
    storage: _Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


def _count(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 1 << 63:
        raise _RefusedError(f"no count, but a {type(value).__name__} out of range")
    return value


def _empty_dict() -> dict[Any, Any]:
    return {}


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> _Tensor:
    """The arguments of torch._utils._rebuild_tensor_v2, checked against the storage."""
    if not isinstance(storage, _Storage) or type(size) is not tuple or type(stride) is not tuple:
        raise _RefusedError("a tensor without a storage, size or stride")
    size, stride = tuple(map(_count, size)), tuple(map(_count, stride))
    if len(size) != len(stride) or len(size) > _MAX_DIMENSIONS:
        raise _RefusedError(f"a tensor of size {size} and stride {stride}")
    # Python's own integers: a product of hostile sizes must not wrap round.
    elements = 1
    for n in size:
        elements *= n
    last = _count(offset) + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if elements and (last >= storage.count or elements > storage.count):
        raise _RefusedError(f"a tensor of size {size} does not fit its storage of {storage.count} elements")
    return _Tensor(storage, offset, size, stride)


class _Unknown:
    """In place of whatever a global that is not ours names, makes or holds."""


_UNKNOWN = _Unknown()


def _parameter(data: Any, *_: Any) -> _Tensor:
    if not isinstance(data, _Tensor):
        raise _RefusedError("a parameter that is no tensor")
    return data


_STORAGES = {
    "DoubleStorage": "<f8",
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    # numpy has no bfloat16: read as its bits, given as float32.
    "BFloat16Storage": "<u2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "<i1",
    "ByteStorage": "<u1",
    "BoolStorage": "|u1",
}
_GLOBALS: dict[tuple[str, str], _StorageType | Callable[..., Any]] = {
    ("collections", "OrderedDict"): _empty_dict,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    **{("torch", name): _StorageType(name, dtype) for name, dtype in _STORAGES.items()},
}


def read_torch_file(path: Path, under: str = "", allow_unknown: bool = False) -> dict[str, Array]:
    """{name: read-only array} of a saved dictionary of tensors; dictionaries inside it join their names with dots.

    What is neither a tensor nor a dictionary (epochs, settings) is left out. bfloat16 becomes float32; tensors that
    share a storage share memory. `under` names a dictionary inside: where there is one, it alone is read, without its
    name. Raises WeightsError for anything else, and for whatever names a global beyond dictionaries, tensors and
    storages; with `allow_unknown` such a thing is left out like settings, and nothing of it is imported or executed.
    """
    try:
        with path.open("rb") as file:
            is_zip = file.read(4) == b"PK\x03\x04"
        return _read_zip(path, under, allow_unknown) if is_zip else _read_legacy(path, under, allow_unknown)
    except _RefusedError as error:
        raise WeightsError(f"{path} cannot be read as PyTorch weights: {error}") from None
    except KeyError as error:
        reason = f"it refers to {error}, which is not in it"
        raise WeightsError(f"{path} is damaged or no file of PyTorch weights: {reason}") from error
    except (OSError, ValueError, TypeError, LookupError, EOFError, OverflowError, struct.error) as error:
        raise WeightsError(f"{path} is damaged or no file of PyTorch weights: {error}") from error
    except (zipfile.BadZipFile, RuntimeError, MemoryError) as error:
        raise WeightsError(f"{path} is damaged or no file of PyTorch weights: {error or 'too large'}") from error


def _read_zip(path: Path, under: str, allow_unknown: bool) -> dict[str, Array]:
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        if len(names) != 1:
            raise _RefusedError("the archive holds no single data.pkl")
        root = names[0].removesuffix("data.pkl")
        if root + "byteorder" in archive.namelist() and _member(archive, root + "byteorder", 16) != b"little":
            raise _RefusedError("its numbers are not little-endian")
        tensors = _flatten(_inner(_Interpreter(_member(archive, names[0]), allow_unknown).run(), under))
        wanted = {tensor.storage for tensor in tensors.values()}
        if sum(storage.size for storage in wanted) > path.stat().st_size:
            raise _RefusedError("its tensors say that they have more bytes than the file")
        storages = {s: _elements(s, _member(archive, f"{root}data/{s.key}", s.size, exact=True)) for s in wanted}
    return {name: _view(tensor, storages[tensor.storage]) for name, tensor in tensors.items()}


def _member(archive: zipfile.ZipFile, name: str, size: int | None = None, exact: bool = False) -> bytes:
    """A member's bytes; its size is compared before anything is read. torch never compresses."""
    info = archive.getinfo(name)
    if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
        raise _RefusedError(f"{name} is compressed")
    if size is not None and (info.file_size != size if exact else info.file_size > size):
        raise _RefusedError(f"{name} has {info.file_size} bytes where {size} belong")
    data = archive.read(info)
    if len(data) != info.file_size:
        raise _RefusedError(f"{name} is cut short")
    return data


def _read_legacy(path: Path, under: str, allow_unknown: bool) -> dict[str, Array]:
    """Five pickles (magic, protocol, system, object, keys), then per key an int64 count and that many elements."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        if _Interpreter(data).run() != _LEGACY_MAGIC:
            raise _RefusedError("it does not begin as one")
        if _Interpreter(data).run() != _LEGACY_PROTOCOL:
            raise _RefusedError("its protocol is unknown")
        system = _Interpreter(data).run()
        if not isinstance(system, dict) or system.get("little_endian") is not True:
            raise _RefusedError("its numbers are not little-endian")
        content = _Interpreter(data, allow_unknown)
        tensors = _flatten(_inner(content.run(), under))
        storages = {}
        for key in _Interpreter(data).run():
            (storage,) = content.storages[key]
            (count,) = struct.unpack("<q", data.read(8))
            if count != storage.count or storage.size > len(data) - data.tell():
                raise _RefusedError(f"storage {key} is cut short or has another size than its tensors say")
            storages[storage] = _elements(storage, data.read(storage.size))
    return {name: _view(tensor, storages[tensor.storage]) for name, tensor in tensors.items()}


def _elements(storage: _Storage, data: bytes) -> Array:
    values = np.frombuffer(data, storage.kind.dtype)
    if storage.kind.name == "BoolStorage":
        values = values != 0
    elif storage.kind.name == "BFloat16Storage":
        values = (values.astype(np.uint32) << 16).view(np.float32)
    values.flags.writeable = False
    return values


def _view(tensor: _Tensor, values: Array) -> Array:
    if 0 in tensor.size:
        return np.zeros(tensor.size, values.dtype)
    strides = tuple(step * values.itemsize for step in tensor.stride)
    return np.lib.stride_tricks.as_strided(values[tensor.offset :], tensor.size, strides, writeable=False)


def _inner(saved: Any, name: str) -> Any:
    return saved[name] if isinstance(saved, dict) and isinstance(saved.get(name), dict) else saved


def _flatten(saved: Any) -> dict[str, _Tensor]:
    """Tensors by name. Each dictionary counts once, so that a small file cannot name very many."""
    if not isinstance(saved, dict):
        raise _RefusedError(f"it holds no dictionary of tensors, but one {type(saved).__name__.strip('_').lower()}")
    tensors: dict[str, _Tensor] = {}
    seen = {id(saved)}
    todo = [("", saved, 1)]
    while todo:
        prefix, content, depth = todo.pop()
        for key, value in content.items():
            name = f"{prefix}{key}"
            if isinstance(value, _Tensor):
                if name in tensors:
                    raise _RefusedError(f"two of its tensors are named {name}")
                tensors[name] = value
            elif isinstance(value, dict):
                if id(value) in seen or depth == _MAX_DEPTH:
                    raise _RefusedError(f"dictionaries lie within each other more than {_MAX_DEPTH} deep, or twice")
                seen.add(id(value))
                todo.append((f"{name}.", value, depth + 1))
    return tensors


def _needless(opcode: str) -> str:
    return f"it uses pickle's {opcode}, which a dictionary of tensors does not need"


class _Interpreter:
    """The part of pickle's machine that saved dictionaries of tensors use. It calls nothing but `_GLOBALS`."""

    # Their argument is the value.
    _LITERALS = frozenset(
        {"BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT"}
        | {"BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINSTRING", "SHORT_BINSTRING"}
        | {"BINBYTES", "SHORT_BINBYTES", "BINBYTES8"}
    )
    _CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
    _TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}

    def __init__(self, data: bytes | mmap.mmap, allow_unknown: bool = False):
        """`data`, if a map, is left behind the pickle's end; unlike a file it sets no room aside for what it lacks."""
        self._allow_unknown = allow_unknown
        self._data = cast("bytes | IO[bytes]", data)
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}
        self.storages: dict[str, set[_Storage]] = {}

    def run(self) -> Any:
        for opcode, argument, _ in pickletools.genops(self._data):
            name = opcode.name
            if name == "STOP":
                return self._stack.pop()
            if name in self._LITERALS:
                self._stack.append(argument)
            elif name in self._CONSTANTS:
                self._stack.append(self._CONSTANTS[name])
            elif name in self._TUPLES:
                self._stack.append(tuple(self._pop(self._TUPLES[name])))
            elif name in ("PROTO", "FRAME"):
                continue
            elif (operation := getattr(self, f"_do_{name.lower()}", None)) is not None:
                operation(argument)
            else:
                raise _RefusedError(_needless(name))
        raise EOFError("the pickle has no end")

    def _pop(self, count: int) -> list[Any]:
        if len(self._stack) < count:
            raise _RefusedError("its pickle takes more than it has put")
        items = self._stack[len(self._stack) - count :]
        del self._stack[len(self._stack) - count :]
        return items

    def _pop_to_mark(self) -> list[Any]:
        for depth, item in enumerate(reversed(self._stack)):
            if item is _MARK:
                items = self._pop(depth)
                self._stack.pop()
                return items
        raise _RefusedError("its pickle takes more than it has put")

    def _do_mark(self, _: Any) -> None:
        self._stack.append(_MARK)

    def _do_tuple(self, _: Any) -> None:
        self._stack.append(tuple(self._pop_to_mark()))

    def _do_empty_list(self, _: Any) -> None:
        self._stack.append([])

    def _do_empty_dict(self, _: Any) -> None:
        self._stack.append({})

    def _do_append(self, _: Any) -> None:
        (item,) = self._pop(1)
        target = self._target(list, _Unknown)
        if target is not _UNKNOWN:
            target.append(item)

    def _do_appends(self, _: Any) -> None:
        items = self._pop_to_mark()
        target = self._target(list, _Unknown)
        if target is not _UNKNOWN:
            target.extend(items)

    def _do_empty_set(self, _: Any) -> None:
        self._push_unknown("EMPTY_SET")

    def _do_additems(self, _: Any) -> None:
        self._pop_to_mark()
        self._target(_Unknown)

    def _do_frozenset(self, _: Any) -> None:
        self._pop_to_mark()
        self._push_unknown("FROZENSET")

    def _do_newobj(self, _: Any) -> None:
        self._pop(2)
        self._push_unknown("NEWOBJ")

    def _do_newobj_ex(self, _: Any) -> None:
        self._pop(3)
        self._push_unknown("NEWOBJ_EX")

    def _push_unknown(self, opcode: str) -> None:
        if not self._allow_unknown:
            raise _RefusedError(_needless(opcode))
        self._stack.append(_UNKNOWN)

    def _do_setitem(self, _: Any) -> None:
        items = self._pop(2)
        self._set(items)

    def _do_setitems(self, _: Any) -> None:
        self._set(self._pop_to_mark())

    def _set(self, items: list[Any]) -> None:
        target = self._target(dict, _Unknown)
        if target is _UNKNOWN:
            return
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(key, _PLAIN_KEYS):
                if self._allow_unknown:
                    continue
                raise _RefusedError(f"a dictionary has a {type(key).__name__} for a key")
            target[key] = value

    def _target(self, *kinds: type) -> Any:
        if not self._stack or type(self._stack[-1]) not in kinds:
            raise _RefusedError(f"its pickle fills what is no {kinds[0].__name__.strip('_').lower()}")
        return self._stack[-1]

    def _do_binput(self, index: int) -> None:
        self._memo[index] = self._stack[-1]

    _do_long_binput = _do_binput

    def _do_memoize(self, _: Any) -> None:
        self._memo[len(self._memo)] = self._stack[-1]

    def _do_binget(self, index: int) -> None:
        self._stack.append(self._memo[index])

    _do_long_binget = _do_binget

    def _do_global(self, argument: str) -> None:
        # pickletools joins module and name with one space.
        self._push_global(*argument.split(" ", 1))

    def _do_stack_global(self, _: Any) -> None:
        self._push_global(*self._pop(2))

    def _push_global(self, module: Any, name: Any) -> None:
        is_known = isinstance(module, str) and isinstance(name, str) and (module, name) in _GLOBALS
        if not is_known and not self._allow_unknown:
            raise _RefusedError(f"it asks for {module}.{name}, which weights do not need; nothing was executed")
        self._stack.append(_GLOBALS[module, name] if is_known else _UNKNOWN)

    def _do_reduce(self, _: Any) -> None:
        function, arguments = self._pop(2)
        if function is _UNKNOWN:
            self._stack.append(_UNKNOWN)
            return
        if not callable(function) or type(arguments) is not tuple:
            raise _RefusedError("its pickle calls what is no function")
        self._stack.append(function(*arguments))

    def _do_build(self, _: Any) -> None:
        # torch hangs versions of modules on a state's dictionary; no tensor is among them.
        self._pop(1)
        self._target(dict, _Unknown)

    def _do_binpersid(self, _: Any) -> None:
        (reference,) = self._pop(1)
        if type(reference) is not tuple or len(reference) not in (5, 6) or reference[0] not in ("storage", b"storage"):
            raise _RefusedError("a reference that is no storage")
        kind, key, _device, count, *view = reference[1:]
        if not isinstance(kind, _StorageType) or not isinstance(key, str) or any(v is not None for v in view):
            raise _RefusedError("a storage without type or key, or a view of another one")
        storage = _Storage(kind, key, _count(count))
        self.storages.setdefault(key, set()).add(storage)
        self._stack.append(storage)
