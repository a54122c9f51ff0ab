"""EfficientNet-lite0 (ImageNet-1k) in plain torch, with the parameter names of the published checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ...errors import WeightsError

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


def pad_same(x: torch.Tensor, kernel: int, stride: int) -> torch.Tensor:
    """TensorFlow's SAME padding of (B, C, H, W): the odd pixel goes to the right and the bottom."""
    height, width = (max((-(-n // stride) - 1) * stride + kernel - n, 0) for n in x.shape[-2:])
    return functional.pad(x, (width // 2, width - width // 2, height // 2, height - height // 2))


class InvertedBottleneck(nn.Module):  # type: ignore[misc]
    """Expand, depthwise, project; residual where shape allows. No squeeze and excitation in the lite family."""

    def __init__(self, width_in: int, width_out: int, kernel: int, stride: int, expansion: int):
        super().__init__()
        middle = width_in * expansion
        self.kernel, self.stride, self.expansion = kernel, stride, expansion
        self.residual = stride == 1 and width_in == width_out
        if expansion > 1:
            self._expand_conv = nn.Conv2d(width_in, middle, 1, bias=False)
            self._bn0 = nn.BatchNorm2d(middle, eps=_EPSILON)
        self._depthwise_conv = nn.Conv2d(middle, middle, kernel, stride, groups=middle, bias=False)
        self._bn1 = nn.BatchNorm2d(middle, eps=_EPSILON)
        self._project_conv = nn.Conv2d(middle, width_out, 1, bias=False)
        self._bn2 = nn.BatchNorm2d(width_out, eps=_EPSILON)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = functional.relu6(self._bn0(self._expand_conv(x))) if self.expansion > 1 else x
        y = functional.relu6(self._bn1(self._depthwise_conv(pad_same(y, self.kernel, self.stride))))
        y = self._bn2(self._project_conv(y))
        return x + y if self.residual else y


class EfficientNetLite(nn.Module):  # type: ignore[misc]
    """(B, 3, H, W) normalised images to logits (B, classes)."""

    def __init__(self, stages: tuple[Stage, ...] = LITE0, stem: int = 32, head: int = 1280, classes: int = 1000):
        super().__init__()
        self._conv_stem = nn.Conv2d(3, stem, 3, 2, bias=False)
        self._bn0 = nn.BatchNorm2d(stem, eps=_EPSILON)
        blocks, width = [], stem
        for stage in stages:
            for i in range(stage.repeats):
                stride = stage.stride if i == 0 else 1
                blocks.append(InvertedBottleneck(width, stage.width, stage.kernel, stride, stage.expansion))
                width = stage.width
        self._blocks = nn.ModuleList(blocks)
        self._conv_head = nn.Conv2d(width, head, 1, bias=False)
        self._bn1 = nn.BatchNorm2d(head, eps=_EPSILON)
        self._fc = nn.Linear(head, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.relu6(self._bn0(self._conv_stem(pad_same(x, 3, 2))))
        for block in self._blocks:
            x = block(x)
        return self._fc(functional.relu6(self._bn1(self._conv_head(x))).mean((2, 3)))


def fold_batch_norms(network: EfficientNetLite) -> EfficientNetLite:
    """The same function with every batch norm folded into its convolution; evaluation only."""
    pairs = {
        "_conv_stem": "_bn0",
        "_expand_conv": "_bn0",
        "_depthwise_conv": "_bn1",
        "_project_conv": "_bn2",
        "_conv_head": "_bn1",
    }
    network = network.eval()
    for module in [network, *network._blocks]:
        for convolution, norm in pairs.items():
            if hasattr(module, convolution):
                fused = fuse_conv_bn_eval(getattr(module, convolution), getattr(module, norm))
                setattr(module, convolution, fused)
                setattr(module, norm, nn.Identity())
    return network


def load(path: Path) -> EfficientNetLite:
    """EfficientNet-lite0 from the published checkpoint, ready for evaluation. Raises WeightsError."""
    network = EfficientNetLite()
    try:
        network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:
        raise WeightsError(f"{path} is no EfficientNet-lite0 checkpoint ({error}): fetch it again") from error
    return fold_batch_norms(network).to(memory_format=torch.channels_last)
