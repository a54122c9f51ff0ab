# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""What a configuration would run, and which of its parts are not here, told before anything is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from .config import Config, PerceptionConfig, build
from .errors import WeightsError
from .perception import weights
from .perception.cropformer import weights as entity_weights

MOBILE_SAM = ("torch",), "sam"
HUB = ("torch", "transformers"), "hub"
OFFLINE = ("onnxruntime", "onnx", "tokenizers", "safetensors"), "offline"
TRAINED_CORE = ("torch", "safetensors"), "segdino3d"
"""Importable names, and the extra of this package that brings them."""

_BETTER = "cpu"
_PLAIN = "cpu-geometric"


def lacking(who: str, libraries: tuple[Sequence[str], str]) -> list[str]:
    """A sentence where some of the libraries cannot be imported here; none are imported."""
    names, extra = libraries
    absent = [name for name in names if find_spec(name) is None]
    return [f"{who}, which needs {', '.join(absent)}: pip install 'seg3d[{extra}]'"] if absent else []


def opening(profile: str, config: Config) -> str:
    """One sentence for the start: which profile runs, and what that means."""
    masks = {"both": "mobile_sam and geometric"}.get(config.perception.masks, config.perception.masks)
    text = f"profile {profile}: masks from {masks}, core {config.core}, text by {config.query.encoder}"
    if masks == "cropformer" and config.perception.cropformer_weights in entity_weights.RECORDS:
        text += f"; the masks' weights are {entity_weights.WEIGHTS_LICENCE}"
    return text


def best_profile(weights_dir: str = "") -> tuple[str, list[str]]:
    """The profile with MobileSAM's masks; where parts of it are not here, the one without, and a sentence for each."""
    absent = _masks(build({"query.weights_dir": weights_dir}, _BETTER))
    return (_PLAIN, absent) if absent else (_BETTER, [])


def better_profile(profile: str) -> str:
    """A sentence where a profile without weights runs and the one with MobileSAM could; else empty."""
    if profile != _PLAIN or best_profile()[0] == _PLAIN:
        return ""
    return f"the profile {_BETTER} is ready: MobileSAM's weights are here, and its masks are better"


def missing_parts(config: Config) -> list[str]:
    """A sentence for each part that is not here, with the command or setting that mends it. Files are not hashed."""
    return [*_masks(config), *_core(config), *_text(config)]


def _masks(config: Config) -> list[str]:
    settings, folder = config.perception, config.query.weights_dir
    who = f"perception.masks is `{settings.masks}`"
    if settings.masks in ("mobile_sam", "fused", "both"):
        return [*lacking(who, MOBILE_SAM), *_file("mobile_sam", folder), *_gpu(settings)]
    if settings.masks == "cropformer":
        return [*lacking(who, MOBILE_SAM), *_told(entity_weights.resolve, settings.cropformer_weights, folder)]
    if settings.masks in ("mask2former", "detector", "sam"):
        return [*lacking(who, HUB), *_hub_folders(settings, folder), *_gpu(settings)]
    return []


def _hub_folders(settings: PerceptionConfig, weights_dir: str) -> list[str]:
    from .perception.huggingface.folder import checked_folder

    sam = "facebook/sam2.1-hiera-tiny"
    example = {
        "mask2former": "facebook/mask2former-swin-tiny-coco-instance",
        "detector": "IDEA-Research/grounding-dino-tiny",
        "sam": sam,
    }[settings.masks]
    found = _told(checked_folder, settings.model_dir, "perception.model_dir", example)
    if settings.masks == "detector" and settings.box_segmenter_dir:
        return found + _told(checked_folder, settings.box_segmenter_dir, "perception.box_segmenter_dir", sam)
    if settings.masks == "detector":
        return found + [f"boxes become masks by depth alone: {text}" for text in _file("mobile_sam", weights_dir)]
    return found


def _core(config: Config) -> list[str]:
    if config.core != "segdino3d":
        return []
    found = lacking("core is `segdino3d`", TRAINED_CORE)
    file = config.segdino3d.weights
    if not file:
        from .models.shipped import shipped_weights

        running = config.segdino3d.features_2d
        if running == "auto":
            # Models in folders name themselves when they are loaded: here it matters whether any gives features.
            masks = config.perception.masks
            running = masks if masks in ("mobile_sam", "detector", "mask2former", "sam") else ""
        return found + _told(shipped_weights, running)
    if not Path(file).expanduser().is_file():
        return [*found, f"segdino3d.weights = {file}: no such file"]
    return found


def _text(config: Config) -> list[str]:
    query = config.query
    if query.encoder == "none":
        return []
    if query.encoder == "open_clip" or (query.encoder == "auto" and query.open_clip_weights):
        found = lacking("query.encoder is `open_clip`", (("open_clip",), "clip"))
        if not query.open_clip_weights:
            text = "query.open_clip_weights is empty: name a local file or folder, or take the offline stand-in with "
            found.append(text + "--set query.encoder=auto")
        return found
    if query.encoder == "siglip" or (query.encoder == "auto" and query.siglip_dir):
        from .perception.huggingface.folder import checked_folder

        found = lacking("query.encoder is `siglip`", HUB)
        return found + _told(checked_folder, query.siglip_dir, "query.siglip_dir", "google/siglip2-base-patch16-224")
    found = lacking("the text encoder is the offline stand-in", OFFLINE)
    absent = [name for name in weights.GROUPS["offline"] if _file(name, query.weights_dir)]
    if absent:
        found.append(f"the text encoder's weights ({', '.join(absent)}) are not here: run `seg3d models fetch offline`")
    return [f"instances get no names, and texts no answers: {text}" for text in found]


def _file(name: str, weights_dir: str) -> list[str]:
    """Whether a known file is here and of the right length."""
    path = weights.find(name, weights_dir)
    if path is None:
        return [weights.missing(name)]
    size = path.stat().st_size
    if size != weights.RECORDS[name].size:
        wanted = weights.RECORDS[name].size
        return [f"{path} has {size} bytes instead of {wanted}: run `seg3d models fetch {name}`"]
    return []


def _gpu(settings: PerceptionConfig) -> list[str]:
    if settings.device != "cuda" or find_spec("torch") is None:
        return []
    import torch

    text = "perception.device is `cuda`, but torch sees no GPU: set it to `auto` or `cpu`, which is slower"
    return [] if torch.cuda.is_available() else [text]


def _told(check: object, *arguments: object) -> list[str]:
    """What a check that raises WeightsError says."""
    assert callable(check)
    try:
        check(*arguments)
    except WeightsError as error:
        return [str(error)]
    return []
