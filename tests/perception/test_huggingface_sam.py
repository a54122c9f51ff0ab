# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""SAM and SAM 2 from local folders: boxes, automatic masks, tokens and embeddings against the networks' own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from seg3d_core.config import PerceptionConfig
from seg3d_core.types import Camera, FeatureMap, Frame, ObjectQueries2D

torch = pytest.importorskip("torch", reason="needs torch: pip install 'seg3d[hub]'")
transformers = pytest.importorskip("transformers", reason="needs transformers: pip install 'seg3d[hub]'")

from seg3d_core.errors import WeightsError  # noqa: E402
from seg3d_core.perception import weights  # noqa: E402
from seg3d_core.perception.huggingface.box_masks import DepthBoxes, DetectorMasks, load_box_segmenter  # noqa: E402
from seg3d_core.perception.huggingface.sam import Sam  # noqa: E402
from seg3d_core.perception.mobile_sam import generator as mobile_sam  # noqa: E402

SIDE, WIDTH = 128, 32


def sam() -> Any:
    vision = transformers.SamVisionConfig(
        hidden_size=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=SIDE,
        patch_size=16,
        mlp_dim=64,
        output_channels=WIDTH,
        window_size=4,
        global_attn_indexes=[1],
    )
    vision.num_pos_feats = WIDTH // 2
    prompt = transformers.SamPromptEncoderConfig(
        hidden_size=WIDTH, image_size=SIDE, patch_size=16, mask_input_channels=4
    )
    decoder = transformers.SamMaskDecoderConfig(
        hidden_size=WIDTH, mlp_dim=32, num_attention_heads=2, iou_head_hidden_dim=32
    )
    config = transformers.SamConfig(
        vision_config=vision.to_dict(), prompt_encoder_config=prompt.to_dict(), mask_decoder_config=decoder.to_dict()
    )
    config.vision_config.num_pos_feats = WIDTH // 2
    return transformers.SamModel(config)


def sam2() -> Any:
    backbone = transformers.Sam2HieraDetConfig(
        hidden_size=16,
        num_attention_heads=1,
        embed_dim_per_stage=[16, 32, 64, 128],
        blocks_per_stage=[1, 1, 2, 1],
        num_attention_heads_per_stage=[1, 2, 4, 8],
        window_size_per_stage=[8, 4, 14, 7],
        global_attention_blocks=[3],
        image_size=[SIDE, SIDE],
        window_positional_embedding_background_size=[4, 4],
    )
    vision = transformers.Sam2VisionConfig(
        backbone_config=backbone,
        backbone_channel_list=[128, 64, 32, 16],
        fpn_hidden_size=WIDTH,
        backbone_feature_sizes=[[32, 32], [16, 16], [8, 8]],
    )
    prompt = transformers.Sam2PromptEncoderConfig(
        hidden_size=WIDTH, image_size=SIDE, patch_size=16, mask_input_channels=4
    )
    decoder = transformers.Sam2MaskDecoderConfig(
        hidden_size=WIDTH, mlp_dim=32, num_attention_heads=2, iou_head_hidden_dim=32
    )
    return transformers.Sam2Model(
        transformers.Sam2Config(vision_config=vision, prompt_encoder_config=prompt, mask_decoder_config=decoder)
    )


@pytest.fixture(scope="module", params=[sam, sam2])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(4)
    network = request.param()
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += torch.randn(parameter.shape, generator=generator) * (0.3 if parameter.ndim == 1 else 0.1)
        # Every answer calls itself good, so that the filters have something to choose from.
        network.mask_decoder.iou_prediction_head.proj_out.bias.fill_(1.6)
        network.mask_decoder.iou_prediction_head.proj_out.weight.mul_(0.01)
        for head in network.mask_decoder.output_hypernetworks_mlps:
            head.proj_out.weight.mul_(2000)
            head.proj_out.bias.zero_()
    path = tmp_path_factory.mktemp(request.param.__name__)
    network.eval().save_pretrained(path)
    return path


def raw_network(folder: Path) -> Any:
    kind = transformers.SamModel if folder.name.startswith("sam0") else transformers.Sam2Model
    return kind.from_pretrained(folder, local_files_only=True).eval()


