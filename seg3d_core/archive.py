# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""The container of saved maps: one zip (stored) of `meta.json`, `.npy` arrays and blobs such as JPEG views.

It knows nothing of maps. Writing is atomic: a process that dies on the way leaves the old file whole.
Reading trusts nothing: every size is checked against the file's own before memory is taken, every byte by
the zip's checksums, and nothing is ever unpickled or unpacked to disk.
"""

from __future__ import annotations

import errno
import fcntl
import glob
import json
import math
import os
import re
import time
import zipfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import IO, Any
from uuid import uuid4

import numpy as np

from . import __version__
from .array_file import DAMAGE, read_array
from .errors import MapFileError, printable
from .types import Array

FORMAT = "seg3d-map"
VERSION = (1, 1)
"""(major, minor): a higher minor version adds what older readers may ignore, a higher major does not."""

unfinished: set[Path] = set()
"""Files that this process is writing: whoever must end it at once removes them first."""

_META = "meta.json"
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*(/[A-Za-z0-9_-][A-Za-z0-9_.-]*)*")
_LEFTOVER_AGE, _LOCKED_BY = 3600.0, 5.0  # seconds


@dataclass(frozen=True, eq=False)
class Archive:
    """What `read_archive` found: the caller's own meta, arrays and blobs, and who wrote them when.

    `version` is (major, minor) of the format, `software` the version of seg3d that wrote the file, `saved`
    the time in ISO 8601 (UTC).
    """

    meta: dict[str, Any]
    arrays: dict[str, Array]
    blobs: dict[str, bytes]
    version: tuple[int, int] = VERSION
    software: str = __version__
    saved: str = ""


def write_archive(
    path: str | Path,
    meta: Mapping[str, Any],
    arrays: Mapping[str, Array],
    blobs: Mapping[str, bytes],
    *,
    overwrite: bool,
) -> None:
    """Writes one file, all or nothing: to a temporary file beside `path`, synced, then renamed over it.

    `meta` must be JSON without NaN; names are letters, digits and `_.-`, with `/` between parts; arrays of
    any shape, of numbers, booleans or strings. Raises MapFileError with code `exists`, `no_space` or
    `unwritable`; ValueError or TypeError for what can't be stored.
    """
    path = Path(path)
    members: dict[str, Array | bytes] = {
        **{_checked("arrays", name) + ".npy": np.asarray(array) for name, array in arrays.items()},
        **{_checked("blobs", name): blob for name, blob in blobs.items()},
    }
    header = {
        "format": FORMAT,
        "version": "{}.{}".format(*VERSION),
        "software": __version__,
        "saved": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "members": sorted(members),
        "meta": dict(meta),
    }
    # A path may hold bytes that are no text, as lone surrogates: these are escaped as JSON has it.
    text = json.dumps(header, allow_nan=False, ensure_ascii=False, indent=1).encode("utf-8", "backslashreplace")
    if path.is_dir():
        raise MapFileError("unwritable", f"{path} is a folder: give a file name such as {path / 'map.seg3d'}")
    if not overwrite and path.exists():
        raise MapFileError("exists", f"{path} exists already: choose another name or allow overwriting")
    _remove_leftovers(path)
    temporary = path.with_name(f".{path.name}.{uuid4().hex}.part")
    unfinished.add(temporary)
    try:
        with temporary.open("xb") as file:
            with suppress(OSError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _write_members(file, {_META: text, **members})
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        raise write_error(path, error) from error
    finally:
        with suppress(OSError):
            temporary.unlink()
        unfinished.discard(temporary)


def read_archive(path: str | Path) -> Archive:
    """Reads a file that `write_archive` made, or says with a MapFileError why not.

    Codes: `not_found`, `unreadable`, `not_a_map`, `damaged`, `newer_version`.
    Memory stays within about the file's size.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            return _read(path, file)
    except FileNotFoundError:
        raise MapFileError("not_found", f"there is no map file {path}") from None
    except IsADirectoryError:
        raise MapFileError("not_a_map", f"{path} is a folder: name the map file in it") from None
    except PermissionError:
        raise MapFileError("unreadable", f"{path} may not be read: check its permissions") from None
    except OSError as error:
        raise MapFileError("damaged", f"{path} cannot be read: {error.strerror or error}") from error


