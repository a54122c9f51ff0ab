# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""One parameter per setting of the core, with its range and text; changes are guarded."""

import pytest
from rclpy.exceptions import InvalidParameterValueException
from rclpy.parameter import Parameter
from seg3d_ros.parameters import OWN, Parameters

from seg3d_core.config import Config, flatten
from seg3d_core.errors import ConfigError


class ParameterNode:
    """Declares as rclpy does, ranges apart."""

    def __init__(self, **overrides):
        self.overrides = overrides
        self.values, self.descriptors = {}, {}
        self.callback = None

    def declare_parameter(self, name, value, descriptor):
        self.values[name] = self.overrides.get(name, value)
        self.descriptors[name] = descriptor

    def get_parameter(self, name):
        return Parameter(name, value=self.values[name])

    def add_on_set_parameters_callback(self, callback):
        self.callback = callback

    def change(self, **values):
        return self.callback([Parameter(n.replace("__", "."), value=v) for n, v in values.items()])


def test_every_setting_is_a_parameter_with_text():
    node = ParameterNode()
    Parameters(node)
    assert set(flatten(Config())) <= set(node.values)
    assert all(d.description for d in node.descriptors.values())


def test_ranges_and_units_come_from_the_core():
    node = ParameterNode()
    Parameters(node)
    voxel = node.descriptors["map.voxel_size"]
    assert "[m]" in voxel.description
    assert (voxel.floating_point_range[0].from_value, voxel.floating_point_range[0].to_value) == (0.002, 0.5)
    points = node.descriptors["map.max_points"].integer_range[0]
    assert (points.from_value, points.to_value, points.step) == (1000, 50_000_000, 0)
    assert "geometric" in node.descriptors["perception.masks"].additional_constraints
    assert "above 0.0" in node.descriptors["map.depth_max"].additional_constraints


def test_overrides_reach_the_config():
    config = Parameters(ParameterNode(**{"map.voxel_size": 0.05, "query.crop_growth": [0.5]})).config()
    assert config.map.voxel_size == 0.05
    assert config.query.crop_growth == (0.5,)


def test_the_profile_gives_the_defaults():
    assert Parameters(ParameterNode(profile="paper-re0")).config().map.fade == 0.0


@pytest.mark.parametrize(
    "overrides",
    [
        {"perception.masks": "odd"},
        {"pose_source": "gps"},
        {"profile": "odd"},
        {"map.depth_max": 0.0},
        {"rgb_topic": "a b"},
        {"pose_topic": ""},
    ],
)
def test_bad_overrides_are_said(overrides):
    with pytest.raises(ConfigError, match=next(iter(overrides))):
        Parameters(ParameterNode(**overrides))


def test_a_refused_declaration_names_the_parameter():
    class Refusing(ParameterNode):
        def declare_parameter(self, name, value, descriptor):
            if name == "map.voxel_size":
                raise InvalidParameterValueException(name, 9.0, "out of range")
            super().declare_parameter(name, value, descriptor)

    with pytest.raises(ConfigError, match=r"map\.voxel_size.*out of range"):
        Parameters(Refusing())


def test_changes_that_the_core_refuses():
    node = ParameterNode()
    Parameters(node)
    assert node.change(map__voxel_size=0.03).successful
    refused = node.change(perception__masks="odd")
    assert not refused.successful
    assert "perception.masks" in refused.reason
    assert not node.change(pose_source="gps").successful
    assert "no name of a topic" in node.change(depth_topic="2nd/depth").reason


def test_while_configured_only_live_ones_change():
    node = ParameterNode()
    parameters = Parameters(node)
    parameters.locked = True
    assert not node.change(map__voxel_size=0.03).successful
    assert not node.change(map_frame="odom").successful
    assert node.change(sync_slop=0.05).successful
    assert {own.name for own in OWN if own.live} == {"sync_slop", "pose_timeout", "cloud_points"}
