# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Each source file says whose it is and under which licence, as REP 2004 asks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LINES = ("# Copyright 2026 The seg3d maintainers", "# SPDX-License-Identifier: Apache-2.0")
FOLDERS = (
    ".ci",
    "benchmarks",
    "docker",
    "examples",
    "launch",
    "ros2_ws/src",
    "scripts",
    "seg3d_core",
    "tests",
    "training",
)


def source_files() -> Iterator[Path]:
    yield from ROOT.glob("*.py")
    for folder in FOLDERS:
        for path in (ROOT / folder).rglob("*"):
            made = {"__pycache__", "build", "dist"} & set(path.relative_to(ROOT).parts)
            if not made and (
                path.suffix in (".py", ".sh") or path.name == "CMakeLists.txt" or path.parent.name == ".ci"
            ):
                yield path


def test_every_source_file_says_whose_it_is_and_under_which_licence():
    files = list(source_files())
    assert len(files) > 400
    without = []
    for path in files:
        first = path.read_text(encoding="utf-8").splitlines()[:3]
        start = 1 if first and first[0].startswith("#!") else 0
        if tuple(first[start : start + 2]) != LINES:
            without.append(str(path.relative_to(ROOT)))
    assert without == []
