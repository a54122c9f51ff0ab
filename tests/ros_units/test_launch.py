"""Launch files run where launch is installed; elsewhere their names and calls are followed through stand-ins."""

import ast
import importlib.util
import sys
from pathlib import Path
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


def test_the_demo_sets_parameters_that_the_player_has():
    tree = ast.parse((ROOT / "launch" / "demo.launch.py").read_text())
    calls = [n for n in ast.walk(tree) if isinstance(n, ast.Call)]
    (parameters,) = [k.value.elts[0] for n in calls for k in n.keywords if k.arg == "parameters"]
    assert {key.value for key in parameters.keys} <= set(DEFAULTS)


def test_no_package_hides_the_real_launch():
    assert not (ROOT / "launch" / "__init__.py").exists()
