# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""The SegDINO3D decoder: superpoints become queries that carry content and a box, refined by every layer.

A layer is 3D cross-attention, self-attention, 2D cross-attention, feed-forward and box update, in the order of the
release; the paper's text puts self-attention after the 2D cross-attention.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from .architecture import IMAGE_FEATURES, Architecture
from .attention import (
    BoxModulatedCrossAttention,
    DistanceAwareCrossAttention,
    FeedForward,
    MaskedCrossAttention,
    PositionedSelfAttention,
    SelfAttention,
)
from .boxes import Boxes, BoxModulation, BoxUpdate, Mlp, initial_boxes, size_in_metres
from .heads import Prediction, PredictionHeads, attention_mask
from .positional import SinePositionalEncoding
from .reachability import Reachability, with_dummy


@dataclass(frozen=True, eq=False)
class DecoderInput:
    """One scene of S superpoints and O 2D object queries, float32.

    `positions` (S, 3) are where queries and keys lie (deformed in training), `undeformed` (S, 3) what is compared
    with `query_2d_positions` (O, 3); `low` and `high` (3,) the range of the points; metres.
    """

    features: Tensor
    positions: Tensor
    undeformed: Tensor
    low: Tensor
    high: Tensor
    queries_2d: Tensor
    query_2d_positions: Tensor


@dataclass(frozen=True, eq=False)
class DecoderOutput:
    """`final` is the last layer's; `auxiliary` are those before it, first the initial content's, or () where they
    were not asked for. Semantic logits (M, G + 1); `query_ids` int64 (M,) are the queries' superpoints."""

    final: Prediction
    auxiliary: tuple[Prediction, ...]
    semantic_logits: Tensor
    query_ids: Tensor

    def float(self) -> DecoderOutput:
        """In single precision, of a network that computed in another."""
        predictions = [each.float() for each in (*self.auxiliary, self.final)]
        return replace(
            self, final=predictions[-1], auxiliary=tuple(predictions[:-1]), semantic_logits=self.semantic_logits.float()
        )


@dataclass(frozen=True, eq=False)
class _SceneState:
    """What all layers share: the keys (S, D), their encodings, mask features, and the 2D side."""

    memory: Tensor
    memory_encoding: Tensor | None
    mask_features: Tensor
    queries_2d: Tensor | None
    reachability: Reachability | None


class DecoderLayer(nn.Module):
    """One layer; which attentions it has is the architecture's choice."""

    def __init__(self, settings: Architecture, is_first: bool):
        super().__init__()
        width, heads = settings.width, settings.heads
        self.box_update: BoxUpdate | None = None
        if settings.centre_encoding:
            self.cross_attention: nn.Module = BoxModulatedCrossAttention(width, heads, is_first)
            self.self_attention: nn.Module = PositionedSelfAttention(width, heads)
            self.box_update = BoxUpdate(width, settings.sizes, settings.box_regression)
        else:
            self.cross_attention = MaskedCrossAttention(width, heads)
            self.self_attention = SelfAttention(width, heads)
        self.cross_attention_2d = DistanceAwareCrossAttention(width, heads) if settings.object_queries else None
        self.feed_forward = FeedForward(width, settings.feed_forward_width)

    def forward(
        self, content: Tensor, encoding: Tensor | None, position: Tensor | None, scene: _SceneState, allowed: Tensor
    ) -> Tensor:
        """Content (M, D); encoding and position (M, D) of the queries' boxes or none; `allowed` bool (M, S)."""
        if encoding is None:
            content = self.self_attention(self.cross_attention(content, scene.memory, allowed))
        else:
            keys = (scene.memory, scene.memory_encoding)
            content = self.cross_attention(content, encoding, position, *keys, allowed)
            content = self.self_attention(content, position)
        if self.cross_attention_2d is not None:
            visible = None if scene.reachability is None else scene.reachability.visible(allowed)
            content = self.cross_attention_2d(content, scene.queries_2d, visible)
        return self.feed_forward(content)


