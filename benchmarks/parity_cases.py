# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""What of ours each golden array of SegDINO3D belongs to.

Groups: a decoder, b positional encoding and boxes, d post-processing, f whole models. A case gives, for every array
that is no input, ours beside theirs. Predictions are matched by query and label, never by position.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from golden import Case, Golden, Pairs, features, published_state
from torch import Tensor

from seg3d_core.config import SegDino3DConfig
from seg3d_core.models.architecture import PUBLISHED
from seg3d_core.models.boxes import BoxUpdate, initial_boxes, logit, size_in_metres
from seg3d_core.models.decoder import Decoder, DecoderInput, DecoderOutput
from seg3d_core.models.heads import Prediction
from seg3d_core.models.matrix_nms import matrix_nms
from seg3d_core.models.positional import SinePositionalEncoding
from seg3d_core.models.postprocess import (
    ScenePredictions,
    instances,
    mask_quality,
    panoptic,
    semantic_classes,
    suppressed_candidates,
    top_candidates,
)
from seg3d_core.models.published_names import to_ours
from seg3d_core.models.segdino3d import SegDino3D, prepare_scene, segment

_HEAD = (("cls", "class_logits"), ("mask", "mask_logits"), ("center", "centres"), ("size", "sizes"))
# Predictions of one label are never as many as this.
_LABELS = 1000


@functools.cache
def decoder_of(configuration: str) -> Decoder:
    decoder = Decoder(PUBLISHED[configuration]).eval()
    state = to_ours(published_state(configuration, "decoder."))
    decoder.load_state_dict({name.removeprefix("decoder."): value for name, value in state.items()}, strict=True)
    return decoder


def decoder_input(golden: Golden, prefix: str) -> DecoderInput:
    names = ("sp_feats", "sp_pos", "sp_pos_wo_elastic", "range_min", "range_max", "query2d_feats", "query2d_pos")
    return DecoderInput(*(torch.from_numpy(golden[f"{prefix}in_{name}"]) for name in names))


def bits(values: Tensor) -> np.ndarray:
    return np.packbits(values.numpy(), axis=-1)


@contextmanager
def recorded(decoder: Decoder) -> Iterator[dict[str, np.ndarray]]:
    """What happens inside a decoder, under the goldens' names, as it runs."""
    inside: dict[str, np.ndarray] = {}
    with ExitStack() as stack:

        def watch(module: Any, note: Callable[[Any, Any], None]) -> None:
            if module is not None:
                # A hook's own result would replace the module's.
                stack.callback(module.register_forward_hook(lambda _, given, made: (note(given, made), None)[1]).remove)

        calls = {"modulation": 0, "reference_point": 0}

        def count(what: str) -> int:
            calls[what] += 1
            return calls[what] - 1

        def note_place(given: Any, made: Any) -> None:
            number = count("reference_point")
            inside[f"l{number}_query_pe"], inside[f"l{number}_query_pos"] = given[0].numpy(), made.numpy()

        def note_2d(number: int, given: Any, made: Any) -> None:
            inside[f"l{number}_after_cross2d"] = made.numpy()
            inside[f"l{number}_mask2d_blocked"] = bits(~given[2])

        watch(decoder.encoding, lambda given, made: inside.setdefault("memory_pe", made.numpy()))
        watch(decoder.modulation, lambda _, made: inside.update({f"l{count('modulation')}_modulation": made.numpy()}))
        watch(decoder.reference_point, note_place)
        for number, layer in enumerate(decoder.layers):
            named = (("cross3d", layer.cross_attention), ("self", layer.self_attention), ("ffn", layer.feed_forward))
            for name, module in named:
                key = f"l{number}_after_{name}"
                watch(module, lambda _, made, key=key: inside.update({key: made.numpy()}))
            watch(layer.cross_attention_2d, functools.partial(note_2d, number))
        yield inside


def head_arrays(output: DecoderOutput) -> dict[str, np.ndarray]:
    heads = {f"aux{i}": head for i, head in enumerate(output.auxiliary)} | {"final": output.final}
    arrays = {
        f"{name}_{key}": getattr(head, field).numpy()
        for name, head in heads.items()
        for key, field in _HEAD
        if getattr(head, field) is not None
    }
    return arrays | {"final_sem": output.semantic_logits.numpy()}


