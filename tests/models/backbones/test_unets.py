"""Both U-Nets against the published ones: weights, stages, features, statistics and gradients."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from seg3d_core.models.backbones import MinkUNet, Points, SpConvUNet, encode_scenes, normalise_colours  # noqa: E402
from seg3d_core.models.sparse import SparseConvolution  # noqa: E402

FORWARD, GRADIENT_ROWS = 5e-5, 1e-2
GRADIENT_NORM, GRADIENT_PROJECTION = 1e-2, 5e-2


@dataclass
class Kind:
    network: type
    channels: int
    configuration: str
    letter: str
    stages: dict[str, str] = field(default_factory=dict)
    """Golden stage -> the module whose result it is."""


LEVELS = ["u." * level for level in range(5)]
KINDS = {
    "minkunet": Kind(
        MinkUNet, 259, "scannet200", "m", {"bn0": "conv0p1s1"} | {f"block{i}": f"block{i}" for i in range(1, 9)}
    ),
    "spconvunet": Kind(
        SpConvUNet,
        262,
        "scannetv2",
        "s",
        {"input_conv": "input_conv"}
        | {f"level{i}_blocks": f"{prefix}blocks" for i, prefix in enumerate(LEVELS)}
        | {f"level{i}_tail": f"{prefix}blocks_tail" for i, prefix in enumerate(LEVELS[:4])}
        | {"output_layer": ""},
    ),
}


def relative(ours: Any, reference: np.ndarray) -> float:
    ours = ours.detach().numpy() if isinstance(ours, torch.Tensor) else ours
    assert ours.shape == reference.shape
    return float(np.abs(ours - reference).max() / np.abs(reference).max())


def network(kind: Kind, shapes: dict, weight: Callable) -> torch.nn.Module:
    backbone = kind.network(kind.channels)
    entries = shapes[kind.configuration].items()
    backbone.load_state_dict({key: torch.from_numpy(weight(f"backbone.{key}", shape)) for key, shape in entries})
    return backbone


def scenes(arrays: dict, name: str, count: int, features: Callable, is_training: bool) -> list[Points]:
    result = []
    for b in range(count):
        points = torch.from_numpy(arrays[f"s{b}_points_raw"])
        image = torch.from_numpy(features(f"c:{name}:{b}:points_2dfeats", (len(points), 256), 0.5))
        warped = torch.from_numpy(arrays[f"s{b}_elastic_coords"]) if is_training else None
        superpoints = torch.from_numpy(arrays[f"s{b}_superpoints"]).long()
        colours = normalise_colours(points[:, 3:])
        result.append(Points(points[:, :3], colours, superpoints, image.requires_grad_(is_training), warped))
    return result


def record_stages(backbone: torch.nn.Module, kind: Kind) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Filled while the network runs: coordinates and features of each stage, sorted by coordinates."""
    stages = {}
    modules = dict(backbone.named_modules())

    def hook(stage: str) -> Callable:
        def keep(_module: Any, _arguments: Any, result: Any) -> None:
            voxels = result.coordinates
            where = (voxels.coordinates if kind.letter == "m" else voxels.indices).numpy()
            order = np.lexsort(where.T[::-1])
            stages[stage] = where[order], result.features.detach().numpy()[order].copy()

        return keep

    for stage, module in kind.stages.items():
        modules[module].register_forward_hook(hook(stage))
    return stages


def check_stages(stages: dict, arrays: dict, names: dict[str, str]) -> None:
    for stage in names:
        where, values = stages[stage]
        rows = arrays[f"stage_{stage}_rows"]
        assert len(where) == arrays[f"stage_{stage}_n"], stage
        np.testing.assert_array_equal(where[rows], arrays[f"stage_{stage}_row_coords"])
        assert relative(values[rows], arrays[f"stage_{stage}_row_feats"]) < FORWARD, stage
        assert relative(np.abs(values).sum(axis=0), arrays[f"stage_{stage}_abs_sum"]) < FORWARD, stage
        # Sums cancel: their error is measured against what is summed.
        off = np.abs(values.sum(axis=0) - arrays[f"stage_{stage}_sum"]).max()
        assert off < FORWARD * arrays[f"stage_{stage}_abs_sum"].max(), stage


