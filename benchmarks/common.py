"""What every table says of itself: where, on what and from which commit; and frames at another size."""

from __future__ import annotations

import os
import platform
import subprocess
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from seg3d_core.types import Frame

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs" / "results"


def machine() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    name = names[0] if names else platform.processor() or platform.machine()
    return f"{os.cpu_count()} cores of {name}, Python {platform.python_version()}"


def commit() -> str:
    """Short hash, with `-dirty` where something other than the results differs from it."""
    git = ["git", "-C", str(ROOT)]
    done = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    if done.returncode:
        return "unknown"
    changed = [*git, "status", "--porcelain", "--", ".", ":!docs/results"]
    is_dirty = subprocess.run(changed, capture_output=True, text=True, check=False).stdout.strip()
    return done.stdout.strip() + ("-dirty" if is_dirty else "")


def load() -> str:
    return f"{os.getloadavg()[0]:.1f}; above {os.cpu_count()}, others were at work too: compare CPU times"


def enlarged(frame: Frame, width: int, height: int) -> Frame:
    """The frame at another size. Inverse depth is interpolated, which is exact on planes; across depth edges
    the nearest pixel is taken, so that none lies between two surfaces. Rounded to millimetres, as sensors do."""
    if frame.camera.size == (width, height):
        return frame
    depth, kernel = frame.depth, np.ones((3, 3), np.uint8)
    nearest = cv2.resize(depth, (width, height), interpolation=cv2.INTER_NEAREST)
    with np.errstate(divide="ignore"):
        inverse = cv2.resize(np.where(depth > 0, 1 / depth, 0), (width, height), interpolation=cv2.INTER_LINEAR)
    is_edge = cv2.dilate(depth, kernel) > 1.05 * cv2.erode(depth, kernel)
    is_edge = cv2.resize(is_edge.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST) > 0
    smooth = np.where(is_edge | (inverse <= 0), nearest, 1 / np.maximum(inverse, 1e-6))
    return replace(
        frame,
        depth=(np.rint(smooth * 1000) / 1000).astype(np.float32),
        rgb=cv2.resize(frame.rgb, (width, height), interpolation=cv2.INTER_LINEAR),
        camera=frame.camera.scaled(width, height),
    )
