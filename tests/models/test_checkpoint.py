# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Weights: the published container is read safely and strictly, ours says more, and what does not fit is named."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
safetensors = pytest.importorskip("safetensors.torch")

from seg3d_core.config import SegDino3DConfig  # noqa: E402
from seg3d_core.errors import WeightsError  # noqa: E402
from seg3d_core.models import checkpoint  # noqa: E402
from seg3d_core.models.architecture import PUBLISHED, Architecture  # noqa: E402
from seg3d_core.models.published_names import published_name, to_published  # noqa: E402
from seg3d_core.models.recover import recover_architecture  # noqa: E402
from seg3d_core.models.segdino3d import SegDino3D  # noqa: E402

SMALL = {"layers": 1, "feed_forward_width": 16, "thing_classes": 4, "semantic_classes": 6}
# No 3D network: small files. The two with one are full-sized there.
MLP = dataclasses.replace(PUBLISHED["scannet200"], backbone="mlp", feature_channels=12, **SMALL)
SPCONV = dataclasses.replace(PUBLISHED["scannetv2"], **SMALL)
BASELINE = dataclasses.replace(PUBLISHED["baseline200"], **SMALL)
SETTINGS = SegDino3DConfig()


class Config:
    """Stands for the settings object that training code pickles beside its weights."""

    def __init__(self, folder: Path):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def model_of(architecture: Architecture) -> SegDino3D:
    torch.manual_seed(0)
    return SegDino3D(architecture)


def write_published(path: Path, model: SegDino3D, prefix: str = "module.") -> Path:
    """As the release saves: state under `model`, an object of its own under `args`, an optimizer."""
    state = {prefix + name: value for name, value in to_published(model.state_dict()).items()}
    content = {
        "model": state,
        "args": Config(path.with_suffix(".executed")),
        "optimizer": {"state": {0: {"exp_avg": torch.zeros(2)}}, "param_groups": [{"lr": 1e-4}]},
        "step": 38699,
    }
    torch.save(content, path)
    return path


def write_ours(path: Path, model: SegDino3D, features: str | None = "dino-x") -> Path:
    weights = checkpoint.Weights(model.state_dict(), model.settings, features)
    path.write_bytes(checkpoint.to_bytes(weights))
    return path


def equal(one: SegDino3D, two: SegDino3D) -> bool:
    state = two.state_dict()
    return all(torch.equal(value, state[name]) for name, value in one.state_dict().items())


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("architecture", [MLP, SPCONV, BASELINE], ids=["mlp", "spconv", "minkowski"])
def test_the_published_container_loads_and_nothing_in_it_runs(tmp_path, architecture, prefix) -> None:
    model = model_of(architecture)
    path = write_published(tmp_path / "checkpoint_s0000038699.pth", model, prefix)
    loaded = checkpoint.load_model(path, SETTINGS, expected=architecture)
    assert loaded.model.settings == architecture
    assert equal(loaded.model, model)
    assert not loaded.model.training
    assert loaded.features_2d == ("dino-x" if architecture.needs_2d else None)
    assert list(tmp_path.iterdir()) == [path]


def test_what_shapes_cannot_tell_is_said(tmp_path) -> None:
    path = write_published(tmp_path / "w.pth", model_of(SPCONV))
    notes = checkpoint.load_model(path, SETTINGS).notes
    assert any("metric, as published with the spconv backbone" in note for note in notes)
    assert any("2D features: taken as dino-x" in note for note in notes)
    asked = checkpoint.load_model(path, SegDino3DConfig(sizes="normalised"))
    assert asked.model.settings.sizes == "normalised"
    assert any("as asked" in note for note in asked.notes)


def test_our_file_goes_round_and_needs_no_assumption(tmp_path) -> None:
    architecture = dataclasses.replace(MLP, heads=4, distance_mask=False, sizes="metric")
    model = model_of(architecture)
    loaded = checkpoint.load_model(write_ours(tmp_path / "w.safetensors", model), SETTINGS)
    assert loaded.model.settings == architecture
    assert equal(loaded.model, model)
    assert loaded.notes == ()


def test_converting_gives_our_file_of_the_same_network(tmp_path) -> None:
    model = model_of(SPCONV)
    data, notes = checkpoint.convert(write_published(tmp_path / "w.pth", model), features_2d="grounding-dino")
    (tmp_path / "w.safetensors").write_bytes(data)
    loaded = checkpoint.load_model(tmp_path / "w.safetensors", SegDino3DConfig(features_2d="grounding-dino"))
    assert equal(loaded.model, model)
    assert loaded.features_2d == "grounding-dino"
    assert not any("2D features" in note for note in notes)
    with pytest.raises(WeightsError, match="are those of grounding-dino, not dino-x"):
        checkpoint.convert(tmp_path / "w.safetensors", features_2d="dino-x")