def scene(height: int, width: int) -> Frame:
    """A wall and a near box in front of its middle."""
    blocks = np.random.default_rng(2).integers(0, 256, (8, 8, 3))
    rgb = np.kron(blocks, np.ones((-(-height // 8), -(-width // 8), 1)))[:height, :width].astype(np.uint8)
    depth = np.full((height, width), 2.0, np.float32)
    depth[height // 4 : height // 2, width // 4 : width // 2] = 1.0
    return Frame(0, 0.0, rgb, depth, Camera(width, height, 100, 100, width / 2, height / 2), np.eye(4))


def test_box_masks_tokens_and_embedding_are_the_networks_own(folder: Path) -> None:
    model, frame = Sam(folder), scene(64, 128)
    boxes = np.array([[20, 10, 60, 40], [0, 0, 128, 64], [100, 30, 120, 60]], np.float32)
    masks, iou, tokens = model.segment_boxes(frame, boxes)
    assert masks.shape == (3, 64, 128) and masks.dtype == bool and iou.shape == (3,) and tokens.shape == (3, WIDTH)

    network = raw_network(folder)
    is_first = folder.name.startswith("sam0")
    # SAM: 64x128 stays, padded below to 128x128. SAM 2: stretched to 128x128, y twice as large.
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    values = torch.from_numpy(((frame.rgb / 255 - mean) / std).transpose(2, 0, 1)).float()[None]
    if is_first:
        pixels = torch.nn.functional.pad(values, (0, 0, 0, 64))
    else:
        from PIL import Image

        stretched = np.asarray(Image.fromarray(frame.rgb).resize((128, 128), Image.Resampling.BILINEAR))
        pixels = torch.from_numpy(((stretched / 255 - mean) / std).transpose(2, 0, 1)).float()[None]
    scaled = torch.from_numpy(boxes * ([1, 1, 1, 1] if is_first else [1, 2, 1, 2])).float()[None]
    states = []
    network.mask_decoder.transformer.register_forward_hook(lambda m, a, out: states.append(out[0]))
    with torch.no_grad():
        embedding = network.get_image_embeddings(pixels)
        output = network(image_embeddings=embedding, input_boxes=scaled, multimask_output=False)
    assert iou == pytest.approx(output.iou_scores[0, :, 0].numpy().clip(0, 1), abs=1e-4)
    logits = output.pred_masks[0, :, 0]
    assert logits.shape == (3, 32, 32)
    upsampled = torch.nn.functional.interpolate(logits[None], (128, 128), mode="bilinear", align_corners=False)[0]
    upsampled = upsampled[:, :64] if is_first else (upsampled[:, 0::2] + upsampled[:, 1::2]) / 2
    assert (masks == (upsampled > 0).numpy()).mean() > 0.97
    # The token that answers a box stands behind the IoU token, and with SAM 2 behind the object score's too.
    head = network.mask_decoder.output_hypernetworks_mlps[0]
    first = states[0][0, :, 1 if is_first else 2]
    assert tokens == pytest.approx(first.numpy(), abs=1e-3)
    assert head(torch.from_numpy(tokens)).shape == (3, WIDTH // 8)

    queries, features = model.detect(frame)
    coarsest = embedding if is_first else embedding[-1]
    assert coarsest.shape == (1, WIDTH, 8, 8)
    if is_first:
        assert features.stride == 16 and features.values == pytest.approx(coarsest[0, :, :4].numpy(), abs=1e-3)
    else:
        # Cells of 8 x 16 pixels become square.
        halves = (coarsest[0, :, 0::2] + coarsest[0, :, 1::2]) / 2
        assert features.stride == 16 and features.values == pytest.approx(halves.numpy(), abs=1e-3)
    assert features.encoder_id == queries.encoder_id == model.id


def test_automatic_masks_are_disjoint_and_have_their_tokens(folder: Path) -> None:
    model = Sam(folder, PerceptionConfig(min_area=0.002, sam_prompts=20))
    frame = scene(63, 97)
    queries, _ = model.detect(frame)
    masks = queries.masks
    assert masks is not None and masks.labels.shape == (63, 97)
    assert queries.features.shape == (len(masks), WIDTH) and queries.boxes.shape == (len(masks), 4)
    areas = np.bincount(masks.labels.ravel(), minlength=len(masks) + 1)[1:]
    assert (areas >= 0.002 * 63 * 97).all()
    for k, (x0, y0, x1, y1) in enumerate(queries.boxes):
        rows, columns = np.nonzero(masks.labels == k + 1)
        assert (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) == (x0, y0, x1, y1)
    again = model.masks(frame)
    assert np.array_equal(again.labels, masks.labels) and len(masks) > 0


def test_no_boxes_no_masks(folder: Path) -> None:
    masks, iou = Sam(folder).masks_of_boxes(scene(50, 70), np.empty((0, 4), np.float32))
    assert masks.shape == (0, 50, 70) and iou.shape == (0,)


def test_one_channel_and_sixteen_bit_images(folder: Path) -> None:
    model, frame = Sam(folder, PerceptionConfig(sam_prompts=4)), scene(64, 64)
    grey = frame.rgb[:, :, 0]
    boxes = np.array([[5, 5, 40, 50]], np.float32)
    expected, _ = model.masks_of_boxes(replace(frame, rgb=np.repeat(grey[:, :, None], 3, 2)), boxes)
    for image in (grey, grey[:, :, None], grey.astype(np.uint16) * 257):
        assert np.array_equal(model.masks_of_boxes(replace(frame, rgb=image), boxes)[0], expected)


class FixedDetector:
    """Says what it is told to say."""

    id = "fixed"

    def __init__(self, boxes: list[list[float]], scores: list[float]):
        self._boxes, self._scores = np.array(boxes, np.float32).reshape(-1, 4), np.array(scores, np.float32)

    def detect(self, frame: Frame) -> tuple[ObjectQueries2D, FeatureMap | None]:
        features = np.arange(len(self._boxes), dtype=np.float32)[:, None]
        return ObjectQueries2D(features, self._boxes, self._scores, self.id, np.arange(len(self._boxes))), None


def test_boxes_become_masks_through_depth() -> None:
    frame = scene(96, 128)
    # Around the near box; around everything; in the middle of the wall, where no surface lies inside.
    detector = FixedDetector([[30, 22, 66, 50], [0, 0, 128, 96], [100, 60, 110, 70]], [0.5, 0.9, 0.8])
    queries, _ = DetectorMasks(detector, DepthBoxes(PerceptionConfig(colour=False)), 0.001).detect(frame)
    masks = queries.masks
    assert masks is not None and queries.labels is not None
    assert queries.labels.tolist() == queries.features[:, 0].tolist() and set(queries.labels) == {0, 1}
    near = masks.labels == queries.labels.tolist().index(0) + 1
    truth = frame.depth == 1.0
    assert (near & truth).sum() / (near | truth).sum() > 0.8
    assert masks.scores[queries.labels.tolist().index(0)] == pytest.approx(0.5)


def test_boxes_become_masks_through_sam_and_none_stay_none(folder: Path) -> None:
    frame, model = scene(64, 96), Sam(folder)
    found = DetectorMasks(FixedDetector([[10, 10, 60, 50]], [0.7]), model).masks(frame)
    expected, _ = model.masks_of_boxes(frame, np.array([[10, 10, 60, 50]], np.float32))
    assert np.array_equal(found.labels > 0, expected[0])
    nothing, _ = DetectorMasks(FixedDetector([], []), model).detect(frame)
    assert nothing.masks is not None and len(nothing.masks) == 0 and nothing.masks.labels.shape == (64, 96)


def test_mobile_sam_makes_masks_of_boxes_where_its_weights_are_and_no_sam_is_named(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(weights, "_installed", lambda entry: [])
    assert isinstance(load_box_segmenter(PerceptionConfig()), DepthBoxes)
    (tmp_path / "mobile_sam.pt").write_bytes(b"cut off")
    with pytest.raises(WeightsError, match="7 bytes"):
        load_box_segmenter(PerceptionConfig(), tmp_path)
    monkeypatch.setattr(mobile_sam, "load", lambda settings, weights_dir: "MobileSAM")
    assert load_box_segmenter(PerceptionConfig(), tmp_path) == "MobileSAM"
    named = load_box_segmenter(PerceptionConfig(box_segmenter_dir=str(folder)), tmp_path)
    assert isinstance(named, Sam)
