# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Room shapes, walls with their openings, doors and windows."""

from __future__ import annotations

import numpy as np

from . import model as m
from .model import Model, Rng
from .primitives import Solid, box, cylinder, quad, turn
from .room import Footprint, Opening, Room, Wall
from .surfaces import Material

RECESS = 0.14

_SIZES = {
    "living": (3.8, 6.2), "bedroom": (3.2, 5.0), "office": (3.2, 5.5), "kitchen": (3.2, 5.2),
    "bathroom": (2.5, 3.8), "studio": (4.5, 7.0),
}  # fmt: skip


def empty_room(rng: Rng, kind: str) -> Room:
    """Walls, floor and openings of a room of one kind, without furniture."""
    low, high = _SIZES[kind]
    width, depth = m.between(rng, low, high), m.between(rng, low, high * 0.85)
    height = m.between(rng, 2.4, 3.0)
    outline, notch = _outline(rng, width, depth, kind)
    common, accent = _wall_materials(rng, kind)
    walls = [Wall(a, b, common) for a, b in zip(outline, outline[1:] + outline[:1], strict=True)]
    if accent is not None:
        walls[int(rng.integers(len(walls)))].material = accent
    ceiling = Material("plaster", m.hsv(0.1, m.between(rng, 0, 0.04), m.between(rng, 0.88, 0.97)))
    room = Room(kind, width, depth, height, notch, walls, _floor_material(rng, kind), ceiling)
    _open_walls(rng, room)
    return room


Corner = tuple[float, float]


def _outline(rng: Rng, w: float, d: float, kind: str) -> tuple[list[Corner], tuple[float, float, float, float] | None]:
    """Corners in counter-clockwise order; every third large room is L-shaped."""
    if kind == "bathroom" or min(w, d) < 3.6 or not m.chance(rng, 0.4):
        return [(0, 0), (w, 0), (w, d), (0, d)], None
    a, b = m.between(rng, 1.0, w - 2.3), m.between(rng, 1.0, d - 2.3)
    corner = int(rng.integers(4))
    if corner == 0:
        return [(a, 0), (w, 0), (w, d), (0, d), (0, b), (a, b)], (0, 0, a, b)
    if corner == 1:
        return [(0, 0), (w - a, 0), (w - a, b), (w, b), (w, d), (0, d)], (w - a, 0, w, b)
    if corner == 2:
        return [(0, 0), (w, 0), (w, d - b), (w - a, d - b), (w - a, d), (0, d)], (w - a, d - b, w, d)
    return [(0, 0), (w, 0), (w, d), (a, d), (a, d - b), (0, d - b)], (0, d - b, a, d)


def _wall_materials(rng: Rng, kind: str) -> tuple[Material, Material | None]:
    shift = m.between(rng, 0, 40)
    paint = m.hsv(m.between(rng, 0, 1), m.between(rng, 0.0, 0.28), m.between(rng, 0.72, 0.96))
    if kind == "bathroom" and m.chance(rng, 0.7):
        joint = m.hsv(0, 0, m.between(rng, 0.6, 0.9))
        return Material("tiles", paint, joint, m.between(rng, 0.12, 0.3), 2, 0.3, shift=shift), None
    common = Material("plaster", paint, size=m.between(rng, 0.2, 0.5), gloss=0.0, shift=shift)
    if not m.chance(rng, 0.4):
        return common, None
    strong = m.hsv(m.between(rng, 0, 1), m.between(rng, 0.15, 0.55), m.between(rng, 0.4, 0.9))
    options = [
        Material("brick", m.hsv(0.03, 0.55, 0.6), m.hsv(0.1, 0.1, 0.75), 0.075, 0, 0.0),
        Material("stripes", paint, m.tone(paint, 0.75), m.between(rng, 0.1, 0.3), 2, 0.0),
        Material("flowers", paint, strong, m.between(rng, 0.15, 0.3), 0, 0.0),
        Material("plaster", strong, size=0.3, gloss=0.0),
        Material("planks", m.hsv(0.08, 0.4, 0.7), m.hsv(0.07, 0.5, 0.5), 0.12, 2, 0.05),
    ]
    return common, options[int(rng.integers(len(options)))]


