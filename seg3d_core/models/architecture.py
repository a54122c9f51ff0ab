# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""What a SegDINO3D network is made of: the published configurations and the paper's ablations. No torch here."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

from ..errors import WeightsError

COLOURS, CENTRED_POSITION, IMAGE_FEATURES = 3, 3, 256


@dataclass(frozen=True)
class Architecture:
    """The sizes of a network, and its switches, which are the ablations of the paper (its Tables 2 to 6 and 8).

    `backbone` is the 3D network (`mlp`: none, points are seen one by one, Table 3); `feature_channels` what it gives
    per point; `classes` are things, without "no object", `semantic_classes` things and stuff, without "unlabelled".
    """

    backbone: Literal["minkowski", "spconv", "mlp"]
    thing_classes: int
    semantic_classes: int
    feature_channels: int
    image_features: bool = True
    late_image_features: bool = False
    object_queries: bool = True
    distance_mask: bool = True
    centre_encoding: bool = True
    box_regression: bool = True
    box_modulation: bool = True
    sizes: Literal["normalised", "metric"] = "normalised"
    layers: int = 6
    width: int = 256
    heads: int = 8
    feed_forward_width: int = 1024
    distance_threshold: float = 0.2
    """Metres, L1."""
    temperature: float = 20.0
    """Of the positional encoding."""
    voxel_size: float = 0.02
    """Metres."""
    levels: int = 5
    """Resolutions of the spconv U-Net."""
    blocks: int = 2
    """Residual blocks of each of them, down and up."""

    def __post_init__(self) -> None:
        if self.backbone not in ("minkowski", "spconv", "mlp") or self.sizes not in ("normalised", "metric"):
            raise WeightsError(f"no architecture of a {self.backbone!r} backbone and {self.sizes!r} box sizes")
        if self.box_modulation and not self.box_regression:
            raise WeightsError("box modulation needs box regression: switch both off, or neither")
        if self.box_regression and not self.centre_encoding:
            raise WeightsError("box regression needs the centre encoding: switch both off, or neither")
        if self.image_features and self.late_image_features:
            raise WeightsError("image features enter before the backbone or after it, not both")
        if (self.levels, self.blocks) != (5, 2) and self.backbone != "spconv":
            raise WeightsError(f"levels and blocks are those of the spconv backbone: a {self.backbone} one has none")
        if self.levels < 1 or self.blocks < 1:
            raise WeightsError(f"no spconv U-Net of {self.levels} levels and {self.blocks} blocks: 1 or more each")
        if not 0 < self.voxel_size <= 1:
            raise WeightsError(f"voxels of {self.voxel_size} m: above 0 and at most 1 are possible")
        if self.width % self.heads:
            raise WeightsError(f"a width of {self.width} does not split into {self.heads} heads")

    @property
    def in_channels(self) -> int:
        """Of a point, as the backbone sees it: colours, centred position (spconv alone), image features."""
        position = CENTRED_POSITION if self.backbone == "spconv" else 0
        return COLOURS + position + (IMAGE_FEATURES if self.image_features else 0)

    @property
    def needs_2d(self) -> bool:
        """Whether weights of one 2D feature source are useless with another's."""
        return self.image_features or self.late_image_features or self.object_queries


PUBLISHED: dict[str, Architecture] = {
    "scannet200": Architecture("minkowski", 198, 200, 96),
    "scannetv2": Architecture("spconv", 18, 20, 32, sizes="metric"),
    "baseline200": Architecture(
        "minkowski",
        198,
        200,
        96,
        image_features=False,
        object_queries=False,
        centre_encoding=False,
        box_regression=False,
        box_modulation=False,
    ),
}
"""By name, as trained by the paper's authors."""


def same_source(one: str, other: str) -> bool:
    """Whether two names of 2D feature sources may mean one: `grounding-dino` and `grounding-dino-1f3a` do."""
    longer, shorter = sorted((one, other), key=len, reverse=True)
    return bool(shorter) and (longer == shorter or longer.startswith(f"{shorter}-"))


def differences(found: Architecture, wanted: Architecture) -> list[str]:
    """One sentence per field in which the two differ."""
    pairs = ((f.name, getattr(found, f.name), getattr(wanted, f.name)) for f in fields(Architecture))
    return [f"{name} is {a} in the weights, {b} was asked for" for name, a, b in pairs if a != b]
