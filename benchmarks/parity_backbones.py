# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""What of our sparse layers, voxels, U-Nets and superpoints each golden array of SegDINO3D belongs to (c, g, k)."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from golden import Case, Golden, Pairs, features, published_state
from torch import Tensor, nn

from seg3d_core.mapping.superpoints import mesh_superpoints
from seg3d_core.models.backbones import (
    MinkUNet,
    Points,
    SpConvUNet,
    Superpoints,
    encode_scenes,
    normalise_colours,
    point_features,
    pool,
    voxelise,
)
from seg3d_core.models.sparse import (
    CoordinateSet,
    SparseConvolution,
    SparseTensor,
    StridedConvolution,
    SubmanifoldConvolution,
    TransposedConvolution,
)

# Golden stage -> the module whose result it is.
_LEVELS = tuple("u." * level for level in range(5))
_STAGES = {
    "minkunet": {"bn0": "conv0p1s1"} | {f"block{i}": f"block{i}" for i in range(1, 9)},
    "spconvunet": {"input_conv": "input_conv", "output_layer": ""}
    | {f"level{i}_blocks": f"{prefix}blocks" for i, prefix in enumerate(_LEVELS)}
    | {f"level{i}_tail": f"{prefix}blocks_tail" for i, prefix in enumerate(_LEVELS[:4])},
}


def backbone_of(name: str) -> nn.Module:
    network, configuration = (MinkUNet(259), "scannet200") if name == "minkunet" else (SpConvUNet(262), "scannetv2")
    state = published_state(configuration, "backbone.")
    network.load_state_dict({key.removeprefix("backbone."): value for key, value in state.items()}, strict=True)
    return network


def sorted_rows(coordinates: Tensor) -> Tensor:
    return torch.from_numpy(np.lexsort(coordinates.numpy().T[::-1]))


def coordinates_of(x: SparseTensor, is_minkowski: bool) -> Tensor:
    """Minkowski's keep the scale of the finest resolution, spconv's count voxels of their own."""
    return x.coordinates.coordinates if is_minkowski else x.coordinates.indices


def unet_case(golden: Golden, name: str, is_training: bool) -> Pairs:
    network, case_name = backbone_of(name).train(is_training), f"{name[0]}_{'train' if is_training else 'eval'}"
    is_minkowski = name == "minkunet"
    modules, stages = dict(network.named_modules()), {}

    def keep(stage: str, _module: Any, _given: Any, made: SparseTensor) -> None:
        where = coordinates_of(made, is_minkowski)
        order = sorted_rows(where)
        stages[stage] = where[order].numpy(), made.features.detach()[order].numpy().copy()

    for stage, module in _STAGES[name].items():
        modules[module].register_forward_hook(functools.partial(keep, stage))
    scenes = _scenes(golden, case_name, is_training)
    with torch.set_grad_enabled(is_training):
        found = encode_scenes(network, scenes)
    pairs = _superpoint_pairs(golden, found)
    for stage, (where, values) in stages.items():
        pairs |= _stage_pairs(golden, f"stage_{stage}_", where, values)
    return pairs | _training_pairs(golden, network, scenes, found, case_name) if is_training else pairs


def _scenes(golden: Golden, case_name: str, is_training: bool) -> list[Points]:
    scenes = []
    for b in range(sum(key.endswith("_points_raw") for key in golden)):
        raw = torch.from_numpy(golden[f"s{b}_points_raw"])
        image = features(f"c:{case_name}:{b}:points_2dfeats", (len(raw), 256), 0.5).requires_grad_(is_training)
        warped = torch.from_numpy(golden[f"s{b}_elastic_coords"]) if is_training else None
        superpoints = torch.from_numpy(golden[f"s{b}_superpoints"]).long()
        scenes.append(Points(raw[:, :3], normalise_colours(raw[:, 3:]), superpoints, image, warped))
    return scenes


def _superpoint_pairs(golden: Golden, found: Sequence[Superpoints]) -> Pairs:
    named = (("sp_features", "features"), ("sp_pos", "positions"), ("sp_pos_wo_elastic", "positions_unwarped"))
    return {
        f"s{b}_{key}": (getattr(each, field).detach().numpy(), golden[f"s{b}_{key}"])
        for b, each in enumerate(found)
        for key, field in named
    }


