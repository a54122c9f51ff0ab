# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Rules that hold for the whole package, read off its sources."""

import ast
import importlib.util
import subprocess
import sys
from pathlib import Path

PACKAGE = Path(importlib.util.find_spec("seg3d_ros").origin).parent


def imports(path):
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module


def calls(path):
    return [
        n.func.id
        for n in ast.walk(ast.parse(path.read_text()))
        if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)
    ]


def test_profiles_are_made_in_one_file():
    for path in PACKAGE.glob("*.py"):
        assert path.name == "qos.py" or "QoSProfile" not in calls(path), path.name


def test_distribution_packages_are_chosen_in_one_file():
    optional = {"message_filters", "tf2_ros", "sensor_msgs_py"}
    for path in PACKAGE.glob("*.py"):
        assert not optional & {name.split(".")[0] for name in imports(path)}, path.name


def test_these_need_no_ros():
    ros = {"rclpy", "sensor_msgs", "geometry_msgs", "std_msgs", "tf2_msgs", "seg3d_interfaces"}
    for name in ("sync", "transforms", "validate", "explain", "paths", "stopping"):
        assert not ros & {i.split(".")[0] for i in imports(PACKAGE / f"{name}.py")}, name


def test_entry_points_import_nothing_heavy_before_the_signal_handlers():
    code = (
        "import sys, seg3d_ros.node, seg3d_ros.player; "
        "sys.exit(bool({'numpy', 'rclpy', 'seg3d_core'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_node_keeps_out_of_heavy_libraries():
    code = (
        "import sys, seg3d_ros.segment_node, seg3d_ros.camera_player; "
        "print(sorted({'torch', 'open3d', 'rerun', 'embreex', 'matplotlib'} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert out.strip() == "[]"
