# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""The classes of the two benchmarks, and ScanNet's table from raw categories to their ids."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from seg3d_core.errors import Seg3DError, SourceError, printable
from seg3d_core.metrics.classes import class_lists
from seg3d_core.types import Array

# Wall and floor by the ids of NYU40 and of ScanNet's own table, where chair (2) stands between them.
_STUFF = {"scannet20": ("scannet18", (1, 2)), "scannet200": ("scannet200", (1, 3))}
TABLE_NAME = "scannetv2-labels.combined.tsv"


@dataclass(frozen=True, eq=False)
class Classes:
    """A benchmark's G semantic classes: 0 wall, 1 floor, then the C = G - 2 things; G stands for unlabelled.

    `ids` are the ids of the data set, in that order: what predictions are exported with.
    """

    benchmark: str
    names: tuple[str, ...]
    ids: tuple[int, ...]

    @property
    def semantic(self) -> int:
        """G."""
        return len(self.ids)

    @property
    def things(self) -> int:
        """C."""
        return len(self.ids) - 2

    @property
    def thing_ids(self) -> tuple[int, ...]:
        return self.ids[2:]

    @property
    def thing_names(self) -> tuple[str, ...]:
        return self.names[2:]

    def of_ids(self, ids: Array) -> Array:
        """Semantic class int64 (N,) of the data set's ids int (N,); G where the benchmark does not list one."""
        table = np.full(max(self.ids) + 2, self.semantic, np.int64)
        table[list(self.ids)] = np.arange(self.semantic)
        known = (ids >= 0) & (ids < len(table))
        return table[np.where(known, ids, len(table) - 1)]


@cache
def classes_of(benchmark: str) -> Classes:
    """`scannet20` or `scannet200`. Raises Seg3DError."""
    if benchmark not in _STUFF:
        raise Seg3DError(f"no benchmark {benchmark!r}: choose one of {', '.join(_STUFF)}")
    key, stuff = _STUFF[benchmark]
    things = class_lists()[key].names
    return Classes(benchmark, ("wall", "floor", *things.values()), (*stuff, *things))


@dataclass(frozen=True)
class CategoryIds:
    """The ids of one raw category: `scannet200` of ScanNet's own table, `scannet20` of NYU40; 0 = none."""

    scannet200: int
    scannet20: int


def read_label_table(path: Path) -> dict[str, CategoryIds]:
    """Raw category to its ids, of `scannetv2-labels.combined.tsv`. Raises SourceError."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file, delimiter="\t"))
        table = {row["raw_category"]: CategoryIds(int(row["id"] or 0), int(row["nyu40id"] or 0)) for row in rows}
    except OSError as error:
        raise SourceError(f"cannot read {path}: {error.strerror or error}") from None
    except (KeyError, ValueError, TypeError, csv.Error) as error:
        raise SourceError(
            f"{path} is not ScanNet's table of labels ({printable(repr(error), 200)}): "
            "columns id, raw_category, nyu40id between tabs"
        ) from None
    if not table:
        raise SourceError(f"{path} lists no category: download it again")
    return table
