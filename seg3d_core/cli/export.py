# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""`seg3d export`: a saved map in formats of others."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from ..archive import write_error
from ..errors import MapFileError
from ..types import Snapshot
from .console import console
from .query import load_snapshot
from .results import replacing, write_instances


def export(path: Path, out: Path, *, overwrite: bool) -> int:
    """`.ply` and `.npz` by the name's ending, else a folder in the ScanNet benchmark's text format."""
    if out.suffix not in (".ply", ".npz", ""):
        raise MapFileError(
            "unwritable", f"no format for {out.suffix!r}: .ply, .npz, or a folder for the ScanNet text format"
        )
    try:
        if out.exists() and not overwrite:
            raise MapFileError("exists", f"{out} exists: choose another name, or add --overwrite")
        snapshot = load_snapshot(path)
        out.parent.mkdir(parents=True, exist_ok=True)
        _write(out, snapshot, path.resolve().stem)
    except OSError as error:
        raise write_error(out, error) from None
    console.print(f"{len(snapshot.cloud):,} points, {len(snapshot.instances)} instances to {out}", highlight=False)
    return 0


def _write(out: Path, snapshot: Snapshot, name: str) -> None:
    if out.suffix == ".npz":
        write_instances(out, snapshot)
    elif out.suffix == ".ply":
        from ..viz import export_ply

        with replacing(out) as temporary:
            export_ply(snapshot, temporary)
    else:
        write_scannet(out, snapshot, name)


def write_scannet(folder: Path, snapshot: Snapshot, scene: str) -> None:
    """The benchmark's layout: `<scene>.txt` with lines `mask label score`, one mask file per instance.

    The masks count the points of `<scene>.npz`; labels are 1, since zero-shot instances have no class id.
    """
    from ..metrics.benchmark_text import write_predictions_text
    from ..metrics.predictions import Predictions

    predictions = Predictions.from_snapshot(snapshot)
    labelled = replace(predictions, labels=np.ones(len(predictions), int), xyz=None)
    write_predictions_text(folder, scene, labelled)
    write_instances(folder / f"{scene}.npz", snapshot)
