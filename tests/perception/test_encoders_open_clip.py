"""open_clip's adapter: what it calls, which normalisation it takes, and what it says where something is missing."""

from __future__ import annotations

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
