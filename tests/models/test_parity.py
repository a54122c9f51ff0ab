# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Our SegDINO3D against every golden array of the published one, and its state dicts against the published keys."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

from golden import find, parameter, published_state, read_json, run_case  # noqa: E402
from parity import ALL_CASES as CASES  # noqa: E402

from seg3d_core.models.architecture import PUBLISHED  # noqa: E402
from seg3d_core.models.published_names import our_name, to_ours, to_published  # noqa: E402
from seg3d_core.models.recover import recover_architecture  # noqa: E402
from seg3d_core.models.segdino3d import SegDino3D  # noqa: E402

GROUPS = "abcdfgk"


@pytest.mark.parametrize("name", sorted(CASES))
def test_every_array_of_a_golden_file_is_ours(name) -> None:
    if find(name) is None:
        pytest.skip("needs the golden numbers that are too big for the repository (../shared/golden/segdino3d)")
    rows, forgotten = run_case(name, CASES[name])
    assert not forgotten
    assert rows
    assert [row for row in rows if not row.holds] == []


def test_no_golden_file_of_these_groups_is_forgotten() -> None:
    listed = {name for name in read_json("index.json") if name[0] in GROUPS}
    assert listed == set(CASES)


@pytest.mark.parametrize(
    ("name", "shape", "first", "total"),
    [
        ("decoder.out_cls.2.weight", (199, 256), -0.02034, -26.031615),
        ("decoder.out_norm.weight", (256,), 0.8921493, 255.41561),
        ("decoder.bbox_embed.0.layers.2.weight", (3, 256), -0.02489616, -0.73519006),
        ("backbone.bn0.bn.running_var", (32,), 1.226297, 30.281247),
        ("backbone.input_conv.0.weight", (32, 3, 3, 3, 262), -0.01910752, -10.445885),
        ("backbone.blocks_tail.block0.i_branch.0.weight", (32, 1, 1, 1, 64), -0.1657108, 0.18062534),
        ("backbone.output_layer.0.running_var", (32,), 0.005948769, 0.26938697),
    ],
)
def test_weights_are_made_as_the_goldens_were(name, shape, first, total) -> None:
    values = parameter(name, shape)
    assert values.flatten()[0].item() == pytest.approx(first, rel=1e-6)
    assert values.double().sum().item() == pytest.approx(total, rel=1e-6)


@pytest.mark.parametrize("configuration", sorted(PUBLISHED))
def test_the_published_state_dict_loads_strictly_and_comes_back(configuration) -> None:
    published = read_json("state_dict_shapes.json")[configuration]
    state = published_state(configuration)
    model = SegDino3D(PUBLISHED[configuration])
    model.load_state_dict(to_ours(state), strict=True)
    assert sum(p.numel() for p in model.parameters()) == published["parameters"]
    assert sum(b.numel() for b in model.buffers()) == published["buffers"]
    back = to_published(model.state_dict())
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], state[name]) for name in state)


@pytest.mark.parametrize("configuration", sorted(PUBLISHED))
def test_the_architecture_is_read_off_the_shapes(configuration) -> None:
    entries = read_json("state_dict_shapes.json")[configuration]["entries"]
    found, notes = recover_architecture({our_name(name): shape for name, (shape, _) in entries.items()})
    assert found == PUBLISHED[configuration]
    assert any("box sizes" in note for note in notes) == found.box_regression
