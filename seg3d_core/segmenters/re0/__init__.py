# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""RE0's zero-shot core as a stream: masks are aligned with what the map already says, points vote, and
instances that share a mask merge. `readings.py` has the ways of reading the paper's holes."""

from .segmenter import Re0Segmentation, Re0Segmenter

__all__ = ["Re0Segmentation", "Re0Segmenter"]
