# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Published files load strictly, and what is wrong with another one is listed."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from seg3d_core.cli import models as commands  # noqa: E402
from seg3d_core.errors import WeightsError  # noqa: E402
from seg3d_core.perception.cropformer import checkpoint  # noqa: E402
from seg3d_core.perception.cropformer import weights as entity_weights  # noqa: E402

KINDS = ("mask2former", "cropformer")


@pytest.fixture(scope="module")
def states(recipe, models) -> dict[str, dict[str, np.ndarray]]:
    return {kind: recipe.state(models[f"reduced_{kind}_hornet"]) for kind in KINDS}


def save(path: Path, state: dict[str, np.ndarray], wrapped: bool = False, legacy: bool = False) -> Path:
    tensors = {name: torch.from_numpy(np.array(a)) for name, a in state.items()}
    torch.save(
        {"model": tensors, "iteration": 7} if wrapped else tensors, path, _use_new_zipfile_serialization=not legacy
    )
    return path


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("wrapped", "legacy"), [(False, False), (True, False), (True, True)])
def test_a_file_loads_with_all_its_tensors(states, tmp_path, kind, wrapped, legacy) -> None:
    losses = ("criterion.empty_weight",) if kind == "mask2former" else ("criterion_2d.empty_weight",)
    state = {**states[kind], **{n: np.float32([1, 0.1]) for n in losses}}
    network = checkpoint.load_network(save(tmp_path / "w.pth", state, wrapped, legacy))
    assert network.shape.associates == (kind == "cropformer")
    assert not network.training
    loaded = network.state_dict()
    assert loaded.keys() == states[kind].keys()
    for name, value in states[kind].items():
        np.testing.assert_array_equal(loaded[name].numpy(), value)


def test_old_names_constants_and_half_precision_are_understood(states, tmp_path) -> None:
    state = {n.replace("query_feat", "static_query"): a.astype(np.float16) for n, a in states["mask2former"].items()}
    state["pixel_mean"] = np.float32([123.675, 116.28, 103.53]).reshape(3, 1, 1)
    state["pixel_std"] = np.float32([58.395, 57.12, 57.375]).reshape(3, 1, 1)
    network = checkpoint.load_network(save(tmp_path / "w.pth", state))
    query = network.sem_seg_head.predictor.query_feat.weight
    assert query.dtype == torch.float32
    np.testing.assert_allclose(query, states["mask2former"]["sem_seg_head.predictor.query_feat.weight"], atol=1e-2)


def test_other_colours_are_another_model(states, tmp_path) -> None:
    state = {**states["mask2former"], "pixel_mean": np.float32([103.53, 116.28, 123.675])}
    with pytest.raises(WeightsError, match="pixel_mean"):
        checkpoint.load_network(save(tmp_path / "w.pth", state))


def test_missing_and_extra_tensors_are_listed(states, tmp_path) -> None:
    state = dict(states["cropformer"])
    for name in ("backbone.norm2.bias", "sem_seg_head.predictor.make_3d.enc_ffn_3d.0.norm.weight"):
        state.pop(name)
    state["backbone.head.weight"] = np.zeros(3, np.float32)
    with pytest.raises(WeightsError) as caught:
        checkpoint.load_network(save(tmp_path / "w.pth", state))
    for part in ("2 tensors missing", "backbone.norm2.bias", "enc_ffn_3d.0.norm.weight", "1 too many", "backbone.head"):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    "gone",
    [
        "backbone.stages.2.17.",
        "backbone.stages.3.",
        "sem_seg_head.predictor.transformer_ffn_layers.8.",
        "sem_seg_head.pixel_decoder.transformer.encoder.layers.5.",
    ],
)
def test_a_missing_last_layer_of_a_published_model_is_seen(models, gone) -> None:
    shapes = models["mask2former_hornet_3x"]
    # Of full size in shape alone: one number behind every element.
    state = {n: np.broadcast_to(np.float32(0), s) for n, s in shapes.items() if not n.startswith(gone)}
    with pytest.raises(WeightsError, match=rf"{len(shapes) - len(state)} tensors missing"):
        checkpoint.network_of(state, "cut.pth")


def test_wrong_shapes_and_types_are_listed(states, tmp_path) -> None:
    state = dict(states["mask2former"])
    state["backbone.norm1.weight"] = np.zeros(31, np.float32)
    state["backbone.norm1.bias"] = np.zeros(32, np.int64)
    with pytest.raises(
        WeightsError, match=r"2 tensors .*norm1\.weight \(31,\) instead of \(32,\).*norm1\.bias of int64"
    ):
        checkpoint.load_network(save(tmp_path / "w.pth", state))