def test_weights_of_another_2d_feature_source_are_refused(tmp_path) -> None:
    path = write_ours(tmp_path / "w.safetensors", model_of(MLP), "grounding-dino")
    with pytest.raises(WeightsError, match=r"w\.safetensors.*features of grounding-dino, but those of dino-x run"):
        checkpoint.load_model(path, SegDino3DConfig(features_2d="dino-x"))
    assert checkpoint.load_model(path, SETTINGS).features_2d == "grounding-dino"
    closer = SegDino3DConfig(features_2d="grounding-dino-1f3a")
    assert checkpoint.load_model(path, closer).features_2d == "grounding-dino"
    with pytest.raises(WeightsError, match="no model runs that gives any: set"):
        checkpoint.load_model(path, SegDino3DConfig(features_2d=""))
    colours = write_ours(tmp_path / "b.safetensors", model_of(BASELINE), None)
    assert checkpoint.load_model(colours, SegDino3DConfig(features_2d="anything")).features_2d is None


def test_every_mismatch_is_listed(tmp_path) -> None:
    state = model_of(MLP).state_dict()
    del state["decoder.heads.mask_features.0.bias"]
    del state["decoder.layers.0.self_attention.value.bias"]
    state["decoder.layers.0.extra"] = torch.zeros(1)
    state["decoder.heads.classes.0.weight"] = torch.zeros(3, 3)
    torch.save({"model": state}, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match="do not fit in 4 keys") as caught:
        checkpoint.load_model(tmp_path / "w.pth", SETTINGS)
    for phrase in (
        "mask_features.0.bias is missing",
        "self_attention.value.bias is missing",
        "layers.0.extra is not known",
        "heads.classes.0.weight is (3, 3), not (256, 256)",
    ):
        assert phrase in str(caught.value)


def test_other_weights_than_asked_for_are_refused_field_by_field(tmp_path) -> None:
    path = write_published(tmp_path / "w.pth", model_of(SPCONV))
    with pytest.raises(WeightsError, match="backbone is spconv in the weights, minkowski was asked for") as caught:
        checkpoint.load_model(path, SETTINGS, expected="scannet200")
    assert "thing_classes is 4 in the weights, 198 was asked for" in str(caught.value)
    with pytest.raises(WeightsError, match="no published architecture 'kitti'"):
        checkpoint.load_model(path, SETTINGS, expected="kitti")
    ours = write_ours(tmp_path / "w.safetensors", model_of(MLP))
    with pytest.raises(WeightsError, match="have normalised box sizes, not metric"):
        checkpoint.load_model(ours, SegDino3DConfig(sizes="metric"))


def test_spconv_weights_of_older_files_load(tmp_path) -> None:
    model = model_of(SPCONV)
    state = to_published(model.state_dict())
    for name, value in state.items():
        if value.ndim == 5 and value.shape[1] > 1:
            state[name] = value.permute(1, 2, 3, 4, 0).contiguous()
    torch.save({"model": state}, tmp_path / "w.pth")
    assert equal(checkpoint.load_model(tmp_path / "w.pth", SETTINGS).model, model)


@pytest.mark.parametrize("prefix", ["backbone.", "module.backbone.", ""])
def test_a_backbone_alone_starts_a_model(tmp_path, prefix) -> None:
    source, target = model_of(BASELINE), model_of(dataclasses.replace(BASELINE))
    torch.save({"model": {prefix + n: v for n, v in source.backbone.state_dict().items()}}, tmp_path / "b.pth")
    for parameter in target.parameters():
        torch.nn.init.zeros_(parameter)
    assert checkpoint.load_backbone(target, tmp_path / "b.pth") == []
    state = source.backbone.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in target.backbone.state_dict().items())
    with pytest.raises(WeightsError, match="a backbone alone"):
        checkpoint.load_model(tmp_path / "b.pth", SETTINGS)


def test_a_backbone_of_another_first_layer_leaves_it_alone_and_says_so(tmp_path) -> None:
    source = model_of(BASELINE)
    target = model_of(dataclasses.replace(BASELINE, image_features=True))
    stem = target.backbone.conv0p1s1.kernel.clone()
    state = source.backbone.state_dict()
    torch.save({"model": {f"backbone.{n}": v for n, v in state.items()}}, tmp_path / "b.pth")
    (note,) = checkpoint.load_backbone(target, tmp_path / "b.pth")
    assert "takes 3 channels, not 259" in note
    assert torch.equal(target.backbone.conv0p1s1.kernel, stem)
    del state["conv0p1s1.kernel"]
    torch.save({"model": {f"backbone.{n}": v for n, v in state.items()}}, tmp_path / "c.pth")
    (note,) = checkpoint.load_backbone(target, tmp_path / "c.pth")
    assert "is not there" in note
    with pytest.raises(WeightsError, match="holds a spconv backbone, the network has a minkowski one"):
        checkpoint.load_backbone(target, write_published(tmp_path / "s.pth", model_of(SPCONV)))


