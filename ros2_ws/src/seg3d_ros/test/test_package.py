# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""What `colcon test` runs: launch files compile, and run where launch is installed; the config files are whole."""

import ast
import importlib.util
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from unittest.mock import MagicMock

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]


class Anything(MagicMock):
    """Stands in for launch where it is not installed: names and calls of the file are still followed."""

    __path__ = ()


@pytest.mark.parametrize("path", sorted(ROOT.glob("launch/*.py")), ids=lambda p: p.name)
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


def test_launch_arguments_are_parameters_of_the_node():
    from seg3d_ros.parameters import OWN

    from seg3d_core.config import build

    tree = ast.parse((ROOT / "launch" / "segment.launch.py").read_text())
    (literal,) = [n.value for n in tree.body if isinstance(n, ast.Assign) and n.targets[0].id == "PARAMETERS"]
    arguments = {key.value: value.elts[0].value for key, value in zip(literal.keys, literal.values, strict=True)}
    # `core` is a setting of the core, and has an argument beside the node's own parameters.
    known = {"core": build().core, **{own.name: own.default for own in OWN}}
    for name, default in arguments.items():
        if name != "use_sim_time":
            assert str(known[name]).lower() == default.lower(), name
    missing = (
        set(known)
        - set(arguments)
        - {"autostart", "sync_queue", "pose_timeout", "cloud_points", "recording", "points_file"}
    )
    assert not missing, "parameters that a person sets at start have an argument"


def test_rviz_shows_the_outputs():
    displays = yaml.safe_load((ROOT / "rviz" / "seg3d.rviz").read_text())["Visualization Manager"]["Displays"]
    topics = {d["Topic"]["Value"] for d in displays if "Topic" in d}
    assert topics == {"seg3d/points", "seg3d/instances", "seg3d/image"}


def test_parameter_file_names_settings_of_the_core():
    from seg3d_core.config import build

    values = yaml.safe_load((ROOT / "config" / "seg3d.yaml").read_text())["/**"]["ros__parameters"]
    assert build(values).map.voxel_size == values["map.voxel_size"]


def test_dds_profile_is_xml_with_room_for_images():
    root = ElementTree.parse(ROOT / "config" / "fastdds_shm.xml").getroot()
    (size,) = [int(e.text) for e in root.iter() if e.tag.endswith("segment_size")]
    assert size >= 16 * 2**20


def test_imports():
    import seg3d_interfaces.msg  # noqa: F401
    import seg3d_ros.camera_player
    import seg3d_ros.segment_node  # noqa: F401
