# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""How RE0's readings fail: things found, under-segmented, over-segmented or neither, by size and mask source.

    python benchmarks/re0_failures.py --scenes DIR --masks DIR --fresh geometric --together "mobilesam+geometric, fresh"
        [--degrade degrade_masks.py] [--source NAME] [--case SCENE:THING:SENTENCE] [--list] [--out FILE]

Inputs are those of `re0.py`. `--case` adds a picture of ours from the last source: one thing in a frame, the 2D masks
there and what came out, with a sentence by whoever has looked at it; `--list` prints the things to choose from.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import re0
from common import RESULTS, about, table, write_page
from homes import scenes_of, things_of
from re0_pictures import CREDIT, FOUND, VARIANTS, Compared, compare, page
from scipy.ndimage import distance_transform_edt

from seg3d_core.config import Config
from seg3d_core.mapping.fixed_map import FixedMap
from seg3d_core.mapping.points_file import read_points
from seg3d_core.types import Array, Frame, Masks2D
from seg3d_core.viz import draw_masks

UNDER = "under-segmented, with "
VERDICTS = ("found", f"{UNDER}other things", f"{UNDER}background", "over-segmented", "neither")
SIZES = ((100, 300), (300, 1000), (1000, 3000), (3000, 10**9))
SCALE = 2
# Pixels of a thing from which on a keyframe shows it.
SHOWN = 200


@dataclass(frozen=True)
class Thing:
    """A ground-truth thing and what became of it: its number, points, best IoU and one of `VERDICTS`."""

    scene: str
    number: int
    size: int
    iou: float
    verdict: str


def verdicts_of(scene: str, compared: Compared) -> list[Thing]:
    """Things that count, by `DEFINITIONS`."""
    common, things = compared.common, compared.counted
    sizes, instance_sizes = common.sum(1)[things], common.sum(0)[1:]
    inside, background = common[things][:, 1:], common[0, 1:]
    main = inside.argmax(1)
    share = inside[np.arange(len(things)), main]
    rest = instance_sizes[main] - share
    is_under = (2 * share >= sizes) & (rest > sizes - share)
    with_others = 2 * (rest - background[main]) > rest
    pieces = np.where(2 * inside > instance_sizes, inside, 0).sum(1)
    iou = compared.best_iou()[things]
    which = np.select(
        [iou > FOUND, is_under & with_others, is_under, 2 * pieces >= sizes], [0, 1, 2, 3], default=4
    ).tolist()
    rows = zip(things.tolist(), sizes.tolist(), iou.tolist(), which, strict=True)
    return [Thing(scene, number, size, value, VERDICTS[verdict]) for number, size, value, verdict in rows]


def counts(things: Iterable[Thing]) -> list[int]:
    found = [thing.verdict for thing in things]
    return [found.count(verdict) for verdict in VERDICTS]


DEFINITIONS = """- *Found*: an instance has an IoU (intersection over union) above 0.5 with the thing.
- *Under-segmented*: not found; one instance holds at least half of the thing's points, and more points of something
  else than it leaves of the thing. *With other things*: most of these are on other things; *with background*: not so.
- *Over-segmented*: neither of these; the instances that have more than half of their points on the thing hold at least
  half of it together.
- *Neither*: what is left; mostly things that no instance has half of."""


def table_of_verdicts(results: dict[tuple[str, str], list[Thing]]) -> str:
    rows = [[source, f"`{variant}`", *counts(things)] for (source, variant), things in results.items()]
    return table(["masks", "reading", *VERDICTS], rows)


def table_by_size(results: dict[tuple[str, str], list[Thing]]) -> str:
    names = [f"{low} to {high}" if high < SIZES[-1][1] else f"{low} and more" for low, high in SIZES]
    first = next(iter(results.values()))
    sized = [sum(low <= t.size < high for t in first) for low, high in SIZES]
    head = [f"{name} points ({number})" for name, number in zip(names, sized, strict=True)]
    rows = []
    for (source, variant), things in results.items():
        cells = []
        for low, high in SIZES:
            found, others, background, over, neither = counts(t for t in things if low <= t.size < high)
            cells.append(f"{found} / {others + background} / {over} / {neither}")
        rows.append([source, f"`{variant}`", *cells])
    return table(["masks", "reading", *head], rows)


@dataclass(frozen=True, eq=False)
class Fit2D:
    """Of a scene's things: `shown` int (T,), keyframes that show them; `fitted` (S, T), those where a mask of source s
    fits, which is a 2D IoU above 0.5; `any_fitted` (T,), those where one of any source does."""

    shown: Array
    fitted: Array
    any_fitted: Array


