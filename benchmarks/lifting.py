# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""What lifting image features and 2D objects into the map costs: medoids, farthest points, the bank, the views.

    python benchmarks/lifting.py [--scene DIR] [--channels 256] [--out FILE] [--json FILE]

Without a scene: the flat that comes with the repository. Its frames are streamed into our own fused map; its true
masks stand for a detector's, and random numbers for features, which cost as much as real ones. Prints tables and
writes docs/results/lifting.md.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from common import RESULTS, ROOT, about, table, write_page
from scipy.spatial.distance import cdist

from seg3d_core import config as settings
from seg3d_core.geometry import back_project
from seg3d_core.lifting.object_queries import ObjectQueryBank
from seg3d_core.lifting.point_features import PointFeatures, view_distances
from seg3d_core.lifting.point_sets import farthest_points, medoid
from seg3d_core.mapping.point_map import PointMap
from seg3d_core.perception.label_files import LabelFiles
from seg3d_core.sources.guess import open_source
from seg3d_core.types import Array, FeatureMap, Frame, Masks2D, ObjectQueries2D

REPEATS = 5
STRIDES = (8, 16, 32, 64)


def best_ms(what: Callable[[], object], repeats: int = REPEATS) -> float:
    """The least CPU time of a few runs after a first one, in ms."""
    what()
    times = []
    for _ in range(repeats):
        started = time.thread_time()
        what()
        times.append(time.thread_time() - started)
    return 1e3 * min(times)


def on_a_sphere(random: np.random.Generator, count: int) -> Array:
    points = random.normal(size=(count, 3))
    return points / np.linalg.norm(points, axis=1, keepdims=True)


