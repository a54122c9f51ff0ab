# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Loads and runs models of transformers: from local folders, every key accounted for, on a GPU where there is one."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ...errors import WeightsError, listed
from ..onnx_network import network_threads
from . import folder

log = logging.getLogger(__name__)

_INSTALL = "pip install 'seg3d[hub]'"
# Used in training only, or by no head of the model: published files lack some of them.
_MAY_BE_MISSING = ("criterion.", "position_ids", "num_batches_tracked", "relative_position_index", "swin.layernorm.")
_NAMED = 5


@dataclass(frozen=True)
class LoadedModel:
    """A network in evaluation mode, its device, and an id of its architecture and weights."""

    network: Any
    id: str
    device: torch.device
    folder: Path
    kind: str


def load(path: Path, classes: Mapping[str, str], device: str = "auto") -> LoadedModel:
    """The model of a checked folder; `classes`: model type -> its class in transformers. Raises WeightsError.

    `device`: auto takes a GPU where there is one.
    """
    kind = folder.checked_type(path, classes)
    transformers = import_transformers()
    if not hasattr(transformers, classes[kind]):
        raise WeightsError(f"{path} holds a {kind}, which the installed transformers has not: {_INSTALL}")
    try:
        with _quietly(transformers):
            network, info = getattr(transformers, classes[kind]).from_pretrained(
                str(path), local_files_only=True, output_loading_info=True, dtype=torch.float32
            )
    except Exception as error:
        raise WeightsError(f"{path} cannot be loaded as {kind}: {_first_line(error)}") from error
    _check_keys(path, info)
    place = _checked_device(device)
    torch.set_num_threads(min(network_threads(), torch.get_num_threads()))
    identity = f"{kind}-{folder.fingerprint(folder.weight_files(path))}"
    return LoadedModel(network.eval().to(place), identity, place, path, kind)


def _checked_device(name: str) -> torch.device:
    has_gpu = torch.cuda.is_available()
    if name == "cuda" and not has_gpu:
        raise WeightsError("perception.device is `cuda`, but torch sees no GPU here: set it to `auto` or `cpu`")
    return torch.device("cuda" if has_gpu and name != "cpu" else "cpu")


def import_transformers() -> Any:
    """The library, told to stay off the network. Raises WeightsError."""
    # Some configurations ask the hub for a backbone even where all files are local.
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    try:
        import transformers
    except ImportError as error:
        raise WeightsError(f"this model needs {error.name or 'transformers'}: {_INSTALL}") from None
    return transformers


@contextlib.contextmanager
def _quietly(transformers: Any) -> Iterator[None]:
    """Without progress bars: a library prints nothing."""
    settings = transformers.utils.logging
    was_on = settings.is_progress_bar_enabled()
    settings.disable_progress_bar()
    try:
        yield
    finally:
        if was_on:
            settings.enable_progress_bar()


def load_tokenizer(path: Path) -> Any:
    """The folder's tokenizer. Raises WeightsError."""
    transformers = import_transformers()
    if not any((path / name).is_file() for name in ("tokenizer.json", "vocab.txt", "spiece.model")):
        raise WeightsError(f"{path} has no tokenizer (tokenizer.json): download the folder again, all of it")
    try:
        return transformers.AutoTokenizer.from_pretrained(str(path), local_files_only=True)
    except Exception as error:
        raise WeightsError(f"{path}: its tokenizer cannot be loaded: {_first_line(error)}") from error


@contextlib.contextmanager
def inference(device: torch.device) -> Iterator[None]:
    """No gradients; half precision where it is safe, on a GPU."""
    with torch.inference_mode(), torch.autocast(device.type, torch.float16, enabled=device.type == "cuda"):
        yield


def _check_keys(path: Path, info: Mapping[str, Any]) -> None:
    missing = sorted(k for k in info.get("missing_keys", ()) if not any(part in k for part in _MAY_BE_MISSING))
    unexpected = sorted(info.get("unexpected_keys", ()))
    if missing:
        raise WeightsError(
            f"{path} lacks {len(missing)} tensors of its model ({listed(missing, _NAMED)}) and holds "
            f"{len(unexpected)} that the model has not ({listed(unexpected, _NAMED)}): another model's weights, or an "
            "incomplete download"
        )
    if unexpected:
        log.info("%s holds %d tensors that are not used: %s", path, len(unexpected), listed(unexpected, _NAMED))


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