def fits_in_2d(folder: Path, frames: list[Frame], masks: list[Masks2D | None]) -> Fit2D:
    rows = len(things_of(folder)) + 1
    shown, fitted = [], []
    for frame, found in zip(frames, masks, strict=True):
        if found is None:
            continue
        truth = thing_image(folder, frame)
        shown.append(np.bincount(truth.ravel(), minlength=rows) >= SHOWN)
        fitted.append([])
        for image in found.label_images:
            columns = int(image.labels.max()) + 1
            common = np.bincount((truth * columns + image.labels).ravel(), minlength=rows * columns)
            common = common.reshape(rows, columns)
            iou = common / np.maximum(common.sum(1)[:, None] + common.sum(0) - common, 1)
            fitted[-1].append(shown[-1] & (iou[:, 1:].max(1, initial=0) > FOUND))
    return Fit2D(np.sum(shown, 0), np.sum(fitted, 0), np.any(fitted, 1).sum(0))


def sentence_2d(source: str, ours: Iterable[Thing], fits: dict[str, Fit2D]) -> str:
    """How much of ours the 2D masks explain."""
    shares: dict[bool, list[float]] = {True: [], False: []}
    for thing in ours:
        fit = fits[thing.scene]
        if fit.shown[thing.number]:
            shares[thing.verdict == "found"].append(fit.any_fitted[thing.number] / fit.shown[thing.number])
    found, missed = np.array(shares[True]), np.array(shares[False])
    few, none = np.count_nonzero(missed < 1 / 3), np.count_nonzero(missed == 0)
    return f"""**How much of this the 2D masks explain** ({source}, `{re0.OURS}`).
A mask fits a thing in a keyframe when its 2D IoU with what shows of the thing, {SHOWN} pixels at least, is above 0.5.
Things that ours finds have a fitting mask in {np.mean(found):.0%} of the keyframes that show them, the others in
{np.mean(missed):.0%}. Of the {len(missed)} things that keyframes show and ours does not find, {few} have one in
less than a third of these keyframes, and {none} in none."""


def report(
    results: dict[tuple[str, str], list[Thing]], explained: str, cases: list[str], args: argparse.Namespace
) -> str:
    things = next(iter(results.values()))
    scenes = dict.fromkeys(thing.scene for thing in things)
    shown = "\n".join(cases)
    return f"""# How RE0's readings fail

{about()}

All {len(things)} things of at least 100 points of {len(scenes)} scenes ({", ".join(scenes)}); structure (walls, floors,
doors, windows) and carpets are background. Map: the scenes' own points; keyframes: every frame number that {args.every}
divides; degraded masks: seed {args.seed}. Points carry one instance at most, as in [the AP of the same runs](re0.md).

{DEFINITIONS}

{table_of_verdicts(results)}

By size of the thing, found / under-segmented / over-segmented / neither:

{table_by_size(results)}

{explained}

{shown}
{CREDIT}
"""


# --- pictures of single failures -----------------------------------------------------------------


def name_of(folder: Path, number: int) -> str:
    """Of thing 1, 2, ... of a scene."""
    return list(things_of(folder).values())[number - 1]


def thing_image(folder: Path, frame: Frame) -> Array:
    """Numbers of things int (H, W) in a frame, 0 = none."""
    assert frame.instance is not None
    numbers = np.zeros(int(frame.instance.max()) + 1, np.int64)
    for number, key in enumerate(things_of(folder), 1):
        numbers[key : key + 1] = number
    return numbers[frame.instance]


def best_frame(folder: Path, frames: list[Frame], masks: list[Masks2D | None], number: int) -> int:
    """The keyframe that shows most of a thing, best without an end beyond the image."""
    scores = np.full(len(frames), -1.0)
    for i, (frame, found) in enumerate(zip(frames, masks, strict=True)):
        if found is not None:
            shown = thing_image(folder, frame) == number
            is_cut = shown[[0, -1]].any() or shown[:, [0, -1]].any()
            scores[i] = np.count_nonzero(shown) / (4 if is_cut else 1)
    return int(scores.argmax())


def projected(labels: Array, folder: Path, frame: Frame) -> Array:
    """Labels int (N,) of a scene's points as an image int (H, W): each pixel has that of the nearest visible point."""
    config = Config().map.model_copy(update={"depth_min": 0.0, "depth_max": 100.0})
    visible = FixedMap(config, *read_points(folder / "points.npz")).integrate(frame)
    image = np.full(frame.depth.shape, -1)
    columns, rows = np.rint(visible.pixels.T).astype(int)
    image[rows, columns] = labels[visible.rows]
    far, (near_rows, near_columns) = distance_transform_edt(image < 0, return_indices=True)
    return np.where(far < 8, image[near_rows, near_columns], 0)


