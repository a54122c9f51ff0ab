# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""`make test` takes a PyTorch without CUDA or none, and says so: the script with a pip that is made up."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "scripts" / "cpu_torch.sh"

PYTHON = """#!/bin/sh
case "$*" in
    *--dry-run*) cat "{folder}/report.json" ;;
    "-m pip"*) echo "$*" >> "{folder}/installed" ;;
    *) exec "{python}" "$@" ;;
esac
"""


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (["torch", "sympy"], None),
        ([], None),
        (["torch", "nvidia-cublas-cu12", "triton"], "would take a torch==2.13.0 with CUDA"),
        (["torch", "cuda-bindings"], "would take a torch==2.13.0 with CUDA"),
        (None, "finds no torch==2.13.0"),
    ],
)
def test_torch_comes_without_cuda_or_not_at_all(tmp_path, names, reason) -> None:
    python = tmp_path / "python"
    python.write_text(PYTHON.format(folder=tmp_path, python=sys.executable))
    python.chmod(0o755)
    if names is not None:
        # A build without CUDA may name CUDA's packages all the same, for other systems.
        packages = [{"metadata": {"name": name, "requires_dist": ["nvidia-x; sys_platform == 'x'"]}} for name in names]
        (tmp_path / "report.json").write_text(json.dumps({"install": packages}))
    done = subprocess.run(["sh", str(SCRIPT), str(python)], capture_output=True, text=True, check=True)
    if reason is None:
        assert (tmp_path / "installed").read_text() == "-m pip install -q torch==2.13.0\n"
        assert done.stdout == ""
    else:
        assert reason in done.stdout
        assert "TORCH='torch==...'" in done.stdout
        assert not (tmp_path / "installed").exists()
