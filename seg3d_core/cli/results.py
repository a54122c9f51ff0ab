# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""What `seg3d run` and the demo leave in a folder, and how it is read again."""

from __future__ import annotations

import fcntl
import json
import os
import platform
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__
from ..archive import write_error
from ..config import Config, flatten
from ..errors import MapFileError, Seg3DError
from ..runtime import Statistics
from ..types import QueryResult, Snapshot

FILES = ("map.seg3d", "report.json", "picture.png", "instances.npz")
AUTOSAVE = "autosave.seg3d"
_OF_A_RUN = (*FILES, "recording.rrd", "comparison.png", "instances-*.npz", "autosave*.seg3d")
_STAGING, _READY = ".seg3d-new-", ".seg3d-ready"


def prepare_folder(out: Path, *, overwrite: bool) -> None:
    """Makes the folder. Raises MapFileError when results lie there already, or it can't be written."""
    try:
        finish(out)
        present = [name for name in FILES if (out / name).exists()]
        if present and not overwrite:
            raise MapFileError(
                "exists", f"{out} already holds {', '.join(present)}: choose another folder, or add --overwrite"
            )
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = "a file of that name is there" if isinstance(error, FileExistsError) else error.strerror
        raise MapFileError("unwritable", f"cannot make the folder {out}: {reason}; choose another --out") from None
    if not os.access(out, os.W_OK | os.X_OK):
        raise MapFileError("unwritable", f"the folder {out} may not be written: choose another --out")


@contextmanager
def claimed(out: Path) -> Iterator[None]:
    """Keeps other runs out of the folder until the block, or the process, ends. Raises MapFileError."""
    handle = os.open(out, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise MapFileError("exists", f"another run is writing to {out}: wait for it, or choose another --out") from None
    except OSError:
        pass  # some network file systems know no locks
    try:
        yield
    finally:
        os.close(handle)


@contextmanager
def staged(out: Path) -> Iterator[Path]:
    """A folder for all of a run's files, which take their places in `out` together when the block ends well.

    Renaming that folder decides: a process that dies before it leaves the old results, one that dies after it leaves
    the new ones, which `finish` puts into place, be it in the next command. Use it within `claimed`.
    Raises MapFileError.
    """
    staging = out / f"{_STAGING}{os.getpid()}"
    try:
        with _named_after(out):
            finish(out)
            for old in out.glob(f"{_STAGING}*"):  # of runs that were killed
                shutil.rmtree(old, ignore_errors=True)
            staging.mkdir()
        try:
            yield staging
        except MapFileError as error:
            raise MapFileError(error.code, str(error).replace(str(staging), str(out))) from None
        with _named_after(out):
            _sync(staging)
            staging.replace(out / _READY)
            finish(out)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


@contextmanager
def _named_after(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise write_error(out, error) from None


def finish(out: Path) -> None:
    """Puts finished results into place, should their run have died on the way. May be called by several at once.

    What the report does not list is of an earlier run and goes: it would be taken for this one's.
    """
    ready = out / _READY
    if not ready.is_dir():
        return
    with suppress(FileNotFoundError):
        kept = json.loads((ready / "report.json").read_bytes())["files"]
        for old in [path for pattern in _OF_A_RUN for path in out.glob(pattern) if path.name not in kept]:
            old.unlink(missing_ok=True)
    # The report last: who sees its new date sees the new files.
    for file in sorted(ready.iterdir(), key=lambda file: file.name == "report.json"):
        with suppress(FileNotFoundError):
            file.replace(out / file.name)
    with suppress(FileNotFoundError):
        ready.rmdir()


def _sync(folder: Path) -> None:
    for path in (*folder.iterdir(), folder):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary name beside `path` that takes its place when the block ends well. Raises MapFileError."""
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        yield temporary
        temporary.replace(path)
    except OSError as error:
        raise write_error(path, error) from None
    except Seg3DError as error:
        # The pictures' own errors name the temporary file.
        if isinstance(error.__cause__, OSError):
            raise write_error(path, error.__cause__) from None
        raise
    finally:
        with suppress(OSError):
            temporary.unlink()


def map_file(path: Path) -> Path:
    """The map inside a folder of results, or the file itself. Raises MapFileError."""
    try:
        if path.is_dir():
            with suppress(OSError):  # where nothing may be written, what is there is read
                finish(path)
        file = path / "map.seg3d" if path.is_dir() else path
        if not file.is_file():
            saved = path / AUTOSAVE
            hint = f"; {saved} is what a run saved on its way" if saved.is_file() else ""
            raise MapFileError("not_found", f"{file} does not exist: `seg3d run PATH --out DIR` makes one in DIR{hint}")
    except PermissionError:
        raise MapFileError("unreadable", f"{path} may not be read: check its permissions") from None
    return file


def instances_of(snapshot: Snapshot) -> list[dict[str, Any]]:
    """One JSON object per instance."""
    sizes, names = snapshot.instances.sizes, snapshot.names or ("",) * len(snapshot.instances)
    return [
        {
            "id": int(snapshot.instances.ids[k]),
            "label": names[k],
            "score": round(float(snapshot.instances.scores[k]), 4),
            "points": int(sizes[k]),
            "centre": [round(float(v), 3) for v in snapshot.centres[k]],
            "size": [round(float(v), 3) for v in snapshot.extents[k]],
        }
        for k in range(len(sizes))
    ]


def report(
    source: dict[str, Any],
    config: Config,
    snapshot: Snapshot,
    statistics: Statistics,
    answers: Sequence[QueryResult] = (),
    encoder_id: str = "",
    **more: Any,
) -> dict[str, Any]:
    """The content of report.json."""
    return {
        "seg3d": __version__,
        "date": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "machine": {"cores": os.cpu_count(), "processor": platform.machine(), "python": platform.python_version()},
        "source": source,
        "frames": statistics.counters.get("frames", 0),
        "keyframes": statistics.counters.get("keyframes", 0),
        "points": statistics.points,
        "text_encoder": encoder_id or None,
        "instances": instances_of(snapshot),
        "answers": [asdict(a) for a in answers],
        **statistics.as_dict(),
        "config": flatten(config),
        **more,
    }


def write_report(path: Path, data: dict[str, Any]) -> None:
    with replacing(path) as temporary:
        # A path may hold bytes that are no text, as lone surrogates: these are escaped as JSON has it.
        text = json.dumps(data, indent=1, ensure_ascii=False) + "\n"
        temporary.write_bytes(text.encode("utf-8", "backslashreplace"))


def write_instances(path: Path, snapshot: Snapshot) -> None:
    """`xyz` (N, 3) float32, `instance` (N,) int32 with 0 = none, `ids`, `scores`, `names`."""
    names = snapshot.names or ("",) * len(snapshot.instances)
    with replacing(path) as temporary:
        np.savez_compressed(
            temporary,
            xyz=snapshot.cloud.xyz,
            rgb=snapshot.cloud.rgb,
            instance=snapshot.labels,
            ids=snapshot.instances.ids,
            scores=snapshot.instances.scores,
            names=np.array(names, dtype=np.str_),
        )
