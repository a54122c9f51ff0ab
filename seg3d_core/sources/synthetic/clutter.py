# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Small things that stand on others, lie about, or hang."""

from __future__ import annotations

import numpy as np

from . import model as m
from .model import Model, Rng
from .primitives import Solid, bar, box, cushion, cylinder, frustum, lathe, leaf, sphere, torus, turn
from .surfaces import Material


def pillow(rng: Rng, upright: bool, cover: Material | None = None) -> Model:
    """A cushion, lying or leaning against a back at -y."""
    out = Model("pillow")
    material = cover or m.cloth(rng, 0.5)
    if upright:
        side = m.between(rng, 0.36, 0.46)
        shape = cushion(side, 0.14, side, 0.55).moved((0, 0, side * 0.48), turn(pitch=m.between(rng, 0.2, 0.4)))
    else:
        shape = cushion(m.between(rng, 0.5, 0.68), m.between(rng, 0.36, 0.44), 0.15, 0.5).moved((0, 0, 0.07))
    return out.add(material, shape)


def book(rng: Rng, upright: bool = False, length: float = 0.0, height: float = 0.0) -> Model:
    """One or a few lying books, or a standing row of `length` metres on a shelf with `height` above it."""
    out = Model("book")
    paper = Material("plain", m.hsv(0.13, 0.08, 0.88))
    if upright:
        x = -length / 2
        while x < length / 2 - 0.015:
            thick = min(m.between(rng, 0.018, 0.05), length / 2 - x)
            h, d = m.between(rng, 0.6, 0.95) * min(height, 0.32), m.between(rng, 0.14, 0.2)
            cover = Material("plain", m.hsv(m.between(rng, 0, 1), m.between(rng, 0.1, 0.8), m.between(rng, 0.2, 0.9)))
            out.add(cover, box((x, -0.1, 0), (x + thick - 0.001, d - 0.1, h)))
            x += thick
        return out
    z = 0.0
    for _ in range(int(rng.choice([1, 1, 2, 3, 4]))):
        w, d, h = m.between(rng, 0.14, 0.19), m.between(rng, 0.2, 0.26), m.between(rng, 0.015, 0.045)
        cover, rotation = m.plastic(rng), turn(yaw=m.between(rng, -0.25, 0.25))
        out.add(cover, box((-w / 2, -d / 2, 0), (w / 2, d / 2, 0.003)).moved((0, 0, z + h - 0.003), rotation))
        out.add(cover, box((-w / 2, -d / 2, 0), (w / 2, d / 2, 0.003)).moved((0, 0, z), rotation))
        out.add(cover, box((-w / 2, -d / 2, 0), (-w / 2 + 0.004, d / 2, h)).moved((0, 0, z), rotation))
        out.add(
            paper,
            box((-w / 2, -d / 2 + 0.004, 0.002), (w / 2 - 0.004, d / 2 - 0.004, h - 0.002)).moved((0, 0, z), rotation),
        )
        z += h + 0.0005
    return out


def cup(rng: Rng) -> Model:
    out, r, h = Model("cup"), m.between(rng, 0.035, 0.048), m.between(rng, 0.08, 0.12)
    material = m.ceramic(rng) if m.chance(rng, 0.4) else m.plastic(rng)
    r0 = r * m.between(rng, 0.65, 1.0)
    out.add(material, lathe([(0, 0), (r0, 0), (r, h), (r - 0.005, h), (r0 - 0.005, 0.008), (0, 0.008)], 14))
    if m.chance(rng, 0.75):
        ring = torus(h * 0.3, 0.006, 12).moved((0, 0, 0), turn(pitch=np.pi / 2))
        out.add(material, ring.moved((r + 0.01, 0, h * 0.5)))
    return out


