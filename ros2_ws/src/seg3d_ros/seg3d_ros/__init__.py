# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""The ROS 2 node of seg3d: converts, synchronises, looks up poses, publishes. No algorithm lives here."""
