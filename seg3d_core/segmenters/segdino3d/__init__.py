"""The trained core: SegDINO3D on the map as it grows. No torch here: the network comes as a `Predictor`."""

from .segmenter import SegDino3DSegmenter

__all__ = ["SegDino3DSegmenter"]
