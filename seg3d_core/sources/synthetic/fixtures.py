# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Kitchen and bathroom fixtures, and what hangs on walls."""

from __future__ import annotations

import numpy as np

from . import clutter
from . import model as m
from .model import Model, Rng
from .primitives import bar, box, cushion, cylinder, lathe, prism, quad, torus, turn
from .storage import drawers
from .surfaces import Material


def refrigerator(rng: Rng) -> Model:
    out = Model("refrigerator")
    w, d, h = m.between(rng, 0.58, 0.8), m.between(rng, 0.6, 0.68), m.between(rng, 1.5, 1.95)
    body = m.metal(rng) if m.chance(rng, 0.4) else m.lacquer(rng)
    grip = m.metal(rng)
    out.add(
        body,
        box((-w / 2, -d / 2, 0.04), (w / 2, d / 2 - 0.05, h)),
        box((-w * 0.47, -d * 0.45, 0), (w * 0.47, d * 0.4, 0.04)),
    )
    split = h * (m.between(rng, 0.3, 0.42) if m.chance(rng, 0.5) else m.between(rng, 0.62, 0.72))
    for z0, z1 in ((0.05, split - 0.005), (split + 0.005, h)):
        out.add(body, box((-w / 2 + 0.002, d / 2 - 0.046, z0), (w / 2 - 0.002, d / 2, z1)))
        z = z1 - 0.3 if z0 < 0.1 else z0 + 0.08
        out.add(grip, bar((w * 0.4, d / 2 + 0.03, z), (w * 0.4, d / 2 + 0.03, z + 0.22), 0.01))
        out.add(
            grip, *(bar((w * 0.4, d / 2 - 0.01, q), (w * 0.4, d / 2 + 0.03, q), 0.008) for q in (z + 0.02, z + 0.2))
        )
    return out


def stove(rng: Rng) -> Model:
    out, body = Model("stove"), m.metal(rng) if m.chance(rng, 0.5) else m.ceramic(rng)
    black = Material("plain", m.hsv(0, 0, 0.12), gloss=0.6)
    out.add(body, box((-0.3, -0.3, 0), (0.3, 0.29, 0.89)))
    out.add(black, box((-0.29, -0.29, 0.889), (0.29, 0.29, 0.9)), box((-0.25, 0.28, 0.22), (0.25, 0.3, 0.62)))
    out.add(m.metal(rng), bar((-0.24, 0.33, 0.68), (0.24, 0.33, 0.68), 0.011))
    knob = cylinder(0.018, 0, 0.03, 10)
    out.add(
        m.plastic(rng, dark=True),
        *(knob.moved((x, 0.29, 0.8), turn(pitch=-np.pi / 2)) for x in np.linspace(-0.22, 0.22, 5)),
    )
    ring = Material("plain", m.hsv(0, 0, 0.3))
    for x in (-0.14, 0.14):
        for y in (-0.13, 0.13):
            out.add(ring, torus(m.between(rng, 0.06, 0.09), 0.006, 18).moved((x, y, 0.902)))
    if m.chance(rng, 0.5):
        pan = m.metal(rng)
        out.children.append((_pot(pan), 0.14, -0.13, 0.91, m.between(rng, 0, 3)))
    return out


def _pot(material: Material) -> Model:
    profile = [(0, 0), (0.1, 0), (0.1, 0.12), (0.095, 0.12), (0.095, 0.01), (0, 0.01)]
    out = Model("bowl").add(material, lathe(profile, 18))
    return out.add(material, bar((-0.14, 0, 0.1), (-0.1, 0, 0.1), 0.008), bar((0.1, 0, 0.1), (0.14, 0, 0.1), 0.008))


def microwave(rng: Rng) -> Model:
    out, body = Model("microwave"), m.metal(rng) if m.chance(rng, 0.5) else m.lacquer(rng)
    out.add(body, box((-0.24, -0.17, 0.01), (0.24, 0.16, 0.28)))
    out.add(Material("plain", m.hsv(0, 0, 0.1), gloss=0.6), box((-0.21, 0.15, 0.04), (0.1, 0.166, 0.25)))
    return out.add(m.plastic(rng), *(box((0.14, 0.15, z), (0.21, 0.167, z + 0.03)) for z in (0.06, 0.11, 0.16, 0.21)))


def _tap(out: Model, material: Material, y: float, z: float, reach: float = 0.14) -> None:
    out.add(material, bar((0, y, z), (0, y, z + 0.16), 0.014), bar((0, y, z + 0.16), (0, y + reach, z + 0.14), 0.011))
    out.add(material, bar((0, y + reach, z + 0.145), (0, y + reach, z + 0.11), 0.01))


