# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""MobileSAM's network: its names, its agreement with a slow literal forward, and files that are not it."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch: pip install 'seg3d[sam]'")

from torch.nn import functional  # noqa: E402

from seg3d_core.errors import WeightsError  # noqa: E402
from seg3d_core.perception import weights  # noqa: E402
from seg3d_core.perception.mobile_sam import backends, network  # noqa: E402
from seg3d_core.torch_file import read_torch_file  # noqa: E402

KEYS = json.loads((Path(__file__).parents[1] / "golden" / "mobile_sam_keys.json").read_text())
SIDE, SIZE = 128, (96, 128)
CLICKS = [[3.0, 5.0], [70.2, 40.0], [127.0, 95.0]]


def random_weights() -> dict[str, torch.Tensor]:
    """Tensors of the official names and shapes; norms are random too, or mistakes of layout would not show."""
    made = {}
    for name, shape in KEYS.items():
        values = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape)
        if name.endswith("num_batches_tracked"):
            made[name] = torch.tensor(0)
        elif name.endswith("running_var"):
            made[name] = torch.from_numpy(1 + 0.2 * np.abs(values)).float()
        elif name.endswith("weight") and len(shape) == 1:
            made[name] = torch.from_numpy(1 + 0.2 * values).float()
        elif name.endswith(("bias", "running_mean")) or len(shape) < 2:
            made[name] = torch.from_numpy(0.1 * values).float()
        else:
            fan_in = shape[0] if "output_upscaling" in name else math.prod(shape[1:])
            gain = 1.0 if "embed" in name or "token" in name or "gaussian" in name else fan_in**-0.5
            made[name] = torch.from_numpy(gain * values).float()
    return made


