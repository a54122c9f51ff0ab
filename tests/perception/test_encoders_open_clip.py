# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""open_clip's adapter: what it calls, which normalisation it takes, and what it says where something is missing."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from seg3d_core.errors import WeightsError
from seg3d_core.perception.encoders import open_clip

NEEDS_TORCH = "needs torch: pip install 'seg3d[clip]'"


class TinyClip:
    """open_clip's calls, nothing behind them."""

    def __init__(self, torch: Any):
        self.torch = torch

    def eval(self) -> TinyClip:
        return self

    def to(self, device: Any) -> TinyClip:
        return self

    def encode_text(self, tokens: Any, normalize: bool) -> Any:
        return self.torch.nn.functional.normalize(tokens.float(), dim=1)

    def encode_image(self, images: Any, normalize: bool) -> Any:
        return self.torch.nn.functional.normalize(images.mean((2, 3)), dim=1)


def test_open_clip_is_called_with_its_own_normalisation() -> None:
    torch = pytest.importorskip("torch", reason=NEEDS_TORCH)

    def tokenize(texts: list[str]) -> Any:
        return torch.tensor([[len(t), 1, 2] for t in texts])

    preprocessing = {"size": 16, "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5), "interpolation": "bicubic"}
    encoder = open_clip.OpenClipEncoder(TinyClip(torch), tokenize, preprocessing, "tiny")
    assert (encoder.dim, encoder.approximate) == (3, False)
    white_red = np.full((4, 9, 3), (255, 0, 0), np.uint8)
    assert encoder.encode_images([white_red] * 9) == pytest.approx(np.tile([1, -1, -1], (9, 1)) / 3**0.5, abs=1e-4)
    assert encoder.encode_images([]).shape == encoder.encode_text([]).shape == (0, 3)


class Catalogue:
    """open_clip's table of pretrained configs."""

    OPENAI_DATASET_MEAN, OPENAI_DATASET_STD = (0.48, 0.46, 0.41), (0.27, 0.26, 0.28)
    configs = {
        "old": {"mean": (0.48, 0.46, 0.41), "std": (0.27, 0.26, 0.28), "interpolation": "bicubic"},
        "dfndr2b": {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0), "interpolation": "bilinear"},
    }

    def list_pretrained_tags_by_model(self, model: str) -> list[str]:
        return list(self.configs) if model == "known" else []

    def get_pretrained_cfg(self, model: str, tag: str) -> dict:
        return self.configs[tag]


@pytest.mark.parametrize(
    ("model", "file", "mean", "interpolation"),
    [
        ("known", "weights_dfndr2b.pt", (0, 0, 0), "bilinear"),
        ("known", "weights_old.pt", (0.48, 0.46, 0.41), "bicubic"),
        ("known", "open_clip_model.safetensors", (0, 0, 0), "bilinear"),
        ("unknown", "x.pt", (0.48, 0.46, 0.41), "bicubic"),
    ],
)
def test_normalisation_of_a_local_file_is_that_of_its_tag(model, file, mean, interpolation) -> None:
    found = open_clip.pretrained_preprocessing(Catalogue(), model, file)
    assert found["mean"] == pytest.approx(mean)
    assert found["interpolation"] == interpolation


def test_open_clip_without_a_weights_file_says_what_to_set(tmp_path) -> None:
    with pytest.raises(WeightsError, match="open_clip_weights"):
        open_clip.load("ViT-B-16", "")
    with pytest.raises(WeightsError, match="no such file"):
        open_clip.load("ViT-B-16", str(tmp_path / "none.pt"))


FAKE_TORCHVISION = """
import torch
@torch.library.register_fake("torchvision::nms")
def nms(boxes, scores, threshold):
    return boxes
works = True
"""


@pytest.mark.parametrize(
    ("content", "expected"), [(FAKE_TORCHVISION, "works"), ("raise RuntimeError('other')", "other")]
)
def test_a_torchvision_built_for_another_torch_is_helped_and_other_errors_pass(tmp_path, content, expected) -> None:
    pytest.importorskip("torch", reason=NEEDS_TORCH)
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text(content)
    script = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from seg3d_core.perception.encoders.open_clip import import_torchvision\n"
        "import_torchvision(); import_torchvision()\n"
        "import torchvision; print('works' if torchvision.works else '')\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert expected in (done.stdout if expected == "works" else done.stderr)


def test_without_torch_open_clip_says_what_to_install(tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    (tmp_path / "weights.pt").write_bytes(b"x")
    with pytest.raises(WeightsError, match=r"torch.*seg3d\[clip\]"):
        open_clip.load("ViT-B-16", str(tmp_path / "weights.pt"))


TINY_MODEL = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16},
    "text_cfg": {"context_length": 12, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
}


def real_open_clip() -> Any:
    pytest.importorskip("torch", reason=NEEDS_TORCH)
    try:
        open_clip.import_torchvision()
    except ImportError:
        pytest.skip("needs torchvision: pip install 'seg3d[clip]'")
    return pytest.importorskip("open_clip", reason="needs open_clip: pip install 'seg3d[clip]'")


def test_a_folder_says_itself_which_model_it_is(tmp_path) -> None:
    library = real_open_clip()
    safetensors = pytest.importorskip("safetensors.torch")
    network = library.CLIP(**TINY_MODEL)
    folder = tmp_path / "tiny"
    folder.mkdir()
    preprocessing = {"mean": [0.0, 0.0, 0.0], "std": [1.0, 1.0, 1.0], "interpolation": "bilinear"}
    config = {"model_cfg": TINY_MODEL, "preprocess_cfg": preprocessing}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    safetensors.save_file(network.state_dict(), folder / "open_clip_model.safetensors")
    encoder = open_clip.load("ViT-B-16", str(folder))
    assert encoder.dim == 16 and encoder.id.startswith("open_clip-folder-")
    white = np.full((40, 20, 3), 255, np.uint8)
    expected = network.eval().encode_image(encoder._torch.ones(1, 3, 32, 32), normalize=True)
    assert encoder.encode_images([white]) == pytest.approx(expected.detach().numpy(), abs=1e-4)
    texts = ["chair", "椅子", "chair " * 2000]
    expected = network.encode_text(library.get_tokenizer(f"local-dir:{folder}")(texts), normalize=True)
    assert encoder.encode_text(texts) == pytest.approx(expected.detach().numpy(), abs=1e-4)
    (folder / "open_clip_model.safetensors").write_bytes(b"short")
    with pytest.raises(WeightsError, match="cannot be loaded by open_clip"):
        open_clip.load("ViT-B-16", str(folder))


def test_what_would_ask_a_hub_is_refused_with_the_command(tmp_path, monkeypatch) -> None:
    real_open_clip()
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda repository, file: None)
    with pytest.raises(WeightsError, match=r"hf download laion/CLIP-ViT-B-32-laion2B-s34B-b79K"):
        open_clip.load("ViT-B-32", "laion2b_s34b_b79k")
    with pytest.raises(WeightsError, match=r"nor a tag of ViT-B-32, which has .*laion2b_s34b_b79k"):
        open_clip.load("ViT-B-32", "no_such_tag")
    (tmp_path / "weights.pt").write_bytes(b"x")
    with pytest.raises(WeightsError, match=r"tokenizer .*hf download timm/ViT-B-16-SigLIP --local-dir"):
        open_clip.load("ViT-B-16-SigLIP", str(tmp_path / "weights.pt"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(WeightsError, match="has no open_clip_config"):
        open_clip.load("ViT-B-32", str(tmp_path / "empty"))
