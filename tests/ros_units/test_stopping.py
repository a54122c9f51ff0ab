# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""A process ends with 0 on a signal: at once while it starts, in order when it runs, by force when it hangs."""

import signal
import subprocess
import sys

import pytest

PROGRAM = """
import sys, time
from seg3d_ros import stopping
stopping.GRACE = 0.3
stop = stopping.install()
{body}
"""
BODIES = {
    "starting": "print('ready', flush=True)\ntime.sleep(60)",
    "running": (
        "stop.starting = False\nprint('ready', flush=True)\nwhile not stop.is_set(): stop.wait(0.05)\n"
        "print('in order')\nstopping.finish()"
    ),
    "hanging": "stop.starting = False\nprint('ready', flush=True)\nwhile True: time.sleep(1)",
}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("phase", BODIES)
def test_a_signal_ends_it_with_0(phase, number):
    command = [sys.executable, "-c", PROGRAM.format(body=BODIES[phase])]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        assert child.stdout.readline() == "ready\n"
        child.send_signal(number)
        out, errors = child.communicate(timeout=30)
    assert child.returncode == 0, errors
    assert ("in order" in out) is (phase == "running")
    assert ("did not come down" in errors) is (phase == "hanging")


def test_signals_after_the_end_change_nothing():
    body = "stopping.finish()\nprint('ready', flush=True)\ntime.sleep(0.5)"
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(body=body)], stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout.readline() == "ready\n"
        child.send_signal(signal.SIGTERM)
        assert child.wait(30) == 0
