# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""The engine on tiny rooms: what a run leaves behind, going on after a kill, accumulation, precision, bad numbers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")

import safetensors.torch  # noqa: E402

from seg3d_core.config import SegDino3DConfig  # noqa: E402
from seg3d_core.errors import ConfigError, Seg3DError, WeightsError  # noqa: E402
from seg3d_core.models.checkpoint import load_model  # noqa: E402
from training import checkpoints  # noqa: E402
from training.collate import collate  # noqa: E402
from training.config import build  # noqa: E402
from training.engine import Trainer  # noqa: E402
from training.journal import Journal, read_journal  # noqa: E402
from training.learner import NonFiniteError  # noqa: E402
from training.optimiser import rate_factor  # noqa: E402
from training.order import EpochOrder  # noqa: E402
from training.processes import Processes  # noqa: E402
from training.readers_cache import CachedScene, SceneFeatures, write_features, write_scene  # noqa: E402

ALONE = Processes(0, 1, torch.device("cpu"))
CHAIR, TABLE = (2, 5), (4, 7)
"""Ids of ScanNet200 and ScanNet 20."""


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> None:
    torch.set_num_threads(1)


def room(seed: int) -> tuple[CachedScene, SceneFeatures]:
    """A floor and three boxes, of which two are chairs, and features that tell the classes."""
    draw = np.random.default_rng(seed)
    parts = [draw.random((700, 3)) * (2.4, 2.0, 0.02)]
    things = (CHAIR, TABLE, CHAIR)
    for k in range(len(things)):
        parts.append(draw.random((250, 3)) * 0.45 + (0.1 + 0.8 * k, draw.random() * 1.4, 0.05))
    xyz = np.concatenate(parts).astype(np.float32)
    instance = np.repeat([0, 1, 2, 3], [700, 250, 250, 250]).astype(np.int32)
    cells = np.column_stack([instance, np.floor(xyz[:, :2] / 0.3)]).astype(int)
    superpoints = np.unique(cells, axis=0, return_inverse=True)[1].reshape(-1).astype(np.int32)
    ids = np.array([(3, 2), *things])[instance]
    image = 0.3 * draw.standard_normal((len(xyz), 256)) + np.eye(5, 256)[ids[:, 0]] * 4
    centres = np.array([xyz[instance == k].mean(axis=0) for k in (1, 2, 3)])
    queries = np.eye(5, 256)[[t[0] for t in things]] * 4
    scene = CachedScene(
        xyz, draw.integers(0, 255, (len(xyz), 3)).astype(np.uint8), superpoints, instance,
        ids[:, 1].astype(np.int16), ids[:, 0].astype(np.int16), np.zeros(1, np.int32), np.eye(4)[None],
        np.eye(4), np.eye(4), np.array([[4, 3], [4, 3]], np.int32),
    )  # fmt: skip
    return scene, SceneFeatures(image, queries, centres.astype(np.float32), np.ones(3, np.float32), "toy-2d")


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("cache")
    names = [f"scene{k:04d}_00" for k in range(6)]
    for k, name in enumerate(names):
        scene, features = room(k)
        write_scene(root / "scenes" / f"{name}.npz", scene)
        write_features(root / "features" / "toy" / f"{name}.npz", features)
    (root / "splits").mkdir()
    (root / "splits" / "train.txt").write_text("\n".join(names[:4]) + "\n")
    (root / "splits" / "val.txt").write_text("\n".join(names[4:]) + "\n")
    return root


def settings(cache: Path, **more: object):
    values = {
        "data.root": str(cache), "data.features": "toy", "data.benchmark": "scannet20", "data.batch_size": 2,
        "model.feature_channels": 4, "model.width": 16, "model.heads": 2, "model.layers": 2,
        "model.feed_forward_width": 16, "run.epochs": 2, "run.evaluate_every": 0, "run.device": "cpu",
        "run.tensorboard": False, "run.seed": 3,
    }  # fmt: skip
    return build({**values, **{name.replace("__", "."): value for name, value in more.items()}}, "small")


