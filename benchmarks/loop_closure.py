# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""What a loop closure is worth: a trajectory that drifts, corrected at the end, or in the middle and at the end.

    python benchmarks/loop_closure.py --scenes DIR [--scene NAME] [--masks gt] [--masks geometric]
        [--centimetres 22] [--degrees 4] [--seed 7] [--picture NAME] [--out FILE]

Scenes are those of `benchmarks/house.py`. Every frame is fused into our own map, every second one is a keyframe with
masks. The poses drift as odometry does: an error that is smooth, random, and grows with the path from nothing to the
given centimetres and degrees. A correction tells the true poses of the keyframes alone, as a SLAM's graph does; what
lies in between is interpolated. After a correction in the middle, the poses that follow are moved by what the SLAM
knows then, and drift on from there.

Protocol: as in `benchmarks/house.py`, our own map, transferred within two voxels. The map's error is the distance of
each map point to the nearest point of the scene's true surfaces, which lie 2.4 to 3.6 cm apart: no map gets to 0.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from common import RESULTS, about, percents, table, write_page
from homes import evaluation_of, masks_for, scenes_of, truth_of
from PIL import Image, ImageDraw, ImageFont
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from seg3d_core import config as settings
from seg3d_core.build import build_scene
from seg3d_core.metrics.ap import AGNOSTIC, SceneEvaluation, average_precision
from seg3d_core.sources.guess import open_source
from seg3d_core.types import Array, Frame, Masks2D, PoseCorrection, Snapshot
from seg3d_core.viz.colours import id_colours

EVERY = 2
CEILING, PIXEL = 1.9, 0.025
SHOWN = ("drifted, before the correction", "drifted, corrected at the end", "true poses from the start")
# Smooth: the error is a sum of so many waves over the whole path.
WAVES = 4


def drift(frames: list[Frame], centimetres: float, degrees: float, seed: int) -> Array:
    """Poses (n, 4, 4) that are off by nothing at first and by so many centimetres and degrees at last."""
    random = np.random.default_rng(seed)
    true = np.array([f.T_world_camera for f in frames])
    way = np.append(0, np.cumsum(np.linalg.norm(np.diff(true[:, :3, 3], axis=0), axis=1)))
    share = way / way[-1]
    waves = np.sin(np.pi * np.arange(1, WAVES + 1)[:, None] * share + random.uniform(0, 2 * np.pi, (WAVES, 1)))

    def grown(length: float, weights: Array) -> Array:
        direction = random.normal(size=3) * weights
        wobble = (random.normal(size=(3, WAVES)) * weights[:, None]) @ waves / WAVES
        error = (direction / np.linalg.norm(direction) + wobble.T - wobble[:, -1]) * share[:, None]
        return error * length / np.linalg.norm(error[-1])

    # A robot's heading drifts, its up hardly: gravity is measured.
    off, turn = grown(centimetres / 100, np.array([1, 1, 0.3])), grown(np.radians(degrees), np.array([0.15, 0.15, 1]))
    out = true.copy()
    out[:, :3, 3] += off
    out[:, :3, :3] = Rotation.from_rotvec(turn).as_matrix() @ true[:, :3, :3]
    return out


@dataclass
class Outcome:
    """One run over one scene."""

    snapshot: Snapshot
    evaluation: SceneEvaluation
    errors: Array
    kept_ids: float = 1.0
    corrections_ms: list[float] = field(default_factory=list)
    merged: int = 0


def run(
    folder: Path, frames: list[Frame], poses: Array, masks: list[Masks2D | None], correct_at: tuple[int, ...]
) -> Outcome:
    """Fuses the frames with `poses`; after the frames number `correct_at` the true poses of the keyframes come."""
    scene = build_scene(settings.build({}))
    true = np.array([f.T_world_camera for f in frames])
    world, costs, kept, merged = np.eye(4), [], 1.0, 0
    for i, (frame, found) in enumerate(zip(frames, masks, strict=True)):
        frame = replace(frame, T_world_camera=world @ poses[i])
        visible = scene.add_frame(frame)
        if found is not None:
            scene.add_observation(frame, visible, found)
        if i in correct_at:
            before = set(scene.segment().instances.ids.tolist())
            known = np.arange(0, i + 1, EVERY)
            stamps = np.array([frames[k].stamp for k in known])
            start = time.process_time()
            outcome = scene.correct(PoseCorrection(stamps, true[known]))
            costs.append(1000 * (time.process_time() - start))
            merged += outcome.merged
            after = set(scene.segment().instances.ids.tolist())
            kept = min(kept, len(before & after) / max(len(after), 1))
            last = known[-1]
            world = true[last] @ np.linalg.inv(poses[last])
    snapshot = scene.segment()
    errors, _ = cKDTree(truth_of(folder)[0]).query(snapshot.cloud.xyz)
    return Outcome(snapshot, evaluation_of(folder, snapshot, scene.config.map.voxel_size), errors, kept, costs, merged)


