# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""The full RE0 pass per frame: fuse, look, segment in 2D, vote, and now and then a snapshot of instances.

    python benchmarks/pipeline.py [--scene examples/studio] [--json FILE]

Whole runs through the real Scene at 320x240 and 640x480 (enlarged from the scene's own size), stage by stage:
median and 95th percentile by the clock. Writes docs/results/pipeline.md.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from common import RESULTS, ROOT, about, enlarged, table, write_page

from seg3d_core.build import build_masks, build_scene
from seg3d_core.config import Config, build
from seg3d_core.runtime import OfflineResult, run_offline
from seg3d_core.runtime.warmup import warm_up
from seg3d_core.sources.guess import open_source
from seg3d_core.types import Frame

SIZES = ((320, 240), (640, 480))
MEANING = {
    "integrate": "fusion and visibility, every frame",
    "masks": "geometric 2D masks, every keyframe",
    "observe": "masks of the points, log, JPEG, every keyframe",
    "segment": "superpoints, joining, outlines, scores, boxes, ids: every 5th keyframe, beside the frames when live",
    "frame": "integrate, masks and observe together",
}


class Frames:
    """Frames in memory, as a source."""

    kind = "memory"

    def __init__(self, name: str, frames: list[Frame]):
        self.name, self.frames, self.drops = name, frames, {}
        self.frame_names = [frame.name for frame in frames]

    def __len__(self) -> int:
        return len(self.frames)

    def __iter__(self):
        return iter(self.frames)


def run(name: str, frames: list[Frame], config: Config) -> OfflineResult:
    return run_offline(build_scene(config), Frames(name, frames), build_masks(config))


def rows_of(results: dict[str, OfflineResult]) -> tuple[list[list[object]], list[list[object]]]:
    """Of the table of stages, and of that of sizes."""
    stages: list[list[object]] = []
    sizes: list[list[object]] = []
    for size, result in results.items():
        found = result.statistics
        for stage, meaning in MEANING.items():
            s = found.stages[stage]
            stages.append([stage, size, f"{s.median_ms:.1f}", f"{s.p95_ms:.1f}", s.count, meaning])
        memory = found.memory_mb
        sizes.append([size, f"{found.points:,}", found.instances, f"{memory['map']:.0f}", f"{memory['views']:.1f}"])
    return stages, sizes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scene", type=Path, default=ROOT / "examples" / "studio", help="any source of frames")
    parser.add_argument("--json", type=Path, help="also write the numbers here")
    options = parser.parse_args()
    config = build()
    warm_up(config, build_masks(config))
    source = list(open_source(options.scene))
    results = {
        f"{w}x{h}": run(options.scene.name, [enlarged(frame, w, h) for frame in source], config) for w, h in SIZES
    }
    stages, sizes = rows_of(results)
    text = f"""# The full RE0 pass, stage by stage

{about(with_load=True)}
Scene {options.scene.name}, {len(source)} frames.

{table(["stage", "size", "median ms", "p95 ms", "runs", ""], stages)}

{table(["size", "points", "instances", "map MB", "views MB"], sizes)}
"""
    write_page(RESULTS / "pipeline.md", text)
    if options.json:
        options.json.write_text(json.dumps({size: r.statistics.as_dict() for size, r in results.items()}, indent=1))


if __name__ == "__main__":
    main()
