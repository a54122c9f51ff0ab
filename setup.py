"""colcon (ros.ament_python) calls this file; everything else stands in pyproject.toml."""

from glob import glob

from setuptools import setup

setup(
    data_files=[
        ("share/ament_index/resource_index/packages", ["resource/seg3d"]),
        ("share/seg3d", ["package.xml"]),
        ("share/seg3d/launch", glob("launch/*.launch.py")),
    ],
    python_requires=">=3.10",  # not in pyproject.toml: colcon cannot read what setuptools makes of it there
    zip_safe=False,
)