def bottle(rng: Rng) -> Model:
    out, r, h = Model("bottle"), m.between(rng, 0.03, 0.045), m.between(rng, 0.2, 0.32)
    material = Material(
        "plain", m.hsv(m.between(rng, 0.0, 0.6), m.between(rng, 0.2, 0.8), m.between(rng, 0.15, 0.7)), gloss=0.5
    )
    neck = r * 0.35
    out.add(material, lathe([(0, 0), (r, 0), (r, h * 0.6), (neck, h * 0.78), (neck, h), (0, h)], 14))
    return out.add(m.plastic(rng), cylinder(neck * 1.2, h - 0.02, h + 0.005, 10))


def bowl(rng: Rng) -> Model:
    out, r, h = Model("bowl"), m.between(rng, 0.08, 0.15), m.between(rng, 0.05, 0.09)
    t = np.linspace(0.25, 1, 6)
    outer = [(r * float(np.sin(a * np.pi / 2)), h * float(1 - np.cos(a * np.pi / 2))) for a in t]
    inner = [(a * 0.93, b + 0.007) for a, b in reversed(outer)]
    material = m.ceramic(rng) if m.chance(rng, 0.5) else m.plastic(rng)
    out.add(material, lathe([(0, outer[0][1]), *outer, *inner, (0, inner[-1][1])], 18))
    out.add(material, cylinder(r * 0.4, 0, outer[0][1] + 0.01))
    if m.chance(rng, 0.6):
        fruit = Material("plain", m.hsv(m.between(rng, 0, 0.3), 0.8, 0.8), gloss=0.2)
        for k in range(3):
            a = 2.1 * k
            ball_ = sphere(0.036, 10).moved((r * 0.38 * np.cos(a), r * 0.38 * np.sin(a), h * 0.75))
            out.add(fruit, ball_)
    return out


def vase(rng: Rng) -> Model:
    out, r, h = Model("vase"), m.between(rng, 0.05, 0.1), m.between(rng, 0.18, 0.38)
    neck = m.between(rng, 0.3, 0.7)
    profile = [
        (0, 0),
        (r * 0.6, 0),
        (r, h * 0.35),
        (r * 0.8, h * 0.6),
        (r * neck, h * 0.85),
        (r * neck * 1.25, h),
        (0, h - 0.02),
    ]
    out.add(m.plastic(rng) if m.chance(rng, 0.6) else m.ceramic(rng), lathe(profile, 18, smooth=True))
    if m.chance(rng, 0.6):
        stem = Material("plain", m.hsv(0.3, 0.6, 0.4))
        bloom = Material("plain", m.hsv(m.between(rng, 0.85, 1.2), 0.7, 0.9))
        for _ in range(int(rng.integers(3, 7))):
            a, tilt = m.between(rng, 0, 6.28), m.between(rng, 0.03, 0.12)
            end = (tilt * np.cos(a), tilt * np.sin(a), h + m.between(rng, 0.1, 0.22))
            out.add(stem, bar((0, 0, h * 0.8), end, 0.004, sides=5))
            out.add(bloom, cushion(0.06, 0.06, 0.045, 0.9).moved(end))
    return out


