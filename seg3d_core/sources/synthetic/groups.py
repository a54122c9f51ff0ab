# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Things that belong together: a desk with its chair and monitor, a bed with its nightstands, a kitchen row."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from . import clutter, fixtures, seating, storage
from . import model as m
from .model import Model, Rng
from .room import Piece, Placer, Wall
from .surfaces import Material
from .tops import Top

Group = Callable[[Placer, Rng], None]


def _seat_at(placer: Placer, piece: Piece, chair: Model, x: float, side: float, rng: Rng) -> Piece | None:
    """A chair facing a piece's long side: `side` +1 at its +y, -1 at its -y."""
    low, high = piece.model.bounds()
    front = float(chair.bounds()[1][1])
    gap = m.between(rng, 0.03, 0.16)
    y = high[1] + front + gap if side > 0 else low[1] - front - gap
    turned = m.between(rng, -0.15, 0.15) if m.chance(rng, 0.85) else m.between(rng, -0.7, 0.7)
    return placer.beside(piece, chair, x, float(y), (np.pi if side > 0 else 0.0) + turned)


def desk_group(placer: Placer, rng: Rng) -> None:
    desk = placer.against_wall(storage.desk(rng), gap=0.03)
    if desk is None:
        return
    for reach in (0.15, 0.3, 0.4):
        chair = seating.office_chair(rng) if m.chance(rng, 0.75) else seating.chair(rng)
        if _seat_at(placer, desk, chair, m.between(rng, -reach, reach), 1, rng) is not None:
            break
    if m.chance(rng, 0.5):
        low, high = desk.model.bounds()
        side = float(rng.choice([-1.0, 1.0]))
        x = high[0] + 0.25 if side > 0 else low[0] - 0.25
        placer.beside(desk, clutter.trash_can(rng), float(x), 0.0)


def dining_group(placer: Placer, rng: Rng) -> None:
    table = placer.in_the_open(storage.table(rng), margin=0.6) or placer.in_the_open(storage.table(rng, width=1.1))
    if table is None:
        return
    low, high = table.model.bounds()
    width, depth = high[0] - low[0], high[1] - low[1]
    look = int(rng.integers(2**31))

    def chair() -> Model:
        return seating.chair(np.random.default_rng(look)) if m.chance(rng, 0.9) else seating.chair(rng)

    spots = [0.0] if width < 1.3 else [-width / 4, width / 4]
    for side in (-1, 1):
        for x in spots:
            if m.chance(rng, 0.88):
                _seat_at(placer, table, chair(), x, side, rng)
    if depth > 0.85 or width > 1.6:
        for side in (-1, 1):
            if m.chance(rng, 0.5):
                end = chair()
                x = side * (width / 2 + float(end.bounds()[1][1]) + 0.06)
                placer.beside(table, end, x, 0.0, side * np.pi / 2)
    if m.chance(rng, 0.5):
        x, y, _ = table.position
        placer.put(storage.hanging_lamp(rng), x, y, placer.room.height, 0.0, None, 0)
        placer.room.lights.append((x, y, placer.room.height - 0.95, m.between(rng, 0.6, 0.9)))


def bed_group(placer: Placer, rng: Rng) -> None:
    bed = placer.against_wall(seating.bed(rng), gap=0.03, tries=40)
    if bed is None:
        return
    low, high = bed.model.bounds()
    look = int(rng.integers(2**31))
    for side in (-1, 1):
        if m.chance(rng, 0.75):
            night = storage.chest(np.random.default_rng(look), "nightstand")
            a, b = night.bounds()
            x = side * ((high[0] - low[0]) / 2 + (b[0] - a[0]) / 2 + m.between(rng, 0.04, 0.12))
            placer.beside(bed, night, float(x), float(low[1] - a[1] + 0.03))
    if m.chance(rng, 0.35):
        seat = seating.bench(rng) if m.chance(rng, 0.6) else seating.ottoman(rng)
        placer.beside(bed, seat, 0.0, float(high[1] - seat.bounds()[0][1] + 0.06))
    if m.chance(rng, 0.5):
        _rug_under(placer, rng, bed, float(high[1]))


def _rug_under(placer: Placer, rng: Rng, piece: Piece, y: float) -> None:
    px, py, _ = piece.to_room(0.0, y, 0.0)
    placer.place(fixtures.rug(rng), px, py, piece.yaw)


