# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""The Swin entity Mask2Formers between the published layout and transformers', every key accounted for, both ways.

The names on transformers' side are those of its modules in memory (5.x); files on disk may have older ones, so that
weights go through a module.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

from ...errors import WeightsError, listed
from ...types import Array
from ..weights import atomic_file
from .checkpoint import check_names, network_of, read_state, shape_of
from .images import PIXEL_MEAN, PIXEL_STD, SHORT_SIDE
from .network import NetworkShape
from .swin import SwinShape

_BACKBONE = "model.pixel_level_module.encoder."
_PIXEL = "model.pixel_level_module.decoder."
_QUERIES = "model.transformer_module."
_SWIN_BLOCK = ("backbone.layers.{a}.blocks.{b}.", _BACKBONE + "swin.encoder.layers.{a}.blocks.{b}.")
_ENCODER = ("sem_seg_head.pixel_decoder.transformer.encoder.layers.{a}.", _PIXEL + "encoder.layers.{a}.")
_DECODER = "sem_seg_head.predictor.transformer_{kind}_layers.{{a}}."
_LAYER = _QUERIES + "decoder.layers.{a}."

# {a}, {b} are numbers, {w} is weight or bias, {p} one of q, k, v, which the published layout stacks in this order.
_RULES: list[tuple[str, str]] = [
    ("backbone.patch_embed.proj.{w}", _BACKBONE + "swin.embeddings.patch_embeddings.projection.{w}"),
    ("backbone.patch_embed.norm.{w}", _BACKBONE + "swin.embeddings.norm.{w}"),
    *(
        (_SWIN_BLOCK[0] + published, _SWIN_BLOCK[1] + hub)
        for published, hub in (
            ("norm1.{w}", "layernorm_before.{w}"),
            ("norm2.{w}", "layernorm_after.{w}"),
            (
                "attn.relative_position_bias_table",
                "attention.relative_position_bias.relative_position_bias_table",
            ),
            ("attn.qkv.{w}", "attention.{p}_proj.{w}"),
            ("attn.proj.{w}", "attention.o_proj.{w}"),
            ("mlp.fc1.{w}", "mlp.fc1.{w}"),
            ("mlp.fc2.{w}", "mlp.fc2.{w}"),
        )
    ),
    *(
        (f"backbone.layers.{{a}}.downsample.{part}", f"{_BACKBONE}swin.encoder.layers.{{a}}.downsample.{part}")
        for part in ("norm.{w}", "reduction.weight")
    ),
    *((f"backbone.norm{i}.{{w}}", f"{_BACKBONE}hidden_states_norms.stage{i + 1}.{{w}}") for i in range(4)),
    ("sem_seg_head.pixel_decoder.input_proj.{a}.{b}.{w}", _PIXEL + "input_projections.{a}.{b}.{w}"),
    ("sem_seg_head.pixel_decoder.transformer.level_embed", _PIXEL + "level_embed"),
    *(
        (_ENCODER[0] + published, _ENCODER[1] + hub)
        for published, hub in (
            ("self_attn.sampling_offsets.{w}", "self_attn.sampling_offsets.{w}"),
            ("self_attn.attention_weights.{w}", "self_attn.attention_weights.{w}"),
            ("self_attn.value_proj.{w}", "self_attn.value_proj.{w}"),
            ("self_attn.output_proj.{w}", "self_attn.output_proj.{w}"),
            ("norm1.{w}", "self_attn_layer_norm.{w}"),
            ("linear1.{w}", "fc1.{w}"),
            ("linear2.{w}", "fc2.{w}"),
            ("norm2.{w}", "final_layer_norm.{w}"),
        )
    ),
    ("sem_seg_head.pixel_decoder.mask_features.{w}", _PIXEL + "mask_projection.{w}"),
    *(
        rule
        for part in ("adapter_1", "layer_1")
        for rule in (
            (f"sem_seg_head.pixel_decoder.{part}.weight", f"{_PIXEL}{part}.0.weight"),
            (f"sem_seg_head.pixel_decoder.{part}.norm.{{w}}", f"{_PIXEL}{part}.1.{{w}}"),
        )
    ),
    ("sem_seg_head.predictor.query_feat.weight", _QUERIES + "queries_features.weight"),
    ("sem_seg_head.predictor.query_embed.weight", _QUERIES + "queries_embedder.weight"),
    ("sem_seg_head.predictor.level_embed.weight", _QUERIES + "level_embed.weight"),
    *(
        (_DECODER.format(kind=kind) + published, _LAYER + hub)
        for kind, published, hub in (
            ("self_attention", "self_attn.in_proj_{w}", "self_attn.{p}_proj.{w}"),
            ("self_attention", "self_attn.out_proj.{w}", "self_attn.out_proj.{w}"),
            ("self_attention", "norm.{w}", "self_attn_layer_norm.{w}"),
            ("cross_attention", "multihead_attn.in_proj_{w}", "cross_attn.in_proj_{w}"),
            ("cross_attention", "multihead_attn.out_proj.{w}", "cross_attn.out_proj.{w}"),
            ("cross_attention", "norm.{w}", "cross_attn_layer_norm.{w}"),
            ("ffn", "linear1.{w}", "fc1.{w}"),
            ("ffn", "linear2.{w}", "fc2.{w}"),
            ("ffn", "norm.{w}", "final_layer_norm.{w}"),
        )
    ),
    ("sem_seg_head.predictor.decoder_norm.{w}", _QUERIES + "decoder.layernorm.{w}"),
    ("sem_seg_head.predictor.class_embed.{w}", "class_predictor.{w}"),
    ("sem_seg_head.predictor.mask_embed.layers.{a}.{w}", _QUERIES + "decoder.mask_predictor.mask_embedder.{a}.0.{w}"),
]
_FIELDS = {"a": r"(?P<a>\d+)", "b": r"(?P<b>\d+)", "w": r"(?P<w>weight|bias)", "p": r"(?P<p>[qkv])"}
# Of transformers only: a norm that the segmentation head does not use, and the loss's buffer.
_HUB_ONLY = re.compile(
    r"model\.pixel_level_module\.encoder\.swin\.layernorm\.(weight|bias)|criterion\.empty_weight"
    r"|.*\.relative_position_index"
)


