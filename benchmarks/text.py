# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""How well texts find things, and where "nothing matched" begins: ground-truth instances of scenes, one table.

    python benchmarks/text.py SCENES_DIR               evaluates, writes docs/results/text.md
    python benchmarks/text.py SCENES_DIR --fit         also writes the calibration of the encoder
    python benchmarks/text.py SCENES_DIR --model ViT-B-16 --weights FILE --fit     the same for an open_clip model

SCENES_DIR holds scenes with color/, instance/ and instances.json (id -> category, points, is_structure, is_carpet).
"""

from __future__ import annotations

import argparse
import datetime
import json
import time
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from common import RESULTS, ROOT, about, load, write_page
from homes import scenes_of

from seg3d_core.config import QueryConfig
from seg3d_core.lifting.view_shapes import cells_of
from seg3d_core.perception.base import Encoder
from seg3d_core.perception.encoders import conse, open_clip
from seg3d_core.query import calibration
from seg3d_core.query.text import TextQuery
from seg3d_core.types import Array, Cloud, Instances, Snapshot, View

CALIBRATIONS = ROOT / "seg3d_core" / "query" / "calibrations.json"
MIN_POINTS = 500
# Map points lie about so far apart in these pictures: the shapes of views are made of so many pixels.
POINT_SPACING = 3

# Things that none of the scenes holds; the first line could stand in a home, the second hardly.
ABSENT_AT_HOME = """laptop, printer, microwave, keyboard, telephone, clock, umbrella, backpack, suitcase, toaster,
kettle, shoes, teddy bear, vacuum cleaner, ladder, ironing board, sewing machine, candle, basket, trash can, knife,
book, bottle, mug, whiteboard, aquarium, baby stroller, guitar"""
ABSENT_ELSEWHERE = """elephant, bicycle, car, dog, airplane, banana, pizza, motorcycle, traffic light,
fire extinguisher, tent, skateboard, helmet, tree, fountain, horse, surfboard, wheelchair, hammer, cash register,
vending machine, boat"""


ABSENT_KINDS = ("furniture that stands in another of these homes", "what could stand in a home", "what hardly could")

# Words of one line are never taken for absent beside each other: people use one for the other.
ALIKE = """chair, armchair, stool, bench
sink, washbasin
chest, box, nightstand
bookshelf, shelf
wardrobe, kitchen cabinet
television, tv stand"""


def absent_texts(here: set[str], everywhere: set[str]) -> tuple[list[str], list[str], list[str]]:
    """What is not here: furniture of the other scenes, what could stand in a home, what hardly could."""
    alike = [set(split_words(line)) for line in ALIKE.splitlines()]
    near = here.union(*(group for group in alike if group & here))
    return sorted(everywhere - near), split_words(ABSENT_AT_HOME), split_words(ABSENT_ELSEWHERE)


def split_words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",")]


def load_scene(folder: Path, views: int) -> tuple[Snapshot, list[str], set[str]]:
    """Ground truth as a snapshot: instances of at least 500 points with their largest views, and their categories.

    Third, the categories of everything in the scene, however small.
    """
    info = json.loads((folder / "instances.json").read_text())["instances"]
    kept = {
        int(i): entry["category"]
        for i, entry in info.items()
        if entry["points"] >= MIN_POINTS and not entry["is_structure"] and not entry["is_carpet"]
    }
    found: dict[int, list[tuple[int, View]]] = {i: [] for i in kept}
    images = {int(p.stem): p.read_bytes() for p in (folder / "color").glob("*.jpg")}
    for number in sorted(images):
        labels = cv2.imread(str(folder / "instance" / f"{number}.png"), cv2.IMREAD_UNCHANGED)
        for i in set(np.unique(labels).tolist()) & kept.keys():
            rows, columns = np.nonzero(labels == i)
            box = (float(columns.min()), float(rows.min()), float(columns.max() + 1), float(rows.max() + 1))
            found[i].append((len(rows), View(number, box, 1.0, shape_of(rows, columns, box))))
    ids = [i for i in kept if found[i]]
    best = {i: tuple(v for _, v in sorted(found[i], key=lambda pair: -pair[0])[:views]) for i in ids}
    used = {v.keyframe for chosen in best.values() for v in chosen}
    count = len(ids)
    cloud, truth = load_cloud(folder)
    numbers = np.zeros(max(ids) + 1, np.int64)
    numbers[ids] = np.arange(1, count + 1)
    rows = numbers[np.where(truth <= max(ids), truth, 0)]
    instances = Instances.from_labels(rows, cloud.ids, np.ones(count, np.float32), np.array(ids, np.int32))
    low = np.array([info[str(i)]["box_min"] for i in ids], np.float32)
    high = np.array([info[str(i)]["box_max"] for i in ids], np.float32)
    pictures = {n: images[n] for n in used}
    labels = np.array([0, *ids], np.int32)[rows]
    snapshot = Snapshot(1, 0.0, cloud, instances, labels, (low + high) / 2, high - low, best, pictures)
    return snapshot, [kept[i] for i in ids], {entry["category"] for entry in info.values()}


def shape_of(rows: Array, columns: Array, box: tuple[float, ...]) -> bytes:
    """A view's shape from the instance's pixels, as coarse as map points make it."""
    seen = (rows % POINT_SPACING == 0) & (columns % POINT_SPACING == 0)
    pixels = np.stack([columns[seen], rows[seen]], 1)
    return np.packbits(cells_of(np.zeros(len(pixels)), pixels, np.array([box]))).tobytes()


def load_cloud(folder: Path) -> tuple[Cloud, Array]:
    """The scene's points and the true instance of each, int (N,)."""
    with np.load(folder / "points.npz", allow_pickle=False) as data:
        xyz, truth = data["xyz"], data["instance"].astype(np.int64)
    count = len(xyz)
    blank = np.zeros((count, 3))
    weight = np.ones(count, np.float32)
    return Cloud(np.arange(count), xyz, blank.astype(np.uint8), blank.astype(np.float32), weight), truth


