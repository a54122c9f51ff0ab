# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Grounding DINO, MM-Grounding DINO, RT-DETR v2 and D-FINE from local folders, against their own raw outputs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from seg3d_core.errors import ConfigError, WeightsError
from seg3d_core.types import Camera, Frame

torch = pytest.importorskip("torch", reason="needs torch: pip install 'seg3d[hub]'")
transformers = pytest.importorskip("transformers", reason="needs transformers: pip install 'seg3d[hub]'")

from seg3d_core.perception.huggingface import grounding_dino as dino  # noqa: E402
from seg3d_core.perception.huggingface.detr import DetrDetector  # noqa: E402
from seg3d_core.perception.huggingface.images import Preprocessing  # noqa: E402

WIDTH, MAX_TEXT = 32, 16
# The separators of phrases are fixed numbers in the model: those of BERT's own vocabulary.
CLS, SEP, STOP = 101, 102, 1012
WORDS = ["chair", "red", "cup", "table", "lamp", "椅", "子"]


def picture(height: int, width: int) -> np.ndarray:
    blocks = np.random.default_rng(2).integers(0, 256, (8, 8, 3))
    big = np.kron(blocks, np.ones((-(-height // 8), -(-width // 8), 1)))
    return np.ascontiguousarray(big[:height, :width]).astype(np.uint8)


def frame_of(rgb: np.ndarray) -> Frame:
    height, width = rgb.shape[:2]
    camera = Camera(width, height, 100, 100, width / 2, height / 2)
    return Frame(0, 0.0, rgb, np.ones((height, width), np.float32), camera, np.eye(4))


def randomised(network: Any) -> Any:
    """Norms of unit weight would hide a norm that is left out; equal scores would hide a wrong order."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in network.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter += noise * (0.3 if parameter.ndim == 1 else 0.05)
    return network.eval()


def save_tokenizer(path: Path) -> None:
    words = {f"[unused{i}]": i for i in range(1100)}
    for number, word in ((0, "[PAD]"), (100, "[UNK]"), (CLS, "[CLS]"), (SEP, "[SEP]"), (STOP, ".")):
        del words[f"[unused{number}]"]
        words[word] = number
    for number, word in enumerate(WORDS, 1050):
        del words[f"[unused{number}]"]
        words[word] = number
    (path / "vocab.txt").write_text("\n".join(sorted(words, key=words.__getitem__)))
    transformers.BertTokenizerFast(vocab=words).save_pretrained(path)


def grounding_folder(path: Path, kind: str) -> Path:
    torch.manual_seed(3)
    sizes = {
        "text_config": transformers.BertConfig(
            vocab_size=1100, hidden_size=WIDTH, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64
        ),
        "d_model": WIDTH,
        "encoder_layers": 2,
        "decoder_layers": 2,
        "encoder_ffn_dim": 64,
        "decoder_ffn_dim": 64,
        "encoder_attention_heads": 4,
        "decoder_attention_heads": 4,
        "num_queries": 9,
        "max_text_len": MAX_TEXT,
        "backbone_config": transformers.SwinConfig(
            image_size=64,
            patch_size=4,
            embed_dim=16,
            depths=[1] * 4,
            num_heads=[1, 2, 4, 8],
            window_size=4,
            out_features=["stage2", "stage3", "stage4"],
        ),
    }
    network = getattr(transformers, f"{kind}ForObjectDetection")(getattr(transformers, f"{kind}Config")(**sizes))
    randomised(network).save_pretrained(path)
    save_tokenizer(path)
    settings = {"size": {"shortest_edge": 96, "longest_edge": 160}}
    (path / "preprocessor_config.json").write_text(json.dumps(settings))
    return path


@pytest.fixture(scope="module", params=["GroundingDino", "MMGroundingDino"])
def grounding(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    return grounding_folder(tmp_path_factory.mktemp(request.param), request.param), request.param


def test_prompted_boxes_features_and_levels_are_the_networks_own(grounding: tuple[Path, str]) -> None:
    folder, kind = grounding
    detector = dino.GroundingDino(folder, ["Red cup", "chair.", "red cup"], min_score=0.0)
    assert detector.names == ("red cup", "chair")
    rgb = picture(72, 96)
    queries, levels = detector.detect_levels(frame_of(rgb))

    # By hand: "red cup. chair." is [CLS] red cup . chair . [SEP]
    tokens = torch.tensor([[CLS, 1051, 1052, STOP, 1050, STOP, SEP]])
    pixels = Preprocessing(short_side=96, long_side=160)(rgb).pixels
    assert pixels.shape == (1, 3, 96, 128)
    network = getattr(transformers, f"{kind}ForObjectDetection").from_pretrained(folder, local_files_only=True).eval()
    with torch.no_grad():
        output = network(pixel_values=pixels, input_ids=tokens, attention_mask=torch.ones_like(tokens))
    p = output.logits[0].sigmoid()
    fit = torch.stack([p[:, [1, 2]].amax(1), p[:, 4]], 1)
    scores, labels = (v.numpy() for v in fit.max(1))
    cx, cy, w, h = output.pred_boxes[0].numpy().T
    boxes = np.stack([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2], 1) * (96, 72, 96, 72)
    boxes = boxes.clip(0, (96, 72, 96, 72))
    assert 0 < len(queries.boxes) <= 9 and (np.diff(queries.scores) <= 0).all()
    for k in range(len(queries.boxes)):
        row = int(np.abs(scores - queries.scores[k]).argmin())
        assert queries.boxes[k] == pytest.approx(boxes[row], abs=1e-3)
        assert queries.features[k] == pytest.approx(output.last_hidden_state[0, row].numpy(), abs=1e-4)
        assert queries.labels is not None and queries.labels[k] == labels[row]
    # Four levels of strides 8 to 64 in one sequence, each row by row.
    assert [level.values.shape for level in levels] == [(32, 12, 16), (32, 6, 8), (32, 3, 4), (32, 2, 2)]
    assert [level.stride for level in levels] == [6, 12, 24, 48]
    sequence = output.encoder_last_hidden_state_vision[0].numpy()
    for level, start in zip(levels, (0, 192, 240, 252), strict=True):
        _, rows, columns = level.values.shape
        assert level.values[:, 1, 1] == pytest.approx(sequence[start + columns + 1], abs=1e-4)
        assert level.values[:, -1, -1] == pytest.approx(sequence[start + rows * columns - 1], abs=1e-4)
        assert level.encoder_id == queries.encoder_id == detector.id


@pytest.mark.parametrize("shape", [(37, 53, 3), (41, 20), (33, 50, 1)])
def test_odd_sizes_split_without_rest(grounding: tuple[Path, str], shape: tuple[int, ...]) -> None:
    detector = dino.GroundingDino(grounding[0], ["chair"])
    rgb = picture(*shape[:2])
    queries, features = detector.detect(frame_of(rgb if shape[2:] != (1,) else rgb[:, :, :1]))
    assert len(queries.boxes) == len(queries.scores) == len(queries.features)
    assert features.values.shape[0] == WIDTH
    assert features.values.shape[1] == -(-shape[0] // features.stride)


def test_nothing_found_is_no_error(grounding: tuple[Path, str]) -> None:
    queries, _ = dino.GroundingDino(grounding[0], ["lamp"], min_score=1.0).detect(frame_of(picture(64, 64)))
    assert queries.boxes.shape == (0, 4) and queries.features.shape == (0, WIDTH) and len(queries.scores) == 0


def test_prompts_that_cannot_be_used_say_so(tmp_path: Path) -> None:
    for nothing in ([], [""], [" . ", "\n"], ["!?"]):
        with pytest.raises(ConfigError, match=r"perception\.prompts is empty"):
            dino.GroundingDino(tmp_path, nothing)


@pytest.mark.parametrize("prompts", [["chair " * 1667], ["chair"] + [f"cup {'red ' * n}" for n in range(9)]])
def test_too_much_text_names_the_limit(tmp_path: Path, prompts: list[str]) -> None:
    grounding_folder(tmp_path, "GroundingDino")
    with pytest.raises(ConfigError, match=rf"perception\.prompts: .* the model reads {MAX_TEXT}"):
        dino.GroundingDino(tmp_path, prompts)


def test_chinese_prompts_are_phrases_like_others(grounding: tuple[Path, str]) -> None:
    detector = dino.GroundingDino(grounding[0], ["椅子", "杯"], min_score=0.0)
    _, phrases = dino.encode_prompts(transformers.AutoTokenizer.from_pretrained(grounding[0]), detector.names, MAX_TEXT)
    assert phrases.int().tolist() == [[0, 1, 1, 0, 0, 0, 0], [0, 0, 0, 0, 1, 0, 0]]
    queries, _ = detector.detect(frame_of(picture(64, 64)))
    assert len(queries.boxes)


def test_levels_that_do_not_add_up_are_refused() -> None:
    with pytest.raises(WeightsError, match="300 image tokens"):
        dino.split_levels(torch.zeros(300, 8), dino.level_sizes((96, 128), 4))


def rt_detr_config() -> Any:
    backbone = transformers.RTDetrResNetConfig(
        embedding_size=8,
        hidden_sizes=[8, 16, 16, 32],
        depths=[1] * 4,
        layer_type="basic",
        out_features=["stage2", "stage3", "stage4"],
    )
    return transformers.RTDetrV2Config(backbone_config=backbone, decoder_n_points=2, **detr_sizes())


def d_fine_config() -> Any:
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
    return transformers.DFineConfig(
        backbone_config=backbone, decoder_n_points=[2, 2, 2], hidden_expansion=0.5, **detr_sizes()
    )


def detr_sizes() -> dict[str, Any]:
    return {
        "encoder_hidden_dim": WIDTH,
        "d_model": WIDTH,
        "encoder_in_channels": [16, 16, 32],
        "decoder_in_channels": [WIDTH] * 3,
        "feat_strides": [8, 16, 32],
        "encoder_ffn_dim": 64,
        "decoder_ffn_dim": 64,
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
        "decoder_layers": 2,
        "num_queries": 11,
        "id2label": {i: f"thing {i}" for i in range(5)},
        "label2id": {f"thing {i}": i for i in range(5)},
        "num_denoising": 0,
    }


@pytest.mark.parametrize(
    ("kind", "config"), [("RTDetrV2ForObjectDetection", rt_detr_config), ("DFineForObjectDetection", d_fine_config)]
)
def test_fixed_classes_boxes_and_levels_are_the_networks_own(tmp_path: Path, kind: str, config: Any) -> None:
    torch.manual_seed(3)
    randomised(getattr(transformers, kind)(config())).save_pretrained(tmp_path)
    settings = {"size": {"height": 128, "width": 128}, "do_normalize": False}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    detector = DetrDetector(tmp_path, min_score=0.0)
    assert detector.names == tuple(f"thing {i}" for i in range(5))
    rgb = picture(128, 256)
    queries, levels = detector.detect_levels(frame_of(rgb))

    pixels = Preprocessing(exact=(128, 128), mean=(0, 0, 0), std=(1, 1, 1))(rgb).pixels
    assert pixels.min() >= 0 and pixels.max() <= 1
    network = getattr(transformers, kind).from_pretrained(tmp_path, local_files_only=True).eval()
    with torch.no_grad():
        output = network(pixel_values=pixels)
    scores, labels = (v.numpy() for v in output.logits[0].sigmoid().max(-1))
    cx, cy, w, h = output.pred_boxes[0].numpy().T
    boxes = np.stack([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2], 1) * (256, 128, 256, 128)
    assert 0 < len(queries.boxes) <= 11
    for k in range(len(queries.boxes)):
        row = int(np.abs(output.last_hidden_state[0].numpy() - queries.features[k]).sum(1).argmin())
        assert queries.boxes[k] == pytest.approx(boxes[row].clip(0, (256, 128, 256, 128)), abs=1e-2)
        assert queries.scores[k] == pytest.approx(scores[row], abs=1e-5)
        assert queries.labels is not None and queries.labels[k] == labels[row]
    # The image was squeezed to half its width: cells are 8 x 16 pixels, and become 16 x 16.
    assert [level.values.shape for level in levels] == [(WIDTH, 8, 16), (WIDTH, 4, 8), (WIDTH, 2, 4)]
    assert [level.stride for level in levels] == [16, 32, 64]
    finest = output.encoder_last_hidden_state[0][0].numpy()
    pairs = (finest[:, 0::2] + finest[:, 1::2]) / 2
    assert levels[0].values == pytest.approx(pairs, abs=1e-3)
    wide = picture(33, 57).astype(np.uint16)[:, :, :1] * 257
    assert len(detector.detect(frame_of(wide))[0].boxes), "odd sizes, one channel, 16 bit"
    nothing, _ = DetrDetector(tmp_path, min_score=1.0).detect(frame_of(rgb))
    assert nothing.boxes.shape == (0, 4) and nothing.features.shape == (0, WIDTH) and len(nothing.scores) == 0
