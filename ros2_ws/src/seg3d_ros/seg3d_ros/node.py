# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""The node's entry: `ros2 run seg3d_ros segment_node`, or `python -m seg3d_ros.node --ros-args -p rgb_topic:=...`."""

from __future__ import annotations

import os
import sys

from . import stopping


def main(args: list[str] | None = None) -> int:
    # Before torch loads: its OpenMP threads would spin while they wait, on cores that the mapping needs.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    stop = stopping.install()
    from .segment_node import run

    code = run(args, stop)
    stopping.finish()
    return code


if __name__ == "__main__":
    sys.exit(main())
