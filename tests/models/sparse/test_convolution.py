# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Sparse convolution against dense convolution and literal loops, on any coordinates."""

from __future__ import annotations

import itertools
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seg3d_core.errors import ConfigError, Seg3DError

torch = pytest.importorskip("torch")

from seg3d_core.models.sparse import (  # noqa: E402
    BatchNorm,
    CoordinateSet,
    SparseTensor,
    StridedConvolution,
    SubmanifoldConvolution,
    TransposedConvolution,
    concatenate,
    convolution,
    coordinates,
    distinct_voxels,
    find_backend,
    kernel_map,
)


def scattered(seed: int, n: int = 120, low: int = -7, high: int = 8) -> torch.Tensor:
    """Voxels of two scenes in no order, (V, 4)."""
    generator = torch.Generator().manual_seed(seed)
    xyz = torch.randint(low, high, (n, 3), generator=generator)
    batch = torch.randint(0, 2, (n, 1), generator=generator)
    unique = torch.unique(torch.cat([batch, xyz], dim=1), dim=0)
    return unique[torch.randperm(len(unique), generator=generator)]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), *[st.integers(-9, 9)] * 3), max_size=60))
def test_distinct_voxels_are_those_of_a_search_by_rows(rows) -> None:
    indices = torch.tensor(rows, dtype=torch.int64).reshape(-1, 4)
    unique, inverse = distinct_voxels(indices)
    expected, places = torch.unique(indices, dim=0, return_inverse=True) if rows else (indices, inverse)
    assert torch.equal(unique, expected) and torch.equal(inverse, places)


def literal_submanifold(indices: torch.Tensor, features: torch.Tensor, kernel: torch.Tensor, size: int):
    rows = {tuple(voxel): i for i, voxel in enumerate(indices.tolist())}
    result = features.new_zeros(len(indices), kernel.shape[2])
    offsets = range(-(size // 2), size // 2 + 1)
    for (b, x, y, z), target in rows.items():
        for weight, (dz, dy, dx) in enumerate(itertools.product(offsets, offsets, offsets)):
            source = rows.get((b, x + dx, y + dy, z + dz))
            if source is not None:
                result[target] += features[source] @ kernel[weight]
    return result


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), size=st.sampled_from([3, 5]), n=st.integers(1, 60))
def test_submanifold_equals_literal_loops_in_any_row_order(seed: int, size: int, n: int) -> None:
    indices = scattered(seed, n)
    features = torch.randn(len(indices), 3, dtype=torch.float64)
    layer = SubmanifoldConvolution(3, 2, size).double()
    ours = layer(SparseTensor(features, CoordinateSet(indices))).features
    torch.testing.assert_close(ours, literal_submanifold(indices, features, layer.weights, size))


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), extent=st.sampled_from([6, 7, 9]))
def test_spconv_equals_dense_convolution(seed: int, extent: int) -> None:
    indices = scattered(seed, 80, 0, extent)
    features = torch.randn(len(indices), 3, dtype=torch.float64)
    x = SparseTensor(features, CoordinateSet(indices, extents=(extent,) * 3))
    dense = torch.zeros(2, 3, extent, extent, extent, dtype=torch.float64)
    b, i, j, k = indices.T
    dense[b, :, i, j, k] = features
    for layer, options in (
        (SubmanifoldConvolution(3, 2, 3, "spconv").double(), {"padding": 1}),
        (StridedConvolution(3, 2, 2, "spconv").double(), {"stride": 2}),
    ):
        weight = layer.state_dict()["weight"].permute(0, 4, 1, 2, 3)
        expected = torch.nn.functional.conv3d(dense, weight, **options)
        y = layer(x)
        b, i, j, k = y.coordinates.indices.T
        torch.testing.assert_close(y.features.detach(), expected[b, :, i, j, k])
        n_active = int((expected.abs().sum(dim=1) > 0).sum())
        assert options != {"stride": 2} or len(y.coordinates) == n_active


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_every_voxel_has_a_parent_below_zero_too(seed: int) -> None:
    indices = scattered(seed)
    fine = CoordinateSet(indices)
    strides = fine.strides(2)
    up = strides.up
    assert sorted(up.target.tolist()) == list(range(len(indices)))
    children, parents = indices[up.target.long()], strides.parents.indices[up.source.long()]
    assert torch.equal(torch.div(children[:, 1:], 2, rounding_mode="floor"), parents[:, 1:])
    assert torch.equal(children[:, 0], parents[:, 0])
    within = children[:, 1:] - 2 * parents[:, 1:]
    assert torch.equal(within @ torch.tensor([1, 2, 4]), up.weight)


