# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""What becomes of each thing of furnished homes in whole runs, by mask source and size; a picture per scene.

    python benchmarks/house_failures.py --scenes DIR [--masks geometric|mobile_sam|fused|both|DIR] [--set NAME=VALUE]

Runs, scenes and masks are those of `house.py`: frames in, our own map, instances out, carried to the ground truth's
points. Writes docs/results/house_failures.md (or `--out`) and a picture per scene beside it.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import cv2
import house
import numpy as np
import re0
from common import RESULTS, about, write_page
from homes import scenes_of
from re0_failures import DEFINITIONS, Thing, table_by_size, table_of_verdicts, verdicts_of
from re0_pictures import CREDIT, Compared, compared_with, picture

from seg3d_core import config as settings
from seg3d_core.mapping.points_file import read_points
from seg3d_core.metrics.scene_counts import SceneEvaluation
from seg3d_core.types import Cloud, Snapshot

NAMES = {
    "geometric": "Depth alone (cpu-geometric)",
    "mobile_sam": "MobileSAM alone",
    "fused": "MobileSAM and depth in one label image",
    "both": "MobileSAM beside depth (cpu)",
    "gt": "True masks",
}


def ground_truth_points(scene: Path) -> Snapshot:
    """The scene's own points, without instances."""
    xyz, rgb, normals = read_points(scene / "points.npz")
    assert rgb is not None and normals is not None
    cloud = Cloud(np.arange(len(xyz)), xyz, rgb, normals, np.ones(len(xyz), np.float32))
    return replace(Snapshot.empty(), cloud=cloud)


def compared(evaluation: SceneEvaluation, points: Snapshot) -> Compared:
    """An evaluation over the points; what lies in several instances counts for that of the highest score."""
    found = np.zeros(len(evaluation.truth), np.int32)
    for number in np.argsort(evaluation.scores, kind="stable"):
        found[evaluation.members[evaluation.indptr[number] : evaluation.indptr[number + 1]]] = number + 1
    return compared_with(evaluation.truth, points, found, len(evaluation.scores), evaluation)


def report(found: dict[str, dict[Path, Compared]], changed: list[str], out: Path) -> str:
    """The page; draws a picture of each scene beside it. `found`: by masks and scene."""
    results: dict[tuple[str, str], list[Thing]] = {}
    for masks, scenes in found.items():
        results[masks, re0.OURS] = [thing for scene, c in scenes.items() for thing in verdicts_of(scene.name, c)]
    pictures = []
    for scene in next(iter(found.values())):
        name = f"{out.stem}_{scene.name}.png"
        panels = {NAMES.get(masks.partition("@")[0], masks): scenes[scene] for masks, scenes in found.items()}
        picture(f"{scene.name}: things found in whole runs", panels, out.with_name(name))
        pictures.append(f"![{scene.name}]({name})\n")
    shown = "\n".join(pictures)
    count = len(next(iter(results.values())))
    return f"""# How whole runs fail, by mask source

{about()}

The {count} things of [house.md](house.md), and the same runs: frames in, our own fused map, instances out.
Settings other than the defaults: {", ".join(changed) or "none"}. Masks: `geometric` is the profile `cpu-geometric`,
`both` the profile `cpu`.

{DEFINITIONS}

{table_of_verdicts(results)}

By size of the thing, found / under-segmented / over-segmented / neither:

{table_by_size(results)}

{shown}
{CREDIT}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=Path, required=True)
    parser.add_argument("--masks", action="append", help="geometric (default), another generator, gt, or a folder")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--out", type=Path, default=RESULTS / "house_failures.md")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    config = settings.build(settings.parse_assignments(arguments.set))
    scenes = scenes_of(arguments.scenes, parser)
    found = {
        masks: {s: compared(house.run(s, masks, config)[1], ground_truth_points(s)) for s in scenes}
        for masks in arguments.masks or ["geometric"]
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    write_page(arguments.out, report(found, arguments.set, arguments.out))


if __name__ == "__main__":
    main()
