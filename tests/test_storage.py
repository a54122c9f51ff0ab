"""A saved map that does not fit the scene is refused with its own code."""

import numpy as np
import pytest

from seg3d_core.build import build_scene
from seg3d_core.config import build
from seg3d_core.errors import MapFileError
from seg3d_core.storage import copy_scene, restore_scene


def test_growing_maps_and_given_clouds_do_not_mix(tmp_path):
    config = build({"query.encoder": "none"})
    np.savez(tmp_path / "cloud.npz", xyz=np.random.default_rng(0).uniform(size=(50, 3)).astype(np.float32))
    growing, given = build_scene(config), build_scene(config, tmp_path / "cloud.npz")
    for saved, scene in ((growing, given), (given, growing)):
        with pytest.raises(MapFileError, match="given cloud") as caught:
            restore_scene(scene, copy_scene(saved, {}, ""))
        assert caught.value.code == "wrong_kind"
