# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""What a network's outputs are worth: every prediction is matched with the truth by itself, and all losses add up.

A scene without a match takes no part in the losses that need one; as released, it makes everything NaN
(`loss.release_empty_means`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from seg3d_core.models.decoder import DecoderOutput
from seg3d_core.models.heads import Prediction

from .config import LossConfig, MatcherConfig
from .dataset import Targets
from .losses import box_loss, class_loss, mask_bce_loss, mask_dice_loss, mean_of, semantic_loss
from .matcher import Match, match

TERMS = ("classes", "mask_bce", "mask_dice", "centre", "size")


@dataclass(frozen=True, eq=False)
class Loss:
    """The total, its instance and semantic part, and per supervised prediction its terms by name, unweighted.

    `matches` per prediction and scene.
    """

    total: Tensor
    instance: Tensor
    semantic: Tensor
    heads: tuple[dict[str, Tensor], ...]
    matches: tuple[tuple[Match, ...], ...]

    def parts(self) -> dict[str, Tensor]:
        """Every number behind the total, detached."""
        out = {"total": self.total, "instance": self.instance, "semantic": self.semantic}
        out.update({f"head{i}/{name}": value for i, head in enumerate(self.heads) for name, value in head.items()})
        return {name: value.detach() for name, value in out.items()}


class Criterion:
    """Losses of a batch. `with_sizes`: whether the network regresses the sizes of boxes."""

    def __init__(self, loss: LossConfig, matcher: MatcherConfig, with_sizes: bool = True):
        self.loss, self.matcher, self.with_sizes = loss, matcher, with_sizes

    def __call__(self, outputs: Sequence[DecoderOutput], targets: Sequence[Targets]) -> Loss:
        """Of the scenes of a batch, with their auxiliary predictions."""
        queries = [output.query_ids for output in outputs]
        columns = list(zip(*(self._supervised(output) for output in outputs), strict=True))
        heads, matches = [], []
        for number, predictions in enumerate(columns):
            pairs = tuple(
                match(*each, self.matcher, self.with_sizes) for each in zip(predictions, targets, queries, strict=True)
            )
            is_final = number == len(columns) - 1
            heads.append(self._terms(predictions, targets, pairs, is_final))
            matches.append(pairs)
        instance = torch.stack([self._weighted(terms) for terms in heads]).sum()
        semantic = self.loss.semantic * self._semantic(outputs, targets)
        return Loss(instance + semantic, instance, semantic, tuple(heads), tuple(matches))

    def _supervised(self, output: DecoderOutput) -> tuple[Prediction, ...]:
        auxiliary = output.auxiliary
        if self.loss.release_lost_head and output.final.centres is None:
            auxiliary = auxiliary[:-1]
        return (*auxiliary, output.final)

    def _terms(
        self,
        predictions: Sequence[Prediction],
        targets: Sequence[Targets],
        matches: Sequence[Match],
        is_final: bool,
    ) -> dict[str, Tensor]:
        """Unweighted, each a mean over the scenes that have it."""
        found: dict[str, list[Tensor]] = {name: [] for name in TERMS}
        for prediction, target, pairs in zip(predictions, targets, matches, strict=True):
            classes = pairs.queries.new_full(prediction.class_logits.shape[:1], prediction.class_logits.shape[1] - 1)
            classes[pairs.queries] = target.labels[pairs.instances]
            found["classes"].append(class_loss(prediction.class_logits, classes, self.loss.no_object))
            if len(pairs) or self.loss.release_empty_means:
                self._add_matched(found, prediction, target, pairs)
        terms = {name: mean_of(values, self._nothing(predictions, name)) for name, values in found.items()}
        # The release corrected for its batch size here, and only for the auxiliary predictions.
        factor = self.loss.dice_factor / (1 if is_final else len(predictions))
        return {**terms, "mask_dice": factor * terms["mask_dice"]}

    def _add_matched(
        self, found: dict[str, list[Tensor]], prediction: Prediction, target: Targets, pairs: Match
    ) -> None:
        logits, masks = prediction.mask_logits[pairs.queries], target.instance_masks[pairs.instances]
        found["mask_bce"].append(mask_bce_loss(logits, masks))
        found["mask_dice"].append(mask_dice_loss(logits, masks))
        if prediction.centres is not None:
            found["centre"].append(box_loss(prediction.centres[pairs.queries], target.centres[pairs.instances]))
        if prediction.sizes is not None and self.with_sizes:
            found["size"].append(box_loss(prediction.sizes[pairs.queries], target.sizes[pairs.instances]))

    def _nothing(self, predictions: Sequence[Prediction], name: str) -> Tensor:
        """A zero that hangs on what the term would: in distributed training every parameter needs a gradient."""
        field = {"centre": "centres", "size": "sizes"}.get(name, "mask_logits")
        values = [getattr(prediction, field) for prediction in predictions]
        present = [0 * value.sum() for value in values if value is not None]
        return torch.stack(present).sum() if present else predictions[0].class_logits.new_zeros(())

    def _weighted(self, terms: dict[str, Tensor]) -> Tensor:
        return torch.stack([getattr(self.loss, name) * value for name, value in terms.items()]).sum()

    def _semantic(self, outputs: Sequence[DecoderOutput], targets: Sequence[Targets]) -> Tensor:
        values = []
        for output, target in zip(outputs, targets, strict=True):
            classes = target.semantic[output.query_ids]
            is_labelled = classes < output.semantic_logits.shape[1] - 1
            if self.loss.release_empty_means or bool(is_labelled.any()):
                values.append(semantic_loss(output.semantic_logits, classes))
        return mean_of(values, torch.stack([0 * output.semantic_logits.sum() for output in outputs]).sum())
