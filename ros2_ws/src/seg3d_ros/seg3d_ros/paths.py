"""Where maps may be saved: inside one folder, whatever a client asks for."""

from __future__ import annotations

from pathlib import Path

from seg3d_core.errors import MapFileError

SUFFIX = ".seg3d"


def confined(folder: str | Path, asked: str) -> Path:
    """The file that `asked` means, with links resolved; relative paths start in `folder`.

    Raises MapFileError `empty_path`, or `outside_folder` for what leads out, be it by `..`, an absolute path or a link.
    """
    if not asked.strip() or "\0" in asked:
        raise MapFileError("empty_path", "the path is empty: give a file name such as kitchen.seg3d")
    home = Path(folder).expanduser().resolve()
    path = home / Path(asked).expanduser()
    if path.suffix != SUFFIX:
        path = path.with_name(path.name + SUFFIX) if path.name not in ("", "..") else path
    path = path.resolve()
    if home not in path.parents:
        raise MapFileError(
            "outside_folder",
            f"{asked!r} leads to {path}, outside of {home} (the parameter maps_folder): choose a path inside",
        )
    return path
