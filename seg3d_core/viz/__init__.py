# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Pictures, recordings and point files of a snapshot, for people to look at."""

from __future__ import annotations

from .colours import draw_masks, id_colours
from .picture import render_comparison, render_instances
from .ply import export_ply
from .recording import NoRecording, Recording

__all__ = [
    "NoRecording",
    "Recording",
    "draw_masks",
    "export_ply",
    "id_colours",
    "render_comparison",
    "render_instances",
]
