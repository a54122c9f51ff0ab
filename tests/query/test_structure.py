# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import numpy as np

from seg3d_core.query.sizes import is_structure
from seg3d_core.types import Cloud, Instances, Snapshot


def test_walls_are_structure_and_table_tops_are_not():
    rng = np.random.default_rng(0)
    turn = np.array([[0.8, -0.6, 0], [0.6, 0.8, 0], [0, 0, 1]])
    wall = rng.uniform(0, 1, (4000, 3)) * (3.0, 0.05, 2.4) @ turn.T
    top = rng.uniform(0, 1, (2000, 3)) * (1.6, 0.8, 0.04)
    wardrobe = rng.uniform(0, 1, (2000, 3)) * (1.8, 0.6, 2.2)
    xyz = np.concatenate([wall, top, wardrobe]).astype(np.float32)
    labels = np.repeat([1, 2, 3], [4000, 2000, 2000])
    ids = np.arange(len(xyz))
    cloud = Cloud(ids, xyz, np.zeros_like(xyz, np.uint8), np.zeros_like(xyz), np.ones(len(xyz), np.float32))
    instances = Instances.from_labels(labels, ids, np.ones(3))
    extents = np.array([np.ptp(part, axis=0) for part in (wall, top, wardrobe)])
    snapshot = Snapshot(1, 0.0, cloud, instances, labels, extents, extents)
    assert is_structure(snapshot).tolist() == [True, False, False]
