# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Fits the weights of RE0's evidence on generated rooms with made mask errors; writes `segmenters/re0/evidence.json`.

    python benchmarks/fit_evidence.py --degrade degrade_masks.py [--rooms 6] [--seed 101] [--out FILE] [--keep DIR]

Each room is exported in ScanNet's layout, its masks are degraded twice (independent and correlated errors, two seeds),
and every second frame is a keyframe. Samples are pairs of regions and whether most points of both are of one thing:
superpoints as they are, and what they become when a growing share of the right pairs, and a few wrong ones, is joined.
Pairs of walls and floors are left out. Every room and mask source weighs the same.
"""

from __future__ import annotations

import argparse
import datetime
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from common import ROOT, commit
from scipy.optimize import minimize
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.special import expit

from seg3d_core.config import MapConfig
from seg3d_core.lifting.keyframe_log import KeyframeLog
from seg3d_core.mapping.fixed_map import FixedMap
from seg3d_core.mapping.points_file import read_points
from seg3d_core.perception.label_files import LabelFiles
from seg3d_core.segmenters.re0.evidence import FEATURES
from seg3d_core.segmenters.re0.joining import candidates
from seg3d_core.segmenters.re0.mask_table import mask_table, near_pairs
from seg3d_core.segmenters.re0.regions import Regions, regions_of, regrouped
from seg3d_core.sources.guess import open_source
from seg3d_core.sources.synthetic import SyntheticSource, export_scannet
from seg3d_core.types import Array

EVERY = 2
FRAMES = 80
ERRORS = ("independent", "correlated")
# Shares of the right pairs that are joined before samples are taken, and of the wrong ones.
STAGES = (0.0, 0.5, 0.8, 0.9, 0.97)
WRONG_JOINS = 0.003
# Against weights that only fit the rooms: the sum of squared standardised weights counts this much a sample.
RIDGE = 2e-5
# Pairs of regions that do not touch teach most caution: they are sampled up to this far apart, in metres.
SAMPLED_NEAR = 0.10


def samples(folder: Path, masks: Path, rng: np.random.Generator) -> tuple[Array, Array, Array]:
    """Features (n, 17), whether it is one thing (n,), and how sure that is (n,), of one room and mask source."""
    xyz, rgb, normals = read_points(folder / "points.npz")
    point_map = FixedMap(MapConfig(depth_max=100.0, depth_min=0.0), xyz, rgb, normals)
    cloud, rows = point_map.snapshot()
    log, files = KeyframeLog(10_000), LabelFiles(masks)
    for i, frame in enumerate(open_source(folder)):
        found = files.masks(frame) if i % EVERY == 0 else None
        if found is None:
            continue
        visible = point_map.integrate(frame)
        at = np.rint(visible.pixels).astype(int)
        on = found.labels[at[:, 1], at[:, 0]].astype(np.int16)
        log.append(i, point_map.rows_of(visible), on[None], visible.pixels, [len(found)])
    with np.load(folder / "points.npz", allow_pickle=False) as data:
        _, truth = np.unique(data["instance"], return_inverse=True)
        has_stuff = bool((data["instance"] == 0).any())
    keyframes = tuple(log)
    regions = regions_of(cloud)
    parts = [
        stage_samples(joined_rightly(regions, truth, share, rng), keyframes, rows, truth, has_stuff) for share in STAGES
    ]
    return tuple(np.concatenate(columns) for columns in zip(*parts, strict=True))  # type: ignore[return-value]


def joined_rightly(regions: Regions, truth: Array, share: float, rng: np.random.Generator) -> Regions:
    if share == 0:
        return regions
    things = majority(regions.of_point, truth, len(regions)).argmax(axis=1)
    right = things[regions.first] == things[regions.second]
    draw = rng.random(len(right))
    join = np.where(right, draw < share, draw < WRONG_JOINS)
    graph = coo_matrix((np.ones(join.sum()), (regions.first[join], regions.second[join])), shape=(len(regions),) * 2)
    return regrouped(regions, connected_components(graph, directed=False)[1])


def majority(of_point: Array, truth: Array, count: int) -> Array:
    """Points of each region on each true instance, (S, instances)."""
    width = int(truth.max()) + 1
    return np.bincount(of_point * width + truth, minlength=count * width).reshape(count, width)


def stage_samples(
    regions: Regions, keyframes: tuple, rows: Array, truth: Array, has_stuff: bool
) -> tuple[Array, Array, Array]:
    by_row = np.full(int(rows.max()) + 1, -1, np.int32)
    by_row[rows] = regions.of_point
    table = mask_table(keyframes, by_row, len(regions))
    near = near_pairs(table, regions.low, regions.high, SAMPLED_NEAR)
    first, second, _, features = candidates(regions, table, near)
    counts = majority(regions.of_point, truth, len(regions))
    thing, purity = counts.argmax(axis=1), counts.max(axis=1) / counts.sum(axis=1)
    counted = ~((thing[first] == 0) & (thing[second] == 0)) if has_stuff else np.ones(len(first), bool)
    return features[counted], (thing[first] == thing[second])[counted], (purity[first] * purity[second])[counted]


def fit(features: Array, is_one: Array, weight: Array) -> tuple[Array, float]:
    """Weights and constant of a logistic model: ridge on the standardised features."""
    mean, spread = features.mean(axis=0), features.std(axis=0) + 1e-9
    standard = np.column_stack([(features - mean) / spread, np.ones(len(features))])
    sign, weight = np.where(is_one, 1.0, -1.0), weight / weight.sum()

    def loss(w: Array) -> tuple[float, Array]:
        margin = sign * (standard @ w)
        value = float(weight @ np.logaddexp(0, -margin)) + RIDGE * float(w[:-1] @ w[:-1])
        gradient = -standard.T @ (weight * sign * expit(-margin))
        gradient[:-1] += 2 * RIDGE * w[:-1]
        return value, gradient

    found = minimize(loss, np.zeros(standard.shape[1]), jac=True, method="L-BFGS-B", options={"maxiter": 5000})
    weights = found.x[:-1] / spread
    return weights, float(found.x[-1] - weights @ mean)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--degrade", required=True, help="the script that makes independent and correlated masks")
    parser.add_argument("--rooms", type=int, default=6)
    parser.add_argument("--seed", type=int, default=101, help="of the first room")
    parser.add_argument("--keep", type=Path, help="where rooms and masks stay, and are found again")
    parser.add_argument("--out", type=Path, default=ROOT / "seg3d_core" / "segmenters" / "re0" / "evidence.json")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        base = args.keep or Path(scratch)
        numbers = range(args.seed, args.seed + args.rooms)
        for number in numbers:
            if not (base / "rooms" / f"room{number}" / "instances.json").exists():
                export_scannet(SyntheticSource(number, FRAMES), base / "rooms" / f"room{number}")
        parts = []
        rng = np.random.default_rng(0)
        for mask_seed in (9, 11):
            masks = base / f"masks{mask_seed}"
            if not masks.exists():
                command = [sys.executable, args.degrade, str(base / "rooms"), str(masks), "--seed", str(mask_seed)]
                subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            for number in numbers:
                for errors in ERRORS:
                    found = samples(base / "rooms" / f"room{number}", masks / f"room{number}" / errors, rng)
                    parts.append((found[0], found[1], found[2] / len(found[2])))
                    print(
                        f"room {number}, {errors} {mask_seed}: {len(found[1])} pairs, {found[1].mean():.2f} one thing"
                    )
    weights, constant = fit(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))
    about = (
        f"benchmarks/fit_evidence.py, {args.rooms} generated rooms from seed {args.seed}, "
        f"{datetime.date.today().isoformat()}, commit {commit()}"
    )
    named = {name: round(float(value), 4) for name, value in zip(FEATURES, weights, strict=True)}
    text = json.dumps({"about": about, "weights": named, "constant": round(constant, 4)}, indent=1)
    args.out.write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
