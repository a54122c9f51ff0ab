# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""How well the things of furnished homes are found: class-agnostic AP of whole runs, frames in, instances out.

    python benchmarks/house.py --scenes DIR [--masks gt|geometric|mobile_sam|fused|both|DIR] [--set NAME=VALUE]

Scenes are in ScanNet's exported layout with `instance/`, `points.npz` (`xyz`, `instance`) and `instances.json`. Every
frame is streamed through the scene, into our own fused map. Masks `gt` are the pictures of `instance/`; a folder of
label PNGs may hold `{scene}` where the scene's name goes; `mobile_sam@1024`, `fused@768` and `both@1024` take a larger
image than 512 pixels, `mobile_sam+parts` and `both+parts` leave wholes out that overlap their parts. May be given
several times. Prints a table and writes docs/results/house.md (or `--out`).

Protocol: ScanNet's, class-agnostic. Things of at least 100 points of `points.npz` count; structure and carpets are
void. Each of these points takes the instance of the nearest map point within two voxels.
"""

from __future__ import annotations

import argparse
import json
import re
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
from common import RESULTS, about, table, write_page
from homes import GENERATORS, masks_for, scenes_of, truth_of

from seg3d_core import config as settings
from seg3d_core.build import build_scene
from seg3d_core.config import Config
from seg3d_core.metrics.ap import AGNOSTIC, SceneEvaluation, average_precision
from seg3d_core.metrics.ground_truth import GroundTruth
from seg3d_core.metrics.predictions import Predictions
from seg3d_core.metrics.transfer import TRANSFER_VOXELS, on_vertices
from seg3d_core.runtime import run_offline
from seg3d_core.sources.guess import open_source

POOLED = "all, pooled"
HEAD = (
    "masks", "scene", "AP", "AP50", "AP25", "things", "instances", "map points", "keyframes", "CPU s/keyframe",
    "segment ms",
)  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One line of the table; fractions of 1, seconds of CPU time."""

    masks: str
    scene: str
    ap: float
    ap50: float
    ap25: float
    things: int
    instances: int
    map_points: int
    keyframes: int
    cpu_s_per_keyframe: float
    segment_ms: float

    def cells(self) -> list[str]:
        scores = [f"{100 * value:.1f}" for value in (self.ap, self.ap50, self.ap25)]
        counts = [f"{n}" for n in (self.things, self.instances, self.map_points, self.keyframes)]
        return [self.masks, self.scene, *scores, *counts, f"{self.cpu_s_per_keyframe:.3f}", f"{self.segment_ms:.0f}"]


def run(scene: Path, masks: str, config: Config) -> tuple[Row, SceneEvaluation]:
    """Streams one scene and compares what comes out with its truth."""
    live = build_scene(config)
    started = time.process_time()
    result = run_offline(live, open_source(scene), masks_for(masks, scene, config))
    seconds = time.process_time() - started
    snapshot, keyframes = result.snapshot, result.statistics.counters.get("keyframes", 0)
    found = Predictions.from_snapshot(snapshot)
    xyz, truth = truth_of(scene)
    evaluation, _ = on_vertices(found, GroundTruth(truth, xyz), TRANSFER_VOXELS * config.map.voxel_size)
    segment = result.statistics.stages["segment"].median_ms
    row = make_row(
        masks, scene.name, [evaluation], len(snapshot.instances), len(snapshot.cloud), keyframes, seconds, segment
    )
    return row, evaluation


def make_row(
    masks: str,
    scene: str,
    evaluations: list[SceneEvaluation],
    instances: int,
    map_points: int,
    keyframes: int,
    seconds: float,
    segment_ms: float,
) -> Row:
    ap = average_precision(evaluations, [AGNOSTIC], agnostic=True)
    things = sum(int((np.unique(e.truth[e.truth > 0], return_counts=True)[1] >= 100).sum()) for e in evaluations)
    name = masks if re.split("[@+]", masks)[0] in ("gt", *GENERATORS) else f"files of {Path(masks).name}"
    per_keyframe = seconds / max(keyframes, 1)
    return Row(name, scene, ap.ap, ap.ap50, ap.ap25, things, instances, map_points, keyframes, per_keyframe, segment_ms)


def evaluate(scenes: list[Path], masks: str, config: Config) -> list[Row]:
    """A row per scene, and one over all."""
    runs = [run(scene, masks, config) for scene in scenes]
    rows = [row for row, _ in runs]
    pooled = make_row(
        masks,
        POOLED,
        [evaluation for _, evaluation in runs],
        sum(r.instances for r in rows),
        sum(r.map_points for r in rows),
        sum(r.keyframes for r in rows),
        sum(r.cpu_s_per_keyframe * r.keyframes for r in rows),
        float(np.median([r.segment_ms for r in rows])),
    )
    return [*rows, pooled]


def report(rows: list[Row], config: Config, changed: list[str]) -> str:
    voxel = 100 * config.map.voxel_size
    return f"""# Things found in furnished homes

{about()}

Class-agnostic AP in percent, after ScanNet's protocol, of whole runs: frames in, our own fused map of {voxel:.1f} cm
voxels, instances out. Things of at least 100 ground-truth points count, structure and carpets are void; a
ground-truth point takes the instance of the nearest map point within {TRANSFER_VOXELS * voxel:.1f} cm. CPU time is
that of the whole run, reading and mapping included, over the keyframes. Settings other than the defaults:
{", ".join(changed) or "none"}.

{table(HEAD, (row.cells() for row in rows))}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=Path, required=True)
    parser.add_argument("--masks", action="append", help="gt (default), a generator, or a folder")
    parser.add_argument("--profile", default="cpu-geometric", choices=sorted(settings.PROFILES))
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--out", type=Path, default=RESULTS / "house.md")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    config = settings.build(settings.parse_assignments(arguments.set), arguments.profile)
    scenes = scenes_of(arguments.scenes, parser)
    rows = [row for masks in arguments.masks or ["gt"] for row in evaluate(scenes, masks, config)]
    changed = [*arguments.set, *([f"profile {arguments.profile}"] if arguments.profile != "cpu-geometric" else [])]
    write_page(arguments.out, report(rows, config, changed))
    if arguments.json:
        data = {"settings": settings.flatten(config), "rows": [asdict(row) for row in rows]}
        arguments.json.write_text(json.dumps(data, indent=1) + "\n")


if __name__ == "__main__":
    main()
