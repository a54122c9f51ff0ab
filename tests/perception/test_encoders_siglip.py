# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""SigLIP and CLIP of transformers from a local folder, against the networks' own outputs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from seg3d_core.build import build_encoder
from seg3d_core.config import build
from seg3d_core.errors import WeightsError

torch = pytest.importorskip("torch", reason="needs torch: pip install 'seg3d[hub]'")
transformers = pytest.importorskip("transformers", reason="needs transformers: pip install 'seg3d[hub]'")

from seg3d_core.perception.encoders import siglip  # noqa: E402

WORDS = ["chair", "a", "red", "cup", "椅", "子"]
SIZES = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
CONTEXT = 8


def folder_of(path: Path, kind: str) -> Path:
    torch.manual_seed(0)
    vocab = {word: i for i, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS])}
    text = {**SIZES, "vocab_size": 20, "max_position_embeddings": CONTEXT, "pad_token_id": 0, "bos_token_id": 2}
    vision = {**SIZES, "image_size": 32, "patch_size": 16}
    if kind == "siglip":
        config = transformers.SiglipConfig(text_config={**text, "projection_size": 32}, vision_config=vision)
        network: Any = transformers.SiglipModel(config)
    else:
        config = transformers.CLIPConfig(
            text_config={**text, "eos_token_id": 3}, vision_config=vision, projection_dim=24
        )
        network = transformers.CLIPModel(config)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
    network.eval().save_pretrained(path)
    transformers.BertTokenizerFast(vocab=vocab).save_pretrained(path)
    (path / "preprocessor_config.json").write_text(
        json.dumps({"image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.3, 0.4], "resample": 3})
    )
    return path


@pytest.fixture(scope="module", params=["siglip", "clip"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder_of(tmp_path_factory.mktemp(request.param), request.param)


def test_vectors_are_the_networks_own_at_unit_length(folder: Path) -> None:
    encoder = siglip.load(folder)
    is_clip = encoder.id.startswith("clip-")
    assert (encoder.dim, encoder.approximate) == (24 if is_clip else 32, False)
    kind = transformers.CLIPModel if is_clip else transformers.SiglipModel
    network = kind.from_pretrained(folder, local_files_only=True).eval()
    # [CLS] red chair [SEP], and for SigLIP padding to its context, which it reads.
    ids = torch.tensor([[2, 7, 5, 3] + ([] if is_clip else [0] * 4)])
    crop = np.full((32, 32, 3), (255, 128, 0), np.uint8)
    pixels = (torch.tensor([1, 128 / 255, 0]) - torch.tensor([0.4, 0.5, 0.6])) / torch.tensor([0.2, 0.3, 0.4])
    with torch.no_grad():
        output = network(input_ids=ids, pixel_values=pixels[None, :, None, None].expand(1, 3, 32, 32))
    assert encoder.encode_text(["Red chair"]) == pytest.approx(output.text_embeds.numpy(), abs=1e-4)
    assert encoder.encode_images([crop]) == pytest.approx(output.image_embeds.numpy(), abs=1e-4)


def test_batches_do_not_change_what_one_says(folder: Path) -> None:
    encoder = siglip.load(folder)
    rng = np.random.default_rng(0)
    crops = [rng.integers(0, 256, (h, w, 3), np.uint8) for h, w in [(5, 60), (33, 33), (1, 1)] * 4]
    together = encoder.encode_images(crops)
    assert together == pytest.approx(np.concatenate([encoder.encode_images([c]) for c in crops]), abs=1e-4)
    texts = ["chair", "a red cup", "椅子", "", "chair " * 2000]
    apart = np.concatenate([encoder.encode_text([t]) for t in texts])
    assert encoder.encode_text(texts) == pytest.approx(apart, abs=1e-4)
    assert np.linalg.norm(apart, axis=1) == pytest.approx(np.ones(5), abs=1e-4)
    assert encoder.encode_images([]).shape == encoder.encode_text([]).shape == (0, encoder.dim)


def test_settings_lead_to_it_and_a_missing_folder_says_so(folder: Path, tmp_path: Path) -> None:
    encoder = build_encoder(build({"query.siglip_dir": str(folder)}))
    assert encoder is not None and encoder.id.split("-")[0] in ("siglip", "clip")
    for missing in ("", str(tmp_path)):
        with pytest.raises(WeightsError, match=r"query\.siglip_dir.*hf download"):
            build_encoder(build({"query.encoder": "siglip", "query.siglip_dir": missing}))
