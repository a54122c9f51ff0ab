"""Entry point of the node: `python -m seg3d_ros.node --ros-args -p rgb_topic:=...` or `ros2 run seg3d_ros segment_node`."""

from __future__ import annotations

import sys

from . import stopping


def main(args: list[str] | None = None) -> int:
    stop = stopping.install()
    from .segment_node import run

    return run(args, stop)


if __name__ == "__main__":
    sys.exit(main())
