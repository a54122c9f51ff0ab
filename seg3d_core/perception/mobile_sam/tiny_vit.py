# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""The image encoder of MobileSAM, TinyViT-5M; module names are those of the official checkpoint.

Nothing in the weights depends on the image's size: any height and width that are multiples of 16 do.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

WIDTHS = (64, 128, 160, 320)
DEPTHS = (2, 2, 6, 2)
HEADS = (2, 4, 5, 10)
WINDOWS = (7, 7, 14, 7)
MERGE_STRIDES = (2, 2, 1)
"""The last merging does not shrink, unlike TinyViT's for classification: the embedding has stride 16."""


class ConvBN(nn.Sequential):
    """A convolution without bias and its batch norm, named `c` and `bn`."""

    def __init__(self, cin: int, cout: int, kernel: int = 1, stride: int = 1, groups: int = 1):
        super().__init__()
        self.add_module("c", nn.Conv2d(cin, cout, kernel, stride, kernel // 2, groups=groups, bias=False))
        self.add_module("bn", nn.BatchNorm2d(cout))


class LayerNorm2d(nn.Module):
    """Layer norm over the channels of (B, C, H, W)."""

    def __init__(self, channels: int, eps: float = 1e-6):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        # The legacy ONNX exporter wants the shape from the weight, not from the input.
        x = functional.layer_norm(x.permute(0, 2, 3, 1), self.weight.shape, self.weight, self.bias, self.eps)
        return x.permute(0, 3, 1, 2)


class PatchEmbed(nn.Module):
    """(B, 3, H, W) to (B, width, H / 4, W / 4)."""

    def __init__(self, width: int):
        super().__init__()
        self.seq = nn.Sequential(ConvBN(3, width // 2, 3, 2), nn.GELU(), ConvBN(width // 2, width, 3, 2))

    def forward(self, x: Tensor) -> Tensor:
        return self.seq(x)


class MBConv(nn.Module):
    """Inverted bottleneck; the activation comes after the residual sum."""

    def __init__(self, width: int, expansion: int = 4):
        super().__init__()
        inner = width * expansion
        self.conv1 = ConvBN(width, inner)
        self.conv2 = ConvBN(inner, inner, 3, groups=inner)
        self.conv3 = ConvBN(inner, width)

    def forward(self, x: Tensor) -> Tensor:
        return functional.gelu(x + self.conv3(functional.gelu(self.conv2(functional.gelu(self.conv1(x))))))


class PatchMerging(nn.Module):
    """Changes the width, and shrinks by `stride`."""

    def __init__(self, cin: int, cout: int, stride: int):
        super().__init__()
        self.conv1 = ConvBN(cin, cout)
        self.conv2 = ConvBN(cout, cout, 3, stride, groups=cout)
        self.conv3 = ConvBN(cout, cout)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv3(functional.gelu(self.conv2(functional.gelu(self.conv1(x)))))


class WindowAttention(nn.Module):
    """Attention inside one window, with a learned bias per head and absolute offset."""

    def __init__(self, width: int, heads: int, window: int):
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.attention_biases = nn.Parameter(torch.zeros(heads, window * window))
        row, column = (t.reshape(-1) for t in torch.meshgrid(*2 * [torch.arange(window)], indexing="ij"))
        index = (row[:, None] - row).abs() * window + (column[:, None] - column).abs()
        self.register_buffer("index", index, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, C) to the same, N the cells of a window in row-major order."""
        b, n, c = x.shape
        # Each head's queries, keys and values lie together.
        qkv = self.qkv(self.norm(x)).view(b, n, self.heads, 3, c // self.heads)
        q, k, v = qkv.permute(3, 0, 2, 1, 4).unbind(0)
        bias = self.attention_biases[:, self.index].to(q.dtype)
        out = functional.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        return self.proj(out.transpose(1, 2).reshape(b, n, c))


class Mlp(nn.Module):
    """Norm, fourfold width, GELU."""

    def __init__(self, width: int, ratio: int = 4):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, width * ratio)
        self.fc2 = nn.Linear(width * ratio, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(functional.gelu(self.fc1(self.norm(x))))


class TinyViTBlock(nn.Module):
    """Windowed attention, a depthwise convolution without residual, and an MLP."""

    def __init__(self, width: int, heads: int, window: int):
        super().__init__()
        self.window = window
        self.attn = WindowAttention(width, heads, window)
        self.mlp = Mlp(width)
        self.local_conv = ConvBN(width, width, 3, groups=width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same."""
        b, c, h, w = x.shape
        s = self.window
        # Zeros at the right and bottom take part in the attention, as in training.
        down, right = -h % s, -w % s
        rows, columns = (h + down) // s, (w + right) // s
        cells = functional.pad(x, (0, right, 0, down)).permute(0, 2, 3, 1)
        cells = cells.reshape(b, rows, s, columns, s, c).transpose(2, 3).reshape(b * rows * columns, s * s, c)
        cells = self.attn(cells).view(b, rows, columns, s, s, c)
        cells = cells.transpose(2, 3).reshape(b, h + down, w + right, c)[:, :h, :w]
        x = self.local_conv(x + cells.permute(0, 3, 1, 2))
        return x + self.mlp(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Stage(nn.Module):
    """Blocks of one width, and the merging to the next."""

    def __init__(self, blocks: list[nn.Module], downsample: nn.Module | None):
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return x if self.downsample is None else self.downsample(x)


class TinyViT(nn.Module):
    """(B, 3, H, W), normalised, to the embedding (B, 256, H / 16, W / 16)."""

    def __init__(self) -> None:
        super().__init__()
        self.patch_embed = PatchEmbed(WIDTHS[0])
        self.layers = nn.ModuleList([_stage(i) for i in range(len(WIDTHS))])
        # Unused, but in the checkpoint.
        self.norm_head = nn.LayerNorm(WIDTHS[-1])
        self.head = nn.Linear(WIDTHS[-1], 1000)
        self.neck = nn.Sequential(
            nn.Conv2d(WIDTHS[-1], 256, 1, bias=False),
            LayerNorm2d(256),
            nn.Conv2d(256, 256, 3, padding=1, bias=False),
            LayerNorm2d(256),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch_embed(x)
        for stage in self.layers:
            x = stage(x)
        return self.neck(x)


def _stage(i: int) -> Stage:
    width = WIDTHS[i]
    blocks: list[nn.Module] = [
        TinyViTBlock(width, HEADS[i], WINDOWS[i]) if i else MBConv(width) for _ in range(DEPTHS[i])
    ]
    is_last = i == len(WIDTHS) - 1
    return Stage(blocks, None if is_last else PatchMerging(width, WIDTHS[i + 1], MERGE_STRIDES[i]))


def fold_batch_norm(module: nn.Module) -> None:
    """Replaces, in place and for inference only, every `ConvBN` inside by one convolution with bias."""
    for name, child in module.named_children():
        if isinstance(child, ConvBN):
            setattr(module, name, _folded(child.c, child.bn))
        else:
            fold_batch_norm(child)


def _folded(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> nn.Conv2d:
    out = nn.Conv2d(
        conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride, conv.padding, groups=conv.groups
    )
    with torch.no_grad():
        scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
        out.weight.copy_(conv.weight * scale[:, None, None, None])
        out.bias.copy_(norm.bias - norm.running_mean * scale)
    return out
