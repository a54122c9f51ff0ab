# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""`seg3d view`: a saved map in the rerun viewer."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tempfile
from pathlib import Path

from ..errors import Seg3DError
from .query import load_snapshot


def view(path: Path) -> int:
    """Opens the run's own recording where there is one, else the map alone."""
    if importlib.util.find_spec("rerun") is None:
        raise Seg3DError("the viewer is not installed: pip install 'seg3d[viz]'; or look at picture.png")
    recording = path / "recording.rrd"
    if path.is_dir() and recording.is_file():
        return _open(recording)
    from ..viz import Recording

    with tempfile.TemporaryDirectory(prefix="seg3d-view-") as folder:
        file = Path(folder) / "map.rrd"
        recorder = Recording(file)
        recorder.snapshot(load_snapshot(path))
        recorder.close()
        return _open(file)


def _open(file: Path) -> int:
    return subprocess.call([sys.executable, "-m", "rerun", str(file)])
