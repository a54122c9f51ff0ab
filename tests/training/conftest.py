# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""A raw release in ScanNet's formats, made by our own writers."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

# Of the mesh's triangles, in metres; tests/training/test_prepare.py makes the same meshes.
EDGE = 0.3


@pytest.fixture(scope="session")
def rooms() -> list[Any]:
    """The rooms of the release's splits: train, val, test."""
    pytest.importorskip("embreex", reason="generated rooms need a ray caster")
    from seg3d_core.sources.synthetic import SyntheticSource

    return [SyntheticSource(seed, frames=6, width=64, height=48) for seed in range(3)]


@pytest.fixture(scope="session")
def made(rooms: list[Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    from seg3d_core.mapping.superpoints import mesh_superpoints
    from seg3d_core.sources.synthetic import export_raw_scannet

    splits = {"train": rooms[:1], "val": rooms[1:2], "test": rooms[2:]}
    return export_raw_scannet(splits, tmp_path_factory.mktemp("raw") / "release", mesh_superpoints, EDGE)


@pytest.fixture
def raw(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made, tmp_path / "raw")
