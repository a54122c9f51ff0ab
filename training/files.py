# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Files that are whole or not there, and lists of scenes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from seg3d_core.errors import Seg3DError, SourceError, printable

_LONGEST_NAME = 200  # characters


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file that takes the place of `path` when the block ends well, and leaves nothing otherwise.

    Raises Seg3DError where the place can't be written.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise Seg3DError(f"cannot write {path}: {error.strerror or error}") from None
    finally:
        with suppress(OSError):
            temporary.unlink()


def read_names(path: Path) -> list[str]:
    """Names of scenes, each of which may become that of a file. Raises SourceError."""
    try:
        names = path.read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"cannot read the list of scenes {path}: {error}") from None
    for name in names:
        if name in (".", "..") or Path(name).name != name or not name.isprintable() or len(name) > _LONGEST_NAME:
            raise SourceError(f"{path} lists {printable(name, 60)!r}, which is no name of a scene")
    return names
