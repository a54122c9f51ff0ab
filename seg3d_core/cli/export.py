"""`seg3d export`: a saved map in formats of others."""

from __future__ import annotations

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
    masks = folder / "predicted_masks"
    masks.mkdir(parents=True, exist_ok=True)
    write_instances(folder / f"{scene}.npz", snapshot)
    lines = []
    for k, (instance_id, score) in enumerate(zip(snapshot.instances.ids, snapshot.instances.scores, strict=True)):
        inside = np.isin(snapshot.cloud.ids, snapshot.instances.members(k)).astype(np.uint8)
        name = f"predicted_masks/{scene}_{instance_id:04d}.txt"
        np.savetxt(folder / name, inside, fmt="%d")
        lines.append(f"{name} 1 {score:.6f}\n")
    (folder / f"{scene}.txt").write_text("".join(lines))
