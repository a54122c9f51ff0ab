# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""MinkowskiEngine, spconv and Triton, where installed, compute what plain torch computes.

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


@pytest.mark.parametrize(
    ("library", "convention"),
    [("minkowski", "minkowski"), ("spconv", "spconv"), ("triton", "minkowski"), ("triton", "spconv")],
)
def test_forward_and_gradients_equal_plain_torch(library: str, convention: str) -> None:
    script = Path(__file__).with_name("compare_backend.py")
    words = [sys.executable, str(script), library, convention]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode == NOT_INSTALLED:
        pytest.skip(done.stdout.strip())
    assert done.returncode == 0, done.stderr


ONE_AFTER_THE_OTHER = f"""
import sys
from seg3d_core.errors import ConfigError
from seg3d_core.models.sparse import find_backend

first, second = sys.argv[1:]
try:
    find_backend(first, first)
except ConfigError as error:
    print(error)
    sys.exit({NOT_INSTALLED})
try:
    find_backend(second, second)
except ConfigError as error:
    assert "in one process" in str(error), error
else:
    sys.exit("both are loaded")
"""


@pytest.mark.parametrize("order", [("minkowski", "spconv"), ("spconv", "minkowski")])
def test_the_second_library_is_refused_where_the_first_is_at_work(order: tuple[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", ONE_AFTER_THE_OTHER, *order], capture_output=True, text=True, check=False
    )
    if done.returncode == NOT_INSTALLED:
        pytest.skip(done.stdout.strip())
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("wanted", "loaded"), [("minkowski", "spconv"), ("spconv", "MinkowskiEngine")])
def test_both_libraries_in_one_process_are_refused(wanted: str, loaded: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, loaded, sys)
    with pytest.raises(ConfigError, match="one process"):
        find_backend(wanted, wanted)
