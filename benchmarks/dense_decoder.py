# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""The SegDINO3D decoder written down as it is specified: dense attention weights, a dense 2D mask in every layer.

The slow twin of `seg3d_core.models.decoder`: it shares its parameters and none of its code. Box models only.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from seg3d_core.models.decoder import Decoder, DecoderInput


class DenseDecoder:
    """Final class logits, mask logits, centres and sizes (metres) of all superpoints as queries."""

    def __init__(self, decoder: Decoder):
        self.parts = decoder
        self.is_normalised = decoder.settings.sizes == "normalised"

    @torch.no_grad()
    def __call__(self, scene: DecoderInput) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        p = self.parts
        memory, content = p.memory_projection(scene.features), p.query_projection(scene.features)
        mask_features = p.heads.mask_features(scene.features)
        extent = scene.high - scene.low
        centres, sizes = scene.positions, torch.full_like(scene.positions, 0.5)
        if self.is_normalised:
            sizes = sizes / extent
        keys_2d = torch.cat((scene.queries_2d, torch.ones(1, content.shape[1])))
        for layer in p.layers:
            logits = p.heads.norm(content) @ mask_features.T
            blocked = logits.sigmoid() < 0.5
            blocked[blocked.all(dim=1)] = False
            modulation = p.modulation.head(content).sigmoid() / sizes
            encoding = encode(centres, scene.low, scene.high, modulation)
            place = p.reference_point(encoding)
            memory_place = encode(scene.positions, scene.low, scene.high, torch.ones_like(scene.positions))
            content = cross(layer.cross_attention, content, encoding, place, memory, memory_place, blocked)
            content = among(layer.self_attention, content, place)
            distance = (scene.undeformed[:, None] - scene.query_2d_positions[None]).abs().sum(dim=2)
            reached = (~blocked).float() @ (distance < 0.2).float()
            hidden = torch.cat((reached == 0, torch.zeros(len(content), 1, dtype=torch.bool)), dim=1)
            content = packed(layer.cross_attention_2d, content, keys_2d, hidden)
            content = layer.feed_forward(content)
            centres = centres + layer.box_update.centre(content)
            change = layer.box_update.size(content)
            if self.is_normalised:
                share = sizes.clamp(0, 1)
                sizes = (torch.log(share.clamp(min=1e-5) / (1 - share).clamp(min=1e-5)) + change).sigmoid()
            else:
                sizes = sizes + change
        content = p.heads.norm(content)
        metres = sizes * extent if self.is_normalised else sizes
        return p.heads.classes(content), content @ mask_features.T, centres, metres


def encode(positions: Tensor, low: Tensor, high: Tensor, modulation: Tensor) -> Tensor:
    """Sines and cosines of each axis, 86, 86 and 84 of them."""
    parts = []
    for axis, count in enumerate((86, 86, 84)):
        phase = (positions[:, axis] - low[axis]) / (high[axis] - low[axis]) * (2 * math.pi)
        columns = []
        for t in range(count):
            angle = phase / 20 ** (2 * (t // 2) / count)
            columns.append((angle.sin() if t % 2 == 0 else angle.cos()) * modulation[:, axis])
        parts.append(torch.stack(columns, dim=1))
    return torch.cat(parts, dim=1)


def heads_of(x: Tensor) -> Tensor:
    """(n, D) -> (8, n, D / 8)."""
    return x.unflatten(1, (8, -1)).transpose(0, 1)


def weighted(query: Tensor, key: Tensor, value: Tensor, blocked: Tensor | None) -> Tensor:
    logits = query @ key.transpose(1, 2) / math.sqrt(query.shape[2])
    if blocked is not None:
        logits = logits.masked_fill(blocked, float("-inf"))
    return (logits.softmax(dim=2) @ value).transpose(0, 1).flatten(1)


def cross(
    part: nn.Module,
    content: Tensor,
    encoding: Tensor,
    place: Tensor,
    memory: Tensor,
    memory_place: Tensor,
    blocked: Tensor,
) -> Tensor:
    query, key, key_place = part.query_content(content), part.key_content(memory), part.key_position(memory_place)
    if part.query_position is not None:
        query, key = query + part.query_position(place), key + key_place
    query = torch.cat((heads_of(query), heads_of(part.query_encoding(encoding))), dim=2)
    key = torch.cat((heads_of(key), heads_of(key_place)), dim=2)
    return part.norm(content + part.out_proj(weighted(query, key, heads_of(part.value(memory)), blocked)))


def among(part: nn.Module, content: Tensor, place: Tensor) -> Tensor:
    query = heads_of(part.query_content(content) + part.query_position(place))
    key = heads_of(part.key_content(content) + part.key_position(place))
    return part.norm(content + part.out_proj(weighted(query, key, heads_of(part.value(content)), None)))


def packed(part: nn.Module, content: Tensor, keys: Tensor, hidden: Tensor) -> Tensor:
    projected = []
    for number, x in enumerate((content, keys, keys)):
        rows = slice(number * 256, (number + 1) * 256)
        projected.append(heads_of(functional.linear(x, part.attn.in_proj_weight[rows], part.attn.in_proj_bias[rows])))
    return part.norm(content + part.attn.out_proj(weighted(*projected, hidden)))
