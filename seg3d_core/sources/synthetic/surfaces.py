# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Procedural surfaces: the colour of points from where they lie on their object.

A `Material` is a pattern, two or three colours and a size. Patterns are evaluated for all hits of one kind at
once and fade to their mean where the pattern is finer than the pixel, so that nothing flickers from afar.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.ndimage import gaussian_filter

from ...types import Array

Colour = tuple[float, float, float]


@dataclass(frozen=True)
class Material:
    """`pattern` is a key of `PATTERNS`; colours are linear RGB in [0, 1]; `size` is the pattern's period in metres.

    `along` is the object's axis (0, 1, 2) that grain and stripes follow; `gloss` in [0, 1] is the strength of
    highlights; `glow` in [0, 1] is light of its own (lamp shades, screens, the sky behind a window).
    """

    pattern: str
    colour: Colour
    second: Colour = (0.0, 0.0, 0.0)
    size: float = 0.1
    along: int = 0
    gloss: float = 0.05
    glow: float = 0.0
    shift: float = 0.0


_CELLS = 256


@lru_cache(maxsize=1)
def _noise() -> tuple[Array, Array]:
    """Two wrapping noise images in [-1, 1], float32: smooth blobs about 1/32 wide, and many octaves."""
    rng = np.random.default_rng(20240501)
    white = rng.standard_normal((_CELLS, _CELLS))

    def blurred(sigma: float) -> Array:
        image = gaussian_filter(white, sigma, mode="wrap")
        return image / image.std()

    smooth = np.clip(blurred(4.0) / 2.5, -1, 1)
    octaves = sum(blurred(s) * np.sqrt(s) for s in (0.7, 1.5, 3.0, 6.0, 12.0, 24.0))
    return smooth.astype(np.float32), np.clip(octaves / octaves.std() / 2.5, -1, 1).astype(np.float32)


def _look(image: Array, u: Array, v: Array) -> Array:
    """Noise at coordinates where 1 is the width of the image, which repeats."""
    i = (u * _CELLS).astype(np.int32) & (_CELLS - 1)
    j = (v * _CELLS).astype(np.int32) & (_CELLS - 1)
    return image[i, j]


def _look_between(image: Array, u: Array, v: Array) -> Array:
    """The same, blended between cells: for patterns so large that cells would show."""
    x, y = u * _CELLS, v * _CELLS
    i, j = np.floor(x), np.floor(y)
    a, b = x - i, y - j
    i, j = i.astype(np.int32), j.astype(np.int32)
    last = _CELLS - 1
    low = image[i & last, j & last] * (1 - b) + image[i & last, (j + 1) & last] * b
    high = image[(i + 1) & last, j & last] * (1 - b) + image[(i + 1) & last, (j + 1) & last] * b
    return low * (1 - a) + high * a


def _hash(i: Array, j: Array) -> Array:
    """A steady random number in [0, 1) for integer cells."""
    k = (i.astype(np.int64) * 374761393 + j.astype(np.int64) * 668265263) & 0xFFFFFFFF
    k = ((k ^ (k >> 13)) * 1274126177) & 0xFFFFFFFF
    return ((k ^ (k >> 16)) & 0xFFFF).astype(np.float32) / 65536


def _fade(size: Array | float, width: Array) -> Array:
    """1 where a feature is wider than two pixels, 0 where it is narrower than one."""
    return np.clip(size / width - 1, 0, 1)


def _wave(x: Array, width: Array) -> Array:
    """A square wave of period 1 in [-1, 1] with edges as soft as the pixel, 0 where too fine."""
    ramp = 4 * np.abs((x % 1) - 0.5) - 1
    return np.clip(ramp / np.maximum(4 * width, 1e-3), -1, 1) * np.clip(2 - 4 * width, 0, 1)


def _line(x: Array, half: float, width: Array) -> Array:
    """Cover in [0, 1] of lines at whole x, `half` thick on each side, by pixels `width` wide."""
    distance = 0.5 - np.abs((x % 1) - 0.5)
    soft = np.maximum(width, 1e-4)
    cover = np.clip((half - distance) / soft + 0.5, 0, 1)
    return np.where(soft > 0.5, 2 * half, cover * np.minimum(1, 2 * half / soft + 0.2))