def _basin(half_width: float, top: float, deep: float) -> list[tuple[float, float]]:
    low, a = top - deep, half_width
    inside = [(0, low), (a * 0.5, low), (a * 0.8, top - deep * 0.5), (a * 0.9, top), (a, top)]
    return [*inside, (a, top - 0.03), (a * 0.6, low - 0.03), (0, low - 0.03)]


def sink(rng: Rng, kitchen: bool = False, body: Material | None = None, top: Material | None = None) -> Model:
    """A washbasin on a pedestal or a cabinet, or a kitchen unit with a sunken basin."""
    out = Model("sink")
    if kitchen:
        body, top, steel = (
            body or m.board(rng),
            top or m.stone(rng),
            Material("plain", m.hsv(0.6, 0.03, 0.7), gloss=0.5),
        )
        drawers(out, body, m.metal(rng), (-0.4, 0.4), (-0.29, 0.29), (0.1, 0.7), 1, 2, True)
        for x0, x1, y0, y1 in (
            (-0.4, -0.27, -0.3, 0.31),
            (0.27, 0.4, -0.3, 0.31),
            (-0.27, 0.27, -0.3, -0.18),
            (-0.27, 0.27, 0.2, 0.31),
        ):
            out.add(top, box((x0, y0, 0.861), (x1, y1, 0.9)))
        out.add(body, box((-0.4, -0.29, 0.7), (0.4, -0.2, 0.86)), box((-0.4, 0.22, 0.7), (0.4, 0.29, 0.86)))
        out.add(steel, box((-0.26, -0.17, 0.72), (0.26, 0.19, 0.73)))
        for x0, x1, y0, y1 in (
            (-0.28, -0.26, -0.19, 0.21),
            (0.26, 0.28, -0.19, 0.21),
            (-0.28, 0.28, -0.19, -0.17),
            (-0.28, 0.28, 0.19, 0.21),
        ):
            out.add(steel, box((x0, y0, 0.72), (x1, y1, 0.905)))
        _tap(out, steel, -0.24, 0.9, 0.18)
        return out
    white, w, h = m.ceramic(rng), m.between(rng, 0.25, 0.34), m.between(rng, 0.8, 0.88)
    ratio = m.between(rng, 0.75, 0.95)
    out.add(white, lathe(_basin(w, h, 0.13), 28).scaled(1, ratio).moved((0, 0.05, 0)))
    out.add(white, box((-w * 0.8, -w * ratio, h - 0.06), (w * 0.8, -w * ratio + 0.12, h)))
    if m.chance(rng, 0.55):
        out.add(white, lathe([(0.13, 0), (0.08, 0.1), (0.07, h - 0.2), (0.12, h - 0.1)], 16))
    else:
        drawers(out, m.board(rng), m.metal(rng), (-w, w), (-w * ratio, w * ratio * 0.8), (0.12, h - 0.16), 1, 2, True)
    _tap(out, m.metal(rng), -w * ratio + 0.07, h)
    return out


def toilet(rng: Rng) -> Model:
    out, white = Model("toilet"), m.ceramic(rng)
    bowl = [(0, 0), (0.12, 0), (0.1, 0.12), (0.19, 0.34), (0.2, 0.4), (0.15, 0.4), (0.1, 0.25), (0, 0.2)]
    out.add(white, lathe(bowl, 24).scaled(0.93, 1.25).moved((0, 0.1, 0)))
    out.add(white, box((-0.1, -0.33, 0), (0.1, 0.0, 0.33)))
    seat = Material("plain", white.colour, gloss=0.2) if m.chance(rng, 0.7) else m.wood(rng)
    if m.chance(rng, 0.5):
        lid = cylinder(0.195, 0.405, 0.43, 24).scaled(0.95, 1.25).moved((0, 0.1, 0))
    else:
        ring = lathe([(0.13, 0.405), (0.2, 0.405), (0.2, 0.425), (0.13, 0.425), (0.13, 0.405)], 24)
        out.add(seat, ring.scaled(0.95, 1.25).moved((0, 0.1, 0)))
        lid = cylinder(0.19, -0.01, 0.01, 24).scaled(0.95, 1.15).moved((0, -0.14, 0.63), turn(pitch=1.45))
    out.add(seat, lid)
    out.add(white, cushion(0.4, 0.19, 0.4, 0.15).moved((0, -0.3, 0.58)))
    return out.add(m.metal(rng), cylinder(0.025, 0.77, 0.79, 10).moved((0, -0.3, 0)))


