# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Detectors that are told by text what to look for: Grounding DINO and MM-Grounding DINO."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...errors import ConfigError, WeightsError
from ...types import Array, FeatureMap, Frame, ObjectQueries2D
from . import model
from .folder import checked_folder
from .images import Prepared, Preprocessing, feature_map
from .results import pixel_boxes, without_duplicates

CLASSES = {
    "grounding-dino": "GroundingDinoForObjectDetection",
    "mm-grounding-dino": "MMGroundingDinoForObjectDetection",
}
_DEFAULTS = {"size": {"shortest_edge": 800, "longest_edge": 1333}}
_FINEST = 8
_MOST_OVERLAP = 0.7
_SHOWN = 40


class GroundingDino:
    """Boxes of the prompted things, query features and image features (implements `Detector2D`)."""

    def __init__(self, folder: str | Path, prompts: Sequence[str], min_score: float = 0.25, device: str = "auto"):
        """Loads a local folder. `prompts` are names of things, at least one. Raises WeightsError and ConfigError."""
        names = clean_prompts(prompts)
        path = checked_folder(folder, "perception.model_dir", "IDEA-Research/grounding-dino-tiny")
        self._loaded = model.load(path, CLASSES, device)
        self._prepare = Preprocessing.read(path, _DEFAULTS)
        self._min_score = min_score
        self.id = self._loaded.id
        self.names = names
        self._text, self._phrases = encode_prompts(
            model.load_tokenizer(path), names, int(self._loaded.network.config.max_text_len)
        )

    def detect(self, frame: Frame) -> tuple[ObjectQueries2D, FeatureMap]:
        """Objects, best first, and the finest feature level."""
        queries, levels = self.detect_levels(frame)
        return queries, levels[0]

    def detect_levels(self, frame: Frame) -> tuple[ObjectQueries2D, tuple[FeatureMap, ...]]:
        """Objects, best first, and the encoder's levels, fine to coarse. Labels are numbers of `names`."""
        prepared = self._prepare(frame.rgb)
        device = self._loaded.device
        with model.inference(device):
            output = self._loaded.network(
                pixel_values=prepared.pixels.to(device),
                pixel_mask=prepared.valid.long().to(device),
                **{name: values.to(device) for name, values in self._text.items()},
            )
            queries = self._queries(output, prepared)
            count = int(self._loaded.network.config.num_feature_levels)
            size = (int(prepared.pixels.shape[2]), int(prepared.pixels.shape[3]))
            levels = split_levels(output.encoder_last_hidden_state_vision[0], level_sizes(size, count))
            maps = tuple(
                feature_map(values, _FINEST << number, prepared, self.id) for number, values in enumerate(levels)
            )
        return queries, maps

    def _queries(self, output: Any, prepared: Prepared) -> ObjectQueries2D:
        # A phrase fits as well as the best of its tokens, as in the published code.
        tokens = output.logits[0].float().sigmoid()[:, : self._phrases.shape[1]]
        phrases = self._phrases.to(tokens.device)
        fit = torch.where(phrases[None], tokens[:, None], tokens.new_zeros(())).amax(-1)
        scores, labels = fit.max(-1)
        keep = scores >= self._min_score
        boxes, score = pixel_boxes(output.pred_boxes[0][keep], prepared.image), scores[keep].cpu().numpy()
        rows = without_duplicates(boxes, score, _MOST_OVERLAP)
        features: Array = output.last_hidden_state[0][keep].float().cpu().numpy()
        return ObjectQueries2D(features[rows], boxes[rows], score[rows], self.id, labels[keep].cpu().numpy()[rows])


def clean_prompts(prompts: Sequence[str]) -> tuple[str, ...]:
    """Lower case, one line, without full stops, which separate phrases; each once. Raises ConfigError for none."""
    lines = (" ".join(str(p).lower().replace(".", " ").split()) for p in prompts)
    names = tuple(dict.fromkeys(line for line in lines if any(c.isalnum() for c in line)))
    if not names:
        raise ConfigError("perception.prompts is empty: name what to look for, for example `chair, red cup`")
    return names


def encode_prompts(tokenizer: Any, names: Sequence[str], most_tokens: int) -> tuple[dict[str, Tensor], Tensor]:
    """The network's text input, (1, T) each, and which tokens belong to each phrase, bool (len(names), T).

    Raises ConfigError where the text has more tokens than the network reads.
    """
    text = ". ".join(names) + "."
    ends = np.cumsum([len(name) + 2 for name in names]) - 2
    starts = ends - [len(name) for name in names]
    encoded = tokenizer(text, return_offsets_mapping=True, return_tensors="pt")
    offsets = encoded.pop("offset_mapping")[0].numpy()
    count = len(offsets)
    if count > most_tokens:
        longest = max(names, key=len)
        raise ConfigError(
            f"perception.prompts: {count} tokens in {len(names)} phrases, the model reads {most_tokens}; give fewer or "
            f"shorter ones (the longest has {len(longest)} characters: {longest[:_SHOWN]!r})"
        )
    begin, end = offsets.T
    inside = (begin[None] >= starts[:, None]) & (end[None] <= ends[:, None]) & (end > begin)[None]
    return dict(encoded), torch.from_numpy(inside)


def level_sizes(size: tuple[int, int], levels: int) -> list[tuple[int, int]]:
    """(h, w) of each level of an input (H, W): strides 8, 16, ..., each rounded up from the one before."""
    rows, columns = (-(-side // _FINEST) for side in size)
    sizes = []
    for _ in range(levels):
        sizes.append((rows, columns))
        rows, columns = -(-rows // 2), -(-columns // 2)
    return sizes


def split_levels(sequence: Tensor, sizes: Sequence[tuple[int, int]]) -> list[Tensor]:
    """Levels (C, h, w) of a flattened sequence (sum of h w, C), in its order. Raises WeightsError."""
    counts = [rows * columns for rows, columns in sizes]
    if sum(counts) != len(sequence):
        raise WeightsError(
            f"a model of {len(sequence)} image tokens, but levels {list(sizes)} have {sum(counts)}: its backbone's "
            "strides are not 8, 16 and 32, which the known models have"
        )
    parts = sequence.split(counts)
    return [part.reshape(*size, -1).permute(2, 0, 1) for part, size in zip(parts, sizes, strict=True)]