def tensors_of(folder: Path) -> dict[str, torch.Tensor]:
    about = json.loads((folder / "last.json").read_text())
    files = (folder / about["weights"], folder / about["optimiser"])
    return {f"{f.name[16:]}/{k}": v for f in files for k, v in safetensors.torch.load_file(f).items()}


def test_a_run_leaves_settings_journal_checkpoints_and_a_picture(cache, tmp_path) -> None:
    config = settings(cache, run__evaluate_every=1)
    said: list[str] = []
    progress = Trainer(config, tmp_path, ALONE).run(said.append)
    assert (progress.epoch, progress.step, progress.batch) == (2, 4, 0)
    records = read_journal(tmp_path)
    assert [record["epoch"] for record in records] == [1, 2]
    assert all(np.isfinite(record["losses"]["total"]) for record in records)
    assert set(records[0]["evaluation"]) >= {"scannet18/ap", "scannet18/ap50", "agnostic-scannet18/ap25"}
    assert json.loads((tmp_path / "config.json").read_text())["data"]["features"] == "toy"
    assert list((tmp_path / "pictures").glob("epoch_0001_*.png"))
    assert len(list(tmp_path.glob("step_*.safetensors"))) == 2
    assert not list(tmp_path.rglob("*.pkl")) + list(tmp_path.rglob("*.pt*"))
    assert any("scenes/s" in line for line in said)
    for weights in (checkpoints.find_weights(tmp_path), tmp_path / "best.safetensors"):
        loaded = load_model(weights, SegDino3DConfig())
        assert loaded.features_2d == "toy-2d"
        assert loaded.class_names[0] == "cabinet"


def test_a_run_that_stops_inside_an_epoch_goes_on_bit_by_bit(cache, tmp_path) -> None:
    whole = Trainer(settings(cache), tmp_path / "whole", ALONE)
    whole.run()
    Trainer(settings(cache, run__max_steps=3), tmp_path / "parts", ALONE).run()
    half = json.loads((tmp_path / "parts" / "last.json").read_text())
    assert (half["epoch"], half["batch"], half["step"]) == (1, 1, 3)
    Trainer(settings(cache), tmp_path / "parts", ALONE, resume=True).run()
    ours, theirs = tensors_of(tmp_path / "parts"), tensors_of(tmp_path / "whole")
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert [record["epoch"] for record in read_journal(tmp_path / "parts")][-1] == 2


@pytest.mark.parametrize(("minutes", "step"), [(0, 2), (1e-9, 3)], ids=["from the epoch", "from the step"])
def test_a_killed_run_comes_to_the_same_weights(cache, tmp_path, monkeypatch, minutes, step) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    Trainer(settings(cache), whole, ALONE).run()
    trainer = Trainer(settings(cache, run__save_minutes=minutes), killed, ALONE)
    real = trainer.learner.step
    monkeypatch.setattr(
        trainer.learner, "step", lambda batches, number: 1 / 0 if number == 3 else real(batches, number)
    )
    with pytest.raises(ZeroDivisionError):
        trainer.run()
    assert json.loads((killed / "last.json").read_text())["step"] == step
    Trainer(settings(cache), killed, ALONE, resume=True).run()
    ours, theirs = tensors_of(killed), tensors_of(whole)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert [record["epoch"] for record in read_journal(killed)] == [1, 2]


def test_any_number_of_loading_processes_gives_the_same_weights(cache, tmp_path) -> None:
    for workers in (0, 2):
        Trainer(settings(cache, data__workers=workers), tmp_path / str(workers), ALONE).run()
    alone, helped = (tensors_of(tmp_path / name) for name in ("0", "2"))
    assert all(torch.equal(alone[name], helped[name]) for name in alone)


def test_another_seed_gives_other_weights(cache, tmp_path) -> None:
    for seed in (1, 2):
        Trainer(settings(cache, run__seed=seed, run__max_steps=1), tmp_path / str(seed), ALONE).run()
    one, two = (tensors_of(tmp_path / str(seed)) for seed in (1, 2))
    assert any(not torch.equal(one[name], two[name]) for name in one)


