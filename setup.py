# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""colcon (ros.ament_python) calls this file; everything else stands in pyproject.toml."""

from pathlib import Path

from setuptools import setup

setup(
    data_files=[
        ("share/ament_index/resource_index/packages", ["resource/seg3d"]),
        ("share/seg3d", ["package.xml"]),
        ("share/seg3d/launch", [str(path) for path in Path("launch").glob("*.launch.py")]),
    ],
    python_requires=">=3.10",  # not in pyproject.toml: colcon cannot read what setuptools makes of it there
    zip_safe=False,
)