class Twin:
    """MobileSAM written down from its description: one window, one head, one click at a time, no norm folded."""

    def __init__(self, tensors: dict[str, torch.Tensor]):
        self.t = tensors

    def linear(self, name, x):
        return x @ self.t[name + ".weight"].T + self.t[name + ".bias"]

    def norm(self, name, x, eps=1e-5):
        mean, variance = x.mean(-1, keepdim=True), x.var(-1, unbiased=False, keepdim=True)
        return (x - mean) / (variance + eps).sqrt() * self.t[name + ".weight"] + self.t[name + ".bias"]

    def norm2d(self, name, x):
        return self.norm(name, x.permute(0, 2, 3, 1), 1e-6).permute(0, 3, 1, 2)

    def conv(self, name, x, stride=1):
        kernel = self.t[name + ".c.weight"]
        groups = x.shape[1] // kernel.shape[1]
        x = functional.conv2d(x, kernel, None, stride, kernel.shape[-1] // 2, 1, groups)
        mean, variance, weight, bias = (
            self.t[f"{name}.bn.{leaf}"][:, None, None] for leaf in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / (variance + 1e-5).sqrt() * weight + bias

    def encode(self, image):
        p, gelu = "image_encoder.", functional.gelu
        x = self.conv(p + "patch_embed.seq.2", gelu(self.conv(p + "patch_embed.seq.0", image, 2)), 2)
        for i, (depth, heads, window) in enumerate(((2, 0, 0), (2, 4, 7), (6, 5, 14), (2, 10, 7))):
            for j in range(depth):
                block = f"{p}layers.{i}.blocks.{j}"
                x = self.block(block, x, heads, window) if i else gelu(x + self.three(block, x, 1))
            if i < 3:
                x = self.three(f"{p}layers.{i}.downsample", x, (2, 2, 1)[i])
        x = self.norm2d(p + "neck.1", functional.conv2d(x, self.t[p + "neck.0.weight"]))
        return self.norm2d(p + "neck.3", functional.conv2d(x, self.t[p + "neck.2.weight"], padding=1))

    def three(self, name, x, stride):
        x = functional.gelu(self.conv(name + ".conv1", x))
        return self.conv(name + ".conv3", functional.gelu(self.conv(name + ".conv2", x, stride)))

    def block(self, name, x, heads, s):
        _, c, h, w = x.shape
        canvas = torch.zeros(math.ceil(h / s) * s, math.ceil(w / s) * s, c)
        canvas[:h, :w] = x[0].permute(1, 2, 0)
        attended = torch.empty_like(canvas)
        for top in range(0, canvas.shape[0], s):
            for left in range(0, canvas.shape[1], s):
                window = canvas[top : top + s, left : left + s].reshape(s * s, c)
                attended[top : top + s, left : left + s] = self.window(name + ".attn", window, heads, s).view(s, s, c)
        x = self.conv(name + ".local_conv", x + attended[:h, :w].permute(2, 0, 1)[None])
        cells = self.norm(name + ".mlp.norm", x.permute(0, 2, 3, 1))
        cells = self.linear(name + ".mlp.fc2", functional.gelu(self.linear(name + ".mlp.fc1", cells)))
        return x + cells.permute(0, 3, 1, 2)

    def window(self, name, cells, heads, s):
        qkv = self.linear(name + ".qkv", self.norm(name + ".norm", cells))
        places, offsets = [(y, x) for y in range(s) for x in range(s)], {}
        # As the public code numbers them: in the order in which pairs of cells first show an offset.
        index = torch.tensor(
            [[offsets.setdefault((abs(a[0] - b[0]), abs(a[1] - b[1])), len(offsets)) for b in places] for a in places]
        )
        out = []
        for head in range(heads):
            q, k, v = qkv[:, 96 * head : 96 * (head + 1)].split(32, 1)
            scores = q @ k.T * 32**-0.5 + self.t[name + ".attention_biases"][head][index]
            out.append(scores.softmax(1) @ v)
        return self.linear(name + ".proj", torch.cat(out, 1))

    def code(self, x, y):
        """Of one point of the unit square."""
        z = (
            2
            * math.pi
            * (
                torch.tensor([2 * x - 1, 2 * y - 1])
                @ self.t["prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"]
            )
        )
        return torch.cat([z.sin(), z.cos()])

    def attend(self, name, q, k, v):
        q, k, v = (self.linear(f"{name}.{n}_proj", t) for n, t in (("q", q), ("k", k), ("v", v)))
        width = q.shape[1] // 8
        out = []
        for head in range(8):
            part = slice(head * width, (head + 1) * width)
            out.append((q[:, part] @ k[:, part].T * width**-0.5).softmax(1) @ v[:, part])
        return self.linear(name + ".out_proj", torch.cat(out, 1))

    def layers(self, name, x):
        for i in range(3):
            x = self.linear(f"{name}.layers.{i}", x)
            x = x.relu() if i < 2 else x
        return x

    def decode(self, embedding, x, y, side):
        """Logits (4, 4h, 4w), predicted IoU (4,) and mask tokens (4, 256) of one positive click at pixel (x, y)."""
        p, e = "mask_decoder.", "prompt_encoder."
        _, _, h, w = embedding.shape
        click = self.code((x + 0.5) / side, (y + 0.5) / side) + self.t[e + "point_embeddings.1.weight"][0]
        rows = [self.t[p + "iou_token.weight"], self.t[p + "mask_tokens.weight"], click[None]]
        start = q = torch.cat([*rows, self.t[e + "not_a_point_embed.weight"]])
        places = torch.stack(
            [self.code((j + 0.5) * 16 / side, (i + 0.5) * 16 / side) for i in range(h) for j in range(w)]
        )
        k = (embedding[0] + self.t[e + "no_mask_embed.weight"][0][:, None, None]).flatten(1).T
        for i in range(2):
            b = f"{p}transformer.layers.{i}"
            mixed = self.attend(b + ".self_attn", q + start, q + start, q) if i else None
            q = self.norm(b + ".norm1", self.attend(b + ".self_attn", q, q, q) if mixed is None else q + mixed)
            q = self.norm(b + ".norm2", q + self.attend(b + ".cross_attn_token_to_image", q + start, k + places, k))
            inner = self.linear(b + ".mlp.lin2", self.linear(b + ".mlp.lin1", q).relu())
            q = self.norm(b + ".norm3", q + inner)
            k = self.norm(b + ".norm4", k + self.attend(b + ".cross_attn_image_to_token", k + places, q + start, q))
        last = self.attend(p + "transformer.final_attn_token_to_image", q + start, k + places, k)
        q = self.norm(p + "transformer.norm_final_attn", q + last)
        cells = k.T.reshape(1, 256, h, w)
        up = p + "output_upscaling."
        cells = functional.conv_transpose2d(cells, self.t[up + "0.weight"], self.t[up + "0.bias"], 2)
        cells = functional.gelu(self.norm2d(up + "1", cells))
        cells = functional.gelu(functional.conv_transpose2d(cells, self.t[up + "3.weight"], self.t[up + "3.bias"], 2))
        weight = torch.stack([self.layers(f"{p}output_hypernetworks_mlps.{i}", q[1 + i]) for i in range(4)])
        logits = (weight[:, :, None, None] * cells).sum(1)
        return logits, self.layers(p + "iou_prediction_head", q[0]), q[1:5]


def network_of(tensors: dict[str, torch.Tensor]) -> network.MobileSamNetwork:
    made = network.MobileSamNetwork()
    network.load_strictly(made, {k: v.numpy() for k, v in tensors.items()}, "here")
    network.fold_batch_norm(made)
    return made.eval().requires_grad_(False)


@pytest.fixture(scope="module", params=["random", "official"])
def tensors(request) -> dict[str, torch.Tensor]:
    if request.param == "random":
        return random_weights()
    return official_weights()


def official_weights() -> dict[str, torch.Tensor]:
    path = weights.find("mobile_sam")
    if path is None:
        pytest.skip("needs the official weights: seg3d models fetch mobile_sam")
    return {k: torch.from_numpy(np.array(v)) for k, v in read_torch_file(path).items()}


@contextmanager
def precision(dtype: torch.dtype) -> Iterator[None]:
    """Numbers that are made in here have this type."""
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


def forward_of(twin: Twin, image: torch.Tensor) -> list[np.ndarray]:
    """Embedding, logits (3, ...), predicted IoU and tokens of three clicks, by the twin."""
    embedding = twin.encode(image)
    each = [twin.decode(embedding, x, y, SIDE) for x, y in CLICKS]
    return [embedding[0].numpy(), *(torch.stack(parts).numpy() for parts in zip(*each, strict=True))]


def assert_agrees(tensors, make_backend, dtype: torch.dtype) -> None:
    """A backend against the twin in double precision: an image that needs window padding, three clicks at once.

    A backend in double precision must agree but for the rounding of what goes in and out. Single precision may be off
    by a few times what the twin is when it computes in single precision: random weights make steep attention, which
    magnifies the rounding of sums a thousandfold (tokens of size 4 are off by 1e-3); the official ones do not (3e-6).
    """
    image = torch.from_numpy(np.random.default_rng(0).standard_normal((1, 3, *SIZE)))
    with torch.inference_mode():
        single = forward_of(Twin(tensors), image.float()) if dtype == torch.float32 else None
        with precision(torch.float64):
            exact = {
                name: tensor.double() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()
            }
            expected = forward_of(Twin(exact), image)
        with precision(dtype):
            net = network_of(tensors).to(dtype)
            backend = make_backend(net)
            embedding = backend.encode(image.to(dtype))
            sparse = net.prompt_encoder.points(torch.tensor(CLICKS)[:, None], torch.ones(3, 1, dtype=torch.long), SIDE)
            found = (embedding, *backend.decode(embedding, sparse))
    for number, (ours, theirs) in enumerate(zip(found, expected, strict=True)):
        rounding = np.abs(single[number] - theirs).max() if single else 0.0
        np.testing.assert_allclose(ours, theirs, atol=8 * rounding + 1e-5, rtol=1e-6)


def test_names_and_shapes_are_those_of_the_official_file() -> None:
    own = {name: list(tensor.shape) for name, tensor in network.MobileSamNetwork().state_dict().items()}
    assert own == KEYS


def test_torch_agrees_with_the_literal_forward(tensors) -> None:
    for dtype in (torch.float64, torch.float32):
        assert_agrees(tensors, partial(backends.TorchBackend, size=SIZE, side=SIDE, device="cpu", dtype=dtype), dtype)


def test_onnx_agrees_with_the_literal_forward(tensors) -> None:
    pytest.importorskip("onnxruntime", reason="needs onnxruntime: pip install 'seg3d[sam]'")
    pytest.importorskip("onnx", reason="needs onnx: pip install 'seg3d[sam]'")
    assert_agrees(tensors, partial(backends.OnnxBackend, size=SIZE, side=SIDE), torch.float32)


@pytest.mark.gpu
def test_half_precision_on_a_gpu_finds_the_same_masks() -> None:
    """Of trained weights: random ones blow every rounding up, on a CPU too."""
    if not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    net, found = network_of(official_weights()), []
    image = torch.from_numpy(np.random.default_rng(0).standard_normal((1, 3, *SIZE))).float()
    sparse = net.prompt_encoder.points(torch.rand(200, 1, 2) * 96, torch.ones(200, 1, dtype=torch.long), SIDE)
    for device, kind in (("cpu", torch.float32), ("cuda", torch.float16)):
        backend = backends.TorchBackend(net, SIZE, SIDE, device, kind)
        found.append(backend.decode(backend.encode(image), sparse))
    assert ((found[0][0] > 0) == (found[1][0] > 0)).mean() > 0.99
    np.testing.assert_allclose(found[1][1], found[0][1], atol=0.05)


def test_positions_of_an_unpadded_image_are_the_upper_left_of_the_square_ones() -> None:
    encoder = network_of(random_weights()).prompt_encoder
    whole = encoder.dense_positions(8, 8, 8)
    assert torch.equal(encoder.dense_positions(6, 8, 8), whole[:, :, :6])


def test_boxes_are_two_corner_tokens() -> None:
    made = random_weights()
    encoder, twin = network_of(made).prompt_encoder, Twin(made)
    found = encoder.boxes(torch.tensor([[3.0, 4.0, 50.0, 60.0]]), SIDE)[0]
    for token, (x, y), name in zip(found, ((3, 4), (50, 60)), ("2", "3"), strict=True):
        expected = (
            twin.code((x + 0.5) / SIDE, (y + 0.5) / SIDE) + made[f"prompt_encoder.point_embeddings.{name}.weight"][0]
        )
        torch.testing.assert_close(token, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize(("shape", "square", "expected"), [
    ((240, 320), False, (96, 128)), ((240, 320), True, (128, 128)), ((33, 31), False, (128, 128)),
    ((1, 500), False, (16, 128)),
])  # fmt: skip
def test_images_are_scaled_and_filled_with_zeros(shape, square, expected) -> None:
    image = network.prepare(np.full((*shape, 3), 200, np.uint8), SIDE, square)
    assert image.shape == (1, 3, *expected)
    h, w = network.resized_size(*shape, SIDE)
    assert (image[:, :, h:] == 0).all() and (image[:, :, :, w:] == 0).all()
    for channel in range(3):
        grey = (200 - network.MEAN[channel]) / network.DEVIATION[channel]
        assert torch.allclose(image[0, channel, :h, :w], torch.tensor(grey))


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "sam.pt"
    torch.save(random_weights(), path)
    return path


def test_a_file_of_weights_loads(saved) -> None:
    assert len(list(network.load_network(saved).parameters())) > 100


def test_truncated_and_wrong_files_are_refused(saved, tmp_path) -> None:
    content = saved.read_bytes()
    for number, wrong in enumerate((content[: len(content) // 2], b"", b"no weights at all")):
        path = tmp_path / f"{number}.pt"
        path.write_bytes(wrong)
        with pytest.raises(WeightsError, match=str(path)):
            network.load_network(path)


def test_what_does_not_fit_is_listed(tmp_path) -> None:
    made = random_weights()
    del made["mask_decoder.iou_token.weight"]
    made["extra.weight"] = torch.zeros(3)
    made["mask_decoder.mask_tokens.weight"] = torch.zeros(3, 256)
    made["image_encoder.head.bias"] = torch.full((1000,), torch.nan)
    path = tmp_path / "sam.pt"
    torch.save(made, path)
    with pytest.raises(WeightsError) as caught:
        network.load_network(path)
    message = str(caught.value)
    for part in ("1 missing (mask_decoder.iou_token.weight)", "1 not known (extra.weight)", "not finite",
                 "mask_decoder.mask_tokens.weight (3, 256), expected (4, 256)"):  # fmt: skip
        assert part in message


def test_long_lists_are_cut(tmp_path) -> None:
    path = tmp_path / "sam.pt"
    torch.save({"a": torch.zeros(1)}, path)
    with pytest.raises(WeightsError, match=r"439 missing .* and 431 more"):
        network.load_network(path)
