# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""The architecture that weights belong to, from the names and shapes of their tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from ..errors import WeightsError
from .architecture import CENTRED_POSITION, COLOURS, IMAGE_FEATURES, Architecture

Shapes = Mapping[str, Sequence[int]]
BackboneKind = Literal["minkowski", "spconv", "mlp"]

NOT_IN_SHAPES = ("distance_mask", "distance_threshold", "heads", "sizes", "temperature", "voxel_size")
"""Fields of `Architecture` that no tensor tells."""

# The first weight of each backbone.
_STEMS: dict[BackboneKind, str] = {
    "minkowski": "backbone.conv0p1s1.kernel",
    "spconv": "backbone.input_conv.0.weight",
    "mlp": "backbone.mlp.layers.0.weight",
}


def recover_architecture(shapes: Shapes) -> tuple[Architecture, list[str]]:
    """The architecture behind a state dict under our names, and sentences on what its shapes could not tell.

    Raises WeightsError where the tensors are not those of a whole SegDINO3D network.
    """
    backbone, in_channels = recover_backbone(shapes)
    width = _shape(shapes, "decoder.heads.norm.weight")[0]
    has_boxes = "decoder.layers.0.box_update.size.layers.0.weight" in shapes
    sizes: Literal["normalised", "metric"] = "metric" if backbone == "spconv" else "normalised"
    notes = ["the number of attention heads cannot be told from shapes: 8, as published"]
    if has_boxes:
        notes.append(f"box sizes cannot be told from shapes: {sizes}, as published with the {backbone} backbone")
    position = CENTRED_POSITION if backbone == "spconv" else 0
    if in_channels not in (COLOURS + position, COLOURS + position + IMAGE_FEATURES):
        raise WeightsError(
            f"a {backbone} backbone of {in_channels} input channels is none of ours: {COLOURS + position} without "
            f"image features, {COLOURS + position + IMAGE_FEATURES} with them"
        )
    levels, blocks = Architecture.levels, Architecture.blocks
    if backbone == "spconv":
        levels, blocks = _levels_and_blocks(shapes)
    architecture = Architecture(
        backbone,
        thing_classes=_shape(shapes, "decoder.heads.classes.2.weight")[0] - 1,
        semantic_classes=_shape(shapes, "decoder.heads.semantic.weight")[0] - 1,
        feature_channels=_shape(shapes, "decoder.memory_projection.0.weight")[1],
        image_features=in_channels > COLOURS + position,
        late_image_features=any(name.startswith("late_fusion.") for name in shapes),
        object_queries=any(".cross_attention_2d." in name for name in shapes),
        centre_encoding="decoder.reference_point.layers.0.weight" in shapes,
        box_regression=has_boxes,
        box_modulation="decoder.modulation.head.layers.0.weight" in shapes,
        sizes=sizes,
        layers=len({name.split(".")[2] for name in shapes if name.startswith("decoder.layers.")}),
        width=width,
        feed_forward_width=_shape(shapes, "decoder.layers.0.feed_forward.net.0.weight")[0],
        levels=levels,
        blocks=blocks,
    )
    return architecture, notes


def _levels_and_blocks(shapes: Shapes) -> tuple[int, int]:
    """Of a spconv U-Net: each level holds the next one as its `u`."""
    levels = max(name.split(".").count("u") for name in shapes if name.startswith("backbone.")) + 1
    blocks = {name.split(".")[2] for name in shapes if name.startswith("backbone.blocks.")}
    return levels, len(blocks)


def recover_backbone(shapes: Shapes) -> tuple[BackboneKind, int]:
    """Which 3D network, and its input channels. Raises WeightsError where it is none of ours."""
    for kind, name in _STEMS.items():
        if name in shapes:
            return kind, _stem_channels(kind, tuple(shapes[name]))
    raise WeightsError(
        f"these are no weights of SegDINO3D: none of {', '.join(_STEMS.values())}, a backbone's first, is there"
    )


def is_stem(name: str) -> bool:
    """Whether a tensor depends on the number of input channels."""
    return name in _STEMS.values()


def _stem_channels(kind: BackboneKind, shape: tuple[int, ...]) -> int:
    if len(shape) != {"minkowski": 3, "spconv": 5, "mlp": 2}[kind]:
        raise WeightsError(f"{_STEMS[kind]} has the shape {shape}, which is no first layer of a {kind} backbone")
    # spconv before version 2 stored (k, k, k, in, out).
    is_old = kind == "spconv" and shape[:3] == (3, 3, 3) and shape[1:4] != (3, 3, 3)
    return shape[3] if is_old else shape[-2 if kind == "minkowski" else -1]


def _shape(shapes: Shapes, name: str) -> tuple[int, ...]:
    if name not in shapes:
        raise WeightsError(f"no whole SegDINO3D network: {name} is missing")
    return tuple(shapes[name])
