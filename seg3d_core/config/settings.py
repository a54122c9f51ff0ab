# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""The tree of settings: each with its default, a description, a unit and a range."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator


class _Group(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


def _setting(default: Any, description: str, unit: str = "", **limits: Any) -> Any:
    return Field(default, description=description, json_schema_extra={"unit": unit}, **limits)


class MapConfig(_Group):
    """The fused point map."""

    voxel_size: float = _setting(0.02, "edge of a voxel; one map point each", "m", ge=0.002, le=0.5)
    depth_min: float = _setting(0.1, "nearer depth is ignored", "m", ge=0.0, le=10.0)
    depth_max: float = _setting(6.0, "farther depth is ignored", "m", gt=0.0, le=100.0)
    max_points: int = _setting(
        5_000_000,
        "most points; far and least seen ones make way for new ones, as they do at memory.map_mb",
        "points",
        ge=1000,
        le=50_000_000,
    )
    depth_tolerance: float = _setting(
        0.02, "a point is visible when its depth agrees this well with the image's", "m", gt=0.0, le=1.0
    )
    depth_tolerance_relative: float = _setting(0.01, "added to that, per metre of depth", "m/m", ge=0.0, le=0.5)
    slope_tolerance: float = _setting(
        0.5, "added to that, in pixels of the local depth slope: grazing floors stay visible", "px", ge=0.0, le=3.0
    )
    fade: float = _setting(
        1.0,
        "sightings that a point loses when a frame sees through it; 0 keeps ghosts of moved things",
        "",
        ge=0,
        le=100,
    )
    max_weight: float = _setting(
        50.0, "sightings beyond this are forgotten, so that old things can fade", "", ge=1, le=1e4
    )

    @model_validator(mode="after")
    def _check_range(self) -> MapConfig:
        if self.depth_min >= self.depth_max:
            raise ValueError(f"depth_min = {self.depth_min} m must be below depth_max = {self.depth_max} m")
        return self


class KeyframeConfig(_Group):
    """Which frames are looked at by the 2D models."""

    translation: float = _setting(0.15, "a frame this far from the last keyframe becomes one", "m", ge=0.0, le=10.0)
    rotation: float = _setting(0.2, "or turned by this much", "rad", ge=0.0, le=3.2)
    overlap: float = _setting(
        0.7, "or when less than this share of its image shows what the last keyframe saw; 0: never", "", ge=0, le=1
    )
    pose_jump: float = _setting(
        1.0,
        "a pose this far from the last one within a second is a jump: counted, the frame dropped",
        "m",
        gt=0,
        le=100,
    )


class CorrectionConfig(_Group):
    """Corrected poses of frames of before (loop closure): the map follows them."""

    translation: float = _setting(
        0.001,
        "a correction that moves no pose by this much, nor turns one by corrections.rotation, is not applied",
        "m",
        ge=0.0,
        le=10.0,
    )
    rotation: float = _setting(0.0001, "see corrections.translation", "rad", ge=0.0, le=3.2)


class PerceptionConfig(_Group):
    """What one image says."""

    masks: Literal[
        "geometric",
        "mobile_sam",
        "fused",
        "both",
        "files",
        "topic",
        "ground_truth",
        "cropformer",
        "mask2former",
        "detector",
        "sam",
    ] = _setting(
        "geometric",
        "where 2D masks come from: depth alone, MobileSAM, depth amended by MobileSAM (fused), both side by side, "
        "a folder of label PNGs, a topic, the source's own truth, CropFormer, "
        "or a model in perception.model_dir",
    )
    model_dir: str = _setting(
        "",
        "mask2former, detector (Grounding DINO, RT-DETR, D-FINE), sam (or SAM 2): a local folder as a hub lays it out",
    )
    prompts: str = _setting("", "detector: what Grounding DINO looks for: names of things, separated by commas")
    min_score: float = _setting(0.25, "mask2former, detector: what scores less is left out", "", ge=0, le=1)
    box_segmenter_dir: str = _setting(
        "", "detector: local folder of a SAM or SAM 2 that turns boxes into masks; empty: MobileSAM if here, else depth"
    )
    device: Literal["auto", "cpu", "cuda"] = _setting("auto", "where networks of masks run, CropFormer apart")
    sam_side: int = _setting(
        512,
        "mobile_sam, fused, both: longest side of the network's input; 512, 768 and 1024 are tried",
        "px",
        ge=128,
        le=2048,
        multiple_of=16,
    )
    sam_prompts: int = _setting(30, "mobile_sam, fused, both, sam: most clicks per image", "", ge=1, le=2000)
    sam_iou: float = _setting(
        0.8, "mobile_sam, fused, both, sam: least IoU that the network predicts of a mask", "", ge=0, le=1
    )
    fused_first: Literal["depth", "colour"] = _setting(
        "depth", "fused: which masks are the base that the other ones amend; colour for noisy depth"
    )
    sam_stability: float = _setting(
        0.85,
        "mobile_sam, fused, both, sam: least share of a mask that stays when its limit moves by one",
        "",
        ge=0,
        le=1,
    )
    sam_nested: bool = _setting(
        True, "mobile_sam, both: where masks overlap, the parts are one label image and the wholes another; off: parts"
    )
    masks_dir: str = _setting("", "the folder of label PNGs for `files`, one per frame, named as the frame")
    cropformer_weights: str = _setting(
        "cropformer_hornet",
        "cropformer: a published file, or its name in `seg3d models list`; the weights are CC BY-NC",
    )
    cropformer_confidence: float = _setting(
        0.25, "cropformer: least published score of a mask; 0.25 in RE0's paper, 0.5 in the demos", "", ge=0, le=0.73
    )
    cropformer_score: Literal["published", "plain"] = _setting(
        "published",
        "cropformer: published squashes a mask's probabilities twice, plain once with the confidence scaled to match",
    )
    cropformer_crops: bool = _setting(
        True, "cropformer: also look at four crops, five times the work; a plain Mask2Former has no use for them"
    )
    cropformer_short_side: int = _setting(
        800,
        "cropformer: short side of the network's input; less is faster and not what was trained",
        "px",
        ge=64,
        le=2000,
    )
    cropformer_half: bool = _setting(False, "cropformer: bfloat16 where the release's own code allows it")
    cropformer_device: str = _setting("auto", "cropformer: auto, cpu, cuda or cuda:N")
    cropformer_config: str = _setting(
        "", "cropformer: YAML file of the entity project; runs the release itself where detectron2 is installed"
    )
    gap: float = _setting(0.005, "geometric: depth step that ends a surface", "m", gt=0, le=0.5)
    gap_quadratic: float = _setting(0.003, "geometric: added to that, times depth squared", "m/m^2", ge=0, le=0.5)
    fold_angle: float = _setting(
        0.52, "geometric: a concave fold sharper than this ends a surface", "rad", gt=0, le=1.6
    )
    fold_depth: float = _setting(
        1.0,
        "geometric: least depth of that fold, in pixels of its own distance, so at any resolution",
        "px",
        ge=0,
        le=20,
    )
    min_area: float = _setting(1 / 1600, "masks below this share of the image are dropped", "", ge=0, le=1)
    auto_noise: bool = _setting(True, "geometric: raise the gap limits with the sensor noise measured in each image")
    colour: bool = _setting(True, "geometric: split what is flat along colour edges, join small pieces that look alike")
    colour_contrast: float = _setting(20.0, "geometric: contrast of such an edge, 8-bit CIELAB units", "", gt=0, le=255)
    drop_planes: float = _setting(
        0.0, "geometric: flat masks this large that reach the border become background; 0: none", "m^2", ge=0, le=1000
    )


class Re0Config(_Group):
    """The zero-shot core (RE0, arXiv preprint; `docs/architecture.md` says how its holes were filled)."""

    reading: Literal["seg3d", "paper", "published"] = _setting(
        "seg3d",
        "how the paper is read: seg3d is ours, without limits to set; paper is its text, its holes filled; "
        "published is its released code",
    )
    k_align: float = _setting(
        0.5,
        "paper, published: share of a mask's labelled points that must agree for it to take a label",
        "",
        ge=0,
        le=1,
    )
    min_labelled: float = _setting(
        0.25, "paper: share of a mask's points that must carry a label before it may align", "", ge=0, le=1
    )
    count_unlabelled: bool = _setting(
        False, "paper: k_align is a share of all points of a mask, as it is in published, not of the labelled ones"
    )
    k_proj: float = _setting(
        0.4,
        "paper, published: share of an instance's points visible in a frame for it to merge there",
        "",
        ge=0,
        le=1,
    )
    k_mask: float = _setting(0.6, "paper, published: share of those on one mask", "", ge=0, le=1)
    merge: bool = _setting(True, "paper, published: merge instances that share a mask (eqs. 3 to 5)")
    slots: int = _setting(6, "paper: labels remembered per point (published: one, seg3d: none)", "", ge=2, le=16)
    min_points: int = _setting(50, "smaller instances are dropped at output", "points", ge=1, le=100_000)
    max_keyframes: int = _setting(
        1000, "keyframes kept in the log; the oldest redundant ones go first", "", ge=2, le=100_000
    )


class SegDino3DConfig(_Group):
    """The trained core (SegDINO3D, arXiv preprint): its weights, and how its predictions become instances."""

    weights: str = _setting(
        "",
        "a file of weights: ours (`seg3d models convert`) or as published; empty: the small network that comes along, "
        "where masks come from mobile_sam",
    )
    features_2d: str = _setting(
        "auto", "the 2D feature source that runs, whose weights are taken; auto: the model that perception.masks names"
    )
    device: Literal["auto", "cpu", "cuda"] = _setting("auto", "where the network runs")
    sizes: Literal["auto", "normalised", "metric"] = _setting(
        "auto", "how boxes are sized; auto: as the weights say, else as their backbone was published"
    )
    sparse_backend: Literal["auto", "torch", "triton", "minkowski", "spconv"] = _setting(
        "auto", "who computes sparse convolutions; auto: triton on a GPU where PyTorch brought it, else torch"
    )
    precision: Literal["float32", "half"] = _setting(
        "float32", "of the network; half: half precision (float16) on a GPU, no difference on a CPU"
    )
    distance_mask: bool = _setting(True, "a query sees the 2D objects near its mask alone (paper Table 5)")
    max_queries: int = _setting(
        0, "superpoints that become queries, the most certain first; 0: all", "", ge=0, le=100_000
    )
    top_k: int = _setting(600, "pairs of query and class that go on", "", ge=1, le=100_000)
    score_threshold: float = _setting(0.0, "instances of a higher score are kept", "", ge=0, le=1)
    panoptic_score_threshold: float = _setting(0.5, "those of a higher score enter the panoptic map", "", ge=0, le=1)
    min_points: int = _setting(100, "masks of more points are kept", "points", ge=0, le=1_000_000)
    mask_threshold: float = _setting(0.4, "superpoints of a higher probability belong to a mask", "", ge=0, le=1)
    mask_quality: bool = _setting(True, "weigh scores by the mean probability inside the mask")
    matrix_nms: bool = _setting(True, "lower the score of what better masks of its class cover")
    nms_kernel: Literal["linear", "gaussian"] = _setting("linear", "how that falls with their IoU")
    box_filter: bool = _setting(True, "take away points far outside of an instance's box (paper Table 2, row 6)")
    box_filter_factor: float = _setting(2.5, "far: outside of the box enlarged by this", "", gt=0, le=100)
    views_per_point: int = _setting(3, "views whose image features a point remembers", "views", ge=1, le=16)
    nearest_views: bool = _setting(True, "the nearest views; off: the farthest (paper Table 4)")
    object_score: float = _setting(0.3, "2D objects of a higher score become object queries", "", ge=0, le=1)
    object_queries: int = _setting(2048, "object queries of a scene, far from one another", "", ge=0, le=100_000)
    objects_kept: int = _setting(
        20_000, "2D objects remembered to choose them from; the lowest scores go first", "", ge=1, le=1_000_000
    )
    instance_score: float = _setting(
        0.2, "predictions of a higher score become instances of the map; 0: all, as the paper counts", "", ge=0, le=1
    )
    instance_overlap: float = _setting(
        0.5,
        "of predictions whose points overlap by more (IoU) the best becomes one, whatever their classes; 1: all do",
        "",
        gt=0,
        le=1,
    )
    tile_points: int = _setting(
        500_000,
        "points that the network sees at once; larger maps are cut into tiles",
        "points",
        ge=1000,
        le=10_000_000,
    )
    tile_voxels: int = _setting(
        250_000, "and voxels of 2 cm, which the 3D network computes on", "voxels", ge=1000, le=10_000_000
    )
    tile_overlap: float = _setting(
        1.0, "how far each tile reaches beyond its border; instances that agree there become one", "m", ge=0.1, le=20
    )
    max_keyframes: int = _setting(
        1000, "keyframes kept to find the best views in; the oldest redundant ones go first", "", ge=2, le=100_000
    )


class QueryConfig(_Group):
    """Text queries."""

    encoder: Literal["auto", "none", "conse", "open_clip", "siglip"] = _setting(
        "auto",
        "auto takes open_clip or siglip where its weights are set, else the offline stand-in if installed, else none",
    )
    open_clip_model: str = _setting("ViT-B-16", "open_clip model name")
    open_clip_weights: str = _setting("", "a local weights file or folder, or a tag whose file the hub's cache holds")
    siglip_dir: str = _setting("", "siglip: a local folder with a SigLIP or CLIP of the transformers library")
    weights_dir: str = _setting("", "where fetched weights lie; empty: the user's cache folder")
    views: int = _setting(2, "best views per instance (k_scale of RE0, which takes 3)", "", ge=1, le=20)
    crop_growth: tuple[float, ...] = _setting(
        (0.2,), "crops grow by this share of the box on each side (RE0 eq. 7, which takes 0.1, 0.2, 0.3)"
    )
    background: float = _setting(
        0.2, "brightness left in crops to what is not the instance; 1 leaves the picture as it is", "", ge=0, le=1
    )
    top_k: int = _setting(5, "most answers per query", "", ge=1, le=1000)
    precision: float = _setting(
        0.8, "answers below the calibrated threshold of this precision are `nothing matched`", "", gt=0, lt=1
    )
    vocabulary: str = _setting("", "a text file, one label per line; empty: the household list that comes along")
    labels: bool = _setting(True, "name each instance by the nearest vocabulary entry")
    label_probability: float = _setting(
        0.9,
        "a word that fits an instance with less than this gives it no name; for calibrated encoders",
        "",
        ge=0,
        le=1,
    )

    @field_validator("crop_growth")
    @classmethod
    def _check_growth(cls, growth: tuple[float, ...]) -> tuple[float, ...]:
        if not growth or not all(0 <= share <= 10 for share in growth):
            raise ValueError("one or more shares between 0 and 10")
        return growth


class MemoryConfig(_Group):
    """What each part may hold, in millions of bytes; what goes first is in `docs/memory.md`."""

    map_mb: float = _setting(
        500.0, "points of the map and their index; the far and least seen make way", "MB", ge=2, le=1_000_000
    )
    keyframes_mb: float = _setting(
        400.0, "votes and the log of keyframes; the oldest redundant keyframes go first", "MB", ge=1, le=1_000_000
    )
    point_features_mb: float = _setting(
        768.0, "segdino3d: image features, at half precision; the least seen points go first", "MB", gt=0, le=1_000_000
    )
    objects_mb: float = _setting(
        32.0, "segdino3d: 2D objects remembered; the lowest scores go first", "MB", gt=0, le=100_000
    )
    views_mb: float = _setting(
        200.0, "JPEG keyframes for text queries; the least useful go first", "MB", gt=0, le=100_000
    )
    topic_masks_mb: float = _setting(
        200.0, "masks from a topic: images and masks that wait for each other; the oldest go first", "MB", ge=1, le=1e5
    )
    poses_mb: float = _setting(10.0, "poses of keyframes; the oldest go first", "MB", gt=0, le=10_000)
    pose_history_mb: float = _setting(
        20.0,
        "poses that points were made under, for loop closure; every second old one goes first",
        "MB",
        gt=0,
        le=10_000,
    )
    instances_mb: float = _setting(
        4.0, "places of instances that are not seen now; the longest gone are forgotten first", "MB", gt=0, le=10_000
    )


class RuntimeConfig(_Group):
    """Queues and threads."""

    segment_every: int = _setting(5, "keyframes between two segmentations", "keyframes", ge=1, le=10_000)
    jpeg_quality: int = _setting(90, "of the keyframes kept for text queries", "", ge=10, le=100)
    autosave_minutes: float = _setting(
        0.0, "how often the map is saved by itself, the file before being kept; 0: never", "min", ge=0, le=1440
    )
    max_query_length: int = _setting(200, "longer texts are refused", "characters", ge=1, le=10_000)
    max_waiting: int = _setting(
        100, "requests that may wait, and as many queries; one more is refused", "requests", ge=1, le=10_000
    )
    query_deadline: float = _setting(10.0, "a query that cannot be answered within this is refused", "s", gt=0, le=3600)


class Config(_Group):
    """Everything."""

    map: MapConfig = MapConfig()
    keyframes: KeyframeConfig = KeyframeConfig()
    corrections: CorrectionConfig = CorrectionConfig()
    perception: PerceptionConfig = PerceptionConfig()
    re0: Re0Config = Re0Config()
    segdino3d: SegDino3DConfig = SegDino3DConfig()
    query: QueryConfig = QueryConfig()
    runtime: RuntimeConfig = RuntimeConfig()
    memory: MemoryConfig = MemoryConfig()
    core: Literal["re0", "segdino3d"] = _setting(
        "re0",
        "which core segments: zero-shot, or trained (on 2D features, of mobile_sam or of what its weights know)",
    )
