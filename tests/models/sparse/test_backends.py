"""MinkowskiEngine and spconv, where installed, compute what plain torch computes.

Each has a process of its own: loaded together, spconv's sums come out wrong.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from seg3d_core.errors import ConfigError

pytest.importorskip("torch")

from seg3d_core.models.sparse import find_backend

NOT_INSTALLED = 77


@pytest.mark.parametrize("library", ["minkowski", "spconv"])
def test_forward_and_gradients_equal_plain_torch(library: str) -> None:
    script = Path(__file__).with_name("compare_backend.py")
    done = subprocess.run([sys.executable, str(script), library], capture_output=True, text=True, check=False)
    if done.returncode == NOT_INSTALLED:
        pytest.skip(done.stdout.strip())
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("wanted", "loaded"), [("minkowski", "spconv"), ("spconv", "MinkowskiEngine")])
def test_both_libraries_in_one_process_are_refused(wanted: str, loaded: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, loaded, sys)
    with pytest.raises(ConfigError, match="one process"):
        find_backend(wanted, wanted)
