"""Runs a Scene: offline over a source, or live beside a stream."""

from .live import LiveRuntime
from .offline import OfflineResult, run_offline
from .statistics import Model, Queue, Stage, Statistics

__all__ = ["LiveRuntime", "Model", "OfflineResult", "Queue", "Stage", "Statistics", "run_offline"]
