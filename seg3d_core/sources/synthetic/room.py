# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""The empty room and the bookkeeping of what stands where: footprints, walls, placing without overlap."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ...types import Array
from .model import Model, Rng
from .surfaces import Material


@dataclass(frozen=True)
class Footprint:
    """A turned rectangle on the floor, centre (x, y) and half sides, that fills the heights z0 to z1; metres."""

    x: float
    y: float
    half_x: float
    half_y: float
    yaw: float
    z0: float
    z1: float

    def corners(self) -> Array:
        """(4, 2)."""
        c, s = np.cos(self.yaw), np.sin(self.yaw)
        local = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * (self.half_x, self.half_y)
        return local @ np.array([[c, s], [-s, c]]) + (self.x, self.y)

    def overlaps(self, other: Footprint, margin: float = 0.0) -> bool:
        """Whether the two come nearer than `margin`, by the separating axes of two rectangles."""
        if self.z0 >= other.z1 or other.z0 >= self.z1:
            return False
        reach = np.hypot(self.half_x, self.half_y) + np.hypot(other.half_x, other.half_y) + margin
        if np.hypot(self.x - other.x, self.y - other.y) > reach:
            return False
        a, b = self.corners(), other.corners()
        for yaw in (self.yaw, other.yaw):
            for axis in ((np.cos(yaw), np.sin(yaw)), (-np.sin(yaw), np.cos(yaw))):
                pa, pb = a @ axis, b @ axis
                if pa.max() + margin <= pb.min() or pb.max() + margin <= pa.min():
                    return False
        return True


@dataclass(frozen=True, eq=False)
class Piece:
    """A model at its place. `footprint` is None for what stands on another piece (`parent` is that piece's id)."""

    id: int
    label: str
    model: Model
    position: tuple[float, float, float]
    yaw: float
    footprint: Footprint | None
    parent: int = 0

    def to_room(self, x: float, y: float, z: float) -> tuple[float, float, float]:
        """A point of the model's frame in the room's."""
        c, s = float(np.cos(self.yaw)), float(np.sin(self.yaw))
        px, py, pz = self.position
        return px + c * x - s * y, py + s * x + c * y, pz + z


@dataclass(frozen=True)
class Opening:
    """A hole in a wall from u0 to u1 along it and from z0 to z1."""

    kind: str
    u0: float
    u1: float
    z0: float
    z1: float


@dataclass(eq=False)
class Wall:
    """From corner a to corner b, the room on the left."""

    a: tuple[float, float]
    b: tuple[float, float]
    material: Material
    openings: list[Opening] = field(default_factory=list)

    @property
    def length(self) -> float:
        return float(np.hypot(self.b[0] - self.a[0], self.b[1] - self.a[1]))

    @property
    def yaw(self) -> float:
        """The turn that makes a model's back (-y) face the wall and +y the room."""
        return float(np.arctan2(self.b[1] - self.a[1], self.b[0] - self.a[0]))

    def at(self, u: float, inward: float) -> tuple[float, float]:
        """The point `u` metres along and `inward` metres from the wall."""
        c, s = float(np.cos(self.yaw)), float(np.sin(self.yaw))
        return self.a[0] + c * u - s * inward, self.a[1] + s * u + c * inward


@dataclass(eq=False)
class Room:
    """A room of `width` x `depth` x `height` metres with a corner at the origin; `notch` (x0, y0, x1, y1) is the part
    that an L-shape leaves out. `lights` are (x, y, z, strength)."""

    kind: str
    width: float
    depth: float
    height: float
    notch: tuple[float, float, float, float] | None
    walls: list[Wall]
    floor: Material
    ceiling: Material
    pieces: list[Piece] = field(default_factory=list)
    clear: list[Footprint] = field(default_factory=list)
    lights: list[tuple[float, float, float, float]] = field(default_factory=list)

    @property
    def area(self) -> float:
        x0, y0, x1, y1 = self.notch or (0.0, 0.0, 0.0, 0.0)
        return self.width * self.depth - (x1 - x0) * (y1 - y0)

    @property
    def is_l_shaped(self) -> bool:
        return self.notch is not None

    def obstacles(self) -> list[Footprint]:
        """Footprints of all that stands on the floor or hangs on the walls; carpets apart."""
        return [p.footprint for p in self.pieces if p.footprint is not None and p.label != "rug"]

    def is_inside(self, footprint: Footprint) -> bool:
        corners = footprint.corners()
        low, high = corners.min(0), corners.max(0)
        if low.min() < 0.001 or high[0] > self.width - 0.001 or high[1] > self.depth - 0.001:
            return False
        if self.notch is None:
            return True
        x0, y0, x1, y1 = self.notch
        missing = Footprint((x0 + x1) / 2, (y0 + y1) / 2, (x1 - x0) / 2, (y1 - y0) / 2, 0.0, 0.0, 9.0)
        return not missing.overlaps(footprint, 0.001)


