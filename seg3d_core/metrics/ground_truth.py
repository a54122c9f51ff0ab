# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Ground truth of one scene: from npz files, from furnished homes (`points.npz`, `instances.json`), from masks."""

from __future__ import annotations

import json
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import Seg3DError, printable
from ..types import Array
from .npz_arrays import check_array, read_arrays
from .scene_counts import LABEL_FACTOR

_FIRST_CATEGORY = 2001
"""Categories of homes are numbered from here, above the ids of benchmarks, which are never taken for them."""


@dataclass(frozen=True, eq=False)
class GroundTruth:
    """ids int64 (N,): label * 1000 + instance number, 0 = unannotated; xyz (N, 3) in metres, None where unknown.

    `names`: labels to class names, where the source has them.
    """

    ids: Array
    xyz: Array | None = None
    names: Mapping[int, str] = field(default_factory=dict)


def read_truth_npz(path: Path) -> GroundTruth:
    """`truth` int (N,) and, optionally, `xyz` (N, 3), and `label_ids` (L,) with `label_names` (L,). Seg3DError."""
    arrays = read_arrays(path, ("truth", "xyz", "label_ids", "label_names"))
    if "truth" not in arrays:
        raise Seg3DError(f"{path} holds no ground truth: `truth` int (N,), ids of label * 1000 + instance number")
    ids = check_array(path, arrays, "truth", (None,), "integers").astype(np.int64)
    if len(ids) and ids.min() < 0:
        raise Seg3DError(f"{path}: `truth` holds {ids.min()}; ids are label * 1000 + instance number, 0 = unannotated")
    xyz = check_array(path, arrays, "xyz", (len(ids), 3), "numbers") if "xyz" in arrays else None
    names: dict[int, str] = {}
    if "label_ids" in arrays:
        labels = check_array(path, arrays, "label_ids", (None,), "integers")
        texts = check_array(path, arrays, "label_names", labels.shape, "texts")
        names = dict(zip(labels.tolist(), texts.tolist(), strict=True))
    return GroundTruth(ids, xyz, names)


def write_truth_npz(path: Path, truth: GroundTruth) -> None:
    """What `read_truth_npz` reads."""
    arrays = {"truth": truth.ids}
    if truth.xyz is not None:
        arrays["xyz"] = truth.xyz
    if truth.names:
        arrays["label_ids"] = np.array(list(truth.names), np.int64)
        arrays["label_names"] = np.array(list(truth.names.values()), dtype=np.str_)
    np.savez_compressed(path, **arrays)  # type: ignore[arg-type]


def read_house(folder: Path, category_ids: MutableMapping[str, int]) -> GroundTruth:
    """The things of a furnished home: neither structure nor carpet, which are void. Raises Seg3DError.

    `points.npz` has `xyz` (N, 3) and `instance` (N,); `instances.json` says of each id its `category`, `is_structure`
    and `is_carpet`. Labels are numbers of categories: `category_ids`, which grows, keeps them equal over scenes.
    """
    about = _instances(folder / "instances.json")
    path = folder / "points.npz"
    arrays = read_arrays(path, ("xyz", "instance"))
    xyz = check_array(path, arrays, "xyz", (None, 3), "numbers")
    instance = check_array(path, arrays, "instance", (len(xyz),), "integers").astype(np.int64)
    things = sorted(i for i, entry in about.items() if not (entry["is_structure"] or entry["is_carpet"]))
    if len(things) >= LABEL_FACTOR:
        raise Seg3DError(f"{folder}: {len(things)} things are more than {LABEL_FACTOR - 1}, which ids have room for")
    labels = [category_ids.setdefault(str(about[i]["category"]), _FIRST_CATEGORY + len(category_ids)) for i in things]
    ids = np.zeros(len(instance), np.int64)
    slot = np.searchsorted(things, instance)
    slot[slot == len(things)] = 0
    if things:
        is_thing = np.array(things)[slot] == instance
        values = LABEL_FACTOR * np.array(labels) + np.arange(1, len(things) + 1)
        ids[is_thing] = values[slot[is_thing]]
    return GroundTruth(ids, xyz, {label: name for name, label in category_ids.items()})


def _instances(path: Path) -> dict[int, dict[str, Any]]:
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))["instances"]
        about = {int(i): dict(entry) for i, entry in entries.items()}
        for entry in about.values():
            _ = entry["category"], entry["is_structure"], entry["is_carpet"]
    except OSError as error:
        raise Seg3DError(f"cannot read {path}: {error.strerror or error}") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise Seg3DError(
            f"{path} is not as expected ({printable(repr(error), 200)}): "
            '{"instances": {"1": {"category": ..., "is_structure": ..., "is_carpet": ...}, ...}}'
        ) from None
    return about


def truth_from_masks(
    masks: Array, labels: Array, thing_ids: Sequence[int], *, release_label_defect: bool = False
) -> GroundTruth:
    """From instance masks (K, N), in order, and labels int (K,): 0 wall, 1 floor, 2 + number in `thing_ids`.

    `release_label_defect` does as SegDINO3D's release, for parity with its numbers: it takes the first two masks for
    wall and floor, so that in a scene without one of them things become void.
    """
    ids = np.zeros(masks.shape[1], np.int64)
    for number, (mask, label) in enumerate(zip(masks, np.asarray(labels).tolist(), strict=True)):
        is_thing = label >= 2 and not (release_label_defect and number < 2)
        ids[np.asarray(mask, bool)] = thing_ids[label - 2] * LABEL_FACTOR + number + 1 if is_thing else 0
    return GroundTruth(ids)
