# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""The map: voxel fusion with stable point ids, and what each frame sees of it."""

from .fixed_map import FixedMap
from .point_map import PointMap
from .points_file import read_points

__all__ = ["FixedMap", "PointMap", "read_points"]