@torch.no_grad()
def decoder_case(golden: Golden, configuration: str, prefixes: tuple[str, ...] = ("",)) -> Pairs:
    decoder, ours = decoder_of(configuration), {}
    for prefix in prefixes:
        ids = golden.get(f"{prefix}query_ids")
        with recorded(decoder) as inside:
            output = decoder(
                decoder_input(golden, prefix), None if ids is None else torch.from_numpy(ids), auxiliary=True
            )
        ours.update({prefix + key: value for key, value in (inside | head_arrays(output)).items()})
    return {key: (value, golden[key]) for key, value in ours.items() if key in golden}


def positional_case(golden: Golden) -> Pairs:
    g = {key: torch.from_numpy(value) for key, value in golden.items()}
    pos, low, high = g["pos"], g["range_min"], g["range_max"]
    modulation = g["modulation"].clone().requires_grad_()
    modulated = SinePositionalEncoding()(pos, low, high, modulation)
    (modulated * g["cotangent"]).sum().backward()
    ours = {
        "pe": SinePositionalEncoding()(pos, low, high),
        "pe_modulated": modulated.detach(),
        "grad_modulation": modulation.grad,
        "invsig_out": logit(g["invsig_in"]),
    }
    for temperature in (20, 10000):
        for width in (256, 192, 96, 64):
            encoding = SinePositionalEncoding(width, temperature)
            ours[f"pe_T{temperature}_d{width}"] = encoding(pos[:6], low, high)
    share, metric = (initial_boxes(pos, low, high, kind).sizes for kind in ("normalised", "metric"))
    resize = BoxUpdate(256, "normalised", True).resize
    first = resize(share, g["delta"])
    second = resize(first, g["delta"])
    moved = BoxUpdate(256, "metric", True).resize(metric, g["delta"])
    reference = g["ref_logits"].sigmoid()
    ours |= {
        "size0_normalised": share[0],
        "size1_normalised": first,
        "size2_normalised": second,
        "size2_metres": size_in_metres(second, low, high, "normalised"),
        "size1_metric_variant": moved,
        "modulation0_normalised": reference / share,
        "modulation1_normalised": reference / first,
        "modulation1_metric_variant": reference / moved,
    }
    return {key: (value.numpy(), golden[key]) for key, value in ours.items()}


# Tag: masks, and what `matrix_nms` is asked for. The goldens do not say the threshold; it lies in a gap of the scores.
_NMS: dict[str, tuple[str, dict[str, Any]]] = {
    "soft_linear": ("soft_masks", {}),
    "soft_gauss": ("soft_masks", {"kernel": "gaussian"}),
    "soft_gauss_s05": ("soft_masks", {"kernel": "gaussian", "sigma": 0.5}),
    "bin_gauss": ("bin_masks", {"kernel": "gaussian"}),
    "soft_linear_pre20": ("soft_masks", {"first": 20}),
    "soft_gauss_thr": ("soft_masks", {"kernel": "gaussian", "threshold": 0.3}),
    "bin_linear_equal_pair": ("bin_masks", {}),
    "bin_linear_equal_triple": ("bin3_masks", {}),
}


def nms_case(golden: Golden) -> Pairs:
    pairs: Pairs = {}
    for tag, (masks, options) in _NMS.items():
        labels = golden["bin3_labels" if masks == "bin3_masks" else "labels"]
        scores, rows = matrix_nms(*(torch.from_numpy(x) for x in (golden[masks], labels, golden["scores"])), **options)
        ours = scores.numpy(), rows.numpy(), labels[rows.numpy()]
        theirs = golden[f"{tag}_scores"], golden[f"{tag}_keep"], golden[f"{tag}_labels"]
        # The release divides 0 by 0 for the third of three equal masks; ours suppresses it.
        theirs = np.nan_to_num(theirs[0], nan=0.0), *theirs[1:]
        ours, theirs = (tuple(x[np.argsort(each[1])] for x in each) for each in (ours, theirs))
        pairs |= {f"{tag}_{key}": pair for key, *pair in zip(("scores", "keep", "labels"), ours, theirs, strict=True)}
        pairs[f"{tag}_order"] = (ours[1], np.sort(golden[f"{tag}_order"]))
    return pairs


