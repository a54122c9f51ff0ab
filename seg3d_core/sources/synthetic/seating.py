# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Things to sit and lie on."""

from __future__ import annotations

import numpy as np

from . import model as m
from .clutter import pillow
from .model import Model, Rng, Support
from .primitives import bar, box, cushion, cylinder, frustum, lathe, sphere, torus, turn
from .surfaces import Material


def legs(model: Model, material: Material, width: float, depth: float, height: float, style: str, size: float) -> None:
    """Four legs under a rectangle: `square`, `round`, `slanted` or `sled`."""
    x, y = width / 2 - size, depth / 2 - size
    corners = [(sx * x, sy * y) for sx in (-1, 1) for sy in (-1, 1)]
    if style == "square":
        model.add(material, *(box((a - size, b - size, 0), (a + size, b + size, height)) for a, b in corners))
    elif style == "round":
        model.add(material, *(frustum(size * 0.7, size, 0, height, 10).moved((a, b, 0)) for a, b in corners))
    elif style == "slanted":
        model.add(material, *(bar((a, b, 0), (a * 0.72, b * 0.72, height), size * 0.6, size) for a, b in corners))
    else:
        for s in (-1, 1):
            rail = [(s * x, -y, size), (s * x, y, size), (s * x, y, height), (s * x, -y, height)]
            model.add(material, *(bar(rail[i], rail[(i + 1) % 4], size * 0.7) for i in (0, 1, 3)))


def chair(rng: Rng, label: str = "chair") -> Model:
    out = Model(label)
    w, d, h = m.between(rng, 0.40, 0.5), m.between(rng, 0.40, 0.5), m.between(rng, 0.42, 0.48)
    frame, seat = m.board(rng, 2), (m.upholstery(rng) if m.chance(rng, 0.5) else m.board(rng))
    back = h + m.between(rng, 0.35, 0.55)
    leg = m.between(rng, 0.014, 0.024)
    legs(out, frame, w, d, h - 0.02, m.pick(rng, "square", "round", "slanted", "sled"), leg)
    if m.chance(rng, 0.4):
        out.add(seat, cushion(w, d, 0.08, 0.25).moved((0, 0, h)))
    else:
        out.add(seat, box((-w / 2, -d / 2, h - 0.02), (w / 2, d / 2, h + 0.02)))
    y = -d / 2 + 0.02
    lean = -m.between(rng, 0.0, 0.08)
    posts = [bar((s * (w / 2 - 0.02), y, h), (s * (w / 2 - 0.02), y + lean, back), leg * 0.9) for s in (-1, 1)]
    style = m.pick(rng, "slats", "spindles", "panel", "padded")
    out.add(frame, *posts)
    if style == "slats":
        for t in np.linspace(0.35, 1.0, int(rng.integers(2, 5))):
            z = h + t * (back - h)
            yy = y + t * lean
            out.add(frame, box((-w / 2 + 0.02, yy - 0.01, z - 0.05), (w / 2 - 0.02, yy + 0.01, z)))
    elif style == "spindles":
        for x in np.linspace(-w / 2 + 0.06, w / 2 - 0.06, int(rng.integers(3, 6))):
            out.add(frame, bar((float(x), y, h), (float(x), y + lean, back - 0.04), 0.008, sides=6))
        out.add(frame, box((-w / 2, y + lean - 0.012, back - 0.06), (w / 2, y + lean + 0.012, back)))
    else:
        thick = 0.07 if style == "padded" else 0.025
        shape = cushion(w * 0.96, thick, (back - h) * 0.75, 0.25)
        out.add(seat, shape.moved((0, y + lean * 0.6, h + (back - h) * 0.62)))
    if m.chance(rng, 0.2):
        _chair_arms(out, frame, w, d, h)
    return out


def _chair_arms(out: Model, frame: Material, w: float, d: float, h: float) -> None:
    for s in (-1, 1):
        x = s * (w / 2 - 0.005)
        out.add(frame, box((x - 0.02, -d / 2, h + 0.2), (x + 0.02, d * 0.35, h + 0.225)))
        out.add(frame, bar((x, d * 0.3, h), (x, d * 0.3, h + 0.2), 0.013))


