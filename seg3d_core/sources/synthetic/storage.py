# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Tables and everything that stores things."""

from __future__ import annotations

import numpy as np

from . import clutter
from . import model as m
from .model import Model, Rng, Support
from .primitives import box, cylinder, frustum, lathe, prism
from .seating import legs
from .surfaces import Material


def table(rng: Rng, label: str = "table", width: float = 0.0) -> Model:
    """A table: rectangular, round or oval; four legs, a pedestal, or two trestles."""
    out = Model(label)
    low = label == "coffee table"
    h = m.between(rng, 0.36, 0.46) if low else m.between(rng, 0.71, 0.77)
    thick = m.between(rng, 0.02, 0.05)
    top = m.stone(rng) if m.chance(rng, 0.15) else m.board(rng)
    frame = top if m.chance(rng, 0.5) else (m.metal(rng) if m.chance(rng, 0.5) else m.board(rng, 2))
    if m.chance(rng, 0.35) and not width:
        return _round_table(rng, out, top, frame, h, thick)
    w = width or (m.between(rng, 0.8, 1.25) if low else m.between(rng, 1.1, 2.0))
    d = m.between(rng, 0.5, 0.65) if low else m.between(rng, 0.7, 0.95)
    out.add(top, box((-w / 2, -d / 2, h - thick), (w / 2, d / 2, h)))
    style = m.pick(rng, "square", "round", "slanted", "sled", "trestle")
    if style == "trestle":
        for s in (-1, 1):
            x = s * w * 0.36
            out.add(frame, box((x - 0.04, -d * 0.4, 0), (x + 0.04, d * 0.4, 0.05)))
            out.add(frame, box((x - 0.03, -0.08, 0), (x + 0.03, 0.08, h - thick)))
    else:
        legs(out, frame, w * 0.96, d * 0.94, h - thick, style, m.between(rng, 0.02, 0.04))
        if m.chance(rng, 0.5):
            z = h - thick
            out.add(frame, box((-w * 0.46, -d * 0.43, z - 0.08), (w * 0.46, d * 0.43, z)))
    if low and m.chance(rng, 0.4):
        out.add(frame, box((-w * 0.45, -d * 0.42, 0.12), (w * 0.45, d * 0.42, 0.14)))
        out.supports.append(Support(-w * 0.35, w * 0.35, -d * 0.3, d * 0.3, 0.14, h - thick - 0.15))
    out.supports.append(Support(-w / 2 + 0.06, w / 2 - 0.06, -d / 2 + 0.06, d / 2 - 0.06, h))
    return out


def _round_table(rng: Rng, out: Model, top: Material, frame: Material, h: float, thick: float) -> Model:
    r = m.between(rng, 0.35, 0.5) if h < 0.6 else m.between(rng, 0.42, 0.62)
    stretch = m.between(rng, 1.2, 1.5) if m.chance(rng, 0.3) else 1.0
    out.add(top, cylinder(r, h - thick, h, 32).scaled(stretch, 1))
    if m.chance(rng, 0.5):
        base = [
            (0, 0),
            (r * 0.6, 0),
            (r * 0.55, 0.03),
            (0.06, 0.08),
            (0.05, h - 0.1),
            (r * 0.4, h - thick),
            (0, h - thick),
        ]
        out.add(frame, lathe(base, 20))
    else:
        legs(out, frame, r * 1.35 * stretch, r * 1.35, h - thick, m.pick(rng, "round", "slanted"), 0.03)
    q = r * 0.68
    out.supports.append(Support(-q * stretch, q * stretch, -q, q, h))
    return out


def desk(rng: Rng) -> Model:
    out = Model("desk")
    w, d, h = m.between(rng, 1.1, 1.7), m.between(rng, 0.6, 0.78), m.between(rng, 0.71, 0.76)
    top, frame = m.board(rng), m.board(rng, 2) if m.chance(rng, 0.6) else m.metal(rng)
    out.add(top, box((-w / 2, -d / 2, h - 0.03), (w / 2, d / 2, h)))
    sides = m.pick(rng, "drawers", "drawers", "legs", "panels")
    if sides == "legs":
        legs(out, frame, w * 0.97, d * 0.95, h - 0.03, m.pick(rng, "square", "sled", "slanted"), 0.025)
    else:
        for s in (-1, 1):
            x = s * (w / 2 - 0.02)
            out.add(frame, box((x - 0.018, -d * 0.47, 0), (x + 0.018, d * 0.47, h - 0.03)))
        out.add(frame, box((-w / 2 + 0.04, -d * 0.45, 0.3), (w / 2 - 0.04, -d * 0.42, h - 0.03)))
    if sides == "drawers":
        for s in (-1, 1)[: int(rng.integers(1, 3))]:
            x0, x1 = sorted((s * (w / 2 - 0.04), s * (w / 2 - 0.42)))
            drawers(
                out, frame, m.metal(rng), (x0, x1), (-d * 0.45, d * 0.45), (0.1, h - 0.03), int(rng.integers(2, 5)), 1
            )
    out.supports.append(Support(-w / 2 + 0.08, w / 2 - 0.08, -d / 2 + 0.06, d / 2 - 0.06, h))
    return out