def rank_scene(similarity: Array, categories: list[str], names: list[str]) -> Array:
    """(T, 4): of each name whether an instance of it is first, in the first three, and the chances of both.

    similarity (K, T); categories of the K instances.
    """
    rows = []
    for column, name in enumerate(names):
        right = np.array([c == name for c in categories])[np.argsort(-similarity[:, column], kind="stable")]
        count, total = int(right.sum()), len(right)
        miss = np.prod([max(total - count - i, 0) / (total - i) for i in range(min(3, total))])
        rows.append([right[0], right[:3].any(), count / total, 1 - miss])
    return np.array(rows, float)


@dataclass
class Findings:
    """Over all scenes: (T, 4) ranks by everything and by looks alone; per text its best similarity, as it is and
    standardised over the instances, and its kind; which instances got a name and a right one (K, 2), and whose nearest
    word is right, by similarities as they are and standardised (K, 2); seconds.
    """

    scenes: tuple[str, ...]
    ranks: Array
    ranks_by_looks: Array
    best: Array
    best_standardised: Array
    present: Array
    kinds: Array
    scene_of: Array
    named: Array
    nearest: Array
    seconds: float
    cpu_seconds: float


def evaluate(folders: list[Path], encoder: Encoder, config: QueryConfig) -> Findings:
    """Runs the product's query over every scene."""
    scenes = [load_scene(folder, config.views) for folder in folders]
    everywhere = set().union(*(present for _, _, present in scenes))
    parts: list[tuple[Array, ...]] = []
    seconds = cpu_seconds = 0.0
    for number, (snapshot, categories, here) in enumerate(scenes):
        query = TextQuery(config, encoder)
        started, cpu_started = time.perf_counter(), time.process_time()
        query.prepare(snapshot)
        seconds += time.perf_counter() - started
        cpu_seconds += time.process_time() - cpu_started
        names = sorted(set(categories))
        furniture, home, elsewhere = absent_texts(here, everywhere)
        similarity, _ = query.compare([*names, *furniture, *home, *elsewhere], snapshot)
        groups = (names, furniture, home, elsewhere)
        kinds = np.repeat(range(len(groups)), [len(group) for group in groups])
        labels = query.labels(snapshot)
        named = np.array([(label != "", label == true) for label, true in zip(labels, categories, strict=True)])
        ranks = rank_scene(similarity, categories, names)
        by_looks = rank_scene(query.compare_looks(names, snapshot)[0], categories, names)
        words = query.vocabulary
        by_word = query.compare(words, snapshot)[0]
        truth = np.array(categories)[:, None]
        nearest = np.array(words)[np.stack(nearest_words(by_word), 1)] == truth
        best, standardised = similarity.max(0), standardise(similarity).max(0)
        scene = np.full(len(kinds), number)
        parts.append((ranks, by_looks, best, standardised, kinds == 0, kinds, scene, named, nearest))
    joined = [np.concatenate(column) for column in zip(*parts, strict=True)]
    return Findings(tuple(f.name for f in folders), *joined, seconds, cpu_seconds)


def standardise(similarity: Array) -> Array:
    """(K, T) with mean 0 and deviation 1 over the instances, per text."""
    return (similarity - similarity.mean(0)) / np.maximum(similarity.std(0), 1e-9)


def nearest_words(similarity: Array) -> tuple[Array, Array]:
    """The best text of each instance (K,), by similarities as they are and standardised per text."""
    return similarity.argmax(1), standardise(similarity).argmax(1)


