#!/bin/bash
# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

# The distribution and our packages on it, then the command.
set -e
source "/opt/ros/${ROS_DISTRO}/setup.bash"
source /opt/seg3d/install/setup.bash
export PATH="/opt/seg3d/venv/bin:${PATH}"
exec "$@"
