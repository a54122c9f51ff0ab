# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""RE0's readings and what each part of ours is worth: variants against sources of 2D masks.

    python benchmarks/re0.py --scenes DIR --masks DIR [--masks DIR] [--degrade degrade_masks.py [--seed 7]]
        [--fresh geometric] [--together NAME+NAME] [--every 2] [--own-map] [--snapshot-every N] [--json FILE]
        [--out FILE]

Scenes are in ScanNet's exported layout with `points.npz` (`xyz`, `rgb`, `normal`, `instance`) and `instances.json`.
`--masks` holds `<scene>/<name>/<frame>.png`; every name that all scenes have is a source. `--degrade` makes the
sources `gt`, `independent` and `correlated` with that script; `--fresh` makes masks with one of our own generators.
`--together A+B` shows both label images of a keyframe to the segmenter.

Protocol: the scene's own points are the map, every second frame is a keyframe, things of at least 100 points count,
structure and carpets are void; class-agnostic AP of ScanNet's protocol, pooled over the scenes.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
from common import RESULTS, about, percents, table, write_page
from homes import evaluation_of, scenes_of

from seg3d_core import config as settings
from seg3d_core.build import build_masks, build_scene
from seg3d_core.metrics.ap import AGNOSTIC, average_precision
from seg3d_core.perception.label_files import LabelFiles
from seg3d_core.scene import Scene
from seg3d_core.segmenters.re0 import Re0Segmenter
from seg3d_core.segmenters.re0.evidence import FEATURES, Weights, fitted_weights
from seg3d_core.segmenters.re0.streaming import StreamingReading
from seg3d_core.sources.guess import open_source
from seg3d_core.types import Frame, Masks2D

# The protocol knows no limits of depth.
ALL_DEPTHS = {"map.depth_max": 100.0, "map.depth_min": 0.0}
OURS = "seg3d"
GEOMETRY = ("touching", "contact", "step", "convexity", "parallel", "flatness", "size", "extent", "gap")
COLOURS = ("edge colour", "colour")
COSTS = ("project_ms", "observe_ms", "snapshot_ms", "state_mb")


def without(*names: str) -> Weights:
    """The fitted weights, those of some features 0: what the model says where these are always 0."""
    weights = fitted_weights()
    kept = np.array([name not in names for name in FEATURES])
    return Weights(weights.features * kept, weights.constant)


@dataclass(frozen=True)
class Variant:
    """A profile of settings, and for ours a reading with something left out."""

    name: str
    profile: str = "paper-re0"
    changes: dict[str, object] = field(default_factory=dict)
    reading: Callable[[], StreamingReading] | None = None
    equal_scores: bool = False


VARIANTS = (
    Variant("published", "published-re0", {"map.depth_tolerance": 0.02, "map.depth_tolerance_relative": 0.01}),
    Variant("published, depth within 0.10 m", "published-re0"),
    Variant("paper, unlabelled points counted", changes={"re0.count_unlabelled": True, "re0.min_labelled": 0.0}),
    Variant("paper without the merge", changes={"re0.merge": False}),
    Variant("paper"),
    Variant(f"{OURS}: joined superpoints, no votes", "", reading=lambda: StreamingReading(outline_rounds=0)),
    Variant(f"{OURS}: masks never taken for exact", "", reading=lambda: StreamingReading(exact_times=1.0)),
    Variant(f"{OURS}: no geometry in the evidence", "", reading=lambda: StreamingReading(without(*GEOMETRY))),
    Variant(f"{OURS}: no colour in the evidence", "", reading=lambda: StreamingReading(without(*COLOURS))),
    Variant(f"{OURS}, all scores 1", "", equal_scores=True),
    Variant(OURS, ""),
)


@dataclass
class Cost:
    """CPU seconds by stage over all scenes, keyframes, and megabytes of the largest segmenter."""

    project: float = 0.0
    observe: float = 0.0
    snapshot: float = 0.0
    keyframes: int = 0
    scenes: int = 0
    state_mb: float = 0.0


@dataclass(frozen=True)
class Cell:
    variant: str
    masks: str
    ap: float
    ap50: float
    ap25: float
    instances: int
    project_ms: float
    observe_ms: float
    snapshot_ms: float
    state_mb: float