def _pattern(template: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"\\\{(\w)\\\}", lambda m: _FIELDS[m[1]], re.escape(template)))


_TO_HUB = [(_pattern(published), hub) for published, hub in _RULES]
_TO_PUBLISHED = [(_pattern(hub), published) for published, hub in _RULES]


def to_hub(state: Mapping[str, Array], origin: str = "the checkpoint") -> dict[str, Array]:
    """A published Swin Mask2Former's tensors under transformers' names. WeightsError lists what has no place."""
    if any(".make_3d." in name for name in state):
        raise WeightsError(
            f"{origin} is a true CropFormer: transformers has no association over crops and would lose it; "
            "run the file itself (perception.masks=cropformer)"
        )
    out: dict[str, Array] = {}
    unknown = []
    for name, value in state.items():
        found = _translate(name, _TO_HUB)
        if found is None:
            unknown.append(name)
        elif "{p}" in found[0]:
            out.update({found[0].format(p=p): part for p, part in zip("qkv", np.split(value, 3), strict=True)})
        else:
            out[found[0]] = value
    if unknown:
        raise WeightsError(f"{origin}: {len(unknown)} tensors have no place in a Swin Mask2Former: {listed(unknown)}")
    return out


def to_published(state: Mapping[str, Array], origin: str = "the model") -> dict[str, Array]:
    """transformers' tensors under the published names; the inverse of `to_hub`. WeightsError lists the rest."""
    out: dict[str, Array] = {}
    stacks: dict[str, dict[str, Array]] = defaultdict(dict)
    unknown = []
    for name, value in state.items():
        if _HUB_ONLY.fullmatch(name):
            continue
        found = _translate(name, _TO_PUBLISHED)
        if found is None:
            unknown.append(name)
        elif found[1].get("p"):
            stacks[found[0]][found[1]["p"]] = value
        else:
            out[found[0]] = value
    unknown += [f"{name} without all of q, k, v" for name, parts in stacks.items() if len(parts) != 3]
    if unknown:
        raise WeightsError(f"{origin}: {len(unknown)} tensors have no place in the published layout: {listed(unknown)}")
    out.update({name: np.concatenate([parts[p] for p in "qkv"]) for name, parts in stacks.items()})
    return out


