# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Corrected poses on a topic: the map of the real node and its markers follow, and /diagnostics counts it."""

from pathlib import Path as FilePath

from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseStamped
from nav_msgs.msg import Path
from seg3d_interfaces.msg import InstanceArray
from seg3d_interfaces.srv import Segment
from seg3d_ros import qos
from tf2_msgs.msg import TFMessage

STUDIO = FilePath(__file__).resolve().parents[2] / "examples" / "studio"


def corrected(transforms, metres) -> Path:
    """The poses that came over /tf, moved along x."""
    path = Path()
    path.header.frame_id = "map"
    for tf in transforms:
        t = tf.transform.translation
        pose = PoseStamped(header=tf.header)
        pose.pose.position.x, pose.pose.position.y, pose.pose.position.z = t.x + metres, t.y, t.z
        pose.pose.orientation = tf.transform.rotation
        path.poses.append(pose)
    return path


def test_the_map_follows_a_path(start, ros):
    heard = []
    subscription = ros.create_subscription(TFMessage, "/tf", lambda m: heard.extend(m.transforms), qos.TF)
    player = start(
        "player", f"source:={STUDIO}", "rate:=5.0", "step:=2", "frames:=12", "masks:=true", "wait_for_subscribers:=60.0"
    )
    # It waits for the node alone, so it has to be known here before: else its first poses go by unheard.
    assert ros.until(lambda: ros.count_publishers("/tf") > 0)
    start(
        "node",
        "perception.masks:=topic",
        "query.encoder:=none",
        "correction_source:=path",
        "correction_topic:=/slam/path",
        "correction_frame:=camera_link",  # the player's /tf tells the poses of its body
    )
    publisher = ros.create_publisher(Path, "/slam/path", 1)
    assert ros.until(lambda: player.child.poll() is not None, 120.0)
    assert player.wait() == 0, player.said
    assert ros.call(Segment, "/seg3d/segment_now").success
    before = ros.receive(InstanceArray, "/seg3d/instance_array", qos.LATCHED, lambda a: a.instances)
    poses = [tf for tf in heard if tf.header.frame_id == "map"]
    assert len(poses) >= 12
    assert ros.until(lambda: publisher.get_subscription_count() == 1)

    publisher.publish(corrected(poses, 2.0))
    after = ros.receive(InstanceArray, "/seg3d/instance_array", qos.LATCHED, lambda a: a.sequence > before.sequence)
    was = {i.id: i.pose.position.x for i in before.instances}
    now = {i.id: i.pose.position.x for i in after.instances}
    kept = was.keys() & now.keys()
    assert len(kept) >= 0.8 * len(was)
    assert abs(sorted(now[i] - was[i] for i in kept)[len(kept) // 2] - 2.0) < 0.05

    publisher.publish(corrected(poses, 2.0))

    def counted(array):
        values = {v.key: v.value for s in array.status if s.name.endswith("mapping") for v in s.values}
        return values.get("corrections") == "2"

    status = ros.receive(DiagnosticArray, "/diagnostics", qos.DIAGNOSTICS, counted).status
    values = {v.key: v.value for s in status for v in s.values}
    assert values["corrections applied"] == values["corrections: too small to apply"] == "1"
    ros.destroy_subscription(subscription)