def _floor_material(rng: Rng, kind: str) -> Material:
    shift, along = m.between(rng, 0, 40), int(rng.integers(2))
    wet = kind in ("bathroom", "kitchen")
    style = (
        m.pick(rng, "tiles", "tiles", "checks", "marble")
        if wet
        else m.pick(rng, "planks", "planks", "planks", "fabric", "tiles")
    )
    if style == "planks":
        base = m.hsv(m.between(rng, 0.05, 0.1), m.between(rng, 0.3, 0.6), m.between(rng, 0.4, 0.85))
        return Material("planks", base, m.tone(base, 0.6), m.between(rng, 0.08, 0.18), along, 0.12, shift=shift)
    base = m.hsv(m.between(rng, 0, 1), m.between(rng, 0.02, 0.3), m.between(rng, 0.4, 0.9))
    if style == "fabric":
        return Material("fabric", base, m.tone(base, 0.8), 0.05, along, 0.0, shift=shift)
    second = (
        m.hsv(0.1, 0.05, m.between(rng, 0.4, 0.7))
        if style == "tiles"
        else m.hsv(m.between(rng, 0, 1), 0.1, m.between(rng, 0.2, 0.9))
    )
    size = 0.08 if style == "marble" else m.between(rng, 0.2, 0.5)
    return Material(style, base, second, size, along, 0.25, shift=shift)


def _open_walls(rng: Rng, room: Room) -> None:
    """One or two doors and up to three windows, at most one opening of a kind per wall."""
    order = [int(i) for i in rng.permutation(len(room.walls))]
    doors = 1 if room.kind == "bathroom" or m.chance(rng, 0.6) else 2
    windows = int(rng.integers(1, 4)) if room.kind != "bathroom" else 1
    for k in order:
        wall = room.walls[k]
        if doors and wall.length > 1.6:
            w = m.between(rng, 0.8, 0.95)
            u = m.between(rng, 0.15, wall.length - w - 0.15)
            wall.openings.append(Opening("door", u, u + w, 0.0, m.between(rng, 1.98, 2.12)))
            _keep_clear(room, wall, u - 0.08, u + w + 0.08, 0.85, 0.0, 2.3)
            doors -= 1
        elif windows and wall.length > 1.8:
            w = min(m.between(rng, 0.9, 2.0), wall.length - 0.7)
            u = m.between(rng, 0.3, wall.length - w - 0.3)
            sill = m.between(rng, 1.3, 1.5) if room.kind == "bathroom" else m.between(rng, 0.75, 1.0)
            top = min(room.height - 0.2, sill + m.between(rng, 1.0, 1.4)) if sill < 1.2 else room.height - 0.3
            wall.openings.append(Opening("window", u, u + w, sill, top))
            _keep_clear(room, wall, u - 0.1, u + w + 0.1, 0.4, sill - 0.05, top + 0.1)
            windows -= 1


def _keep_clear(room: Room, wall: Wall, u0: float, u1: float, deep: float, z0: float, z1: float) -> None:
    x, y = wall.at((u0 + u1) / 2, deep / 2)
    room.clear.append(Footprint(x, y, (u1 - u0) / 2, deep / 2, wall.yaw, z0, z1))


def door(rng: Rng, w: float, h: float) -> Model:
    """A shut door in its casing; the wall's surface is y = 0, the opening is about the origin."""
    out, leaf, casing = Model("door"), m.board(rng, 2), m.lacquer(rng)
    x, e = w / 2, 0.06
    for x0, x1, z0, z1 in ((-x - e, -x, 0, h + e), (x, x + e, 0, h + e), (-x, x, h, h + e)):
        out.add(casing, box((x0, -0.01, z0), (x1, 0.018, z1)))
    back = -RECESS + 0.03
    out.add(leaf, box((-x + 0.005, back, 0.005), (x - 0.005, back + 0.04, h - 0.005)))
    style = m.pick(rng, "panels", "glass", "flat", "planks")
    face = back + 0.04
    if style == "panels":
        for z0, z1 in ((0.15, h * 0.45), (h * 0.52, h - 0.15)):
            for s in (-1, 1):
                x0, x1 = sorted((s * 0.06, s * (x - 0.12)))
                out.add(leaf, box((x0, face - 0.01, z0), (x1, face + 0.012, z1)))
    elif style == "glass":
        glass = Material("plain", m.hsv(0.55, 0.08, 0.85), gloss=0.6)
        out.add(glass, box((-x + 0.15, face - 0.01, h * 0.45), (x - 0.15, face + 0.004, h - 0.18)))
    elif style == "planks":
        out.add(leaf, *(box((-x + 0.02, face - 0.01, z), (x - 0.02, face + 0.015, z + 0.12)) for z in (0.25, h - 0.4)))
    s = -1 if m.chance(rng, 0.5) else 1
    steel = m.metal(rng)
    out.add(steel, cylinder(0.025, 0, 0.015, 12).moved((s * (x - 0.08), face, 1.02), turn(pitch=-np.pi / 2)))
    near, far = s * (x - 0.09), s * (x - 0.2)
    return out.add(
        steel,
        box((min(near, far), face + 0.03, 1.01), (max(near, far), face + 0.045, 1.03)),
        box((s * (x - 0.08) - 0.01, face, 1.01), (s * (x - 0.08) + 0.01, face + 0.045, 1.03)),
    )


