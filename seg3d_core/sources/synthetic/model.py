# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""One piece of furniture before it is placed, and the materials that pieces are made of.

A model stands on z = 0 about the origin of its footprint; its back is at -y, and it faces +y.
"""

from __future__ import annotations

import colorsys
from dataclasses import dataclass, field

import numpy as np

from ...types import Array
from .primitives import Solid
from .surfaces import Colour, Material

Rng = np.random.Generator


@dataclass(frozen=True)
class Support:
    """A flat rectangle at height z on which small things can stand, with `headroom` above it; metres."""

    x0: float
    x1: float
    y0: float
    y1: float
    z: float
    headroom: float = 1.0


@dataclass(eq=False)
class Model:
    """Solids with their materials, and what stands or lies on them (`children`: model, x, y, z, yaw)."""

    label: str
    solids: list[tuple[Solid, Material]] = field(default_factory=list)
    supports: list[Support] = field(default_factory=list)
    children: list[tuple[Model, float, float, float, float]] = field(default_factory=list)

    def add(self, material: Material, *solids: Solid) -> Model:
        self.solids += [(solid, material) for solid in solids]
        return self

    def bounds(self) -> Array:
        """Lowest and highest corner (2, 3), children left out."""
        corners = np.concatenate([s.triangles.reshape(-1, 3) for s, _ in self.solids])
        return np.stack([corners.min(0), corners.max(0)])


def pick(rng: Rng, *options: str) -> str:
    return options[int(rng.integers(len(options)))]


def chance(rng: Rng, probability: float) -> bool:
    return bool(rng.random() < probability)


def between(rng: Rng, low: float, high: float) -> float:
    return float(rng.uniform(low, high))


def hsv(hue: float, saturation: float, value: float) -> Colour:
    """A colour in linear RGB; hue wraps at 1."""
    r, g, b = colorsys.hsv_to_rgb(hue % 1.0, min(max(saturation, 0.0), 1.0), min(max(value, 0.0), 1.0))
    return r**2.2, g**2.2, b**2.2


def tone(colour: Colour, factor: float) -> Colour:
    """The colour made darker (below 1) or lighter."""
    r, g, b = (min(1.0, c * factor) for c in colour)
    return r, g, b


def _shift(rng: Rng) -> float:
    return between(rng, 0, 40)


def wood(rng: Rng, along: int = 0) -> Material:
    base = hsv(between(rng, 0.05, 0.10), between(rng, 0.3, 0.65), between(rng, 0.35, 0.85))
    return Material("wood", base, tone(base, between(rng, 0.5, 0.75)), between(rng, 0.05, 0.14), along, 0.12,
                    shift=_shift(rng))  # fmt: skip


def lacquer(rng: Rng) -> Material:
    """Smooth paint: mostly white, grey or black, now and then a colour."""
    if chance(rng, 0.65):
        colour = hsv(between(rng, 0, 1), between(rng, 0, 0.08), float(rng.choice([0.93, 0.85, 0.7, 0.45, 0.2])))
    else:
        colour = hsv(between(rng, 0, 1), between(rng, 0.2, 0.7), between(rng, 0.4, 0.9))
    return Material("plain", colour, gloss=0.18)


def board(rng: Rng, along: int = 0) -> Material:
    """What tables and cabinets are made of."""
    return wood(rng, along) if chance(rng, 0.68) else lacquer(rng)


def metal(rng: Rng) -> Material:
    value = float(rng.choice([0.12, 0.45, 0.65, 0.8]))
    return Material("plain", hsv(between(rng, 0, 1), 0.04, value), gloss=0.5)


def ceramic(rng: Rng) -> Material:
    return Material("plain", hsv(0.12, between(rng, 0, 0.06), between(rng, 0.88, 0.97)), gloss=0.4)


def plastic(rng: Rng, dark: bool = False) -> Material:
    value = between(rng, 0.1, 0.25) if dark else between(rng, 0.4, 0.95)
    return Material("plain", hsv(between(rng, 0, 1), 0.05 if dark else between(rng, 0.1, 0.85), value), gloss=0.25)


def cloth(rng: Rng, patterned: float = 0.3) -> Material:
    """Upholstery, plain or, by chance, with a pattern."""
    base = hsv(between(rng, 0, 1), between(rng, 0.08, 0.65), between(rng, 0.25, 0.85))
    if not chance(rng, patterned):
        return Material("fabric", base, tone(base, 0.75), between(rng, 0.03, 0.06), gloss=0.0, shift=_shift(rng))
    second = hsv(between(rng, 0, 1), between(rng, 0.0, 0.6), between(rng, 0.4, 0.95))
    kind = pick(rng, "stripes", "checks", "flowers")
    return Material(kind, base, second, between(rng, 0.05, 0.16), int(rng.integers(2)), 0.0, shift=_shift(rng))


def leather(rng: Rng) -> Material:
    colour = hsv(between(rng, 0.02, 0.08), between(rng, 0.2, 0.6), between(rng, 0.12, 0.5))
    return Material("plaster", colour, size=0.03, gloss=0.25)


def upholstery(rng: Rng) -> Material:
    return leather(rng) if chance(rng, 0.2) else cloth(rng, 0.2)


def stone(rng: Rng) -> Material:
    base = hsv(between(rng, 0.05, 0.6), between(rng, 0.0, 0.15), between(rng, 0.25, 0.9))
    return Material("marble", base, hsv(0.08, 0.1, between(rng, 0.2, 0.7)), 0.05, gloss=0.35, shift=_shift(rng))