def living_group(placer: Placer, rng: Rng) -> None:
    couch = placer.against_wall(seating.couch(rng), gap=0.04, tries=40)
    if couch is None:
        return
    _, high = couch.model.bounds()
    table = storage.table(rng, "coffee table")
    low_t, high_t = table.bounds()
    y = float(high[1] - low_t[1]) + m.between(rng, 0.3, 0.5)
    _rug_under(placer, rng, couch, y)
    placed = placer.beside(couch, table, 0.0, y, m.between(rng, -0.05, 0.05))
    tv_group(placer, rng, _opposite(placer, couch))
    for side in (-1, 1):
        if m.chance(rng, 0.45):
            reach = float(high_t[0]) + 0.85
            turned = -side * -np.pi / 2 + m.between(rng, -0.3, 0.3)
            placer.beside(couch, seating.armchair(rng), side * max(reach, 1.2), y + 0.1, turned)
        elif m.chance(rng, 0.5):
            lamp = clutter.floor_lamp(rng)
            placer.beside(couch, lamp, side * (float(high[0]) + 0.3), m.between(rng, -0.15, 0.1))
    if placed is None and m.chance(rng, 0.5):
        placer.beside(couch, seating.ottoman(rng), 0.0, y)


def _opposite(placer: Placer, piece: Piece) -> Wall | None:
    """The longest wall that a piece looks at."""
    facing = [w for w in placer.room.walls if np.cos(w.yaw - piece.yaw) < -0.9]
    return max(facing, key=lambda w: w.length) if facing else None


def tv_group(placer: Placer, rng: Rng, wall: Wall | None = None) -> None:
    placer.against_wall(storage.chest(rng, "tv stand"), wall=wall)


def kitchen_group(placer: Placer, rng: Rng) -> None:
    """A row along one wall: refrigerator, cabinets, sink, stove, and cabinets that hang above."""
    rooms_walls = sorted(placer.room.walls, key=lambda w: -w.length)
    body, top = m.board(rng), m.stone(rng) if m.chance(rng, 0.6) else m.board(rng)
    parts: list[Model] = [fixtures.sink(rng, True, body, top), fixtures.stove(rng)]
    parts += [
        storage.kitchen_cabinet(rng, body, top, m.between(rng, 0.45, 0.9)) for _ in range(int(rng.integers(1, 4)))
    ]
    parts = [parts[int(i)] for i in rng.permutation(len(parts))]
    if m.chance(rng, 0.85):
        parts.insert(0 if m.chance(rng, 0.5) else len(parts), fixtures.refrigerator(rng))
    for wall in rooms_walls[:3]:
        if _kitchen_row(placer, rng, wall, parts, body, top):
            return


def _kitchen_row(placer: Placer, rng: Rng, wall: Wall, parts: list[Model], body: Material, top: Material) -> bool:
    u = 0.05 if m.chance(rng, 0.5) else max(0.05, wall.length - 0.05 - sum(_width(p) + 0.004 for p in parts))
    placed = 0
    for part in parts:
        low, high = part.bounds()
        x, y = wall.at(u - float(low[0]), 0.02 - float(low[1]))
        piece = placer.place(part, x, y, wall.yaw, margin=0.002)
        if piece is None:
            if placed:
                break
            continue
        placed += 1
        if part.label in ("kitchen cabinet", "sink") and m.chance(rng, 0.75):
            above = storage.kitchen_cabinet(rng, body, top, _width(part), wall=True)
            ax, ay = wall.at(u - float(low[0]), 0.19)
            placer.place(above, ax, ay, wall.yaw, z=1.42, margin=0.002)
        u += float(high[0] - low[0]) + 0.004
    return placed > 1


def _width(model: Model) -> float:
    low, high = model.bounds()
    return float(high[0] - low[0])


def bathroom_group(placer: Placer, rng: Rng) -> None:
    if m.chance(rng, 0.85):
        placer.against_wall(fixtures.bathtub(rng), gap=0.015, wobble=0.0, tries=40)
    placer.against_wall(fixtures.toilet(rng), gap=0.02, wobble=0.0, tries=40)
    basin = placer.against_wall(fixtures.sink(rng), gap=0.015, wobble=0.0, tries=40)
    if basin is not None:
        glass = fixtures.mirror(rng)
        y = float(basin.model.bounds()[0][1]) + 0.017
        px, py, _ = basin.to_room(0.0, y, 0.0)
        placer.place(glass, px, py, basin.yaw, z=1.5, margin=0.0)
    if m.chance(rng, 0.6):
        hang(placer, rng, fixtures.towel(rng), m.between(rng, 1.2, 1.5))
    if m.chance(rng, 0.5):
        placer.in_the_open(fixtures.rug(rng))
    placer.against_wall(clutter.basket(rng) if m.chance(rng, 0.5) else clutter.trash_can(rng))


