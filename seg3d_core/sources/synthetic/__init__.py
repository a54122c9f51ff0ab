# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Generated rooms: furnished by chance, ray-cast, with exact ground truth.

Extra: `pip install 'seg3d[synthetic]'`. Nothing here imports the ray caster before a source is made.
"""

from __future__ import annotations

from .export import export_scannet
from .export_raw import export_raw_scan, export_raw_scannet, write_release_tables
from .source import SyntheticSource

__all__ = ["SyntheticSource", "export_raw_scan", "export_raw_scannet", "export_scannet", "write_release_tables"]
