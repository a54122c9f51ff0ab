# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""The lists of classes that benchmarks evaluate, by id and name."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import resources

import numpy as np

from ..types import Array

UNLISTED = -1
"""The label of a prediction whose name no class of the list has; ground truth never has it."""


@dataclass(frozen=True, eq=False)
class ClassList:
    """Classes by id, in the benchmark's order; `groups` are lists of ids, such as head, common and tail."""

    title: str
    names: Mapping[int, str]
    groups: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    @property
    def ids(self) -> tuple[int, ...]:
        return tuple(self.names)

    def ids_of(self, names: Iterable[str]) -> Array:
        """Class ids int64 (n,) of names, whatever their case and spaces; `UNLISTED` where no class has the name."""
        by_name = {_plain(name): label for label, name in self.names.items()}
        return np.array([by_name.get(_plain(name), UNLISTED) for name in names], np.int64)


def _plain(name: str) -> str:
    return " ".join(name.lower().replace("_", " ").split())


@cache
def class_lists() -> Mapping[str, ClassList]:
    """`scannet18`, the benchmark's 20 classes, and `scannet200`, its 200, both without wall and floor."""
    data = json.loads(resources.files(__package__).joinpath("classes.json").read_text(encoding="utf-8"))
    return {
        key: ClassList(
            entry["title"],
            {int(label): name for label, name in entry["names"].items()},
            {group: tuple(ids) for group, ids in entry["groups"].items()},
        )
        for key, entry in data.items()
    }
