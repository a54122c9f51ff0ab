# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""One version and one list of dependencies, wherever a packager looks for them."""

from __future__ import annotations

import ast
import importlib.util
import re
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

import seg3d_core

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli")

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = [ROOT / "package.xml", *sorted(ROOT.glob("ros2_ws/src/*/package.xml"))]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# rosdep's name of each dependency of the core; ros/rosdistro's rosdep/python.yaml has them all but one.
KEYS = {
    "numpy": "python3-numpy",
    "scipy": "python3-scipy",
    "numba": "python3-numba",
    "pydantic": "python3-pydantic",
    "pyyaml": "python3-yaml",
    "opencv-python-headless": "python3-opencv",
    "pillow": "python3-pil",
    "rich": "python3-rich",
    "typer": "python3-typer",
}
WITHOUT_KEY = {"rosbags"}  # docs/install.md says so, and what then
# ROS packages come under their own names: these are in Jazzy's distribution file.
ROS_PACKAGES = {
    "ament_cmake", "builtin_interfaces", "diagnostic_msgs", "geometry_msgs", "launch_ros", "message_filters",
    "nav_msgs", "rcl_interfaces", "rclpy", "ros2launch", "rosidl_default_generators",
    "rosidl_default_runtime", "rviz2", "sensor_msgs", "sensor_msgs_py", "std_msgs", "tf2_msgs", "tf2_ros_py",
    "visualization_msgs",
}  # fmt: skip


def depends(path: Path) -> set[str]:
    return {e.text for e in ElementTree.parse(path).getroot() if e.tag.endswith("depend") and e.text}


def keyword(path: Path, name: str) -> str | None:
    """The value of a keyword of the call of setup()."""
    calls = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call)]
    words = [
        k.value for call in calls if getattr(call.func, "id", "") == "setup" for k in call.keywords if k.arg == name
    ]
    return ast.literal_eval(words[0]) if words else None


def test_every_file_states_the_same_version():
    stated = {path: ElementTree.parse(path).getroot().findtext("version") for path in PACKAGES}
    for path in (ROOT / "setup.py", *ROOT.glob("ros2_ws/src/*/setup.py")):
        if (version := keyword(path, "version")) is not None:
            stated[path] = version
    assert len(stated) >= 4
    assert set(stated.values()) == {seg3d_core.__version__}, stated


def test_the_changes_are_listed_under_this_version_or_as_coming():
    titles = re.findall(r"^## \[([^\]]+)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert titles and titles[0] in ("Unreleased", seg3d_core.__version__)
    released = [Version(title) for title in titles if title != "Unreleased"]
    assert released == sorted(released, reverse=True)
    assert all(version <= Version(seg3d_core.__version__) for version in released)


def test_the_lowest_versions_are_the_lower_bounds():
    lines = (ROOT / "constraints-lowest.txt").read_text().splitlines()
    pins = {r.name: Version(str(r.specifier).removeprefix("==")) for r in map(Requirement, lines[2:])}
    bounds = {}
    for requirement in map(Requirement, PROJECT["dependencies"]):
        (bound,) = [s.version for s in requirement.specifier if s.operator == ">="]
        bounds[requirement.name] = Version(bound)
    assert set(pins) == set(bounds)
    for name, pin in pins.items():
        assert pin.release[: len(bounds[name].release)] == bounds[name].release, name
        assert set(pin.release[len(bounds[name].release) :]) <= {0, 80}, f"{name}: 4.9 of OpenCV begins at 4.9.0.80"


def test_the_core_has_a_rosdep_key_for_each_dependency():
    names = {Requirement(text).name for text in PROJECT["dependencies"]}
    assert names == set(KEYS) | WITHOUT_KEY
    assert depends(ROOT / "package.xml") == {*KEYS.values(), "python3-pytest"}


@pytest.mark.parametrize("path", PACKAGES[1:], ids=lambda p: p.parent.name)
def test_the_other_packages_depend_on_what_exists(path):
    own = {p.parent.name for p in PACKAGES[1:]} | {"seg3d"}
    assert depends(path) <= ROS_PACKAGES | own | {"python3-numpy", "python3-pytest"}


def imported_by(folder: Path) -> set[str]:
    trees = [ast.parse(path.read_text()) for path in folder.rglob("*.py")]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    names = {n.module for n in nodes if isinstance(n, ast.ImportFrom) and n.module and not n.level}
    names |= {alias.name for n in nodes if isinstance(n, ast.Import) for alias in n.names}
    return {name.partition(".")[0] for name in names}


def test_the_node_declares_every_ros_package_that_it_imports():
    package = ROOT / "ros2_ws/src/seg3d_ros"
    imported = imported_by(package / "seg3d_ros") & (ROS_PACKAGES | {"seg3d_interfaces"})
    assert imported <= depends(package / "package.xml")


@pytest.mark.parametrize("path", PACKAGES, ids=lambda p: p.parent.name)
def test_package_files_name_the_licence_and_a_maintainer(path):
    root = ElementTree.parse(path).getroot()
    assert root.get("format") == "3"
    assert root.findtext("license") == "Apache-2.0" == PROJECT["license"]["text"]
    assert root.find("maintainer").get("email")
    if importlib.util.find_spec("catkin_pkg"):  # the parser that colcon uses
        from catkin_pkg.package import parse_package

        parse_package(path).validate()