def test_a_step_takes_no_more_queries_than_it_may(cache, tmp_path) -> None:
    drawn = {}
    for most in (0, 3):
        trainer = Trainer(settings(cache, run__most_queries=most), tmp_path / str(most), ALONE)
        drawn[most] = trainer.learner.draw(collate([trainer.scenes[0], trainer.scenes[1]]), 5, 0)
    assert all(len(queries) > 3 for queries in drawn[0])
    assert [queries.tolist() for queries in drawn[3]] == [queries[:3].tolist() for queries in drawn[0]]


def test_a_folder_with_a_run_is_not_overwritten(cache, tmp_path) -> None:
    Trainer(settings(cache, run__max_steps=1), tmp_path, ALONE).run()
    with pytest.raises(ConfigError, match="--resume"):
        Trainer(settings(cache), tmp_path, ALONE)


def test_a_checkpoint_that_is_damaged_or_of_another_network_is_refused(cache, tmp_path) -> None:
    Trainer(settings(cache, run__max_steps=1), tmp_path, ALONE).run()
    with pytest.raises(WeightsError, match="do not fit"):
        Trainer(settings(cache, model__layers=3), tmp_path, ALONE, resume=True)
    state = tmp_path / json.loads((tmp_path / "last.json").read_text())["optimiser"]
    state.write_bytes(state.read_bytes()[:100])
    with pytest.raises(WeightsError, match="cannot go on"):
        Trainer(settings(cache), tmp_path, ALONE, resume=True)


def learner_and_batches(cache: Path, tmp_path: Path, **more: object):
    config = settings(cache, **more)
    trainer = Trainer(config, tmp_path, Processes.join(config.run.device))
    scenes = [trainer.scenes[k] for k in range(4)]
    return trainer.learner, [collate(scenes[:2]), collate(scenes[2:])]


def gradients(learner) -> dict[str, torch.Tensor]:
    out = {name: p.grad.clone() for name, p in learner.model.named_parameters() if p.grad is not None}
    learner.optimiser.zero_grad()
    return out


def test_accumulated_gradients_are_the_mean_over_batches(cache, tmp_path) -> None:
    learner, batches = learner_and_batches(cache, tmp_path)
    draws = [learner.draw(batch, 0, place) for place, batch in enumerate(batches)]
    parts = learner.backward(batches, draws)
    together = gradients(learner)
    alone, totals = [], []
    for batch, draw in zip(batches, draws, strict=True):
        totals.append(learner.backward([batch], [draw])["total"])
        alone.append(gradients(learner))
    assert parts["total"] == pytest.approx(np.mean(totals), rel=1e-5)
    for name, value in together.items():
        torch.testing.assert_close(value, (alone[0][name] + alone[1][name]) / 2, rtol=1e-4, atol=1e-5)


NO_BOXES = {"model__box_regression": False, "model__box_modulation": False}


@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize(
    "switches",
    [
        {},
        {"model__backbone": "minkowski", "model__feature_channels": 0},
        {"model__backbone": "mlp"},
        {"model__image_features": False},
        {"model__object_queries": False},
        {"model__image_features": False, "model__late_image_features": True},
        {"model__distance_mask": False},
        {"model__box_modulation": False},
        NO_BOXES,
        {**NO_BOXES, "model__centre_encoding": False},
        {"model__sizes": "metric"},
    ],
    ids=lambda switches: "+".join(name.removeprefix("model__") for name in switches) or "none",
)
def test_with_every_switch_all_parameters_get_a_gradient(cache, tmp_path, switches, precision) -> None:
    """What distributed training asks for, too."""
    learner, batches = learner_and_batches(cache, tmp_path, optimiser__precision=precision, **switches)
    learner.backward(batches[:1], [learner.draw(batches[0], 0, 0)])
    found = gradients(learner)
    assert set(found) == {name for name, _ in learner.model.named_parameters()}
    assert all(torch.isfinite(value).all() for value in found.values())


