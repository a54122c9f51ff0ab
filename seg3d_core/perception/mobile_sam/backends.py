# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Runs MobileSAM: with torch on a GPU, and on a CPU with torch or ONNX Runtime, whichever is faster there.

The choice is made once per machine, image size and versions by timing, and remembered in the user's cache folder.
"""

from __future__ import annotations

import contextlib
import copy
import importlib.metadata
import importlib.util
import io
import json
import logging
import platform
import time
import warnings
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from ...errors import WeightsError
from ...types import Array
from ..onnx_network import network_threads
from ..weights import atomic_file, cache_folder
from .network import STRIDE, MobileSamNetwork

log = logging.getLogger(__name__)

WHOLE, READINGS = 0, slice(1, 4)
"""Of the decoder's four outputs: the one for boxes, and the three readings of a click."""
_OPSET = 17
_ONLY_ERRORS = 3
_REPEATS = 3
# Names in torch.cpu that tell; older versions of torch lack some.
_BF16_INSTRUCTIONS = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
_CHOICES = "mobile_sam_backends.json"

Decoded = tuple[Array, Array, Array]


class Backend(Protocol):
    """One way of running the network, for inputs of one size (1, 3, h, w)."""

    name: str
    batch: int

    def encode(self, image: Tensor) -> Array:
        """The embedding, float32 (256, h / 16, w / 16)."""
        ...

    def decode(self, embedding: Array, sparse: Tensor) -> Decoded:
        """Logits (n, 4, h / 4, w / 4), predicted IoU (n, 4), mask tokens (n, 4, 256) of prompts (n, 2, 256)."""
        ...


