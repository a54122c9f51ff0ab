# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""How long the evaluator takes: made scenes of many points and predictions, one at a time.

    python benchmarks/evaluator.py [--scenes 100] [--points 200000] [--predictions 300] [--out FILE]

Ground truth is 60 boxes' worth of points with ScanNet200 labels; predictions are such boxes, moved and cut, a tenth of
them twice. Prints a table and writes docs/results/evaluator.md (or `--out`).
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from common import RESULTS, about, table, write_page

from seg3d_core.metrics.benchmark_text import read_predictions_text, write_predictions_text
from seg3d_core.metrics.classes import class_lists
from seg3d_core.metrics.ground_truth import GroundTruth
from seg3d_core.metrics.predictions import Predictions
from seg3d_core.metrics.protocols import evaluate
from seg3d_core.metrics.scene_counts import SceneEvaluation
from seg3d_core.metrics.transfer import on_vertices
from seg3d_core.types import Array

INSTANCES = 60
RADIUS = 0.04
FEW = 3


@dataclass
class Clock:
    """CPU seconds of what is measured; the making of scenes stays outside."""

    seconds: float = 0.0
    since: float = 0.0

    def start(self) -> None:
        self.since = time.process_time()

    def stop(self) -> None:
        self.seconds += time.process_time() - self.since


@dataclass(frozen=True)
class Row:
    what: str
    scenes: int
    seconds: float

    def cells(self) -> list[str]:
        return [self.what, f"{self.scenes}", f"{self.seconds:.1f}", f"{1000 * self.seconds / self.scenes:.0f}"]


def make_scene(seed: int, points: int, predictions: int) -> tuple[Array, Array, Predictions]:
    """Positions (N, 3), ground truth (N,) and predictions over the same points."""
    rng = np.random.default_rng(seed)
    xyz = rng.random((points, 3)).astype(np.float32) * (8, 6, 2.5)
    owner = np.digitize(np.arange(points), np.sort(rng.integers(0, points, INSTANCES - 1)))
    classes = np.array(class_lists()["scannet200"].ids)
    labels = np.where(rng.random(INSTANCES) < 0.3, 0, rng.choice(classes, INSTANCES))
    truth = labels[owner] * 1000 + owner + 1
    starts = np.flatnonzero(np.diff(owner, prepend=-1))
    parts, found = [], []
    for k in range(predictions):
        if parts and k % 10 == 0:
            parts.append(parts[-1])
            found.append(found[-1])
            continue
        instance = rng.integers(0, len(starts))
        low = starts[instance]
        high = starts[instance + 1] if instance + 1 < len(starts) else points
        shift = int(rng.normal(0, 0.15) * (high - low))
        parts.append(np.arange(max(low + shift, 0), min(max(high + shift, low + shift + 1), points)))
        found.append(labels[instance] if rng.random() < 0.8 else rng.choice(classes))
    indptr = np.append(0, np.cumsum([len(part) for part in parts]))
    scores = rng.random(predictions)
    return xyz, truth, Predictions(points, indptr, np.concatenate(parts), np.array(found), scores, xyz=xyz)


def masks_of(predictions: Predictions) -> Array:
    out = np.zeros((len(predictions), predictions.point_count), bool)
    out[np.repeat(np.arange(len(predictions)), np.diff(predictions.indptr)), predictions.members] = True
    return out


def evaluation(name: str, protocols: list[str], count: int, points: int, predictions: int) -> Row:
    """All scenes from boolean masks to AP."""
    clock = Clock()

    def scenes() -> Iterator[tuple[str, SceneEvaluation]]:
        for seed in range(count):
            clock.stop()
            _, truth, found = make_scene(seed, points, predictions)
            masks = masks_of(found)
            clock.start()
            yield str(seed), SceneEvaluation.from_masks(truth, masks, found.labels, found.scores)

    clock.start()
    results = evaluate(scenes(), protocols)
    clock.stop()
    if any(np.isnan(result.ap) for result in results):
        raise SystemExit("the made scenes have no value: nothing was measured")
    return Row(name, count, clock.seconds)


def per_scene(name: str, points: int, predictions: int, work: Callable[[int], Callable[[], object]]) -> Row:
    """`work(seed)` prepares a scene and returns what is to be measured."""
    clock = Clock()
    for seed in range(FEW):
        step = work(seed)
        clock.start()
        step()
        clock.stop()
    return Row(name, FEW, clock.seconds)


def measure(count: int, points: int, predictions: int, folder: Path) -> list[Row]:
    evaluation("", ["scannet200"], 1, 50_000, 50)  # compiles the kernels

    def carried(seed: int) -> Callable[[], object]:
        xyz, truth, found = make_scene(seed, points, predictions)
        moved = GroundTruth(truth, xyz + np.float32(0.005))
        return lambda: on_vertices(found, moved, RADIUS)

    def text(seed: int) -> Callable[[], object]:
        _, _, found = make_scene(seed, points, predictions)
        write_predictions_text(folder, "scene", found)
        return lambda: read_predictions_text(folder / "scene.txt")

    return [
        evaluation("masks to AP, class-agnostic", ["agnostic"], count, points, predictions),
        evaluation("masks to AP, ScanNet200", ["scannet200"], count, points, predictions),
        evaluation(
            "masks to AP, ScanNet200, agnostic, RE0 mAP and mAP_GT",
            ["scannet200", "agnostic", "re0", "re0-gt"],
            count,
            points,
            predictions,
        ),
        per_scene("transfer from points of their own", points, predictions, carried),
        per_scene("reading the benchmark's text format", points, predictions, text),
    ]


def report(rows: list[Row], points: int, predictions: int) -> str:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return f"""# How long the evaluator takes

{about()}

Made scenes of {points:,} points with {INSTANCES} instances and {predictions} predictions, a tenth of them duplicates;
one core, CPU time, the making of the scenes left out. Every row with masks gives each number with and without
duplicates, pooled and scene by scene. Peak memory of the whole process {peak:.0f} MB, of which one scene's boolean
masks are {predictions * points / 1e6:.0f} MB; scenes are held one at a time.

{table(["what", "scenes", "CPU s", "ms per scene"], (row.cells() for row in rows))}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=100)
    parser.add_argument("--points", type=int, default=200_000)
    parser.add_argument("--predictions", type=int, default=300)
    parser.add_argument("--out", type=Path, default=RESULTS / "evaluator.md")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(arguments.scenes, arguments.points, arguments.predictions, Path(folder))
    write_page(arguments.out, report(rows, arguments.points, arguments.predictions))


if __name__ == "__main__":
    main()
