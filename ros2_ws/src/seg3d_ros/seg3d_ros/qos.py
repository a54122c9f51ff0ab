# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Every QoS profile of the package has its name here; nobody makes one elsewhere."""

from __future__ import annotations

from collections.abc import Iterable

from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

# Images and poses of sensors. RELIABLE reaches only publishers that offer it; BEST_EFFORT reaches all,
# and loses large messages where the publisher's shared memory segment is small.
SENSOR_RELIABLE = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)
SENSOR_BEST_EFFORT = QoSProfile(depth=10, reliability=ReliabilityPolicy.BEST_EFFORT)
# Like SENSOR_RELIABLE, for publishers that keep their last message (a camera_info sent once).
SENSOR_LATCHED = QoSProfile(
    depth=10, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL
)
# What a late joiner must still get: the newest snapshot.
LATCHED = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)
# As tf2_ros has them.
TF = QoSProfile(depth=100, reliability=ReliabilityPolicy.RELIABLE)
TF_STATIC = QoSProfile(depth=100, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)
DIAGNOSTICS = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)


def requests(depth: int) -> QoSProfile:
    """Of a service: so many requests may come at once; of more, the oldest are lost before one could refuse them."""
    return QoSProfile(depth=depth, reliability=ReliabilityPolicy.RELIABLE)


def choose(offered: Iterable[QoSProfile]) -> QoSProfile | None:
    """The strongest sensor profile that every publisher can serve; None when there is no publisher."""
    offered = list(offered)
    if not offered:
        return None
    if any(o.reliability != ReliabilityPolicy.RELIABLE for o in offered):
        return SENSOR_BEST_EFFORT
    if all(o.durability == DurabilityPolicy.TRANSIENT_LOCAL for o in offered):
        return SENSOR_LATCHED
    return SENSOR_RELIABLE


def compatible(offered: QoSProfile, asked: QoSProfile) -> bool:
    """Whether a subscription that asks for `asked` hears a publisher that offers `offered`."""
    reliable = asked.reliability != ReliabilityPolicy.RELIABLE or offered.reliability == ReliabilityPolicy.RELIABLE
    kept = (
        asked.durability != DurabilityPolicy.TRANSIENT_LOCAL or offered.durability == DurabilityPolicy.TRANSIENT_LOCAL
    )
    return reliable and kept


def describe(profile: QoSProfile) -> str:
    """`RELIABLE, VOLATILE` and the like."""
    return f"{profile.reliability.name}, {profile.durability.name}"
