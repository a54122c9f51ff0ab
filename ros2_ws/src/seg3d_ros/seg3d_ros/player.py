"""Entry point of the camera player: `python -m seg3d_ros.player --ros-args -p source:=PATH` or `ros2 run seg3d_ros camera_player`."""

from __future__ import annotations

import sys

from . import stopping


def main(args: list[str] | None = None) -> int:
    stop = stopping.install()
    from .camera_player import run

    return run(args, stop)


if __name__ == "__main__":
    sys.exit(main())
