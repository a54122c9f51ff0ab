# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""SAM (Kirillov et al., ICCV 2023) and SAM 2: masks of clicks, of boxes, and of everything."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...config import PerceptionConfig
from ...types import Array, FeatureMap, Frame, Masks2D, ObjectQueries2D
from ..boxes import boxes_of
from ..geometric import GeometricMasks
from ..mobile_sam import automatic
from . import model
from .folder import checked_folder
from .images import Prepared, Preprocessing, feature_map, to_image
from .results import paint

CLASSES = {"sam": "SamModel", "sam2": "Sam2Model", "sam2_video": "Sam2Model"}
_STRIDE, _LOGIT_STRIDE = 16, 4
_BATCH_GPU, _BATCH_CPU = 64, 16
# Upsampled masks take 4 H W bytes each.
_UPSAMPLED_AT_ONCE = 32


class Sam:
    """Masks and features of one image (implements `MaskGenerator`, `Detector2D` and `BoxSegmenter`)."""

    chooses_keyframes = False

    def __init__(
        self,
        folder: str | Path,
        config: PerceptionConfig | None = None,
        setting: str = "perception.model_dir",
    ):
        """Loads a local folder, which `setting` named; `sam_*` of the config are as for MobileSAM.

        Raises WeightsError.
        """
        self._config = config or PerceptionConfig()
        path = checked_folder(folder, setting, "facebook/sam2.1-hiera-tiny")
        self._loaded = model.load(path, CLASSES, self._config.device)
        network_config = self._loaded.network.config
        is_first = self._loaded.kind == "sam"
        side = int(
            network_config.vision_config.image_size if is_first else network_config.prompt_encoder_config.image_size
        )
        # SAM keeps the shape and pads, SAM 2 stretches.
        square = {"height": side, "width": side}
        settings = {"size": {"longest_edge": side}, "pad_size": square} if is_first else {"size": square}
        self._prepare = Preprocessing.read(path, {}, always=settings)
        # Behind the IoU token, and with SAM 2 the object score's before it.
        self._first_token = 1 if is_first else 2
        self._geometric = GeometricMasks(self._config)
        self._batch = _BATCH_GPU if self._loaded.device.type == "cuda" else _BATCH_CPU
        self.id = self._loaded.id

    def masks(self, frame: Frame) -> Masks2D:
        """Everything: one click per segment that depth shows, then a grid, coarse to fine, where nothing is yet."""
        masks = self.detect(frame)[0].masks
        assert masks is not None
        return masks

    def detect(self, frame: Frame) -> tuple[ObjectQueries2D, FeatureMap]:
        """The automatic masks with their mask tokens (row k has label k + 1), and the image embedding."""
        config = self._config
        limits = automatic.Limits(config.sam_iou, config.sam_stability, least_area=config.min_area)
        with model.inference(self._loaded.device):
            prepared, embedding = self._encode(frame.rgb)
            found, _ = automatic.find_candidates(
                lambda points: self._click(points, prepared, embedding),
                self._rounds(frame, prepared.image),
                prepared.image,
                config.sam_prompts,
                min(self._batch, config.sam_prompts),
                limits,
            )
            found = automatic.without_duplicates(found, limits.most_overlap)
            masks = self._upsample(torch.from_numpy(found.logits), prepared)
            pixels = self._feature_map(embedding, prepared)
        image, rows = paint(masks, found.iou, config.min_area * masks[0].size if len(masks) else 0)
        tokens = found.tokens[rows]
        return ObjectQueries2D(tokens, boxes_of(image), image.scores, self.id, masks=image), pixels

    def masks_of_boxes(self, frame: Frame, boxes: Array) -> tuple[Array, Array]:
        """Masks bool (n, H, W) and predicted IoU float32 (n,) of boxes (n, 4) xyxy in pixels."""
        masks, iou, _ = self.segment_boxes(frame, boxes)
        return masks, iou

    def segment_boxes(self, frame: Frame, boxes: Array) -> tuple[Array, Array, Array]:
        """As `masks_of_boxes`, third the mask tokens float32 (n, C)."""
        with model.inference(self._loaded.device):
            prepared, embedding = self._encode(frame.rgb)
            corners = _to_network(np.asarray(boxes, np.float32).reshape(-1, 2), prepared).reshape(1, -1, 4)
            answers = [
                self._decode(embedding, False, input_boxes=part.to(self._loaded.device))
                for part in torch.from_numpy(corners).split(self._batch, dim=1)
                if part.shape[1]
            ]
            masks = [self._upsample(logits[:, 0], prepared) for logits, _, _ in answers]
        if not answers:
            width = int(self._loaded.network.config.mask_decoder_config.hidden_size)
            return np.empty((0, *prepared.image), bool), np.empty(0, np.float32), np.empty((0, width), np.float32)
        iou = torch.cat([quality[:, 0] for _, quality, _ in answers]).cpu().numpy().clip(0, 1)
        return np.concatenate(masks), iou, torch.cat([tokens[:, 0] for _, _, tokens in answers]).cpu().numpy()

    def _encode(self, rgb: Array) -> tuple[Prepared, Any]:
        prepared = self._prepare(rgb)
        return prepared, self._loaded.network.get_image_embeddings(prepared.pixels.to(self._loaded.device))

    def _feature_map(self, embedding: Any, prepared: Prepared) -> FeatureMap:
        coarsest = embedding if isinstance(embedding, Tensor) else embedding[-1]
        return feature_map(coarsest[0], _STRIDE, prepared, self.id)

    def _rounds(self, frame: Frame, size: tuple[int, int]) -> Iterator[Array]:
        yield automatic.interior_points(self._geometric.masks(frame).labels)
        for count in automatic.GRID_LEVELS:
            yield automatic.grid_points(count, *size)

    def _click(self, points: Array, prepared: Prepared, embedding: Any) -> tuple[Array, Array, Array]:
        """Logits (n, 3, h, w) of the image without padding, predicted IoU (n, 3) and tokens (n, 3, C)."""
        xy = torch.from_numpy(_to_network(points, prepared))[None, :, None].to(self._loaded.device)
        labels = torch.ones(xy.shape[:3], dtype=torch.long, device=xy.device)
        logits, iou, tokens = self._decode(embedding, True, input_points=xy, input_labels=labels)
        rows, columns = (-(-side // _LOGIT_STRIDE) for side in prepared.size)
        return logits[:, :, :rows, :columns].cpu().numpy(), iou.cpu().numpy(), tokens.cpu().numpy()

    def _decode(self, embedding: Any, several: bool, **prompts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits (n, k, h, w), predicted IoU (n, k), tokens (n, k, C); k = 3 readings of a click, or 1 of a box.

        Where SAM 2 falls back to one of the three for a box, the token stays that of the single answer.
        """
        states: list[Tensor] = []
        transformer = self._loaded.network.mask_decoder.transformer
        hook = transformer.register_forward_hook(lambda _module, _arguments, output: states.append(output[0]))
        try:
            output = self._loaded.network(image_embeddings=embedding, multimask_output=several, **prompts)
        finally:
            hook.remove()
        first = self._first_token + int(several)
        tokens = states[0][0, :, first : first + output.iou_scores.shape[-1]]
        return output.pred_masks[0].float(), output.iou_scores[0].float(), tokens.float()

    def _upsample(self, logits: Tensor, prepared: Prepared) -> Array:
        """bool (n, H, W) of logits (n, h, w)."""
        parts = [np.empty((0, *prepared.image), bool)]
        for part in logits.to(self._loaded.device).split(_UPSAMPLED_AT_ONCE):
            if len(part):
                parts.append((to_image(part, _LOGIT_STRIDE, prepared) > 0).cpu().numpy())
        return np.concatenate(parts)


def _to_network(points: Array, prepared: Prepared) -> Array:
    """Pixels (n, 2) x first of the image to pixels of the resized image, as the models' own processors do."""
    return np.asarray(points, np.float32) * np.array(prepared.scale[::-1], np.float32)
