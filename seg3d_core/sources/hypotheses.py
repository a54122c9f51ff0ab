# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""What is commonly wrong with posed RGB-D, each as a function that says how the frames would have to be read.

A hypothesis takes the sample, the setup so far and the number that stood for a metre, and yields readings: a setup
and a sentence. The reading that raises agreement most, and by enough, names the culprit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from scipy.spatial.transform import Rotation

from ..types import Array
from .consistency import Agreement, Sample, Setup, agreement

SHIFTS = 10
_OPENGL = np.diag([1.0, -1.0, -1.0, 1.0])
# The optical frame in a body frame of REP 103 (x forward, y left, z up).
_BODY_OPTICAL = np.array([[0.0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 0, 1]])
_SCALES = (1.0, 100.0, 256.0, 1000.0, 4000.0, 5000.0, 6553.5, 10000.0)
_UNITS = {1.0: " (metres)", 100.0: " (centimetres)", 1000.0: " (millimetres)"}
_RESOLUTIONS = (0.25, 1 / 3, 640 / 1296, 0.5, 2 / 3, 0.75, 4 / 3, 1.5, 2.0, 1296 / 640, 3.0, 4.0)
# A reading is believed when it leaves at most this share of the disagreement, and gains at least so much.
_LEFT_OVER, _GAIN, _LEAST_OVERLAP, _MOST_HIDDEN = 0.6, 0.08, 0.1, 0.7
_FEW_PAIRS, _POOR = 50, 0.65


@dataclass(frozen=True, eq=False)
class Reading:
    """A setup under which the frames might agree. `cause` says what is wrong, `cure` what was tried."""

    name: str
    setup: Setup
    cause: str
    cure: str


@dataclass(frozen=True, eq=False)
class Culprit:
    """A reading that is believed, with the agreement before and after."""

    reading: Reading
    before: Agreement
    after: Agreement


Hypothesis = Callable[[Sample, Setup, float], Iterator[Reading]]


def inverted_poses(sample: Sample, setup: Setup, scale: float) -> Iterator[Reading]:
    """World to camera was given."""
    yield Reading(
        "inverted_poses",
        replace(setup, poses=np.linalg.inv(setup.poses)),
        "the poses look inverted (world to camera; camera to world is wanted)",
        "inverting the poses",
    )


def transposed_rotations(sample: Sample, setup: Setup, scale: float) -> Iterator[Reading]:
    """Rotations were written by columns, translations kept."""
    poses = setup.poses.copy()
    poses[:, :3, :3] = np.swapaxes(poses[:, :3, :3], 1, 2)
    yield Reading(
        "transposed_rotations",
        replace(setup, poses=poses),
        "the rotations look transposed",
        "transposing the 3x3 parts of the poses",
    )


def opengl_axes(sample: Sample, setup: Setup, scale: float) -> Iterator[Reading]:
    """Camera axes x right, y up, z backward."""
    cause = "the camera axes look like OpenGL's (y up, z backward; OpenCV's y down, z forward is wanted)"
    yield Reading("opengl_axes", replace(setup, poses=setup.poses @ _OPENGL), cause, "turning OpenGL axes to OpenCV's")
    inverse = np.linalg.inv(setup.poses)
    yield Reading(
        "opengl_axes_inverted",
        replace(setup, poses=inverse @ _OPENGL),
        cause + " and the poses inverted",
        "inverting the poses and turning OpenGL axes to OpenCV's",
    )


def body_frame(sample: Sample, setup: Setup, scale: float) -> Iterator[Reading]:
    """The pose of a body frame (x forward, z up) was taken for the optical frame's."""
    yield Reading(
        "body_frame",
        replace(setup, poses=setup.poses @ _BODY_OPTICAL),
        "the poses look like those of a base or body frame (x forward, z up), not of the optical frame",
        "turning them to optical axes",
    )


def quaternion_order(sample: Sample, setup: Setup, scale: float) -> Iterator[Reading]:
    """Quaternions (w, x, y, z) were read as (x, y, z, w)."""
    quaternions = Rotation.from_matrix(setup.poses[:, :3, :3]).as_quat()
    poses = setup.poses.copy()
    poses[:, :3, :3] = Rotation.from_quat(quaternions[:, [1, 2, 3, 0]]).as_matrix()
    yield Reading(
        "quaternion_order",
        replace(setup, poses=poses),
        "the quaternions look written as w x y z (x y z w is wanted)",
        "reading them so",
    )