def drawers(
    out: Model, body: Material, grip: Material, x: tuple[float, float], y: tuple[float, float],
    z: tuple[float, float], rows: int, columns: int, doors: bool = False,
) -> None:  # fmt: skip
    """A carcass whose front, at the larger y, is parted into drawers or doors with handles."""
    out.add(body, box((x[0], y[0], z[0]), (x[1], y[1] - 0.02, z[1])))
    w, h = (x[1] - x[0]) / columns, (z[1] - z[0]) / rows
    for c in range(columns):
        for r in range(rows):
            x0, z0 = x[0] + c * w, z[0] + r * h
            out.add(body, box((x0 + 0.003, y[1] - 0.019, z0 + 0.003), (x0 + w - 0.003, y[1], z0 + h - 0.003)))
            if doors:
                gx = x0 + (w - 0.05 if c % 2 == 0 else 0.05)
                gz = z0 + h * (0.5 if h > 1 else 0.75)
                span = ((gx - 0.006, gz - 0.07), (gx + 0.006, gz + 0.07))
            else:
                gx, gz, half = x0 + w / 2, z0 + h * 0.62, min(0.08, w * 0.25)
                span = ((gx - half, gz - 0.007), (gx + half, gz + 0.007))
            out.add(grip, box((span[0][0], y[1], span[0][1]), (span[1][0], y[1] + 0.022, span[1][1])))


def chest(rng: Rng, label: str) -> Model:
    """A closed piece with drawers or doors: nightstand, cabinet, dresser, tv stand or wardrobe."""
    out = Model(label)
    sizes = {
        "nightstand": ((0.38, 0.55), (0.34, 0.42), (0.42, 0.6)),
        "cabinet": ((0.6, 1.3), (0.36, 0.48), (0.75, 1.3)),
        "dresser": ((0.8, 1.5), (0.42, 0.52), (0.72, 1.1)),
        "tv stand": ((1.1, 1.8), (0.36, 0.45), (0.38, 0.56)),
        "wardrobe": ((0.9, 1.9), (0.52, 0.62), (1.85, 2.2)),
    }
    w, d, h = (m.between(rng, *span) for span in sizes[label])
    body, grip = m.board(rng, 2 if label == "wardrobe" else 0), m.metal(rng)
    foot = m.between(rng, 0.03, 0.15)
    if foot > 0.08 and label != "wardrobe":
        legs(out, m.wood(rng, 2), w * 0.95, d * 0.9, foot, m.pick(rng, "square", "round"), 0.02)
    else:
        out.add(body, box((-w * 0.48, -d * 0.48, 0), (w * 0.48, d * 0.42, foot)))
    columns = max(1, round(w / 0.5))
    doors = label == "wardrobe" or (label in ("cabinet", "tv stand") and m.chance(rng, 0.6))
    rows = 1 if doors else max(1, round((h - foot) / m.between(rng, 0.2, 0.3)))
    x, y = (-w / 2, w / 2), (-d / 2, d / 2)
    if label in ("tv stand", "nightstand") and m.chance(rng, 0.5):
        middle = foot + (h - foot) * 0.5
        drawers(out, body, grip, x, y, (foot, middle), 1, columns)
        out.add(
            body,
            *(box((s * (w / 2 - 0.01) - 0.01, -d / 2, middle), (s * (w / 2 - 0.01) + 0.01, d / 2, h)) for s in (-1, 1)),
        )
        out.add(body, box((-w / 2, -d / 2, middle), (w / 2, -d / 2 + 0.015, h)))
        out.supports.append(Support(-w * 0.4, w * 0.4, -d * 0.35, d * 0.35, middle, h - middle - 0.03))
    else:
        drawers(out, body, grip, x, y, (foot, h), rows, columns, doors)
    top = m.stone(rng) if m.chance(rng, 0.1) else body
    out.add(top, box((-w / 2 - 0.01, -d / 2, h), (w / 2 + 0.01, d / 2 + 0.01, h + 0.022)))
    if h < 1.4:
        out.supports.insert(0, Support(-w / 2 + 0.05, w / 2 - 0.05, -d / 2 + 0.05, d / 2 - 0.05, h + 0.022))
    return out


def bookshelf(rng: Rng) -> Model:
    """An open case with boards, books and things on them."""
    out = Model("bookshelf")
    w, d, h = m.between(rng, 0.6, 1.4), m.between(rng, 0.26, 0.36), float(rng.choice([0.9, 1.3, 1.8, 2.0]))
    body, t = m.board(rng), m.between(rng, 0.018, 0.03)
    rows = max(2, round(h / m.between(rng, 0.33, 0.42)))
    columns = 1 if w < 0.9 else 2
    out.add(
        body, *(box((x - t / 2, -d / 2, 0), (x + t / 2, d / 2, h)) for x in np.linspace(-w / 2, w / 2, columns + 1))
    )
    gap = (h - 0.06 - t) / rows
    out.add(body, *(box((-w / 2, -d / 2, z), (w / 2, d / 2, z + t)) for z in 0.06 + gap * np.arange(rows + 1)))
    if m.chance(rng, 0.75):
        out.add(body, box((-w / 2, -d / 2, 0), (w / 2, -d / 2 + 0.012, h)))
    cell = w / columns - t
    for c in range(columns):
        for r in range(rows):
            x, z = -w / 2 + (c + 0.5) * w / columns, 0.06 + gap * r + t
            _fill_cell(rng, out, x, z, cell, d, gap - t)
    return out