def window(rng: Rng, w: float, h: float) -> Model:
    """A window with frame, bars and sill; the glass shows a bright sky."""
    out, frame, x = Model("window"), m.lacquer(rng) if m.chance(rng, 0.6) else m.wood(rng), w / 2
    y0, y1, e = -RECESS + 0.01, -RECESS + 0.07, 0.05
    for x0, x1, z0, z1 in ((-x, -x + e, 0, h), (x - e, x, 0, h), (-x, x, 0, e), (-x, x, h - e, h)):
        out.add(frame, box((x0, y0, z0), (x1, y1, z1)))
    panes = max(1, round(w / m.between(rng, 0.6, 0.9)))
    for k in range(1, panes):
        c = -x + k * w / panes
        out.add(frame, box((c - 0.025, y0, 0), (c + 0.025, y1, h)))
    if m.chance(rng, 0.4):
        out.add(frame, box((-x, y0, h * 0.62), (x, y1 - 0.01, h * 0.62 + 0.03)))
    sky = Material("clouds", m.hsv(0.57, 0.25, 0.95), m.hsv(0.55, 0.05, 1.0), 1.5, gloss=0.3, glow=0.85,
                   shift=m.between(rng, 0, 40))  # fmt: skip
    out.add(sky, box((-x + 0.01, y0 + 0.02, 0.01), (x - 0.01, y0 + 0.03, h - 0.01)))
    return out.add(m.lacquer(rng), box((-x - 0.05, -0.02, -0.03), (x + 0.05, 0.06, 0.0)))


def shell(room: Room) -> list[tuple[Solid, Material]]:
    """Walls with their holes, skirting, floor and ceiling, in the room's frame."""
    out: list[tuple[Solid, Material]] = []
    skirting = Material("plain", m.hsv(0.1, 0.04, 0.9), gloss=0.15)
    for wall in room.walls:
        rotation = turn(wall.yaw)
        place = (wall.a[0], wall.a[1], 0.0)
        out += [(s.moved(place, rotation), wall.material) for s in _wall_faces(wall, room.height)]
        out += [(s.moved(place, rotation), skirting) for s in _skirting(wall)]
    for x0, y0, x1, y1 in floor_parts(room):
        out.append((quad((x0, y0, 0), (x1, y0, 0), (x1, y1, 0), (x0, y1, 0)), room.floor))
        h = room.height
        out.append((quad((x0, y0, h), (x0, y1, h), (x1, y1, h), (x1, y0, h)), room.ceiling))
    return out


def _wall_faces(wall: Wall, height: float) -> list[Solid]:
    def face(u0: float, u1: float, z0: float, z1: float) -> Solid:
        return quad((u0, 0, z0), (u1, 0, z0), (u1, 0, z1), (u0, 0, z1))

    out, u = [], 0.0
    for hole in sorted(wall.openings, key=lambda o: o.u0):
        a, b, z0, z1, r = hole.u0, hole.u1, hole.z0, hole.z1, -RECESS
        out += [face(u, a, 0, height), face(a, b, z1, height)]
        if z0 > 0:
            out += [face(a, b, 0, z0)]
        front = [(a, 0, z0), (b, 0, z0), (b, 0, z1), (a, 0, z1)]
        back = [(a, r, z0), (b, r, z0), (b, r, z1), (a, r, z1)]
        out += [quad(front[k], front[(k + 1) % 4], back[(k + 1) % 4], back[k]) for k in range(4)]
        out.append(quad(*back))
        u = b
    return [*out, face(u, wall.length, 0, height)]


def _skirting(wall: Wall) -> list[Solid]:
    out, u = [], 0.0
    for hole in sorted((o for o in wall.openings if o.kind == "door"), key=lambda o: o.u0):
        out.append(box((u, 0, 0), (hole.u0 - 0.06, 0.012, 0.075)))
        u = hole.u1 + 0.06
    return [*out, box((u, 0, 0), (wall.length, 0.012, 0.075))]


def floor_parts(room: Room) -> list[tuple[float, float, float, float]]:
    w, d = room.width, room.depth
    if room.notch is None:
        return [(0, 0, w, d)]
    x0, y0, x1, y1 = room.notch
    beside = (x1, y0, w, y1) if x0 == 0 else (0.0, y0, x0, y1)
    return [beside, (0.0, y1, w, d) if y0 == 0 else (0.0, 0.0, w, y0)]
