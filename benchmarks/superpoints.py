# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""How well superpoints can express the things of furnished homes, against how many there are, and what they cost.

    python benchmarks/superpoints.py --scenes DIR [--out FILE] [--json FILE]

Scenes are in ScanNet's exported layout with `points.npz` (`xyz`, `rgb`, `normal`, `instance`) and `instances.json`.
Each superpoint is given to the ground-truth instance, or the structure, that most of its points belong to: no
segmenter that takes superpoints whole can do better. Prints a table and writes docs/results/superpoints.md.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
from common import RESULTS, about, table, write_page
from homes import scenes_of, truth_of

from seg3d_core import config as settings
from seg3d_core.mapping.neighbours import Neighbours, map_neighbours, nearest_neighbours
from seg3d_core.mapping.point_map import PointMap
from seg3d_core.mapping.superpoints import Unlikeness, superpoints, surface_components
from seg3d_core.metrics.ap import AGNOSTIC, SceneEvaluation, average_precision
from seg3d_core.metrics.transfer import TRANSFER_VOXELS, nearest_within
from seg3d_core.sources.guess import open_source
from seg3d_core.types import Array, Cloud

LEAST_POINTS = 100
REPEATS = 3

T = TypeVar("T")
Method = Callable[[Cloud, Neighbours], Array]
METHODS: dict[str, Method] = {
    **{f"superpoints, threshold {t}": partial(superpoints, threshold=t) for t in (0.03, 0.07, 0.15, 0.3, 0.6, 1.2)},
    "at least 40 points": partial(superpoints, min_points=40),
    "no colour": partial(superpoints, unlikeness=Unlikeness(colour=0)),
    "no steps": partial(superpoints, unlikeness=Unlikeness(step=0)),
    "convex folds as concave": partial(superpoints, unlikeness=Unlikeness(convex=1)),
    "surface components": surface_components,
}


@dataclass(frozen=True, eq=False)
class Case:
    """A cloud with its graph, and for each ground-truth point the row of the cloud's point there, or -1."""

    cloud: Cloud
    neighbours: Neighbours
    rows: Array
    truth: Array
    instance: Array


@dataclass(frozen=True)
class Row:
    """One line of the table, pooled over scenes; AP and IoU are fractions of 1, times CPU ms per 200 000 points."""

    cloud: str
    method: str
    superpoints: float
    median_points: float
    ap: float
    ap50: float
    ap25: float
    iou: float
    cpu_ms: float

    def cells(self) -> list[str]:
        sizes = [f"{number:.0f}" for number in (self.superpoints, self.median_points)]
        scores = [f"{100 * value:.1f}" for value in (self.ap, self.ap50, self.ap25, self.iou)]
        return [self.cloud, self.method, *sizes, *scores, f"{self.cpu_ms:.0f}"]


def fused(scene: Path, times: dict[str, list[float]]) -> tuple[Cloud, Neighbours]:
    """The map that our own fusion makes of the scene's frames."""
    point_map = PointMap(settings.build().map)
    for frame in open_source(scene):
        point_map.integrate(frame)
    cloud, _ = point_map.snapshot()
    return cloud, timed(lambda: map_neighbours(cloud.xyz), len(cloud), times["8 nearest, fused map"])


def given(scene: Path, times: dict[str, list[float]]) -> tuple[Cloud, Neighbours]:
    """The scene's own cloud."""
    with np.load(scene / "points.npz", allow_pickle=False) as data:
        xyz, rgb, normals = data["xyz"], data["rgb"], data["normal"].astype(np.float32)
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-6)
    cloud = Cloud(np.arange(1, len(xyz) + 1), xyz, rgb, normals, np.ones(len(xyz), np.float32))
    return cloud, timed(lambda: nearest_neighbours(xyz), len(xyz), times["8 nearest, given clouds, spacing estimated"])


def timed(what: Callable[[], T], points: int, times: list[float]) -> T:
    """The result; adds the least CPU time of a few runs, in ms per 200 000 points."""
    best = np.inf
    for _ in range(REPEATS):
        started = time.thread_time()
        result = what()
        best = min(best, time.thread_time() - started)
    times.append(1e3 * best / points * 200_000)
    return result