def hang(placer: Placer, rng: Rng, model: Model, z: float) -> Piece | None:
    """On some wall, its origin at height z."""
    return placer.against_wall(model, z=z, gap=0.002, wobble=0.0)


def _wall_piece(make: Callable[[Rng], Model]) -> Group:
    def group(placer: Placer, rng: Rng) -> None:
        placer.against_wall(make(rng))

    return group


def _corner_piece(make: Callable[[Rng], Model]) -> Group:
    def group(placer: Placer, rng: Rng) -> None:
        placer.against_wall(make(rng), gap=0.05, wobble=0.4)

    return group


def _loose_piece(make: Callable[[Rng], Model]) -> Group:
    def group(placer: Placer, rng: Rng) -> None:
        placer.in_the_open(make(rng), margin=0.05)

    return group


def _chest(label: str) -> Group:
    return _wall_piece(lambda rng: storage.chest(rng, label))


def box_stack(placer: Placer, rng: Rng) -> None:
    """A carton, sometimes with a smaller one on top."""
    first = placer.against_wall(clutter.box_thing(rng), gap=0.08, wobble=0.3)
    if first is not None and m.chance(rng, 0.4):
        second, low = clutter.box_thing(rng, small=True), first.model.bounds()
        if len(first.model.solids) < 3:
            x, y, z = first.to_room(0.0, 0.0, float(low[1][2]) + 0.001)
            placer.put(second, x, y, z, first.yaw + m.between(rng, -0.4, 0.4), None, first.id)


def armchair_group(placer: Placer, rng: Rng) -> None:
    seat = placer.against_wall(seating.armchair(rng), gap=0.08, wobble=0.25)
    if seat is not None and m.chance(rng, 0.5):
        high = float(seat.model.bounds()[1][0])
        placer.beside(seat, clutter.floor_lamp(rng), high + 0.32, -0.15)


bookshelf = _wall_piece(storage.bookshelf)
plant = _corner_piece(clutter.plant)
floor_lamp = _corner_piece(clutter.floor_lamp)
trash_can = _corner_piece(clutter.trash_can)
basket = _corner_piece(clutter.basket)
suitcase = _corner_piece(clutter.suitcase)
ball = _loose_piece(clutter.ball)
stool = _loose_piece(seating.stool)
ottoman = _loose_piece(seating.ottoman)
chair = _corner_piece(seating.chair)
radiator = _wall_piece(fixtures.radiator)
bench = _wall_piece(seating.bench)
side_table = _wall_piece(storage.table)


def rug(placer: Placer, rng: Rng) -> None:
    placer.in_the_open(fixtures.rug(rng))


def _maybe(rng: Rng, *groups: tuple[Group, float]) -> list[Group]:
    return [group for group, probability in groups if m.chance(rng, probability)]


# The main groups of each kind of room, largest first, so that they find a place.
GROUPS: dict[str, Callable[[Rng], list[Group]]] = {
    "living": lambda rng: _maybe(rng, (living_group, 1), (dining_group, 0.35), (bookshelf, 0.7)),
    "bedroom": lambda rng: _maybe(
        rng, (bed_group, 1), (_chest("wardrobe"), 0.75), (_chest("dresser"), 0.5), (desk_group, 0.35)
    ),
    "office": lambda rng: _maybe(
        rng, (desk_group, 1), (desk_group, 0.6), (bookshelf, 0.9), (_chest("cabinet"), 0.6), (desk_group, 0.3)
    ),
    "kitchen": lambda rng: _maybe(rng, (kitchen_group, 1), (dining_group, 0.85), (_chest("cabinet"), 0.3)),
    "bathroom": lambda rng: _maybe(rng, (bathroom_group, 1)),
    "studio": lambda rng: _maybe(
        rng,
        (bed_group, 0.85),
        (kitchen_group, 0.6),
        (living_group, 0.5),
        (desk_group, 0.7),
        (dining_group, 0.4),
        (bookshelf, 0.6),
    ),
}

