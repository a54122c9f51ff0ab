# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""The ScanNet benchmark's text format.

Ground truth `<scene>.txt`: one id per vertex, label * 1000 + instance number. Predictions `<scene>.txt`: lines
`relative/mask/path label score`; a mask file holds one integer per vertex, non-zero = in.
"""

from __future__ import annotations

import math
from pathlib import Path, PurePosixPath

import numpy as np
from numba import njit

from ..errors import Seg3DError
from ..types import Array
from .ground_truth import GroundTruth
from .npz_arrays import check_array, read_arrays
from .predictions import Predictions

_MASKS = "predicted_masks"


def read_truth_text(path: Path) -> GroundTruth:
    """One id per vertex; positions from `<scene>.npz` (`xyz`) beside it where that is there. Raises Seg3DError."""
    ids = read_integers(path)
    if len(ids) and ids.min() < 0:
        raise Seg3DError(f"{path}, line {int(ids.argmin()) + 1}: {ids.min()}; ids are 0 or larger")
    return GroundTruth(ids, _positions_beside(path, len(ids)))


def write_truth_text(path: Path, truth: GroundTruth) -> None:
    """One id per line."""
    path.write_text("".join(f"{value}\n" for value in truth.ids.tolist()))


def read_predictions_text(path: Path) -> Predictions:
    """Predictions of one scene, in the file's order; positions as in `read_truth_text`. Raises Seg3DError.

    A mask path that stands there twice counts once, at its first place with its last label and score, as in the
    benchmark's own code. Paths may not leave the file's folder.
    """
    entries = _entries(path)
    count: int | None = None
    members = []
    for name in entries:
        mask = read_integers(_inside(path, name))
        if count is not None and len(mask) != count:
            raise Seg3DError(f"{path}: mask {name} has {len(mask)} lines, those before it {count}")
        count = len(mask)
        members.append(np.flatnonzero(mask))
    return Predictions(
        count or 0,
        np.append(0, np.cumsum([len(m) for m in members], dtype=np.int64)),
        np.concatenate(members) if members else np.empty(0, np.int64),
        np.array([label for label, _ in entries.values()], np.int64),
        np.array([score for _, score in entries.values()], float),
        xyz=None if count is None else _positions_beside(path, count),
    )


def write_predictions_text(folder: Path, scene: str, predictions: Predictions, decimals: int = 6) -> None:
    """`<scene>.txt`, one file per mask below `predicted_masks`, and `<scene>.npz` with `xyz` where that is known.

    Labels are the predictions' class ids: names must have become ids before (`ClassList.ids_of`).
    """
    (folder / _MASKS).mkdir(parents=True, exist_ok=True)
    line = np.tile(np.frombuffer(b"0\n", np.uint8), predictions.point_count)
    lines = []
    for k, (label, score) in enumerate(zip(predictions.labels.tolist(), predictions.scores.tolist(), strict=True)):
        name = f"{_MASKS}/{scene}_{k:03d}.txt"
        text = line.copy()
        text[2 * predictions.members[predictions.indptr[k] : predictions.indptr[k + 1]]] = ord("1")
        (folder / name).write_bytes(text.tobytes())
        lines.append(f"{name} {label} {score:.{decimals}f}\n")
    if predictions.xyz is not None:
        np.savez_compressed(folder / f"{scene}.npz", xyz=predictions.xyz)
    (folder / f"{scene}.txt").write_text("".join(lines))


def _entries(path: Path) -> dict[str, tuple[int, float]]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Seg3DError(f"cannot read {path}: {error}") from None
    entries: dict[str, tuple[int, float]] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        parts = line.rsplit(maxsplit=2)
        try:
            name, label, score = parts[0].strip(), int(parts[1]), float(parts[2])
            if not math.isfinite(score) or not -(2**31) <= label < 2**31:
                raise ValueError
        except (ValueError, IndexError):
            raise Seg3DError(
                f"{path}, line {number}: {line[:80]!r} is not `relative/mask/path label score`, "
                "a whole number and a finite one at the end"
            ) from None
        entries[name] = (label, score)
    return entries


def _inside(path: Path, name: str) -> Path:
    """The mask file, if it lies below the folder of `path`, links followed."""
    folder = path.parent
    try:
        file = (folder / name).resolve()
        if PurePosixPath(name).is_absolute() or ".." in Path(name).parts or not file.is_relative_to(folder.resolve()):
            raise Seg3DError(
                f"{path}: mask {name[:80]!r} lies outside the file's folder: only relative paths below it count"
            )
        is_file = file.is_file()
    except (OSError, ValueError, RuntimeError):
        is_file = False
    if not is_file:
        raise Seg3DError(f"{path}: mask {name[:80]!r} is not there; paths are relative to the file's own folder")
    return file


def _positions_beside(path: Path, count: int) -> Array | None:
    beside = path.with_suffix(".npz")
    if not beside.is_file():
        return None
    arrays = read_arrays(beside, ("xyz",))
    return check_array(beside, arrays, "xyz", (count, 3), "numbers") if "xyz" in arrays else None


def read_integers(path: Path) -> Array:
    """Whole numbers between white space, int64 (n,). Raises Seg3DError naming the line that holds something else."""
    try:
        content = np.fromfile(path, np.uint8)
    except OSError as error:
        raise Seg3DError(f"cannot read {path}: {error.strerror or error}") from None
    values, wrong = _parse(content)
    if wrong >= 0:
        line = int((content[:wrong] == ord("\n")).sum()) + 1
        raise Seg3DError(f"{path}, line {line}: a whole number is wanted")
    return values


@njit(cache=True, nogil=True)
def _parse(content: Array) -> tuple[Array, int]:
    """The numbers, and where something else stands, -1 if nowhere."""
    out = np.empty((len(content) + 1) // 2, np.int64)
    count, at = 0, 0
    while at < len(content):
        byte = content[at]
        if byte == 32 or 9 <= byte <= 13:
            at += 1
            continue
        start = at
        if byte == 45 or byte == 43:
            at += 1
        first, value = at, 0
        while at < len(content) and 48 <= content[at] <= 57:
            value = 10 * value + (content[at] - 48)
            at += 1
        ended = at == len(content) or content[at] == 32 or 9 <= content[at] <= 13
        if at == first or at - first > 18 or not ended:
            return out[:0], start
        out[count] = -value if byte == 45 else value
        count += 1
    return out[:count].copy(), -1
