# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""The trained core: SegDINO3D on the map as it grows. No torch here: the network comes as a `Predictor`."""

from .segmenter import SegDino3DSegmenter

__all__ = ["SegDino3DSegmenter"]