def medoid_rows(mask_points: Array) -> dict[str, tuple[float, float]]:
    """Ours and all pairs, in ms, of 5 000 points."""
    random = np.random.default_rng(0)
    clouds = {
        f"5 000 of the {len(mask_points)} pixels of a true mask": mask_points[:: len(mask_points) // 5000][:5000],
        "5 000 points in a box": random.uniform(size=(5000, 3)),
        "5 000 points on a sphere, the worst known": on_a_sphere(random, 5000),
    }
    out = {}
    for name, points in clouds.items():
        assert medoid(points) == cdist(points, points).sum(axis=1).argmin()
        out[name] = (best_ms(lambda p=points: medoid(p)), best_ms(lambda p=points: cdist(p, p).sum(axis=1).argmin(), 1))
    return out


def all_pairs_farthest(points: Array, count: int) -> Array:
    """The textbook loop: one distance of every point per point chosen."""
    nearest, chosen = np.full(len(points), np.inf), [0]
    while len(chosen) < count:
        nearest = np.minimum(nearest, ((points - points[chosen[-1]]) ** 2).sum(axis=1))
        chosen.append(int(nearest.argmax()))
    return np.array(chosen)


def farthest_rows() -> dict[str, tuple[float, float]]:
    points = np.random.default_rng(0).uniform(size=(20_000, 3)) * (12, 8, 2.5)
    assert np.array_equal(farthest_points(points, 2048), all_pairs_farthest(points, 2048))
    ours = best_ms(lambda: farthest_points(points, 2048))
    return {"2 048 of 20 000 points in a flat": (ours, best_ms(lambda: all_pairs_farthest(points, 2048), 1))}


def detected(frame: Frame, masks: Masks2D, channels: int, random: np.random.Generator) -> ObjectQueries2D:
    n = len(masks)
    features = random.normal(size=(n, channels)).astype(np.float32)
    return ObjectQueries2D(features, np.zeros((n, 4)), np.full(n, 0.9, np.float32), "random", masks=masks)


def feature_levels(frame: Frame, channels: int, random: np.random.Generator) -> list[FeatureMap]:
    height, width = frame.depth.shape
    return [
        FeatureMap(
            random.normal(size=(channels, -(-height // s), -(-width // s))).astype(np.float32), float(s), "random"
        )
        for s in STRIDES
    ]


def frames_with_masks(scene: Path) -> Iterator[tuple[Frame, Masks2D]]:
    masks = LabelFiles(scene / "instance")
    for frame in open_source(scene):
        found = masks.masks(frame)
        if found is not None:
            yield frame, found


def largest_mask(scene: Path) -> Array:
    """The back-projected pixels of the largest mask of the scene that is a thing's, (n, 3)."""
    best = np.empty((0, 3))
    for frame, masks in frames_with_masks(scene):
        sizes = np.bincount(masks.labels.ravel())
        label = int(sizes[1:].argmax()) + 1 if len(sizes) > 1 else 0
        if label and sizes[label] > len(best):
            chosen = (masks.labels == label) & (frame.depth > 0)
            best = back_project(frame.depth.astype(np.float64), frame.camera)[chosen]
    return best


def stream(scene: Path, channels: int) -> dict[str, float]:
    """One pass over the scene: CPU ms per keyframe of each part, and what is kept at the end."""
    whole = settings.build()
    config = whole.segdino3d
    random = np.random.default_rng(0)
    point_map = PointMap(settings.build().map)
    bank = ObjectQueryBank(config.object_score, config.objects_kept)
    one, four = (PointFeatures(config.views_per_point, whole.memory.point_features_mb) for _ in range(2))
    times: dict[str, list[float]] = {}
    seen = []

    def timed(name: str, what: Callable[[], object]) -> None:
        started = time.thread_time()
        what()
        times.setdefault(name, []).append(1e3 * (time.thread_time() - started))

    for frame, masks in frames_with_masks(scene):
        visible = point_map.integrate(frame)
        rows, levels = point_map.rows_of(visible), feature_levels(frame, channels, random)
        distances = view_distances(visible.pixels, visible.depths, frame.camera)
        queries = detected(frame, masks, channels, random)
        timed("object queries", lambda q=queries, f=frame: bank.add(f.index, f, q))
        look = (rows, visible.pixels, distances)
        timed("point features, 1 level", lambda a=look, m=levels[1]: one.observe(*a, m))
        timed("point features, 4 levels", lambda a=look, m=levels: four.observe(*a, m))
        seen.append(len(rows))
    rows = np.arange(point_map.rows)
    out = {f"{name}, median ms per keyframe": float(np.median(values)) for name, values in times.items()}
    return {
        **out,
        "keyframes": len(seen),
        "visible points per keyframe, median": float(np.median(seen)),
        "points with features": len(one),
        "features of all points for a segmentation, ms": best_ms(lambda: one.features(rows), 1),
        "memory of point features, MB": one.memory_bytes / 1e6,
        "of a budget of, MB": one.budget_bytes / 1e6,
        "which has room for, points": one.capacity,
        "objects in the bank": len(bank),
        "memory of the bank, MB": bank.memory_bytes / 1e6,
        "its 2 048 queries for a segmentation, ms": best_ms(bank.queries),
    }


def report(scene: str, channels: int, points: dict[str, tuple[float, float]], kept: dict[str, float]) -> str:
    """The page."""
    timed = [(name, f"{ours:.2f}", f"{pairs:.0f}") for name, (ours, pairs) in points.items()]
    streamed = [(name, f"{value:,.6g}") for name, value in kept.items()]
    return f"""# What lifting costs

{about(with_load=True)}
Times are CPU time of one thread.

Exact medoids and farthest points, checked here against all pairs:

{table(["", "ours, ms", "all pairs (SciPy, NumPy), ms"], timed)}

Streaming `{scene}` with features of {channels} channels, true masks for a detector's, default budgets. Features at
half precision: 3 views of a point take {3 * (2 * channels + 8) + 4} bytes.

{table(["", ""], streamed)}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scene", type=Path, default=ROOT / "examples" / "studio")
    parser.add_argument("--channels", type=int, default=256)
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--out", type=Path, default=RESULTS / "lifting.md")
    arguments = parser.parse_args()
    points = {**medoid_rows(largest_mask(arguments.scene)), **farthest_rows()}
    kept = stream(arguments.scene, arguments.channels)
    write_page(arguments.out, report(arguments.scene.name, arguments.channels, points, kept))
    if arguments.json:
        arguments.json.write_text(json.dumps({"point sets": points, "stream": kept}, indent=1) + "\n")


if __name__ == "__main__":
    main()