def panel(rgb: Array, labels: Array, outline: Array) -> Array:
    """Labels over the image, and the thing's true outline in white."""
    large = (rgb.shape[1] * SCALE, rgb.shape[0] * SCALE)
    photo = cv2.resize(rgb, large, interpolation=cv2.INTER_CUBIC)
    out = draw_masks(photo, cv2.resize(labels.astype(np.int32), large, interpolation=cv2.INTER_NEAREST), 0.6)
    mask = cv2.resize(outline.astype(np.uint8), large, interpolation=cv2.INTER_NEAREST)
    contours, _ = cv2.findContours(mask, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(out, contours, -1, (0, 0, 0), 5)
    cv2.drawContours(out, contours, -1, (255, 255, 255), 2)
    return out


def picture(thing: Thing, compared: Compared, folder: Path, source: str, loaded: re0.Loaded, path: Path) -> None:
    """Ground truth, the 2D masks and what came out, in the keyframe that shows most of the thing."""
    frames, masks = loaded.frames[folder], loaded.masks[source][folder]
    at = best_frame(folder, frames, masks, thing.number)
    frame, found = frames[at], masks[at]
    assert found is not None
    truth = thing_image(folder, frame)
    outline = truth == thing.number
    fits = compared.things_of_instances()
    # An instance that fits no thing gets a number, and so a colour, that no thing has.
    numbers = np.where(fits > 0, fits, len(compared.common) + np.arange(len(fits)))
    numbers[0] = 0
    images = [("Ground truth", np.where(np.isin(truth, compared.counted), truth, 0))]
    parts = source.split("+") if found.others else [source]
    images += [(f"2D masks: {name}", masks.labels) for name, masks in zip(parts, found.label_images, strict=False)]
    images.append(("Ours, after all keyframes", projected(numbers[compared.found], folder, frame)))
    page(
        f"{thing.scene}, frame {frame.name}: {name_of(folder, thing.number)}, {thing.size} points, "
        f"best IoU {thing.iou:.2f}: {thing.verdict}",
        [(heading, panel(frame.rgb, labels, outline)) for heading, labels in images],
        2,
        "White: the thing's true outline. Colours of 2D masks mean nothing; in the other panels an instance has the "
        "colour of the thing that it fits.",
        path,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    re0.add_inputs(parser)
    parser.add_argument("--case", action="append", default=[], metavar="SCENE:THING:SENTENCE")
    parser.add_argument("--list", action="store_true", help="print what became of each thing, ours, last source")
    parser.add_argument("--out", type=Path, default=RESULTS / "re0_failures.md")
    args = parser.parse_args()
    scenes = scenes_of(args.scenes, parser)
    loaded = re0.load(scenes, args)
    sources = [s for s in loaded.masks if not args.source or s in args.source]
    if not sources:
        parser.error("no mask source: give --masks, --degrade or --fresh")
    results: dict[tuple[str, str], list[Thing]] = {}
    last: dict[str, Compared] = {}
    for source in sources:
        for variant in VARIANTS:
            last = {folder.name: compare(variant, source, folder, loaded) for folder in scenes}
            results[source, variant.name] = [t for name, c in last.items() for t in verdicts_of(name, c)]
    ours = {(thing.scene, thing.number): thing for thing in results[sources[-1], re0.OURS]}
    if args.list:
        for thing in ours.values():
            print(f"{thing.scene}:{thing.number} {thing.size} points, IoU {thing.iou:.2f}, {thing.verdict}")
    fits = {f.name: fits_in_2d(f, loaded.frames[f], loaded.masks[sources[-1]][f]) for f in scenes}
    explained = sentence_2d(sources[-1], ours.values(), fits)
    cases = []
    for number, case in enumerate(args.case, 1):
        scene, key, sentence = case.split(":", 2)
        if (scene, int(key)) not in ours:
            parser.error(f"--case {case}: {scene} has no thing {key} that counts")
        folder = next(f for f in scenes if f.name == scene)
        path = args.out.with_name(f"{args.out.stem}_{number}.png")
        picture(ours[scene, int(key)], last[scene], folder, sources[-1], loaded, path)
        fit, name = fits[scene], name_of(folder, int(key))
        counted = ", ".join(map(str, fit.fitted[:, int(key)]))
        shown = f"Keyframes that show it: {fit.shown[int(key)]}; with a fitting mask, by source: {counted}."
        cases.append(f"{sentence.strip()} {shown}\n\n![{name} of {scene}]({path.name})\n")
    write_page(args.out, report(results, explained, cases, args))


if __name__ == "__main__":
    main()
