# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""ros2 launch seg3d_ros segment.launch.py rgb_topic:=/camera/color/image_raw map_frame:=odom rviz:=true ...

Every parameter of the node that has no argument here goes into a file: params_file:=my.yaml. What is given on the
command line goes on top of the file; the defaults below do not, they are the node's own.
"""

from launch.actions import DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable
from launch.conditions import IfCondition
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare

from launch import LaunchContext, LaunchDescription

# name: (default, what it is, type)
PARAMETERS = {
    "rgb_topic": ("rgb/image_raw", "colour images", str),
    "depth_topic": ("depth/image_raw", "depth images registered to colour", str),
    "camera_info_topic": ("rgb/camera_info", "intrinsics of the colour images", str),
    "mask_topic": ("masks", "label images, read if perception.masks is topic", str),
    "map_frame": ("map", "frame of the map and of every output", str),
    "camera_frame": ("", "optical frame of the camera; empty: the colour images' frame_id", str),
    "pose_source": ("tf", "tf, pose or odometry", str),
    "pose_topic": ("pose", "PoseStamped or Odometry", str),
    "pose_frame": ("", "the frame whose pose the topic gives", str),
    "correction_source": ("none", "corrected poses: none, path, map_data, map_graph or tf", str),
    "correction_topic": ("corrections", "where they come", str),
    "correction_frame": ("", "frame whose poses they are; empty: the camera's", str),
    "rectified": ("false", "the images are rectified", bool),
    "sync_slop": ("0.02", "largest distance of the stamps of one frame [s]", float),
    "profile": ("cpu-geometric", "a named set of settings", str),
    "core": ("re0", "which core segments: re0 (zero-shot) or segdino3d (trained)", str),
    "maps_folder": ("~/.ros/seg3d", "save_map and load_map stay inside this folder", str),
    "max_maps": ("100", "save_map makes no more files than these in maps_folder", int),
    "spare_disk": ("500.0", "save_map leaves so much free on the disk of maps_folder [MB]", float),
    "use_sim_time": ("false", "take the time from /clock", bool),
}


def segment_node(context: LaunchContext, given: set[str], remappings: list) -> list[Node]:
    """The node, with the parameter file and on top of it the arguments that somebody gave."""
    values = {
        name: ParameterValue(LaunchConfiguration(name), value_type=kind)
        for name, (_, _, kind) in PARAMETERS.items()
        if name in given
    }
    return [
        Node(
            package="seg3d_ros",
            executable="segment_node",
            name="seg3d",
            namespace=LaunchConfiguration("namespace"),
            output="screen",
            parameters=[LaunchConfiguration("params_file"), *([values] if values else [])],
            remappings=remappings,
        )
    ]


def generate_launch_description() -> LaunchDescription:
    share = FindPackageShare("seg3d_ros")
    # Runs before the declarations, which fill in the defaults: what is set by then, a person or another file has set.
    given: set[str] = set()
    remember = OpaqueFunction(
        function=lambda context: given.update(PARAMETERS.keys() & context.launch_configurations.keys())
    )
    arguments = [
        DeclareLaunchArgument(name, default_value=default, description=text)
        for name, (default, text, _) in PARAMETERS.items()
    ]
    arguments += [
        DeclareLaunchArgument("namespace", default_value="", description="namespace of the node"),
        DeclareLaunchArgument("tf_topic", default_value="/tf", description="where the robot publishes its transforms"),
        DeclareLaunchArgument("tf_static_topic", default_value="/tf_static", description="and its static ones"),
        DeclareLaunchArgument("rviz", default_value="false", description="open RViz"),
        DeclareLaunchArgument(
            "params_file",
            default_value=PathJoinSubstitution([share, "config", "seg3d.yaml"]),
            description="a parameter file; arguments that are given go on top",
        ),
    ]
    # Jazzy and Humble read the first, newer ones the second.
    profile = PathJoinSubstitution([share, "config", "fastdds_shm.xml"])
    environment = [
        SetEnvironmentVariable(name, LaunchConfiguration("dds_profile"))
        for name in ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")
    ]
    arguments.append(
        DeclareLaunchArgument("dds_profile", default_value=profile, description="Fast DDS profile with room for images")
    )
    transforms = [(f"/{name}", LaunchConfiguration(f"{name}_topic")) for name in ("tf", "tf_static")]
    node = OpaqueFunction(function=segment_node, args=[given, transforms])
    rviz = Node(
        package="rviz2",
        executable="rviz2",
        namespace=LaunchConfiguration("namespace"),
        arguments=[
            "-d",
            PathJoinSubstitution([share, "rviz", "seg3d.rviz"]),
            "-f",
            LaunchConfiguration("map_frame"),
        ],
        remappings=[("seg3d/image", LaunchConfiguration("rgb_topic")), *transforms],
        condition=IfCondition(LaunchConfiguration("rviz")),
    )
    return LaunchDescription([remember, *arguments, *environment, node, rviz])