def _checked(kind: str, name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError(f"{kind} name {name!r}: use letters, digits and _.- with / between parts")
    return f"{kind}/{name}"


def _write_members(file: IO[bytes], members: Mapping[str, Array | bytes]) -> None:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for name, content in members.items():
            if isinstance(content, np.ndarray):
                # A bare ZipInfo carries no clock: the same map gives the same bytes.
                with archive.open(zipfile.ZipInfo(name), "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, content, allow_pickle=False)
            else:
                archive.writestr(zipfile.ZipInfo(name), content)


def _sync_folder(folder: Path) -> None:
    """Makes the rename itself durable; not every file system lets folders be synced."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _remove_leftovers(path: Path) -> None:
    """Removes what killed writers of this file left, never what a writer holds that lives."""
    with suppress(OSError):
        for old in path.parent.glob(f".{glob.escape(path.name)}.*.part"):
            age = time.time() - old.stat().st_mtime
            # A writer locks its file a moment after it made it; some network file systems know no locks.
            if age > _LEFTOVER_AGE or (age > _LOCKED_BY and _is_abandoned(old)):
                old.unlink()


def _is_abandoned(path: Path) -> bool:
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
    return True


def write_error(path: Path, error: OSError) -> MapFileError:
    """What to do about a file that could not be written."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return MapFileError("no_space", f"no space left to write {path}: free some or choose another disk")
    if error.errno == errno.ENOENT:
        return MapFileError(
            "unwritable", f"cannot write {path}: the folder {path.parent} does not exist, make it first"
        )
    return MapFileError("unwritable", f"cannot write {path}: {error.strerror or error}; check the folder's permissions")


def _damaged(path: Path, what: str) -> MapFileError:
    return MapFileError(
        "damaged", f"{path} is damaged: {printable(what, 300)}; take a copy of it or save the map again"
    )


def _not_a_map(path: Path, what: str) -> MapFileError:
    return MapFileError("not_a_map", f"{path} is no saved map: {printable(what, 300)}")


def _read(path: Path, file: IO[bytes]) -> Archive:
    size = os.fstat(file.fileno()).st_size
    if size == 0:
        raise _damaged(path, "it is empty")
    if file.read(4) != b"PK\x03\x04":
        raise _not_a_map(path, "it does not start like one")
    try:
        archive = zipfile.ZipFile(file)
    except DAMAGE as error:
        raise _damaged(path, f"its table of contents is unreadable, so it may be cut short ({error})") from error
    with archive:
        members = _checked_members(path, archive, size)
        header, version = _read_header(path, archive, members)
        arrays, blobs = {}, {}
        for name, info in members.items():
            if name.startswith("arrays/") and name.endswith(".npy"):
                arrays[name[7:-4]] = _read_member(path, archive, info, read_array)
            elif name.startswith("blobs/"):
                blobs[name[6:]] = _read_member(path, archive, info, _read_bytes)
    return Archive(
        header["meta"], arrays, blobs, version, str(header.get("software", "")), str(header.get("saved", ""))
    )


def _checked_members(path: Path, archive: zipfile.ZipFile, size: int) -> dict[str, zipfile.ZipInfo]:
    """Name to member; nothing is read of an archive whose table promises what the file can't hold."""
    members: dict[str, zipfile.ZipInfo] = {}
    for info in archive.infolist():
        if not _NAME.fullmatch(info.filename):
            raise _damaged(path, f"the name {info.filename[:80]!r} inside is not allowed")
        if info.filename in members:
            raise _damaged(path, f"{info.filename!r} stands in it twice")
        if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1 or info.file_size != info.compress_size:
            raise _damaged(path, f"{info.filename!r} is compressed or encrypted, which maps never are")
        members[info.filename] = info
    if sum(info.file_size for info in members.values()) > size:
        raise _damaged(path, "its parts claim to be larger than the file")
    if _META not in members:
        raise _not_a_map(path, f"there is no {_META} in it")
    return members


def _read_header(
    path: Path, archive: zipfile.ZipFile, members: Mapping[str, zipfile.ZipInfo]
) -> tuple[dict[str, Any], tuple[int, int]]:
    text = _read_member(path, archive, members[_META], _read_bytes)
    try:
        header = json.loads(text, parse_constant=_refuse_number, parse_float=_finite)
    except DAMAGE as error:
        raise _damaged(path, f"{_META} is no JSON ({error})") from error
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise _not_a_map(path, f"{_META} does not say {FORMAT!r}")
    match = re.fullmatch(r"(\d{1,6})\.(\d{1,6})", str(header.get("version")), re.ASCII)
    if match is None:
        raise _damaged(path, f"its format version {str(header.get('version'))[:40]!r} is not like 1.0")
    version = int(match[1]), int(match[2])
    if version[0] > VERSION[0]:
        software = printable(str(header.get("software")), 40)
        raise MapFileError(
            "newer_version",
            f"{path} has format {version[0]}.{version[1]}, written by seg3d {software}; "
            f"this is seg3d {__version__}, which reads up to {VERSION[0]}.x: update seg3d",
        )
    if not isinstance(header.get("meta"), dict):
        raise _damaged(path, f"{_META} has no table `meta`")
    if header.get("members") != sorted(members.keys() - {_META}):
        raise _damaged(path, "its parts are not those that it was saved with")
    return header, version


def _refuse_number(text: str) -> float:
    raise ValueError(f"{text} is not allowed")


def _finite(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else _refuse_number(text)


def _read_member(
    path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo, read: Callable[[IO[bytes], int], Any]
) -> Any:
    try:
        with archive.open(info) as member:
            return read(member, info.file_size)
    except DAMAGE as error:
        raise _damaged(path, f"{info.filename!r}: {error or type(error).__name__}") from error


def _read_bytes(member: IO[bytes], size: int) -> bytes:
    content = member.read()
    if len(content) != size:
        raise ValueError(f"{len(content)} bytes where {size} were promised")
    return content
