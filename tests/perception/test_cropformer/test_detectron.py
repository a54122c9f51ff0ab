# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""The adapter for the release's own code, with stand-in modules of the same interface."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest

from seg3d_core import build, config
from seg3d_core.errors import ConfigError, WeightsError
from seg3d_core.perception.cropformer import detectron
from seg3d_core.types import Camera, Frame

CONFIG = """
class Settings(dict):
    def merge_from_file(self, path): self["file"] = path
    def merge_from_list(self, items): self.update(zip(items[::2], items[1::2]))
    def freeze(self): self["frozen"] = True
def get_cfg(): return Settings()
"""
PREDICTOR = """
import numpy as np
from types import SimpleNamespace
class VisualizationDemo:
    def __init__(self, settings):
        assert settings["frozen"] and settings["deeplab"] and settings["mask2former"]
        self.settings, self.images = settings, []
    def run_on_image(self, image):
        self.images.append(image)
        h, w = image.shape[:2]
        masks = np.zeros((4, h, w), np.float32)
        masks[0, : h // 2] = 1
        masks[1, h // 2 :, : w // 2] = 1
        masks[2, h // 2 :, w // 2 :] = 1
        return {"instances": SimpleNamespace(pred_masks=masks, scores=np.array([0.6, 0.2, 0.5, 0.0]))}
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch) -> Path:
    """A folder like the entity project's, and an installation like detectron2's."""
    files = {
        "site/detectron2/__init__.py": "",
        "site/detectron2/config.py": CONFIG,
        "site/detectron2/projects/__init__.py": "",
        "site/detectron2/projects/deeplab.py": "def add_deeplab_config(s): s['deeplab'] = True",
        "CropFormer/mask2former/__init__.py": "def add_maskformer2_config(s): s['mask2former'] = True",
        "CropFormer/demo_cropformer/predictor.py": PREDICTOR,
        "CropFormer/configs/entity/cropformer_hornet_3x.yaml": "",
        "w.pth": "weights",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(tmp_path / "site")
    known = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - known:
        if name.partition(".")[0] in ("detectron2", "mask2former", "demo_cropformer"):
            del sys.modules[name]
    importlib.invalidate_caches()


def yaml(project: Path) -> Path:
    return project / "CropFormer" / "configs" / "entity" / "cropformer_hornet_3x.yaml"


def frame() -> Frame:
    rgb = np.zeros((8, 10, 3), np.uint8)
    rgb[..., 0] = 200
    return Frame(0, 0.0, rgb, np.ones((8, 10), np.float32), Camera(10, 8, 9, 9, 5, 4), np.eye(4))


def test_masks_of_the_release(project: Path) -> None:
    path = list(sys.path)
    made = detectron.load(yaml(project), project / "w.pth", 0.25, 0.0, "cpu")
    assert sys.path == path
    masks = made.masks(frame())
    demo = made._predictor
    assert demo.settings["file"] == str(yaml(project))
    assert demo.settings["MODEL.WEIGHTS"] == str(project / "w.pth")
    assert demo.settings["MODEL.DEVICE"] == "cpu"
    assert demo.images[0][0, 0].tolist() == [0, 0, 200]
    assert np.unique(masks.labels[:4]).tolist() == [1]
    assert np.unique(masks.labels[4:, :5]).tolist() == [0]
    assert np.unique(masks.labels[4:, 5:]).tolist() == [2]
    np.testing.assert_allclose(masks.scores, [0.6, 0.5])


def test_tensors_are_taken_too(project: Path) -> None:
    torch = pytest.importorskip("torch")

    class Demo:
        def run_on_image(self, image):
            masks = torch.zeros(1, *image.shape[:2])
            masks[0, :2] = 1
            return {"instances": type("I", (), {"pred_masks": masks, "scores": torch.tensor([0.9])})}

    masks = detectron.DetectronMasks(Demo()).masks(frame())
    assert masks.labels[:2].all() and not masks.labels[2:].any()


def test_nothing_found_and_small_masks(project: Path) -> None:
    made = detectron.load(yaml(project), project / "w.pth", 0.7, 0.0, "auto")
    assert "MODEL.DEVICE" not in made._predictor.settings
    masks = made.masks(frame())
    assert len(masks) == 0 and masks.labels.shape == (8, 10)
    large = detectron.load(yaml(project), project / "w.pth", 0.0, 0.3, "auto").masks(frame())
    assert len(large) == 1


def test_the_setting_chooses_it(project: Path) -> None:
    values = {
        "perception.masks": "cropformer",
        "perception.cropformer_config": str(yaml(project)),
        "perception.cropformer_weights": str(project / "w.pth"),
    }
    assert build.build_masks(config.build(values)).id == "cropformer-detectron2"


def test_without_detectron2_the_way_out_is_said(project: Path, monkeypatch) -> None:
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p != str(project / "site")])
    with pytest.raises(WeightsError, match="needs detectron2"):
        detectron.load(yaml(project), project / "w.pth", 0.25, 0.0, "cpu")


def test_missing_files_are_said(project: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no configuration"):
        detectron.load(tmp_path / "no.yaml", project / "w.pth", 0.25, 0.0, "cpu")
    with pytest.raises(WeightsError, match="no entity weights"):
        detectron.load(yaml(project), tmp_path / "no.pth", 0.25, 0.0, "cpu")
    (project / "alone.yaml").write_text("")
    with pytest.raises(ConfigError, match="lies in no folder with the project's code"):
        detectron.load(project / "alone.yaml", project / "w.pth", 0.25, 0.0, "cpu")
