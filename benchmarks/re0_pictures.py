# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""What RE0's readings find, as pictures: colour, ground truth, `paper` and ours, one file per scene.

    python benchmarks/re0_pictures.py --scenes DIR --masks DIR --fresh geometric --together "mobilesam+geometric, fresh"
        [--source NAME] [--out docs/results]

Inputs are those of `re0.py`; `--source` names one of its mask sources, the last one loaded by default. Writes
`re0_pictures.md` and `re0_<scene>.png`, seen from above at a slant. An instance has the colour of the ground-truth
thing that it fits best, grey where it fits none. Things are ticked where they are found.
"""

from __future__ import annotations

import argparse
import textwrap
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import re0
from common import RESULTS, about, write_page
from homes import evaluation_of, scenes_of, truth_of
from PIL import Image, ImageDraw, ImageFont
from scipy.sparse import coo_matrix

from seg3d_core.metrics.ap import AGNOSTIC, MIN_REGION, average_precision
from seg3d_core.metrics.scene_counts import LABEL_FACTOR, SceneEvaluation
from seg3d_core.types import Array, Snapshot
from seg3d_core.viz import id_colours
from seg3d_core.viz.colours import NONE_COLOUR
from seg3d_core.viz.picture import DrawnMap, inner_point

UP = np.array([0.0, 0.0, 1.0])
PANEL = (700, 500)
PAGE, BACKDROP, INK, FAINT = (252, 252, 253), (236, 239, 243), (32, 34, 40), (100, 104, 114)
MARGIN, TITLE, HEADING, FOOTER = 16, 44, 30, 56
# Pixels of a thing that is marked, at twice the panel's size, and the IoU above which it is found or roughly so.
LEAST_MARKED, FOUND, FITS = 250, 0.5, 0.25
VARIANTS = tuple(v for v in re0.VARIANTS if v.name in ("paper", re0.OURS))
CREDIT = """The scenes are Sweet Home 3D example homes and models, (c) Emmanuel Puybaret / eTeks, CC-BY 3.0, rendered
for seg3d (changed: surface patterns, inner doors opened)."""
NAMES = {"paper": "The paper's algorithm", re0.OURS: "Ours"}


@dataclass(frozen=True, eq=False)
class Compared:
    """Ground truth and one segmentation of the same points.

    `truth` int64 (N,): thing of each point, 0 = structure, carpet or none; `found` int32 (N,): instance number + 1;
    `common` int64 (T, K): points that thing t and instance k share, row and column 0 for none; `ap` (3,) of the scene.
    """

    snapshot: Snapshot
    truth: Array
    found: Array
    common: Array
    ap: tuple[float, float, float]

    @property
    def iou(self) -> Array:
        """Float (T - 1, K - 1) of things and instances, without the nones."""
        common = self.common[1:, 1:]
        union = self.common.sum(1)[1:, None] + self.common.sum(0)[None, 1:] - common
        return np.asarray(common / np.maximum(union, 1))

    @property
    def counted(self) -> Array:
        """Numbers of the things that count."""
        sizes = self.common.sum(1)
        sizes[0] = 0
        return np.flatnonzero(sizes >= MIN_REGION)

    def things_of_instances(self) -> Array:
        """The thing int64 (K,) that each instance fits: with an IoU above 0.25, each the other's best; else 0."""
        out, iou = np.zeros(self.common.shape[1], np.int64), self.iou
        if iou.size:
            thing = iou.argmax(0)
            fits = (iou.argmax(1)[thing] == np.arange(len(thing))) & (iou.max(0) > FITS)
            out[1:] = np.where(fits, thing + 1, 0)
        return out

    def best_iou(self) -> Array:
        """Float (T,): of each thing with its best instance."""
        return np.concatenate([[0.0], self.iou.max(1, initial=0.0)])


def compare(variant: re0.Variant, source: str, folder: Path, loaded: re0.Loaded) -> Compared:
    frames, masks = loaded.frames[folder], loaded.masks[source][folder]
    scene = re0.run(variant, folder, frames, masks, False, 0, re0.Cost())
    snapshot = scene.snapshot
    found = snapshot.instances.exclusive(snapshot.cloud.ids)
    evaluation = evaluation_of(folder, snapshot, scene.config.map.voxel_size)
    return compared_with(truth_of(folder)[1], snapshot, found, len(snapshot.instances), evaluation)


def compared_with(
    truth: Array, snapshot: Snapshot, found: Array, instances: int, evaluation: SceneEvaluation
) -> Compared:
    """`truth` int64 (N,) as an evaluation has it, `found` int32 (N,) instance number + 1, of the snapshot's points."""
    ap = average_precision([evaluation], [AGNOSTIC], agnostic=True)
    things = truth % LABEL_FACTOR
    shape = int(things.max()) + 1, instances + 1
    common = coo_matrix((np.ones(len(things), np.int64), (things, found)), shape=shape).toarray()
    return Compared(snapshot, things, found, common, ap.mean())


def colours_of(compared: Compared) -> Array:
    """RGB uint8 (N, 3): the colour of the thing that fits, greys where none does, light ones for walls and floors."""
    things = compared.things_of_instances()
    numbers = np.arange(len(things))
    is_void = 2 * compared.common[0] > compared.common.sum(0)
    greys = np.where(is_void, 200 + numbers * 7 % 5 * 6, 105 + numbers * 13 % 7 * 9)
    colours = np.where(things[:, None] > 0, id_colours(things), greys[:, None] + [0, 1, 4])
    colours[0] = NONE_COLOUR
    return colours[compared.found].astype(np.uint8)


