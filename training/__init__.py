# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Training and benchmarking of learned 3D cores, offline; imports `seg3d_core`, never the other way round."""
