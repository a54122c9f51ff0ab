# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""What a snapshot of the zero-shot core costs, stage by stage, on a map that grows and with a thousand keyframes.

    python benchmarks/snapshot.py [--scene examples/studio] [--every 5] [--keyframes 1000] [--json FILE]

Frames at 320x240 come through the real Scene, all of them keyframes with geometric masks, with a snapshot after every
few. Then the same views come round again, on the map as it is, until the log has had so many keyframes. Milliseconds
are CPU time: they can be compared on a machine that others use too. Writes docs/results/snapshot.md.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from common import RESULTS, ROOT, about, enlarged, table, write_page

from seg3d_core import scene as scene_module
from seg3d_core.build import build_masks, build_scene
from seg3d_core.config import build
from seg3d_core.scene import Scene
from seg3d_core.segmenters.identity import IdentityTracker
from seg3d_core.segmenters.re0 import growing, segmenter, streaming
from seg3d_core.sources.guess import open_source
from seg3d_core.types import Frame, Masks2D, Visible

SIZE = (320, 240)
# What is timed, and what it is called: functions are looked up by name where they are used.
STAGES: tuple[tuple[Any, str, str], ...] = (
    (Scene, "begin_segmentation", "copy of the map"),
    (growing.NearestTable, "updated", "neighbours"),
    (streaming.StreamingReading, "_grown", "superpoints"),
    (streaming, "mask_table", "mask table"),
    (streaming, "near_pairs", "pairs"),
    (streaming, "candidates", "pairs"),
    (streaming, "joined", "joining"),
    (streaming, "voted", "votes"),
    (streaming, "smoothed", "smoothing, holes"),
    (segmenter, "sightings", "scores, views"),
    (segmenter, "with_shapes", "scores, views"),
    (scene_module, "boxes_of", "boxes"),
    (IdentityTracker, "assign", "ids"),
)
Row = dict[str, float]


class Stopwatch:
    """Adds up milliseconds of CPU by stage; a stage inside another one is taken off it."""

    def __init__(self) -> None:
        self.stages: Row = {}
        self._inner: list[float] = []
        for owner, name, stage in STAGES:
            setattr(owner, name, self._timed(getattr(owner, name), stage))

    def _timed(self, call: Callable[..., Any], stage: str) -> Callable[..., Any]:
        def timed(*arguments: Any, **named: Any) -> Any:
            self._inner.append(0.0)
            begun = time.process_time()
            try:
                return call(*arguments, **named)
            finally:
                took = 1000 * (time.process_time() - begun)
                self.stages[stage] = self.stages.get(stage, 0.0) + took - self._inner.pop()
                if self._inner:
                    self._inner[-1] += took

        return timed

    def snapshot(self, scene: Scene) -> Row:
        self.stages = {}
        begun, clock = time.process_time(), time.perf_counter()
        scene.segment()
        every = 1000 * (time.process_time() - begun)
        row = {"keyframes": scene.keyframes, "points": len(scene.map), **self.stages}
        row["other"] = every - sum(self.stages.values())
        return {
            **row,
            "all": every,
            "clock": 1000 * (time.perf_counter() - clock),
            "MB": scene.memory_mb["votes and log"],
            "kept": scene.memory_mb["superpoints"],
        }


def grow(scene: Scene, shown: list[tuple[Frame, Masks2D]], every: int, watch: Stopwatch) -> tuple[list[Row], list]:
    """A row for each snapshot, and what each frame saw."""
    rows: list[Row] = []
    views: list[tuple[Frame, Visible, Masks2D]] = []
    for frame, masks in shown:
        visible = scene.add_frame(frame)
        scene.add_observation(frame, visible, masks)
        views.append((frame, visible, masks))
        if scene.keyframes % every == 0:
            rows.append(watch.snapshot(scene))
    return rows, views


def repeat(scene: Scene, views: list[tuple[Frame, Visible, Masks2D]], keyframes: int, watch: Stopwatch) -> list[Row]:
    """The last snapshot again, and one each time the keyframes have doubled."""
    rows = [watch.snapshot(scene)]
    for number in range(scene.keyframes, keyframes):
        scene.add_observation(*views[number % len(views)])
        if scene.keyframes >= min(2 * rows[-1]["keyframes"], keyframes):
            rows.append(watch.snapshot(scene))
    return rows


def table_of(rows: list[Row]) -> str:
    stages = [*dict.fromkeys(stage for _, _, stage in STAGES), "other", "all", "clock"]
    cells = []
    for row in rows:
        times = [f"{row.get(stage, 0):.0f}" for stage in stages]
        sizes = [f"{row['MB']:.0f}", f"{row['kept']:.0f}"]
        cells.append([f"{row['keyframes']:.0f}", f"{row['points']:,.0f}", *times, *sizes])
    return table(["keyframes", "points", *stages, "log MB", "superpoints MB"], cells)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scene", type=Path, default=ROOT / "examples" / "studio", help="any source of frames")
    parser.add_argument("--every", type=int, default=5, help="keyframes between two snapshots")
    parser.add_argument("--keyframes", type=int, default=1000)
    parser.add_argument("--json", type=Path, help="also write the numbers here")
    options = parser.parse_args()
    config = build()
    masks, watch = build_masks(config), Stopwatch()
    shown = [(frame, masks.masks(frame)) for frame in (enlarged(f, *SIZE) for f in open_source(options.scene))]
    # Kernels compile in the first pass.
    grow(build_scene(config), shown[: 2 * options.every], options.every, watch)
    scene = build_scene(config)
    growth, views = grow(scene, shown, options.every, watch)
    standing = repeat(scene, views, options.keyframes, watch)
    text = f"""# The zero-shot core's snapshot, stage by stage

{about(with_load=True)}
Scene {options.scene.name} at {SIZE[0]}x{SIZE[1]}; CPU milliseconds, and by the clock.

A snapshot every {options.every} keyframes of a map that grows (the first one cuts everything anew):

{table_of(growth)}

The same views again and again on a map that stays (the log drops what adds nothing):

{table_of(standing)}
"""
    write_page(RESULTS / "snapshot.md", text)
    if options.json:
        options.json.write_text(json.dumps({"growing": growth, "standing": standing}, indent=1) + "\n")


if __name__ == "__main__":
    main()
