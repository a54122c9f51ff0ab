# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""From a similarity to a probability that the thing is there, fitted per encoder on labelled scenes.

A cosine has no meaning of its own, so nothing is compared with a guessed limit. `benchmarks/text.py --fit` makes
the coefficients in `calibrations.json` from texts that name something in a scene and texts that do not, in equal
weight; among these, furniture of other homes, small things and things that no home holds weigh the same.
Coefficients of one encoder are never used for another.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import resources

import numpy as np

from ..types import Array

PRECISIONS = tuple(round(0.5 + 0.05 * i, 2) for i in range(10))


@dataclass(frozen=True)
class Calibration:
    """P(present) = 1 / (1 + exp(-(slope * similarity + intercept))), the similarity being an instance's cosine.

    `thresholds`: for each of `precisions`, the lowest probability above which that share of answered texts named
    something that was there, at equal numbers of both. `views`, `crop_growth` and `background` say what
    it was fitted with.
    """

    encoder_id: str
    slope: float
    intercept: float
    precisions: tuple[float, ...]
    thresholds: tuple[float, ...]
    present: int
    absent: int
    auc: float
    views: int
    crop_growth: tuple[float, ...]
    scenes: tuple[str, ...]
    date: str
    background: float = 1.0

    def probability(self, similarity: Array) -> Array:
        """Of similarities (n,), float64 (n,) in [0, 1], rising."""
        return _sigmoid(self.slope * np.asarray(similarity, float) + self.intercept)

    def threshold(self, precision: float) -> float:
        """The probability from which answers reach `precision`; the strictest known one beyond the table."""
        reached = [t for p, t in zip(self.precisions, self.thresholds, strict=True) if p >= precision - 1e-9]
        return reached[0] if reached else self.thresholds[-1]

    def to_json(self) -> dict[str, object]:
        return asdict(self)


def load(encoder_id: str) -> Calibration | None:
    """The calibration that comes along for this encoder, or None."""
    text = resources.files(__package__).joinpath("calibrations.json").read_text(encoding="utf-8")
    entry = json.loads(text).get(encoder_id)
    if entry is None:
        return None
    lists = ("precisions", "thresholds", "crop_growth", "scenes")
    return Calibration(**{**entry, **{name: tuple(entry[name]) for name in lists}})


def fit(similarity: Array, present: Array, weight: Array | None = None) -> tuple[float, float]:
    """(slope, intercept) of the logistic curve by maximum likelihood.

    similarity (n,), of the best instance for each text; present bool (n,); `weight` (n,) sums to 1 and is
    `class_weights(present)` by default.
    """
    x, y = np.asarray(similarity, float), np.asarray(present, bool)
    if y.all() or not y.any():
        raise ValueError("a calibration needs texts that are present and texts that are absent")
    mean, deviation = x.mean(), x.std() or 1.0
    design = np.stack([(x - mean) / deviation, np.ones(len(x))], 1)
    weight = class_weights(y) if weight is None else weight
    # A weak ridge keeps the slope finite where the two classes do not overlap.
    ridge = np.diag([1e-4, 0.0])
    beta = np.zeros(2)
    for _ in range(50):
        p = _sigmoid(design @ beta)
        gradient = design.T @ (weight * (p - y)) + ridge @ beta
        hessian = (design * (weight * p * (1 - p))[:, None]).T @ design + ridge
        step = np.linalg.solve(hessian + 1e-12 * np.eye(2), gradient)
        beta -= np.clip(step, -2, 2)
        if np.abs(step).max() < 1e-10:
            break
    slope = beta[0] / deviation
    return float(slope), float(beta[1] - slope * mean)


def class_weights(kinds: Array) -> Array:
    """Weights (n,) that sum to 1: half for present texts, half for absent ones, each kind of them the same.

    kinds (n,): bool, present or not; or int, 0 = present and any other number a kind of absent texts.
    """
    kinds = np.asarray(kinds)
    if kinds.dtype == bool:
        kinds = (~kinds).astype(int)
    absent = np.unique(kinds[kinds != 0])
    weight = np.zeros(len(kinds))
    for kind in np.unique(kinds):
        members = kinds == kind
        weight[members] = 0.5 / members.sum() / (1 if kind == 0 else len(absent))
    return weight


def precision_recall(probability: Array, present: Array, weight: Array | None = None) -> tuple[Array, Array, Array]:
    """(thresholds, precision, recall), thresholds falling; `weight` as in `fit`."""
    y = np.asarray(present, bool)
    order = np.argsort(-np.asarray(probability), kind="stable")
    weight = (class_weights(y) if weight is None else weight)[order]
    right = np.cumsum(weight * y[order])
    return np.asarray(probability)[order], right / np.cumsum(weight), right / max(right[-1], 1e-12)


def thresholds(
    probability: Array, present: Array, weight: Array | None = None, precisions: Sequence[float] = PRECISIONS
) -> tuple[float, ...]:
    """For each precision the lowest threshold that reaches it; where none does, that of the best answer."""
    cut, precision, _ = precision_recall(probability, present, weight)
    lowest = []
    for wanted in precisions:
        reached = np.nonzero(precision >= wanted)[0]
        lowest.append(float(cut[reached[-1]] if len(reached) else cut[0]))
    return tuple(float(t) for t in np.maximum.accumulate(lowest))


def area_under_curve(score: Array, present: Array) -> float:
    """The chance that a present text scores above an absent one; ties count half."""
    from scipy.stats import rankdata

    y = np.asarray(present, bool)
    positives, negatives = int(y.sum()), int((~y).sum())
    ranks = rankdata(score)[y].sum()
    return float((ranks - positives * (positives + 1) / 2) / max(positives * negatives, 1))


def _sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-np.clip(x, -50, 50)))
