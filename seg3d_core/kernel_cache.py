# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""A folder for compiled kernels where neither the package nor the user's home can be written.

Numba keeps them beside the source or in the user's cache folder, and refuses to compile where both are
read-only, as in many containers and on shared installations.
"""

from __future__ import annotations

import os
from pathlib import Path


def find_kernel_cache() -> None:
    """Names a private temporary folder in NUMBA_CACHE_DIR where Numba would find none. Call it before Numba loads."""
    if os.environ.get("NUMBA_CACHE_DIR"):
        return
    user = Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser())
    if _writable(Path(__file__).parent / "__pycache__") or _writable(user / "numba"):
        return
    folder = _private_folder()
    if folder:
        os.environ["NUMBA_CACHE_DIR"] = str(folder)


def _writable(folder: Path) -> bool:
    """Whether the folder can be written, or made."""
    while not os.access(folder, os.F_OK) and folder != folder.parent:
        folder = folder.parent
    return os.access(folder, os.W_OK | os.X_OK)


def _private_folder() -> Path | None:
    """The same one for every run of this user; None where there is no temporary folder at all.

    Cached kernels are code: a folder that another user made, or could write, is never taken.
    """
    import stat
    import tempfile

    try:
        folder = Path(tempfile.gettempdir()) / f"seg3d-kernels-{os.getuid()}"
        try:
            folder.mkdir(0o700)
        except FileExistsError:
            info = folder.lstat()
            if not stat.S_ISDIR(info.st_mode) or info.st_uid != os.getuid() or info.st_mode & 0o022:
                return Path(tempfile.mkdtemp(prefix="seg3d-kernels-"))
    except OSError:
        return None
    return folder