def _by_pair(queries: Any, labels: Any, *arrays: Any) -> tuple[np.ndarray, ...]:
    """Everything in the order of (query, label); the pairs themselves first, as one number each."""
    pair = np.asarray(queries).astype(np.int64) * _LABELS + np.asarray(labels)
    order = np.argsort(pair)
    return (pair[order], *(np.asarray(x)[order] for x in arrays))


def postprocess_case(golden: Golden) -> Pairs:
    pairs: Pairs = {}
    for name, least in (("scannetv2", 100), ("scannet200", 40), ("baseline200", 40)):
        case = {key.removeprefix(f"{name}_"): value for key, value in golden.items() if key.startswith(f"{name}_")}
        found = _postprocess(case, SegDino3DConfig(min_points=least, box_filter=name != "baseline200"))
        pairs |= {f"{name}_{key}": pair for key, pair in found.items()}
    return pairs


def _postprocess(case: Golden, settings: SegDino3DConfig) -> Pairs:
    g = {key: torch.from_numpy(np.asarray(value)) for key, value in case.items()}
    boxes = (g["centers"], g["sizes"]) if settings.box_filter else (None, None)
    prediction = Prediction(g["cls"], g["masks"], *boxes)
    superpoints, xyz = g["superpoints"].long(), g["points"]
    top = top_candidates(prediction.class_logits, settings.top_k)
    flat = top.queries * (g["cls"].shape[1] - 1) + top.labels
    order = flat.argsort()
    quality = mask_quality(prediction.mask_logits)[top.queries]
    left = suppressed_candidates(prediction, settings)
    found = instances(prediction, xyz, superpoints, settings)
    whole = instances(prediction, xyz, superpoints, settings.model_copy(update={"box_filter": False}))
    output = DecoderOutput(prediction, (), g["sem"], torch.arange(len(g["cls"])))
    semantic, numbers = panoptic(output, found, superpoints, settings)
    pair, score = _by_pair(left.queries, left.labels, left.scores)
    pair_theirs, score_theirs = _by_pair(case["nms_query"], case["nms_label"], case["nms_score"])
    _, unfiltered = _by_pair(whole.queries, whole.labels, bits(whole.masks(len(xyz))))
    theirs = _by_pair(case["final_query"], case["final_labels"], case["nobox_masks_bits"], case["final_n_points"])
    pairs = {
        "topk_flat": (flat[order].numpy(), case["topk_flat"]),
        "topk_score": (top.scores[order].numpy(), case["topk_score"]),
        "topk_min_score": (top.scores.min().numpy(), case["topk_min_score"]),
        "topk_mask_quality": (quality[order].numpy(), case["topk_mask_quality"]),
        "nms_query": (pair // _LABELS, pair_theirs // _LABELS),
        "nms_label": (pair % _LABELS, pair_theirs % _LABELS),
        "nms_score": (score, score_theirs),
        "nobox_masks_bits": (unfiltered, theirs[1]),
        "semantic": (semantic_classes(output, superpoints).numpy(), case["semantic"]),
        "panoptic_semantic": (semantic.numpy(), case["panoptic_semantic"]),
        "panoptic_instance": (numbers.numpy(), case["panoptic_instance"]),
    }
    prefixed = {key.removeprefix("final_"): value for key, value in case.items() if key.startswith("final_")}
    matched = _predictions(found, len(xyz), prefixed)
    matched["n_points"] = (np.unpackbits(matched["masks_bits"][0], axis=1).sum(axis=1), theirs[2])
    return pairs | {f"final_{key}": pair for key, pair in matched.items()}


def _predictions(found: ScenePredictions, points: int, theirs: Golden) -> Pairs:
    ours = _by_pair(found.queries, found.labels, found.scores, found.boxes, bits(found.masks(points)))
    keys = ("query", "labels", "scores", "boxes", "masks_bits")
    golden = _by_pair(*(theirs[key] for key in keys[:2]), *(theirs[key] for key in keys[2:]))
    ours, golden = ((x[0] // _LABELS, x[0] % _LABELS, *x[1:]) for x in (ours, golden))
    return {key: pair for key, *pair in zip(keys, ours, golden, strict=True)}


@torch.no_grad()
def model_case(golden: Golden, configuration: str) -> Pairs:
    """From points to predictions. Every instance is kept: no least number of points."""
    model = SegDino3D(PUBLISHED[configuration]).eval()
    model.load_state_dict(to_ours(published_state(configuration)), strict=True)
    name, raw = str(golden["case_name"]), torch.from_numpy(golden["points_raw"])
    scene = prepare_scene(
        raw[:, :3],
        raw[:, 3:],
        torch.from_numpy(golden["superpoints"]),
        features(f"{name}:points_2dfeats", (len(raw), 256), 0.5),
        features(f"{name}:query2d_feats", (60, 256), 1),
        torch.from_numpy(golden["query2d_pos"]),
    )
    (superpoints,) = model.encode([scene])
    output = model.decoder(superpoints, auxiliary=True)
    result = segment(model, scene, SegDino3DConfig(min_points=0, box_filter=configuration != "baseline200"))
    ours = head_arrays(output) | {
        "sp_features": superpoints.features.numpy(),
        "sp_pos": superpoints.positions.numpy(),
        "sp_pos_wo_elastic": superpoints.undeformed.numpy(),
        "semantic": result.semantic.numpy(),
        "panoptic_semantic": result.panoptic_semantic.numpy(),
        "panoptic_instance": result.panoptic_instance.numpy(),
    }
    theirs = {key.removeprefix("pred_"): value for key, value in golden.items() if key.startswith("pred_")}
    matched = _predictions(result.instances, len(raw), theirs)
    matched["masks_bits"] = _certain_bits(matched, golden)
    pairs = {key: (value, golden[key]) for key, value in ours.items() if key in golden}
    return pairs | {f"pred_{key}": pair for key, pair in matched.items()}


def _certain_bits(matched: Pairs, golden: Golden) -> tuple[np.ndarray, np.ndarray]:
    """Mask bits (n, N) but for those that rounding may turn: a soft mask at its threshold, a point on a box's face."""
    xyz, superpoints = golden["points_raw"][:, :3], golden["superpoints"]
    queries, boxes = matched["query"][1], matched["boxes"][1]
    soft = 1 / (1 + np.exp(-golden["final_mask"].astype(float)))
    certain = np.abs(soft[queries][:, superpoints] - 0.4) > 1e-4
    if "final_size" in golden:
        beyond = np.abs(xyz[None] - boxes[:, None, :3]) - 1.25 * boxes[:, None, 3:]
        certain &= (np.abs(beyond) > 1e-5).all(axis=2)
    ours, theirs = (np.unpackbits(x, axis=1, count=len(xyz)) for x in matched["masks_bits"])
    return np.where(certain, ours, theirs), theirs


def _decoder(configuration: str, *prefixes: str) -> Case:
    run = functools.partial(decoder_case, configuration=configuration, prefixes=prefixes or ("",))
    return Case(run, 1e-5, r"(\w+_)?(in_\w+|query_ids)")


def _model(configuration: str) -> Case:
    run = functools.partial(model_case, configuration=configuration)
    return Case(run, 5e-5, "case_name|points_raw|superpoints|query2d_pos", (("pred_scores", "absolute", 1e-5),))


_EDGES = ("one_superpoint_", "three_superpoints_", "no_query2d_", "far_query2d_")
CASES: dict[str, Case] = {
    **{f"a_decoder_{c}.npz": _decoder(c) for c in PUBLISHED},
    **{f"a_decoder_{c}_batch2.npz": _decoder(c, "s0_", "s1_") for c in PUBLISHED},
    "a_decoder_edge.npz": _decoder("scannetv2", *_EDGES),
    "b_positional.npz": Case(
        positional_case,
        1e-6,
        "pos|range_min|range_max|modulation|invsig_in|cotangent|delta|ref_logits",
    ),
    "d_matrix_nms.npz": Case(
        nms_case, 1e-6, "bin_masks|soft_masks|bin3_masks|bin3_labels|labels|scores", ((".*_scores", "absolute", 1e-6),)
    ),
    "d_postprocess.npz": Case(
        postprocess_case,
        1e-6,
        "[a-z0-9]+_(cls|masks|sem|centers|sizes|points|superpoints|topk_gap)",
        ((".*(_score|_scores|_quality)", "absolute", 1e-6),),
    ),
    **{f"f_model_{c}.npz": _model(c) for c in PUBLISHED},
}