def check_superpoints(found: list, arrays: dict) -> None:
    for b, superpoints in enumerate(found):
        assert relative(superpoints.features, arrays[f"s{b}_sp_features"]) < FORWARD
        assert relative(superpoints.positions, arrays[f"s{b}_sp_pos"]) < 1e-6
        assert relative(superpoints.positions_unwarped, arrays[f"s{b}_sp_pos_wo_elastic"]) < 1e-6


@pytest.mark.parametrize("name", KINDS)
def test_evaluation(name: str, golden: Callable, shapes: dict, weight: Callable, features: Callable) -> None:
    kind, arrays = KINDS[name], golden(f"c_{name}_eval")
    backbone = network(kind, shapes, weight).eval()
    stages = record_stages(backbone, kind)
    with torch.no_grad():
        found = encode_scenes(backbone, scenes(arrays, f"{kind.letter}_eval", 1, features, is_training=False))
    check_stages(stages, arrays, kind.stages)
    check_superpoints(found, arrays)


@pytest.mark.parametrize("name", KINDS)
def test_training(name: str, golden: Callable, shapes: dict, weight: Callable, features: Callable) -> None:
    kind, arrays = KINDS[name], golden(f"c_{name}_train")
    backbone = network(kind, shapes, weight).train()
    stages = record_stages(backbone, kind)
    batch = scenes(arrays, f"{kind.letter}_train", 2, features, is_training=True)
    found = encode_scenes(backbone, batch)
    check_stages(stages, arrays, kind.stages)
    check_superpoints(found, arrays)

    def cotangent(b: int) -> torch.Tensor:
        shape = tuple(found[b].features.shape)
        return torch.from_numpy(features(f"c:{kind.letter}_train:{b}:cotangent", shape, 1))

    loss = sum((superpoints.features * cotangent(b)).sum() for b, superpoints in enumerate(found))
    assert loss.item() == pytest.approx(float(arrays["loss"]), rel=1e-5)
    loss.backward()
    for b, scene in enumerate(batch):
        assert relative(scene.image_features.grad[::97], arrays[f"s{b}_grad_points_2dfeats_rows"]) < GRADIENT_ROWS
    check_gradients(backbone, arrays, features)
    buffers = dict(backbone.named_buffers())
    names = [key for key in arrays if key.startswith("after_")]
    assert len(names) == len(buffers)
    for key in names:
        assert relative(buffers[key.removeprefix("after_")], arrays[key]) < FORWARD, key


def check_gradients(backbone: torch.nn.Module, arrays: dict, features: Callable) -> None:
    """In the published layout of each parameter."""
    modules, parameters = dict(backbone.named_modules()), dict(backbone.named_parameters())
    assert set(arrays["grad_names"]) == set(parameters)
    for name, norm, projection in zip(arrays["grad_names"], arrays["grad_norms"], arrays["grad_proj"], strict=True):
        module, gradient = modules[str(name).rpartition(".")[0]], parameters[name].grad
        if isinstance(module, SparseConvolution):
            gradient = module.to_layout(gradient)
        gradient = gradient.double().numpy()
        assert np.linalg.norm(gradient) == pytest.approx(norm, rel=GRADIENT_NORM), name
        direction = features(f"c:gp:{name}", gradient.shape, 1).astype(np.float64)
        assert abs((gradient * direction).sum() - projection) < GRADIENT_PROJECTION * norm, name


@pytest.mark.parametrize(
    ("configuration", "kind", "channels"),
    [("scannet200", MinkUNet, 259), ("baseline200", MinkUNet, 3), ("scannetv2", SpConvUNet, 262)],
)
def test_names_and_shapes_are_the_published_ones(
    configuration: str, kind: type, channels: int, shapes: dict, weight: Callable
) -> None:
    backbone = kind(channels)
    state = backbone.state_dict()
    assert {key: tuple(value.shape) for key, value in state.items()} == shapes[configuration]
    ramp = {
        key: torch.arange(value.numel(), dtype=value.dtype).reshape(value.shape).add_(i)
        for i, (key, value) in enumerate(state.items())
    }
    backbone.load_state_dict(ramp)
    assert all(torch.equal(value, ramp[key]) for key, value in backbone.state_dict().items())
