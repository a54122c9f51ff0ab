"""How well texts find things, and where "nothing matched" begins: ground-truth instances of scenes, one table.

    python benchmarks/text.py SCENES_DIR               evaluates, writes docs/results/text.md
    python benchmarks/text.py SCENES_DIR --fit         also writes the calibration of the encoder

SCENES_DIR holds scenes with color/, instance/ and instances.json (id -> category, points, is_structure, is_carpet).
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import subprocess
import time
from pathlib import Path

import cv2
import numpy as np

from seg3d_core.config import QueryConfig
from seg3d_core.perception.base import Encoder
from seg3d_core.perception.encoders import conse, open_clip
from seg3d_core.query import calibration
from seg3d_core.query.features import InstanceFeatures
from seg3d_core.query.text import TextQuery
from seg3d_core.types import Array, Cloud, Instances, Snapshot, View

ROOT = Path(__file__).resolve().parents[1]
CALIBRATIONS = ROOT / "seg3d_core" / "query" / "calibrations.json"
MIN_POINTS = 500

# Things that none of the scenes holds; the first line could stand in a home, the second hardly.
ABSENT_AT_HOME = """laptop, printer, microwave, keyboard, telephone, clock, umbrella, backpack, suitcase, toaster,
kettle, shoes, teddy bear, vacuum cleaner, ladder, ironing board, sewing machine, candle, basket, trash can, knife,
book, bottle, mug, whiteboard, aquarium, baby stroller, guitar"""
ABSENT_ELSEWHERE = """elephant, bicycle, car, dog, airplane, banana, pizza, motorcycle, traffic light,
fire extinguisher, tent, skateboard, helmet, tree, fountain, horse, surfboard, wheelchair, hammer, cash register,
vending machine, boat"""


def split_words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",")]


def load_scene(folder: Path, views: int) -> tuple[Snapshot, list[str]]:
    """Ground truth as a snapshot: instances of at least 500 points with their largest views, and their categories."""
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
            found[i].append((len(rows), View(number, box, 1.0)))
    ids = [i for i in kept if found[i]]
    best = {i: tuple(v for _, v in sorted(found[i], key=lambda pair: -pair[0])[:views]) for i in ids}
    used = {v.keyframe for chosen in best.values() for v in chosen}
    count = len(ids)
    boxes = np.zeros((count, 3), np.float32)
    instances = Instances(
        np.array(ids, np.int32), np.ones(count, np.float32), np.zeros(count + 1, np.int64), np.empty(0, np.int64)
    )
    labels = np.empty(0, np.int32)
    pictures = {n: images[n] for n in used}
    snapshot = Snapshot(1, 0.0, Cloud.empty(), instances, labels, boxes, boxes, best, pictures)
    return snapshot, [kept[i] for i in ids]


def rank_scene(
    features: Array, categories: list[str], encoder: Encoder
) -> tuple[Array, Array, list[dict[str, object]]]:
    """Of each category that is present: right at rank 1, in the first three, their chances, the best similarity."""
    names = sorted(set(categories))
    similarity = features @ encoder.encode_text(names).T
    rows = []
    for column, name in enumerate(names):
        right = np.array([c == name for c in categories])[np.argsort(-similarity[:, column])]
        count, total = int(right.sum()), len(right)
        miss = np.prod([max(total - count - i, 0) / (total - i) for i in range(min(3, total))])
        rows.append([right[0], right[:3].any(), count / total, 1 - miss])
    details: list[dict[str, object]] = [{"text": n, "right": bool(r[0])} for n, r in zip(names, rows, strict=True)]
    return np.array(rows, float), similarity.max(0), details


def evaluate(root: Path, encoder: Encoder, config: QueryConfig) -> dict[str, object]:
    """Ranks, similarities of present and absent texts, names, and times of every scene under `root`."""
    ranks, best, present, scene_of, texts = [], [], [], [], []
    scenes = sorted(p.parent for p in root.glob("*/instances.json"))
    if not scenes:
        raise SystemExit(f"no scene with an instances.json under {root}")
    at_home, elsewhere = split_words(ABSENT_AT_HOME), split_words(ABSENT_ELSEWHERE)
    named, seconds, cpu_seconds, instances = [], 0.0, 0.0, 0
    for folder in scenes:
        snapshot, categories = load_scene(folder, config.views)
        query = TextQuery(config, encoder)
        started, cpu_started = time.perf_counter(), time.process_time()
        query.prepare(snapshot)
        seconds += time.perf_counter() - started
        cpu_seconds += time.process_time() - cpu_started
        instances += len(categories)
        named.append([a == b for a, b in zip(query.labels(snapshot), categories, strict=True)])
        features = InstanceFeatures(encoder, config.views, config.crop_growth).of(snapshot)
        scene_ranks, similarity, details = rank_scene(features, categories, encoder)
        absent = at_home + elsewhere
        ranks.append(scene_ranks)
        best.append(np.concatenate([similarity, (features @ encoder.encode_text(absent).T).max(0)]))
        present.append(np.r_[np.ones(len(similarity), bool), np.zeros(len(absent), bool)])
        texts += [str(d["text"]) for d in details] + absent
        scene_of.append(np.full(len(best[-1]), folder.name))
    return {
        "scenes": [s.name for s in scenes],
        "ranks": np.concatenate(ranks),
        "best": np.concatenate(best),
        "present": np.concatenate(present),
        "scene_of": np.concatenate(scene_of),
        "at_home": np.array([t not in elsewhere for t in texts]),
        "named": np.concatenate(named),
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "instances": instances,
    }


def leave_one_out(found: dict[str, object]) -> Array:
    """Probability of each text from a curve that was fitted on the other scenes."""
    best, present, scene_of = (np.asarray(found[k]) for k in ("best", "present", "scene_of"))
    out = np.zeros(len(best))
    for scene in np.unique(scene_of):
        held = scene_of == scene
        slope, intercept = calibration.fit(best[~held], present[~held])
        out[held] = 1 / (1 + np.exp(-(slope * best[held] + intercept)))
    return out


def make_calibration(found: dict[str, object], encoder: Encoder, config: QueryConfig) -> calibration.Calibration:
    """The curve from all scenes; its thresholds from the left-out probabilities, which are the honest ones."""
    best, present = np.asarray(found["best"]), np.asarray(found["present"])
    slope, intercept = calibration.fit(best, present)
    held_out = leave_one_out(found)
    return calibration.Calibration(
        encoder.id,
        round(slope, 6),
        round(intercept, 6),
        calibration.PRECISIONS,
        tuple(round(t, 4) for t in calibration.thresholds(held_out, present)),
        int(present.sum()),
        int((~present).sum()),
        round(calibration.area_under_curve(held_out, present), 4),
        config.views,
        config.crop_growth,
        tuple(str(s) for s in found["scenes"]),  # type: ignore[attr-defined]
        datetime.date.today().isoformat(),
    )


def report(found: dict[str, object], encoder: Encoder, config: QueryConfig) -> str:
    """The page: ranks beside chance, present against absent, the trade-off curve, time."""
    ranks, present = np.asarray(found["ranks"]), np.asarray(found["present"])
    at_home, held_out = np.asarray(found["at_home"]), leave_one_out(found)
    hit1, hit3, chance1, chance3 = ranks.mean(0)
    auc = calibration.area_under_curve(held_out, present)
    auc_home = calibration.area_under_curve(held_out[at_home], present[at_home])
    cut, precision, recall = calibration.precision_recall(held_out, present)
    lines = [
        "# Text queries on ground-truth instances",
        "",
        f"`benchmarks/text.py`, {datetime.date.today().isoformat()}, {machine()}, commit {commit()}.",
        f"Encoder `{encoder.id}`{', approximate' if encoder.approximate else ''}; {config.views} views, crops grown by",
        f"{', '.join(str(g) for g in config.crop_growth)}; scenes {', '.join(str(s) for s in found['scenes'])};",  # type: ignore[attr-defined]
        f"{found['instances']} instances of at least {MIN_POINTS} points; one text per scene and category,",
        f"{len(ranks)} in all; any instance of that category is right.",
        "",
        "| | found | chance |",
        "|---|---|---|",
        f"| hit@1 | {hit1:.2f} | {chance1:.2f} |",
        f"| hit@3 | {hit3:.2f} | {chance3:.2f} |",
        f"| instances whose nearest vocabulary entry is their category | {np.mean(np.asarray(found['named'])):.2f} | |",
        "",
        f"One standard error of the hits is {np.sqrt(hit1 * (1 - hit1) / len(ranks)):.2f}.",
        "",
        f"**Present against absent**, curves fitted on the other scenes: {int(present.sum())} texts that name something",
        f"in the scene, {int((~present).sum())} that do not. Area under the curve {auc:.2f}; {auc_home:.2f} against the absent",
        "things that could stand in a home. Both kinds of text weigh the same:",
        "",
        "| precision asked | threshold | precision | recall |",
        "|---|---|---|---|",
    ]
    for wanted, threshold in zip(calibration.PRECISIONS, calibration.thresholds(held_out, present), strict=True):
        last = int(np.nonzero(cut >= threshold)[0][-1])
        lines.append(f"| {wanted:.2f} | {threshold:.2f} | {precision[last]:.2f} | {recall[last]:.2f} |")
    per_instance = 1000 * float(str(found["seconds"])) / max(int(str(found["instances"])), 1)
    per_instance_cpu = 1000 * float(str(found["cpu_seconds"])) / max(int(str(found["instances"])), 1)
    lines += ["", f"Features: {per_instance:.0f} ms per instance, {per_instance_cpu:.0f} ms of processor time.", ""]
    return "\n".join(lines)


def machine() -> str:
    return f"{platform.machine()} with {os.cpu_count()} cores"


def commit() -> str:
    command = ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenes", type=Path)
    parser.add_argument("--fit", action="store_true", help="write the calibration of this encoder")
    parser.add_argument("--model", default="", help="an open_clip model name; by default the offline stand-in")
    parser.add_argument("--weights", default="", help="its local weights file")
    parser.add_argument("--views", type=int, default=QueryConfig().views)
    parser.add_argument("--growth", type=float, nargs="+", default=QueryConfig().crop_growth)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "results" / "text.md")
    arguments = parser.parse_args()
    config = QueryConfig(views=arguments.views, crop_growth=tuple(arguments.growth))
    encoder: Encoder = open_clip.load(arguments.model, arguments.weights) if arguments.model else conse.load()
    found = evaluate(arguments.scenes, encoder, config)
    if arguments.fit:
        entries = json.loads(CALIBRATIONS.read_text())
        entries[encoder.id] = make_calibration(found, encoder, config).to_json()
        CALIBRATIONS.write_text(json.dumps(entries, indent=2) + "\n")
    page = report(found, encoder, config)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(page)
    print(page)


if __name__ == "__main__":
    main()
