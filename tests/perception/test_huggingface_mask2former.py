# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Mask2Former from a local folder: what comes out against the network's own heads, and what a bad folder says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from seg3d_core.errors import ConfigError, FrameError
from seg3d_core.types import Camera, Frame

torch = pytest.importorskip("torch", reason="needs torch: pip install 'seg3d[hub]'")
transformers = pytest.importorskip("transformers", reason="needs transformers: pip install 'seg3d[hub]'")

from seg3d_core.perception.boxes import boxes_of  # noqa: E402
from seg3d_core.perception.huggingface.mask2former import Mask2Former  # noqa: E402

QUERIES, WIDTH = 7, 32
PICTURE = np.kron(np.random.default_rng(2).integers(0, 256, (4, 4, 3)), np.ones((24, 32, 1))).astype(np.uint8)


def tiny_config(labels: int = 1) -> Any:
    swin = transformers.SwinConfig(
        image_size=64,
        patch_size=4,
        embed_dim=16,
        depths=[1] * 4,
        num_heads=[1, 2, 4, 8],
        window_size=4,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    return transformers.Mask2FormerConfig(
        backbone_config=swin,
        feature_size=WIDTH,
        mask_feature_size=WIDTH,
        hidden_dim=WIDTH,
        encoder_feedforward_dim=64,
        dim_feedforward=64,
        encoder_layers=1,
        decoder_layers=3,
        num_attention_heads=4,
        num_queries=QUERIES,
        id2label={i: f"thing {i}" for i in range(labels)},
        label2id={f"thing {i}": i for i in range(labels)},
    )


def randomised(network: Any) -> Any:
    """Norms of unit weight would hide a norm that is left out."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim == 1:
                parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
        # Far apart, so that queries differ in where their masks are and in how sure they are.
        network.model.transformer_module.queries_features.weight.mul_(3)
        network.class_predictor.weight.mul_(8)
        for parameter in network.model.transformer_module.decoder.mask_predictor.mask_embedder.parameters():
            parameter.mul_(10 if parameter.ndim > 1 else 0.1)
        # What all pixels have in common would make every mask the whole image or nothing.
        decoder = network.model.pixel_level_module.decoder
        seen = network.model.pixel_level_module(torch.from_numpy(PICTURE[None]).permute(0, 3, 1, 2) / 60.0 - 2)
        decoder.mask_projection.bias -= seen.decoder_last_hidden_state.mean((0, 2, 3))
    return network.eval()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(3)
    path = tmp_path_factory.mktemp("mask2former")
    randomised(transformers.Mask2FormerForUniversalSegmentation(tiny_config(3))).save_pretrained(path)
    settings = {"size": {"shortest_edge": 96, "longest_edge": 200}, "size_divisor": 32}
    (path / "preprocessor_config.json").write_text(json.dumps(settings))
    return path


def frame_of(rgb: np.ndarray) -> Frame:
    height, width = rgb.shape[:2]
    camera = Camera(width, height, 100, 100, width / 2, height / 2)
    return Frame(0, 0.0, rgb, np.ones((height, width), np.float32), camera, np.eye(4))


def picture(height: int, width: int) -> np.ndarray:
    return np.ascontiguousarray(PICTURE[:height, :width])


def test_queries_masks_and_features_are_those_of_the_heads(folder: Path) -> None:
    model = Mask2Former(folder, min_score=0.05, scoring="plain")
    queries, pixels = model.detect(frame_of(picture(90, 126)))
    masks = queries.masks
    assert masks is not None and len(masks) > 1
    assert model.names == ("thing 0", "thing 1", "thing 2")
    assert queries.features.shape == (len(masks), WIDTH) and queries.encoder_id == model.id
    assert queries.boxes == pytest.approx(boxes_of(masks)) and np.unique(masks.labels).tolist() == [
        *([0] if (masks.labels == 0).any() else []),
        *range(1, len(masks) + 1),
    ]
    # 90x126 becomes 96x134, in 96x160 with padding; 24 x 34 cells of stride 4 hold the image.
    assert pixels.values.shape == (WIDTH, 24, 34)
    assert pixels.stride == pytest.approx(4 * 126 / 134)
    # By hand: the class head on a feature gives its label, the mask head times the pixels its mask.
    network = transformers.Mask2FormerForUniversalSegmentation.from_pretrained(folder, local_files_only=True).eval()
    with torch.no_grad():
        feature = torch.from_numpy(queries.features)
        p = network.class_predictor(feature).softmax(-1)[:, :-1]
        assert p.argmax(-1).tolist() == queries.labels.tolist()
        embedded = network.model.transformer_module.decoder.mask_predictor.mask_embedder(feature)
        logits = torch.einsum("qc,chw->qhw", embedded, torch.from_numpy(pixels.values))
    sure = p.max(-1).values
    assert (sure.diff() <= 1e-5).all(), "best first"
    right = []
    for k in range(len(masks)):
        inside = cells(masks.labels == k + 1, 24, 34)
        right.extend(logits[k].numpy()[inside] > 0)
        assert 0 <= masks.scores[k] <= sure[k] + 1e-4
    assert len(right) > 100 and np.mean(right) > 0.95


def cells(mask: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """The mask at the centres of `rows` x `columns` cells over it."""
    y = ((np.arange(rows) + 0.5) * mask.shape[0] / 24).astype(int).clip(max=mask.shape[0] - 1)
    x = ((np.arange(columns) + 0.5) * 4 * mask.shape[1] / 134).astype(int).clip(max=mask.shape[1] - 1)
    return mask[np.ix_(y, x)]


def test_a_pixel_belongs_to_the_surest_query_that_holds_it(folder: Path) -> None:
    few, many = (Mask2Former(folder, least, "plain").masks(frame_of(picture(64, 64))) for least in (0.2, 0.02))
    assert len(few) <= len(many)
    for k in range(len(few)):
        # What a lower threshold adds lies behind what was there.
        inside = many.labels[few.labels == k + 1]
        assert len(np.unique(inside)) == 1 and (many.labels == inside[0]).sum() == (few.labels == k + 1).sum()


def test_nothing_found_is_no_error(folder: Path) -> None:
    model = Mask2Former(folder, min_score=0.73)
    queries, _ = model.detect(frame_of(picture(48, 48)))
    assert queries.masks is not None and queries.features.shape == (len(queries.masks), WIDTH)
    assert len(queries.masks) == 0 and queries.masks.labels.shape == (48, 48) and not queries.masks.labels.any()
    assert queries.boxes.shape == (0, 4)


@pytest.mark.parametrize("shape", [(37, 53, 3), (1, 7, 3), (33, 40), (33, 40, 1), (300, 20, 3)])
def test_images_of_any_size_and_one_channel(folder: Path, shape: tuple[int, ...]) -> None:
    rgb = np.random.default_rng(1).integers(0, 256, shape, np.uint8)
    masks = Mask2Former(folder, min_score=0.0, scoring="plain").masks(frame_of(rgb))
    assert masks.labels.shape == shape[:2]


def test_sixteen_bit_images_are_read_and_others_refused(folder: Path) -> None:
    model = Mask2Former(folder, min_score=0.05, scoring="plain")
    rgb = picture(64, 64)
    same = model.masks(frame_of(rgb.astype(np.uint16) * 257))
    assert np.array_equal(same.labels, model.masks(frame_of(rgb)).labels)
    for wrong in (rgb.astype(np.float32), rgb[:, :, :2], rgb[:0]):
        with pytest.raises(FrameError, match="image"):
            model.detect(frame_of(wrong))


def test_a_threshold_that_nothing_reaches_is_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"0\.731"):
        Mask2Former(folder, min_score=0.9)
