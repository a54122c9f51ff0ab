# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""The classes of the generated rooms, by the names of ScanNet200 where it has one."""

from __future__ import annotations

from ...errors import SourceError

# The order is the class id minus one; append only, so that ids in saved files keep their meaning.
CLASSES: tuple[str, ...] = (
    "wall", "floor", "ceiling", "door", "window", "table", "chair", "desk", "bookshelf", "cabinet",
    "bed", "couch", "lamp", "box", "ball", "stool", "nightstand", "refrigerator", "sink", "toilet",
    "bathtub", "plant", "tv", "picture", "monitor", "pillow", "trash can", "book", "cup", "rug",
    "coffee table", "office chair", "armchair", "dresser", "tv stand", "kitchen cabinet", "stove",
    "microwave", "keyboard", "mouse", "laptop", "bottle", "bowl", "curtain", "mirror", "ottoman",
    "bench", "shelf", "clock", "radiator", "wardrobe", "basket", "suitcase", "towel", "ceiling light",
    "vase",
)  # fmt: skip

STRUCTURE = frozenset({"wall", "floor", "ceiling", "door", "window"})
CARPETS = frozenset({"rug"})

_IDS = {label: number + 1 for number, label in enumerate(CLASSES)}


def class_id(label: str) -> int:
    """The id of a class, 1 and up; `SourceError` for a name that is none."""
    if label not in _IDS:
        raise SourceError(f"'{label}' is no class of the synthetic rooms; the classes are: {', '.join(CLASSES)}")
    return _IDS[label]
