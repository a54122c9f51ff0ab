# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Encoders with tiny random networks: layouts, shapes, and agreement with slow forward passes."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from seg3d_core.errors import WeightsError
from seg3d_core.perception import weights as stored
from seg3d_core.perception.encoders import conse, efficientnet_lite, minilm
from seg3d_core.perception.encoders.crops import IMAGENET_MEAN, IMAGENET_STD, crop_batch, pad_square
from seg3d_core.torch_file import read_torch_file

for module in ("onnxruntime", "onnx", "safetensors", "tokenizers"):
    pytest.importorskip(module, reason=f"needs {module}: pip install 'seg3d[offline]'")

SMALL = (efficientnet_lite.Stage(2, 3, 2, 1, 8), efficientnet_lite.Stage(2, 5, 2, 3, 12))


def small_state(stages: tuple[efficientnet_lite.Stage, ...] = SMALL, classes: int = 6) -> dict[str, np.ndarray]:
    """Random, norms included: unit norms would hide a norm that is applied in the wrong place."""
    draw = np.random.default_rng(0)
    state: dict[str, np.ndarray] = {}

    def convolution(name: str, norm: str, out: int, per_group: int, kernel: int) -> None:
        shape = (out, per_group, kernel, kernel)
        state[name + ".weight"] = draw.uniform(-1, 1, shape) / math.sqrt(per_group * kernel * kernel)
        for part, low, high in (("weight", 0.5, 2), ("running_var", 0.5, 2), ("bias", -0.5, 0.5)):
            state[f"{norm}.{part}"] = draw.uniform(low, high, out)
        state[norm + ".running_mean"] = draw.uniform(-0.5, 0.5, out)

    convolution("_conv_stem", "_bn0", 8, 3, 3)
    width, number = 8, 0
    for stage in stages:
        for _ in range(stage.repeats):
            name, middle = f"_blocks.{number}.", width * stage.expansion
            if stage.expansion > 1:
                convolution(name + "_expand_conv", name + "_bn0", middle, width, 1)
            convolution(name + "_depthwise_conv", name + "_bn1", middle, 1, stage.kernel)
            convolution(name + "_project_conv", name + "_bn2", stage.width, middle, 1)
            width, number = stage.width, number + 1
    convolution("_conv_head", "_bn1", 16, width, 1)
    state["_fc.weight"], state["_fc.bias"] = draw.uniform(-1, 1, (classes, 16)), draw.uniform(-1, 1, classes)
    return {name: values.astype(np.float32) for name, values in state.items()}


