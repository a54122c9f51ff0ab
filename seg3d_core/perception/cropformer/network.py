# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""The whole network, and its sizes read off a checkpoint's tensors."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from .decoder import MaskedDecoder, Predictions
from .hornet import HorNet, HorNetShape
from .pixel_decoder import PixelDecoder
from .swin import Swin, SwinShape

Shapes = Mapping[str, tuple[int, ...]]

_PIXEL = "sem_seg_head.pixel_decoder."
_PREDICTOR = "sem_seg_head.predictor."
# A damaged or hostile file must not make us build millions of layers.
_MOST_LAYERS = 100


@dataclass(frozen=True)
class NetworkShape:
    """Every size of the network; `associates` is True for CropFormer, False for a plain Mask2Former."""

    backbone: HorNetShape | SwinShape
    width: int = 256
    mask_width: int = 256
    encoder_inner: int = 1024
    encoder_depth: int = 6
    queries: int = 200
    inner: int = 2048
    depth: int = 9
    associates: bool = False

    @classmethod
    def of(cls, shapes: Shapes) -> NetworkShape:
        """From {name: shape} of a checkpoint. KeyError or ValueError where one that tells a size is missing."""
        mask_width, width = shapes[_PIXEL + "mask_features.weight"][:2]
        return cls(
            backbone=_swin(shapes) if _count(shapes, r"backbone\.layers\.(\d+)\.") else _hornet(shapes),
            width=width,
            mask_width=mask_width,
            encoder_inner=shapes[_PIXEL + "transformer.encoder.layers.0.linear1.weight"][0],
            encoder_depth=_count(shapes, re.escape(_PIXEL) + r"transformer\.encoder\.layers\.(\d+)\."),
            queries=shapes[_PREDICTOR + "query_feat.weight"][0],
            inner=shapes[_PREDICTOR + "transformer_ffn_layers.0.linear1.weight"][0],
            depth=_count(shapes, re.escape(_PREDICTOR) + r"transformer_ffn_layers\.(\d+)\."),
            associates=any(name.startswith(_PREDICTOR + "make_3d.") for name in shapes),
        )


def _count(shapes: Shapes, pattern: str) -> int:
    count = 1 + max((int(m[1]) for name in shapes if (m := re.match(pattern, name))), default=-1)
    if count > _MOST_LAYERS:
        raise ValueError(f"a layer numbered {count - 1}")
    return count


def _hornet(shapes: Shapes) -> HorNetShape:
    stage = r"backbone\.stages\.{}\."
    names = [f"backbone.stages.{i}.0.gnconv." for i in range(4)]
    filters = [shapes.get(name + "dwconv.complex_weight") for name in names]
    return HorNetShape(
        shapes["backbone.downsample_layers.0.0.weight"][0],
        tuple(_count(shapes, stage.format(i) + r"(\d+)\.") for i in range(4)),
        tuple(1 + _count(shapes, re.escape(name) + r"pws\.(\d+)\.") for name in names),
        tuple(None if f is None else (f[1], f[2]) for f in filters),
    )


def _swin(shapes: Shapes) -> SwinShape:
    tables = [shapes[f"backbone.layers.{i}.blocks.0.attn.relative_position_bias_table"] for i in range(4)]
    return SwinShape(
        shapes["backbone.patch_embed.proj.weight"][0],
        tuple(_count(shapes, rf"backbone\.layers\.{i}\.blocks\.(\d+)\.") for i in range(4)),
        tuple(table[1] for table in tables),
        (int(tables[0][0] ** 0.5) + 1) // 2,
    )


class _Head(nn.Module):
    def __init__(self, shape: NetworkShape):
        super().__init__()
        self.pixel_decoder = PixelDecoder(
            shape.backbone.widths, shape.width, shape.mask_width, shape.encoder_inner, shape.encoder_depth
        )
        self.predictor = MaskedDecoder(
            shape.width, shape.mask_width, shape.queries, shape.inner, shape.depth, shape.associates
        )


class EntityNetwork(nn.Module):
    """Normalised views (V, 3, H, W) of one image, H and W multiples of 32, to predictions."""

    def __init__(self, shape: NetworkShape):
        super().__init__()
        self.shape = shape
        self.backbone = Swin(shape.backbone) if isinstance(shape.backbone, SwinShape) else HorNet(shape.backbone)
        self.sem_seg_head = _Head(shape)

    def forward(self, views: Tensor) -> Predictions:
        return self.sem_seg_head.predictor(*self.sem_seg_head.pixel_decoder(self.backbone(views)))
