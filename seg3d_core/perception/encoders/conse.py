# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""The offline stand-in for CLIP: an ImageNet classifier and a sentence encoder meet in the space of class names.

A crop is what the classifier says of all classes; a text is how near it lies to each class's name (after
ConSE, Norouzi et al. 2014, turned round: ConSE carries the image into the text's space by its likeliest
classes, here the text is carried into the classifier's space, which ranked better on our scenes).
Weak on what ImageNet has no class for; every answer from it is approximate.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path

import numpy as np
from scipy.special import softmax

from ...array_file import read_npy
from ...types import Array
from .. import weights
from . import efficientnet_lite, minilm
from .crops import crop_batch

log = logging.getLogger(__name__)

# How sharply a text picks its classes: found on the house scenes, flat between 0.02 and 0.06.
_TEMPERATURE = 0.03
# Larger batches leave the cache of small machines and are slower.
_BATCH = 16


def class_names() -> list[str]:
    """The 1000 ImageNet-1k class names that come along as package data."""
    text = resources.files(__package__).joinpath("imagenet_classes.json").read_text(encoding="utf-8")
    return list(json.loads(text)["names"])


class ConseEncoder:
    """Crops and texts as unit vectors over the classifier's classes; `load` makes one from installed weights."""

    approximate = True

    def __init__(
        self,
        network: Callable[[Array], Array],
        text: minilm.MiniLM,
        names: Sequence[str],
        identifier: str,
        cache: Path | None = None,
    ):
        """`network` gives logits (B, len(names)); `cache` is a folder for the class names' embeddings, or None."""
        self.id = identifier
        self.dim = len(names)
        self._network = network
        self._text = text
        self._names = list(names)
        self._cache = cache
        self._table: Array | None = None

    def encode_images(self, crops: Sequence[Array]) -> Array:
        """Standardised logits as unit vectors float32 (len(crops), dim) of uint8 (h, w, 3) crops of any size."""
        parts = [np.zeros((0, self.dim), np.float32)]
        for start in range(0, len(crops), _BATCH):
            logits = self._network(crop_batch(crops[start : start + _BATCH], efficientnet_lite.INPUT_SIZE))
            parts.append(_unit(logits - logits.mean(1, keepdims=True)))
        return np.concatenate(parts)

    def encode_text(self, texts: Sequence[str]) -> Array:
        """softmax(similarity to each class name / 0.03) as unit vectors float32 (len(texts), dim)."""
        similarity = self._text.encode(list(texts)) @ self._class_table().T
        return _unit(softmax(similarity / _TEMPERATURE, axis=1))

    def _class_table(self) -> Array:
        """(classes, text dim), from the cache on disk where there is one."""
        if self._table is None:
            path = self._cache_path()
            table = _read_table(path, (self.dim, self._text.dim)) if path else None
            if table is None:
                table = self._text.encode(self._names)
                if path:
                    _write_table(path, table)
            self._table = table
        return self._table

    def _cache_path(self) -> Path | None:
        if self._cache is None:
            return None
        content = "\n".join([self.id, *self._names])
        return self._cache / f"classes-{hashlib.sha256(content.encode()).hexdigest()[:16]}.npy"


def _unit(rows: Array) -> Array:
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def _read_table(path: Path, shape: tuple[int, ...]) -> Array | None:
    try:
        table = read_npy(path)
    except (OSError, ValueError):
        return None
    return table if table.shape == shape and table.dtype == np.float32 else None


def _write_table(path: Path, table: Array) -> None:
    try:
        with weights.atomic_file(path) as file:
            np.save(file, table, allow_pickle=False)
    except OSError as error:
        log.info("class names stay in memory, %s cannot be written: %s", path, error)


def load(weights_dir: str = "") -> ConseEncoder:
    """The stand-in from fetched or installed weights. Raises WeightsError that says how to get them."""
    network = efficientnet_lite.load(weights.require("efficientnet_lite0", weights_dir))
    text = minilm.load(weights.require("minilm", weights_dir), weights.require("minilm_tokenizer", weights_dir))
    identifier = f"conse-efficientnet_lite0-minilm_l6-classes-T{_TEMPERATURE}-v1"
    return ConseEncoder(network, text, class_names(), identifier, weights.cache_folder() / "encoders")