def plant(rng: Rng, small: bool = False) -> Model:
    """A potted plant: long bending leaves, a small tree, or a bush."""
    out = Model("plant")
    scale = m.between(rng, 0.3, 0.45) if small else m.between(rng, 0.8, 1.3)
    r, pot = 0.15 * scale + 0.02, 0.24 * scale + 0.02
    out.add(
        m.plastic(rng) if m.chance(rng, 0.4) else Material("plaster", m.hsv(0.04, 0.55, 0.65), size=0.05),
        lathe(
            [
                (0, 0),
                (r * 0.7, 0),
                (r, pot),
                (r * 1.08, pot),
                (r * 1.08, pot + 0.02),
                (r * 0.9, pot + 0.02),
                (r * 0.85, pot - 0.02),
            ],
            16,
        ),
    )
    out.add(Material("plaster", m.hsv(0.07, 0.5, 0.2), size=0.05), cylinder(r * 0.92, pot - 0.04, pot - 0.015))
    green = m.hsv(m.between(rng, 0.22, 0.40), m.between(rng, 0.5, 0.85), m.between(rng, 0.3, 0.65))
    foliage = Material("fabric", green, m.tone(green, 0.55), 0.05, gloss=0.1)
    style = m.pick(rng, "leaves", "tree", "bush")
    count = int(rng.integers(12, 22))
    if style == "tree":
        top = pot + 0.75 * scale
        out.add(m.wood(rng, 2), bar((0, 0, pot - 0.05), (0.02, 0, top), 0.022 * scale, 0.012 * scale))
        for _ in range(count):
            a, lift, z = m.between(rng, 0, 6.28), m.between(rng, -0.2, 0.9), m.between(rng, 0.55, 1.0)
            shape = leaf(m.between(rng, 0.2, 0.34) * scale, 0.13 * scale, 0.12 * scale)
            out.add(foliage, shape.moved((0.02, 0, pot + (top - pot) * z), turn(a, lift)))
    elif style == "leaves":
        for _ in range(count):
            a, lift, size = m.between(rng, 0, 6.28), m.between(rng, 0.5, 1.35), m.between(rng, 0.4, 0.8) * scale
            out.add(foliage, leaf(size, 0.1 * scale, 0.35 * size).moved((0, 0, pot - 0.02), turn(a, lift)))
    else:
        for _ in range(count):
            a, z = m.between(rng, 0, 6.28), m.between(rng, 0.02, 0.45) * scale
            reach = m.between(rng, 0.03, 0.18) * scale
            w, d, h = rng.uniform(0.12, 0.24, 3) * scale
            blob = cushion(w, d, h, 0.9)
            out.add(foliage, blob.moved((reach * np.cos(a), reach * np.sin(a), pot + 0.06 * scale + z)))
    return out


def box_thing(rng: Rng, small: bool = False) -> Model:
    """A carton, shut or with its flaps open, or a lidded storage box."""
    out = Model("box")
    w, d, h = rng.uniform(0.1, 0.22, 3) if small else rng.uniform(0.25, 0.5, 3)
    if m.chance(rng, 0.55):
        base = m.hsv(0.085, m.between(rng, 0.35, 0.5), m.between(rng, 0.55, 0.75))
        material = Material("plaster", base, size=0.1)
        tape = Material("plain", m.tone(base, 1.25), gloss=0.3)
    else:
        material, tape = m.plastic(rng), m.plastic(rng)
    out.add(material, box((-w / 2, -d / 2, 0), (w / 2, d / 2, h)))
    if not small and m.chance(rng, 0.3):
        for s in (-1, 1):
            flap = box((-w / 2, 0, -0.002), (w / 2, d * 0.45, 0.002))
            out.add(material, flap.moved((0, s * d / 2, h), turn(0 if s > 0 else np.pi, m.between(rng, 0.2, 1.0))))
    elif m.chance(rng, 0.5):
        out.add(tape, box((-0.025, -d / 2 - 0.0015, h * 0.7), (0.025, d / 2 + 0.0015, h + 0.0015)))
    else:
        out.add(tape, box((-w / 2 - 0.008, -d / 2 - 0.008, h - 0.05), (w / 2 + 0.008, d / 2 + 0.008, h + 0.004)))
    return out


def ball(rng: Rng) -> Model:
    out, r = Model("ball"), m.between(rng, 0.08, 0.17)
    first, second = (m.hsv(m.between(rng, 0, 1), m.between(rng, 0.3, 0.9), 0.85) for _ in range(2))
    pattern = m.pick(rng, "plain", "stripes", "checks")
    return out.add(Material(pattern, first, second, r * 0.7, gloss=0.3), sphere(r, 22).moved((0, 0, r)))


