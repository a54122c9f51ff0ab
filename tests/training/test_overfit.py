# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""The whole way on one generated room: made, scanned, fused to the core's map, and learned by heart."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

pytest.importorskip("torch")
pytest.importorskip("safetensors")
pytest.importorskip("embreex", reason="generated rooms need a ray caster")

from training import prepare
from training.config import build
from training.engine import Trainer
from training.journal import read_journal
from training.processes import Processes


def run(*arguments: object) -> None:
    result = CliRunner().invoke(prepare.app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output


@pytest.mark.slow
def test_the_small_network_learns_a_generated_room_by_heart(tmp_path: Path) -> None:
    """By its colours and its shape alone, so that no weights of a 2D model are asked for: AP50 above 0.95."""
    raw, cache = tmp_path / "raw", tmp_path / "cache"
    run("rooms", raw, "--train", 1, "--val", 0, "--frames", 6, "--walk-stride", 8, "--workers", 1)
    run("scenes", raw, cache, "--frame-stride", 1, "--points", "map", "--keep-voxel", 0.04, "--workers", 1)
    alone = {f"{group}.{name}": False for group in ("data", "model") for name in ("image_features", "object_queries")}
    settings = {
        **alone, "data.root": str(cache), "data.val_split": "train", "data.batch_size": 1, "data.query_dropout": 0.0,
        "data.augment.enabled": False, "run.epochs": 120, "run.evaluate_every": 120, "run.save_every": 120,
        "run.picture_every": 0, "run.device": "cpu", "run.tensorboard": False, "run.threads": 1,
    }  # fmt: skip
    Trainer(build(settings, "small"), tmp_path / "run", Processes.join("cpu")).run()
    records = read_journal(tmp_path / "run")
    found = records[-1]["evaluation"]
    assert records[-1]["losses"]["total"] < records[0]["losses"]["total"] / 5
    assert found["scannet200/ap50"] > 0.95 and found["agnostic-scannet200/ap50"] > 0.95, json.dumps(found)
