# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Furnishing: which groups of things a kind of room gets, and where each piece goes."""

from __future__ import annotations

import numpy as np

from . import fixtures, structure
from . import model as m
from .groups import FILLERS, GROUPS, cover_surfaces, decorate_walls
from .model import Rng
from .room import Opening, Placer, Room, Wall
from .storage import ceiling_light
from .walk import can_be_walked

KINDS = ("living", "bedroom", "office", "kitchen", "bathroom", "studio")
_MAX_FILL = 0.42


def build_room(seed: int) -> Room:
    """The furnished room of a seed: always the same, with free floor to walk on."""
    for attempt in range(50):
        room = _furnish(np.random.default_rng([seed, 1, attempt]))
        if can_be_walked(room):
            return room
    raise RuntimeError(f"seed {seed} gives no room that can be walked through")


def _furnish(rng: Rng) -> Room:
    kind = str(rng.choice(KINDS, p=[0.2, 0.18, 0.16, 0.15, 0.13, 0.18]))
    room = structure.empty_room(rng, kind)
    placer = Placer(room, rng)
    _fit_openings(placer, rng)
    for group in GROUPS[kind](rng):
        if placer.fill < _MAX_FILL:
            group(placer, rng)
    target = m.between(rng, 0.22, _MAX_FILL - 0.04)
    fillers = FILLERS[kind]
    # Each filler comes once or twice at most: no room is full of baskets.
    for number in rng.permutation(2 * len(fillers))[: int(rng.integers(6, 16))]:
        if placer.fill > target:
            break
        fillers[int(number) % len(fillers)](placer, rng)
    decorate_walls(placer, rng)
    _light(placer, rng)
    cover_surfaces(placer, rng)
    return room


def _fit_openings(placer: Placer, rng: Rng) -> None:
    room = placer.room
    for wall in room.walls:
        for hole in wall.openings:
            w, h = hole.u1 - hole.u0, hole.z1 - hole.z0
            x, y = wall.at((hole.u0 + hole.u1) / 2, 0.0)
            if hole.kind == "door":
                placer.put(structure.door(rng, w, h), x, y, 0.0, wall.yaw, None, 0)
                continue
            placer.put(structure.window(rng, w, h), x, y, hole.z0, wall.yaw, None, 0)
            if room.kind != "bathroom" and m.chance(rng, 0.55):
                _hang_curtains(placer, rng, wall, hole)


def _hang_curtains(placer: Placer, rng: Rng, wall: Wall, hole: Opening) -> None:
    width, top = m.between(rng, 0.25, 0.45), min(hole.z1 + 0.12, placer.room.height - 0.03)
    look = rng.integers(2**31)
    for u in (hole.u0 - width / 2 + 0.05, hole.u1 + width / 2 - 0.05):
        u = min(max(u, width / 2 + 0.03), wall.length - width / 2 - 0.03)
        cloth = fixtures.curtain(np.random.default_rng(look), width, top)
        x, y = wall.at(u, 0.1)
        kept, placer.room.clear = placer.room.clear, [c for c in placer.room.clear if c.z0 < 0.1]
        placer.place(cloth, x, y, wall.yaw)
        placer.room.clear = kept


def _light(placer: Placer, rng: Rng) -> None:
    """Lamps under the ceiling where none hangs yet, and a light that falls in by a window; two lights at most, as
    each one costs a shadow ray per pixel."""
    room = placer.room
    parts = structure.floor_parts(room)
    for x0, y0, x1, y1 in parts:
        x, y, big = (x0 + x1) / 2, (y0 + y1) / 2, (x1 - x0) * (y1 - y0) > 3
        near = any(np.hypot(lx - x, ly - y) < 1.8 for lx, ly, _, _ in room.lights)
        if big and not near and len(room.lights) < 2:
            placer.put(ceiling_light(rng), x, y, room.height, 0.0, None, 0)
            room.lights.append((x, y, room.height - 0.35, m.between(rng, 0.7, 1.1)))
    for wall in room.walls:
        for hole in wall.openings:
            if hole.kind == "window" and len(room.lights) < 2:
                x, y = wall.at((hole.u0 + hole.u1) / 2, 0.35)
                room.lights.append((x, y, hole.z1 - 0.3, m.between(rng, 0.3, 0.8)))