@contextlib.contextmanager
def stopwatch(cost: Cost, stage: str) -> Iterator[None]:
    begun = time.process_time()
    yield
    setattr(cost, stage, getattr(cost, stage) + time.process_time() - begun)


def scene_of(variant: Variant, points: Path | None) -> Scene:
    config = settings.build({**ALL_DEPTHS, **variant.changes}, variant.profile or "cpu-geometric")
    scene = build_scene(config, points)
    if variant.reading is not None:
        assert isinstance(scene.segmenter, Re0Segmenter)
        scene.segmenter.reading = variant.reading()
    return scene


def run(
    variant: Variant,
    folder: Path,
    frames: list[Frame],
    masks: list[Masks2D | None],
    own_map: bool,
    snapshot_every: int,
    cost: Cost,
) -> Scene:
    """Streams the frames; those with masks are the keyframes."""
    scene = scene_of(variant, None if own_map else folder / "points.npz")
    for frame, found in zip(frames, masks, strict=True):
        if found is None and not own_map:
            continue
        with stopwatch(cost, "project"):
            visible = scene.map.integrate(frame)
        if found is not None:
            with stopwatch(cost, "observe"):
                scene.add_observation(frame, visible, found)
            cost.keyframes += 1
            if snapshot_every and scene.keyframes % snapshot_every == 0:
                scene.segment()
    scene.segment()
    with stopwatch(cost, "snapshot"):
        scene.segment()
    cost.scenes += 1
    cost.state_mb = max(cost.state_mb, scene.memory_mb["votes and log"])
    return scene


def measure(
    variant: Variant, source: str, scenes: list[Path], loaded: Loaded, own_map: bool, snapshot_every: int
) -> Cell:
    evaluations, count, cost = [], 0, Cost()
    for folder in scenes:
        frames, masks = loaded.frames[folder], loaded.masks[source][folder]
        scene = run(variant, folder, frames, masks, own_map, snapshot_every, cost)
        found = scene.snapshot.instances
        scores = np.ones(len(found)) if variant.equal_scores else found.scores
        evaluations.append(evaluation_of(folder, scene.snapshot, scene.config.map.voxel_size, scores))
        count += len(found)
    ap = average_precision(evaluations, [AGNOSTIC], agnostic=True)
    per_keyframe = 1000 / max(cost.keyframes, 1)
    return Cell(
        variant.name,
        source,
        *ap.mean(),
        count,
        cost.project * per_keyframe,
        cost.observe * per_keyframe,
        1000 * cost.snapshot / max(cost.scenes, 1),
        cost.state_mb,
    )


@dataclass
class Loaded:
    """Frames of each scene, and of each source and scene the masks of each frame, None = no keyframe."""

    frames: dict[Path, list[Frame]] = field(default_factory=dict)
    masks: dict[str, dict[Path, list[Masks2D | None]]] = field(default_factory=dict)


def load(scenes: list[Path], args: argparse.Namespace) -> Loaded:
    loaded = Loaded({folder: list(open_source(folder)) for folder in scenes})
    roots = [Path(root) for root in args.masks]
    with tempfile.TemporaryDirectory() as degraded:
        if args.degrade:
            command = [sys.executable, args.degrade, str(scenes[0].parent), degraded, "--seed", str(args.seed)]
            for folder in scenes:
                command += ["--scene", folder.name]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            roots.insert(0, Path(degraded))
        for root in roots:
            first = root / scenes[0].name
            for name in sorted(p.name for p in first.iterdir() if p.is_dir()) if first.is_dir() else []:
                if all((root / folder.name / name).is_dir() for folder in scenes):
                    loaded.masks[name] = {
                        folder: _from_files(loaded.frames[folder], root / folder.name / name, args.every)
                        for folder in scenes
                    }
    for name in args.fresh:
        generator = build_masks(settings.build({"perception.masks": name}))
        loaded.masks[f"{name}, fresh"] = {
            folder: [generator.masks(f) if i % args.every == 0 else None for i, f in enumerate(loaded.frames[folder])]
            for folder in scenes
        }
    for pair in args.together:
        parts = [loaded.masks[name] for name in pair.split("+")]
        loaded.masks[pair] = {folder: _together([part[folder] for part in parts]) for folder in scenes}
    return loaded


