# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""What the decoder said, as instances, semantic classes and a panoptic map of the points (SegDINO3D, release)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..config import SegDino3DConfig
from .decoder import DecoderOutput
from .heads import Prediction
from .matrix_nms import matrix_nms

STUFF_CLASSES = 2
"""The first semantic classes, wall and floor, are stuff; a thing's semantic class is its label plus this."""


@dataclass(frozen=True, eq=False)
class ScenePredictions:
    """n instances, overlaps allowed: labels int64 (n,) from 0, scores (n,), boxes (n, 6) as centre and size in metres
    (zeros where the network has none), queries int64 (n,) they come from.

    Members in CSR form: instance k holds points `point_ids[indptr[k]:indptr[k + 1]]`, ascending; int64.
    """

    labels: Tensor
    scores: Tensor
    boxes: Tensor
    queries: Tensor
    indptr: Tensor
    point_ids: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def masks(self, points: int) -> Tensor:
        """Bool (n, points)."""
        out = torch.zeros(len(self), points, dtype=torch.bool, device=self.labels.device)
        out[self._owners(), self.point_ids] = True
        return out

    def select(self, rows: Tensor) -> ScenePredictions:
        """The instances of these rows, int64, in their order."""
        sizes = self.indptr.diff()[rows]
        members = _ranges(self.indptr[:-1][rows], sizes)
        point_ids = self.point_ids[members]
        labels, scores, boxes, queries = (x[rows] for x in (self.labels, self.scores, self.boxes, self.queries))
        return ScenePredictions(labels, scores, boxes, queries, _indptr(sizes), point_ids)

    def _owners(self) -> Tensor:
        return torch.arange(len(self), device=self.labels.device).repeat_interleave(self.indptr.diff())


@dataclass(frozen=True, eq=False)
class Candidates:
    """Pairs of a query and a class: query, label int64 (n,), score (n,)."""

    queries: Tensor
    labels: Tensor
    scores: Tensor


def empty_predictions(device: torch.device | str = "cpu") -> ScenePredictions:
    """No instance, as of a scene without points."""
    none = torch.zeros(0, dtype=torch.int64, device=device)
    return ScenePredictions(none, none.float(), none.float().reshape(0, 6), none, none.new_zeros(1), none)


def top_candidates(class_logits: Tensor, top_k: int) -> Candidates:
    """The `top_k` most probable pairs, or as many as there are; "no object" is none."""
    probability = class_logits.softmax(dim=1)[:, :-1]
    scores, flat = probability.flatten().topk(min(top_k, probability.numel()))
    classes = max(probability.shape[1], 1)
    return Candidates(torch.div(flat, classes, rounding_mode="floor"), flat % classes, scores)


def mask_quality(mask_logits: Tensor) -> Tensor:
    """Mean probability of the superpoints inside each mask (M, S) -> (M,); 0 where a mask is empty."""
    inside = (mask_logits > 0).to(mask_logits)
    return (mask_logits.sigmoid() * inside).sum(dim=1) / (inside.sum(dim=1) + 1e-6)


def suppressed_candidates(prediction: Prediction, settings: SegDino3DConfig) -> Candidates:
    """Top-k pairs, weighted by the quality of their masks, after matrix NMS on the soft masks; best first."""
    found = top_candidates(prediction.class_logits, settings.top_k)
    if settings.mask_quality:
        found = replace(found, scores=found.scores * mask_quality(prediction.mask_logits)[found.queries])
    if settings.matrix_nms:
        soft = prediction.mask_logits.sigmoid()[found.queries]
        scores, rows = matrix_nms(soft, found.labels, found.scores, settings.nms_kernel)
    else:
        scores, rows = found.scores.sort(descending=True, stable=True)
    return Candidates(found.queries[rows], found.labels[rows], scores)


class SuperpointMembers:
    """Superpoint ids int64 (N,), 0 to S - 1, turned about: which points each superpoint holds."""

    def __init__(self, superpoints: Tensor, count: int):
        self.superpoints = superpoints
        self.sizes = torch.bincount(superpoints, minlength=count)
        self._points = superpoints.argsort(stable=True)
        self._begin = _indptr(self.sizes)[:-1]

    def of_masks(self, masks: Tensor) -> tuple[Tensor, Tensor]:
        """Masks bool (n, S) -> sizes int64 (n,) and the point ids of all, mask by mask, ascending in each."""
        row, superpoint = masks.nonzero(as_tuple=True)
        sizes = self.sizes[superpoint]
        points = self._points[_ranges(self._begin[superpoint], sizes)]
        owner = row.repeat_interleave(sizes)
        order = (owner * max(len(self.superpoints), 1) + points).argsort()
        return torch.bincount(owner, minlength=len(masks)), points[order]


