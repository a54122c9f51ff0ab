# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""The keys and shapes of both U-Nets; their numbers are compared in `test_parity.py`."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "benchmarks"))

from golden import read_json  # noqa: E402

from seg3d_core.models.backbones import MinkUNet, SpConvUNet  # noqa: E402


@pytest.mark.parametrize(
    ("configuration", "kind", "channels"),
    [("scannet200", MinkUNet, 259), ("baseline200", MinkUNet, 3), ("scannetv2", SpConvUNet, 262)],
)
def test_names_and_shapes_are_the_published_ones(configuration: str, kind: type, channels: int) -> None:
    published = {
        key.removeprefix("backbone."): tuple(shape)
        for key, (shape, _) in read_json("state_dict_shapes.json")[configuration]["entries"].items()
        if key.startswith("backbone.")
    }
    backbone = kind(channels)
    state = backbone.state_dict()
    assert {key: tuple(value.shape) for key, value in state.items()} == published
    ramp = {
        key: torch.arange(value.numel(), dtype=value.dtype).reshape(value.shape).add_(i)
        for i, (key, value) in enumerate(state.items())
    }
    backbone.load_state_dict(ramp)
    assert all(torch.equal(value, ramp[key]) for key, value in backbone.state_dict().items())
