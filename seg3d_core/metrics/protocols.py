# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Protocols by name, and numbers that never go without it.

    results = evaluate({"scene0000_00": scene}.items(), [PROTOCOLS["scannet200"], PROTOCOLS["re0-gt"]])

A number of one protocol says nothing beside one of another: RE0 averages over scenes what ScanNet pools.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from ..types import Array
from .ap import MIN_REGION, ApResult, precision_of_counts
from .classes import ClassList, class_lists
from .partition_vote import voted
from .scene_counts import LABEL_FACTOR, SceneCounts, SceneEvaluation, count_overlaps, duplicates

Triple = tuple[float, float, float]
Kind = Literal["class-wise", "agnostic", "re0", "re0-gt", "re0-gt-as-released"]

_TITLES: dict[Kind, str] = {
    "class-wise": "ScanNet AP, class by class",
    "agnostic": "ScanNet AP, class-agnostic",
    "re0": "RE0 mAP",
    "re0-gt": "RE0 mAP_GT, without background",
    "re0-gt-as-released": "RE0 mAP_GT, as released (points of no segment are one more)",
}
_OWN = "own"


@dataclass(frozen=True)
class Protocol:
    """How predictions are compared; `classes`: a key of `class_lists()`, or `own`: all labels of the ground truth."""

    kind: Kind
    classes: str

    @property
    def is_vote(self) -> bool:
        return self.kind.startswith("re0-gt")

    def title(self) -> str:
        """What the numbers are, in words; how scenes are put together comes on top."""
        what = class_lists()[self.classes].title if self.classes != _OWN else "every label of the ground truth"
        return f"{_TITLES[self.kind]}, {'valid: ' if self.kind == 'agnostic' else ''}{what}"


def _protocols() -> dict[str, Protocol]:
    out = {key: Protocol("class-wise", key) for key in ("scannet18", "scannet200")}
    out["own"] = Protocol("class-wise", _OWN)
    for kind in ("agnostic", "re0", "re0-gt", "re0-gt-as-released"):
        for key in ("scannet18", "scannet200", _OWN):
            out[f"{kind}-{key}"] = Protocol(kind, key)
    # The short names: what is valid without a list, and the classes that RE0's paper takes.
    out["agnostic"] = out.pop("agnostic-own")
    for kind in ("re0", "re0-gt", "re0-gt-as-released"):
        out[kind] = out.pop(f"{kind}-scannet200")
    return out


PROTOCOLS: Mapping[str, Protocol] = _protocols()


@dataclass(frozen=True)
class Result:
    """AP, AP50 and AP25 (fractions of 1, NaN without ground truth) under one protocol.

    `name` is the protocol's in words, with `pooled over scenes` or `mean over scenes`. `duplicates`: whether
    predictions that repeat another's mask and label took part. `groups` are means over head, common and tail;
    `per_class` by class name; `per_scene` each scene alone. `predictions` took part, `repeated` were duplicates,
    `unlisted` had a label outside the class list, `small` fewer than 100 vertices.
    """

    protocol: str
    name: str
    duplicates: bool
    ap: float
    ap50: float
    ap25: float
    scenes: int
    predictions: int
    repeated: int
    unlisted: int
    small: int
    groups: Mapping[str, Triple] = field(default_factory=dict)
    per_class: Mapping[str, Triple] = field(default_factory=dict)
    per_scene: Mapping[str, Triple] = field(default_factory=dict)


def evaluate(scenes: Iterable[tuple[str, SceneEvaluation]], protocols: Sequence[str]) -> list[Result]:
    """Results of each protocol (keys of `PROTOCOLS`), each with and without duplicate predictions.

    `scenes` are (name, scene), held one at a time. RE0's mAP_GT yields a pooled result and a mean over scenes; it
    needs a partition, so where predictions overlap the vertex goes to the higher score.
    """
    chosen = {key: PROTOCOLS[key] for key in protocols}
    needs_partition = any(p.is_vote for p in chosen.values())
    names, counts, segments = [], [], []
    for name, scene in scenes:
        names.append(name)
        counts.append(count_overlaps(scene))
        if needs_partition:
            segments.append(counts[-1] if scene.is_partition else count_overlaps(_exclusive(scene)))
    return [
        result
        for key, protocol in chosen.items()
        for result in _results(key, protocol, names, segments if protocol.is_vote else counts)
    ]


def _exclusive(scene: SceneEvaluation) -> SceneEvaluation:
    parted = SceneEvaluation.from_partition(scene.truth, scene.partition(), scene.scores)
    return replace(parted, truth_names=scene.truth_names)


