# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import pytest

from seg3d_core.config import PROFILES, Config, build, flatten, iterate, load_file, parse_assignments
from seg3d_core.errors import ConfigError


def test_every_setting_says_what_it_is():
    for name, value, field in iterate(Config()):
        assert field.description, name
        if isinstance(value, int | float) and not isinstance(value, bool):
            assert field.metadata, f"{name} has no range"
            assert isinstance(field.json_schema_extra, dict) and "unit" in field.json_schema_extra, name


@pytest.mark.parametrize("profile", PROFILES)
def test_profiles_build_and_flatten_back(profile):
    config = build(profile=profile)
    assert build(flatten(config), profile) == config
    assert Config.model_validate(config.model_dump()) == config


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("map.voxel_size=99", "map.voxel_size = 99: .*less than or equal to 0.5"),
        ("map.voxel_siz=0.02", "did you mean 'map.voxel_size'"),
        ("voxel_size=0.02", "did you mean 'map.voxel_size'"),
        ("map.voxel_size=many", "map.voxel_size = 'many'"),
        ("perception.masks=cropformer2", "perception.masks"),
        ("map.voxel_size", "name=value"),
        ("map.depth_min=7", "depth_min = 7.0 m must be below depth_max = 6.0 m"),
        ("query.crop_growth=[]", "query.crop_growth = .*between 0 and 10"),
        ("query.crop_growth=[0.1, -0.6]", "query.crop_growth = .*between 0 and 10"),
    ],
)
def test_a_wrong_setting_names_itself_and_what_is_allowed(assignment, message):
    with pytest.raises(ConfigError, match=message):
        build(parse_assignments([assignment]))


def test_files_nest_or_dot(tmp_path):
    file = tmp_path / "a.yaml"
    file.write_text("map:\n  voxel_size: 0.05\nruntime.segment_every: 7\n")
    config = build(load_file(file))
    assert config.map.voxel_size == 0.05 and config.runtime.segment_every == 7
    file.write_text("- a\n- b\n")
    with pytest.raises(ConfigError, match="holds no settings"):
        load_file(file)
    with pytest.raises(ConfigError, match="cannot read"):
        load_file(tmp_path / "none.yaml")


def test_an_unknown_profile_lists_the_known():
    with pytest.raises(ConfigError, match="cpu-geometric"):
        build(profile="gpus")
