# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Every kind of sparse layer against the published libraries' numbers, forward and both gradients."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from seg3d_core.errors import WeightsError

torch = pytest.importorskip("torch")

from seg3d_core.models.sparse import (  # noqa: E402
    BatchNorm,
    CoordinateSet,
    SparseConvolution,
    SparseTensor,
    StridedConvolution,
    SubmanifoldConvolution,
    TransposedConvolution,
)

GOLDEN = Path(__file__).resolve().parents[2] / "golden" / "segdino3d" / "c_sparse_layers.npz"
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def golden() -> dict[str, torch.Tensor]:
    with np.load(GOLDEN) as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays.files}


def close(ours: torch.Tensor, reference: torch.Tensor) -> bool:
    assert ours.shape == reference.shape
    return float((ours - reference).abs().max()) <= TOLERANCE * float(reference.abs().max())


def sorted_rows(coordinates: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(np.lexsort(coordinates.numpy().T[::-1]))


def rows_of(wanted: torch.Tensor, coordinates: torch.Tensor) -> torch.Tensor:
    """Where in `coordinates` each of the `wanted` ones lies."""
    order = sorted_rows(coordinates)
    wanted_order = sorted_rows(wanted)
    assert torch.equal(coordinates[order].int(), wanted[wanted_order])
    return order[torch.argsort(wanted_order)]


def check(
    golden: dict,
    tag: str,
    layer: SparseConvolution,
    x: SparseTensor,
    coordinates: str,
    like: tuple[SparseTensor, ...] = (),
    rows: torch.Tensor | slice = slice(None),
) -> None:
    """Result, its coordinates and the gradients that the golden's cotangent gives; `rows`: our row of each input."""
    layer.load_state_dict({layer.parameter_name: golden[f"{tag}_weight"]})
    x = x.replace(x.features.clone().requires_grad_())
    y = layer(x, *like)
    where = y.coordinates.coordinates if coordinates == "coords" else y.coordinates.indices
    order = sorted_rows(where)
    assert torch.equal(where[order].int(), golden[f"{tag}_out_{coordinates}"])
    assert close(y.features.detach()[order], golden[f"{tag}_out"])
    (y.features[order] * golden[f"{tag}_cotangent"]).sum().backward()
    assert close(x.features.grad[rows], golden[f"{tag}_grad_in"])
    gradient = layer.to_layout(getattr(layer, layer.parameter_name).grad)
    assert close(gradient, golden[f"{tag}_grad_weight"])


@pytest.mark.parametrize(("tag", "size"), [("me_k1s1", 1), ("me_k3s1", 3), ("me_k5s1", 5)])
def test_minkowski_submanifold(golden: dict, tag: str, size: int) -> None:
    x = SparseTensor(golden["me_feats"], CoordinateSet(golden["me_coords"]))
    check(golden, tag, SubmanifoldConvolution(6, 8, size), x, "coords")


def test_minkowski_down_and_up(golden: dict) -> None:
    fine = SparseTensor(golden["me_feats"], CoordinateSet(golden["me_coords"]))
    check(golden, "me_k2s2", StridedConvolution(6, 8, 2), fine, "coords")

    parents = fine.coordinates.strides(2).parents
    assert parents.stride == 2
    rows = rows_of(golden["me_k3_at_stride2_in_coords"], parents.coordinates)
    coarse = SparseTensor(golden["me_k3_at_stride2_in"][torch.argsort(rows)], parents)
    check(golden, "me_k3_at_stride2", SubmanifoldConvolution(8, 8, 3), coarse, "coords", rows=rows)
    check(golden, "me_tr_k2s2", TransposedConvolution(8, 6, 2), coarse, "coords", (fine,), rows)


@pytest.mark.parametrize(("tag", "size"), [("sp_subm_k1", 1), ("sp_subm_k3", 3)])
def test_spconv_submanifold(golden: dict, tag: str, size: int) -> None:
    x = SparseTensor(golden["sp_feats"], CoordinateSet(golden["sp_indices"]))
    check(golden, tag, SubmanifoldConvolution(6, 8, size, "spconv"), x, "indices")


def test_spconv_down_and_up_with_odd_extents(golden: dict) -> None:
    extents = tuple(golden["sp_spatial_shape"].tolist())
    fine = SparseTensor(golden["sp_feats"], CoordinateSet(golden["sp_indices"], extents=extents))
    check(golden, "sp_k2s2", StridedConvolution(6, 8, 2, "spconv"), fine, "indices")

    parents = fine.coordinates.strides(2).parents
    assert parents.extents == tuple(golden["sp_k2s2_out_shape"].tolist())
    rows = rows_of(golden["sp_inverse_in_indices"], parents.indices)
    coarse = SparseTensor(golden["sp_inverse_in"][torch.argsort(rows)], parents)
    check(golden, "sp_inverse_k2", TransposedConvolution(8, 6, 2, "spconv"), coarse, "indices", (fine,), rows)


def test_a_voxel_without_a_parent_gets_zero() -> None:
    fine = SparseTensor(torch.ones(2, 3), CoordinateSet(torch.tensor([[0, 0, 0, 0], [0, 4, 0, 0]]), extents=(5, 2, 2)))
    coarse = StridedConvolution(3, 4, 2, "spconv")(fine)
    assert len(coarse.coordinates) == 1
    up = TransposedConvolution(4, 5, 2, "spconv")(coarse, fine)
    assert up.features[0].abs().min() > 0
    assert torch.equal(up.features[1], torch.zeros(5))


@pytest.mark.parametrize("size", [1, 2, 3])
def test_state_dicts_keep_the_layout_of_spconv(size: int) -> None:
    kind = StridedConvolution if size == 2 else SubmanifoldConvolution
    layer, stored = kind(4, 6, size, "spconv"), torch.randn(6, size, size, size, 4)
    layer.load_state_dict({"weight": stored})
    assert torch.equal(layer.state_dict()["weight"], stored)
    assert layer.weight.shape == (size**3, 4, 6)


def test_weights_of_spconv_1_load_too() -> None:
    older, layer = torch.randn(3, 3, 3, 4, 6), SubmanifoldConvolution(4, 6, 3, "spconv")
    layer.load_state_dict({"weight": older})
    assert torch.equal(layer.state_dict()["weight"], older.permute(4, 0, 1, 2, 3))


def test_weights_of_another_shape_are_refused() -> None:
    layer = SubmanifoldConvolution(4, 6, 3, "spconv")
    with pytest.raises(WeightsError, match=r"weight has shape \(6, 3, 3, 3, 5\)"):
        layer.load_state_dict({"weight": torch.randn(6, 3, 3, 3, 5)})


def test_the_fused_norm_is_the_norm() -> None:
    generator = torch.Generator().manual_seed(0)
    indices = torch.unique(torch.randint(-5, 5, (200, 4), generator=generator).clamp(min=-4), dim=0)
    x = SparseTensor(torch.randn(len(indices), 5, generator=generator), CoordinateSet(indices))
    norm = BatchNorm(7)
    with torch.no_grad():
        for values in (norm.weight, norm.bias, norm.running_mean):
            values.normal_(generator=generator)
        norm.running_var.uniform_(0.5, 2, generator=generator)
    norm.eval()
    for layer in (SubmanifoldConvolution(5, 7, 3), SubmanifoldConvolution(5, 7, 1), StridedConvolution(5, 7, 2)):
        separate = norm(layer(x).features).detach()
        with torch.no_grad():
            assert close(layer(x, norm).features, separate)
        assert torch.equal(layer(x, norm).features.detach(), separate), "with a gradient nothing is fused"
