# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Does a map that saves itself keep frames waiting? `python benchmarks/autosave.py [SCENE] [--rate 10]`.

The same frames go into a live map at the same rate, without and with a save every few seconds.
Writes docs/results/autosave.md.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from common import RESULTS, ROOT, about, table, write_page

from seg3d_core.build import build_masks, build_scene
from seg3d_core.config import build
from seg3d_core.runtime import LiveRuntime, Statistics
from seg3d_core.sources.guess import open_source
from seg3d_core.storage import copy_scene
from seg3d_core.types import Frame

EVERY = 5.0  # seconds: far more often than anybody needs
HEAD = (
    "autosave", "frames taken", "overtaken", "integrate, median ms", "p95 ms", "copy, median ms", "p95 ms", "saves",
    "one save, s", "MB",
)  # fmt: skip


def run(frames: list[Frame], rate: float, every: float, folder: Path) -> tuple[Statistics, int]:
    """What was counted, and the bytes of the last file."""
    path = folder / f"{every:g}" / "autosave.seg3d"
    config = build({"query.encoder": "none", "runtime.autosave_minutes": every / 60})
    runtime = LiveRuntime(config, autosave=path)
    runtime.start()
    due = time.monotonic()
    for frame in frames:
        runtime.submit(frame)
        due += 1 / rate
        time.sleep(max(0.0, due - time.monotonic()))
    time.sleep(1.0)
    statistics = runtime.statistics()
    runtime.stop()
    return statistics, path.stat().st_size if path.exists() else 0


def copy_alone(frames: list[Frame]) -> tuple[float, float, int]:
    """Milliseconds of the fastest of ten copies of the map of all frames, its megabytes, its points."""
    config = build({"query.encoder": "none"})
    scene, masks, times = build_scene(config), build_masks(config), []
    for frame in frames:
        visible = scene.add_frame(frame)
        if scene.is_keyframe(frame, visible):
            scene.mark_keyframe(frame, visible)
            scene.add_observation(frame, visible, masks.masks(frame))
    for _ in range(10):
        start = time.perf_counter()
        saved = copy_scene(scene, {}, "")
        times.append(time.perf_counter() - start)
    return 1e3 * min(times), sum(array.nbytes for array in saved.arrays.values()) / 1e6, len(scene.map)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scene", nargs="?", default=str(ROOT / "examples" / "studio"))
    parser.add_argument("--rate", type=float, default=10.0, help="frames per second")
    parser.add_argument("--frames", type=int, default=300)
    options = parser.parse_args()
    frames = list(open_source(options.scene, max_frames=options.frames))
    milliseconds, megabytes, points = copy_alone(frames)
    with tempfile.TemporaryDirectory() as folder:
        outcomes = {every: run(frames, options.rate, every, Path(folder)) for every in (0.0, EVERY)}
    rows = []
    for every, (statistics, size) in outcomes.items():
        stages, save = statistics.stages, statistics.saves.get("autosave")
        whole, copy = stages["integrate"], stages.get("save: copy")
        rows.append([
            f"every {every:g} s" if every else "off",
            statistics.counters["frames"],
            statistics.drops.get("overtaken", 0),
            f"{whole.median_ms:.1f}",
            f"{whole.p95_ms:.1f}",
            f"{copy.median_ms:.1f}" if copy else "–",
            f"{copy.p95_ms:.1f}" if copy else "–",
            save.count if save else 0,
            f"{save.seconds:.2f}" if save else "–",
            f"{size / 1e6:.1f}",
        ])  # fmt: skip
    text = f"""# Saving beside the mapping

{about(with_load=True)}

{len(frames)} frames of {Path(options.scene).name} at {options.rate:g} Hz into a live map, without and with
`runtime.autosave_minutes` at {EVERY:g} seconds.

The thread that owns the map copies it (`copy`); zipping, syncing and renaming are done by another. The copy alone, the
fastest of ten: {milliseconds:.1f} ms for {megabytes:.1f} MB of arrays, {points:,} points.

{table(HEAD, rows)}
"""
    write_page(RESULTS / "autosave.md", text)


if __name__ == "__main__":
    main()