def _fill_cell(rng: Rng, out: Model, x: float, z: float, width: float, depth: float, height: float) -> None:
    kind = rng.random()
    if kind < 0.62:
        length = m.between(rng, 0.35, 0.95) * width
        shift = m.between(rng, -1, 1) * (width - length) / 2
        out.children.append((clutter.book(rng, True, length, height), x + shift, 0.0, z, 0.0))
    elif kind < 0.8:
        thing = clutter.box_thing(rng, True) if m.chance(rng, 0.5) else clutter.vase(rng)
        low, high = thing.bounds()
        if high[2] < height and high[0] - low[0] < width and high[1] - low[1] < depth:
            out.children.append((thing, x, 0.0, z, 0.0))


def wall_shelf(rng: Rng) -> Model:
    """A board on the wall; its z is where it is placed."""
    out, w, d = Model("shelf"), m.between(rng, 0.6, 1.2), m.between(rng, 0.18, 0.26)
    body = m.board(rng)
    out.add(body, box((-w / 2, -d / 2, 0), (w / 2, d / 2, 0.025)))
    bracket = m.metal(rng)
    for s in (-1, 1):
        x = s * w * 0.38
        out.add(bracket, box((x - 0.01, -d / 2, -0.12), (x + 0.01, -d / 2 + 0.015, 0)))
        out.add(bracket, box((x - 0.01, -d / 2, -0.015), (x + 0.01, d * 0.3, 0)))
    x = -w / 2 + 0.05
    while x < w / 2 - 0.2:
        if m.chance(rng, 0.5):
            length = min(m.between(rng, 0.15, 0.35), w / 2 - x - 0.03)
            out.children.append((clutter.book(rng, True, length, 0.28), x + length / 2, 0.0, 0.025, 0.0))
            x += length + 0.04
        elif m.chance(rng, 0.6):
            thing = clutter.cup(rng) if m.chance(rng, 0.4) else clutter.plant(rng, small=True)
            half = float(np.abs(thing.bounds()[:, :2]).max())
            if half < 0.14:
                out.children.append((thing, x + half, 0.0, 0.025, 0.0))
                x += 2 * half + 0.03
                continue
            x += 0.1
        else:
            x += 0.15
    return out


def kitchen_cabinet(rng: Rng, body: Material, top: Material, width: float, wall: bool = False) -> Model:
    """A unit of a kitchen row: on the floor with a worktop, or hanging (`wall`)."""
    out, grip = Model("kitchen cabinet"), m.metal(rng)
    w = width / 2
    if wall:
        drawers(out, body, grip, (-w, w), (-0.17, 0.17), (0, 0.65), 1, max(1, round(width / 0.45)), True)
        return out
    out.add(m.plastic(rng, dark=True), box((-w, -0.29, 0), (w, 0.24, 0.1)))
    if m.chance(rng, 0.35):
        drawers(out, body, grip, (-w, w), (-0.29, 0.29), (0.1, 0.86), int(rng.integers(3, 5)), 1)
    else:
        drawers(out, body, grip, (-w, w), (-0.29, 0.29), (0.1, 0.86), 1, max(1, round(width / 0.45)), True)
    out.add(top, box((-w, -0.3, 0.861), (w, 0.31, 0.9)))
    out.supports.append(Support(-w + 0.04, w - 0.04, -0.2, 0.22, 0.9, 0.45))
    return out


def hanging_lamp(rng: Rng) -> Model:
    """A lamp on a cord; its z = 0 is the ceiling, and it hangs below."""
    out = Model("ceiling light")
    drop, r = m.between(rng, 0.35, 0.6), m.between(rng, 0.14, 0.24)
    out.add(m.plastic(rng, dark=True), cylinder(0.005, -drop, 0, 6), frustum(0.05, 0.05, -0.03, 0, 12))
    return out.add(clutter.shade_material(rng), *clutter.shade(rng, r, -drop - 0.18, -drop + 0.04))


def ceiling_light(rng: Rng) -> Model:
    """A flat lamp under the ceiling, which is z = 0."""
    out, r = Model("ceiling light"), m.between(rng, 0.15, 0.26)
    glow = Material("plain", m.hsv(0.12, 0.08, 0.98), glow=0.8)
    if m.chance(rng, 0.6):
        return out.add(glow, lathe([(0, -0.09), (r * 0.7, -0.075), (r, -0.03), (r, 0), (0, 0)], 24, smooth=True))
    return out.add(glow, prism([(-r, -r), (r, -r), (r, r), (-r, r)], -0.06, 0))
