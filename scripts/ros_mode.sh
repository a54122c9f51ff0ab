#!/bin/sh
# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

# How ROS 2 can be had here: prints `wheels`, `distribution`, or `none: <why>`. Usage: ros_mode.sh PYTHON
python=${1:-python3}
if [ -n "$ROS_DISTRO" ]; then
    if command -v colcon >/dev/null 2>&1; then
        echo distribution
    else
        echo "none: ROS 2 $ROS_DISTRO is sourced, but colcon is missing (sudo apt install python3-colcon-common-extensions)"
    fi
    exit 0
fi
if [ "$(uname -s)-$(uname -m)" != Linux-x86_64 ]; then
    echo "none: the ROS 2 wheels exist for Linux on x86_64 only, this is $(uname -s) on $(uname -m); source a distribution instead"
    exit 0
fi
if ! "$python" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 14))' 2>/dev/null; then
    echo "none: the ROS 2 wheels exist for Python 3.10 to 3.13, this is $("$python" --version 2>&1)"
    exit 0
fi
if ! command -v g++ >/dev/null 2>&1; then
    echo "none: g++ is missing, which our ROS 2 messages are built with (sudo apt install g++)"
    exit 0
fi
if ! "$python" -c 'import os, sys, sysconfig; sys.exit(not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")))'; then
    echo "none: Python.h is missing, which our ROS 2 messages are built with (sudo apt install python3-dev)"
    exit 0
fi
echo wheels
