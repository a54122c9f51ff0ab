# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""What a folder of weights must hold and what is said where it does not; images to network input."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from seg3d_core.errors import FrameError, WeightsError
from seg3d_core.perception.huggingface.folder import checked_folder, fingerprint
from seg3d_core.perception.pixels import as_rgb8

NEEDS = "needs transformers and torch: pip install 'seg3d[hub]'"


def test_a_missing_folder_says_how_to_get_one(tmp_path: Path) -> None:
    for folder, complaint in (("", "is empty"), (tmp_path / "none", "no such folder"), (tmp_path, "no config.json")):
        with pytest.raises(WeightsError, match=rf"setting.*{complaint}.*hf download owner/name --local-dir"):
            checked_folder(folder, "setting", "owner/name")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(WeightsError, match="no weights"):
        checked_folder(tmp_path, "setting", "owner/name")
    (tmp_path / "model.safetensors").write_bytes(b"x")
    assert checked_folder(tmp_path, "setting", "owner/name") == tmp_path


def test_a_hubs_name_is_no_folder_and_asks_no_hub() -> None:
    with pytest.raises(WeightsError, match="not fetched by name"):
        checked_folder("facebook/sam-vit-base", "perception.model_dir", "owner/name")


def test_other_weights_have_another_fingerprint(tmp_path: Path) -> None:
    files = [tmp_path / "a", tmp_path / "b"]
    for number, file in enumerate(files):
        file.write_bytes(bytes([number]))
    assert len({fingerprint(files[:1]), fingerprint(files[1:]), fingerprint(files)}) == 3
    assert len(fingerprint(files)) == 8


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 1), (5, 7, 3), (5, 7, 4)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_images_of_one_channel_and_sixteen_bit(shape: tuple[int, ...], dtype: Any) -> None:
    image = np.full(shape, 200 if dtype == np.uint8 else 200 * 257, dtype)
    rgb = as_rgb8(image)
    assert rgb.shape == (5, 7, 3) and rgb.dtype == np.uint8 and (rgb == 200).all()


@pytest.mark.parametrize("wrong", [np.zeros((4, 4, 2), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)])
def test_what_is_no_image_is_refused(wrong: np.ndarray) -> None:
    with pytest.raises(FrameError, match="image"):
        as_rgb8(wrong)


def tiny_detector() -> Any:
    transformers = pytest.importorskip("transformers", reason=NEEDS)
    backbone = transformers.RTDetrResNetConfig(
        embedding_size=8,
        hidden_sizes=[8, 16, 16, 32],
        depths=[1] * 4,
        layer_type="basic",
        out_features=["stage2", "stage3", "stage4"],
    )
    return transformers.RTDetrV2ForObjectDetection(
        transformers.RTDetrV2Config(
            backbone_config=backbone,
            encoder_hidden_dim=32,
            d_model=32,
            encoder_in_channels=[16, 16, 32],
            decoder_in_channels=[32] * 3,
            encoder_ffn_dim=32,
            decoder_ffn_dim=32,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
            decoder_layers=2,
            num_queries=5,
            num_denoising=0,
        )
    )


def test_damaged_and_foreign_weights_say_what_is_wrong(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason=NEEDS)
    safetensors = pytest.importorskip("safetensors.torch", reason=NEEDS)
    from seg3d_core.perception.huggingface.detr import DetrDetector
    from seg3d_core.perception.huggingface.mask2former import Mask2Former

    tiny_detector().save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    whole = file.read_bytes()
    assert DetrDetector(tmp_path).id.startswith("rt_detr_v2-")
    with pytest.raises(WeightsError, match=r"type 'rt_detr_v2'.*mask2former"):
        Mask2Former(tmp_path)

    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(WeightsError, match="cannot be loaded"):
        DetrDetector(tmp_path)

    file.write_bytes(whole)
    tensors = safetensors.load_file(file)
    name = next(n for n in tensors if n.endswith("enc_output.0.weight"))
    safetensors.save_file(
        {("foreign.weight" if n == name else n): t for n, t in tensors.items()}, file, {"format": "pt"}
    )
    with pytest.raises(WeightsError, match=r"lacks 1 tensors .*enc_output.0.weight.*1 that .*foreign\.weight"):
        DetrDetector(tmp_path)

    (tmp_path / "config.json").write_text("{")
    with pytest.raises(WeightsError, match=r"cannot read .*config\.json"):
        DetrDetector(tmp_path)