def _stage_pairs(golden: Golden, prefix: str, where: np.ndarray, values: np.ndarray) -> Pairs:
    rows, largest = golden[f"{prefix}rows"], golden[f"{prefix}abs_sum"].max()
    return {
        f"{prefix}n": (np.asarray(len(where)), golden[f"{prefix}n"]),
        f"{prefix}row_coords": (where[rows], golden[f"{prefix}row_coords"]),
        f"{prefix}row_feats": (values[rows], golden[f"{prefix}row_feats"]),
        f"{prefix}abs_sum": (np.abs(values).sum(axis=0), golden[f"{prefix}abs_sum"]),
        # Sums cancel: their error is measured against what is summed.
        f"{prefix}sum": (values.sum(axis=0) / largest, golden[f"{prefix}sum"] / largest),
    }


def _training_pairs(
    golden: Golden, network: nn.Module, scenes: Sequence[Points], found: Sequence[Superpoints], case_name: str
) -> Pairs:
    cotangents = [features(f"c:{case_name}:{b}:cotangent", tuple(s.features.shape), 1) for b, s in enumerate(found)]
    loss = sum((s.features * cotangent).sum() for s, cotangent in zip(found, cotangents, strict=True))
    loss.backward()
    pairs = {"loss": (loss.detach().numpy(), golden["loss"])}
    for b, scene in enumerate(scenes):
        key = f"s{b}_grad_points_2dfeats_rows"
        pairs[key] = (scene.image_features.grad[::97].numpy(), golden[key])
    buffers = {f"after_{name}": value.numpy() for name, value in network.named_buffers()}
    pairs |= {key: (buffers[key], golden[key]) for key in golden if key.startswith("after_")}
    modules, parameters = dict(network.named_modules()), dict(network.named_parameters())
    norms, projections = [], []
    for name in map(str, golden["grad_names"]):
        module, gradient = modules[name.rpartition(".")[0]], parameters[name].grad
        if isinstance(module, SparseConvolution):
            gradient = module.to_layout(gradient)
        norms.append(float(gradient.double().norm()))
        projections.append(float((gradient.double() * features(f"c:gp:{name}", tuple(gradient.shape), 1)).sum()))
    theirs = golden["grad_norms"].astype(float)
    names = np.array(sorted(parameters))
    return pairs | {
        "grad_names": (np.searchsorted(names, np.sort(golden["grad_names"])), np.arange(len(names))),
        "grad_norms": (np.array(norms) / theirs, np.ones(len(norms))),
        "grad_proj": (np.array(projections) / theirs, golden["grad_proj"] / theirs),
    }


def voxel_case(golden: Golden) -> Pairs:
    def scenes(ids: str) -> list[Points]:
        points = [torch.from_numpy(golden[f"s{b}_points"]) for b in range(2)]
        superpoints = [torch.from_numpy(golden[f"s{b}_{ids}"]).long() for b in range(2)]
        return [Points(p[:, :3], p[:, 3:] / 255, s) for p, s in zip(points, superpoints, strict=True)]

    pairs: Pairs = {}
    for convention, prefix in (("minkowski", "mink"), ("spconv", "spconv")):
        batch = scenes("superpoints")
        voxels = voxelise(batch, [point_features(scene, convention) for scene in batch], convention)
        ours = {
            "voxel_coords": voxels.coordinates.indices,
            "inverse": voxels.point_rows,
            "voxel_feats": voxels.features,
        }
        pairs |= {f"{prefix}_{key}": (value.numpy(), golden[f"{prefix}_{key}"]) for key, value in ours.items()}
    pairs["spconv_spatial_shape"] = (np.array(voxels.coordinates.extents), golden["spconv_spatial_shape"])
    values = torch.from_numpy(golden["pool_point_feats"])
    pooled = pool(scenes("superpoints_used"), values, torch.arange(len(values)), "minkowski")
    for key, field in (("pool_out", "features"), ("pool_pos", "positions")):
        pairs[key] = (torch.cat([getattr(each, field) for each in pooled]).numpy(), golden[key])
    return pairs


def superpoint_case(golden: Golden) -> Pairs:
    """Segments of a mesh, whose settings stand in the arrays' names."""
    pairs: Pairs = {}
    for key, theirs in golden.items():
        if named := re.fullmatch(r"segments_k([\d.]+)_min(\d+)", key):
            ours = mesh_superpoints(golden["vertices"], golden["faces"], float(named[1]), int(named[2]))
            pairs[key] = (ours, theirs)
    return pairs