def test_mixed_precision_keeps_weights_and_losses_in_float32(cache, tmp_path) -> None:
    learner, batches = learner_and_batches(cache, tmp_path / "a")
    mixed, _ = learner_and_batches(cache, tmp_path / "b", optimiser__precision="bf16")
    draw = learner.draw(batches[0], 0, 0)
    exact, rough = (one.loss(batches[0], draw) for one in (learner, mixed))
    assert rough.total.dtype == torch.float32
    assert rough.total.item() != exact.total.item()
    assert rough.total.item() == pytest.approx(exact.total.item(), rel=0.05)
    mixed.step(batches[:1], 0)
    assert all(p.dtype == torch.float32 and torch.isfinite(p).all() for p in mixed.model.parameters())


@pytest.mark.gpu
@pytest.mark.parametrize("switches", [{}, {"model__backbone": "minkowski", "model__feature_channels": 0}])
@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-3), ("bf16", 0.05)])
def test_a_gpu_finds_the_losses_that_a_cpu_finds(cache, tmp_path, switches, precision, tolerance) -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    on_cpu, batches = learner_and_batches(cache, tmp_path / "cpu", **switches)
    options = {"run__device": "cuda", "optimiser__precision": precision}
    on_gpu, _ = learner_and_batches(cache, tmp_path / "gpu", **options, **switches)
    wanted = on_cpu.step(batches[:1], 0)[0]
    batch = batches[0].to("cuda")
    found = on_gpu.step([batch], 0)[0]
    assert found["total"] == pytest.approx(wanted["total"], rel=tolerance)
    assert all(torch.isfinite(p).all() for p in on_gpu.model.parameters())
    # The second step sees weights that the first one's gradients moved.
    wanted, found = on_cpu.step(batches[:1], 1)[0], on_gpu.step([batch], 1)[0]
    assert found["total"] == pytest.approx(wanted["total"], rel=2 * tolerance)


def test_a_loss_that_is_no_number_stops_with_its_parts_before_weights_change(cache, tmp_path) -> None:
    learner, batches = learner_and_batches(cache, tmp_path)
    with torch.no_grad():
        learner.model.decoder.heads.semantic.bias[0] = float("nan")
    before = [p.clone() for p in learner.model.parameters()]
    with pytest.raises(NonFiniteError, match=r"scene0000_00, scene0001_00 .* semantic nan, head0/classes \d"):
        learner.step(batches[:1], 0)
    assert all(
        torch.equal(a, b) or torch.isnan(b).any() for a, b in zip(before, learner.model.parameters(), strict=True)
    )


def test_a_gradient_that_is_no_number_stops_too(cache, tmp_path) -> None:
    learner, batches = learner_and_batches(cache, tmp_path)
    parts = learner.backward(batches[:1], [learner.draw(batches[0], 0, 0)])
    next(iter(learner.model.parameters())).grad.fill_(float("inf"))
    with pytest.raises(NonFiniteError, match="gradient of step 7"):
        learner.update(7, parts)


def test_the_gradient_is_clipped(cache, tmp_path) -> None:
    learner, batches = learner_and_batches(cache, tmp_path, optimiser__clip_norm=0.5)
    parts = learner.backward(batches[:1], [learner.draw(batches[0], 0, 0)])
    seen = []
    learner.optimiser.register_step_pre_hook(
        lambda *_: seen.append(torch.cat([p.grad.flatten() for p in learner.model.parameters()]).norm())
    )
    assert learner.update(0, parts) > 0.5
    assert float(seen[0]) == pytest.approx(0.5, rel=1e-3)


def test_the_schedule_falls_from_one_to_zero() -> None:
    assert rate_factor(0, 100, 0.9) == 1
    assert rate_factor(1, 38_700, 0.9) == pytest.approx(0.999976744, rel=1e-8)
    assert rate_factor(100, 100, 0.9) == rate_factor(101, 100, 0.9) == 0