class Placer:
    """Puts models into a room where they fit, and gives them ids from 1 up."""

    def __init__(self, room: Room, rng: Rng):
        self.room = room
        self.rng = rng
        self._filled = 0.0

    @property
    def fill(self) -> float:
        """The share of the floor that furniture covers."""
        return self._filled / self.room.area

    def place(self, model: Model, x: float, y: float, yaw: float, z: float = 0.0, margin: float = 0.02) -> Piece | None:
        """The placed piece with everything on it, or None where it does not fit."""
        low, high = model.bounds()
        c, s = float(np.cos(yaw)), float(np.sin(yaw))
        mx, my = (low[0] + high[0]) / 2, (low[1] + high[1]) / 2
        hx, hy = (high[0] - low[0]) / 2, (high[1] - low[1]) / 2
        foot = Footprint(x + c * mx - s * my, y + s * mx + c * my, hx, hy, yaw, z + low[2], z + high[2])
        if high[2] + z > self.room.height or not self.room.is_inside(foot):
            return None
        if model.label == "rug":
            others = [p.footprint for p in self.room.pieces if p.label == "rug" and p.footprint is not None]
        else:
            others = self.room.obstacles() + self.room.clear
        if any(foot.overlaps(other, margin) for other in others):
            return None
        if z < 0.5 and model.label != "rug":
            self._filled += 4 * hx * hy
        return self.put(model, x, y, z, yaw, foot, 0)

    def put(
        self, model: Model, x: float, y: float, z: float, yaw: float, footprint: Footprint | None, parent: int
    ) -> Piece:
        """Adds a piece without asking whether it fits."""
        piece = Piece(len(self.room.pieces) + 1, model.label, model, (x, y, z), yaw, footprint, parent)
        self.room.pieces.append(piece)
        for child, cx, cy, cz, turned in model.children:
            px, py, pz = piece.to_room(cx, cy, cz)
            self.put(child, px, py, pz, yaw + turned, None, piece.id)
        return piece

    def against_wall(
        self,
        model: Model,
        z: float = 0.0,
        gap: float = 0.02,
        tries: int = 25,
        wall: Wall | None = None,
        wobble: float = 0.02,
    ) -> Piece | None:
        """Somewhere along a wall, its back to it, turned by up to `wobble` radians."""  # fmt: skip
        low, high = model.bounds()
        width = float(high[0] - low[0])
        for _ in range(tries):
            side = wall or self.room.walls[int(self.rng.integers(len(self.room.walls)))]
            room_left = side.length - width - 0.06
            if room_left <= 0:
                continue
            # A corner is as good as any other place, and people like it.
            u = float(self.rng.choice([0.0, 1.0])) if self.rng.random() < 0.25 else float(self.rng.random())
            turned = float(self.rng.uniform(-wobble, wobble))
            off = gap - float(low[1]) + abs(np.sin(turned)) * width / 2
            x, y = side.at(0.03 + u * room_left - float(low[0]), off)
            piece = self.place(model, x, y, side.yaw + turned, z)
            if piece is not None:
                return piece
        return None

    def in_the_open(self, model: Model, tries: int = 25, margin: float = 0.02) -> Piece | None:
        """Anywhere on the floor, at any angle near the room's axes."""
        for _ in range(tries):
            x, y = self.rng.uniform(0.2, self.room.width - 0.2), self.rng.uniform(0.2, self.room.depth - 0.2)
            yaw = int(self.rng.integers(4)) * np.pi / 2 + self.rng.uniform(-0.12, 0.12)
            piece = self.place(model, float(x), float(y), float(yaw), margin=margin)
            if piece is not None:
                return piece
        return None

    def beside(self, piece: Piece, model: Model, x: float, y: float, yaw: float = 0.0) -> Piece | None:
        """At (x, y) of a piece's own frame, turned by `yaw` against it."""
        px, py, _ = piece.to_room(x, y, 0.0)
        return self.place(model, px, py, piece.yaw + yaw)
