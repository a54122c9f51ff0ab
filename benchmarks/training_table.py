# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""The rows of Table 2 that training/runs/table2.sh has trained, as a page with the learning curves.

    python benchmarks/training_table.py OUT [--run FOLDER]

OUT is that script's folder; `--run` a longer run whose evaluations are shown besides, with
the box filter. Writes docs/results/training.md
and, where matplotlib is installed, training.png beside it (or `--out`).
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from common import RESULTS, about, table, write_page

from training.journal import read_journal
from training.readers_cache import read_split

ROWS = {
    "none": ("–", "–", "–", "–"),
    "image": ("yes", "–", "–", "–"),
    "object": ("–", "yes", "–", "–"),
    "both": ("yes", "yes", "–", "–"),
    "modulation": ("yes", "yes", "yes", "–"),
    "filter": ("yes", "yes", "yes", "yes"),
}
"""Image features, object queries, box modulation, box filter."""
PROTOCOLS = {"val": ("scannet200", "agnostic-scannet200"), "house": ("agnostic-scannet200",)}


def results(out: Path) -> Iterator[tuple[str, str, dict[str, dict[str, Any]]]]:
    """Row, seed, and by split what `training.evaluate` wrote."""
    for row in ROWS:
        seeds = sorted({path.name.split("-")[1] for path in out.glob(f"results/{row}-*-val")}, key=int)
        for seed in seeds:
            paths = {split: out / "results" / f"{row}-{seed}-{split}" / "results.json" for split in PROTOCOLS}
            yield row, seed, {split: json.loads(path.read_text()) for split, path in paths.items() if path.is_file()}


def triple(result: Mapping[str, Any] | None, protocol: str) -> str:
    """AP / AP50 / AP25 in percent."""
    if result is None:
        return "–"
    found = next(r for r in result["results"] if r["protocol"] == protocol and r["duplicates"])
    values = (found[name] for name in ("ap", "ap50", "ap25"))
    return " / ".join("–" if value is None or math.isnan(value) else f"{100 * value:.1f}" for value in values)


HEAD = (
    "row", "image features", "object queries", "modulation", "box filter", "seed", "rooms, by class",
    "rooms, class-agnostic", "homes, class-agnostic",
)  # fmt: skip


def table_of_runs(out: Path) -> str:
    lines = []
    for row, seed, found in results(out):
        cells = [str(list(ROWS).index(row) + 1), *ROWS[row], seed]
        cells += [triple(found.get(split), protocol) for split, names in PROTOCOLS.items() for protocol in names]
        lines.append(cells)
    return table(HEAD, lines)


def setting(out: Path) -> list[str]:
    """What all rows share, out of the first one's settings and journal."""
    folder = next(path.parent for path in sorted(out.glob("*/config.json")))
    config = json.loads((folder / "config.json").read_text())
    root, records = Path(config["data"]["root"]), read_journal(folder)
    counts = {split: len(read_split(root, split)) for split in (config["data"]["train_split"], "val", "house")}
    train, val, house = counts.values()
    return [
        f"{train} generated rooms to train on, {val} others and {house} furnished homes to test on, which no training "
        f"saw; 2D features of {config['data']['features']}. Each row: recipe `{config['recipe']}`, "
        f"{config['run']['epochs']} epochs, {records[-1]['step']} steps of {config['data']['batch_size']} scene."
    ]


def curves(out: Path, run: Path | None) -> list[str]:
    """The picture's data as a table: mean loss of every few epochs."""
    lines = ["| row | seed | mean loss of epochs, first to last |", "|---|---|---|"]
    for folder in sorted(path.parent for path in out.glob("*/log.jsonl")):
        row, _, seed = folder.name.partition("-")
        losses = [record["losses"]["total"] for record in read_journal(folder)]
        lines.append(f"| {row} | {seed} | {', '.join(f'{loss:.1f}' for loss in losses)} |")
    if run is not None:
        lines += ["", "Of a longer run of row 6, on rooms that it did not train on:", ""]
        lines += ["| epoch | step | mean loss | AP / AP50 / AP25 | class-agnostic |", "|---|---|---|---|---|"]
        for record in read_journal(run):
            if "evaluation" in record:
                found = record["evaluation"]
                scores = (
                    " / ".join(f"{100 * found[f'{name}/{k}']:.1f}" for k in ("ap", "ap50", "ap25"))
                    for name in PROTOCOLS["val"]
                )
                loss = record["losses"]["total"]
                lines.append(f"| {record['epoch']} | {record['step']} | {loss:.1f} | {' | '.join(scores)} |")
    return lines


def draw(out: Path, run: Path | None, path: Path) -> bool:
    """Losses of all rows, and AP50 of the longer run where there is one; False where matplotlib is missing."""
    try:
        import matplotlib as mpl
    except ImportError:
        return False
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    count = 1 if run is None else 2
    figure, (axes,) = plt.subplots(1, count, figsize=(5.5 * count, 4), layout="constrained", squeeze=False)
    for folder in sorted((p.parent for p in out.glob("*/log.jsonl")), key=lambda p: p.name):
        records = read_journal(folder)
        axes[0].plot([r["step"] for r in records], [r["losses"]["total"] for r in records], label=folder.name)
    axes[0].set(xlabel="step", ylabel="mean loss of an epoch", title="rows of Table 2 (row-seed)", yscale="log")
    axes[0].legend(fontsize=8)
    if run is not None:
        found = [record for record in read_journal(run) if "evaluation" in record]
        for name, label in (("scannet200", "by class"), ("agnostic-scannet200", "class-agnostic")):
            values = [100 * record["evaluation"][f"{name}/ap50"] for record in found]
            axes[1].plot([record["step"] for record in found], values, marker="o", label=label)
        axes[1].set(xlabel="step", ylabel="AP50 in percent", title="a longer run of row 6, on unseen rooms")
        axes[1].set_ylim(bottom=0)
        axes[1].legend(fontsize=8)
    figure.savefig(path, dpi=110)
    return True


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("rows", type=Path)
    parser.add_argument("--run", type=Path)
    parser.add_argument("--note", default="", help="what a reader should know besides")
    parser.add_argument("--out", type=Path, default=RESULTS / "training.md")
    options = parser.parse_args()
    picture = options.out.with_suffix(".png")
    has_picture = draw(options.rows, options.run, picture)
    lines = ["# The rows of Table 2, at the size of a CPU", ""]
    lines += [about(), "", "The runs are those of `training/runs/table2.sh CACHE FEATURES OUT`."]
    lines += ["AP / AP50 / AP25 in percent, ScanNet's protocol.", "", *setting(options.rows), options.note, ""]
    lines += [table_of_runs(options.rows), ""]
    lines += ["## Learning curves", "", *([f"![Learning curves]({picture.name})", ""] if has_picture else [])]
    lines += curves(options.rows, options.run)
    write_page(options.out, "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
