# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Where maps may be saved, and how many: inside one folder that does not fill the disk, whatever a client asks for."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path

from seg3d_core.errors import MapFileError, printable

SUFFIX = ".seg3d"
AUTOSAVE = "autosave.seg3d"
# In bytes. File systems take names of 255; a map is written beside its place under a longer one first.
_LONGEST_PATH, _LONGEST_NAME = 1024, 200


def confined(folder: str | Path, asked: str) -> Path:
    """The file that `asked` means, with links resolved; relative paths start in `folder`.

    Raises MapFileError `empty_path` for what names no file, or `outside_folder` for what leads out, be it by `..`, an
    absolute path, a home or a link.
    """
    if not asked.strip() or not asked.isprintable() or Path(asked).name in ("", ".."):
        raise MapFileError(
            "empty_path", "the path names no file, or has characters that no name has: give one such as kitchen.seg3d"
        )
    if len(os.fsencode(asked)) > _LONGEST_PATH or any(len(os.fsencode(p)) > _LONGEST_NAME for p in Path(asked).parts):
        raise MapFileError("empty_path", f"the path {printable(asked, 40)!r} is too long: give a shorter name")
    home = Path(folder).expanduser().resolve()
    path = home / asked
    if path.suffix != SUFFIX:
        path = path.with_name(path.name + SUFFIX)
    try:
        path = path.resolve()
    except (OSError, RuntimeError):  # links that lead to each other
        path = home
    if home not in path.parents or asked.startswith("~"):
        raise MapFileError(
            "outside_folder",
            f"{asked!r} leads out of {home} (the parameter maps_folder): choose a path inside",
        )
    return path


def check_room(folder: str | Path, path: Path, needed_mb: float, most: int, spare_mb: float) -> None:
    """Raises MapFileError `no_space` where one more map is too many, or too large for the disk.

    `most` counts the maps in `folder`, whoever made them; replacing one adds none. `needed_mb` and what must stay free,
    `spare_mb`, are in millions of bytes.
    """
    home = Path(folder).expanduser().resolve()
    if not path.exists() and sum(1 for _ in islice(_maps(home), most)) == most:
        raise MapFileError(
            "no_space",
            f"{home} holds {most} maps or more, the parameter max_maps allows no other: overwrite one, or remove some",
        )
    free_mb = shutil.disk_usage(next(p for p in (home, *home.parents) if p.exists())).free / 1e6
    if free_mb < needed_mb + spare_mb:
        raise MapFileError(
            "no_space",
            f"the map takes about {needed_mb:.0f} MB and the disk of {home} has {free_mb:.0f} MB free, of which "
            f"{spare_mb:.0f} MB stay so (the parameter spare_disk): free some, or choose another maps_folder",
        )


def _maps(home: Path) -> Iterator[str]:
    for _, _, names in os.walk(home):
        yield from (name for name in names if name.endswith(SUFFIX))


@contextmanager
def folder_of(path: Path) -> Iterator[None]:
    """Makes the folders that `path` lies in; those that are new go again where no file comes into them."""
    new = [folder for folder in path.parents if not folder.exists()]
    try:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise MapFileError("unwritable", f"cannot make the folder {path.parent}: {error}") from None
        yield
    finally:
        for folder in new:
            with suppress(OSError):  # not empty
                folder.rmdir()
