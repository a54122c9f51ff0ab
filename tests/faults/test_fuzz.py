# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Spoiled files of every kind: a sentence or a valid read, within bounds. A sample here; `benchmarks/fuzz.py` does all.

`seeds.json` keeps the cases that failed once.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
SEEDS: dict[str, list[int]] = json.loads((HERE / "seeds.json").read_text())
NEEDED = {"weights (safetensors)": ("torch", "safetensors"), "bag, mcap": ("rosbags",), "bag, sqlite3": ("rosbags",),
          "bag of ROS 1": ("rosbags",), "published features (torch.save)": ("torch",)}  # fmt: skip
FEW, PATIENCE = 30, 5.0


def fuzz():
    if "seg3d_fuzz" not in sys.modules:
        spec = importlib.util.spec_from_file_location("seg3d_fuzz", HERE / "fuzz.py")
        sys.modules["seg3d_fuzz"] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules["seg3d_fuzz"])
    return sys.modules["seg3d_fuzz"]


def test_spoiled_files_are_refused_or_read():
    plan = {
        reader: sorted({*range(FEW), *SEEDS.get(reader, ())})
        for reader in fuzz().names()
        if all(importlib.util.find_spec(library) for library in NEEDED.get(reader, ()))
    }
    outcomes = fuzz().run(plan, seconds=PATIENCE)
    assert not list(fuzz().failures(outcomes.values()))
    for reader, outcome in outcomes.items():
        assert outcome.tried == len(plan[reader]) and outcome.refused > 0, outcome


def test_the_guard_sees_what_is_forbidden(tmp_path):
    """In a process of its own: what watches the interpreter can't be taken away again.

    Each act but the first two is one that no reader may do, done here on purpose: the pickle is this test's own.
    """
    code = """
import os, sys, pickle
sys.path.insert(0, sys.argv[1])
import fuzz
guard, folder = fuzz.Guard(), sys.argv[2]
guard.folder = folder + "/inside"
os.mkdir(guard.folder)
for act in (
    lambda: open(guard.folder + "/a", "w").close(),
    lambda: open(guard.folder + "/a").close(),
    lambda: open(guard.folder + "/../b", "w").close(),
    lambda: os.mkdir(folder + "/c"),
    lambda: os.system("true"),
    # What the guard is to see: a pickle of this test's own making, that does no harm.
    lambda: pickle.loads(pickle.dumps(os.getcwd)),
):
    guard.seen, guard.active = "", True
    act()
    guard.active = False
    print(bool(guard.seen))
"""
    done = subprocess.run([sys.executable, "-c", code, str(HERE), str(tmp_path)], capture_output=True, text=True,
                          check=True, timeout=60)  # fmt: skip
    assert done.stdout.split() == ["False", "False", "True", "True", "True", "True"]