def _translate(name: str, rules: list[tuple[re.Pattern[str], str]]) -> tuple[str, dict[str, str]] | None:
    """The name on the other side, {p} left in where one becomes three, and the fields that were found in `name`."""
    for pattern, target in rules:
        if match := pattern.fullmatch(name):
            return target.format(**{"p": "{p}", **match.groupdict()}), match.groupdict()
    return None


def convert(source: Path, target: Path) -> str:
    """A published file to a folder for transformers, or such a folder back to a file; what was done, as a sentence.

    Raises WeightsError where something is missing, left over or already there.
    """
    if target.exists() and (target.is_file() or any(target.iterdir())):
        raise WeightsError(f"{target} is there already: name another place, or remove it")
    try:
        return _folder_to_file(source, target) if source.is_dir() else _file_to_folder(source, target)
    except OSError as error:
        raise WeightsError(f"cannot convert {source} to {target}: {error}") from None


def _file_to_folder(source: Path, folder: Path) -> str:
    transformers = _transformers()
    published = read_state(source)
    config = _hub_config(shape_of(published, str(source)))
    state = to_hub(published, str(source))
    model = transformers.Mask2FormerForUniversalSegmentation(config)
    wanted = [name for name in model.state_dict() if not _HUB_ONLY.fullmatch(name)]
    check_names(state, wanted, f"{source} for transformers {transformers.__version__}")
    try:
        model.load_state_dict({n: torch.from_numpy(np.array(a, np.float32)) for n, a in state.items()}, strict=False)
    except RuntimeError as error:
        raise WeightsError(f"{source} does not fit transformers {transformers.__version__}: {error}") from None
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(_preprocessing(), indent=2))
    return (
        f"{len(wanted)} tensors of {source} in {folder}, for transformers {transformers.__version__}; "
        "the weights stay CC BY-NC 4.0"
    )


def _folder_to_file(folder: Path, target: Path) -> str:
    transformers = _transformers()
    try:
        model = transformers.Mask2FormerForUniversalSegmentation.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, RuntimeError) as error:
        raise WeightsError(f"{folder} holds no Mask2Former of transformers: {error}") from None
    state = to_published({n: t.numpy() for n, t in model.state_dict().items()}, str(folder))
    count = len(state)
    tensors = {name: torch.from_numpy(np.array(value)) for name, value in state.items()}
    network_of(state, str(folder))
    with atomic_file(target) as file:
        torch.save({"model": tensors}, file)
    return f"{count} tensors of {folder} in {target}"


def _transformers() -> ModuleType:
    try:
        import transformers
    except ImportError as error:
        raise WeightsError(f"converting needs transformers ({error}): pip install transformers") from None
    transformers.utils.logging.disable_progress_bar()
    return transformers


def _hub_config(shape: NetworkShape) -> Any:
    from transformers import Mask2FormerConfig, SwinConfig

    swin = shape.backbone
    if not isinstance(swin, SwinShape):
        raise WeightsError("only models with a Swin backbone convert: transformers has no HorNet")
    backbone = SwinConfig(
        image_size=384,
        embed_dim=swin.width,
        depths=list(swin.depths),
        num_heads=list(swin.heads),
        window_size=swin.window,
        drop_path_rate=0.3,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    return Mask2FormerConfig(
        backbone_config=backbone,
        feature_size=shape.width,
        mask_feature_size=shape.mask_width,
        hidden_dim=shape.width,
        num_queries=shape.queries,
        encoder_layers=shape.encoder_depth,
        encoder_feedforward_dim=shape.encoder_inner,
        decoder_layers=shape.depth + 1,
        dim_feedforward=shape.inner,
        num_attention_heads=8,
        id2label={0: "entity"},
    )


def _preprocessing() -> dict[str, Any]:
    return {
        "image_processor_type": "Mask2FormerImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": SHORT_SIDE, "longest_edge": 1333},
        "size_divisor": 32,
        "resample": 2,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [round(v / 255, 6) for v in PIXEL_MEAN],
        "image_std": [round(v / 255, 6) for v in PIXEL_STD],
    }