def test_without_transformers_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch", reason=NEEDS)
    import sys

    from seg3d_core.perception.huggingface import model

    (tmp_path / "config.json").write_text('{"model_type": "sam"}')
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(WeightsError, match=r"transformers.*seg3d\[hub\]"):
        model.load(tmp_path, {"sam": "SamModel"})


@pytest.mark.parametrize(
    ("processor", "settings"),
    [
        ("Mask2Former", {"size": {"shortest_edge": 80, "longest_edge": 133}, "size_divisor": 1}),
        ("GroundingDino", {"size": {"shortest_edge": 80, "longest_edge": 133}}),
        ("RTDetr", {"size": {"height": 64, "width": 64}, "do_normalize": False}),
        ("Sam", {"size": {"longest_edge": 128}, "pad_size": {"height": 128, "width": 128}}),
        (
            "Siglip",
            {"size": {"height": 64, "width": 64}, "image_mean": [0.5] * 3, "image_std": [0.5] * 3, "resample": 3},
        ),
    ],
)
@pytest.mark.parametrize("size", [(60, 80), (81, 60), (37, 120), (160, 90)])
def test_input_is_that_of_the_librarys_own_processor(
    tmp_path: Path, processor: str, settings: dict[str, Any], size: tuple[int, int]
) -> None:
    pytest.importorskip("torch", reason=NEEDS)
    transformers = pytest.importorskip("transformers", reason=NEEDS)
    from seg3d_core.perception.huggingface.images import Preprocessing

    reference = getattr(transformers, f"{processor}ImageProcessorPil", None)
    if reference is None:
        pytest.skip("this transformers has no processor without torchvision")
    rgb = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    expected = reference(**settings)(rgb, return_tensors="pt")["pixel_values"]
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    found = Preprocessing.read(tmp_path, {})(rgb)
    assert found.pixels.shape == expected.shape
    assert np.abs(found.pixels.numpy() - expected.numpy()).max() < 1e-4


def test_padding_lies_right_and_below_and_is_zero() -> None:
    """As in the code that Mask2Former was trained with; transformers' processor stretches to the multiple instead."""
    pytest.importorskip("torch", reason=NEEDS)
    from seg3d_core.perception.huggingface.images import Preprocessing

    prepared = Preprocessing(short_side=80, long_side=133, multiple=32)(np.full((60, 80, 3), 255, np.uint8))
    assert prepared.size == (80, 106) and prepared.pixels.shape == (1, 3, 96, 128)
    assert prepared.valid[0].sum() == 80 * 106 and prepared.valid[0, :80, :106].all()
    assert (prepared.pixels[:, :, prepared.valid[0]] > 1).all() and not prepared.pixels[:, :, ~prepared.valid[0]].any()


def test_square_cells_see_what_stretched_ones_saw() -> None:
    torch = pytest.importorskip("torch", reason=NEEDS)
    from seg3d_core.perception.huggingface.images import Prepared, feature_map, to_image

    # Of each cell its own centre in image pixels: bilinear between centres gives every place its own coordinates.
    prepared = Prepared(torch.zeros(1, 3, 64, 64), (64, 64), (100, 300))
    y, x = ((torch.arange(8) + 0.5) * 8 * side / 64 - 0.5 for side in prepared.image)
    values = torch.stack(torch.meshgrid(y, x, indexing="ij"))
    features = feature_map(values, 8, prepared, "coordinates")
    assert features.stride == pytest.approx(37.5) and features.values.shape == (2, 3, 8)
    assert features.values[0, :2, 0] == pytest.approx([18.25, 55.75], abs=1e-3)
    assert features.values[1, 0] == pytest.approx(np.arange(8) * 37.5 + 18.25, abs=1e-3)
    full = to_image(values, 8, prepared)
    assert full.shape == (2, 100, 300)
    assert full[0, 10:80, 50].numpy() == pytest.approx(np.arange(10, 80), abs=1e-2)
    assert full[1, 50, 30:260].numpy() == pytest.approx(np.arange(30, 260), abs=1e-2)