def variants(frames: list[Frame], drifted: Array) -> dict[str, tuple[Array, tuple[int, ...]]]:
    true, last = np.array([f.T_world_camera for f in frames]), len(frames) - 1
    return {
        "true poses from the start": (true, ()),
        "drifted, before the correction": (drifted, ()),
        "drifted, corrected at the end": (drifted, (last,)),
        "drifted, corrected in the middle and at the end": (drifted, (last // 2, last)),
    }


def row(masks: str, name: str, outcomes: list[Outcome]) -> list[str]:
    ap = average_precision([o.evaluation for o in outcomes], [AGNOSTIC], agnostic=True)
    errors = np.concatenate([o.errors for o in outcomes])
    costs = [ms for o in outcomes for ms in o.corrections_ms]
    return [
        masks,
        name,
        percents(ap.mean()),
        f"{100 * errors.mean():.2f}",
        f"{100 * np.percentile(errors, 95):.1f}",
        f"{sum(len(o.snapshot.cloud) for o in outcomes):,}",
        f"{sum(o.merged for o in outcomes):,}" if costs else "",
        f"{sum(len(o.snapshot.instances) for o in outcomes)}",
        f"{100 * np.mean([o.kept_ids for o in outcomes]):.0f} %" if costs else "",
        f"{np.median(costs):.0f}" if costs else "",
    ]


def from_above(snapshot: Snapshot, colours: Array, low: Array, shape: tuple[int, int]) -> Array:
    """The map without its ceiling, uint8 (H, W, 3), each pixel the highest point on it."""
    xyz = snapshot.cloud.xyz
    order = np.argsort(xyz[:, 2], kind="stable")
    order = order[xyz[order, 2] < CEILING]
    column, row = ((xyz[order, :2] - low) / PIXEL).astype(int).T
    inside = (column >= 0) & (column < shape[1]) & (row >= 0) & (row < shape[0])
    out = np.full((*shape, 3), 250, np.uint8)
    out[shape[0] - 1 - row[inside], column[inside]] = colours[order[inside]]
    return out


def picture(outcomes: dict[str, Outcome], path: Path, title: str) -> None:
    """Three maps from above: in their own colours, and below these by instance."""
    maps = {name: outcomes[name].snapshot for name in SHOWN}
    every = np.concatenate([s.cloud.xyz[:, :2] for s in maps.values()])
    low = every.min(axis=0) - 0.1
    width, height = (int(n) for n in (every.max(axis=0) + 0.1 - low) / PIXEL)
    page = Image.new("RGB", (3 * (width + 20) + 20, 2 * (height + 10) + 60), "white")
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(16)
    for number, (name, snapshot) in enumerate(maps.items()):
        left = 20 + number * (width + 20)
        draw.text((left, 16), f"{title}: {name}", "black", font)
        grey = snapshot.cloud.rgb.mean(axis=1, keepdims=True) * 0.25 + 170
        by_instance = np.where(snapshot.labels[:, None] > 0, id_colours(snapshot.labels), grey).astype(np.uint8)
        for line, colours in enumerate((snapshot.cloud.rgb, by_instance)):
            image = Image.fromarray(from_above(snapshot, colours, low, (height, width)))
            page.paste(image, (left, 50 + line * (height + 10)))
    page.save(path)


HEAD = (
    "masks", "poses", "AP / AP50 / AP25", "map error cm", "its 95th percentile", "map points", "points merged",
    "instances", "ids kept", "correction ms",
)  # fmt: skip


def report(rows: list[list[str]], args: argparse.Namespace, scenes: list[Path]) -> str:
    drawn = args.out.with_suffix(".png")
    shown = f"![{args.picture} from above, its ceiling left out]({drawn.name})\n" if drawn.exists() else ""
    return f"""# Loop closure: a map that follows corrected poses

{about()}

Class-agnostic AP in percent, after ScanNet's protocol, pooled over {len(scenes)} furnished homes
({", ".join(folder.name for folder in scenes)}); our own map, transferred within two voxels. The poses drift smoothly
from nothing to {args.centimetres:g} cm and {args.degrees:g} degrees at the end of the path (seed {args.seed}). A
correction tells the true poses of every second frame; the others are interpolated, and nothing is fused again. The
map's error is the mean distance of its points to the scene's true surface points, which lie 2.4 to 3.6 cm apart.
*ids kept*: of the instances after a correction, those that had their id before it. *correction ms*: CPU time of one
correction, the segmentation that follows apart.

{table(HEAD, rows)}

{shown}"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=Path, required=True)
    parser.add_argument("--scene", action="append", default=[], help="only these")
    parser.add_argument("--masks", action="append", help="gt (default), or a generator")
    parser.add_argument("--centimetres", type=float, default=22.0)
    parser.add_argument("--degrees", type=float, default=4.0)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--out", type=Path, default=RESULTS / "loop_closure.md")
    parser.add_argument("--picture", default="house2", help="the scene to draw, beside the table, with the first masks")
    args = parser.parse_args()
    scenes = scenes_of(args.scenes, parser, args.scene)
    rows = []
    for name in args.masks or ["gt"]:
        outcomes: dict[str, list[Outcome]] = {}
        for folder in scenes:
            frames = list(open_source(folder))
            generator = masks_for(name, folder, settings.build({}))
            masks = [generator.masks(f) if i % EVERY == 0 else None for i, f in enumerate(frames)]
            drifted = drift(frames, args.centimetres, args.degrees, args.seed)
            of_scene = {
                key: run(folder, frames, poses, masks, at) for key, (poses, at) in variants(frames, drifted).items()
            }
            if folder.name == args.picture and name == (args.masks or ["gt"])[0]:
                picture(of_scene, args.out.with_suffix(".png"), folder.name)
            for key, outcome in of_scene.items():
                outcomes.setdefault(key, []).append(outcome)
        rows += [row(name, key, of_variant) for key, of_variant in outcomes.items()]
        write_page(args.out, report(rows, args, scenes))


if __name__ == "__main__":
    main()