@pytest.mark.parametrize("full", [True, False])
@pytest.mark.parametrize("processes", [1, 2, 3])
def test_processes_share_every_scene_and_take_equally_many_batches(processes, full) -> None:
    orders = [EpochOrder(17, 2, 5, rank, processes, full) for rank in range(processes)]
    batches = [order.batches(4) for order in orders]
    assert len({len(each) for each in batches}) == 1 == len({len(order) for order in orders})
    flat = [scene for each in batches for batch in each for scene in batch]
    if full:
        assert len(flat) == len(set(flat))
        assert all(len(batch) == 2 for each in batches for batch in each)
    else:
        assert set(flat) == set(range(17))
    assert orders[0].batches(4) == batches[0] != orders[0].batches(5)


def test_an_epoch_goes_on_after_the_batches_that_are_done() -> None:
    order = EpochOrder(10, 2, 0)
    order.begin(3, 2)
    assert list(order) == order.batches(3)[2:]


def test_too_few_scenes_for_a_batch_are_named() -> None:
    with pytest.raises(ConfigError, match=r"lower data\.batch_size"):
        EpochOrder(3, 4, 0)


def test_a_journal_forgets_what_a_killed_run_said_too_much(tmp_path) -> None:
    (tmp_path / "log.jsonl").write_text('{"epoch": 1}\n{"epoch": 2}\n{"epo')
    Journal(tmp_path, 1, tensorboard=False).epoch({"epoch": 2, "step": 4, "losses": {"total": float("nan")}})
    assert [record["epoch"] for record in read_journal(tmp_path)] == [1, 2]
    assert read_journal(tmp_path)[1]["losses"]["total"] is None


def test_writing_leaves_no_halves(tmp_path) -> None:
    checkpoints.write_json(tmp_path / "a.json", {"x": 1})
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
    with pytest.raises(Seg3DError, match="cannot write"):
        checkpoints.write(tmp_path / "a.json" / "b", b"")


@pytest.mark.slow
def test_a_network_learns_a_scene_by_heart(cache, tmp_path) -> None:
    """A scene of two chairs and a table: its own AP50 after sixty steps."""
    (cache / "splits" / "one.txt").write_text("scene0000_00\n")
    config = settings(
        cache, data__train_split="one", data__val_split="one", data__batch_size=1, data__augment__enabled=False,
        data__query_dropout=0.0, data__voxel_size=0.02, model__levels=5, model__blocks=2, model__width=32,
        model__feature_channels=8, optimiser__learning_rate=5e-3,
        optimiser__backbone_learning_rate=5e-3, run__epochs=60, run__evaluate_every=60, run__picture_every=0,
        run__save_every=60,
    )  # fmt: skip
    Trainer(config, tmp_path, ALONE).run()
    records = read_journal(tmp_path)
    assert records[-1]["losses"]["total"] < records[0]["losses"]["total"] / 10
    assert records[-1]["evaluation"]["scannet18/ap50"] > 0.95


@pytest.mark.slow
def test_two_processes_learn_what_one_does_with_two_batches_per_step(cache, tmp_path) -> None:
    common = settings(cache, data__batch_size=1, run__epochs=1)
    flags = [f"--set={name}={value}" for name, value in overrides(common).items()]
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node=2",
        "-m",
        "training.train",
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [*command, "--recipe=small", f"--out={tmp_path / 'two'}", *flags],
        cwd=root, env=environment, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    Trainer(settings(cache, data__batch_size=1, run__epochs=1, optimiser__accumulate=2), tmp_path / "one", ALONE).run()
    two, one = (read_journal(tmp_path / name)[0] for name in ("two", "one"))
    assert two["step"] == one["step"] == 2
    assert two["losses"]["total"] == pytest.approx(one["losses"]["total"], rel=1e-3)


def overrides(config) -> dict[str, object]:
    wanted = ("data.root", "data.features", "data.benchmark", "data.batch_size", "model.feature_channels",
              "model.width", "model.heads", "model.layers", "model.feed_forward_width", "run.epochs",
              "run.evaluate_every", "run.device", "run.tensorboard", "run.seed")  # fmt: skip
    tree = config.model_dump()
    return {name: tree[name.split(".")[0]][name.split(".")[1]] for name in wanted}