_COMMON = [plant, floor_lamp, trash_can, box_stack, ball, stool, rug, radiator, chair, basket]
FILLERS: dict[str, list[Group]] = {
    "living": [*_COMMON, armchair_group, ottoman, bookshelf, _chest("cabinet"), side_table],
    "bedroom": [*_COMMON, armchair_group, suitcase, ottoman, _chest("dresser"), bench, bookshelf],
    "office": [*_COMMON, box_stack, bookshelf, _chest("cabinet"), armchair_group, side_table],
    "kitchen": [*_COMMON, stool, bench, _chest("cabinet")],
    "bathroom": [plant, trash_can, basket, stool, radiator],
    "studio": [*_COMMON, armchair_group, suitcase, _chest("dresser"), _chest("wardrobe"), bench, ottoman],
}


def decorate_walls(placer: Placer, rng: Rng) -> None:
    """Pictures, clocks, mirrors and shelves where the walls are free."""
    bath = placer.room.kind == "bathroom"
    for _ in range(int(rng.integers(0, 2)) if bath else int(rng.integers(2, 7))):
        kind = rng.random()
        if kind < 0.6:
            hang(placer, rng, fixtures.picture(rng), m.between(rng, 1.45, 1.65))
        elif kind < 0.75:
            hang(placer, rng, storage.wall_shelf(rng), m.between(rng, 1.25, 1.55))
        elif kind < 0.88:
            hang(placer, rng, fixtures.clock(rng), m.between(rng, 1.75, 1.95))
        else:
            hang(placer, rng, fixtures.mirror(rng), m.between(rng, 1.4, 1.5))


def cover_surfaces(placer: Placer, rng: Rng) -> None:
    """Small things on tables, desks, chests and worktops."""
    for piece in list(placer.room.pieces):
        for number, support in enumerate(piece.model.supports):
            top = Top(placer, piece, support)
            if piece.label == "desk":
                _lay_desk(top, rng)
            elif piece.label == "tv stand" and number == 0:
                top.put(fixtures.tv(rng), 0.0, 0.0, 0.0)
            elif piece.label == "nightstand" and number == 0 and m.chance(rng, 0.7):
                top.scatter(rng, clutter.table_lamp)
            for _ in range(_items(piece.label, rng)):
                menu = _MENUS.get(piece.label, _DEFAULT_MENU)
                top.scatter(rng, menu[int(rng.integers(len(menu)))])


def _items(label: str, rng: Rng) -> int:
    most = {"table": 6, "desk": 5, "coffee table": 5, "kitchen cabinet": 3, "nightstand": 3, "bed": 1}.get(label, 4)
    return int(rng.integers(0, most + 1))


def _lay_desk(top: Top, rng: Rng) -> None:
    s = top.support
    if m.chance(rng, 0.75):
        x = m.between(rng, -0.15, 0.15)
        top.put(clutter.monitor(rng), x, s.y0 + 0.1, m.between(rng, -0.1, 0.1))
        top.put(clutter.keyboard(rng), x, s.y1 - 0.12, m.between(rng, -0.08, 0.08))
        top.put(clutter.mouse(rng), x + m.between(rng, 0.29, 0.35), s.y1 - 0.1, m.between(rng, -0.2, 0.2))
    else:
        top.put(clutter.laptop(rng), m.between(rng, -0.2, 0.2), s.y1 - 0.2, m.between(rng, -0.2, 0.2))
    if m.chance(rng, 0.5):
        top.scatter(rng, clutter.table_lamp)


def _small_plant(rng: Rng) -> Model:
    return clutter.plant(rng, small=True)


def _small_box(rng: Rng) -> Model:
    return clutter.box_thing(rng, small=True)


_DEFAULT_MENU: list[Callable[[Rng], Model]] = [
    clutter.book,
    clutter.vase,
    _small_plant,
    clutter.table_lamp,
    _small_box,
    clutter.bowl,
]
_MENUS: dict[str, list[Callable[[Rng], Model]]] = {
    "table": [clutter.cup, clutter.cup, clutter.bowl, clutter.bottle, clutter.book, clutter.vase, clutter.laptop],
    "coffee table": [clutter.cup, clutter.book, clutter.book, clutter.bowl, clutter.vase, _small_box],
    "desk": [clutter.book, clutter.book, clutter.cup, clutter.bottle, _small_plant, _small_box],
    "kitchen cabinet": [clutter.bowl, clutter.bottle, clutter.cup, fixtures.microwave, _small_box, clutter.bottle],
    "nightstand": [clutter.book, clutter.cup, _small_plant, clutter.bottle],
    "bed": [clutter.book, clutter.laptop, _small_box],
}  # fmt: skip