class _Layers:
    """Runs single layers; collects results, coordinates and both gradients."""

    def __init__(self, golden: Golden):
        self.golden = {key: torch.from_numpy(np.asarray(value)) for key, value in golden.items()}
        self.pairs: Pairs = {}

    def run(
        self, tag: str, layer: SparseConvolution, x: SparseTensor, *like: SparseTensor, rows: Any = slice(None)
    ) -> None:
        """`rows`: our row of each input of theirs."""
        g, is_minkowski = self.golden, tag.startswith("me_")
        layer.load_state_dict({layer.parameter_name: g[f"{tag}_weight"]})
        x = x.replace(x.features.clone().requires_grad_())
        y = layer(x, *like)
        where = coordinates_of(y, is_minkowski)
        order = sorted_rows(where)
        (y.features[order] * g[f"{tag}_cotangent"]).sum().backward()
        ours = {
            f"out_{'coords' if is_minkowski else 'indices'}": where[order],
            "out": y.features.detach()[order],
            "grad_in": x.features.grad[rows],
            "grad_weight": layer.to_layout(getattr(layer, layer.parameter_name).grad),
        }
        if not is_minkowski:
            ours["out_shape"] = torch.tensor(y.coordinates.extents)
        self.pairs |= {f"{tag}_{key}": (value.numpy(), g[f"{tag}_{key}"].numpy()) for key, value in ours.items()}

    def up(self, kind: str, down: str, coarse_in: str, coarse_at: str, fine: SparseTensor, *others: Any) -> None:
        """The layers on the parents of `fine`, whose inputs the goldens give in an order of their own."""
        g, layout = self.golden, "minkowski" if kind == "me" else "spconv"
        self.run(down, StridedConvolution(6, 8, 2, layout), fine)
        parents = fine.coordinates.strides(2).parents
        mine = parents.coordinates if kind == "me" else parents.indices
        rows = sorted_rows(mine)[sorted_rows(g[coarse_at]).argsort()]
        coarse = SparseTensor(g[coarse_in][rows.argsort()], parents)
        for tag, layer, like in others:
            self.run(tag, layer, coarse, *like, rows=rows)


def layer_case(golden: Golden) -> Pairs:
    layers = _Layers(golden)
    g = layers.golden
    fine = SparseTensor(g["me_feats"], CoordinateSet(g["me_coords"]))
    for size in (1, 3, 5):
        layers.run(f"me_k{size}s1", SubmanifoldConvolution(6, 8, size), fine)
    others = (
        ("me_k3_at_stride2", SubmanifoldConvolution(8, 8, 3), ()),
        ("me_tr_k2s2", TransposedConvolution(8, 6, 2), (fine,)),
    )
    layers.up("me", "me_k2s2", "me_k3_at_stride2_in", "me_k3_at_stride2_in_coords", fine, *others)
    extents = tuple(g["sp_spatial_shape"].tolist())
    fine = SparseTensor(g["sp_feats"], CoordinateSet(g["sp_indices"], extents=extents))
    for size in (1, 3):
        layers.run(f"sp_subm_k{size}", SubmanifoldConvolution(6, 8, size, "spconv"), fine)
    up = ("sp_inverse_k2", TransposedConvolution(8, 6, 2, "spconv"), (fine,))
    layers.up("sp", "sp_k2s2", "sp_inverse_in", "sp_inverse_in_indices", fine, up)
    return layers.pairs


_LOOSER = (
    ("loss", "relative", 1e-5),
    ("grad_norms", "absolute", 1e-2),
    ("grad_proj", "absolute", 5e-2),
    ("s._grad_points_2dfeats_rows", "relative", 1e-2),
    ("s._sp_pos.*", "relative", 1e-6),
    ("stage_.*_sum", "absolute", 5e-5),
)
BACKBONE_CASES: dict[str, Case] = {
    "c_sparse_layers.npz": Case(
        layer_case,
        1e-5,
        r"(me|sp)_(feats|coords|indices|spatial_shape)|.*_(weight|cotangent)|.*(stride2|inverse)_in(_coords|_indices)?",
    ),
    **{
        f"c_{name}_{mode}.npz": Case(
            functools.partial(unet_case, name=name, is_training=mode == "train"),
            5e-5,
            r"s\d_(points_raw|superpoints|elastic_coords)|stage_.*_rows",
            (("stage_.*_abs_sum", "relative", 5e-5), *_LOOSER),
        )
        for name in _STAGES
        for mode in ("eval", "train")
    },
    "g_voxels.npz": Case(voxel_case, 1e-6, r"s\d_(points|superpoints|superpoints_used)|pool_point_feats|voxel_size"),
    "k_superpoints.npz": Case(superpoint_case, 0, "vertices|faces"),
}
