# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""The small network that comes with the package (`small/README.md` is its card). No torch here."""

from __future__ import annotations

from pathlib import Path

from ..errors import WeightsError
from .architecture import same_source

FEATURES = "mobile_sam"
"""The 2D feature source that it was trained with."""
WEIGHTS = Path(__file__).parent / "small" / "mobile_sam.safetensors"


def shipped_weights(running: str) -> Path:
    """The file, where `running` names its 2D feature source ("": none runs).

    Raises WeightsError that says what to set where another source runs.
    """
    if running and same_source(running, FEATURES):
        return WEIGHTS
    raise WeightsError(
        "core is `segdino3d`, segdino3d.weights names no file, and the network that comes along knows 2D features of "
        f"{FEATURES} alone, while {f'those of {running} run' if running else 'no model runs that gives any'}: set "
        f"perception.masks to {FEATURES}, or name weights for what runs (docs/models.md)"
    )