def office_chair(rng: Rng) -> Model:
    out = Model("office chair")
    w, h = m.between(rng, 0.46, 0.54), m.between(rng, 0.43, 0.52)
    black, seat = m.plastic(rng, dark=True), m.cloth(rng, 0.05) if m.chance(rng, 0.7) else m.leather(rng)
    arms = int(rng.choice([4, 5, 5]))
    for k in range(arms):
        a = 2 * np.pi * k / arms + 0.3
        end = (0.27 * np.cos(a), 0.27 * np.sin(a), 0.07)
        out.add(black, bar((0, 0, 0.1), end, 0.025, 0.016), sphere(0.03, 10).moved((end[0], end[1], 0.03)))
    out.add(black, cylinder(0.025, 0.09, h - 0.04, 10), box((-0.14, -0.12, h - 0.06), (0.14, 0.12, h - 0.03)))
    out.add(seat, cushion(w, w * 0.95, 0.1, 0.3).moved((0, 0, h)))
    back = m.between(rng, 0.42, 0.68)
    tilt = turn(pitch=m.between(rng, 0.05, 0.15))
    out.add(seat, cushion(w * 0.9, 0.08, back, 0.35).moved((0, -w * 0.5, h + 0.14 + back / 2), tilt))
    out.add(black, bar((0, -0.1, h - 0.04), (0, -w * 0.54, h + 0.3), 0.022))
    if m.chance(rng, 0.7):
        for s in (-1, 1):
            x = s * (w / 2 + 0.02)
            out.add(black, bar((s * 0.15, 0, h - 0.04), (x, 0, h + 0.18), 0.015))
            out.add(black, box((x - 0.035, -0.14, h + 0.18), (x + 0.035, 0.12, h + 0.21)))
    return out


def stool(rng: Rng) -> Model:
    out = Model("stool")
    h, r = float(rng.choice([0.45, 0.5, 0.65, 0.75])) + m.between(rng, -0.03, 0.03), m.between(rng, 0.15, 0.19)
    frame = m.wood(rng, 2) if m.chance(rng, 0.6) else m.metal(rng)
    seat = m.upholstery(rng) if m.chance(rng, 0.5) else m.board(rng)
    style = m.pick(rng, "legs", "pedestal", "square")
    if style == "pedestal":
        out.add(frame, frustum(r * 1.1, 0.03, 0, 0.04, 20), cylinder(0.025, 0.02, h - 0.03))
    else:
        for a in np.arange(4) * np.pi / 2 + np.pi / 4:
            c, s = float(np.cos(a)), float(np.sin(a))
            out.add(frame, bar((r * c * 1.1, r * s * 1.1, 0), (r * c * 0.7, r * s * 0.7, h - 0.03), 0.015))
        out.add(frame, torus(r * 0.95, 0.01).moved((0, 0, h * 0.35)))
    if style == "square":
        out.add(seat, box((-r, -r, h - 0.035), (r, r, h)))
    else:
        out.add(seat, lathe([(0, h - 0.05), (r, h - 0.05), (r, h - 0.015), (r * 0.9, h), (0, h)], 20))
    return out


def ottoman(rng: Rng) -> Model:
    out, w, h = Model("ottoman"), m.between(rng, 0.4, 0.65), m.between(rng, 0.35, 0.45)
    cover = m.upholstery(rng)
    if m.chance(rng, 0.5):
        r = w / 2
        out.add(cover, lathe([(0, 0), (r * 0.96, 0), (r, 0.05), (r, h - 0.06), (r * 0.9, h), (0, h)], 22))
    else:
        out.add(cover, cushion(w, w * 0.85, h * 0.8, 0.2).moved((0, 0, h * 0.6)))
        legs(out, m.wood(rng, 2), w * 0.85, w * 0.7, h * 0.3, "round", 0.02)
    return out


def bench(rng: Rng) -> Model:
    out = Model("bench")
    w, d, h = m.between(rng, 0.9, 1.4), m.between(rng, 0.32, 0.42), m.between(rng, 0.42, 0.47)
    frame = m.board(rng)
    legs(out, frame, w, d, h - 0.03, m.pick(rng, "square", "sled", "slanted"), 0.025)
    out.add(frame, box((-w / 2, -d / 2, h - 0.04), (w / 2, d / 2, h)))
    if m.chance(rng, 0.5):
        out.add(m.cloth(rng), cushion(w * 0.95, d * 0.95, 0.07, 0.2).moved((0, 0, h + 0.03)))
    return out


