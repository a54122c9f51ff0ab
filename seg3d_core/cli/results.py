"""What `seg3d run` and the demo leave in a folder, and how it is read again."""

from __future__ import annotations

import fcntl
import json
import os
import platform
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


def prepare_folder(out: Path, *, overwrite: bool) -> None:
    """Makes the folder. Raises MapFileError when results lie there already, or it can't be written."""
    try:
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
        file = path / "map.seg3d" if path.is_dir() else path
        if not file.is_file():
            raise MapFileError("not_found", f"{file} does not exist: `seg3d run PATH --out DIR` makes one in DIR")
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
        temporary.write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n")


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
