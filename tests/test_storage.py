# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""What a saved map says of itself, and that one which does not fit the scene is refused with its own code."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from seg3d_core.archive import write_archive
from seg3d_core.build import build_scene
from seg3d_core.config import build
from seg3d_core.errors import MapFileError
from seg3d_core.storage import SavedScene, config_of, copy_scene, read_scene, restore_scene, write_scene

DESCRIPTION = {"scene": {}, "config": {}, "map_kind": "fused", "names": {"3": "sofa"}, "encoder_id": "none"}


def saved_with(config: dict[str, Any]) -> SavedScene:
    return SavedScene({}, {}, {}, config, "fused", {}, "")


def test_growing_maps_and_given_clouds_do_not_mix(tmp_path):
    config = build({"query.encoder": "none"})
    np.savez(tmp_path / "cloud.npz", xyz=np.random.default_rng(0).uniform(size=(50, 3)).astype(np.float32))
    growing, given = build_scene(config), build_scene(config, tmp_path / "cloud.npz")
    for saved, scene in ((growing, given), (given, growing)):
        with pytest.raises(MapFileError, match="given cloud") as caught:
            restore_scene(scene, copy_scene(saved, {}, ""))
        assert caught.value.code == "wrong_kind"


def test_a_given_cloud_has_no_voxels_to_agree_on(tmp_path):
    np.savez(tmp_path / "cloud.npz", xyz=np.random.default_rng(0).uniform(size=(50, 3)).astype(np.float32))
    fine, coarse = (
        build_scene(build({"query.encoder": "none", "map.voxel_size": size}), tmp_path / "cloud.npz")
        for size in (0.02, 0.05)
    )
    restore_scene(coarse, copy_scene(fine, {}, ""))
    assert len(coarse.map) == len(fine.map) == 50


def test_another_voxel_size_is_refused_with_its_code_and_one_that_is_not_told_is_taken():
    scene = build_scene(build({"query.encoder": "none", "map.voxel_size": 0.05}))
    saved = copy_scene(scene, {}, "")
    with pytest.raises(MapFileError, match=r"voxels of 0\.02 m.*set map\.voxel_size=0\.02") as caught:
        restore_scene(scene, replace(saved, config={**saved.config, "map": {"voxel_size": 0.02}}))
    assert caught.value.code == "wrong_voxel_size"
    restore_scene(scene, replace(saved, config={}))


@pytest.mark.parametrize("wrong", ["small", None, [0.05], {"voxel_size": "small"}, {"voxel_size": None}], ids=str)
def test_a_voxel_size_that_is_none_is_damage_and_leaves_the_scene(wrong):
    scene = build_scene(build({"query.encoder": "none"}))
    saved, generation = copy_scene(scene, {}, ""), scene.generation
    with pytest.raises(MapFileError, match="settings are not valid") as caught:
        restore_scene(scene, replace(saved, config={**saved.config, "map": wrong}))
    assert caught.value.code == "damaged" and scene.generation == generation


@pytest.mark.parametrize(
    "wrong",
    [
        *({name: None} for name in DESCRIPTION if name != "encoder_id"),
        {"map_kind": "melted"},
        {"names": ["sofa"]},
        {"names": {"three": "sofa"}},
        {"scene": 3},
        {"config": "small"},
    ],
    ids=str,
)
def test_a_description_that_is_none_is_damage(tmp_path, wrong):
    write_archive(tmp_path / "m.seg3d", {**DESCRIPTION, **wrong}, {}, {}, overwrite=True)
    with pytest.raises(MapFileError, match=r"m\.seg3d is a map archive, but its description is incomplete") as caught:
        read_scene(tmp_path / "m.seg3d")
    assert caught.value.code == "damaged"


@pytest.mark.parametrize("name", DESCRIPTION)
def test_a_description_that_lacks_a_part_is_damage(tmp_path, name):
    rest = {key: value for key, value in DESCRIPTION.items() if key != name}
    write_archive(tmp_path / "m.seg3d", rest, {}, {}, overwrite=True)
    with pytest.raises(MapFileError, match=name) as caught:
        read_scene(tmp_path / "m.seg3d")
    assert caught.value.code == "damaged"


def test_labels_and_the_encoder_come_back_in_bounds(tmp_path):
    names = {1: "sofa", 12: "Stühle\n\x1b[31m", 7: "x" * 10_000}
    saved = SavedScene({"a": 1}, {"x": np.arange(3)}, {"b": b"c"}, {"d": {}}, "fixed", names, "clip " + "y" * 10_000)
    write_scene(tmp_path / "m.seg3d", saved)
    back = read_scene(tmp_path / "m.seg3d")
    assert (back.meta, back.blobs, back.config, back.map_kind) == ({"a": 1}, {"b": b"c"}, {"d": {}}, "fixed")
    assert back.arrays["x"].tolist() == [0, 1, 2]
    assert back.names.keys() == names.keys() and back.names[1] == "sofa"
    assert back.names[12].startswith("Stühle") and back.names[12].isprintable()
    assert [len(back.names[7]), len(back.encoder_id)] == [200, 200] and back.encoder_id.startswith("clip y")


def test_a_map_is_not_written_over_unless_that_is_said(tmp_path):
    saved = saved_with({})
    write_scene(tmp_path / "m.seg3d", saved)
    with pytest.raises(MapFileError) as caught:
        write_scene(tmp_path / "m.seg3d", saved)
    assert caught.value.code == "exists"
    write_scene(tmp_path / "m.seg3d", saved, overwrite=True)


def test_settings_come_back_and_those_of_a_newer_version_are_left_out():
    config = build({"map.voxel_size": 0.03, "query.encoder": "none"})
    told = config.model_dump()
    assert config_of(saved_with(told)) == config
    newer = {**told, "map": {**told["map"], "warp": 9}, "teleport": {"speed": 3}}
    assert config_of(saved_with(newer)) == config
    assert config_of(saved_with({"map": {"voxel_size": 0.03}})) == build({"map.voxel_size": 0.03})
    assert config_of(saved_with({})) == build({})


@pytest.mark.parametrize("wrong", [{"map": {"voxel_size": -1}}, {"map": "small"}, {"map": None}])
def test_settings_that_are_not_valid_are_damage(wrong):
    with pytest.raises(MapFileError, match="settings are not valid") as caught:
        config_of(saved_with(wrong))
    assert caught.value.code == "damaged"
