# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Settings of the training data; `training.config` holds them as one of its groups."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Benchmark = Literal["scannet20", "scannet200"]


class Group(BaseModel):
    """Settings that belong together."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


def setting(default: Any, description: str, unit: str = "", **limits: Any) -> Any:
    """A field with a description, a unit and a range."""
    return Field(default, description=description, json_schema_extra={"unit": unit}, **limits)


class AugmentConfig(Group):
    """Random changes of a training scene, in the order in which they are drawn."""

    enabled: bool = setting(True, "off: training scenes stay as they are, save for query dropout")
    flip_probability: float = setting(0.5, "of mirroring x, and again of mirroring y", "", ge=0, le=1)
    rotation: float = setting(3.14, "largest turn about z, either way", "rad", ge=0, le=3.15)
    scale: tuple[float, float] = setting((0.8, 1.2), "range of the factor on all coordinates")
    translation: float = setting(0.1, "standard deviation of the shift along each axis", "m", ge=0, le=100)
    elastic_probability: float = setting(0.5, "of an elastic distortion", "", ge=0, le=1)
    elastic_granularity: tuple[int, ...] = setting((6, 20), "spacing of each stage's noise", "voxels")
    elastic_magnitude: tuple[float, ...] = setting((40.0, 160.0), "strength of each stage", "voxels")

    @model_validator(mode="after")
    def _check(self) -> AugmentConfig:
        low, high = self.scale
        if not 0 < low <= high:
            raise ValueError(f"scale runs from {low} to {high}: both above 0, the lower one first")
        if len(self.elastic_granularity) != len(self.elastic_magnitude) or min(self.elastic_granularity, default=1) < 1:
            raise ValueError("elastic_granularity and elastic_magnitude need as many numbers, the former 1 or more")
        return self


class DataConfig(Group):
    """Which scenes are read, from where, and what is done to them."""

    root: str = setting("", "folder that `python -m training.prepare` has filled")
    benchmark: Benchmark = setting("scannet200", "list of classes")
    train_split: str = setting("train", "split that is trained on")
    val_split: str = setting("val", "split that is evaluated")
    features: str = setting("", "2D features: a name below `root`/features, or a folder of published .pth files")
    image_features: bool = setting(True, "read the image features of points")
    object_queries: bool = setting(True, "read the 2D object queries")
    query_dropout: float = setting(0.7, "share of 2D object queries left out in training", "", ge=0, lt=1)
    augment: AugmentConfig = AugmentConfig()
    voxel_size: float = setting(0.02, "edge of the network's voxels", "m", gt=0, le=1)
    batch_size: int = setting(4, "scenes of a step in each process", "scenes", ge=1, le=1024)
    workers: int = setting(8, "processes that load scenes; 0: none", "", ge=0, le=256)
    release_first_instance_defect: bool = setting(
        False, "as released: the first thing of a scene without background or stuff becomes background"
    )