def font(size: float) -> ImageFont.FreeTypeFont:
    found = ImageFont.load_default(size)
    assert isinstance(found, ImageFont.FreeTypeFont)
    return found


def page(title: str, panels: list[tuple[str, Array]], columns: int, footer: str, path: Path) -> None:
    """Writes headed panels uint8 (H, W, 3) of one size, row by row, as a PNG of 256 colours."""
    height, width = panels[0][1].shape[:2]
    rows = -(-len(panels) // columns)
    size = (columns * width + (columns + 1) * MARGIN, TITLE + rows * (height + HEADING + MARGIN) + FOOTER)
    image = Image.new("RGB", size, PAGE)
    draw = ImageDraw.Draw(image)
    draw.text((MARGIN, 12), title, INK, font(24))
    for number, (heading, pixels) in enumerate(panels):
        x = MARGIN + number % columns * (width + MARGIN)
        y = TITLE + number // columns * (height + HEADING + MARGIN)
        draw.text((x, y + 4), heading, INK, font(18))
        image.paste(Image.fromarray(pixels), (x, y + HEADING))
    lines = textwrap.fill(footer, size[0] // 8)
    draw.multiline_text((MARGIN, size[1] - FOOTER), lines, FAINT, font(15), spacing=5)
    # The usual median cut would spend its colours on greys and give several things one.
    colours = image.quantize(255, Image.Quantize.MAXCOVERAGE, kmeans=2, dither=Image.Dither.NONE)
    colours.save(path, "PNG", optimize=True)


def ticked(panel: Array, seen: Array, compared: Compared) -> Array:
    """The panel with a mark on each counted thing that shows in it: of `seen` (2 H, 2 W) numbers of things."""
    image = Image.fromarray(panel)
    draw = ImageDraw.Draw(image)
    iou = compared.best_iou()
    for thing in compared.counted.tolist():
        if np.count_nonzero(seen == thing) < LEAST_MARKED:
            continue
        x, y, _ = (value / 2 for value in inner_point(seen == thing))
        draw.ellipse((x - 7, y - 7, x + 7, y + 7), (255, 255, 255), (60, 64, 72))
        if iou[thing] > FOUND:
            draw.line(((x - 4, y), (x - 1, y + 3), (x + 4, y - 4)), (0, 120, 50), 2)
        else:
            draw.line(((x - 3, y - 3), (x + 3, y + 3)), (190, 20, 30), 2)
            draw.line(((x - 3, y + 3), (x + 3, y - 3)), (190, 20, 30), 2)
    return np.asarray(image)


def picture(title: str, found: dict[str, Compared], path: Path) -> None:
    """Colour, ground truth and a panel for each of `found`, headed by its key: segmentations of the same points."""
    first = next(iter(found.values()))
    counted = np.isin(first.truth, first.counted)
    truth = np.where(counted, first.truth, 0).astype(np.int32)
    view = DrawnMap.of(replace(first.snapshot, labels=truth), (2 * PANEL[0], 2 * PANEL[1]), UP, None, truth)
    assert view is not None

    def drawn(labels: Array, colours: Array, strength: float = 1.0) -> Array:
        shades = replace(view, labels=labels[view.rows]).shade(colours[view.rows], strength, outlines=strength == 1)
        shades[view.index < 0] = BACKDROP
        image = Image.fromarray(np.clip(np.rint(shades), 0, 255).astype(np.uint8))
        return np.asarray(image.resize(PANEL, Image.Resampling.BOX))

    seen = np.where(view.index >= 0, view.labels[view.index], 0)
    panels = [
        ("What the camera saw", drawn(truth, first.snapshot.cloud.rgb, 0.35)),
        (f"Ground truth: {len(first.counted)} things", drawn(truth, id_colours(truth))),
    ]
    for name, compared in found.items():
        hits = int((compared.best_iou()[compared.counted] > FOUND).sum())
        ap = " / ".join(f"{100 * value:.0f}" for value in compared.ap)
        heading = f"{name}: {hits} things found, AP / AP50 / AP25 {ap}"
        panels.append((heading, ticked(drawn(compared.found, colours_of(compared)), seen, compared)))
    footer = (
        "An instance has the colour of the thing that it fits best (IoU, intersection over union, above 0.25). Dark "
        "grey: instances that fit none, several things in one or pieces of one. Pale: no instance, or one of walls, "
        "floors, doors and carpets. Tick: this thing is found, with an IoU above 0.5. Cross: it is not."
    )
    page(title, panels, 2, footer, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    re0.add_inputs(parser)
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    scenes = scenes_of(args.scenes, parser)
    loaded = re0.load(scenes, args)
    sources = args.source or list(loaded.masks)[-1:]
    if len(sources) != 1 or sources[0] not in loaded.masks:
        parser.error(f"--source must be one of {', '.join(loaded.masks) or 'none: give --masks or --fresh'}")
    for folder in scenes:
        found = {NAMES[v.name]: compare(v, sources[0], folder, loaded) for v in VARIANTS}
        title = f"{folder.name}: things found from the 2D masks “{sources[0]}”"
        picture(title, found, args.out / f"re0_{folder.name}.png")
    shown = "\n".join(f"![{folder.name}](re0_{folder.name}.png)\n" for folder in scenes)
    text = f"""# What RE0's readings find, scene by scene

{about()}
2D masks: {sources[0]}; keyframes: every frame number that {args.every} divides; the scenes' own points are the map.
Things of at least 100 points count. Pooled numbers are in [re0.md](re0.md), what
goes wrong in [re0_failures.md](re0_failures.md).

{shown}
{CREDIT}
"""
    write_page(args.out / "re0_pictures.md", text)


if __name__ == "__main__":
    main()