def leave_one_out(found: Findings, best: Array | None = None) -> Array:
    """Probability of each text from a curve that was fitted on the other scenes; `best` (T,) is `found.best`."""
    best, present = found.best if best is None else best, found.present
    out = np.zeros(len(best))
    for scene in np.unique(found.scene_of):
        held = found.scene_of == scene
        slope, intercept = calibration.fit(best[~held], present[~held], calibration.class_weights(found.kinds[~held]))
        out[held] = 1 / (1 + np.exp(-(slope * best[held] + intercept)))
    return out


def make_calibration(found: Findings, encoder: Encoder, config: QueryConfig) -> calibration.Calibration:
    """The curve from all scenes; its thresholds from the left-out probabilities, which are the honest ones."""
    present = found.present
    slope, intercept = calibration.fit(found.best, present, calibration.class_weights(found.kinds))
    held_out = leave_one_out(found)
    return calibration.Calibration(
        encoder.id,
        round(slope, 6),
        round(intercept, 6),
        calibration.PRECISIONS,
        tuple(round(t, 4) for t in calibration.thresholds(held_out, present, calibration.class_weights(found.kinds))),
        int(present.sum()),
        int((~present).sum()),
        round(calibration.area_under_curve(held_out, present), 4),
        config.views,
        config.crop_growth,
        found.scenes,
        datetime.date.today().isoformat(),
        config.background,
    )


def idea_row(name: str, found: Findings, best: Array, nearest: Array) -> str:
    """One row: hits, separation of absent texts by the best similarity `best` (T,), nothing-matched rates, names."""
    held_out = leave_one_out(found, best)
    weight = calibration.class_weights(found.kinds)
    areas = [area_of_kind(kind, held_out, found.kinds) for kind in (1, 2, 3)]
    hit1, hit3 = found.ranks.mean(0)[:2]
    looks1, looks3 = found.ranks_by_looks.mean(0)[:2]
    cells = [f"{hit1:.2f}, {hit3:.2f}", f"{looks1:.2f}, {looks3:.2f}", ", ".join(f"{a:.2f}" for a in areas)]
    cut, precision, recall = calibration.precision_recall(held_out, found.present, weight)
    for wanted in (0.75, 0.8):
        reached = np.nonzero(precision >= wanted)[0]
        if not len(reached):
            cells.append("never")
            continue
        silent = (held_out[found.kinds >= 2] < cut[reached[-1]]).mean()
        cells.append(f"{recall[reached[-1]]:.2f}, {silent:.2f}")
    return f"| {name} | {' | '.join(cells)} | {nearest.mean():.2f} |"


LEFT_OPEN = (
    "Left open: open_clip and SigLIP, whose weights could not be had here.",
    "`python benchmarks/text.py SCENES_DIR --model ViT-B-16 --weights FILE --fit`, or `--siglip FOLDER` for the",
    "model, makes this page for one of them, and the curve without which its scores are not calibrated.",
    "",
)


