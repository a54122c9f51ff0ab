# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Points to voxels and superpoints."""

from __future__ import annotations

import pytest

from seg3d_core.errors import Seg3DError

torch = pytest.importorskip("torch")

from seg3d_core.models.backbones import MinkUNet, Points, SpConvUNet, encode_scenes, voxelise  # noqa: E402
from seg3d_core.models.backbones.scene import Groups  # noqa: E402
from seg3d_core.models.sparse import SparseTensor  # noqa: E402


def test_means_and_their_gradient_against_loops() -> None:
    torch.manual_seed(0)
    values = torch.randn(6, 3, dtype=torch.float64, requires_grad=True)
    rows, groups = torch.tensor([0, 5, 5, 1, 2]), torch.tensor([3, 0, 3, 3, 1])
    means = Groups(groups, 5).means(values, rows)
    for group in range(5):
        members = values[rows[groups == group]]
        expected = members.mean(dim=0) if len(members) else torch.zeros(3, dtype=torch.float64)
        torch.testing.assert_close(means[group], expected)
    assert torch.autograd.gradcheck(lambda v: Groups(groups, 5).means(v, rows), values)


def test_negative_positions_are_floored() -> None:
    scene = Points(torch.tensor([[-0.003, 0.003, -0.021]]), torch.zeros(1, 3), torch.zeros(1, dtype=torch.int64))
    assert voxelise([scene], [scene.colours], "minkowski").coordinates.indices.tolist() == [[0, -1, 0, -2]]
    assert voxelise([scene], [scene.colours], "spconv").coordinates.indices.tolist() == [[0, 0, 0, 0]]


@pytest.mark.parametrize("kind", [MinkUNet, SpConvUNet])
def test_one_point_runs_in_evaluation_and_says_why_not_in_training(kind: type) -> None:
    scene = Points(torch.zeros(1, 3), torch.zeros(1, 3), torch.zeros(1, dtype=torch.int64))
    backbone = kind(3 if kind is MinkUNet else 6).eval()
    with torch.no_grad():
        (found,) = encode_scenes(backbone, [scene])
    assert found.features.shape == (1, backbone.out_channels)
    assert torch.equal(found.low, found.high)
    with pytest.raises(Seg3DError, match="two voxels"):
        encode_scenes(backbone.train(), [scene])


@pytest.mark.parametrize("kind", [MinkUNet, SpConvUNet])
def test_the_order_of_voxels_does_not_matter(kind: type) -> None:
    torch.manual_seed(0)
    n = 300
    scene = Points(torch.randn(n, 3) * 0.1, torch.rand(n, 3), torch.arange(n))
    backbone = kind(3).eval()
    voxels = voxelise([scene], [scene.colours], backbone.convention)
    order = torch.randperm(len(voxels.coordinates))
    shuffled = type(voxels.coordinates)(voxels.coordinates.indices[order], extents=voxels.coordinates.extents)
    with torch.no_grad():
        a = backbone(SparseTensor(voxels.features, voxels.coordinates)).features
        b = backbone(SparseTensor(voxels.features[order], shuffled)).features
    torch.testing.assert_close(a[order], b, rtol=1e-4, atol=1e-5)


def test_bad_scenes_are_named() -> None:
    ids = torch.zeros(2, dtype=torch.int64)
    with pytest.raises(Seg3DError, match="without points"):
        Points(torch.zeros(0, 3), torch.zeros(0, 3), ids[:0])
    with pytest.raises(Seg3DError, match="2 points but 1 colours"):
        Points(torch.zeros(2, 3), torch.zeros(1, 3), ids)
    scene = Points(torch.zeros(2, 3), torch.zeros(2, 3), ids)
    with pytest.raises(Seg3DError, match="3 features, the network takes 259"):
        encode_scenes(MinkUNet(259), [scene])