def make_case(scene: Path, cloud: Cloud, graph: Neighbours) -> Case:
    xyz, truth = truth_of(scene)
    with np.load(scene / "points.npz", allow_pickle=False) as data:
        instance = data["instance"].astype(np.int64)
    rows = nearest_within(cloud.xyz, xyz, TRANSFER_VOXELS * settings.build().map.voxel_size)
    return Case(cloud, graph, rows, truth, instance)


def best_partition(labels: Array, case: Case) -> tuple[Array, int]:
    """The thing, 1..K or 0, of each ground-truth point when each superpoint goes where most of it lies; and K."""
    ids, instance = np.unique(case.instance, return_inverse=True)
    found = case.rows >= 0
    superpoint = labels[case.rows[found]].astype(np.int64)
    cells = superpoint * len(ids) + instance[found]
    counts = np.bincount(cells, minlength=(int(labels.max()) + 1) * len(ids)).reshape(-1, len(ids))
    things = np.isin(ids, np.unique(case.instance[case.truth > 0]))
    numbers = np.where(things, np.cumsum(things), 0)
    out = np.zeros(len(case.truth), np.int64)
    out[found] = numbers[counts.argmax(axis=1)][superpoint]
    return out, int(things.sum())


def mean_iou(partition: Array, case: Case) -> Array:
    """IoU of each thing of at least `LEAST_POINTS` points with what is given to it."""
    things = np.unique(case.instance[case.truth > 0])
    truth = np.where(case.truth > 0, np.searchsorted(things, case.instance) + 1, 0)
    common, a, b = (
        np.bincount(values, minlength=len(things) + 1)[1:] for values in (truth[truth == partition], truth, partition)
    )
    return (common / (a + b - common))[a >= LEAST_POINTS]


def evaluate(cloud_name: str, name: str, method: Method, cases: list[Case]) -> Row:
    evaluations, ious, times, sizes = [], [], [], []
    for case in cases:
        labels = timed(partial(method, case.cloud, case.neighbours), len(case.cloud), times)
        partition, count = best_partition(labels, case)
        evaluations.append(SceneEvaluation.from_partition(case.truth, partition, np.ones(count)))
        ious.append(mean_iou(partition, case))
        sizes.append(np.bincount(labels))
    ap = average_precision(evaluations, [AGNOSTIC], agnostic=True)
    count = float(np.mean([len(s) for s in sizes]))
    median, iou = float(np.median(np.concatenate(sizes))), float(np.concatenate(ious).mean())
    return Row(cloud_name, name, count, median, ap.ap, ap.ap50, ap.ap25, iou, float(np.mean(times)))


HEAD = (
    "cloud", "method", "superpoints", "median points", "AP", "AP50", "AP25", "mean IoU", "CPU ms / 200 000 points",
)  # fmt: skip


def report(rows: list[Row], times: dict[str, list[float]], scenes: list[Path], points: dict[str, float]) -> str:
    graphs = [(name, f"{np.mean(values):.0f}") for name, values in times.items()]
    sizes = " and ".join(f"{count:.0f} points on average ({name})" for name, count in points.items())
    return f"""# What superpoints can express

{about(with_load=True)}

Each superpoint is given to the ground-truth instance that most of its points belong to, and the things that come out
are compared with the true ones: an upper bound of class-agnostic AP in percent, after ScanNet's protocol, for every
segmenter that takes superpoints whole. Mean IoU is over things of at least {LEAST_POINTS} points. Scenes:
{", ".join(scene.name for scene in scenes)}; {sizes}; counts are per scene. Times are the least of {REPEATS} runs of
one thread, of the segmentation alone; the default is threshold 0.07, at least 20 points.

{table(HEAD, (row.cells() for row in rows))}

The neighbour graph, from scratch:

{table(["graph", "CPU ms / 200 000 points"], graphs)}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=Path, required=True)
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--out", type=Path, default=RESULTS / "superpoints.md")
    arguments = parser.parse_args()
    scenes = scenes_of(arguments.scenes, parser)
    times: dict[str, list[float]] = {
        name: [] for name in ("8 nearest, given clouds, spacing estimated", "8 nearest, fused map")
    }
    rows, points = [], {}
    for name, make in (("given", given), ("fused", fused)):
        cases = [make_case(scene, *make(scene, times)) for scene in scenes]
        points[name] = float(np.mean([len(case.cloud) for case in cases]))
        rows += [evaluate(name, label, method, cases) for label, method in METHODS.items()]
    write_page(arguments.out, report(rows, times, scenes, points))
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")


if __name__ == "__main__":
    main()