def trash_can(rng: Rng) -> Model:
    out, r, h = Model("trash can"), m.between(rng, 0.12, 0.18), m.between(rng, 0.28, 0.6)
    material = m.metal(rng) if m.chance(rng, 0.5) else m.plastic(rng)
    if m.chance(rng, 0.6):
        r0 = r * m.between(rng, 0.75, 1)
        out.add(material, lathe([(0, 0), (r0, 0), (r, h), (r - 0.006, h), (r0 - 0.006, 0.02), (0, 0.02)], 20))
    else:
        out.add(material, cylinder(r, 0, h, 20))
        out.add(
            m.plastic(rng, dark=True),
            lathe([(r * 1.03, h), (r, h + 0.04), (r * 0.5, h + 0.09), (0, h + 0.1)], 20, smooth=True),
        )
    return out


def basket(rng: Rng) -> Model:
    out, r, h = Model("basket"), m.between(rng, 0.16, 0.26), m.between(rng, 0.22, 0.5)
    straw = Material("checks", m.hsv(0.1, 0.45, 0.75), m.hsv(0.09, 0.5, 0.5), 0.03)
    out.add(straw, lathe([(0, 0), (r * 0.85, 0), (r, h), (r - 0.012, h), (r * 0.83, 0.02), (0, 0.02)], 20))
    out.add(straw, torus(r, 0.012).moved((0, 0, h)))
    return out.add(m.cloth(rng), cushion(r * 1.7, r * 1.7, h * 0.5, 0.8).moved((0, 0, h * 0.72)))


def suitcase(rng: Rng) -> Model:
    out, w, h, d = Model("suitcase"), m.between(rng, 0.36, 0.48), m.between(rng, 0.5, 0.7), m.between(rng, 0.2, 0.28)
    shell, black = m.plastic(rng), m.plastic(rng, dark=True)
    out.add(shell, cushion(w, d, h, 0.2).moved((0, 0, h / 2 + 0.05)))
    for x in (-0.12, 0.12):
        out.add(black, bar((x, -d * 0.35, h), (x, -d * 0.35, h + 0.35), 0.008))
        out.add(black, *(sphere(0.025, 8).moved((x * 1.2, y * d * 0.35, 0.025)) for y in (-1, 1)))
    out.add(black, bar((-0.13, -d * 0.35, h + 0.35), (0.13, -d * 0.35, h + 0.35), 0.013))
    return out.add(
        black, *(box((-w * 0.46, -d / 2 - 0.004, z), (w * 0.46, d / 2 + 0.004, z + 0.02)) for z in (h * 0.35, h * 0.75))
    )


def monitor(rng: Rng) -> Model:
    out, w = Model("monitor"), m.between(rng, 0.46, 0.72)
    h, black = w * m.between(rng, 0.52, 0.6), m.plastic(rng, dark=True)
    lift = m.between(rng, 0.1, 0.18)
    out.add(
        black, box((-w * 0.2, -0.1, 0), (w * 0.2, 0.1, 0.012)), box((-0.03, -0.05, 0), (0.03, -0.03, lift + h * 0.5))
    )
    out.add(black, box((-w / 2, -0.03, lift), (w / 2, 0.02, lift + h)))
    return out.add(screen(rng), box((-w / 2 + 0.015, 0.015, lift + 0.02), (w / 2 - 0.015, 0.022, lift + h - 0.015)))


def screen(rng: Rng) -> Material:
    """A dark display or a lit one."""
    if m.chance(rng, 0.5):
        return Material("plain", m.hsv(0.6, 0.2, 0.14), gloss=0.6)
    first, second = (m.hsv(m.between(rng, 0, 1), m.between(rng, 0.2, 0.7), m.between(rng, 0.3, 0.9)) for _ in range(2))
    return Material("painting", first, second, 0.1, gloss=0.2, glow=0.5, shift=m.between(rng, 0, 40))


def keyboard(rng: Rng) -> Model:
    out, w = Model("keyboard"), m.between(rng, 0.38, 0.46)
    dark = m.chance(rng, 0.6)
    base = Material("plain", m.hsv(0, 0, 0.15 if dark else 0.85))
    keys = Material("keys", m.hsv(0, 0, 0.28 if dark else 0.95), m.hsv(0, 0, 0.08 if dark else 0.6), 0.019)
    out.add(base, box((-w / 2, -0.07, 0), (w / 2, 0.07, 0.016)))
    return out.add(keys, box((-w / 2 + 0.01, -0.06, 0.015), (w / 2 - 0.01, 0.06, 0.024)))


