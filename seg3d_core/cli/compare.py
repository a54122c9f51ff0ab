# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Several cores on one map: what `seg3d run --core re0,segdino3d` adds to the results of the first one."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.table import Table

from ..scene import Scene
from ..segmenters.group import SegmenterGroup
from ..types import Array, Snapshot
from .results import replacing, write_instances

SAME = 0.5
"""Instances of two cores are the same thing where they share more of their points (IoU)."""


def snapshots_of(scene: Scene, core: str, snapshot: Snapshot) -> dict[str, Snapshot]:
    """The final snapshot of each core by name; `snapshot` is the first one's, whose name is `core`."""
    group = scene.segmenter
    if not isinstance(group, SegmenterGroup):
        return {core: snapshot}
    others = {name: scene.segment_otherwise(partial(group.prepare_core, name)) for name in group.others}
    return {core: snapshot, **others}


def figures(scene: Scene, snapshots: Mapping[str, Snapshot]) -> dict[str, dict[str, Any]]:
    """What the table shows of each core, for report.json too."""
    first = next(iter(snapshots.values()))
    seconds: Mapping[str, float] = getattr(scene.segmenter, "seconds", {})
    return {
        name: {
            "instances": len(snapshot.instances),
            "points_on_instances": round(float((snapshot.labels > 0).mean()) if len(snapshot.labels) else 0.0, 4),
            "median_points": int(np.median(snapshot.instances.sizes)) if len(snapshot.instances) else 0,
            "named": sum(map(bool, snapshot.names)),
            "same_as_first": same_things(first.labels, snapshot.labels),
            "seconds": round(seconds.get(name, 0.0), 3),
        }
        for name, snapshot in snapshots.items()
    }


def same_things(one: Array, two: Array) -> int:
    """Instances of two labellings int (N,), 0 = none, that share more than `SAME` of their points."""
    both = (one > 0) & (two > 0)
    pairs, common = np.unique(np.stack([one[both], two[both]]), axis=1, return_counts=True)
    sizes_one, sizes_two = np.bincount(one), np.bincount(two)
    return int((common > SAME * (sizes_one[pairs[0]] + sizes_two[pairs[1]] - common)).sum())


def write(out: Path, scene: Scene, snapshots: Mapping[str, Snapshot], title: str) -> None:
    """`comparison.png`, and `instances-NAME.npz` of each core but the first."""
    from ..viz import render_comparison

    with replacing(out / "comparison.png") as temporary:
        render_comparison(snapshots, temporary, title=title, cameras=scene.camera_poses)
    for name, snapshot in list(snapshots.items())[1:]:
        write_instances(out / f"instances-{name}.npz", snapshot)


def table(data: Mapping[str, Mapping[str, Any]]) -> Table:
    """One row per core."""
    first = next(iter(data))
    out = Table(title="Cores on one map", title_justify="left", box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    out.add_column("core")
    for heading in ("instances", "points on one", "median points", "with a name", f"also found by {first}", "s"):
        out.add_column(heading, justify="right")
    for name, row in data.items():
        out.add_row(
            name,
            str(row["instances"]),
            f"{row['points_on_instances']:.0%}",
            str(row["median_points"]),
            str(row["named"]),
            "" if name == first else str(row["same_as_first"]),
            f"{row['seconds']:.2f}",
        )
    return out