@pytest.mark.parametrize("budget", [1, 7, 1 << 16])
def test_gradients_whatever_the_size_of_a_block(budget: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(kernel_map._PAIRS_PER_BLOCK, "cpu", budget)
    fine = CoordinateSet(scattered(3, 14, -2, 2))
    strides, around = fine.strides(2), fine.neighbourhood(3)
    torch.manual_seed(0)

    def leaf(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, dtype=torch.float64, requires_grad=True)

    for pairs, adjoint in ((around, around), (strides.down, strides.up), (strides.up, strides.down)):
        arguments = leaf(pairs.n_source, 2), leaf(pairs.n_weights, 2, 3)
        assert torch.autograd.gradcheck(lambda f, k, p=pairs, a=adjoint: convolution.convolve(f, k, p, a), arguments)


def test_equal_input_gives_equal_bytes() -> None:
    x = SparseTensor(torch.randn(2000, 8), CoordinateSet(torch.unique(torch.randint(0, 20, (2600, 4)), dim=0)[:2000]))
    layer = SubmanifoldConvolution(8, 8, 3)
    again = SparseTensor(x.features, CoordinateSet(x.coordinates.indices))
    assert torch.equal(layer(x).features, layer(again).features)


def test_a_map_is_made_once() -> None:
    voxels = CoordinateSet(scattered(0))
    assert voxels.neighbourhood(3) is voxels.neighbourhood(3)
    assert voxels.strides(2).parents is voxels.strides(2).parents


def test_one_voxel_and_none() -> None:
    for n in (0, 1):
        voxels = CoordinateSet(torch.zeros((n, 4), dtype=torch.int64))
        x = SparseTensor(torch.ones(n, 3), voxels)
        y = SubmanifoldConvolution(3, 2, 3)(x)
        down = StridedConvolution(2, 4, 2)(y)
        up = TransposedConvolution(4, 5, 2)(down, y)
        assert (y.features.shape, down.features.shape, up.features.shape) == ((n, 2), (n, 4), (n, 5))


def test_bad_input_is_named() -> None:
    voxels = CoordinateSet(scattered(0))
    x = SparseTensor(torch.ones(len(voxels), 3), voxels)
    with pytest.raises(Seg3DError, match=r"\(V, 4\)"):
        CoordinateSet(torch.zeros(3, 3, dtype=torch.int64))
    with pytest.raises(Seg3DError, match="integers"):
        CoordinateSet(torch.zeros(3, 4))
    with pytest.raises(Seg3DError, match="twice"):
        CoordinateSet(torch.zeros(2, 4, dtype=torch.int64)).neighbourhood(3)
    with pytest.raises(Seg3DError, match="twice"):
        CoordinateSet(torch.zeros(2, 4, dtype=torch.int64)).strides(2)
    with pytest.raises(Seg3DError, match="minimum"):
        CoordinateSet(torch.tensor([[0, -1, 0, 0]]), extents=(4, 4, 4))
    with pytest.raises(Seg3DError, match="64 bits"):
        CoordinateSet(torch.tensor([[0, 0, 0, 0], [0] + [1 << 30] * 3])).neighbourhood(3)
    with pytest.raises(Seg3DError, match="odd"):
        voxels.neighbourhood(2)
    with pytest.raises(Seg3DError, match="do not fit"):
        SparseTensor(torch.ones(1, 3), voxels)
    with pytest.raises(Seg3DError, match="concatenated"):
        concatenate(x, SparseTensor(x.features, CoordinateSet(voxels.indices)))
    with pytest.raises(Seg3DError, match="goes back"):
        TransposedConvolution(3, 3, 2)(x, x)
    with pytest.raises(Seg3DError, match="two voxels"):
        BatchNorm(3)(torch.ones(1, 3))


def test_backends_by_name(monkeypatch) -> None:
    assert find_backend("torch", "spconv").name == "torch"
    with pytest.raises(ConfigError, match="auto, torch, triton, minkowski, spconv"):
        find_backend("cudnn", "spconv")
    with pytest.raises(ConfigError, match="use torch"):
        find_backend("minkowski", "spconv")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert find_backend("auto", "spconv").name == "torch", "Triton is for GPUs"
    # Another test of this process may have loaded them.
    monkeypatch.delattr("seg3d_core.models.sparse.triton_kernels", raising=False)
    for module in ("triton", "seg3d_core.models.sparse.triton_kernels"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigError, match="comes with PyTorch's CUDA builds for Linux; use the backend torch"):
        find_backend("triton", "spconv")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert find_backend("auto", "spconv").name == "torch", "a GPU without Triton, as on Windows"


@pytest.mark.parametrize("works", [True, False])
def test_triton_is_tried_out_before_it_is_taken(monkeypatch, caplog, works) -> None:
    pytest.importorskip("triton", reason="needs Triton: make triton")
    from seg3d_core.models.sparse.triton_backend import TritonBackend

    def try_out(self) -> None:
        if not works:
            raise RuntimeError("some lines\nFailed to find C compiler. Please specify via CC environment variable.")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(TritonBackend, "try_out", try_out)
    assert find_backend("auto", "spconv").name == ("triton" if works else "torch")
    assert ("Failed to find C compiler" in caplog.text) is not works


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), size=st.sampled_from([1, 3, 5]), n=st.integers(1, 60), is_sorted=st.booleans())
def test_the_table_of_neighbours_holds_the_pairs_of_the_kernel_map(seed, size, n, is_sorted) -> None:
    indices = scattered(seed, n)
    voxels = CoordinateSet(distinct_voxels(indices)[0] if is_sorted else indices)
    pairs, rows = voxels.neighbourhood(size), voxels.neighbour_rows(size)
    expected = torch.full((size**3, len(voxels)), -1, dtype=torch.int32)
    expected[pairs.weight, pairs.target.long()] = pairs.source
    assert torch.equal(rows, expected)


def test_a_table_of_neighbours_is_made_in_parts_and_of_nothing(monkeypatch) -> None:
    voxels = CoordinateSet(scattered(1))
    whole = voxels.neighbour_rows(3)
    monkeypatch.setattr(coordinates, "_SEARCHES_AT_ONCE", 2 * len(voxels))
    assert torch.equal(voxels.neighbour_rows(3), whole)
    assert CoordinateSet(voxels.indices[:0]).neighbour_rows(3).shape == (27, 0)
    with pytest.raises(Seg3DError, match="odd"):
        voxels.neighbour_rows(2)