def mouse(rng: Rng) -> Model:
    return Model("mouse").add(m.plastic(rng, m.chance(rng, 0.6)), cushion(0.062, 0.11, 0.036, 0.8).moved((0, 0, 0.018)))


def laptop(rng: Rng) -> Model:
    out, w, d = Model("laptop"), m.between(rng, 0.32, 0.38), 0.24
    shell = m.metal(rng)
    out.add(shell, box((-w / 2, -d / 2, 0), (w / 2, d / 2, 0.018)))
    out.add(
        Material("keys", m.hsv(0, 0, 0.2), m.hsv(0, 0, 0.4), 0.019),
        box((-w * 0.44, -d * 0.4, 0.017), (w * 0.44, d * 0.05, 0.021)),
    )
    tilt = turn(pitch=m.between(rng, 0.2, 0.45))
    out.add(shell, box((-w / 2, -0.006, 0), (w / 2, 0.0, 0.23)).moved((0, -d / 2, 0.015), tilt))
    return out.add(
        screen(rng), box((-w / 2 + 0.01, -0.001, 0.015), (w / 2 - 0.01, 0.002, 0.22)).moved((0, -d / 2, 0.015), tilt)
    )


def table_lamp(rng: Rng) -> Model:
    """A lamp for a table: a foot or a bellied base, and a shade."""
    out, h, r = Model("lamp"), m.between(rng, 0.35, 0.55), m.between(rng, 0.11, 0.17)
    foot = m.metal(rng) if m.chance(rng, 0.5) else m.plastic(rng)
    if m.chance(rng, 0.5):
        out.add(foot, cylinder(0.08, 0, 0.02), cylinder(0.01, 0.0, h * 0.8))
    else:
        out.add(
            foot,
            lathe(
                [(0, 0), (0.07, 0), (0.09, h * 0.2), (0.05, h * 0.42), (0.012, h * 0.5), (0.012, h * 0.8)],
                16,
                smooth=True,
            ),
        )
    return out.add(shade_material(rng), *shade(rng, r, h * 0.55, h))


def shade_material(rng: Rng) -> Material:
    colour = m.hsv(m.between(rng, 0.05, 0.16), m.between(rng, 0.05, 0.4), m.between(rng, 0.8, 0.98))
    return Material("fabric", colour, m.tone(colour, 0.9), 0.04, glow=m.between(rng, 0.15, 0.6))


def shade(rng: Rng, radius: float, low: float, high: float) -> list[Solid]:
    """A drum, a cone or a globe between two heights."""
    style = m.pick(rng, "drum", "cone", "globe")
    if style == "globe":
        return [sphere(min(radius, (high - low) / 1.6), 18).moved((0, 0, (low + high) / 2))]
    top = radius * (0.95 if style == "drum" else 0.55)
    return [lathe([(radius, low), (top, high), (top - 0.006, high), (radius - 0.006, low), (radius, low)], 20),
            frustum(top - 0.004, top - 0.004, high - 0.03, high - 0.025)]  # fmt: skip


def floor_lamp(rng: Rng) -> Model:
    out, h, r = Model("lamp"), m.between(rng, 1.35, 1.75), m.between(rng, 0.16, 0.24)
    pole = m.metal(rng) if m.chance(rng, 0.6) else m.wood(rng, 2)
    if m.chance(rng, 0.65):
        out.add(pole, cylinder(r * 0.75, 0, 0.025, 20), cylinder(0.013, 0, h - 0.12, 8))
    else:
        for k in range(3):
            a = 2 * np.pi * k / 3
            out.add(pole, bar((0.22 * np.cos(a), 0.22 * np.sin(a), 0), (0, 0, h - 0.25), 0.014))
    return out.add(shade_material(rng), *shade(rng, r, h - m.between(rng, 0.22, 0.32), h))