def bathtub(rng: Rng) -> Model:
    out, white = Model("bathtub"), m.ceramic(rng)
    w, d, h = m.between(rng, 1.5, 1.75), m.between(rng, 0.7, 0.8), m.between(rng, 0.52, 0.6)
    apron = m.stone(rng) if m.chance(rng, 0.3) else white
    x, y, rim = w / 2, d / 2, 0.07
    for x0, x1, y0, y1 in ((-x, x, -y, -y + rim), (-x, x, y - rim, y), (-x, -x + rim, -y, y), (x - rim, x, -y, y)):
        out.add(apron, box((x0, y0, 0), (x1, y1, h - 0.02)))
        out.add(white, box((x0, y0, h - 0.02), (x1, y1, h)))
    a, b, c, e, z = x - rim, y - rim, x - rim - 0.16, y - rim - 0.08, 0.14
    high = [(-a, -b, h - 0.01), (a, -b, h - 0.01), (a, b, h - 0.01), (-a, b, h - 0.01)]
    low = [(-c, -e, z), (c, -e, z), (c, e, z), (-c, e, z)]
    out.add(white, quad(*low), *(quad(low[k], low[(k + 1) % 4], high[(k + 1) % 4], high[k]) for k in range(4)))
    steel = m.metal(rng)
    out.add(steel, bar((a - 0.05, 0, h), (a - 0.05, 0, h + 0.15), 0.015).moved((0.08, 0, -0.02)))
    return out.add(steel, bar((a + 0.03, 0, h + 0.13), (a - 0.12, 0, h + 0.11), 0.014))


def radiator(rng: Rng) -> Model:
    out, white, w, h = Model("radiator"), m.ceramic(rng), m.between(rng, 0.6, 1.2), m.between(rng, 0.45, 0.65)
    count = int(w / 0.07)
    for k in range(count):
        x = -w / 2 + (k + 0.5) * w / count
        out.add(white, cushion(0.055, 0.1, h, 0.25).moved((x, 0, 0.1 + h / 2)))
    out.add(white, *(bar((-w / 2 + 0.02, 0, z), (w / 2 - 0.02, 0, z), 0.018) for z in (0.15, h + 0.05)))
    return out.add(white, *(bar((s * (w / 2 - 0.1), 0, 0), (s * (w / 2 - 0.1), 0, 0.16), 0.015) for s in (-1, 1)))


def tv(rng: Rng, hung: bool = False) -> Model:
    """A flat television on a foot, or for the wall."""
    out, w = Model("tv"), m.between(rng, 0.8, 1.3)
    h, black = w * 0.57, m.plastic(rng, dark=True)
    lift = 0.0 if hung else 0.06
    if not hung:
        out.add(black, box((-w * 0.25, -0.11, 0), (w * 0.25, 0.11, 0.012)), box((-0.04, -0.02, 0), (0.04, 0.01, 0.1)))
    out.add(black, box((-w / 2, -0.03, lift), (w / 2, 0.02, lift + h)))
    return out.add(
        clutter.screen(rng), box((-w / 2 + 0.012, 0.015, lift + 0.015), (w / 2 - 0.012, 0.023, lift + h - 0.012))
    )


def picture(rng: Rng) -> Model:
    """A framed picture; z = 0 is its middle."""
    out, w, h = Model("picture"), m.between(rng, 0.3, 0.9), m.between(rng, 0.3, 0.7)
    edge = m.between(rng, 0.015, 0.04)
    x, z = w / 2, h / 2
    frame = m.wood(rng) if m.chance(rng, 0.5) else m.lacquer(rng)
    for x0, x1, z0, z1 in ((-x, x, -z, -z + edge), (-x, x, z - edge, z), (-x, -x + edge, -z, z), (x - edge, x, -z, z)):
        out.add(frame, box((x0, -0.015, z0), (x1, 0.015, z1)))
    first, second = (m.hsv(m.between(rng, 0, 1), m.between(rng, 0.1, 0.8), m.between(rng, 0.2, 0.95)) for _ in range(2))
    kind = m.pick(rng, "painting", "painting", "stripes", "checks", "flowers")
    art = Material(
        kind, first, second, m.between(rng, 0.08, 0.25), int(rng.choice([0, 2])), shift=m.between(rng, 0, 40)
    )
    if m.chance(rng, 0.4):
        mat = min(w, h) * 0.16
        out.add(
            Material("plain", m.hsv(0.1, 0.03, 0.95)), box((-x + edge, -0.012, -z + edge), (x - edge, 0.004, z - edge))
        )
        return out.add(art, box((-x + edge + mat, 0, -z + edge + mat), (x - edge - mat, 0.007, z - edge - mat)))
    return out.add(art, box((-x + edge, -0.012, -z + edge), (x - edge, 0.006, z - edge)))


