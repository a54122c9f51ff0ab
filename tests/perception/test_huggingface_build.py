# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""From settings to a mask generator with a hub's model: which settings lead where, and what is said where none can."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from seg3d_core.build import build_masks
from seg3d_core.config import build
from seg3d_core.errors import ConfigError, WeightsError
from seg3d_core.perception import weights
from seg3d_core.types import Camera, Frame

NEEDS = "needs transformers and torch: pip install 'seg3d[hub]'"
pytest.importorskip("torch", reason=NEEDS)
transformers = pytest.importorskip("transformers", reason=NEEDS)


@pytest.mark.parametrize("kind", ["mask2former", "detector", "sam"])
def test_a_folder_that_is_missing_names_the_setting(kind: str, tmp_path: Path) -> None:
    for folder in ("", str(tmp_path / "none"), "owner/name"):
        with pytest.raises(WeightsError, match=r"perception\.model_dir.*hf download"):
            build_masks(build({"perception.masks": kind, "perception.model_dir": folder}))


def d_fine_folder(path: Path) -> Path:
    torch = pytest.importorskip("torch", reason=NEEDS)
    torch.manual_seed(0)
    backbone = transformers.HGNetV2Config(
        stem_channels=[3, 8, 8],
        stage_in_channels=[8, 16, 16, 16],
        stage_mid_channels=[8] * 4,
        stage_out_channels=[16, 16, 16, 32],
        stage_num_blocks=[1] * 4,
        stage_numb_of_layers=[1] * 4,
        embedding_size=8,
        hidden_sizes=[16, 16, 16, 32],
        depths=[1] * 4,
        out_features=["stage2", "stage3", "stage4"],
    )
    config = transformers.DFineConfig(
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
        decoder_n_points=[2, 2, 2],
        num_queries=11,
        num_denoising=0,
    )
    transformers.DFineForObjectDetection(config).save_pretrained(path)
    return path


def test_a_detectors_boxes_become_masks_through_depth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "find", lambda name, folder="": None)
    settings = {"perception.masks": "detector", "perception.model_dir": str(d_fine_folder(tmp_path))}
    generator = build_masks(build({**settings, "perception.min_score": 0.0}))
    rgb = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    depth = np.full((48, 64), 2.0, np.float32)
    depth[12:30, 16:40] = 1.0
    masks = generator.masks(Frame(0, 0.0, rgb, depth, Camera(64, 48, 60, 60, 32, 24), np.eye(4)))
    assert masks is not None and masks.labels.shape == (48, 64) and masks.labels.max(initial=0) == len(masks)
    assert generator.id.startswith("d_fine-") and generator.id.endswith("+geometric-v1")
    with pytest.raises(WeightsError, match=r"perception\.box_segmenter_dir = .*no such folder"):
        build_masks(build({**settings, "perception.box_segmenter_dir": str(tmp_path / "none")}))
    with pytest.raises(WeightsError, match=r"type 'd_fine'; wanted here: sam"):
        build_masks(build({**settings, "perception.box_segmenter_dir": str(tmp_path)}))


def test_grounding_dino_without_prompts_asks_for_some(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "grounding-dino"}')
    (tmp_path / "model.safetensors").write_bytes(b"")
    settings = {"perception.masks": "detector", "perception.model_dir": str(tmp_path)}
    for prompts in ("", " , ,"):
        with pytest.raises(ConfigError, match=r"perception\.prompts is empty"):
            build_masks(build({**settings, "perception.prompts": prompts}))
