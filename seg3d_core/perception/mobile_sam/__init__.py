# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""MobileSAM in plain torch: masks, object features and dense features of one image.

`generator` is what the rest of the library uses; it needs torch, so nothing is imported here.
"""
