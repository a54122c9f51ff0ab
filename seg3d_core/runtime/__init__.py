# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Runs a Scene: offline over a source, or live beside a stream."""

from .live import LiveRuntime
from .offline import OfflineResult, run_offline
from .statistics import Model, Queue, Stage, Statistics

__all__ = ["LiveRuntime", "Model", "OfflineResult", "Queue", "Stage", "Statistics", "run_offline"]
