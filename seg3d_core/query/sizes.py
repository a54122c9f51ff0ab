# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""How big things usually are: what a weak encoder does not see, the map knows in metres.

Each household word has typical edges; a text takes those of the words that mean nearly the same. An instance of
another size becomes less likely to be meant. On ground-truth instances this raised hit@1 of the offline stand-in
from 0.31 to 0.49 (`docs/results/text.md`).
"""

from __future__ import annotations

import json
from importlib import resources

import numpy as np

from ..types import Array, Snapshot

# Spread of log(edge), longest to shortest: thin edges vary most, and are measured worst.
_SPREAD = np.array([0.3, 0.4, 0.6])
# What any size gets: words without a usual size, half-seen things and wrong meanings are not ruled out.
_FLOOR = 0.1
# How sharply a text picks the words that mean the same.
_TEMPERATURE = 0.1
# No edge is taken for shorter than this: two voxels of noise make a sheet of paper look thick.
_SHORTEST = 0.03
_MIN_POINTS = 10
# Flat is what is thinner than this, with its skirting board; large is wider than doors and table tops (metres).
_FLAT, _LARGE = 0.2, 1.6


class TypicalSizes:
    """`words` (V,) and their edges; `log_fit` compares instances with texts."""

    def __init__(self) -> None:
        text = resources.files(__package__).joinpath("typical_sizes.json").read_text(encoding="utf-8")
        sizes: dict[str, list[float]] = json.loads(text)["sizes"]
        self.words = tuple(sizes)
        self._log_edges = np.log(np.maximum(np.array(list(sizes.values())), _SHORTEST))

    def log_fit(self, edges: Array, texts: Array, words: Array) -> Array:
        """Log of how well each instance's size fits each text, float64 (K, T), in [log 0.1, log 1.1].

        edges (K, 3) metres, longest first; texts (T, D) and words (V, D): unit text features.
        """
        similarity = texts @ words.T / _TEMPERATURE
        meaning = np.exp(similarity - similarity.max(1, keepdims=True))
        meaning /= meaning.sum(1, keepdims=True)
        offset = (np.log(np.maximum(edges, _SHORTEST))[:, None] - self._log_edges[None]) / _SPREAD
        return np.log(np.exp(-(offset**2).sum(2) / 2) @ meaning.T + _FLOOR)


def edges_of(snapshot: Snapshot) -> Array:
    """Edges of each instance's box, float64 (K, 3) metres, longest first.

    The smaller of the box along the map's axes and the one along the points' principal axes: furniture stands square
    to a room, and a room need not stand square to its map.
    """
    edges = np.sort(np.asarray(snapshot.extents, float).reshape(-1, 3), axis=1)[:, ::-1].copy()
    ids = snapshot.cloud.ids
    for k in range(len(edges)):
        rows = np.searchsorted(ids, snapshot.instances.members(k))
        rows = rows[rows < len(ids)]
        if len(rows) < _MIN_POINTS:
            continue
        centred = snapshot.cloud.xyz[rows].astype(float)
        centred -= centred.mean(0)
        _, axes = np.linalg.eigh(centred.T @ centred)
        turned = np.sort(np.ptp(centred @ axes, axis=0))[::-1]
        if turned.prod() < edges[k].prod():
            edges[k] = turned
    return edges


def is_structure(snapshot: Snapshot) -> Array:
    """Which instances are as flat and large as only walls, floors and ceilings are, bool (K,)."""
    edges = edges_of(snapshot)
    return (edges[:, 1] > _LARGE) & (edges[:, 2] < _FLAT)