def header_of(path: Path, **changes: str) -> Path:
    """The file with another header."""
    with safetensors.safe_open(path, framework="pt") as file:
        header = {**file.metadata(), **changes}
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    path.write_bytes(safetensors.save(state, metadata=header))
    return path


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": "2"}, "format version 2"),
        ({"architecture": "{"}, "describes no architecture"),
        ({"architecture": json.dumps({**dataclasses.asdict(MLP), "heads": 0})}, "describes no architecture"),
        ({"architecture": json.dumps({**dataclasses.asdict(MLP), "layers": "many"})}, "describes no architecture"),
        ({"architecture": json.dumps({**dataclasses.asdict(MLP), "depth": 3})}, "describes no architecture"),
        ({"architecture": json.dumps({**dataclasses.asdict(MLP), "layers": 10**9})}, "does not agree with its tensors"),
    ],
)
def test_headers_that_lie_are_refused(tmp_path, changes, message) -> None:
    path = header_of(write_ours(tmp_path / "w.safetensors", model_of(MLP)), **changes)
    with pytest.raises(WeightsError, match=message):
        checkpoint.load_model(path, SETTINGS)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no zip", b"\x08" + bytes(7) + b"{broken}", b"text, no weights"])
def test_files_that_are_no_weights_are_named(tmp_path, content) -> None:
    (tmp_path / "w.bin").write_bytes(content)
    with pytest.raises(WeightsError, match=r"w\.bin"):
        checkpoint.load_model(tmp_path / "w.bin", SETTINGS)
    with pytest.raises(WeightsError, match="cannot read weights"):
        checkpoint.load_model(tmp_path / "none.pth", SETTINGS)


def test_other_networks_are_named_as_such(tmp_path) -> None:
    for name in ("backbone.conv1.weight", "decoder.out_norm.weight", "image_encoder.norm.weight"):
        torch.save({"model": {name: torch.zeros(2)}}, tmp_path / "w.pth")
        for read in (lambda path: checkpoint.load_model(path, SETTINGS), checkpoint.convert):
            with pytest.raises(WeightsError, match=r"w\.pth: these are no weights of SegDINO3D"):
                read(tmp_path / "w.pth")


@pytest.mark.parametrize("architecture", [MLP, BASELINE], ids=["boxes", "no positions"])
def test_names_translate_both_ways(architecture) -> None:
    ours = model_of(architecture).state_dict()
    published = to_published(ours)
    assert len(published) == len(ours)
    assert checkpoint.to_ours(published).keys() == ours.keys()
    assert published_name("backbone.conv0p1s1.kernel") == "backbone.conv0p1s1.kernel"
    assert not any(name.startswith("decoder.layers.") for name in published)


def test_the_command_writes_the_file_and_says_what_it_assumed(tmp_path) -> None:
    from typer.testing import CliRunner

    from seg3d_core.cli import app

    source, target = write_published(tmp_path / "w.pth", model_of(SPCONV)), tmp_path / "new" / "w.safetensors"
    done = CliRunner().invoke(app, ["models", "convert", str(source), str(target)])
    assert done.exit_code == 0, done.output
    assert "metric" in done.output
    assert checkpoint.load_model(target, SETTINGS).notes == ()
    again = CliRunner().invoke(app, ["models", "convert", str(source), str(target)])
    assert isinstance(again.exception, WeightsError)
    assert "exists" in str(again.exception)


@pytest.mark.parametrize(("levels", "blocks"), [(1, 1), (3, 1), (2, 3)])
def test_levels_and_blocks_are_told_by_the_tensors(levels, blocks) -> None:
    small = dataclasses.replace(SPCONV, feature_channels=4, width=16, heads=2, levels=levels, blocks=blocks)
    state = model_of(small).state_dict()
    found, _ = recover_architecture({name: tuple(value.shape) for name, value in state.items()})
    assert (found.levels, found.blocks, found.feature_channels) == (levels, blocks, 4)


@pytest.mark.parametrize("wrong", [{"levels": 3}, {"blocks": 0}, {"voxel_size": 0.0}])
def test_architectures_that_cannot_be_are_refused(wrong) -> None:
    base = SPCONV if "blocks" in wrong else MLP
    with pytest.raises(WeightsError):
        dataclasses.replace(base, **wrong)


def test_weights_at_half_precision_are_the_same_network_to_three_digits(tmp_path) -> None:
    model = model_of(dataclasses.replace(SPCONV, feature_channels=4, width=16, heads=2, levels=2, voxel_size=0.05))
    whole = write_ours(tmp_path / "whole.safetensors", model)
    data, _ = checkpoint.convert(whole, half=True)
    (tmp_path / "half.safetensors").write_bytes(data)
    assert len(data) < 0.6 * whole.stat().st_size
    found = checkpoint.load_model(tmp_path / "half.safetensors", SETTINGS).model
    assert found.settings == model.settings
    for name, value in model.state_dict().items():
        assert found.state_dict()[name].dtype == value.dtype
        assert torch.allclose(found.state_dict()[name].float(), value.float(), rtol=1e-3, atol=1e-6), name