# Every pattern takes (u, v) along and across in periods, the pixel's width in periods, and gives the share of the
# second colour in [0, 1] and a brightness around 1.
def _plain(u: Array, v: Array, w: Array) -> tuple[Array, Array]:
    return np.zeros_like(u), np.ones_like(u)


def _plaster(u: Array, v: Array, w: Array) -> tuple[Array, Array]:
    _, rough = _noise()
    return np.zeros_like(u), 1 + 0.04 * _look(rough, u * 0.5, v * 0.5) * _fade(0.05, w)


def _wood(u: Array, v: Array, w: Array) -> tuple[Array, Array]:
    smooth, rough = _noise()
    bend = _look(smooth, u * 0.012, v * 0.06)
    rings = 0.5 + 0.5 * np.sin(2 * np.pi * (v * 1.1 + 0.9 * bend))
    fine = _look(rough, u * 0.05, v * 1.3)
    fade = _fade(0.4, w)
    return (0.5 + (0.75 * rings - 0.4) * fade).clip(0, 1), 1 + 0.10 * fine * _fade(0.05, w)


def _planks(u: Array, v: Array, w: Array) -> tuple[Array, Array]:
    row = np.floor(v)
    offset = _hash(row, row + 7)
    length = u / 8 + offset
    board = _hash(row, np.floor(length))
    grain, fine = _wood(u * 0.5, v * 1.5 + board * 37, w)
    gap = np.maximum(_line(v, 0.02, w), _line(length, 0.0025, w / 8))
    return 0.5 + (grain - 0.5) * 0.5 + (board - 0.5) * 0.6 * _fade(0.7, w), fine * (1 - 0.55 * gap)


def _tiles(u: Array, v: Array, w: Array) -> tuple[Array, Array]:
    joint = np.maximum(_line(u, 0.015, w), _line(v, 0.015, w))
    tone = _hash(np.floor(u), np.floor(v))
    return joint, 1 + 0.10 * (tone - 0.5) * _fade(0.7, w)


def _checks(u: Array, v: Array, w: Array) -> tuple[Array, Array]:
    return 0.5 + 0.5 * _wave(u / 2, w / 2) * _wave(v / 2, w / 2), np.ones_like(u)


def _stripes(u: Array, v: Array, w: Array) -> tuple[Array, Array]:
    return 0.5 + 0.5 * _wave(v, w), np.ones_like(u)


def _fabric(u: Array, v: Array, w: Array) -> tuple[Array, Array]:
    smooth, rough = _noise()
    weave = np.sin(2 * np.pi * u * 4) * np.sin(2 * np.pi * v * 4)
    blot = _look(rough, u * 0.3, v * 0.3)
    return (0.5 + 0.35 * _look(smooth, u * 0.2, v * 0.2)), 1 + 0.08 * weave * _fade(0.12, w) + 0.06 * blot


def _brick(u: Array, v: Array, w: Array) -> tuple[Array, Array]:
    row = np.floor(v)
    x = u / 2.6 + 0.5 * (row % 2)
    joint = np.maximum(_line(x, 0.025, w / 2.6), _line(v, 0.06, w))
    tone = _hash(row, np.floor(x))
    _, rough = _noise()
    return joint, 1 + (0.35 * (tone - 0.5) + 0.12 * _look(rough, u, v)) * _fade(0.7, w)


def _marble(u: Array, v: Array, w: Array) -> tuple[Array, Array]:
    smooth, rough = _noise()
    vein = np.abs(_look(rough, u * 0.08, v * 0.08) + 0.35 * _look(smooth, v * 0.1, u * 0.1))
    return np.clip(0.7 - 4 * vein, 0, 1) * _fade(0.5, w), np.ones_like(u)


