# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""How well 2D masks cover the things that one sees: mean best IoU per ground-truth instance view.

    python benchmarks/masks2d.py --scenes DIR [--every 7] [--first 0 3] [--masks geometric|mobile_sam|fused|DIR]
        [--set perception.sam_side=768 ...]

Scenes are in ScanNet's exported layout with `instance/` and `instances.json`. Things of at least 100 pixels count;
structure and carpets are left out. A folder of masks holds label PNGs named as the frames, or one such folder per
scene, named as the scene; `{scene}` in its path stands for the scene's name. Frames without a file are left out.
Prints a table and writes docs/results/masks2d.md (or `--out`).
"""

from __future__ import annotations

import argparse
import functools
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import cv2
import numpy as np
from common import RESULTS, about, table, write_page
from homes import scenes_of, things_of

from seg3d_core.build import build_masks
from seg3d_core.config import Config, build, parse_assignments
from seg3d_core.perception.base import MaskGenerator
from seg3d_core.perception.label_files import LabelFiles
from seg3d_core.types import Array, Camera, Frame

GENERATORS = ("geometric", "mobile_sam", "fused")
LEAST_PIXELS, LARGE_PIXELS = 100, 1000
DISPARITY_NOISE, DISPARITY_STEPS, BASELINE = 0.08, 8, 0.075


@dataclass
class Tally:
    """What one row of the table is made of: (best IoU, pixels) per view, segments and CPU seconds per frame."""

    views: list[tuple[float, int]] = field(default_factory=list)
    segments: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def cells(self) -> list[str]:
        iou, pixels = np.array(self.views).reshape(-1, 2).T
        large = iou[pixels >= LARGE_PIXELS]
        cells = [f"{len(iou)}", f"{iou.mean():.3f}", f"{(iou >= 0.5).mean():.2f}", f"{(iou >= 0.75).mean():.2f}"]
        cells += [f"{large.mean():.3f}" if len(large) else "", f"{np.mean(self.segments):.1f}"]
        milliseconds = 1000 * np.array(self.seconds)
        return [*cells, f"{np.median(milliseconds):.1f}", f"{np.percentile(milliseconds, 95):.1f}"]


def scene_frames(scene: Path, every: int, first: int = 0) -> Iterator[Frame]:
    """Every nth frame of a scene from frame number `first` on, depth as stored."""
    k = np.loadtxt(scene / "intrinsic" / "intrinsic_depth.txt")
    names = sorted((p.stem for p in (scene / "depth").glob("*.png")), key=int)
    for name in names[first::every]:
        depth = cv2.imread(str(scene / "depth" / f"{name}.png"), cv2.IMREAD_UNCHANGED).astype(np.float32) / 1000
        rgb = cv2.cvtColor(cv2.imread(str(scene / "color" / f"{name}.jpg")), cv2.COLOR_BGR2RGB)
        truth = cv2.imread(str(scene / "instance" / f"{name}.png"), cv2.IMREAD_UNCHANGED).astype(np.int32)
        camera = Camera.from_matrix(k, depth.shape[1], depth.shape[0])
        yield Frame(int(name), float(name), rgb, depth, camera, np.eye(4), name, truth)


def add_noise(depth: Array, fx: float, rng: np.random.Generator) -> Array:
    """Depth as a structured-light camera would see it: disparity noise and steps, 70 % of the edges lost."""
    disparity = fx * BASELINE / np.maximum(depth, 1e-3) + rng.normal(0, DISPARITY_NOISE, depth.shape)
    disparity = np.round(disparity * DISPARITY_STEPS) / DISPARITY_STEPS
    out = np.where((depth > 0) & (disparity > 0), fx * BASELINE / np.maximum(disparity, 1e-3), 0)
    edge = cv2.morphologyEx(depth, cv2.MORPH_GRADIENT, np.ones((3, 3))) > 0.05 * depth + 0.02
    out[edge & (rng.random(depth.shape) < 0.7)] = 0
    return out.astype(np.float32)


def best_ious(truth: Array, labels: Array, things: Array) -> list[tuple[float, int]]:
    """(Best IoU with any mask, pixels) of every thing of at least LEAST_PIXELS; truth and labels int (H, W)."""
    rows, columns = int(max(truth.max(), things.max(initial=0))) + 1, int(labels.max()) + 1
    joint = np.bincount((truth.astype(np.int64) * columns + labels).ravel(), minlength=rows * columns)
    joint = joint.reshape(rows, columns)
    area = joint.sum(1)
    iou = joint / np.maximum(area[:, None] + joint.sum(0)[None] - joint, 1)
    iou[:, 0] = 0
    seen = things[area[things] >= LEAST_PIXELS]
    return list(zip(iou[seen].max(1).tolist(), area[seen].tolist(), strict=True))


def generator_for(masks: str, scene: Path, settings: Config) -> MaskGenerator:
    if masks in GENERATORS:
        return _generator(settings)
    folder = Path(masks.replace("{scene}", scene.name))
    return LabelFiles(folder / scene.name if (folder / scene.name).is_dir() else folder)


@functools.cache
def _generator(settings: Config) -> MaskGenerator:
    return build_masks(settings)


def measure(scenes: list[Path], masks: str, every: int, first: int, noisy: bool, settings: Config) -> Tally:
    tally, rng = Tally(), np.random.default_rng(0)
    for scene in scenes:
        generator, things = generator_for(masks, scene, settings), np.array(list(things_of(scene)), int)
        for frame in scene_frames(scene, every, first):
            if noisy:
                frame = replace(frame, depth=add_noise(frame.depth, frame.camera.fx, rng))
            start = time.process_time()
            found = generator.masks(frame)
            if found is None or frame.instance is None:
                continue
            tally.seconds.append(time.process_time() - start)
            tally.segments.append(len(found))
            tally.views += best_ious(frame.instance, found.labels, things)
    return tally


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=Path, required=True)
    parser.add_argument("--every", type=int, default=7)
    parser.add_argument("--first", type=int, nargs="+", default=[0, 3], help="frame to start from, one row each")
    parser.add_argument("--masks", default="geometric")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="a setting, any number of them"
    )
    parser.add_argument("--out", type=Path, default=RESULTS / "masks2d.md")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    scenes = scenes_of(arguments.scenes, parser)
    is_made = arguments.masks in GENERATORS
    chosen = {"perception.masks": arguments.masks} if is_made else {}
    settings = build({**chosen, **parse_assignments(arguments.set)})
    measure(scenes[:1], arguments.masks, 10_000, 0, False, settings)
    inputs = {"noise-free": False, "noisy": True} if is_made else {"as stored": False}
    columns = ["input", "views", "mean best IoU", ">= 0.5", ">= 0.75", "views >= 1000 px", "segments"]
    columns += ["median CPU ms", "p95 CPU ms"]
    rows = []
    for first in arguments.first:
        for name, noisy in inputs.items():
            tally = measure(scenes, arguments.masks, arguments.every, first, noisy, settings)
            rows.append([f"{name}, from frame {first}", *tally.cells()])
    what = " ".join([arguments.masks, *arguments.set]) if is_made else f"files ({Path(arguments.masks).name})"
    text = f"""# 2D masks against ground truth

{about()}

Masks: {what}. Scenes: {", ".join(s.name for s in scenes)}, every {arguments.every}th frame. Best IoU of any mask per
view of a thing of at least {LEAST_PIXELS} pixels; structure and carpets left out. Noisy: {DISPARITY_NOISE} px of
disparity noise, steps of 1/{DISPARITY_STEPS} px, 70 % of the pixels at depth edges lost. The constants of the
masks made here were chosen on every 7th frame from 0; the rows from 3 are other frames of the same scenes. CPU time
is that of all threads.

{table(columns, rows)}
"""
    write_page(arguments.out, text)


if __name__ == "__main__":
    main()