def _from_files(frames: list[Frame], folder: Path, every: int) -> list[Masks2D | None]:
    files = LabelFiles(folder)
    return [files.masks(frame) if i % every == 0 else None for i, frame in enumerate(frames)]


def _together(parts: list[list[Masks2D | None]]) -> list[Masks2D | None]:
    out: list[Masks2D | None] = []
    for found in zip(*parts, strict=True):
        known = [masks for masks in found if masks is not None]
        out.append(replace(known[0], others=tuple(known[1:])) if known else None)
    return out


def table_of_variants(cells: list[Cell], sources: list[str]) -> str:
    rows = []
    for variant in dict.fromkeys(cell.variant for cell in cells):
        of_variant = [cell for cell in cells if cell.variant == variant]
        by_source = {c.masks: percents((c.ap, c.ap50, c.ap25)) for c in of_variant}
        costs = [np.median([getattr(c, name) for c in of_variant]) for name in COSTS]
        rows.append([variant, *(by_source[s] for s in sources), *(f"{c:.1f}" for c in costs)])
    return table(["variant", *sources, "project ms", "observe ms", "snapshot ms", "state MB"], rows)


def report(cells: list[Cell], sources: list[str], args: argparse.Namespace, scenes: list[Path]) -> str:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    where = "our own map, transferred within two voxels" if args.own_map else "the scenes' own points"
    if args.snapshot_every:
        where += f"; a snapshot every {args.snapshot_every} keyframes, of which the last one counts"
    return f"""# RE0: its readings, and what each part of ours is worth

{about()}

Class-agnostic AP / AP50 / AP25 in percent, after ScanNet's protocol, pooled over {len(scenes)} scenes
({", ".join(folder.name for folder in scenes)}); things of at least 100 points count, structure and carpets are void.
Map: {where}. Keyframes: every frame number that {args.every} divides. Degraded masks: seed {args.seed}.
Projection and observation are CPU milliseconds per keyframe, a snapshot CPU milliseconds per scene (of a map whose
superpoints are known already), medians over the sources; state is what the segmenter keeps beside the map.
The process took {peak:.0f} MB at most.

{table_of_variants(cells, sources)}
"""


def add_inputs(parser: argparse.ArgumentParser) -> None:
    """What `load` reads."""
    parser.add_argument("--scenes", type=Path, required=True, help="folder of scenes, or one scene")
    parser.add_argument("--masks", action="append", default=[], help="folder of <scene>/<name>/<frame>.png")
    parser.add_argument("--degrade", default="", help="the script that makes gt, independent and correlated masks")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--fresh", action="append", default=[], help="masks made now: geometric, mobile_sam, ...")
    parser.add_argument("--together", action="append", default=[], metavar="A+B")
    parser.add_argument("--every", type=int, default=2, help="every which frame is a keyframe")
    parser.add_argument("--source", action="append", default=[], help="only these mask sources")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_inputs(parser)
    parser.add_argument("--own-map", action="store_true", help="fuse all frames into our own map")
    parser.add_argument("--snapshot-every", type=int, default=0, metavar="N", help="keyframes, as in live runs")
    parser.add_argument("--variant", action="append", default=[], help="only these (all by default)")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--out", type=Path, default=RESULTS / "re0.md")
    args = parser.parse_args()
    scenes = scenes_of(args.scenes, parser)
    loaded = load(scenes, args)
    sources = [s for s in loaded.masks if not args.source or s in args.source]
    cells = []
    for variant in VARIANTS:
        if args.variant and variant.name not in args.variant:
            continue
        for source in sources:
            cell = measure(variant, source, scenes, loaded, args.own_map, args.snapshot_every)
            cells.append(cell)
            print(f"{cell.variant} | {source} | {percents((cell.ap, cell.ap50, cell.ap25))}"
                  f" | {cell.project_ms:.1f} {cell.observe_ms:.2f} {cell.snapshot_ms:.0f} ms", flush=True)  # fmt: skip
    write_page(args.out, report(cells, sources, args, scenes))
    if args.json:
        args.json.write_text(json.dumps([asdict(cell) for cell in cells], indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
