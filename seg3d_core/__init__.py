# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""seg3d: posed RGB-D frames in, 3D instances and text answers out. No ROS import anywhere below."""

from .kernel_cache import find_kernel_cache

__version__ = "0.1.0"

find_kernel_cache()
