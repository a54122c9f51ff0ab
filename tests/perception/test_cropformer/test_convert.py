# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Swin Mask2Formers to transformers and back: every key, and the same numbers."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from seg3d_core.cli import models as commands  # noqa: E402
from seg3d_core.errors import WeightsError  # noqa: E402
from seg3d_core.perception.cropformer import checkpoint, convert  # noqa: E402
from seg3d_core.perception.cropformer.network import EntityNetwork, NetworkShape  # noqa: E402
from seg3d_core.perception.cropformer.swin import SwinShape  # noqa: E402

SMALL = NetworkShape(
    SwinShape(16, (2, 2, 3, 2), (1, 2, 4, 8), 3),
    width=64, mask_width=32, encoder_inner=96, encoder_depth=2, queries=9, inner=80, depth=4,
)  # fmt: skip


def shapes(shape: NetworkShape) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        return {n: tuple(t.shape) for n, t in EntityNetwork(shape).state_dict().items()}


@pytest.fixture(scope="module")
def state(recipe) -> dict[str, np.ndarray]:
    return recipe.state(shapes(SMALL))


def test_there_and_back_is_the_same(state) -> None:
    back = convert.to_published(convert.to_hub(state))
    assert back.keys() == state.keys()
    for name, value in state.items():
        np.testing.assert_array_equal(back[name], value)


@pytest.mark.parametrize(
    "backbone", [SwinShape(), SwinShape(192, (2, 2, 18, 2), (6, 12, 24, 48))], ids=["tiny", "large"]
)
def test_every_published_key_has_a_place_and_returns(backbone: SwinShape) -> None:
    names = shapes(NetworkShape(backbone, queries=100))
    stand_ins = {n: np.zeros((s[0], *(1 for _ in s[1:])), np.float32) for n, s in names.items()}
    there = convert.to_hub(stand_ins)
    assert convert.to_published(there).keys() == names.keys()


def test_transformers_gives_the_same_numbers(state, tmp_path) -> None:
    transformers = pytest.importorskip("transformers", reason="compares with transformers' Mask2Former")
    source, folder = tmp_path / "swin.pth", tmp_path / "hub"
    torch.save({"model": {n: torch.from_numpy(a) for n, a in state.items()}, "iteration": 1}, source)
    assert commands.convert_entity(source, folder) == 0
    model = transformers.Mask2FormerForUniversalSegmentation.from_pretrained(folder, local_files_only=True).eval()
    network = checkpoint.load_network(source)
    images = torch.from_numpy(np.random.default_rng(0).normal(size=(1, 3, 96, 160)).astype(np.float32))
    with torch.no_grad():
        theirs = model(images, output_hidden_states=True)
        ours = network(images)
        maps = network.backbone(images)
    for found, wanted in zip(maps, theirs.encoder_hidden_states, strict=True):
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-4)
    torch.testing.assert_close(ours.features, theirs.pixel_decoder_last_hidden_state, rtol=0, atol=1e-4)
    torch.testing.assert_close(ours.class_logits[None], theirs.class_queries_logits, rtol=0, atol=1e-4)
    torch.testing.assert_close(ours.mask_logits()[:, 0][None], theirs.masks_queries_logits, rtol=0, atol=1e-3)
    back = tmp_path / "back.pth"
    assert commands.convert_entity(folder, back) == 0
    again = checkpoint.read_state(back)
    assert again.keys() == state.keys()
    for name, value in state.items():
        np.testing.assert_array_equal(again[name], value)


def test_a_true_cropformer_is_refused(models) -> None:
    keys = models["cropformer_swin_tiny_3x"]
    with pytest.raises(WeightsError, match="true CropFormer"):
        convert.to_hub({n: np.zeros(s, np.float32) for n, s in keys.items() if ".make_3d." in n})


def test_a_hornet_is_refused(recipe, models, tmp_path) -> None:
    pytest.importorskip("transformers", reason="the command looks for transformers first")
    source = tmp_path / "hornet.pth"
    state = recipe.state(models["reduced_mask2former_hornet"])
    torch.save({n: torch.from_numpy(a) for n, a in state.items()}, source)
    with pytest.raises(WeightsError, match="no HorNet"):
        commands.convert_entity(source, tmp_path / "hub")
    assert not (tmp_path / "hub").exists()


def test_what_has_no_place_is_listed(state) -> None:
    with pytest.raises(WeightsError, match=r"1 tensors.*backbone\.extra"):
        convert.to_hub({**state, "backbone.extra": np.zeros(3)})
    with pytest.raises(WeightsError, match=r"1 tensors.*model\.extra"):
        convert.to_published({**convert.to_hub(state), "model.extra": np.zeros(3)})
    there = convert.to_hub(state)
    there.pop("model.transformer_module.decoder.layers.2.self_attn.k_proj.bias")
    with pytest.raises(WeightsError, match=r"layers\.2\.self_attn\.in_proj_bias without all of q, k, v"):
        convert.to_published(there)


def test_missing_keys_are_listed(state, tmp_path) -> None:
    pytest.importorskip("transformers", reason="counts against transformers' modules")
    source, short = tmp_path / "short.pth", dict(state)
    short.pop("backbone.layers.1.blocks.0.norm2.bias")
    torch.save({n: torch.from_numpy(a) for n, a in short.items()}, source)
    with pytest.raises(WeightsError, match=r"1 tensors missing .*layernorm_after\.bias"):
        commands.convert_entity(source, tmp_path / "hub")


def test_nothing_is_overwritten(state, tmp_path) -> None:
    pytest.importorskip("transformers", reason="the command looks for transformers first")
    (tmp_path / "there.txt").write_text("mine")
    with pytest.raises(WeightsError, match="is there already"):
        commands.convert_entity(tmp_path / "swin.pth", tmp_path)
