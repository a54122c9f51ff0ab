# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Launch files run where launch is installed; elsewhere their names and calls are followed through stand-ins."""

import ast
import importlib.util
import sys
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest
from seg3d_ros.camera_player import DEFAULTS

ROOT = Path(__file__).resolve().parents[2]
FILES = [*ROOT.glob("launch/*.launch.py"), *ROOT.glob("ros2_ws/src/seg3d_ros/launch/*.launch.py")]


class Anything(MagicMock):
    __path__ = ()


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name)
def test_launch_file(path, monkeypatch):
    code = compile(path.read_text(), str(path), "exec")
    installed = importlib.util.find_spec("launch_ros") is not None
    if not installed:
        for name in (n.module for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.ImportFrom)):
            monkeypatch.setitem(sys.modules, name, Anything())
    scope = {}
    exec(code, scope)
    description = scope["generate_launch_description"]()
    assert not installed or description.entities


class Declare:
    """launch's rule: a default is taken only where nobody has set the argument."""

    def __init__(self, name, default_value="", description=""):
        self.name, self.default = name, default_value

    def execute(self, context):
        context.launch_configurations.setdefault(self.name, self.default)


class Opaque:
    def __init__(self, function, args=()):
        self.function, self.args = function, args

    def execute(self, context):
        return self.function(context, *self.args)


def node_of(given, monkeypatch):
    """The keywords with which segment.launch.py makes the node when `given` are on the command line."""
    made = []
    modules = {name: Anything() for name in ("launch", "launch.conditions", "launch_ros", "launch_ros.substitutions")}
    modules["launch"].LaunchDescription = list
    modules["launch.actions"] = SimpleNamespace(
        DeclareLaunchArgument=Declare, OpaqueFunction=Opaque, SetEnvironmentVariable=Anything()
    )
    modules["launch.substitutions"] = SimpleNamespace(LaunchConfiguration=str, PathJoinSubstitution=Anything())
    modules["launch_ros.actions"] = SimpleNamespace(Node=lambda **words: made.append(words) or words)
    modules["launch_ros.parameter_descriptions"] = SimpleNamespace(ParameterValue=lambda v, value_type: (v, value_type))
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    path = ROOT / "ros2_ws/src/seg3d_ros/launch/segment.launch.py"
    scope = {}
    exec(compile(path.read_text(), str(path), "exec"), scope)
    context = SimpleNamespace(launch_configurations=dict(given))
    for entity in scope["generate_launch_description"]():
        if isinstance(entity, Declare | Opaque):
            entity.execute(context)
    (node,) = [words for words in made if words["package"] == "seg3d_ros"]
    return node, context


def test_defaults_of_arguments_do_not_override_the_parameter_file(monkeypatch):
    node, context = node_of({"params_file": "mine.yaml"}, monkeypatch)
    assert node["parameters"] == ["params_file"], "the file alone"
    assert context.launch_configurations["map_frame"] == "map", "RViz still has its frame"


def test_arguments_that_are_given_go_on_top_of_the_file(monkeypatch):
    given = {"map_frame": "odom", "sync_slop": "0.05", "rviz": "true", "camera_frame": "", "core": "segdino3d"}
    node, _ = node_of(given, monkeypatch)
    file, values = node["parameters"]
    assert file == "params_file"
    assert values == {
        "map_frame": ("map_frame", str),
        "sync_slop": ("sync_slop", float),
        "camera_frame": ("camera_frame", str),
        "core": ("core", str),
    }


def test_the_demo_overrides_no_parameter_of_the_node():
    tree = ast.parse((ROOT / "launch" / "demo.launch.py").read_text())
    words = [k.value for n in ast.walk(tree) if isinstance(n, ast.Call) for k in n.keywords]
    (passed,) = [d.func.value for d in words if isinstance(d, ast.Call) and getattr(d.func, "attr", "") == "items"]
    assert [key.value for key in passed.keys] == ["rviz"]


def test_the_demo_sets_parameters_that_the_player_has():
    tree = ast.parse((ROOT / "launch" / "demo.launch.py").read_text())
    calls = [n for n in ast.walk(tree) if isinstance(n, ast.Call)]
    (parameters,) = [k.value.elts[0] for n in calls for k in n.keywords if k.arg == "parameters"]
    assert {key.value for key in parameters.keys} <= set(DEFAULTS)


def test_no_package_hides_the_real_launch():
    assert not (ROOT / "launch" / "__init__.py").exists()
