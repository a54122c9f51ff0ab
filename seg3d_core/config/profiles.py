# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Profiles: names for sets of values."""

from __future__ import annotations

from typing import Any

# A detector that is told by text what to look for reads about as many words as these: ScanNet's own classes.
_SCANNET_CLASSES = (
    "cabinet, bed, chair, sofa, table, door, window, bookshelf, picture, counter, desk, curtain, refrigerator, "
    "shower curtain, toilet, sink, bathtub, furniture"
)

# Fixed sets of values; `--set` and files override them. The first is taken where none is named: it needs no weights.
PROFILES: dict[str, dict[str, Any]] = {
    "cpu-geometric": {"perception.masks": "geometric"},
    "cpu": {"perception.masks": "both", "perception.sam_side": 512, "perception.sam_prompts": 30},
    "gpu": {
        "perception.masks": "both",
        "perception.device": "cuda",
        "perception.sam_side": 1024,
        "perception.sam_prompts": 128,
        "query.encoder": "open_clip",
    },
    "paper-re0": {
        "perception.masks": "cropformer",
        "perception.cropformer_weights": "cropformer_hornet",
        "perception.cropformer_confidence": 0.25,
        "perception.min_area": 0.0,
        "re0.reading": "paper",
        "map.slope_tolerance": 0.0,
        "map.fade": 0.0,
        "query.views": 3,
        "query.crop_growth": (0.1, 0.2, 0.3),
        "query.background": 1.0,
    },
    "published-re0": {
        "re0.reading": "published",
        "map.depth_tolerance": 0.10,
        "map.depth_tolerance_relative": 0.0,
        "map.slope_tolerance": 0.0,
        "map.fade": 0.0,
        "query.views": 1,
        "query.crop_growth": (0.0,),
        "query.background": 1.0,
    },
    "paper-segdino3d": {
        "core": "segdino3d",
        "perception.masks": "detector",
        "perception.prompts": _SCANNET_CLASSES,
        "perception.min_score": 0.3,
        "segdino3d.instance_score": 0.0,
        "segdino3d.instance_overlap": 1.0,
        "query.background": 1.0,
    },
}
