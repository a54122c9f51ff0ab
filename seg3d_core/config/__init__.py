# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""One typed tree of settings: each with a description, a unit and a range.

The same tree makes the CLI's `--set map.voxel_size=0.03`, the YAML file, the ROS parameters and the JSON
that is saved beside every result. A profile is a name for a set of values.
"""

from .profiles import PROFILES
from .settings import (
    Config,
    CorrectionConfig,
    KeyframeConfig,
    MapConfig,
    MemoryConfig,
    PerceptionConfig,
    QueryConfig,
    Re0Config,
    RuntimeConfig,
    SegDino3DConfig,
)
from .values import build, explain, flatten, iterate, load_file, parse_assignments

__all__ = [
    "PROFILES",
    "Config",
    "CorrectionConfig",
    "KeyframeConfig",
    "MapConfig",
    "MemoryConfig",
    "PerceptionConfig",
    "QueryConfig",
    "Re0Config",
    "RuntimeConfig",
    "SegDino3DConfig",
    "build",
    "explain",
    "flatten",
    "iterate",
    "load_file",
    "parse_assignments",
]