def _flowers(u: Array, v: Array, w: Array) -> tuple[Array, Array]:
    a, b = u % 1 - 0.5, v % 1 - 0.5
    petals = 0.27 + 0.09 * np.cos(5 * np.arctan2(b, a) + 6 * _hash(np.floor(u), np.floor(v)))
    cover = np.clip((petals - np.hypot(a, b)) / np.maximum(w, 0.02) + 0.5, 0, 1)
    return 0.25 + (cover - 0.25) * _fade(0.6, w), np.ones_like(u)


def _painting(u: Array, v: Array, w: Array) -> tuple[Array, Array]:
    smooth, rough = _noise()
    share = 0.5 + 1.1 * _look_between(smooth, u * 0.13, v * 0.13) + 0.3 * _look_between(rough, u * 0.2, v * 0.2)
    return np.clip(share, 0, 1), 1 + 0.4 * _look_between(rough, v * 0.09, u * 0.09)


def _clouds(u: Array, v: Array, w: Array) -> tuple[Array, Array]:
    smooth, rough = _noise()
    share = 0.5 + 0.9 * _look_between(smooth, u * 0.08, v * 0.12) + 0.25 * _look_between(rough, u * 0.1, v * 0.15)
    return np.clip(share, 0, 1), np.ones_like(u)


def _keys(u: Array, v: Array, w: Array) -> tuple[Array, Array]:
    return np.maximum(_line(u, 0.1, w), _line(v, 0.1, w)), np.ones_like(u)


PATTERNS = {
    "plain": _plain, "plaster": _plaster, "wood": _wood, "planks": _planks, "tiles": _tiles, "checks": _checks,
    "stripes": _stripes, "fabric": _fabric, "brick": _brick, "marble": _marble, "flowers": _flowers,
    "painting": _painting, "clouds": _clouds, "keys": _keys,
}  # fmt: skip


class Palette:
    """The materials of a scene as arrays, one row each, so that hits can be coloured all at once."""

    def __init__(self, materials: list[Material]):
        names = list(PATTERNS)
        self.kind = np.array([names.index(m.pattern) for m in materials], np.int32)
        self.colour = np.array([m.colour for m in materials], np.float32)
        self.second = np.array([m.second for m in materials], np.float32)
        self.size = np.array([m.size for m in materials], np.float32)
        self.along = np.array([m.along for m in materials], np.int32)
        self.gloss = np.array([m.gloss for m in materials], np.float32)
        self.glow = np.array([m.glow for m in materials], np.float32)
        self.shift = np.array([m.shift for m in materials], np.float32)

    def albedo(self, material: Array, points: Array, normals: Array, width: Array) -> Array:
        """Linear RGB float32 (n, 3) of points (n, 3) with normals (n, 3), both in their object's frame.

        `material` int (n,); `width` (n,) is the side of the pixel on the surface in metres.
        """
        along, across = self._coordinates(material, points, normals)
        size = self.size[material]
        u, v, w = along / size, across / size, width / size
        share, bright = np.zeros(len(material), np.float32), np.ones(len(material), np.float32)
        kinds = self.kind[material]
        for number, pattern in enumerate(PATTERNS.values()):
            rows = np.flatnonzero(kinds == number)
            if number and len(rows):
                share[rows], bright[rows] = pattern(u[rows], v[rows], w[rows])
        first, second = self.colour[material], self.second[material]
        return (first + (second - first) * share[:, None]) * bright[:, None]

    def _coordinates(self, material: Array, points: Array, normals: Array) -> tuple[Array, Array]:
        """Two coordinates in the plane that the normal faces most, the first one along the grain where it can be."""
        n = len(points)
        facing = np.abs(normals).argmax(1)
        along = self.along[material]
        first = np.where(along == facing, (facing + 1) % 3, along)
        second = 3 - facing - first
        rows = np.arange(n)
        # Objects of one kind must not show the same piece of the pattern; the third axis sets sides apart.
        offset = self.shift[material] + 0.37 * points[rows, facing].round(1)
        grained = offset * (self.kind[material] != _TILES) * (self.kind[material] != _CHECKS)
        return points[rows, first] + self.shift[material], points[rows, second] + grained


_TILES, _CHECKS = list(PATTERNS).index("tiles"), list(PATTERNS).index("checks")
