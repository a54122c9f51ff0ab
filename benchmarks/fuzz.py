# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Every reader of outside files against spoiled ones: `python benchmarks/fuzz.py [--count 1000]`.

Writes docs/results/fuzzing.md, and the cases that failed into tests/faults/seeds.json, where CI tries them again.
`BEFORE` are the failures of the first thousand cases of each reader, before any was mended.
"""

from __future__ import annotations

import argparse
import json
import sys
import time

from common import RESULTS, ROOT, about, write_page

sys.path.insert(0, str(ROOT / "tests" / "faults"))
import fuzz

SEEDS = ROOT / "tests" / "faults" / "seeds.json"
BEFORE = {
    "saved map": 4,
    "label images (PNG, npy)": 7,
    "TUM folder (text lists)": 35,
    "Replica folder (text, JSON)": 3,
    "bag, sqlite3": 10,
    "bag, mcap": 30,
    "bag of ROS 1": 11,
    "clouds (PLY, npz)": 16,
    "predictions (npz)": 88,
    "predictions (ScanNet's text)": 12,
    "ground truth (npz, text, JSON)": 37,
    "settings (YAML)": 9,
    "ScanNet annotation (JSON, PLY)": 2,
    "training's lists, labels, settings (text, TSV, JSON)": 116,
    "prepared scenes (npz)": 2,
    "published features (torch.save)": 4,
    "folder of a 2D model (JSON)": 4,
    "packages of weights (wheel, tar.gz)": 2,
}
ABOUT = """# Spoiled files

{about}

Every reader of outside files gets a small good sample with one to three changes: flipped bits, truncation, stretches
deleted, zeroed, inserted, doubled or moved, whole numbers and sizes set to extremes, headers edited, numbers and words
in text replaced, members of zips renamed (`../../evil`), left out, doubled or made a bomb, arrays of other types,
shapes and values, chunks of PNGs edited under right checksums, settings that name one list in another a trillion times.

A case passes when the file is read (and used as the program does: a map is segmented and mapped on, frames are fused,
predictions evaluated) or refused with a `Seg3DError` of bounded length, in under {seconds:g} s of processor time and
{memory} MB above the good sample, with nothing written outside its folder, no program and no pickle executed and no
connection opened (watched by an audit hook).
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1000, help="cases of each reader")
    parser.add_argument("--seconds", type=float, default=1.0, help="of processor time for one file")
    options = parser.parse_args()
    started, rows, outcomes = time.monotonic(), [], []
    for name in fuzz.names():
        (outcome,) = fuzz.run({name: range(options.count)}, seconds=options.seconds).values()
        outcomes.append(outcome)
        rows.append(
            f"| {name} | {outcome.tried} | {outcome.read} | {outcome.refused} | {len(outcome.failures)} | "
            f"{BEFORE.get(name, 0)} | {outcome.slowest:.2f} | {outcome.largest_mb:.0f} |"
        )
        print(rows[-1], flush=True)
    failed = list(fuzz.failures(outcomes))
    for line in failed:
        print(line)
    total = sum(outcome.tried for outcome in outcomes)
    text = [
        ABOUT.format(about=about(with_load=True), seconds=options.seconds, memory=fuzz.MEMORY >> 20),
        f"{total} cases of {len(outcomes)} readers, seed {fuzz.SEED}, {sum(BEFORE.values())} failed at first, "
        f"{len(failed)} now; {(time.monotonic() - started) / 60:.0f} minutes.\n",
        "| reader | tried | read | refused | failed | failed before mending | slowest, s | most memory, MB |",
        "|---|---|---|---|---|---|---|---|",
        *rows,
        *(f"\n- {line}" for line in failed),
        "",
        MENDED,
    ]
    write_page(RESULTS / "fuzzing.md", "\n".join(text))
    _keep(outcomes)  # after the page: it says whether the sources are as committed


MENDED = """What was mended:

| what was found | where |
|---|---|
| a PNG chunk that claims gigabytes, a million pixels a side: OpenCV takes the memory | `image_file.py` looks first |
| headers of `.npy` that numpy trips over, 29 TB asked for; members of a zip that are no arrays | `array_file.py` |
| a name with a zero byte in a TUM list | `sources/images.py`: the frame is dropped |
| quaternions so long that their norm is infinite | `sources/trajectory.py` leaves them out |
| a bag whose topics or first messages can't be read, or without a message of an image topic | `sources/rosbag.py` |
| YAML: numbers of thousands of digits, impossible dates, thousands of brackets | `config/values.py` |
| YAML: lists within lists, a trillion words where an error quotes them | `config/values.py` quotes 200 characters |
| `cam_params.json`: brackets without end, a size of 1e400 | `sources/replica.py` |
| packages compressed in ways that Python lacks, or encrypted | `perception/weights.py` |
| ids of instances that are no whole numbers, a version of -1 in a map | `segmenters/`, `scene.py` |
| segments of vertices beyond 64 bits | `training/readers_scannet.py` |
| numbers of superpoints up to half a billion in a map: 4 GB asked for to check them | `segmenters/re0/growing.py` |
| lists of scenes that are no UTF-8, or name `../../evil`, as which files would be prepared | `training/files.py` |
| brackets without end in settings of a model or of a training run | `huggingface/folder.py`, `training/config.py` |
| prepared scenes whose format is a complex number or a text | `training/readers_cache.py` |
| errors of 150 000 characters, or of 30 MB, that quote the file | `errors.printable` |
"""


def _keep(outcomes: list[fuzz.Outcome]) -> None:
    seeds = json.loads(SEEDS.read_text())
    for outcome in outcomes:
        if outcome.failures:
            seeds[outcome.reader] = sorted({*seeds.get(outcome.reader, ()), *(f["case"] for f in outcome.failures)})
    SEEDS.write_text(json.dumps(seeds, indent=1) + "\n")


if __name__ == "__main__":
    main()
