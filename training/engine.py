# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""A training run from its settings: epochs, checkpoints, evaluations, pictures, and going on after a kill.

All that is random follows from the seed and from how far the run is, so that a resumed run takes the same next step,
bit by bit, on the same machine.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from seg3d_core.errors import ConfigError
from seg3d_core.metrics.protocols import Result
from seg3d_core.models.checkpoint import check_architecture, describe, load_backbone, load_strict, read_weights
from seg3d_core.models.segdino3d import SceneResult, SegDino3D
from seg3d_core.models.sparse import find_backend

from . import checkpoints
from .checkpoints import Origin, Progress
from .collate import Batch, collate
from .config import TrainingConfig, to_json
from .dataset import SceneDataset, TrainingScene
from .evaluate import evaluate_scenes, evaluation_data, scene_loader, training_data
from .journal import Journal, Stopwatch
from .learner import Learner
from .order import EpochOrder
from .pictures import draw_scene
from .processes import Processes
from .readers_labels import classes_of

log = logging.getLogger(__name__)


class Trainer:
    """One run in one folder. Raises Seg3DError for settings and data that do not fit, before anything is written."""

    def __init__(self, config: TrainingConfig, folder: Path, processes: Processes, resume: bool = False):
        self.config, self.folder, self.processes = config, folder, processes
        if checkpoints.exists(folder) and not resume:
            raise ConfigError(f"{folder} holds a run already: go on with --resume, or name another folder with --out")
        if config.run.threads:
            torch.set_num_threads(config.run.threads)
        self.scenes = training_data(config)
        self.order = EpochOrder(
            len(self.scenes), config.data.batch_size, config.run.seed, processes.rank, processes.count,
            config.run.full_batches,
        )  # fmt: skip
        source = config.model.features_2d or self.scenes.encoder_id
        self.origin = Origin(source, classes_of(config.data.benchmark).thing_names)
        self.learner = Learner(self._model(), config, self._schedule_steps(), processes)
        self.progress = Progress()
        if resume and checkpoints.exists(folder):
            self.progress = checkpoints.load(folder, self.learner.model, self.learner.optimiser)

    @property
    def steps_per_epoch(self) -> int:
        return math.ceil(len(self.order) / self.config.optimiser.accumulate)

    def run(self, say: Callable[[str], None] = log.info) -> Progress:
        """To the end; `say` gets lines for a person. Raises Seg3DError."""
        run = self.config.run
        journal = None
        if self.processes.is_first:
            checkpoints.write(self.folder / "config.json", to_json(self.config).encode())
            journal = Journal(self.folder, self.progress.epoch, run.tensorboard)
        say(self._introduction())
        loader = self._loader()
        while self.progress.epoch < run.epochs and not self._is_over():
            record = self._epoch(loader, say)
            if self._is_due(run.evaluate_every):
                record["evaluation"] = self._evaluate(say)
            if journal is not None:
                journal.epoch(record)
            if self._is_due(run.save_every):
                self._save()
        if journal is not None:
            journal.close()
        self.processes.wait()
        return self.progress

    def _epoch(self, loader: DataLoader[Any], say: Callable[[str], None]) -> dict[str, Any]:
        """One epoch, or what is left of it; its record."""
        progress, run = self.progress, self.config.run
        self.scenes.set_epoch(progress.epoch)
        self.order.begin(progress.epoch, progress.batch)
        watch, sums, done, saved = Stopwatch(), _Means(), 0, time.monotonic()
        for batches in grouped(loader, self.config.optimiser.accumulate):
            watch.lap("data")
            on_device = [batch.to(self.processes.device) for batch in batches]
            parts, norm = self.learner.step(on_device, progress.step)
            sums.add({**parts, "gradient_norm": norm})
            watch.lap("step")
            done += sum(len(batch) for batch in batches)
            progress = replace(progress, step=progress.step + 1, batch=progress.batch + len(batches))
            self.progress = progress
            if progress.step % run.log_every == 0:
                say(f"epoch {progress.epoch + 1}, step {progress.step}: loss {parts['total']:.4f}, norm {norm:.2f}")
            if self._is_over():
                break
            if self.processes.any(run.save_minutes > 0 and time.monotonic() - saved > 60 * run.save_minutes):
                self._save()
                saved = time.monotonic()
        if progress.batch >= len(self.order):
            self.progress = replace(progress, epoch=progress.epoch + 1, batch=0)
        return self._record(sums, watch, done, say)

    def _record(self, sums: _Means, watch: Stopwatch, scenes: int, say: Callable[[str], None]) -> dict[str, Any]:
        values = self.processes.mean(torch.tensor(list(sums.means().values()))).tolist()
        means = dict(zip(sums.means(), values, strict=True))
        seconds = watch.seconds.get("data", 0.0) + watch.seconds.get("step", 0.0)
        rate = scenes * self.processes.count / max(seconds, 1e-9)
        epoch = self.progress.epoch
        say(
            f"epoch {epoch} of {self.config.run.epochs}: loss {means.get('total', float('nan')):.4f}, {seconds:.1f} s, "
            f"{rate:.2f} scenes/s, {watch.seconds.get('data', 0.0) / max(seconds, 1e-9):.0%} of it waiting for data"
        )
        return {
            "epoch": epoch,
            "step": self.progress.step,
            "learning_rates": {g["name"]: g["lr"] for g in self.learner.optimiser.param_groups},
            "losses": means,
            "seconds": {name: round(value, 3) for name, value in watch.seconds.items()},
            "scenes_per_second": rate,
        }

    def _evaluate(self, say: Callable[[str], None]) -> dict[str, Any]:
        """By the first process; the others wait."""
        out: dict[str, Any] = {}
        number = self.progress.evaluations + 1
        if self.processes.is_first:
            scenes = evaluation_data(self.config, self.config.data.val_split)
            if self.config.run.evaluate_scenes:
                scenes = evaluation_data(self.config, scenes.names[: self.config.run.evaluate_scenes])
            results = self.evaluate(scenes, number)
            out = {f"{r.protocol}/{n}": getattr(r, n) for r in results if r.duplicates for n in ("ap", "ap50", "ap25")}
            # Boxes are for the journal: a line for a person has room for masks.
            say(", ".join(f"{name} {100 * value:.1f}" for name, value in out.items() if "boxes" not in name))
            score = results[0].ap
            if score > self.progress.best:
                self.progress = replace(self.progress, best=score, best_epoch=self.progress.epoch)
                checkpoints.save_best(self.folder, self.learner.model, self.progress, self.origin, out)
        self.progress = replace(self.progress, evaluations=number)
        self.processes.wait()
        return out

    def evaluate(self, scenes: SceneDataset, number: int = 0) -> list[Result]:
        """With the weights of now; a picture of the first scene every few evaluations."""
        every = self.config.run.picture_every
        name = scenes.names[0] if every and (number - 1) % every == 0 else None

        def picture(scene: TrainingScene, found: SceneResult) -> None:
            if scene.name == name:
                path = self.folder / "pictures" / f"epoch_{self.progress.epoch:04d}_{scene.name}.png"
                least = self.config.segmentation.panoptic_score_threshold
                draw_scene(scene, found, classes_of(self.config.data.benchmark), path, least)

        model = self.learner.model.eval()
        return evaluate_scenes(model, scene_loader(scenes, self.config.data.workers), self.config, picture)

    def _save(self) -> None:
        if self.processes.is_first:
            checkpoints.save(self.folder, self.learner.model, self.learner.optimiser, self.progress, self.origin)
        self.processes.wait()

    def _is_due(self, every: int) -> bool:
        """Whether something that comes every few epochs, and at the end, comes now."""
        is_end = self.progress.epoch >= self.config.run.epochs or self._is_over()
        return every > 0 and (is_end or self.progress.epoch % every == 0)

    def _is_over(self) -> bool:
        return 0 < self.config.run.max_steps <= self.progress.step

    def _schedule_steps(self) -> int:
        epochs = self.config.optimiser.schedule_epochs or self.config.run.epochs
        return epochs * self.steps_per_epoch

    def _loader(self) -> DataLoader[Any]:
        workers = self.config.data.workers
        pins = self.processes.device.type == "cuda"
        return DataLoader(
            self.scenes, batch_sampler=self.order, collate_fn=collate, num_workers=workers, pin_memory=pins,
            persistent_workers=workers > 0,
        )  # fmt: skip

    def _model(self) -> SegDino3D:
        settings = self.config.model
        architecture = self.config.architecture()
        backend = None
        if architecture.backbone != "mlp":
            backend = find_backend(settings.sparse_backend, architecture.backbone)
        torch.manual_seed(self.config.run.seed)
        model = SegDino3D(architecture, sparse_backend=backend)
        if settings.start_backbone:
            for note in load_backbone(model, settings.start_backbone):
                log.warning("%s", note)
        if settings.start_weights:
            weights = read_weights(settings.start_weights)
            check_architecture(describe(weights, settings.sizes)[0], architecture)
            load_strict(model, weights.state)
        return model.to(self.processes.device)

    def _introduction(self) -> str:
        parameters = sum(p.numel() for p in self.learner.model.parameters())
        where = f"{self.processes.count} process(es) on {self.processes.device.type}"
        gone = f", from epoch {self.progress.epoch}, step {self.progress.step}" if self.progress.step else ""
        return (
            f"{self.config.recipe}: {parameters:,} parameters, {len(self.scenes)} scenes, {len(self.order)} batches of "
            f"{self.config.data.batch_size} per epoch, {self.config.run.epochs} epochs, {where}{gone}"
        )


class _Means:
    """Running sums of named numbers; a name that is not always there counts where it is."""

    def __init__(self) -> None:
        self._sums: dict[str, float] = {}
        self._counts: dict[str, int] = {}

    def add(self, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
            self._counts[name] = self._counts.get(name, 0) + 1

    def means(self) -> dict[str, float]:
        return {name: value / self._counts[name] for name, value in self._sums.items()}


def grouped(items: DataLoader[Any] | Sequence[Batch], size: int) -> Iterator[list[Batch]]:
    """Batches of one step each: `size` of them, at the end of an epoch perhaps fewer."""
    iterator = iter(items)
    while group := list(islice(iterator, size)):
        yield group