def couch(rng: Rng, label: str = "couch", seats: int = 0) -> Model:
    """A couch of two or three seats; with one seat, an armchair."""
    out = Model(label)
    seats = seats or int(rng.integers(2, 4))
    d, h, back = m.between(rng, 0.8, 0.95), m.between(rng, 0.38, 0.45), m.between(rng, 0.72, 0.92)
    one, arm = m.between(rng, 0.58, 0.72), m.between(rng, 0.12, 0.24)
    w = one * seats + 2 * arm
    cover = m.upholstery(rng)
    inner = cover if m.chance(rng, 0.7) else m.upholstery(rng)
    foot = m.between(rng, 0.04, 0.14)
    legs(out, m.wood(rng, 2), w, d, foot, m.pick(rng, "square", "round"), 0.025)
    out.add(cover, box((-w / 2 + 0.01, -d / 2 + 0.01, foot), (w / 2 - 0.01, d / 2 - 0.02, h - 0.12)))
    arm_top = m.between(rng, h + 0.1, h + 0.24)
    soft = m.between(rng, 0.12, 0.35)
    for s in (-1, 1):
        shape = cushion(arm, d, arm_top - foot, soft)
        out.add(cover, shape.moved((s * (w - arm) / 2, 0, (arm_top + foot) / 2)))
    thick = m.between(rng, 0.16, 0.24)
    out.add(cover, cushion(w, thick, back - foot, soft).moved((0, (thick - d) / 2, (back + foot) / 2)))
    inside = d - thick
    for k in range(seats):
        x = (k - (seats - 1) / 2) * one
        out.add(inner, cushion(one * 0.98, inside, 0.18, 0.22).moved((x, thick / 2, h - 0.06)))
        shape = cushion(one * 0.95, 0.18, back - h, 0.4)
        out.add(inner, shape.moved((x, thick - d / 2 + 0.05, (back + h) / 2 + 0.04), turn(pitch=0.15)))
    if m.chance(rng, 0.75):
        for s in (-1, 1)[: int(rng.integers(1, 3)) if seats > 1 else 1]:
            out.children.append(
                _thrown(rng, s * max(0.0, w / 2 - arm - (0.22 if seats > 1 else 0.36)), thick - d / 2 + 0.3, h + 0.05)
            )
    return out


def _thrown(rng: Rng, x: float, y: float, z: float) -> tuple[Model, float, float, float, float]:
    return pillow(rng, upright=True), x, y, z, m.between(rng, -0.3, 0.3)


def armchair(rng: Rng) -> Model:
    if m.chance(rng, 0.7):
        return couch(rng, "armchair", 1)
    out = Model("armchair")
    cover, frame = m.upholstery(rng), m.wood(rng, 2)
    w, d, h = m.between(rng, 0.62, 0.72), 0.7, 0.4
    legs(out, frame, w, d, h, "slanted", 0.025)
    out.add(cover, cushion(w * 0.85, d * 0.9, 0.16, 0.3).moved((0, 0.02, h)))
    out.add(cover, cushion(w * 0.85, 0.15, 0.62, 0.35).moved((0, -d * 0.42, h + 0.32), turn(pitch=0.18)))
    for s in (-1, 1):
        x = s * w * 0.46
        out.add(frame, box((x - 0.03, -d * 0.4, h + 0.2), (x + 0.03, d * 0.4, h + 0.235)))
        out.add(
            frame,
            bar((x, d * 0.36, 0), (x, d * 0.36, h + 0.2), 0.02),
            bar((x, -d * 0.4, 0.1), (x, -d * 0.4, h + 0.2), 0.02),
        )
    return out


def bed(rng: Rng) -> Model:
    out = Model("bed")
    w = float(rng.choice([0.9, 1.2, 1.4, 1.6, 1.8]))
    d, base = m.between(rng, 1.95, 2.1), m.between(rng, 0.2, 0.32)
    frame, sheet = m.board(rng), m.cloth(rng, 0.4)
    legs(out, frame, w, d, base - 0.1, m.pick(rng, "square", "round"), 0.04)
    out.add(frame, box((-w / 2, -d / 2, base - 0.12), (w / 2, d / 2, base + 0.04)))
    head = m.between(rng, 0.75, 1.15)
    if m.chance(rng, 0.6):
        out.add(frame, box((-w / 2, -d / 2, 0), (w / 2, -d / 2 + 0.05, head)))
    else:
        out.add(m.upholstery(rng), cushion(w, 0.12, head - 0.1, 0.15).moved((0, -d / 2 + 0.06, head / 2 + 0.05)))
    if m.chance(rng, 0.3):
        out.add(frame, box((-w / 2, d / 2 - 0.04, 0), (w / 2, d / 2, base + 0.3)))
    top = base + m.between(rng, 0.18, 0.28)
    white = Material("fabric", m.hsv(m.between(rng, 0, 1), 0.05, 0.92), m.hsv(0, 0.03, 0.85), 0.05)
    out.add(white, cushion(w - 0.04, d - 0.12, top - base, 0.12).moved((0, 0.03, (top + base) / 2 + 0.01)))
    start = -d / 2 + m.between(rng, 0.5, 0.9)
    end = d / 2 - 0.05
    blanket = cushion(w + 0.03, end - start, top - base + 0.03, 0.14)
    out.add(sheet, blanket.moved((0, (start + end) / 2, (top + base) / 2 + 0.03)))
    count = 1 if w < 1.3 else 2
    cover = m.cloth(rng, 0.35)
    for k in range(count):
        x = (k - (count - 1) / 2) * (w / count) * 0.95
        shape = pillow(rng, upright=False, cover=cover)
        out.children.append((shape, x, -d / 2 + 0.36, top + 0.01, m.between(rng, -0.12, 0.12)))
    out.supports.append(Support(-w / 2 + 0.2, w / 2 - 0.2, start + 0.3, end - 0.2, top + 0.03))
    return out
