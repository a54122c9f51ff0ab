#!/bin/bash
# The distribution and our packages on it, then the command.
set -e
source "/opt/ros/${ROS_DISTRO}/setup.bash"
source /opt/seg3d/install/setup.bash
export PATH="/opt/seg3d/venv/bin:${PATH}"
exec "$@"
