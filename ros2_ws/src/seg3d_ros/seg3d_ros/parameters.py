# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""The node's parameters: its own, and one for each setting of the core, with the core's ranges and texts."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult
from rclpy.exceptions import (
    InvalidParameterTypeException,
    InvalidParameterValueException,
    InvalidTopicNameException,
)
from rclpy.parameter import Parameter
from rclpy.validate_topic_name import validate_topic_name

from seg3d_core.config import PROFILES, Config, build, flatten, iterate
from seg3d_core.errors import ConfigError

from .corrections import SOURCES as CORRECTION_SOURCES


@dataclass(frozen=True)
class Own:
    """A parameter of the node itself. `live` ones may change while it runs, `read_only` ones never."""

    name: str
    default: Any
    text: str
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    live: bool = False
    read_only: bool = False


OWN = (
    Own("autostart", True, "configure and activate at start", read_only=True),
    Own(
        "profile",
        "cpu-geometric",
        "a named set of settings; parameters go on top",
        choices=tuple(PROFILES),
        read_only=True,
    ),
    Own("map_frame", "map", "frame of the map and of every output"),
    Own("rgb_topic", "rgb/image_raw", "colour images (sensor_msgs/Image)"),
    Own("depth_topic", "depth/image_raw", "depth images registered to colour, 16UC1 mm or 32FC1 m"),
    Own("camera_info_topic", "rgb/camera_info", "intrinsics of the colour images"),
    Own(
        "mask_topic",
        "masks",
        "label images with the stamps of colour, 0 = none, read if perception.masks is topic",
    ),
    Own("pose_source", "tf", "where the camera's pose comes from", choices=("tf", "pose", "odometry")),
    Own("pose_topic", "pose", "PoseStamped or Odometry, read if pose_source is pose or odometry"),
    Own("pose_frame", "", "frame whose pose the topic gives; empty: Odometry's child_frame_id, or the camera"),
    Own(
        "correction_source",
        "none",
        "corrected poses of frames of before (loop closure), which the map follows",
        choices=CORRECTION_SOURCES,
    ),
    Own("correction_topic", "corrections", "where they come, read if correction_source is not none"),
    Own("correction_frame", "", "frame whose poses they are, as base_link for RTAB-Map's; empty: the camera's"),
    Own("camera_frame", "", "optical frame of the camera; empty: the colour images' frame_id"),
    Own("rectified", False, "the images are rectified: take P of camera_info and no distortion"),
    Own("sync_slop", 0.02, "largest distance of the stamps of one frame [s]", 0.0, 1.0, live=True),
    Own("sync_queue", 10, "messages kept per topic for a partner", 2, 1000),
    Own(
        "pose_timeout",
        2.0,
        "a frame whose pose is later than this is dropped [s]",
        0.0,
        60.0,
        live=True,
    ),
    Own(
        "maps_folder",
        "~/.ros/seg3d",
        "save_map and load_map stay inside this folder; runtime.autosave_minutes writes autosave.seg3d there",
        read_only=True,
    ),
    Own("max_maps", 100, "save_map makes no more .seg3d files than these in maps_folder", 1, 100_000, read_only=True),
    Own(
        "spare_disk",
        500.0,
        "save_map leaves so much free on the disk of maps_folder [MB]",
        0.0,
        1e9,
        read_only=True,
    ),
    Own(
        "points_file",
        "",
        "a cloud (.ply, or .npz with xyz) to take as a fixed map; empty: the map grows from depth",
        read_only=True,
    ),
    Own("recording", "", "write a recording for the rerun viewer to this file; empty: none", read_only=True),
    Own(
        "cloud_points",
        1_000_000,
        "most points of ~/points; larger maps are thinned evenly",
        1000,
        50_000_000,
        live=True,
    ),
)
_OWN = {own.name: own for own in OWN}
# Files and folders of the core: set at the start, by whoever starts the node, and never by a request.
_PATHS = frozenset(
    f"perception.{name}"
    for name in ("model_dir", "box_segmenter_dir", "masks_dir", "cropformer_weights", "cropformer_config")
) | {
    "segdino3d.weights",
    *(f"query.{name}" for name in ("open_clip_weights", "siglip_dir", "weights_dir", "vocabulary")),
}


