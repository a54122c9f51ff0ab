"""Where maps may be saved: inside one folder, whatever a client asks for."""

from __future__ import annotations

import os
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
