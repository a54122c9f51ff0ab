# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Is our SegDINO3D the published one, to the last number? Ours against the golden arrays of the release.

    python benchmarks/parity.py [--json FILE]

Writes docs/results/parity.md. Golden files that are not in the repository are looked for in `../shared`.
"""

from __future__ import annotations

import argparse
import datetime
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from common import RESULTS, commit, machine
from golden import Row, find, read_json, run_case
from parity_backbones import BACKBONE_CASES
from parity_cases import CASES

from seg3d_core.models.architecture import PUBLISHED
from seg3d_core.models.published_names import to_published
from seg3d_core.models.segdino3d import SegDino3D

_GROUPS = {
    "a": "decoder",
    "b": "encoding and boxes",
    "c": "sparse layers and U-Nets",
    "d": "post-processing",
    "f": "whole model",
    "g": "voxels and pooling",
    "k": "superpoints of a mesh",
}
ALL_CASES = dict(sorted((CASES | BACKBONE_CASES).items()))
_HEADER = """# Parity: our SegDINO3D against the published release

- date: {date}
- machine: {machine}, PyTorch {torch}, 1 thread
- commit: {commit}
- golden numbers: the release on a CPU, with weights made by name; the published weights themselves were not at hand
- command: `python benchmarks/parity.py`

Integers, mask bits and indices must be equal; floats may differ by the share of the largest value that two correct
implementations differ by, measured when the numbers were made, with room. Scores of predictions are compared as they
are. Predictions are matched by query and label.

| what | file | arrays | exact ones | unequal entries | largest difference of floats, of what is allowed | |
|---|---|---|---|---|---|---|
"""


def table(name: str, rows: Sequence[Row]) -> str:
    exact = [row for row in rows if row.kind == "exact"]
    floats = [row for row in rows if row.allowed > 0]
    verdict = "holds" if all(row.holds for row in rows) else "**differs**"
    distance = "no floats"
    if floats:
        worst = max(floats, key=lambda row: row.difference / row.allowed)
        distance = f"{worst.difference:.1e} of {worst.allowed:.0e} (`{worst.array}`)"
    unequal = sum(int(row.difference) for row in exact)
    return f"| {_GROUPS[name[0]]} | {name} | {len(rows)} | {len(exact)} | {unequal} | {distance} | {verdict} |"


def state_dicts() -> list[str]:
    """Every published configuration's keys and sizes against those of our model."""
    lines = ["", "| configuration | keys | parameters | published | |", "|---|---|---|---|---|"]
    for name, known in read_json("state_dict_shapes.json").items():
        with torch.device("meta"):
            model = SegDino3D(PUBLISHED[name])
        ours = {key: list(value.shape) for key, value in to_published(model.state_dict()).items()}
        count = sum(parameter.numel() for parameter in model.parameters())
        is_equal = ours == {key: shape for key, (shape, _) in known["entries"].items()}
        verdict = "equal" if is_equal and count == known["parameters"] else "**differs**"
        lines.append(f"| {name} | {len(ours)} | {count:,} | {known['parameters']:,} | {verdict} |")
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="every array's difference")
    arguments = parser.parse_args()
    # As the golden numbers were made. Several would mostly wait for each other on small products.
    torch.set_num_threads(1)
    here = [name for name in ALL_CASES if find(name) is not None]
    found = {name: run_case(name, ALL_CASES[name])[0] for name in here}
    lines = [table(name, rows) for name, rows in found.items()]
    lines += state_dicts()
    if missing := sorted(set(ALL_CASES) - set(here)):
        lines += ["", f"Not at hand: {', '.join(missing)}."]
    header = _HEADER.format(date=datetime.date.today(), machine=machine(), torch=torch.__version__, commit=commit())
    (RESULTS / "parity.md").write_text(header + "\n".join(lines) + "\n")
    rows = [row for each in found.values() for row in each]
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(row) for row in rows], indent=1))
    print(f"{len(rows)} arrays of {len(found)} files, {sum(not row.holds for row in rows)} beyond what is allowed")
    return int(not all(row.holds for row in rows))


if __name__ == "__main__":
    raise SystemExit(main())