class Decoder(nn.Module):
    """Superpoint features to predictions (SegDINO3D sec. 3.3)."""

    def __init__(self, settings: Architecture):
        super().__init__()
        self.settings = settings
        channels, width = settings.feature_channels, settings.width
        self.memory_projection = nn.Sequential(nn.Linear(channels, width), nn.LayerNorm(width), nn.ReLU())
        self.query_projection = nn.Sequential(nn.Linear(channels, width), nn.ReLU(), nn.Linear(width, width))
        self.heads = PredictionHeads(channels, width, settings.thing_classes, settings.semantic_classes)
        self.layers = nn.ModuleList(DecoderLayer(settings, i == 0) for i in range(settings.layers))
        self.queries_2d_projection = None
        if settings.object_queries and width != IMAGE_FEATURES:
            # The published network is as wide as the 2D model's queries.
            self.queries_2d_projection = nn.Linear(IMAGE_FEATURES, width)
        self.encoding = self.reference_point = self.modulation = None
        if settings.centre_encoding:
            self.encoding = SinePositionalEncoding(width, settings.temperature)
            self.reference_point = Mlp(width, width, width)
        if settings.box_modulation:
            self.modulation = BoxModulation(width)

    def forward(self, scene: DecoderInput, query_ids: Tensor | None = None, auxiliary: bool = False) -> DecoderOutput:
        """`query_ids` int64 (M,) are the superpoints that become queries, by default all, in order.

        `auxiliary` keeps the predictions before the last: training needs them, (M, S) logits each.
        """
        if query_ids is None:
            query_ids = torch.arange(len(scene.features), device=scene.features.device)
        state = self._scene_state(scene)
        content = self.query_projection(scene.features[query_ids])
        boxes = initial_boxes(scene.positions[query_ids], scene.low, scene.high, self.settings.sizes)
        has_boxes = self.encoding is not None
        kept: list[Prediction] = []
        if auxiliary:
            kept.append(self.heads.predict(content, state.mask_features))
        for number, layer in enumerate(self.layers):
            allowed = attention_mask(kept[-1].mask_logits) if auxiliary else self._masks(content, state)
            content = layer(content, *self._place(content, boxes, scene), state, allowed)
            if layer.box_update is not None:
                boxes = layer.box_update(content, boxes.detach())
            if auxiliary or number == len(self.layers) - 1:
                prediction = self.heads.predict(content, state.mask_features)
                kept.append(self._with_boxes(prediction, boxes, scene) if has_boxes else prediction)
        return DecoderOutput(kept[-1], tuple(kept[:-1]), self.heads.semantic_logits(content), query_ids)

    @torch.no_grad()
    def most_certain(self, scene: DecoderInput, count: int) -> Tensor:
        """The `count` superpoints whose features alone give the largest probability of a class, int64, best first."""
        content = self.heads.norm(self.query_projection(scene.features))
        certainty = self.heads.classes(content).softmax(dim=1)[:, :-1].amax(dim=1)
        return certainty.topk(min(count, len(certainty))).indices

    def _scene_state(self, scene: DecoderInput) -> _SceneState:
        memory = self.memory_projection(scene.features)
        encoding = None
        if self.encoding is not None:
            encoding = self.encoding(scene.positions, scene.low, scene.high)
        queries_2d, reachability = None, None
        if self.settings.object_queries:
            queries_2d = scene.queries_2d
            if self.queries_2d_projection is not None:
                queries_2d = self.queries_2d_projection(queries_2d)
            if self.settings.distance_mask:
                queries_2d = with_dummy(queries_2d)
                threshold = self.settings.distance_threshold
                reachability = Reachability(scene.undeformed, scene.query_2d_positions, threshold)
        return _SceneState(memory, encoding, self.heads.mask_features(scene.features), queries_2d, reachability)

    def _masks(self, content: Tensor, state: _SceneState) -> Tensor:
        return self.heads.masks(content, state.mask_features)

    def _place(self, content: Tensor, boxes: Boxes, scene: DecoderInput) -> tuple[Tensor | None, Tensor | None]:
        """The encoding of the queries' boxes, modulated, and the embedded reference point, both (M, D)."""
        if self.encoding is None or self.reference_point is None:
            return None, None
        boxes = boxes.detach()
        modulation = None if self.modulation is None else self.modulation(content, boxes.sizes)
        encoding = self.encoding(boxes.centres, scene.low, scene.high, modulation)
        return encoding, self.reference_point(encoding)

    def _with_boxes(self, prediction: Prediction, boxes: Boxes, scene: DecoderInput) -> Prediction:
        sizes = size_in_metres(boxes.sizes, scene.low, scene.high, self.settings.sizes)
        return replace(prediction, centres=boxes.centres, sizes=sizes)


def draw_queries(count: int, least_share: float = 0.5, generator: torch.Generator | None = None) -> Tensor:
    """The queries of one training step: a random share of `count` superpoints, from `least_share` to all of them,
    in random order, int64. One number is drawn, then one permutation."""
    share = (1 - least_share) * torch.rand(1, generator=generator) + least_share
    return torch.randperm(count, generator=generator)[: max(int(share * count), min(count, 1))]