@pytest.mark.parametrize(
    "gone", ["sem_seg_head.predictor.query_feat.weight", "sem_seg_head.pixel_decoder.mask_features.weight"]
)
def test_a_tensor_that_tells_a_size_is_named(states, tmp_path, gone) -> None:
    state = {n: a for n, a in states["mask2former"].items() if n != gone}
    with pytest.raises(WeightsError, match=gone.replace(".", r"\.")):
        checkpoint.load_network(save(tmp_path / "w.pth", state))


def test_a_file_cannot_ask_for_very_many_layers(states) -> None:
    state = {**states["mask2former"], "backbone.stages.0.99999999.gamma1": np.zeros(16, np.float32)}
    with pytest.raises(WeightsError, match="a layer numbered 99999999"):
        checkpoint.network_of(state, "hostile.pth")


def test_another_model_is_refused(tmp_path) -> None:
    with pytest.raises(WeightsError, match="no entity segmentation model"):
        checkpoint.load_network(save(tmp_path / "w.pth", {"image_encoder.weight": np.zeros(3, np.float32)}))


@pytest.mark.parametrize("share", [0.0, 0.3, 0.999])
def test_a_truncated_file_is_refused(states, tmp_path, share) -> None:
    path = save(tmp_path / "w.pth", states["mask2former"], wrapped=True)
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(WeightsError, match=r"w\.pth"):
        checkpoint.load_network(path)


def test_nothing_in_a_file_is_executed(tmp_path) -> None:
    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "executed",))

    (tmp_path / "w.pth").write_bytes(pickle.dumps({"model": Evil()}))
    with pytest.raises(WeightsError):
        checkpoint.load_network(tmp_path / "w.pth")
    assert not (tmp_path / "executed").exists()


def test_a_missing_file_is_said() -> None:
    with pytest.raises(WeightsError, match="no entity weights at nowhere"):
        checkpoint.load_network("nowhere.pth")


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "seg3d" / "weights"


def test_the_commands_know_the_files_that_a_person_brings(cache, tmp_path, capsys) -> None:
    assert commands.list_models(json_output=True) == 0
    listed = {r["name"]: r for r in json.loads(capsys.readouterr().out)["by_hand"]}
    assert listed["cropformer_hornet"]["size"] == 888_996_425
    assert all("CC BY-NC" in r["weights_licence"] and not r["path"] for r in listed.values())
    with pytest.raises(WeightsError, match=r"Adobe_EntitySeg.*--from"):
        commands.fetch("mask2former_hornet")
    with pytest.raises(WeightsError, match="not here"):
        commands.where("mask2former_hornet")
    source = tmp_path / "downloaded.pth"
    source.write_bytes(b"weights")
    assert commands.fetch("mask2former_hornet", source) == 0
    place = cache / entity_weights.RECORDS["mask2former_hornet"].file
    assert place.read_bytes() == b"weights"
    capsys.readouterr()
    assert commands.where("mask2former_hornet") == 0
    assert capsys.readouterr().out.replace("\n", "") == str(place)
    name = "mask2former_hornet"
    assert entity_weights.verify(name, place) == "right, as it was taken in"
    place.write_bytes(b"wEights")
    with pytest.raises(WeightsError, match="has changed"):
        entity_weights.verify(name, place)


def test_a_file_of_another_size_is_not_taken_in(cache, tmp_path) -> None:
    source = tmp_path / "short.pth"
    source.write_bytes(b"weights")
    with pytest.raises(WeightsError, match="888996425"):
        entity_weights.take("cropformer_hornet", source)
    assert entity_weights.find("cropformer_hornet") is None
    with pytest.raises(WeightsError, match="cannot copy"):
        entity_weights.take("cropformer_hornet", tmp_path / "nowhere.pth")


def test_the_docs_name_every_file(recipe) -> None:
    page = (Path(__file__).resolve().parents[3] / "docs" / "cropformer.md").read_text()
    for record in entity_weights.RECORDS.values():
        row = next(line for line in page.splitlines() if line.startswith(f"| `{record.name}` "))
        assert record.file in row
        assert f"{record.megabytes:.1f}" in row
    assert "CC BY-NC 4.0" in page
