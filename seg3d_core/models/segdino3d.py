# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""SegDINO3D whole: points, superpoints and what 2D models saw of the scene in; instances out."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from ..config import SegDino3DConfig
from ..errors import Seg3DError
from .architecture import IMAGE_FEATURES, Architecture
from .backbones import MinkUNet, Points, SpConvUNet, Superpoints, encode_scenes, normalise_colours
from .backbones.scene import mean_per_group
from .boxes import Mlp
from .decoder import Decoder, DecoderInput, DecoderOutput
from .postprocess import ScenePredictions, empty_predictions, instances, panoptic, semantic_classes
from .sparse import Backend
from .voxel_mlp import VoxelMlp

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class SceneInput:
    """Points of one scene, and its O 2D object queries: content (O, 256) and centres (O, 3) in the points' frame."""

    points: Points
    queries_2d: Tensor
    query_2d_positions: Tensor


@dataclass(frozen=True, eq=False)
class SceneResult:
    """Of N points: instances; semantic class int64 (N,), the number of classes where unlabelled; and the panoptic map,
    semantic class and instance number int64 (N,) each."""

    instances: ScenePredictions
    semantic: Tensor
    panoptic_semantic: Tensor
    panoptic_instance: Tensor


class SegDino3D(nn.Module):
    """The network (SegDINO3D, fig. 2). `backbone` takes a `SparseTensor`, as `MinkUNet` and `SpConvUNet` do."""

    def __init__(
        self, settings: Architecture, backbone: nn.Module | None = None, sparse_backend: Backend | None = None
    ):
        super().__init__()
        self.settings = settings
        self.sparse_backend = sparse_backend
        self.backbone = make_backbone(settings) if backbone is None else backbone
        self.late_fusion = None
        if settings.late_image_features:
            channels = settings.feature_channels
            self.late_fusion = Mlp(channels + IMAGE_FEATURES, settings.width, channels)
        self.decoder = Decoder(settings)

    def forward(
        self,
        scenes: Sequence[SceneInput],
        query_ids: Sequence[Tensor | None] | None = None,
        auxiliary: bool = False,
    ) -> list[DecoderOutput]:
        """Queries of each scene and `auxiliary` as in `Decoder`. Scenes meet in the backbone's batch norm alone."""
        inputs = self.encode(scenes)
        chosen = query_ids or [None] * len(inputs)
        return [self.decoder(scene, ids, auxiliary) for scene, ids in zip(inputs, chosen, strict=True)]

    def encode(self, scenes: Sequence[SceneInput]) -> list[DecoderInput]:
        """Points to superpoints."""
        points = [scene.points for scene in scenes]
        for each in points:
            self._check_image_features(each)
        seen = points if self.settings.image_features else [replace(p, image_features=None) for p in points]
        superpoints = encode_scenes(self.backbone, seen, self.sparse_backend, self.settings.voxel_size)
        return [self._decoder_input(*pair) for pair in zip(superpoints, scenes, strict=True)]

    def _check_image_features(self, points: Points) -> None:
        wants = self.settings.image_features or self.settings.late_image_features
        found = None if points.image_features is None else points.image_features.shape[1]
        if wants and found != IMAGE_FEATURES:
            raise Seg3DError(
                f"This network takes {IMAGE_FEATURES} image features per point, the scene has {found or 'none'}: "
                "lift the features that its weights were trained with"
            )

    def _decoder_input(self, superpoints: Superpoints, scene: SceneInput) -> DecoderInput:
        features = superpoints.features
        if self.late_fusion is not None and scene.points.image_features is not None:
            ids = scene.points.superpoints
            seen = mean_per_group(scene.points.image_features, ids, len(features))
            features = self.late_fusion(torch.cat((features, seen), dim=1))
        return DecoderInput(
            features,
            superpoints.positions,
            superpoints.positions_unwarped,
            superpoints.low,
            superpoints.high,
            scene.queries_2d,
            scene.query_2d_positions,
        )


