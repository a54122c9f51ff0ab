# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""The release's own CropFormer, from an existing installation of detectron2 and the entity project.

Nothing of it is imported before `load` is called.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from ...errors import ConfigError, WeightsError
from ...types import Array, Frame, Masks2D
from ..pixels import as_rgb8

_MODULES = ("detectron2.config", "detectron2.projects.deeplab", "mask2former", "demo_cropformer.predictor")


class DetectronMasks:
    """Masks of the entity project's demo predictor (implements `MaskGenerator`); see `load`."""

    id = "cropformer-detectron2"
    chooses_keyframes = False

    def __init__(self, predictor: Any, confidence: float = 0.25, min_area: float = 0.0):
        """`predictor.run_on_image(bgr)` gives {"instances": ...} with `pred_masks` (n, H, W) and `scores` (n,),
        as the project's `VisualizationDemo` does. `min_area`: share of the image.
        """
        self._predictor, self._confidence, self._min_area = predictor, confidence, min_area

    def masks(self, frame: Frame) -> Masks2D:
        """Its masks of at least the confidence, in its own order. FrameError `bad_colour`."""
        rgb = as_rgb8(frame.rgb)
        found = self._predictor.run_on_image(np.ascontiguousarray(rgb[:, :, ::-1]))["instances"]
        planes, scores = _numpy(found.pred_masks) > 0.5, _numpy(found.scores).astype(np.float32)
        # Its masks do not overlap, so counting before painting is right.
        keep = (scores >= self._confidence) & (planes.sum((1, 2)) >= max(1.0, self._min_area * planes[0:1].size))
        return Masks2D(_labels(planes[keep], rgb.shape[:2]), scores[keep])


def load(config: str | Path, weights: str | Path, confidence: float, min_area: float, device: str) -> DetectronMasks:
    """`config` is a YAML file inside the entity project's CropFormer folder, which holds the code that it needs.

    Raises ConfigError for the folder, WeightsError for the weights or where detectron2 cannot be imported.
    """
    config, weights = Path(config).expanduser(), Path(weights).expanduser()
    if not config.is_file():
        raise ConfigError(f"no configuration of CropFormer at {config}: give a YAML file of the entity project")
    if not weights.is_file():
        raise WeightsError(f"no entity weights at {weights}: docs/cropformer.md says which files there are")
    project = next((p for p in config.resolve().parents if (p / "demo_cropformer").is_dir()), None)
    if project is None:
        raise ConfigError(f"{config} lies in no folder with the project's code (mask2former, demo_cropformer)")
    configs, deeplab, mask2former, demo = _import(project)
    settings = configs.get_cfg()
    deeplab.add_deeplab_config(settings)
    mask2former.add_maskformer2_config(settings)
    settings.merge_from_file(str(config))
    settings.merge_from_list(["MODEL.WEIGHTS", str(weights), *(() if device == "auto" else ("MODEL.DEVICE", device))])
    settings.freeze()
    return DetectronMasks(demo.VisualizationDemo(settings), confidence, min_area)


def _import(project: Path) -> list[ModuleType]:
    try:
        with _on_path(project):
            return [importlib.import_module(name) for name in _MODULES]
    except ImportError as error:
        raise WeightsError(
            f"CropFormer of {project} cannot be imported ({error}): it needs detectron2 and its compiled operator; "
            "without them leave perception.cropformer_config empty, and the built-in network runs"
        ) from None


@contextlib.contextmanager
def _on_path(folder: Path) -> Iterator[None]:
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):
            sys.path.remove(str(folder))


def _numpy(tensor: Any) -> Array:
    return np.asarray(tensor.detach().cpu() if hasattr(tensor, "detach") else tensor)


def _labels(planes: Array, size: tuple[int, ...]) -> Array:
    """int32 (H, W): 1.. in the order of `planes` bool (n, H, W), 0 where none is."""
    labels = np.zeros(size, np.int32)
    if len(planes):
        labels[:] = np.where(planes.any(0), planes.argmax(0) + 1, 0)
    return labels