def slow_convolution(x: np.ndarray, weight: np.ndarray, stride: int, groups: int) -> np.ndarray:
    """(C, H, W), a place of the kernel after the other, TensorFlow's SAME padding; one group, or one per channel."""
    out_channels, _, k, _ = weight.shape
    assert groups in (1, out_channels)
    pads = [max((math.ceil(n / stride) - 1) * stride + k - n, 0) for n in x.shape[1:]]
    x = np.pad(x, [(0, 0), *((p // 2, p - p // 2) for p in pads)])
    h, w = ((n - k) // stride + 1 for n in x.shape[1:])
    out = np.zeros((out_channels, h, w))
    for i in range(k):
        for j in range(k):
            shifted = x[:, i : i + stride * (h - 1) + 1 : stride, j : j + stride * (w - 1) + 1 : stride]
            if groups == 1:
                out += np.tensordot(weight[:, :, i, j], shifted, 1)
            else:
                out += weight[:, 0, i, j, None, None] * shifted
    return out


def slow_forward(
    x: np.ndarray, state: dict[str, np.ndarray], stages: tuple[efficientnet_lite.Stage, ...] = SMALL
) -> np.ndarray:
    def norm(y: np.ndarray, name: str) -> np.ndarray:
        mean, variance, gain, bias = (
            state[f"{name}.{n}"][:, None, None] for n in ("running_mean", "running_var", "weight", "bias")
        )
        return (y - mean) / np.sqrt(variance + 1e-3) * gain + bias

    def relu6(y: np.ndarray) -> np.ndarray:
        return np.clip(y, 0, 6)

    y = relu6(norm(slow_convolution(x, state["_conv_stem.weight"], 2, 1), "_bn0"))
    number = 0
    for stage in stages:
        for repeat in range(stage.repeats):
            name, entry = f"_blocks.{number}.", y
            if stage.expansion > 1:
                y = relu6(norm(slow_convolution(y, state[name + "_expand_conv.weight"], 1, 1), name + "_bn0"))
            stride = stage.stride if repeat == 0 else 1
            y = slow_convolution(y, state[name + "_depthwise_conv.weight"], stride, len(y))
            y = relu6(norm(y, name + "_bn1"))
            y = norm(slow_convolution(y, state[name + "_project_conv.weight"], 1, 1), name + "_bn2")
            y = y + entry if repeat > 0 or (stride == 1 and len(y) == len(entry)) else y
            number += 1
    y = relu6(norm(slow_convolution(y, state["_conv_head.weight"], 1, 1), "_bn1")).mean((1, 2))
    return state["_fc.weight"] @ y + state["_fc.bias"]


# Strides that meet odd and even sizes; widths that repeat, so that a row's first block has a residual too.
SAME_WIDTH = (efficientnet_lite.Stage(1, 3, 1, 1, 8), efficientnet_lite.Stage(2, 5, 2, 2, 8))


@pytest.mark.parametrize("stages", [SMALL, SAME_WIDTH])
@pytest.mark.parametrize("size", [(16, 16), (17, 22)])
def test_efficientnet_agrees_with_a_slow_forward(size: tuple[int, int], stages) -> None:
    state = small_state(stages)
    network = efficientnet_lite.EfficientNetLite(state, stages, size)
    x = np.random.default_rng(1).standard_normal((2, 3, *size))
    exact = {name: values.astype(float) for name, values in state.items()}
    expected = np.stack([slow_forward(image, exact, stages) for image in x])
    assert network(x.astype(np.float32)) == pytest.approx(expected, abs=1e-4)
    assert network(x[:1].astype(np.float32)) == pytest.approx(expected[:1], abs=1e-4)


def installed(name: str) -> Path:
    try:
        return stored.require(name)
    except WeightsError as error:
        pytest.skip(str(error))


def test_the_published_classifier_agrees_with_a_slow_forward() -> None:
    path = installed("efficientnet_lite0")
    state = {name: values.astype(float) for name, values in read_torch_file(path).items()}
    counted = [values.size for name, values in state.items() if not name.endswith(("running_mean", "running_var"))]
    assert sum(counted) - sum(name.endswith("num_batches_tracked") for name in state) == 4_652_008
    crop = np.random.default_rng(0).integers(0, 255, (9, 14, 3), np.uint8)
    batch = crop_batch([crop], efficientnet_lite.INPUT_SIZE)
    expected = slow_forward(batch[0].astype(float), state, efficientnet_lite.LITE0)
    assert efficientnet_lite.load(path)(batch)[0] == pytest.approx(expected, abs=1e-3)


def small_text_weights(width: int = 12, layers: int = 2, words: int = 30) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(0)
    weights = {
        "embeddings.word_embeddings.weight": draw.standard_normal((words, width)),
        "embeddings.position_embeddings.weight": draw.standard_normal((40, width)),
        "embeddings.token_type_embeddings.weight": draw.standard_normal((2, width)),
    }
    shapes = {
        "attention.self.query": (width, width), "attention.self.key": (width, width),
        "attention.self.value": (width, width), "attention.output.dense": (width, width),
        "intermediate.dense": (4 * width, width), "output.dense": (width, 4 * width),
    }  # fmt: skip
    norms = ["embeddings.LayerNorm"]
    for i in range(layers):
        for name, shape in shapes.items():
            weights[f"encoder.layer.{i}.{name}.weight"] = draw.standard_normal(shape) * 0.3
            weights[f"encoder.layer.{i}.{name}.bias"] = draw.standard_normal(shape[0]) * 0.3
        norms += [f"encoder.layer.{i}.{n}.LayerNorm" for n in ("attention.output", "output")]
    for name in norms:
        weights[name + ".weight"] = draw.uniform(0.5, 1.5, width)
        weights[name + ".bias"] = draw.standard_normal(width) * 0.2
    return {name: values.astype(np.float32) for name, values in weights.items()}


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
    slow = {name: value.astype(float) for name, value in weights.items()}
    texts = ["sofa", "a very long chair", "x", "lamp"]
    ids = [e.ids[: sum(e.attention_mask)] for e in LetterTokenizer().encode_batch(texts)]
    expected = np.stack([slow_sentence(i, slow, heads=3, layers=2) for i in ids])
    assert model.encode(texts) == pytest.approx(expected, abs=1e-4)
    assert model.encode(texts, batch=2) == pytest.approx(expected, abs=1e-4)
    assert model.encode([]).shape == (0, 12)


def test_the_published_sentence_encoder_agrees_with_a_slow_forward() -> None:
    from safetensors.numpy import load_file
    from tokenizers import Tokenizer

    paths = installed("minilm"), installed("minilm_tokenizer")
    words = Tokenizer.from_file(str(paths[1]))
    words.no_padding()
    slow = {name: values.astype(float) for name, values in load_file(str(paths[0])).items()}
    texts = ["a wooden chair by the window", "sofa"]
    expected = [slow_sentence(words.encode(text).ids, slow, heads=12, layers=6) for text in texts]
    assert minilm.load(*paths).encode(texts) == pytest.approx(np.stack(expected), abs=1e-5)


def test_nothing_of_it_needs_torch() -> None:
    script = (
        "import sys; sys.modules['torch'] = None\n"
        "import numpy as np, seg3d_core.build\n"
        "from seg3d_core.perception.encoders import conse, open_clip\n"
        "from seg3d_core.perception.onnx_network import Graph\n"
        "graph = Graph({'x': (np.float32, ('n',))})\n"
        "network = graph.network(graph.add('Add', 'x', graph.constant(np.float32(2))), 'sum')\n"
        "print(network(x=np.ones(2, np.float32)).tolist())\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("[3.0, 3.0]\n", "")


def test_without_its_libraries_the_stand_in_says_what_to_install(tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(WeightsError, match=r"onnxruntime.*seg3d\[offline\]"):
        efficientnet_lite.EfficientNetLite(small_state(), SMALL)


def small_network() -> efficientnet_lite.EfficientNetLite:
    return efficientnet_lite.EfficientNetLite(small_state(), SMALL)


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
    assert batch[1] == pytest.approx(batch[0, :, :, ::-1], abs=1e-5)
    grey = crop_batch([np.full((4, 4, 3), 255, np.uint8)], 8, mean=(0.5, 0.5, 0.5), std=(0.25, 0.5, 1.0))
    assert grey[0, :, 3, 3].tolist() == pytest.approx([2.0, 1.0, 0.5])


def slow_shrink(row: np.ndarray, size: int) -> np.ndarray:
    """Keys' cubic with a = -1/2, widened by the factor by which the row shrinks, its weights summing to one."""
    step = len(row) / size
    wide = max(step, 1)
    out = np.zeros(size)
    for i in range(size):
        distance = np.abs(np.arange(len(row)) + 0.5 - (i + 0.5) * step) / wide
        near, far = 1.5 * distance**3 - 2.5 * distance**2 + 1, -0.5 * distance**3 + 2.5 * distance**2 - 4 * distance + 2
        weight = np.where(distance < 1, near, np.where(distance < 2, far, 0))
        out[i] = weight @ row / weight.sum()
    return out


@pytest.mark.parametrize(("n", "size"), [(40, 12), (7, 30)])
def test_crops_are_resized_without_aliasing_and_without_rounding(n: int, size: int) -> None:
    crop = np.random.default_rng(n).integers(0, 255, (n, n, 3), np.uint8)
    rows = np.apply_along_axis(slow_shrink, 0, crop.astype(float), size)
    expected = np.apply_along_axis(slow_shrink, 1, rows, size).clip(0, 255) / 255
    found = crop_batch([crop], size, IMAGENET_MEAN, IMAGENET_STD)[0].transpose(1, 2, 0) * IMAGENET_STD + IMAGENET_MEAN
    assert found == pytest.approx(expected, abs=1e-4)


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