def mirror(rng: Rng) -> Model:
    """A mirror is an opaque bright plate here: depth stops at it, as with a covered one."""
    out, w, h = Model("mirror"), m.between(rng, 0.4, 0.7), m.between(rng, 0.6, 1.0)
    glass = Material("clouds", m.hsv(0.55, 0.12, 0.8), m.hsv(0.6, 0.1, 0.62), 0.8, gloss=0.8)
    frame = m.wood(rng) if m.chance(rng, 0.6) else m.metal(rng)
    if m.chance(rng, 0.4):
        disc = cylinder(w / 2, -0.012, 0.012, 28).moved((0, 0, 0), turn(pitch=np.pi / 2))
        return out.add(glass, disc).add(frame, torus(w / 2, 0.018, 28).moved((0, 0, 0), turn(pitch=np.pi / 2)))
    out.add(frame, box((-w / 2, -0.015, -h / 2), (w / 2, 0.01, h / 2)))
    return out.add(glass, box((-w / 2 + 0.03, 0, -h / 2 + 0.03), (w / 2 - 0.03, 0.015, h / 2 - 0.03)))


def clock(rng: Rng) -> Model:
    out, r = Model("clock"), m.between(rng, 0.12, 0.2)
    upright = turn(pitch=-np.pi / 2)
    out.add(m.lacquer(rng), torus(r, 0.014, 24).moved((0, 0, 0), upright))
    out.add(Material("plain", m.hsv(0.1, 0.03, 0.95)), cylinder(r, -0.015, 0.004, 24).moved((0, 0, 0), upright))
    hand = Material("plain", m.hsv(0, 0, 0.1))
    for length in (0.55, 0.8):
        a = m.between(rng, 0, 6.28)
        out.add(hand, bar((0, 0.01, 0), (length * r * np.cos(a), 0.01, length * r * np.sin(a)), 0.006, sides=4))
    return out


def towel(rng: Rng) -> Model:
    out, w, h = Model("towel"), m.between(rng, 0.35, 0.55), m.between(rng, 0.5, 0.8)
    steel, material = m.metal(rng), m.cloth(rng, 0.4)
    out.add(steel, bar((-w * 0.62, 0.03, 0), (w * 0.62, 0.03, 0), 0.01))
    out.add(steel, *(bar((s * w * 0.6, -0.04, 0), (s * w * 0.6, 0.03, 0), 0.012) for s in (-1, 1)))
    out.add(
        material, box((-w / 2, 0.042, -h), (w / 2, 0.055, 0.01)), box((-w / 2, 0.005, -h * 0.7), (w / 2, 0.018, 0.01))
    )
    return out.add(material, box((-w / 2, 0.005, 0.008), (w / 2, 0.055, 0.02)))


def curtain(rng: Rng, width: float, height: float) -> Model:
    """One wavy hanging cloth, its upper edge at z = `height`."""
    out, material = Model("curtain"), m.cloth(rng, 0.35)
    x = np.linspace(-width / 2, width / 2, max(10, int(width * 28)))
    y = 0.025 * np.sin(2 * np.pi * x / m.between(rng, 0.1, 0.16))
    for k in range(len(x) - 1):
        corners = [
            (x[k], y[k] - 0.004),
            (x[k + 1], y[k + 1] - 0.004),
            (x[k + 1], y[k + 1] + 0.004),
            (x[k], y[k] + 0.004),
        ]
        out.add(material, prism([(float(a), float(b)) for a, b in corners], 0.03, height))
    return out


def rug(rng: Rng) -> Model:
    """A carpet 6 mm thick: rectangular or round."""
    out = Model("rug")
    base = m.hsv(m.between(rng, 0, 1), m.between(rng, 0.15, 0.6), m.between(rng, 0.3, 0.8))
    second = m.hsv(m.between(rng, 0, 1), m.between(rng, 0.0, 0.6), m.between(rng, 0.3, 0.95))
    kind = m.pick(rng, "fabric", "stripes", "checks", "flowers")
    size = 0.06 if kind == "fabric" else m.between(rng, 0.12, 0.35)
    material = Material(kind, base, second, size, int(rng.integers(2)), 0.0, shift=m.between(rng, 0, 40))
    if m.chance(rng, 0.25):
        return out.add(material, cylinder(m.between(rng, 0.6, 1.0), 0.001, 0.006, 36))
    w, d = m.between(rng, 1.2, 2.4), m.between(rng, 0.8, 1.7)
    border = Material("fabric", m.tone(base, 0.5), m.tone(base, 0.4), 0.06)
    out.add(border, box((-w / 2, -d / 2, 0.001), (w / 2, d / 2, 0.006)))
    return out.add(material, box((-w / 2 + 0.08, -d / 2 + 0.08, 0.002), (w / 2 - 0.08, d / 2 - 0.08, 0.007)))