def report(found: Findings, plain: Findings, encoder: Encoder, config: QueryConfig) -> str:
    """The page: ranks beside chance, present against absent, the trade-off curve, two ideas, time.

    `plain`: the same with pictures as they are.
    """
    ranks, present, kinds = found.ranks, found.present, found.kinds
    held_out = leave_one_out(found)
    weight = calibration.class_weights(kinds)
    hit1, hit3, chance1, chance3 = ranks.mean(0)
    looks1, looks3 = found.ranks_by_looks.mean(0)[:2]
    cut, precision, recall = calibration.precision_recall(held_out, present, weight)
    lines = [
        "# Text queries on ground-truth instances",
        "",
        about(),
        "",
        f"Encoder `{encoder.id}`{', approximate' if encoder.approximate else ''}; {config.views} views, crops grown by",
        f"{', '.join(str(g) for g in config.crop_growth)}, background at {config.background};",
        f"scenes {', '.join(found.scenes)};",
        f"{len(found.named)} instances of at least {MIN_POINTS} points; one text per scene and category,",
        f"{len(ranks)} in all; any instance of that category is right.",
        "",
        "| | found | chance |",
        "|---|---|---|",
        f"| hit@1 | {hit1:.2f} | {chance1:.2f} |",
        f"| hit@3 | {hit3:.2f} | {chance3:.2f} |",
        f"| hit@1, hit@3 by looks alone, sizes not asked | {looks1:.2f}, {looks3:.2f} | |",
        f"| instances that get a name | {found.named[:, 0].mean():.2f} | |",
        f"| of those, named as their category | {found.named[:, 1].sum() / max(found.named[:, 0].sum(), 1):.2f} | |",
        "",
        f"One standard error of the hits is {np.sqrt(hit1 * (1 - hit1) / len(ranks)):.2f}.",
        "",
        f"**Present against absent**, {int(present.sum())} texts that name something in the scene and",
        f"{int((~present).sum())} that do not; curves fitted on the other scenes.",
        "",
        "| absent texts | number | area under the curve |",
        "|---|---|---|",
        *(describe_kind(name, kind, held_out, kinds) for kind, name in enumerate(ABSENT_KINDS, 1)),
        "",
        "Present texts count as much as absent ones, and each kind of absent ones as much as another:",
        "",
        "| precision asked | threshold | precision | recall |",
        "|---|---|---|---|",
    ]
    for wanted, threshold in zip(
        calibration.PRECISIONS, calibration.thresholds(held_out, present, weight), strict=True
    ):
        last = int(np.nonzero(cut >= threshold)[0][-1])
        lines.append(f"| {wanted:.2f} | {threshold:.2f} | {precision[last]:.2f} | {recall[last]:.2f} |")
    per_instance, per_instance_cpu = (1000 * t / len(found.named) for t in (found.seconds, found.cpu_seconds))
    silent = held_out < calibration.thresholds(held_out, present, weight, [config.precision])[0]
    lines += [
        "",
        f"At the default precision ({config.precision}) nothing matched for {silent[kinds >= 2].mean():.2f} of the",
        f"{len(set(split_words(ABSENT_AT_HOME) + split_words(ABSENT_ELSEWHERE)))} words that no scene holds, and for",
        f"{silent[kinds == 1].mean():.2f} of the furniture of other homes; for {silent[present].mean():.2f} of what is",
        "there.",
        "",
        "**Two ideas.** Background: what is not the instance is dimmed in the crop, by 16 x 16 cells of map points.",
        "Standardised: similarities are standardised per text over the instances of a map; no order of instances",
        "changes by that, only what a threshold and the naming of instances see. Recall is the share of present texts",
        "that are answered at that precision, silence the share of the words that no scene holds without an answer.",
        "",
        "| | hit@1, hit@3 | by looks alone | areas under the curve, three kinds | recall, silence at precision 0.75 "
        "| at 0.8 | nearest word right |",
        "|---|---|---|---|---|---|---|",
        idea_row("pictures as they are", plain, plain.best, plain.nearest[:, 0]),
        idea_row("standardised", plain, plain.best_standardised, plain.nearest[:, 1]),
        idea_row(f"background at {config.background}", found, found.best, found.nearest[:, 0]),
        idea_row("both", found, found.best_standardised, found.nearest[:, 1]),
        "",
        f"Features: {per_instance:.0f} ms per instance, {per_instance_cpu:.0f} ms of processor time ({load()}).",
        "",
        *(LEFT_OPEN if encoder.approximate else ()),
    ]
    return "\n".join(lines)


def describe_kind(name: str, kind: int, held_out: Array, kinds: Array) -> str:
    return f"| {name} | {int((kinds == kind).sum())} | {area_of_kind(kind, held_out, kinds):.2f} |"


def area_of_kind(kind: int, held_out: Array, kinds: Array) -> float:
    """Area under the curve of present texts against one kind of absent ones."""
    among = (kinds == 0) | (kinds == kind)
    return calibration.area_under_curve(held_out[among], kinds[among] == 0)


def make_encoder(arguments: argparse.Namespace) -> Encoder:
    if arguments.siglip:
        from seg3d_core.perception.encoders import siglip

        return siglip.load(arguments.siglip)
    return open_clip.load(arguments.model, arguments.weights) if arguments.model else conse.load()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenes", type=Path)
    parser.add_argument("--fit", action="store_true", help="write the calibration of this encoder")
    parser.add_argument("--model", default="", help="an open_clip model name; by default the offline stand-in")
    parser.add_argument("--weights", default="", help="its local weights: a file, a folder, or a tag in the cache")
    parser.add_argument("--siglip", default="", help="a local folder with a SigLIP or CLIP of transformers")
    parser.add_argument("--views", type=int, default=QueryConfig().views)
    parser.add_argument("--growth", type=float, nargs="+", default=QueryConfig().crop_growth)
    parser.add_argument("--background", type=float, default=QueryConfig().background)
    parser.add_argument("--out", type=Path, default=RESULTS / "text.md")
    arguments = parser.parse_args()
    config = QueryConfig(views=arguments.views, crop_growth=tuple(arguments.growth), background=arguments.background)
    encoder = make_encoder(arguments)
    scenes = scenes_of(arguments.scenes, parser)
    found = evaluate(scenes, encoder, config)
    plain = evaluate(scenes, encoder, config.model_copy(update={"background": 1.0}))
    if arguments.fit:
        entries = json.loads(CALIBRATIONS.read_text())
        entries[encoder.id] = make_calibration(found, encoder, config).to_json()
        CALIBRATIONS.write_text(json.dumps(entries, indent=2) + "\n")
    write_page(arguments.out, report(found, plain, encoder, config))


if __name__ == "__main__":
    main()
