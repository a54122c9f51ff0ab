# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Many listeners in one process: `python subscribers.py COUNT`; says `ready`, then each sequence number that one of
them hears of."""

from __future__ import annotations

import sys

import rclpy
from seg3d_interfaces.msg import InstanceArray
from seg3d_ros import qos
from sensor_msgs.msg import PointCloud2
from visualization_msgs.msg import MarkerArray

TOPICS = (
    (InstanceArray, "/seg3d/instance_array"),
    (MarkerArray, "/seg3d/instances"),
    (PointCloud2, "/seg3d/points"),
)


def main() -> None:
    rclpy.init()
    node = rclpy.create_node("listeners")

    def hear(message: object) -> None:
        if isinstance(message, InstanceArray):
            print(message.sequence, flush=True)

    for k in range(int(sys.argv[1])):
        node.create_subscription(*TOPICS[k % len(TOPICS)], hear, qos.LATCHED)
    print("ready", flush=True)
    rclpy.spin(node)


main()
