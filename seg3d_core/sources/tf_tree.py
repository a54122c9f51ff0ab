# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""A tree of transforms over time, as /tf and /tf_static tell it."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from ..geometry import invert, quaternion_to_matrix
from ..types import Array
from .trajectory import Trajectory

Sample = tuple[float, Array, Array]


class TransformTree:
    """Collects transforms, then answers with poses of one frame in another at many stamps.

    A sample is (stamp in s, translation (3,), quaternion (4,) as (x, y, z, w)) of `child` in `parent`.
    """

    def __init__(self) -> None:
        self.parents: dict[str, str] = {}
        self._static: dict[str, Array] = {}
        self._moving: dict[str, list[Sample]] = {}

    def add(self, parent: str, child: str, sample: Sample, is_static: bool) -> None:
        """One transform. The last static one counts; those without a direction are ignored."""
        parent, child = parent.lstrip("/"), child.lstrip("/")
        self.parents[child] = parent
        if not is_static:
            self._moving.setdefault(child, []).append(sample)
            return
        try:
            self._static[child] = quaternion_to_matrix(sample[1], sample[2])
        except ValueError:
            return

    @property
    def frames(self) -> list[str]:
        """Every frame's name."""
        return sorted({*self.parents, *self.parents.values()})

    def ancestors(self, frame: str) -> list[str]:
        """The frame itself, its parent, and so on to the root."""
        chain = [frame]
        while chain[-1] in self.parents and self.parents[chain[-1]] not in chain:
            chain.append(self.parents[chain[-1]])
        return chain

    def moves(self, frame: str) -> bool:
        """Whether any transform above the frame changes over time."""
        return any(link in self._moving for link in self.ancestors(frame))

    def static_between(self, base: str, frame: str) -> Array | None:
        """T_base_frame (4, 4) where only static transforms lie between the two, else None."""
        up, down = self.ancestors(base), self.ancestors(frame)
        common = next((f for f in up if f in down), None)
        if common is None:
            return None
        links = [*up[: up.index(common)], *down[: down.index(common)]]
        if any(link not in self._static for link in links):
            return None
        return invert(self._product(up[: up.index(common)])) @ self._product(down[: down.index(common)])

    def poses(self, base: str, frame: str, stamps: Array, max_gap: float) -> tuple[Array, Array] | None:
        """T_base_frame (m, 4, 4) at `stamps` (m,) and whether known, bool (m,); None unless base is an ancestor."""
        chain = self.ancestors(frame)
        if base not in chain:
            return None
        poses = np.tile(np.eye(4), (len(stamps), 1, 1))
        known = np.ones(len(stamps), bool)
        for child in reversed(chain[: chain.index(base)]):
            if child in self._moving:
                steps, there = _trajectory(self._moving[child]).at(stamps, max_gap)
                poses, known = poses @ steps, known & there
            elif child in self._static:
                poses = poses @ self._static[child]
            else:
                known[:] = False
        return poses, known

    def _product(self, children: Iterable[str]) -> Array:
        out = np.eye(4)
        for child in children:
            out = self._static[child] @ out
        return out


def _trajectory(samples: list[Sample]) -> Trajectory:
    return Trajectory(
        np.array([s[0] for s in samples]), np.stack([s[1] for s in samples]), np.stack([s[2] for s in samples])
    )