def _results(key: str, protocol: Protocol, names: Sequence[str], scenes: Sequence[SceneCounts]) -> list[Result]:
    classes = class_lists()[protocol.classes] if protocol.classes != _OWN else _own_classes(scenes)
    labelled = [_labelled(scene, protocol, classes) for scene in scenes]
    repeats = [_repeats(scene, protocol) for scene in labelled]
    unique = [scene.select(~repeat) for scene, repeat in zip(labelled, repeats, strict=True)]
    repeated = sum(int(repeat.sum()) for repeat in repeats)
    return [
        result
        for kept, part in ((True, labelled), (False, unique))
        for result in _scored(key, protocol, classes, names, part, kept, repeated)
    ]


def _own_classes(scenes: Sequence[SceneCounts]) -> ClassList:
    """Every label but 0 that the ground truth has, by the names that it gives them."""
    names: dict[int, str] = {}
    for scene in scenes:
        labels = np.unique(scene.truth_ids[scene.truth_ids >= LABEL_FACTOR] // LABEL_FACTOR).tolist()
        names.update({label: scene.truth_names.get(label, f"label {label}") for label in labels})
    return ClassList("every label of the ground truth", dict(sorted(names.items())))


def _labelled(scene: SceneCounts, protocol: Protocol, classes: ClassList) -> SceneCounts:
    if protocol.is_vote:
        return voted(scene, as_released=protocol.kind == "re0-gt-as-released")
    if scene.names is not None:
        return replace(scene, labels=classes.ids_of(scene.names))
    return scene


def _repeats(scene: SceneCounts, protocol: Protocol) -> Array:
    labels = np.zeros_like(scene.labels) if protocol.kind == "agnostic" else scene.labels
    return duplicates(scene, labels) & (scene.sizes >= MIN_REGION)


def _scored(
    key: str,
    protocol: Protocol,
    classes: ClassList,
    names: Sequence[str],
    scenes: Sequence[SceneCounts],
    kept: bool,
    repeated: int,
) -> list[Result]:
    agnostic = protocol.kind == "agnostic"
    pooled = precision_of_counts(scenes, classes.ids, agnostic)
    alone = [precision_of_counts([scene], classes.ids, agnostic) for scene in scenes]
    per_scene = {name: result.mean() for name, result in zip(names, alone, strict=True)}
    groups = {} if agnostic else classes.groups
    out = []
    if protocol.kind != "re0":
        of_groups = {group: pooled.mean(ids) for group, ids in groups.items()}
        out.append(("pooled over scenes", pooled.mean(), of_groups, {} if agnostic else by_class(pooled, classes)))
    if protocol.kind not in ("class-wise", "agnostic"):
        of_groups = {group: _scene_mean([result.mean(ids) for result in alone]) for group, ids in groups.items()}
        out.append(("mean over scenes", _scene_mean(list(per_scene.values())), of_groups, {}))
    taking_part, unlisted, small = _participation(scenes, classes, agnostic)
    return [
        Result(
            protocol=key,
            name=f"{protocol.title()}, {how}",
            duplicates=kept,
            ap=mean[0],
            ap50=mean[1],
            ap25=mean[2],
            scenes=len(scenes),
            predictions=taking_part,
            repeated=repeated,
            unlisted=unlisted,
            small=small,
            groups=of_groups,
            per_class=per_class,
            per_scene=per_scene,
        )
        for how, mean, of_groups, per_class in out
    ]


def _participation(scenes: Sequence[SceneCounts], classes: ClassList, agnostic: bool) -> tuple[int, int, int]:
    """Predictions that take part, that have no label of the list, and that are too small."""
    taking_part = unlisted = small = 0
    for scene in scenes:
        is_large = scene.sizes >= MIN_REGION
        is_listed = is_large & (agnostic | np.isin(scene.labels, classes.ids))
        taking_part += int(is_listed.sum())
        unlisted += int((is_large & ~is_listed).sum())
        small += int((~is_large).sum())
    return taking_part, unlisted, small


def by_class(result: ApResult, classes: ClassList) -> dict[str, Triple]:
    """AP, AP50 and AP25 of the classes that have ground truth, by name."""
    known = {label: values for label, values in result.per_class.items() if not np.isnan(values).any()}
    return {classes.names[i]: (float(v[:-1].mean()), float(v[0]), float(v[-1])) for i, v in known.items()}


def _scene_mean(values: Sequence[Triple]) -> Triple:
    """Plain mean over the scenes that have a value."""
    known = [value for value in values if not np.isnan(value[0])]
    if not known:
        return float("nan"), float("nan"), float("nan")
    ap, ap50, ap25 = np.mean(known, axis=0).tolist()
    return ap, ap50, ap25