def instances(prediction: Prediction, xyz: Tensor, superpoints: Tensor, settings: SegDino3DConfig) -> ScenePredictions:
    """The scene's instances, best first. Points (N, 3) in metres, their superpoints int64 (N,).

    The box filter takes points away from masks after everything was counted: masks may end up empty.
    """
    if not len(xyz) or not len(prediction.class_logits):
        return empty_predictions(prediction.class_logits.device)
    members = SuperpointMembers(superpoints, prediction.mask_logits.shape[1])
    found = suppressed_candidates(prediction, settings)
    masks = prediction.mask_logits.sigmoid() > settings.mask_threshold
    counts = (masks.double() @ members.sizes.double())[found.queries]
    keep = ((found.scores > settings.score_threshold) & (counts > settings.min_points)).nonzero()[:, 0]
    queries = found.queries[keep]
    sizes, points = members.of_masks(masks[queries])
    boxes = torch.zeros(len(keep), 6, device=xyz.device)
    if prediction.centres is not None and prediction.sizes is not None:
        boxes = torch.cat((prediction.centres[queries], prediction.sizes[queries]), dim=1)
        if settings.box_filter:
            sizes, points = _inside_boxes(sizes, points, boxes, xyz, settings.box_filter_factor)
    return ScenePredictions(found.labels[keep], found.scores[keep], boxes, queries, _indptr(sizes), points)


def semantic_classes(output: DecoderOutput, superpoints: Tensor) -> Tensor:
    """The semantic class of each point, int64 (N,); G, "unlabelled", where its superpoint is no query."""
    logits = output.semantic_logits
    count = output.final.mask_logits.shape[1]
    classes = superpoints.new_full((count,), logits.shape[1] - 1)
    classes[output.query_ids] = logits[:, :-1].argmax(dim=1)
    return classes[superpoints]


def panoptic(
    output: DecoderOutput, found: ScenePredictions, superpoints: Tensor, settings: SegDino3DConfig
) -> tuple[Tensor, Tensor]:
    """Semantic class and instance number of each point, int64 (N,) each; `found` are the scene's instances.

    Each point is first the likelier stuff class; things lie over it, the better over the worse, numbered from
    `STUFF_CLASSES`. A thing that too few points are left of goes; its points are stuff, and stuff is its own number.
    """
    stuff_of = superpoints.new_zeros(output.final.mask_logits.shape[1])
    stuff_of[output.query_ids] = output.semantic_logits[:, :STUFF_CLASSES].argmax(dim=1)
    stuff = stuff_of[superpoints]
    rows = (found.scores > settings.panoptic_score_threshold).nonzero()[:, 0]
    if not len(rows):
        return stuff, stuff
    things = found.select(rows[found.scores[rows].argsort(stable=True)])
    numbers = torch.zeros_like(stuff)
    numbers.scatter_reduce_(0, things.point_ids, things._owners() + STUFF_CLASSES, "amax")
    counts = torch.bincount(numbers, minlength=len(things) + STUFF_CLASSES)
    counts[:STUFF_CLASSES] = 0
    is_thing = counts[numbers] > settings.min_points
    thing_class = things.labels[(numbers - STUFF_CLASSES).clamp(min=0)] + STUFF_CLASSES
    return torch.where(is_thing, thing_class, stuff), torch.where(is_thing, numbers, stuff)


def _inside_boxes(sizes: Tensor, points: Tensor, boxes: Tensor, xyz: Tensor, factor: float) -> tuple[Tensor, Tensor]:
    """The members of each mask within its box enlarged by `factor`, faces included."""
    owner = torch.arange(len(sizes), device=sizes.device).repeat_interleave(sizes)
    half = boxes[:, 3:] * factor / 2
    low, high = boxes[:, :3] - half, boxes[:, :3] + half
    where = xyz[points]
    inside = ((where >= low[owner]) & (where <= high[owner])).all(dim=1)
    return torch.bincount(owner[inside], minlength=len(sizes)), points[inside]


def _indptr(sizes: Tensor) -> Tensor:
    return torch.cat((sizes.new_zeros(1), sizes.cumsum(0)))


def _ranges(begin: Tensor, sizes: Tensor) -> Tensor:
    """begin[0], begin[0] + 1, ... of sizes[0] numbers, then those of the next, int64."""
    shift = begin - _indptr(sizes)[:-1]
    return torch.arange(int(sizes.sum()), device=begin.device) + shift.repeat_interleave(sizes)
