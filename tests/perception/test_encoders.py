"""Encoders with tiny random networks: layouts, shapes, and agreement with slow forward passes."""

from __future__ import annotations

import math
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch: pip install 'seg3d[offline]'")

from seg3d_core.errors import WeightsError  # noqa: E402
from seg3d_core.perception.encoders import conse, efficientnet_lite, minilm, open_clip  # noqa: E402
from seg3d_core.perception.encoders.crops import crop_batch, pad_square  # noqa: E402

SMALL = (efficientnet_lite.Stage(2, 3, 2, 1, 8), efficientnet_lite.Stage(2, 5, 2, 3, 12))


def small_network(classes: int = 6) -> efficientnet_lite.EfficientNetLite:
    """Random, norms included: unit norms would hide a norm that is applied in the wrong place."""
    torch.manual_seed(0)
    network = efficientnet_lite.EfficientNetLite(SMALL, stem=8, head=16, classes=classes)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            for values in (module.weight.data, module.running_var):
                values.uniform_(0.5, 2)
            for values in (module.bias.data, module.running_mean):
                values.uniform_(-0.5, 0.5)
    return network.eval()


def slow_convolution(x: np.ndarray, weight: np.ndarray, stride: int, groups: int) -> np.ndarray:
    """(C, H, W) by the definition, TensorFlow's SAME padding."""
    out_channels, _, k, _ = weight.shape
    pads = [max((math.ceil(n / stride) - 1) * stride + k - n, 0) for n in x.shape[1:]]
    x = np.pad(x, [(0, 0), *((p // 2, p - p // 2) for p in pads)])
    h, w = ((n - k) // stride + 1 for n in x.shape[1:])
    out = np.zeros((out_channels, h, w))
    per_in, per_out = x.shape[0] // groups, out_channels // groups
    for o in range(out_channels):
        first = (o // per_out) * per_in
        for i in range(h):
            for j in range(w):
                window = x[first : first + per_in, i * stride : i * stride + k, j * stride : j * stride + k]
                out[o, i, j] = (window * weight[o]).sum()
    return out


def slow_forward(x: np.ndarray, state: dict[str, np.ndarray]) -> np.ndarray:
    def norm(y: np.ndarray, name: str) -> np.ndarray:
        mean, variance, gain, bias = (
            state[f"{name}.{n}"][:, None, None] for n in ("running_mean", "running_var", "weight", "bias")
        )
        return (y - mean) / np.sqrt(variance + 1e-3) * gain + bias

    def relu6(y: np.ndarray) -> np.ndarray:
        return np.clip(y, 0, 6)

    y = relu6(norm(slow_convolution(x, state["_conv_stem.weight"], 2, 1), "_bn0"))
    number = 0
    for stage in SMALL:
        for repeat in range(stage.repeats):
            name, entry = f"_blocks.{number}.", y
            if stage.expansion > 1:
                y = relu6(norm(slow_convolution(y, state[name + "_expand_conv.weight"], 1, 1), name + "_bn0"))
            stride = stage.stride if repeat == 0 else 1
            y = slow_convolution(y, state[name + "_depthwise_conv.weight"], stride, len(y))
            y = relu6(norm(y, name + "_bn1"))
            y = norm(slow_convolution(y, state[name + "_project_conv.weight"], 1, 1), name + "_bn2")
            y = y + entry if repeat > 0 else y
            number += 1
    y = relu6(norm(slow_convolution(y, state["_conv_head.weight"], 1, 1), "_bn1")).mean((1, 2))
    return state["_fc.weight"] @ y + state["_fc.bias"]


@pytest.mark.parametrize("size", [(16, 16), (17, 22)])
def test_efficientnet_agrees_with_a_slow_forward_folded_or_not(size: tuple[int, int]) -> None:
    network = small_network()
    x = np.random.default_rng(1).standard_normal((2, 3, *size))
    state = {name: value.double().numpy() for name, value in network.state_dict().items()}
    expected = np.stack([slow_forward(image, state) for image in x])
    batch = torch.from_numpy(x).float()
    with torch.inference_mode():
        assert network(batch).numpy() == pytest.approx(expected, abs=1e-3)
        folded = efficientnet_lite.fold_batch_norms(network)
        assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in folded.modules())
        assert folded(batch).numpy() == pytest.approx(expected, abs=1e-3)


def test_lite0_has_the_published_number_of_parameters() -> None:
    assert sum(p.numel() for p in efficientnet_lite.EfficientNetLite().parameters()) == 4_652_008


def small_text_weights(width: int = 12, layers: int = 2, words: int = 30) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    weights = {
        "embeddings.word_embeddings.weight": torch.randn(words, width),
        "embeddings.position_embeddings.weight": torch.randn(40, width),
        "embeddings.token_type_embeddings.weight": torch.randn(2, width),
    }
    shapes = {
        "attention.self.query": (width, width), "attention.self.key": (width, width),
        "attention.self.value": (width, width), "attention.output.dense": (width, width),
        "intermediate.dense": (4 * width, width), "output.dense": (width, 4 * width),
    }  # fmt: skip
    norms = ["embeddings.LayerNorm"]
    for i in range(layers):
        for name, shape in shapes.items():
            weights[f"encoder.layer.{i}.{name}.weight"] = torch.randn(shape) * 0.3
            weights[f"encoder.layer.{i}.{name}.bias"] = torch.randn(shape[0]) * 0.3
        norms += [f"encoder.layer.{i}.{n}.LayerNorm" for n in ("attention.output", "output")]
    for name in norms:
        weights[name + ".weight"], weights[name + ".bias"] = torch.rand(width) + 0.5, torch.randn(width) * 0.2
    return weights


class LetterTokenizer:
    """A token per letter, padded to the longest."""

    def encode_batch(self, texts: list[str]) -> list[SimpleNamespace]:
        longest = max(len(t) for t in texts) + 1
        tokens = [[1, *(2 + ord(c) % 27 for c in t)] for t in texts]
        return [
            SimpleNamespace(ids=t + [0] * (longest - len(t)), attention_mask=[1] * len(t) + [0] * (longest - len(t)))
            for t in tokens
        ]


def slow_sentence(ids: list[int], w: dict[str, np.ndarray], heads: int, layers: int) -> np.ndarray:
    """One sentence without padding, token by token."""

    def norm(row: np.ndarray, name: str) -> np.ndarray:
        return (row - row.mean()) / np.sqrt(row.var() + 1e-12) * w[name + ".weight"] + w[name + ".bias"]

    def linear(row: np.ndarray, name: str) -> np.ndarray:
        return w[name + ".weight"] @ row + w[name + ".bias"]

    def gelu(v: float) -> float:
        return 0.5 * v * (1 + math.erf(v / math.sqrt(2)))

    words, places = w["embeddings.word_embeddings.weight"], w["embeddings.position_embeddings.weight"]
    types = w["embeddings.token_type_embeddings.weight"]
    x = [norm(words[t] + places[i] + types[0], "embeddings.LayerNorm") for i, t in enumerate(ids)]
    width = len(x[0]) // heads
    for layer in range(layers):
        p = f"encoder.layer.{layer}."
        q, k, v = ([linear(t, f"{p}attention.self.{n}") for t in x] for n in ("query", "key", "value"))
        after = []
        for i, row in enumerate(x):
            mixed = []
            for h in range(heads):
                part = slice(h * width, (h + 1) * width)
                score = np.array([q[i][part] @ k[j][part] / math.sqrt(width) for j in range(len(x))])
                share = np.exp(score - score.max())
                mixed.append(sum(s * v[j][part] for j, s in enumerate(share / share.sum())))
            attended = linear(np.concatenate(mixed), p + "attention.output.dense")
            row = norm(row + attended, p + "attention.output.LayerNorm")
            inner = np.array([gelu(value) for value in linear(row, p + "intermediate.dense")])
            after.append(norm(row + linear(inner, p + "output.dense"), p + "output.LayerNorm"))
        x = after
    mean = np.mean(x, 0)
    return mean / np.linalg.norm(mean)


def test_minilm_agrees_with_a_slow_forward_whatever_it_is_padded_with() -> None:
    weights = small_text_weights()
    model = minilm.MiniLM(weights, LetterTokenizer(), heads=3)
    slow = {name: value.double().numpy() for name, value in weights.items()}
    texts = ["sofa", "a very long chair", "x", "lamp"]
    ids = [e.ids[: sum(e.attention_mask)] for e in LetterTokenizer().encode_batch(texts)]
    expected = np.stack([slow_sentence(i, slow, heads=3, layers=2) for i in ids])
    assert model.encode(texts).numpy() == pytest.approx(expected, abs=1e-4)
    assert model.encode(texts, batch=2).numpy() == pytest.approx(expected, abs=1e-4)
    assert model.encode([]).shape == (0, 12)


def small_encoder(cache=None) -> conse.ConseEncoder:
    names = ["sofa", "chair", "table", "lamp", "cup", "bed"]
    return conse.ConseEncoder(
        small_network(), minilm.MiniLM(small_text_weights(), LetterTokenizer(), 3), names, "t", cache
    )


def test_the_stand_in_gives_unit_vectors_of_one_space() -> None:
    encoder = small_encoder()
    crops = [
        np.random.default_rng(i).integers(0, 255, (h, w, 3), np.uint8) for i, (h, w) in enumerate([(5, 40), (1, 1)])
    ]
    images, texts = encoder.encode_images(crops), encoder.encode_text(["sofa", "沙发"])
    assert encoder.approximate
    assert images.shape == texts.shape == (2, encoder.dim)
    assert images.dtype == texts.dtype == np.float32
    assert np.linalg.norm(images, axis=1) == pytest.approx(1, abs=1e-5)
    assert np.linalg.norm(texts, axis=1) == pytest.approx(1, abs=1e-5)
    assert encoder.encode_text(["sofa"])[0].argmax() == 0
    assert encoder.encode_images([]).shape == (0, encoder.dim)


def test_batches_do_not_change_a_crop() -> None:
    encoder = small_encoder()
    crops = [np.random.default_rng(i).integers(0, 255, (20, 30, 3), np.uint8) for i in range(20)]
    alone = np.concatenate([encoder.encode_images([c]) for c in crops])
    assert encoder.encode_images(crops) == pytest.approx(alone, abs=1e-4)


def test_class_names_are_embedded_once_and_damaged_caches_are_made_anew(tmp_path) -> None:
    first = small_encoder(tmp_path).encode_text(["chair"])
    (file,) = tmp_path.iterdir()
    again = small_encoder(tmp_path)
    again._text.encode = lambda texts, batch=128: minilm.MiniLM.encode(again._text, texts) if len(texts) < 6 else 1 / 0
    assert again.encode_text(["chair"]) == pytest.approx(first)
    file.write_bytes(b"damaged")
    assert small_encoder(tmp_path).encode_text(["chair"]) == pytest.approx(first)
    assert np.load(file, allow_pickle=False).shape == (6, 12)


def test_an_unwritable_cache_is_no_error(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    assert small_encoder(tmp_path / "file" / "below").encode_text(["chair"]).shape == (1, 6)


def test_crops_are_padded_not_cut_and_normalised() -> None:
    crop = np.zeros((10, 30, 3), np.uint8)
    crop[:, :5], crop[:, -5:] = (255, 0, 0), (0, 0, 255)
    square = pad_square(crop)
    assert square.shape == (30, 30, 3)
    assert (square[0] == crop[0]).all()
    assert (square[-1] == crop[-1]).all()
    batch = crop_batch([crop, crop[:, ::-1]], 12, mean=(0, 0, 0), std=(1, 1, 1))
    assert batch.shape == (2, 3, 12, 12)
    assert batch[0, 0, 6, 0] == pytest.approx(1, abs=0.1)
    assert batch[0, 2, 6, -1] == pytest.approx(1, abs=0.1)
    assert torch.allclose(batch[0].flip(-1), batch[1], atol=1e-5)
    grey = crop_batch([np.full((4, 4, 3), 255, np.uint8)], 8, mean=(0.5, 0.5, 0.5), std=(0.25, 0.5, 1.0))
    assert grey[0, :, 3, 3].tolist() == pytest.approx([2.0, 1.0, 0.5])


@pytest.mark.parametrize("crop", [np.zeros((0, 3, 3), np.uint8), np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3))])
def test_a_crop_that_is_no_image_is_a_bug(crop: np.ndarray) -> None:
    with pytest.raises(ValueError, match="crop"):
        crop_batch([crop], 8)


def test_files_that_are_no_checkpoint_are_refused(tmp_path) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(b"nothing")
    with pytest.raises(WeightsError, match=r"weights\.pth"):
        efficientnet_lite.load(path)
    pytest.importorskip("tokenizers")
    with pytest.raises(WeightsError, match=r"weights\.pth"):
        minilm.load(path, path)


class TinyClip:
    """open_clip's calls, nothing behind them."""

    def eval(self) -> TinyClip:
        return self

    def encode_text(self, tokens: torch.Tensor, normalize: bool) -> torch.Tensor:
        return torch.nn.functional.normalize(tokens.float(), dim=1)

    def encode_image(self, images: torch.Tensor, normalize: bool) -> torch.Tensor:
        return torch.nn.functional.normalize(images.mean((2, 3)), dim=1)


def test_open_clip_is_called_with_its_own_normalisation() -> None:
    def tokenize(texts: list[str]) -> torch.Tensor:
        return torch.tensor([[len(t), 1, 2] for t in texts])

    preprocessing = {"size": 16, "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5), "interpolation": "bicubic"}
    encoder = open_clip.OpenClipEncoder(TinyClip(), tokenize, preprocessing, "tiny")
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
