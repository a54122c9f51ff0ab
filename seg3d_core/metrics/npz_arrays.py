# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Reading arrays of npz files that others made: no pickle, and a sentence for what is wrong."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np

from ..array_file import read_npz
from ..errors import Seg3DError
from ..types import Array

_KINDS = {"numbers": "iuf", "integers": "iub", "texts": "U"}


def read_arrays(path: Path, names: Collection[str]) -> dict[str, Array]:
    """Those of the arrays `names` that the file has. Raises Seg3DError."""
    try:
        return read_npz(path, names)
    except OSError as error:
        raise Seg3DError(f"cannot read {path}: {error.strerror or error}") from None
    except ValueError as error:
        raise Seg3DError(f"{path} is no readable npz file: {error}") from None


def check_array(path: Path, arrays: Mapping[str, Array], name: str, shape: tuple[int | None, ...], kind: str) -> Array:
    """The array, if its shape (None = any) and kind (`numbers`, `integers`, `texts`) are right. Raises Seg3DError."""
    if name not in arrays:
        raise Seg3DError(f"{path} has no array `{name}`")
    array = arrays[name]
    fits = array.ndim == len(shape) and all(want in (None, got) for want, got in zip(shape, array.shape, strict=True))
    if not fits or array.dtype.kind not in _KINDS[kind]:
        wanted = ", ".join("any" if n is None else str(n) for n in shape)
        raise Seg3DError(
            f"{path}: `{name}` is {array.dtype} of shape {array.shape}; {kind} of shape ({wanted}) are wanted"
        )
    if kind == "numbers" and not np.isfinite(array).all():
        raise Seg3DError(f"{path}: `{name}` holds NaN or infinite values: leave them out")
    return array
