# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Placing small things on a flat top."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .model import Model, Rng, Support
from .room import Footprint, Piece, Placer


class Top:
    """One support of a placed piece, with what already stands there."""

    def __init__(self, placer: Placer, piece: Piece, support: Support):
        self.placer = placer
        self.piece = piece
        self.support = support
        self._taken: list[Footprint] = []

    def put(self, model: Model, x: float, y: float, yaw: float) -> Piece | None:
        """At (x, y) of the piece's frame, or None where it does not fit."""
        s, (low, high) = self.support, model.bounds()
        c, sn = float(np.cos(yaw)), float(np.sin(yaw))
        mx, my = float(low[0] + high[0]) / 2, float(low[1] + high[1]) / 2
        half_x, half_y = float(high[0] - low[0]) / 2, float(high[1] - low[1]) / 2
        foot = Footprint(x + c * mx - sn * my, y + sn * mx + c * my, half_x, half_y, yaw, s.z, s.z + float(high[2]))
        corners = foot.corners()
        outside = (corners.min(0) < (s.x0 - 0.04, s.y0 - 0.04)).any() or (
            corners.max(0) > (s.x1 + 0.04, s.y1 + 0.04)
        ).any()
        if outside or high[2] > s.headroom or any(foot.overlaps(other, 0.01) for other in self._taken):
            return None
        px, py, pz = self.piece.to_room(x, y, s.z + 0.0005 - float(low[2]))
        if self._meets_others(model, px, py, pz, self.piece.yaw + yaw):
            return None
        self._taken.append(foot)
        return self.placer.put(model, px, py, pz, self.piece.yaw + yaw, None, self.piece.id)

    def _meets_others(self, model: Model, x: float, y: float, z: float, yaw: float) -> bool:
        """Whether it would run into something that hangs above, such as a shelf or a picture."""
        low, high = model.bounds()
        reach = float(np.abs(np.stack([low, high])[:, :2]).max())
        space = Footprint(x, y, reach, reach, yaw, z, z + float(high[2]))
        mine = self.piece.footprint
        return any(o is not mine and o.overlaps(space) for o in self.placer.room.obstacles())

    def scatter(self, rng: Rng, make: Callable[[Rng], Model], tries: int = 8) -> Piece | None:
        """Somewhere on the top, at any angle."""
        s, model = self.support, make(rng)
        for _ in range(tries):
            x, y = float(rng.uniform(s.x0, s.x1)), float(rng.uniform(s.y0, s.y1))
            piece = self.put(model, x, y, float(rng.uniform(-0.5, 0.5)))
            if piece is not None:
                return piece
        return None
