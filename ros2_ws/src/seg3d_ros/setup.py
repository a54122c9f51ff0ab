# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

from pathlib import Path

from setuptools import setup


def files(folder: str, pattern: str) -> tuple[str, list[str]]:
    return f"share/seg3d_ros/{folder}", sorted(str(path) for path in Path(folder).glob(pattern))


setup(
    name="seg3d_ros",
    version="0.1.0",
    description="The ROS 2 node of seg3d",
    license="Apache-2.0",
    packages=["seg3d_ros"],
    data_files=[
        ("share/ament_index/resource_index/packages", ["resource/seg3d_ros"]),
        ("share/seg3d_ros", ["package.xml"]),
        files("launch", "*.launch.py"),
        files("rviz", "*.rviz"),
        files("config", "*.*"),
        files("config/sros2", "*.xml"),
    ],
    install_requires=["setuptools", "seg3d"],
    extras_require={"test": ["pytest"]},  # colcon test chooses pytest by this
    zip_safe=True,
    entry_points={
        "console_scripts": [
            "segment_node = seg3d_ros.node:main",
            "camera_player = seg3d_ros.player:main",
        ]
    },
)