class Parameters:
    """Declares all parameters of a node, guards changes, and makes the core's Config of them.

    Raises ConfigError naming the parameter, its value and what is allowed.
    """

    def __init__(self, node: Any):
        self.node = node
        self.locked = False
        for own in OWN[:2]:
            self._declare(own.name, own.default, _own_descriptor(own))
        self.profile: str = self["profile"]
        for own in OWN[2:]:
            self._declare(own.name, own.default, _own_descriptor(own))
        self._core = flatten(build({}, self.profile))
        for name, value, field in iterate(build({}, self.profile)):
            self._declare(name, _to_ros(value), _core_descriptor(name, field))
        self.config()
        node.add_on_set_parameters_callback(self._on_change)

    def __getitem__(self, name: str) -> Any:
        return self.node.get_parameter(name).value

    def config(self, changed: dict[str, Any] | None = None) -> Config:
        """The core's settings as they stand, with `changed` on top."""
        values = {name: _from_ros(self[name]) for name in self._core}
        return build({**values, **(changed or {})}, self.profile)

    def _declare(self, name: str, value: Any, descriptor: ParameterDescriptor) -> None:
        declare(self.node, name, value, descriptor)
        fault = _fault(name, self[name])
        if fault:
            raise ConfigError(f"the parameter {name} is {self[name]!r}; it {fault}")

    def _on_change(self, parameters: list[Parameter]) -> SetParametersResult:
        """Ranges and read-only are checked before this; here goes what they can't say."""
        core = {p.name: _from_ros(p.value) for p in parameters if p.name in self._core}
        for p in parameters:
            own = _OWN.get(p.name)
            fault = _fault(p.name, p.value)
            if fault:
                return SetParametersResult(reason=f"{p.name} {fault}")
            fixed = p.name in self._core or (own is not None and not own.live)
            if self.locked and fixed:
                return SetParametersResult(reason=f"{p.name} takes effect at configure: deactivate and clean up first")
        try:
            self.config(core)
        except ConfigError as error:
            return SetParametersResult(reason=str(error))
        return SetParametersResult(successful=True)


def declare(node: Any, name: str, value: Any, descriptor: ParameterDescriptor) -> None:
    """Raises ConfigError that names the parameter and what it wants."""
    try:
        node.declare_parameter(name, value, descriptor)
    except InvalidParameterTypeException:
        hint = f"{type(value).__name__}, like {value!r}"
        raise ConfigError(f"the parameter {name} wants a {hint} ({descriptor.description})") from None
    except InvalidParameterValueException as error:
        raise ConfigError(f"the parameter {name} ({descriptor.description}): {error}") from None


def _fault(name: str, value: Any) -> str:
    """What is wrong with the value of one of the node's own parameters, or nothing."""
    own = _OWN.get(name)
    if own and own.choices and value not in own.choices:
        return f"must be one of {', '.join(own.choices)}"
    if own and name.endswith("_topic"):
        try:
            validate_topic_name(value)
        except InvalidTopicNameException as error:
            return f"is no name of a topic: {str(error).splitlines()[0].partition(': ')[2].rstrip(':')}"
    return ""


def _to_ros(value: Any) -> Any:
    return [float(v) for v in value] if isinstance(value, tuple) else value


def _from_ros(value: Any) -> Any:
    return value if value is None or isinstance(value, bool | int | float | str) else tuple(value)


def _own_descriptor(own: Own) -> ParameterDescriptor:
    out = ParameterDescriptor(description=own.text, read_only=own.read_only)
    if own.choices:
        out.additional_constraints = f"one of {', '.join(own.choices)}"
    if own.low is not None and own.high is not None:
        _limit(out, own.default, own.low, own.high)
    return out


def _core_descriptor(name: str, field: Any) -> ParameterDescriptor:
    unit = (field.json_schema_extra or {}).get("unit", "")
    text = f"{field.description}{f' [{unit}]' if unit else ''}"
    out = ParameterDescriptor(description=text, read_only=name in _PATHS)
    if get_origin(field.annotation) is Literal:
        out.additional_constraints = f"one of {', '.join(map(str, get_args(field.annotation)))}"
    bounds = {key: getattr(m, key) for m in field.metadata for key in ("ge", "gt", "le", "lt") if hasattr(m, key)}
    low, high = bounds.get("ge", bounds.get("gt")), bounds.get("le", bounds.get("lt"))
    if low is not None or high is not None:
        whole = field.annotation is int
        least, most = (-(2**63), 2**63 - 1) if whole else (-sys.float_info.max, sys.float_info.max)
        _limit(out, 0 if whole else 0.0, least if low is None else low, most if high is None else high)
    open_ends = [text for key, text in (("gt", "above"), ("lt", "below")) if key in bounds]
    if open_ends:
        out.additional_constraints = ", ".join(f"{t} {bounds['gt' if t == 'above' else 'lt']}" for t in open_ends)
    return out


def _limit(out: ParameterDescriptor, example: Any, low: float, high: float) -> None:
    """`step` 0 means that every value in between will do."""
    if isinstance(example, float):
        out.floating_point_range = [FloatingPointRange(from_value=float(low), to_value=float(high), step=0.0)]
    else:
        out.integer_range = [IntegerRange(from_value=int(low), to_value=int(high), step=0)]


def describe(text: str) -> ParameterDescriptor:
    """For a parameter that is read once, at start."""
    return ParameterDescriptor(description=text, read_only=True)
