# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Published 2D features (SegDINO3D's release): three files of torch tensors for each scene, read as they are.

`<scene>.pth` a list of (N, C) tensors, one of each feature level, of which the mean counts; `<scene>_query_feats.pth`
(O, C); `<scene>_query_3dctr.pth` (O, 3), a tensor or an object that holds one under `tensor`.
"""

from __future__ import annotations

import logging
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from seg3d_core.errors import Seg3DError, printable

from .readers_cache import SceneFeatures

log = logging.getLogger(__name__)

# What torch raises for files that are none of its own.
_DAMAGE = (
    RuntimeError, ValueError, EOFError, LookupError, AttributeError, TypeError, AssertionError, OverflowError,
    MemoryError, struct.error, zipfile.BadZipFile, pickle.UnpicklingError,
)  # fmt: skip


class _Held:
    """In place of an object that holds a tensor under `tensor`, of a class that need not be installed."""

    def __setstate__(self, state: Any) -> None:
        self.tensor = state.get("tensor") if isinstance(state, dict) else None


def published_files(folder: Path, scene: str) -> tuple[Path, Path, Path]:
    """Image features, object queries and their centres of a scene."""
    suffixes = "", "_query_feats", "_query_3dctr"
    image, queries, centres = (folder / f"{scene}{suffix}.pth" for suffix in suffixes)
    return image, queries, centres


def read_published_features(folder: Path, scene: str) -> SceneFeatures:
    """Raises Seg3DError for what is missing, damaged or holds anything but tensors."""
    image, queries, positions = (_load(path) for path in published_files(folder, scene))
    levels = list(image) if isinstance(image, list | tuple) else [image]
    tensors = [*levels, queries, positions]
    if not levels or not all(isinstance(t, Tensor) and t.ndim == 2 and t.is_floating_point() for t in tensors):
        raise Seg3DError(
            f"{folder}/{scene}*.pth hold other things than tables of numbers: (N, C) levels, (O, C), (O, 3)"
        )
    if len({level.shape for level in levels}) > 1 or positions.shape != (len(queries), 3):
        shapes = ", ".join(str(tuple(t.shape)) for t in tensors)
        raise Seg3DError(f"{folder}/{scene}*.pth do not belong together: shapes {shapes}")
    mean = levels[0].float() if len(levels) == 1 else torch.stack([level.float() for level in levels]).mean(dim=0)
    seen = torch.isfinite(mean).all(dim=1)
    good = torch.isfinite(queries).all(dim=1) & torch.isfinite(positions).all(dim=1)
    if not (seen.all() and good.all()):
        log.warning("%s of %s: what is not finite is left out", folder, scene)
        mean, queries, positions = torch.where(seen[:, None], mean, 0), queries[good], positions[good]
    scores = np.ones(len(queries), np.float32)
    return SceneFeatures(mean.numpy(), queries.float().numpy(), positions.float().numpy(), scores, folder.name)


def _load(path: Path) -> Any:
    """What the file holds; of a foreign object the tensor inside. Nothing in it is executed."""
    try:
        value = _read(path)
    except FileNotFoundError:
        raise Seg3DError(
            f"{path} is missing: published features are <scene>.pth, _query_feats.pth, _query_3dctr.pth"
        ) from None
    except OSError as error:
        raise Seg3DError(f"cannot read {path}: {error.strerror or error}") from None
    except _DAMAGE as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise Seg3DError(f"{path} is no readable file of tensors: {printable(reason, 200)}") from None
    return value.tensor if isinstance(value, _Held) else value


def _read(path: Path) -> Any:
    foreign = torch.serialization.get_unsafe_globals_in_checkpoint(path) if _is_zip(path) else []
    if not foreign:
        return torch.load(path, map_location="cpu", weights_only=True)
    if len(foreign) > 1:
        raise ValueError(f"it holds objects of {', '.join(foreign[:3])}")
    # Published centres may be wrapped in a box class of the detector's library.
    with torch.serialization.safe_globals([(_Held, foreign[0])]):
        return torch.load(path, map_location="cpu", weights_only=True)


def _is_zip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == b"PK"
