# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Generated rooms as a raw ScanNet-style release, for those who have no ScanNet, scan by scan."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from seg3d_core.mapping.superpoints import mesh_superpoints
from seg3d_core.sources.synthetic import SyntheticSource, export_raw_scan, write_release_tables

from .prepare_scenes import Outcome


@dataclass(frozen=True)
class RoomSettings:
    """frames of width x height pixels of each room; `edge` in metres is the longest side of the mesh's triangles;
    `noisy`: depth of a structured-light camera, and poses that drift; every `walk_stride`-th step of the walk through
    the room is a frame."""

    frames: int = 60
    width: int = 320
    height: int = 240
    noisy: bool = False
    edge: float = 0.05
    walk_stride: int = 1


@dataclass(frozen=True)
class RoomTask:
    """One room, its scene name and place in the release."""

    name: str
    root: Path
    seed: int
    is_test: bool
    settings: RoomSettings


def room_tasks(root: Path, counts: dict[str, int], first_seed: int, settings: RoomSettings) -> list[RoomTask]:
    """Writes the release's tables; one task for each room. Rooms of all splits have different seeds."""
    root.mkdir(parents=True, exist_ok=True)
    write_release_tables(root, counts)
    splits = [split for split, count in counts.items() for _ in range(count)]
    return [
        RoomTask(f"scene{number:04d}_00", root, first_seed + number, split == "test", settings)
        for number, split in enumerate(splits)
    ]


def make_room(task: RoomTask) -> Outcome:
    """Writes one scan unless it is there: its `.txt` comes last. Raises SourceError."""
    folder = task.root / ("scans_test" if task.is_test else "scans") / task.name
    if (folder / f"{task.name}.txt").is_file():
        return Outcome(made=False)
    s = task.settings
    source = SyntheticSource(task.seed, s.frames, s.width, s.height, s.noisy, stride=s.walk_stride)
    export_raw_scan(source, task.root, task.name, mesh_superpoints, task.is_test, s.edge)
    return Outcome(made=True)