class _Decoder(nn.Module):
    """The decoder with all that is the same for every prompt of an image."""

    def __init__(self, network: MobileSamNetwork, rows: int, columns: int, side: int):
        super().__init__()
        self.decoder = network.mask_decoder
        positions = network.prompt_encoder.dense_positions(rows, columns, side // STRIDE)
        self.register_buffer("positions", positions)
        self.register_buffer("dense", network.prompt_encoder.no_mask_embed.weight.detach().view(1, -1, 1, 1))

    def forward(self, embedding: Tensor, sparse: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.decoder(embedding, self.positions, sparse, self.dense)


class TorchBackend:
    """torch in a given precision on a given device."""

    def __init__(self, network: MobileSamNetwork, size: tuple[int, int], side: int, device: str, dtype: torch.dtype):
        self.name = f"torch {str(dtype).removeprefix('torch.')} on {device}"
        # Small batches stay in a CPU's cache.
        self.batch = 8 if device == "cpu" else 128
        self._device, self._dtype = torch.device(device), dtype
        self._encoder = _copied(network.image_encoder).to(self._device, dtype).to(memory_format=torch.channels_last)
        decoder = _Decoder(network, size[0] // STRIDE, size[1] // STRIDE, side)
        self._decoder = _copied(decoder).to(self._device, dtype)
        self._kept: tuple[Array, Tensor] | None = None

    @torch.inference_mode()
    def encode(self, image: Tensor) -> Array:
        image = image.to(self._device, self._dtype).contiguous(memory_format=torch.channels_last)
        on_device = self._encoder(image).contiguous()
        embedding = on_device[0].float().cpu().numpy()
        self._kept = embedding, on_device
        return embedding

    @torch.inference_mode()
    def decode(self, embedding: Array, sparse: Tensor) -> Decoded:
        if self._kept is None or self._kept[0] is not embedding:
            self._kept = embedding, torch.from_numpy(embedding)[None].to(self._device, self._dtype)
        found = self._decoder(self._kept[1], sparse.to(self._device, self._dtype))
        logits, iou, tokens = (t.float().cpu().numpy() for t in found)
        return logits, iou, tokens


class OnnxBackend:
    """ONNX Runtime on the CPU; the graphs are exported into memory."""

    name = "ONNX Runtime"
    batch = 8

    def __init__(self, network: MobileSamNetwork, size: tuple[int, int], side: int):
        rows, columns = size[0] // STRIDE, size[1] // STRIDE
        self._encoder = _session(network.image_encoder, (torch.zeros(1, 3, *size),), ["image"], ["embedding"], {})
        self._decoder = _session(
            _Decoder(network, rows, columns, side),
            (torch.zeros(1, 256, rows, columns), torch.zeros(3, 2, 256)),
            ["embedding", "sparse"],
            ["logits", "iou", "tokens"],
            {name: {0: "prompts"} for name in ("sparse", "logits", "iou", "tokens")},
        )

    def encode(self, image: Tensor) -> Array:
        return self._encoder.run(None, {"image": image.numpy()})[0][0]

    def decode(self, embedding: Array, sparse: Tensor) -> Decoded:
        logits, iou, tokens = self._decoder.run(None, {"embedding": embedding[None], "sparse": sparse.numpy()})
        return logits, iou, tokens


def choose_backend(
    network: MobileSamNetwork, size: tuple[int, int], side: int, device: Literal["auto", "cpu", "cuda"] = "auto"
) -> Backend:
    """The fastest way of running inputs (1, 3, h, w) of this size: half precision on a GPU, else what timing found.

    Raises WeightsError where a GPU is asked for and none is there.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise WeightsError("perception.device is `cuda`, but torch sees no GPU: set it to `auto` or `cpu`")
    if device != "cpu" and torch.cuda.is_available():
        return TorchBackend(network, size, side, "cuda", torch.float16)
    # Only as many threads as other networks take; torch would take every core.
    torch.set_num_threads(min(torch.get_num_threads(), network_threads()))
    names = _possible()
    if len(names) == 1:
        return _made(names[0], network, size, side)
    key = _machine(size)
    remembered = _choices().get(key)
    if remembered in names:
        return _made(remembered, network, size, side)
    backends = {name: _made(name, network, size, side) for name in names}
    seconds: dict[str, float] = {}
    for name, backend in backends.items():
        seconds[name] = _timed(backend, network, size, side, min(seconds.values(), default=float("inf")))
    best = min(seconds, key=lambda name: seconds[name])
    timings = ", ".join(f"{name} {1000 * s:.0f} ms" for name, s in seconds.items())
    log.info("MobileSAM at %d x %d: %s; takes %s from now on", size[1], size[0], timings, best)
    with contextlib.suppress(OSError), atomic_file(cache_folder() / _CHOICES) as file:
        file.write(json.dumps({**_choices(), key: best}, indent=0).encode())
    return backends[best]


def _possible() -> list[str]:
    """What a CPU can run. Without bfloat16 instructions that precision is emulated, several times slower."""
    names = ["onnx"] if all(importlib.util.find_spec(name) for name in ("onnxruntime", "onnx")) else []
    names.append("torch")
    if any(getattr(torch.cpu, name, bool)() for name in _BF16_INSTRUCTIONS):
        names.append("torch bfloat16")
    return names


def _made(name: str, network: MobileSamNetwork, size: tuple[int, int], side: int) -> Backend:
    if name == "onnx":
        return OnnxBackend(network, size, side)
    dtype = torch.bfloat16 if name.endswith("bfloat16") else torch.float32
    return TorchBackend(network, size, side, "cpu", dtype)


def _timed(backend: Backend, network: MobileSamNetwork, size: tuple[int, int], side: int, best: float) -> float:
    """Seconds for an image and one batch of clicks, the least of a few, after one that warms up.

    One that takes twice as long as the `best` so far is not tried again.
    """
    image = torch.zeros(1, 3, *size)
    xy = torch.rand(backend.batch, 1, 2) * torch.tensor([size[1], size[0]])
    sparse = network.prompt_encoder.points(xy, torch.ones(backend.batch, 1, dtype=torch.long), side)
    backend.decode(backend.encode(image), sparse)
    seconds: list[float] = []
    while len(seconds) < _REPEATS and (not seconds or seconds[-1] < 2 * best):
        start = time.perf_counter()
        backend.decode(backend.encode(image), sparse)
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def _machine(size: tuple[int, int]) -> str:
    """What the choice depends on."""
    versions = [f"torch {torch.__version__}"]
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        versions.append(f"onnxruntime {importlib.metadata.version('onnxruntime')}")
    where = f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}, {network_threads()} threads"
    return f"{platform.node()}, {where}, {size[1]} x {size[0]}, {', '.join(versions)}"


def _choices() -> dict[str, str]:
    try:
        stored = json.loads((cache_folder() / _CHOICES).read_text())
    except (OSError, ValueError):
        return {}
    return stored if isinstance(stored, dict) else {}


def _copied(module: nn.Module) -> nn.Module:
    return copy.deepcopy(module).eval()


def _session(
    module: nn.Module, inputs: tuple[Tensor, ...], names: list[str], outputs: list[str], dynamic: dict[str, Any]
) -> Any:
    import onnxruntime

    module = _copied(module)
    exported = io.BytesIO()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            inputs,
            exported,
            input_names=names,
            output_names=outputs,
            dynamic_axes=dynamic,
            opset_version=_OPSET,
            dynamo=False,
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = network_threads()
    options.inter_op_num_threads = 1
    options.log_severity_level = _ONLY_ERRORS
    # Waiting threads sleep: others work on the same cores.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(exported.getvalue(), options, providers=["CPUExecutionProvider"])
