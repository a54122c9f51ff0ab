# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""What goes out: instances as markers and as messages, the cloud. Published by a thread of its own, newest wins."""

from __future__ import annotations

import colorsys
import threading
from typing import Any

from geometry_msgs.msg import Point, Pose, Quaternion, Vector3
from rclpy.time import Time
from seg3d_interfaces.msg import Instance, InstanceArray, InstanceChange
from sensor_msgs.msg import PointCloud2
from std_msgs.msg import ColorRGBA, Header
from visualization_msgs.msg import Marker, MarkerArray

from seg3d_core.errors import printable
from seg3d_core.types import IdentityChange, Snapshot

from . import backends, convert, qos

KINDS = {"merged": InstanceChange.MERGED, "split": InstanceChange.SPLIT}
LABEL_HEIGHT = 0.12  # m
LONGEST_LABEL = 100  # characters; labels come from files and are shown in viewers and terminals
THINNEST = 0.005  # m; RViz refuses boxes without thickness
GOLDEN_RATIO = 0.618033988749895


def make_header(snapshot: Snapshot, frame_id: str) -> Header:
    return Header(stamp=Time(nanoseconds=max(0, round(snapshot.stamp * 1e9))).to_msg(), frame_id=frame_id)


def instance_messages(snapshot: Snapshot, ids: Any = None) -> list[Instance]:
    """All instances, or those of `ids` in that order."""
    row_of = {int(i): row for row, i in enumerate(snapshot.instances.ids)}
    sizes = snapshot.instances.sizes
    rows = row_of.values() if ids is None else [row_of[i] for i in ids if i in row_of]
    return [
        Instance(
            id=int(snapshot.instances.ids[row]),
            label=printable(snapshot.names[row], LONGEST_LABEL) if row < len(snapshot.names) else "",
            score=float(snapshot.instances.scores[row]),
            pose=Pose(
                position=Point(**dict(zip("xyz", map(float, snapshot.centres[row]), strict=True))),
                orientation=Quaternion(w=1.0),
            ),
            size=Vector3(**dict(zip("xyz", map(float, snapshot.extents[row]), strict=True))),
            num_points=int(sizes[row]),
        )
        for row in rows
    ]


def change_messages(changes: list[IdentityChange]) -> list[InstanceChange]:
    return [
        InstanceChange(kind=KINDS[c.kind], sources=[int(i) for i in c.sources], targets=[int(i) for i in c.targets])
        for c in changes
        if c.kind in KINDS
    ]


def colour_of(instance_id: int, alpha: float) -> ColorRGBA:
    """The same colour for the same id, far apart for neighbouring ids."""
    red, green, blue = colorsys.hsv_to_rgb(instance_id * GOLDEN_RATIO % 1.0, 0.75, 0.95)
    return ColorRGBA(r=red, g=green, b=blue, a=alpha)


def marker_array(instances: list[Instance], header: Header) -> MarkerArray:
    """DELETEALL first, so that one message is the whole truth, also for a late joiner."""
    markers = [Marker(header=header, action=Marker.DELETEALL)]
    for each in instances:
        box = Marker(header=header, ns="box", id=each.id, type=Marker.CUBE, action=Marker.ADD)
        box.pose, box.color = each.pose, colour_of(each.id, 0.3)
        box.scale = Vector3(x=max(each.size.x, THINNEST), y=max(each.size.y, THINNEST), z=max(each.size.z, THINNEST))
        text = Marker(header=header, ns="label", id=each.id, type=Marker.TEXT_VIEW_FACING, action=Marker.ADD)
        text.text = f"{each.id} {each.label}".strip()
        text.pose.position.x, text.pose.position.y = each.pose.position.x, each.pose.position.y
        text.pose.position.z = each.pose.position.z + each.size.z / 2 + LABEL_HEIGHT
        text.pose.orientation.w = 1.0
        text.scale.z = LABEL_HEIGHT
        text.color = ColorRGBA(r=1.0, g=1.0, b=1.0, a=1.0)
        markers += [box, text]
    return MarkerArray(markers=markers)


def cloud_message(snapshot: Snapshot, header: Header, most: int) -> PointCloud2:
    """At most `most` points, thinned evenly."""
    keep = slice(None, None, max(1, -(-len(snapshot.cloud) // most)))
    cloud = snapshot.cloud
    return backends.make_cloud(convert.cloud_points(cloud.xyz[keep], cloud.rgb[keep], snapshot.labels[keep]), header)


class Outputs:
    """Latched publishers. `offer` may be called from any thread and never blocks."""

    def __init__(self, node: Any, parameters: Any, report: Any):
        self.node, self.parameters, self.report = node, parameters, report
        self.arrays = node.create_publisher(InstanceArray, "~/instance_array", qos.LATCHED)
        self.markers = node.create_publisher(MarkerArray, "~/instances", qos.LATCHED)
        self.clouds = node.create_publisher(PointCloud2, "~/points", qos.LATCHED)
        self.published = 0
        self._ready = threading.Condition()
        self._next: Snapshot | None = None
        self._changes: list[IdentityChange] = []
        self._seen: tuple[int, bool] = (-1, False)  # sequence, and whether its changes are out
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="seg3d-publish", daemon=True)
        self._thread.start()

    def offer(self, snapshot: Snapshot) -> None:
        """A snapshot comes twice when its labels become known; changes of overtaken ones ride with the next."""
        with self._ready:
            sequence, are_out = self._seen
            if snapshot.sequence != sequence:
                if are_out:
                    self._changes = []
                self._changes += snapshot.changes
                self._seen = (snapshot.sequence, False)
            self._next = snapshot
            self._ready.notify()

    def close(self) -> None:
        with self._ready:
            self._closed = True
            self._ready.notify()
        self._thread.join(timeout=5)
        for publisher in (self.arrays, self.markers, self.clouds):
            self.node.destroy_publisher(publisher)

    def _run(self) -> None:
        publish = self.report.guarded(self._publish)
        while True:
            with self._ready:
                self._ready.wait_for(lambda: self._next is not None or self._closed)
                if self._closed:
                    return
                snapshot, self._next = self._next, None
                changes = list(self._changes)
                self._seen = (self._seen[0], True)
            publish(snapshot, changes)

    def _publish(self, snapshot: Snapshot, changes: list[IdentityChange]) -> None:
        header = make_header(snapshot, self.parameters["map_frame"])
        instances = instance_messages(snapshot)
        self.arrays.publish(
            InstanceArray(
                header=header, sequence=snapshot.sequence, instances=instances, changes=change_messages(changes)
            )
        )
        self.markers.publish(marker_array(instances, header))
        self.clouds.publish(cloud_message(snapshot, header, self.parameters["cloud_points"]))
        self.published += 1
