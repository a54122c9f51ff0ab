# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""The player: `ros2 run seg3d_ros camera_player` or `python -m seg3d_ros.player --ros-args -p source:=PATH`."""

from __future__ import annotations

import sys

from . import stopping


def main(args: list[str] | None = None) -> int:
    stop = stopping.install()
    from .camera_player import run

    code = run(args, stop)
    stopping.finish()
    return code


if __name__ == "__main__":
    sys.exit(main())