def depth_unit(sample: Sample, setup: Setup, scale: float) -> Iterator[Reading]:
    """Another number stands for a metre, in depth or in the poses' translations."""
    valid = sample.d[sample.d > 0]
    median = float(np.median(valid)) if len(valid) else 0.0
    for factor in sorted({round(a / b, 6) for a in _SCALES for b in _SCALES if a != b}):
        unit = float(f"{scale / factor:.5g}")
        cause = f"depth looks like {unit:g} per metre{_UNITS.get(unit, '')}, not {scale:g}"
        cure = f"reading it so (all depth times {factor:.4g})"
        if 0.2 < median < 10 and not 0.1 < median * factor < 30:
            cause = f"the poses' translations look {factor:.4g} times too large for the depth: in another unit?"
            cure = f"dividing them by {factor:.4g}"
        yield Reading("depth_unit", replace(setup, depth_factor=setup.depth_factor * factor), cause, cure)


def intrinsics_resolution(sample: Sample, setup: Setup, scale: float) -> Iterator[Reading]:
    """The intrinsics belong to the same view at another size."""
    camera = sample.camera
    centre = camera.width / (2 * camera.cx + 1)
    for factor in sorted({*_RESOLUTIONS, round(centre, 4)}):
        if not 0.1 < factor < 10 or abs(factor - 1) < 0.05:
            continue
        yield Reading(
            "intrinsics_resolution",
            replace(setup, camera_factor=setup.camera_factor * factor),
            f"the intrinsics look made for images {1 / factor:.3g} times as large as these",
            f"multiplying fx, fy, cx and cy by {factor:.3g}",
        )


def poses_shifted(sample: Sample, setup: Setup, scale: float) -> Iterator[Reading]:
    """Depth's frame i goes with the pose of frame i + k."""
    count = len(sample)
    for shift in range(-min(SHIFTS, count // 3), min(SHIFTS, count // 3) + 1):
        if shift == 0:
            continue
        row = np.arange(count) + shift
        known = (row >= 0) & (row < count)
        side = "later" if shift > 0 else "earlier"
        frames = f"{abs(shift)} frame{'s' if abs(shift) > 1 else ''}"
        yield Reading(
            f"poses_shifted:{shift}",
            replace(setup, poses=setup.poses[row.clip(0, count - 1)], known=known),
            f"depth and poses are shifted in time by {frames}",
            f"taking each depth image with the pose {frames} {side}",
        )


def two_mistakes(sample: Sample, setup: Setup, scale: float) -> Iterator[Reading]:
    """Poses given in another way, and depth or intrinsics wrong as well."""
    for first in (inverted_poses, opengl_axes, body_frame):
        for a in first(sample, setup, scale):
            for second in (depth_unit, intrinsics_resolution):
                for b in second(sample, a.setup, scale):
                    yield Reading(f"{a.name}+{b.name}", b.setup, f"{a.cause}, and {b.cause}", f"{a.cure} and {b.cure}")


HYPOTHESES: tuple[Hypothesis, ...] = (
    inverted_poses,
    opengl_axes,
    depth_unit,
    intrinsics_resolution,
    poses_shifted,
    body_frame,
    transposed_rotations,
    quaternion_order,
)


def find_culprit(
    sample: Sample, pairs: Array, setup: Setup, scale: float, progress: Callable[[], None] | None = None
) -> Culprit | None:
    """The reading that raises agreement most, if by enough to be believed.

    Readings that throw away much of the overlap, or hide most of it, are not believed: a few pixels agree by
    chance. Two mistakes at once are tried only where no single one explains a poor agreement.
    """
    before = agreement(sample, pairs, setup)
    if before.share > 1 - _GAIN:
        return None
    found = []
    for hypothesis in HYPOTHESES:
        found += _judge(sample, pairs, hypothesis(sample, setup, scale), before)
        if progress is not None:
            progress()
    if not found and before.share < _POOR:
        few = pairs[np.linspace(0, len(pairs) - 1, min(len(pairs), _FEW_PAIRS)).round().astype(int)]
        found = _judge(sample, few, two_mistakes(sample, setup, scale), agreement(sample, few, setup))
    # Factors that nearly agree (1/2 and 640/1296) tie in whole percent; the exact one leaves less difference.
    return max(found, key=lambda c: (round(c.after.share, 2), -c.after.median_error), default=None)


def _judge(sample: Sample, pairs: Array, readings: Iterable[Reading], before: Agreement) -> list[Culprit]:
    """The readings that are believed."""
    out = []
    for reading in readings:
        after = agreement(sample, pairs, reading.setup)
        overlaps = after.overlap >= max(_LEAST_OVERLAP, before.overlap / 4) and after.hidden <= _MOST_HIDDEN
        gains = after.share - before.share >= _GAIN and 1 - after.share <= _LEFT_OVER * (1 - before.share)
        if overlaps and gains:
            out.append(Culprit(reading, before, after))
    return out
