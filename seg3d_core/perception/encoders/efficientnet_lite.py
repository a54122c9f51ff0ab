# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""EfficientNet-lite0 (ImageNet-1k) as an ONNX graph, from the parameters of the published checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...errors import WeightsError
from ...torch_file import read_torch_file
from ...types import Array
from ..onnx_network import Graph, Network

INPUT_SIZE = 224
# TensorFlow's epsilon, which the weights were trained with; torch's default is 1e-5.
_EPSILON = 1e-3


@dataclass(frozen=True)
class Stage:
    """A row of inverted bottlenecks; the first of them has the stride."""

    repeats: int
    kernel: int
    stride: int
    expansion: int
    width: int


LITE0 = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)


def same_padding(size: tuple[int, int], kernel: int, stride: int) -> list[int]:
    """TensorFlow's SAME padding of (H, W) as [top, left, bottom, right]: the odd pixel goes to right and bottom."""
    total = [max((-(-n // stride) - 1) * stride + kernel - n, 0) for n in size]
    return [*(n // 2 for n in total), *(n - n // 2 for n in total)]


def fold_batch_norm(weight: Array, gain: Array, bias: Array, mean: Array, variance: Array) -> tuple[Array, Array]:
    """Weight (O, I, k, k) and bias (O,) of the convolution that does what convolution and norm do."""
    scale = gain / np.sqrt(variance + np.float32(_EPSILON))
    return weight * scale[:, None, None, None], bias - mean * scale


class EfficientNetLite:
    """Normalised float32 images (B, 3, H, W) of one size to logits (B, classes)."""

    def __init__(
        self,
        weights: Mapping[str, Array],
        stages: tuple[Stage, ...] = LITE0,
        size: tuple[int, int] = (INPUT_SIZE, INPUT_SIZE),
    ):
        """`weights` by their names in the checkpoint. Raises KeyError where one is missing."""
        self._network = _Builder(weights, size).network(stages)

    def __call__(self, images: Array) -> Array:
        """Logits float32 (B, classes)."""
        return self._network(images=images)


class _Builder:
    """Puts the graph together; knows how large the features are by then."""

    def __init__(self, weights: Mapping[str, Array], size: tuple[int, int]):
        self._weights = weights
        self._size = size
        self._graph = Graph({"images": (np.float32, ("batch", 3, *size))})

    def network(self, stages: tuple[Stage, ...]) -> Network:
        x = self._convolve("images", "_conv_stem", "_bn0", stride=2)
        number = 0
        for stage in stages:
            for repeat in range(stage.repeats):
                x = self._bottleneck(x, f"_blocks.{number}.", stage.stride if repeat == 0 else 1, stage.expansion)
                number += 1
        x = self._graph.add("GlobalAveragePool", self._convolve(x, "_conv_head", "_bn1"))
        parameters = (self._graph.constant(self._weights[f"_fc.{name}"]) for name in ("weight", "bias"))
        logits = self._graph.add("Gemm", self._graph.add("Flatten", x), *parameters, transB=1)
        return self._graph.network(logits, "EfficientNet-lite")

    def _bottleneck(self, x: str, block: str, stride: int, expansion: int) -> str:
        """Expand, depthwise, project; residual where shape allows. No squeeze and excitation in the lite family."""
        y = self._convolve(x, block + "_expand_conv", block + "_bn0") if expansion > 1 else x
        y = self._convolve(y, block + "_depthwise_conv", block + "_bn1", stride, depthwise=True)
        y = self._convolve(y, block + "_project_conv", block + "_bn2", clipped=False)
        width_in = len(self._weights[block + "_depthwise_conv.weight"]) // expansion
        width_out = len(self._weights[block + "_project_conv.weight"])
        return self._graph.add("Add", x, y) if stride == 1 and width_in == width_out else y

    def _convolve(
        self, x: str, convolution: str, norm: str, stride: int = 1, depthwise: bool = False, clipped: bool = True
    ) -> str:
        """Convolution and batch norm in one, then what of it lies between 0 and 6."""
        weight = self._weights[convolution + ".weight"]
        kernel = int(weight.shape[-1])
        names = ("weight", "bias", "running_mean", "running_var")
        folded = fold_batch_norm(weight, *(self._weights[f"{norm}.{name}"] for name in names))
        y = self._graph.add(
            "Conv",
            x,
            *map(self._graph.constant, folded),
            kernel_shape=[kernel, kernel],
            strides=[stride, stride],
            pads=same_padding(self._size, kernel, stride),
            group=len(weight) if depthwise else 1,
        )
        height, width = self._size
        self._size = (-(-height // stride), -(-width // stride))
        if not clipped:
            return y
        limits = (self._graph.constant(np.float32(limit)) for limit in (0, 6))
        return self._graph.add("Clip", y, *limits)


def load(path: Path) -> EfficientNetLite:
    """EfficientNet-lite0 from the published checkpoint. Raises WeightsError."""
    weights = read_torch_file(path)
    try:
        return EfficientNetLite(weights)
    except WeightsError:
        raise
    except Exception as error:
        raise WeightsError(f"{path} is no EfficientNet-lite0 checkpoint ({error}): fetch it again") from error
