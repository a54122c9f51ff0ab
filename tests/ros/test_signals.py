# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""SIGINT and SIGTERM while a node maps and saves: exit code 0 within five seconds, no orphan, no half file."""

import os
import random
import signal
import time
from pathlib import Path

import pytest
from diagnostic_msgs.msg import DiagnosticArray
from seg3d_interfaces.srv import SaveMap
from seg3d_ros import qos

from seg3d_core.storage import read_scene

STUDIO = Path(__file__).resolve().parents[2] / "examples" / "studio"


def seconds_for(seconds: float) -> float:
    """So long on a machine that does nothing else, longer where many wait for its cores."""
    return seconds * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


def heirs(log: Path) -> list[str]:
    """Processes that still hold the output of one that has ended: its children."""
    found = []
    for handle in Path("/proc").glob("[0-9]*/fd/1"):
        try:
            found += [handle.parts[2]] if handle.readlink() == log else []
        except OSError:
            continue
    return found


def saving(message: DiagnosticArray) -> dict[str, str]:
    return {v.key: v.value for s in message.status if s.name.endswith(": saving") for v in s.values}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("seed", range(2))
def test_a_signal_while_maps_are_saved(start, ros, tmp_path, number, seed):
    maps = tmp_path / "maps"
    node = start("node", "query.encoder:=none", f"maps_folder:={maps}", "runtime.autosave_minutes:=0.01")
    player = start("player", f"source:={STUDIO}", "loop:=true", "rate:=10.0", "wait_for_subscribers:=60.0")
    ros.receive(DiagnosticArray, "/diagnostics", qos.DIAGNOSTICS,
                lambda m: int(saving(m).get("autosave saves", 0)) > 1)  # fmt: skip
    client = ros.create_client(SaveMap, "/seg3d/save_map")
    assert ros.until(client.service_is_ready)
    for _ in range(5):
        client.call_async(SaveMap.Request(path="asked", overwrite=True))
    delay = random.Random(f"{seed} {number}").uniform(0.0, 0.5)
    ros.until(lambda: False, delay)
    limit = seconds_for(5.0)
    for process in (node, player):
        process.child.send_signal(number)
    for process in (node, player):
        began = time.monotonic()
        assert process.wait() == 0, f"after {delay:.3f} s:\n{process.said}"
        assert time.monotonic() - began < limit, process.said
        assert "Traceback" not in process.said, process.said
        assert heirs(process.log) == []
    left = {path.name for path in maps.iterdir()}
    assert left <= {"asked.seg3d", "autosave.seg3d", "autosave.previous.seg3d"}, "no half file"
    assert {"autosave.seg3d", "autosave.previous.seg3d"} <= left
    for path in maps.iterdir():
        assert len(read_scene(path).arrays["map/ids"]) > 0
