# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Predicted instances over some cloud of points, from npz files, saved maps, and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import Seg3DError
from ..types import Array, Snapshot
from .classes import UNLISTED
from .npz_arrays import check_array, read_arrays
from .scene_counts import members_of_masks

_KEYS = ("xyz", "instance", "ids", "scores", "names", "labels", "masks", "indptr", "members", "points")


@dataclass(frozen=True, eq=False)
class Predictions:
    """P predictions, in order, over N points; they may overlap.

    Prediction p holds the points `members[indptr[p]:indptr[p + 1]]` (rows, each once) and has `scores[p]`, and
    `labels[p]`, a class id, -1 where there is none, or a name in `names`, which a class list turns into one. xyz
    (N, 3) in metres, None where the points are the ground truth's own; voxel_size (m) of the map that they came
    from, None where unknown.
    """

    point_count: int
    indptr: Array
    members: Array
    labels: Array
    scores: Array
    names: tuple[str, ...] | None = None
    xyz: Array | None = None
    voxel_size: float | None = None

    def __len__(self) -> int:
        return len(self.scores)

    @classmethod
    def from_snapshot(cls, snapshot: Snapshot, voxel_size: float | None = None) -> Predictions:
        """The instances of a map over its cloud, in their order."""
        instances, ids = snapshot.instances, snapshot.cloud.ids
        row = np.searchsorted(ids, instances.point_ids)
        row[row == len(ids)] = 0
        known = ids[row] == instances.point_ids if len(ids) else np.zeros(len(row), bool)
        return cls(
            len(ids),
            np.append(0, np.cumsum(known))[instances.indptr],
            row[known],
            np.full(len(instances), UNLISTED),
            instances.scores.astype(float),
            snapshot.names if any(snapshot.names) else None,
            snapshot.cloud.xyz,
            voxel_size,
        )


def read_predictions_npz(path: Path) -> Predictions:
    """Predictions of one scene. Raises Seg3DError.

    Either `instance` int (N,), an id per point, 0 = none, with `ids` (P,), as `seg3d run` and `seg3d export` write;
    or masks that may overlap: `masks` (P, N), non-zero = in, or `indptr` (P + 1,), `members` (M,) and `points`, the
    number N. With them `scores` (P,); optional are `labels` int (P,), class ids, or `names` (P,), class names;
    and `xyz` (N, 3) in metres, needed where the points are not the ground truth's own.
    """
    arrays = read_arrays(path, _KEYS)
    if "instance" in arrays:
        count, indptr, members = _from_ids(path, arrays)
    elif "masks" in arrays:
        masks = check_array(path, arrays, "masks", (None, None), "integers")
        count, (indptr, members) = masks.shape[1], members_of_masks(masks)
    elif "indptr" in arrays:
        count, indptr, members = _from_csr(path, arrays)
    else:
        raise Seg3DError(f"{path} holds no predictions: `instance` with `ids`, `masks`, or `indptr` with `members`")
    number = len(indptr) - 1
    scores = check_array(path, arrays, "scores", (number,), "numbers").astype(float)
    labels = check_array(path, arrays, "labels", (number,), "integers") if "labels" in arrays else None
    names = check_array(path, arrays, "names", (number,), "texts") if "names" in arrays and labels is None else None
    xyz = check_array(path, arrays, "xyz", (count, 3), "numbers") if "xyz" in arrays else None
    return Predictions(
        count,
        indptr,
        members,
        np.full(number, UNLISTED) if labels is None else labels.astype(np.int64),
        scores,
        None if names is None or not any(names) else tuple(names.tolist()),
        xyz,
    )


def _from_ids(path: Path, arrays: Mapping[str, Array]) -> tuple[int, Array, Array]:
    instance = check_array(path, arrays, "instance", (None,), "integers").astype(np.int64)
    ids = check_array(path, arrays, "ids", (None,), "integers").astype(np.int64)
    if len(np.unique(ids)) < len(ids) or (ids <= 0).any():
        raise Seg3DError(f"{path}: `ids` must be positive and each stand there once; 0 in `instance` means none")
    order = np.argsort(ids)
    inside = np.flatnonzero(instance != 0)
    slot = np.minimum(np.searchsorted(ids[order], instance[inside]), max(len(ids) - 1, 0))
    unknown = np.ones(len(inside), bool) if not len(ids) else ids[order][slot] != instance[inside]
    if unknown.any():
        raise Seg3DError(f"{path}: `instance` holds {instance[inside][unknown][0]}, which is not among `ids`")
    owner = order[slot] if len(ids) else slot
    indptr = np.append(0, np.cumsum(np.bincount(owner, minlength=len(ids))))
    return len(instance), indptr, inside[np.argsort(owner, kind="stable")]


def _from_csr(path: Path, arrays: Mapping[str, Array]) -> tuple[int, Array, Array]:
    count = int(check_array(path, arrays, "points", (), "integers"))
    indptr = check_array(path, arrays, "indptr", (None,), "integers").astype(np.int64)
    members = check_array(path, arrays, "members", (None,), "integers").astype(np.int64)
    if not len(indptr) or indptr[0] != 0 or indptr[-1] != len(members) or (np.diff(indptr) < 0).any():
        raise Seg3DError(f"{path}: `indptr` must rise from 0 to the length of `members`, {len(members)}")
    if members.size and (members.min() < 0 or members.max() >= count):
        raise Seg3DError(f"{path}: `members` must be rows of the {count} points")
    owner = np.repeat(np.arange(len(indptr) - 1), np.diff(indptr))
    order = np.lexsort((members, owner))
    if ((np.diff(members[order]) == 0) & (np.diff(owner[order]) == 0)).any():
        raise Seg3DError(f"{path}: `members` names a point twice in one prediction")
    return count, indptr, members[order]


def write_predictions_npz(path: Path, predictions: Predictions) -> None:
    """In the form with `indptr`, `members` and `points`, which `read_predictions_npz` reads."""
    arrays = {
        "points": np.array(predictions.point_count),
        "indptr": predictions.indptr,
        "members": predictions.members,
        "scores": predictions.scores,
    }
    if predictions.names is None:
        arrays["labels"] = predictions.labels
    else:
        arrays["names"] = np.array(predictions.names, dtype=np.str_)
    if predictions.xyz is not None:
        arrays["xyz"] = predictions.xyz
    np.savez_compressed(path, **arrays)  # type: ignore[arg-type]
