# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""ros2 launch seg3d demo.launch.py source:=PATH: the camera player on a folder or a bag, the node, and RViz."""

from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare

from launch import LaunchDescription


def generate_launch_description() -> LaunchDescription:
    segment = PathJoinSubstitution([FindPackageShare("seg3d_ros"), "launch", "segment.launch.py"])
    arguments = [
        DeclareLaunchArgument("source", default_value="synthetic", description="a folder, a bag, or synthetic"),
        DeclareLaunchArgument("rate", default_value="10.0", description="frames per second"),
        DeclareLaunchArgument("loop", default_value="false", description="start anew at the end"),
        DeclareLaunchArgument("rviz", default_value="true", description="open RViz"),
    ]
    # Included first: it sets the Fast DDS profile, and it is the publisher's that counts. Its other arguments reach it
    # from the command line.
    node = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(segment),
        launch_arguments={"rviz": LaunchConfiguration("rviz")}.items(),
    )
    player = Node(
        package="seg3d_ros",
        executable="camera_player",
        output="screen",
        parameters=[
            {
                "source": ParameterValue(LaunchConfiguration("source"), value_type=str),
                "rate": ParameterValue(LaunchConfiguration("rate"), value_type=float),
                "loop": ParameterValue(LaunchConfiguration("loop"), value_type=bool),
                "wait_for_subscribers": 30.0,
            }
        ],
    )
    return LaunchDescription([*arguments, node, player])
