# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""SigLIP, SigLIP 2 of fixed resolution, and CLIP as transformers has them, from a local folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.nn import functional

from ...types import Array
from ..huggingface import model
from ..huggingface.folder import checked_folder, preprocessor_settings
from .crops import crop_batch

_CLASSES = {"siglip": "SiglipModel", "siglip2": "SiglipModel", "clip": "CLIPModel"}
_BATCH_CPU, _BATCH_GPU = 8, 64
_HALF = (0.5, 0.5, 0.5)


class SiglipEncoder:
    """Image and text towers as unit vectors (implements `Encoder`); `load` makes one from a folder."""

    approximate = False

    def __init__(self, loaded: model.LoadedModel, tokenizer: Any):
        self._loaded = loaded
        self._tokenizer = tokenizer
        config = loaded.network.config
        settings = preprocessor_settings(loaded.folder)
        self._preprocessing: dict[str, Any] = {
            "size": int(config.vision_config.image_size),
            "mean": tuple(settings.get("image_mean") or _HALF),
            "std": tuple(settings.get("image_std") or _HALF),
            "interpolation": Image.Resampling(int(settings.get("resample", Image.Resampling.BICUBIC))).name,
        }
        self._context = int(config.text_config.max_position_embeddings)
        # SigLIP was trained on texts of one length and reads its padding; CLIP does not.
        self._padding = "longest" if loaded.kind == "clip" else "max_length"
        self._batch = _BATCH_GPU if loaded.device.type == "cuda" else _BATCH_CPU
        self.id = loaded.id
        self.dim = int(self.encode_text(["a chair"]).shape[1])

    def encode_text(self, texts: Sequence[str]) -> Array:
        """Unit vectors float32 (len(texts), dim); texts beyond the model's context are cut."""
        if not texts:
            return np.zeros((0, self.dim), np.float32)
        tokens = self._tokenizer(
            [text.lower() for text in texts],
            padding=self._padding,
            truncation=True,
            max_length=self._context,
            return_tensors="pt",
        )
        wanted = ("input_ids", "attention_mask") if self._loaded.kind == "clip" else ("input_ids",)
        return self._unit("get_text_features", **{name: tokens[name] for name in wanted})

    def encode_images(self, crops: Sequence[Array]) -> Array:
        """Unit vectors float32 (len(crops), dim) of uint8 (h, w, 3) crops, padded to squares, never cut."""
        parts = [np.zeros((0, self.dim), np.float32)]
        for start in range(0, len(crops), self._batch):
            batch = torch.from_numpy(crop_batch(crops[start : start + self._batch], **self._preprocessing))
            parts.append(self._unit("get_image_features", pixel_values=batch))
        return np.concatenate(parts)

    def _unit(self, method: str, **inputs: torch.Tensor) -> Array:
        device = self._loaded.device
        with model.inference(device):
            output = getattr(self._loaded.network, method)(**{name: value.to(device) for name, value in inputs.items()})
            vectors = output if isinstance(output, torch.Tensor) else output.pooler_output
            return functional.normalize(vectors.float(), dim=-1).cpu().numpy()


def load(folder: str | Path) -> SiglipEncoder:
    """From a local folder. Raises WeightsError that says how to get one."""
    path = checked_folder(folder, "query.siglip_dir", "google/siglip2-base-patch16-224")
    tokenizer = model.load_tokenizer(path)
    return SiglipEncoder(model.load(path, _CLASSES), tokenizer)
