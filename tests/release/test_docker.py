# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""The image files can't be built here; what can be seen without building is checked."""

from __future__ import annotations

import os
import re
import subprocess
import xml.etree.ElementTree as ElementTree
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "docker").glob("Dockerfile*"))
# What the official images hold already: ros-core's own dependencies and what rclpy brings.
IN_ROS_CORE = {
    "ament_cmake", "builtin_interfaces", "geometry_msgs", "launch_ros", "rcl_interfaces", "rclpy", "ros2launch",
    "rosidl_default_generators", "rosidl_default_runtime", "sensor_msgs", "std_msgs",
}  # fmt: skip
# The image has no display.
NOT_IN_IMAGES = {"rviz2"}


def instructions(path: Path) -> list[tuple[str, str]]:
    """(instruction, the rest in one line) without comments."""
    lines = [line for line in path.read_text().splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [tuple(line.split(None, 1)) for line in joined.splitlines() if line.strip()]


def copied(path: Path) -> list[str]:
    """Sources of COPY that come from the repository."""
    arguments = [rest.split() for name, rest in instructions(path) if name == "COPY" and "--from" not in rest]
    return [source for each in arguments for source in each[:-1]]


def test_there_are_images_with_and_without_ros():
    assert [path.name for path in FILES] == ["Dockerfile", "Dockerfile.ros"]


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name)
def test_base_images_are_the_official_ones(path):
    bases = [rest.split()[0] for name, rest in instructions(path) if name == "FROM"]
    official = ("python:${PYTHON}-slim", "ros:${ROS_DISTRO}-ros-base", "ros:${ROS_DISTRO}-ros-core")
    assert len(bases) == 2 and set(bases) <= set(official)


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name)
def test_what_is_copied_is_there_and_reaches_the_builder(path):
    ignored = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    for source in copied(path):
        assert (ROOT / source).exists(), source
        assert not any(fnmatch(source, pattern) or source.startswith(f"{pattern}/") for pattern in ignored), source


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name)
def test_everything_that_the_build_reads_is_copied(path):
    needed = {"pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE", "package.xml"}
    needed |= {"resource", "launch", "seg3d_core", "training"}
    assert needed <= set(copied(path))


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name)
def test_the_program_does_not_run_as_root(path):
    users = [rest for name, rest in instructions(path) if name == "USER"]
    made = re.findall(r"useradd .*--uid (\d+)", path.read_text())
    assert users == made and users != ["0"]


def variables(text: str) -> set[str]:
    return set(re.findall(r"\$\{(\w+)\}", text))


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name)
def test_arguments_are_declared_where_they_are_used(path):
    lines = instructions(path)
    stage = next(number for number, (name, _) in enumerate(lines) if name == "FROM")
    everywhere = {rest.partition("=")[0] for _, rest in lines[:stage]}
    known: set[str] = set()
    for name, rest in lines[stage:]:
        if name == "FROM":
            assert variables(rest) <= everywhere
            known = {"ROS_DISTRO", "PATH"}  # the base images set these in their environment
        elif name == "ARG":
            known.add(rest.partition("=")[0])
        else:
            assert variables(rest) <= known, rest


def test_the_ros_image_installs_what_the_package_names():
    text = (ROOT / "docker" / "Dockerfile.ros").read_text()
    installed = {name.replace("-", "_") for name in re.findall(r'"ros-\$\{ROS_DISTRO\}-([a-z0-9-]+)"', text)}
    tree = ElementTree.parse(ROOT / "ros2_ws/src/seg3d_ros/package.xml").getroot()
    named = {e.text for e in tree if e.tag in ("exec_depend", "depend")} - {
        "seg3d",
        "seg3d_interfaces",
        "python3-numpy",
    }
    assert installed == named - IN_ROS_CORE - NOT_IN_IMAGES


def test_extras_of_the_images_exist():
    project = (ROOT / "pyproject.toml").read_text()
    for path in FILES:
        defaults = [rest.partition("=")[2] for name, rest in instructions(path) if rest.startswith("EXTRAS")]
        examples = re.findall(r"--build-arg EXTRAS=(\S+)", path.read_text())
        for extra in ",".join([*defaults, *examples]).split(","):
            assert f"\n{extra} = [" in project, extra


def test_the_entry_point_is_a_program():
    entry = ROOT / "docker" / "ros_entrypoint.sh"
    assert os.access(entry, os.X_OK)
    assert subprocess.run(["bash", "-n", str(entry)], check=False).returncode == 0
