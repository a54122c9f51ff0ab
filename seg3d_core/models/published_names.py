# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""How parameters are called in the published weights, and here. Backbones carry the published names already."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

T = TypeVar("T")

# Published name of a decoder's part -> ours. Parts of a layer carry the layer's number behind their name.
_SHARED = {
    "input_proj": "memory_projection",
    "query_proj": "query_projection",
    "x_mask": "heads.mask_features",
    "out_norm": "heads.norm",
    "out_cls": "heads.classes",
    "out_sem": "heads.semantic",
    "ref_point_head": "reference_point",
    "ref_anchor_head": "modulation.head",
    "ca_qpos_proj": "layers.0.cross_attention.query_position",
}
_OF_LAYER = {
    "ca_qcontent_proj": "cross_attention.query_content",
    "ca_qpos_sine_proj": "cross_attention.query_encoding",
    "ca_kcontent_proj": "cross_attention.key_content",
    "ca_kpos_proj": "cross_attention.key_position",
    "ca_v_proj": "cross_attention.value",
    "cross_attn_layers": "cross_attention",
    "norm1": "cross_attention.norm",
    "sa_qcontent_proj": "self_attention.query_content",
    "sa_qpos_proj": "self_attention.query_position",
    "sa_kcontent_proj": "self_attention.key_content",
    "sa_kpos_proj": "self_attention.key_position",
    "sa_v_proj": "self_attention.value",
    "self_attn_layers": "self_attention",
    "norm2": "self_attention.norm",
    "dinox_query_cross_attn_layers": "cross_attention_2d",
    "ffn_layers": "feed_forward",
    "bbox_embed": "box_update.centre",
    "bbox_size_embed": "box_update.size",
}
# The decoder without positions keeps its norms inside its attentions, under our own names for them.
_INSIDE_ATTENTION = ("cross_attention.norm", "self_attention.norm")


def our_name(published: str) -> str:
    """E.g. `decoder.ca_v_proj.3.bias` -> `decoder.layers.3.cross_attention.value.bias`. Others stay as they are."""
    top, _, rest = published.partition(".")
    part, _, inner = rest.partition(".")
    if top != "decoder":
        return published
    if part in _SHARED:
        return f"decoder.{_SHARED[part]}.{inner}"
    number, _, leaf = inner.partition(".")
    return f"decoder.layers.{number}.{_OF_LAYER[part]}.{leaf}" if part in _OF_LAYER else published


def published_name(ours: str, has_positions: bool = True) -> str:
    """The inverse of `our_name`. `has_positions` is the architecture's `centre_encoding`."""
    if not ours.startswith("decoder."):
        return ours
    name = ours.removeprefix("decoder.")
    for part, prefix in _SHARED.items():
        if name.startswith(prefix + "."):
            return f"decoder.{part}{name.removeprefix(prefix)}"
    _, number, inner = name.split(".", 2)
    for part, prefix in sorted(_OF_LAYER.items(), key=lambda item: -len(item[1])):
        if inner.startswith(prefix + ".") and (has_positions or prefix not in _INSIDE_ATTENTION):
            return f"decoder.{part}.{number}{inner.removeprefix(prefix)}"
    return ours


def to_ours(state: Mapping[str, T]) -> dict[str, T]:
    """A published state dict under our names, `module.` of distributed training stripped."""
    return {our_name(name.removeprefix("module.")): value for name, value in state.items()}


def to_published(state: Mapping[str, T]) -> dict[str, T]:
    """A state dict of ours under the published names."""
    has_positions = any(".cross_attention.key_position." in name for name in state)
    return {published_name(name, has_positions): value for name, value in state.items()}