def make_backbone(settings: Architecture) -> nn.Module:
    """The 3D network of an architecture. Raises Seg3DError where it gives other channels than the decoder takes."""
    if settings.backbone == "mlp":
        return VoxelMlp(settings.in_channels, settings.feature_channels)
    if settings.backbone == "spconv":
        return SpConvUNet(settings.in_channels, settings.feature_channels, settings.levels, settings.blocks)
    if MinkUNet.out_channels != settings.feature_channels:
        raise Seg3DError(
            f"The minkowski backbone gives {MinkUNet.out_channels} channels, not {settings.feature_channels}"
        )
    return MinkUNet(settings.in_channels)


def prepare_scene(
    xyz: Tensor,
    rgb: Tensor,
    superpoints: Tensor,
    image_features: Tensor | None = None,
    queries_2d: Tensor | None = None,
    query_2d_positions: Tensor | None = None,
) -> SceneInput:
    """A scene of one or more points as the network wants it, float32 on the device of `xyz`.

    xyz (N, 3) metres, rgb (N, 3) from 0 to 255, superpoint ids int (N,) of any values, image features (N, 256) with
    zeros where no view saw the point, 2D object queries (O, 256) and their centres (O, 3). Features that are not
    finite become zero, 2D queries that are not finite go; both are logged. Raises Seg3DError.
    """
    if len(superpoints) != len(xyz) or len(rgb) != len(xyz):
        raise Seg3DError(f"{len(xyz)} points, {len(rgb)} colours and {len(superpoints)} superpoint ids do not agree")
    if not torch.isfinite(xyz).all():
        raise Seg3DError("Some points have no finite position: leave them out before the network sees the scene")
    if image_features is not None:
        image_features = _finite_or_zero(image_features.float())
    if queries_2d is None or query_2d_positions is None:
        queries_2d, query_2d_positions = xyz.new_zeros(0, IMAGE_FEATURES), xyz.new_zeros(0, 3)
    if len(queries_2d) != len(query_2d_positions):
        raise Seg3DError(f"{len(queries_2d)} 2D object queries have {len(query_2d_positions)} centres")
    is_finite = torch.isfinite(queries_2d).all(dim=1) & torch.isfinite(query_2d_positions).all(dim=1)
    if not is_finite.all():
        log.warning("%d 2D object queries are not finite and are left out", int((~is_finite).sum()))
    # Ids without a point would become queries at the origin.
    _, ids = torch.unique(superpoints, return_inverse=True)
    points = Points(xyz.float(), normalise_colours(rgb.float()), ids, image_features)
    return SceneInput(points, queries_2d[is_finite].float(), query_2d_positions[is_finite].float())


@torch.no_grad()
def segment(model: SegDino3D, scene: SceneInput | None, settings: SegDino3DConfig) -> SceneResult:
    """The instances of a scene by a model in evaluation mode; none (of None: a map without points) is a result too."""
    if scene is None:
        nothing = torch.zeros(0, dtype=torch.int64)
        return SceneResult(empty_predictions(), nothing, nothing, nothing)
    is_half = settings.precision == "half" and scene.points.xyz.is_cuda
    with torch.autocast("cuda", torch.float16, enabled=is_half):
        (superpoints,) = model.encode([scene])
        query_ids = None
        if 0 < settings.max_queries < len(superpoints.features):
            query_ids = model.decoder.most_certain(superpoints, settings.max_queries)
        output = model.decoder(superpoints, query_ids).float()
    ids = scene.points.superpoints
    found = instances(output.final, scene.points.xyz, ids, settings)
    return SceneResult(found, semantic_classes(output, ids), *panoptic(output, found, ids, settings))


def _finite_or_zero(features: Tensor) -> Tensor:
    is_finite = torch.isfinite(features).all(dim=1)
    if not is_finite.all():
        log.warning("%d points have image features that are not finite: zeros instead", int((~is_finite).sum()))
        features = torch.where(is_finite[:, None], features, torch.zeros_like(features))
    return features
