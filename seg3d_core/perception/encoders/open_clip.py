# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""Any open_clip model from a local weights file or folder, or by a tag whose file was downloaded before."""

from __future__ import annotations

import contextlib
import importlib
import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import WeightsError
from ...types import Array
from ..huggingface.folder import fingerprint, read_json
from ..onnx_network import network_threads
from .crops import crop_batch

log = logging.getLogger(__name__)

_BATCH_CPU, _BATCH_GPU = 8, 64
_FOLDER_CONFIG = "open_clip_config.json"
_FOLDER_WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
_INSTALL = "pip install 'seg3d[clip]'"
# Operators that a CUDA build of torchvision registers from a library that a CPU torch cannot load.
_MISSING_OPERATORS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_operator_library: Any = None


def import_torchvision() -> None:
    """Makes `import torchvision` work where a CUDA build of it meets a CPU torch.

    There the import dies with "operator torchvision::nms does not exist"; defining the operator's name first lets
    everything but non-maximum suppression work, which nothing here needs. Other errors pass through.
    """
    global _operator_library
    import torch

    try:
        importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::nms does not exist" not in str(error):
            raise
        library = torch.library.Library("torchvision", "DEF")
        for schema in _MISSING_OPERATORS:
            library.define(schema)
        _operator_library = library
        log.info("torchvision was built for another torch: its operators are left out, its transforms work")
        for name in [n for n in sys.modules if n.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        importlib.import_module("torchvision")


class OpenClipEncoder:
    """open_clip's image and text towers as unit vectors. `load` makes one from a local weights file."""

    approximate = False

    def __init__(self, model: Any, tokenizer: Any, preprocessing: dict[str, Any], identifier: str):
        """`preprocessing`: `size`, `mean`, `std`, `interpolation` as in open_clip's pretrained configs."""
        import torch

        torch.set_num_threads(min(network_threads(), torch.get_num_threads()))
        self._torch = torch
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._batch = _BATCH_GPU if self._device.type == "cuda" else _BATCH_CPU
        self.id = identifier
        self._model = model.eval().to(self._device)
        self._tokenizer = tokenizer
        self._preprocessing = preprocessing
        self.dim = int(self.encode_text(["a chair"]).shape[1])

    def encode_text(self, texts: Sequence[str]) -> Array:
        """Unit vectors float32 (len(texts), dim); texts beyond the model's context are cut."""
        if not texts:
            return np.zeros((0, self.dim), np.float32)
        with self._inference():
            tokens = self._tokenizer(list(texts)).to(self._device)
            return self._model.encode_text(tokens, normalize=True).float().cpu().numpy()

    def encode_images(self, crops: Sequence[Array]) -> Array:
        """Unit vectors float32 (len(crops), dim) of uint8 (h, w, 3) crops, padded to squares, never cut."""
        parts = [np.zeros((0, self.dim), np.float32)]
        for start in range(0, len(crops), self._batch):
            batch = self._torch.from_numpy(crop_batch(crops[start : start + self._batch], **self._preprocessing))
            with self._inference():
                vectors = self._model.encode_image(batch.to(self._device), normalize=True)
            parts.append(vectors.float().cpu().numpy())
        return np.concatenate(parts)

    @contextlib.contextmanager
    def _inference(self) -> Iterator[None]:
        """No gradients; half precision on a GPU."""
        is_gpu = self._device.type == "cuda"
        with self._torch.inference_mode(), self._torch.autocast(self._device.type, self._torch.float16, enabled=is_gpu):
            yield


def load(model: str, weights: str) -> OpenClipEncoder:
    """The named open_clip model with local weights. Raises WeightsError.

    `weights` is a `.pt` or `.safetensors` file; a folder as a model hub lays it out (then it says which model it is);
    or a tag of open_clip whose file lies in the hub's cache. Nothing is downloaded.
    """
    if not weights:
        raise WeightsError("open_clip needs local weights: set query.open_clip_weights to a file or a folder")
    path = Path(weights).expanduser()
    if not path.exists() and ("/" in weights or path.suffix):
        raise WeightsError(
            f"query.open_clip_weights = {weights}: no such file or folder; weights are not fetched by name"
        )
    try:
        import_torchvision()
        import open_clip
    except ImportError as error:
        raise WeightsError(f"open_clip needs {error.name or error}: {_INSTALL}") from None
    if path.is_dir():
        return _load_folder(open_clip, path)
    if model not in open_clip.list_models():
        raise WeightsError(f"query.open_clip_model = {model!r}: not a model of the installed open_clip")
    tag = "" if path.exists() else weights
    file = cached_file(open_clip, model, tag) if tag else path
    _refuse_remote_tokenizer(open_clip, model)
    try:
        network = open_clip.create_model(model, pretrained=str(file), weights_only=True)
        tokenizer = open_clip.get_tokenizer(model)
    except Exception as error:
        raise WeightsError(f"{file} does not fit open_clip's {model} ({error})") from error
    preprocessing = pretrained_preprocessing(open_clip, model, tag or file.name)
    return _encoder(network, tokenizer, preprocessing, f"open_clip-{model}-{fingerprint([file])}")


def _load_folder(open_clip: Any, path: Path) -> OpenClipEncoder:
    """A folder with open_clip_config.json, weights and, where the model wants one, a tokenizer."""
    if not (path / _FOLDER_CONFIG).is_file():
        raise WeightsError(f"query.open_clip_weights = {path}: the folder has no {_FOLDER_CONFIG}")
    files = [path / name for name in _FOLDER_WEIGHTS if (path / name).is_file()]
    if not files:
        raise WeightsError(f"query.open_clip_weights = {path}: the folder has neither {' nor '.join(_FOLDER_WEIGHTS)}")
    config = read_json(path / _FOLDER_CONFIG)
    if (config.get("model_cfg") or {}).get("text_cfg", {}).get("hf_tokenizer_name") and not any(
        (path / name).is_file() for name in ("tokenizer.json", "vocab.txt", "spiece.model")
    ):
        raise WeightsError(f"query.open_clip_weights = {path}: the folder has no tokenizer.json: download all of it")
    try:
        network = open_clip.create_model(f"local-dir:{path}", pretrained=None, weights_only=True)
        tokenizer = open_clip.get_tokenizer(f"local-dir:{path}")
    except Exception as error:
        raise WeightsError(f"{path} cannot be loaded by open_clip ({error})") from error
    preprocessing = _preprocessing_of(open_clip, config.get("preprocess_cfg") or {})
    return _encoder(network, tokenizer, preprocessing, f"open_clip-folder-{fingerprint(files[:1])}")


def _encoder(network: Any, tokenizer: Any, preprocessing: dict[str, Any], identifier: str) -> OpenClipEncoder:
    size = network.visual.image_size
    preprocessing["size"] = int(size[0] if isinstance(size, Sequence) else size)
    return OpenClipEncoder(network, tokenizer, preprocessing, identifier)


def cached_file(open_clip: Any, model: str, tag: str) -> Path:
    """The file of a pretrained tag in the hub's local cache. Raises WeightsError that says how to get it."""
    if tag not in open_clip.list_pretrained_tags_by_model(model):
        raise WeightsError(
            f"query.open_clip_weights = {tag}: neither a file, nor a folder, nor a tag of {model}, which has "
            f"{', '.join(open_clip.list_pretrained_tags_by_model(model)) or 'none'}"
        )
    owner, _, rest = str(open_clip.get_pretrained_cfg(model, tag).get("hf_hub") or "").partition("/")
    name, _, file = rest.partition("/")
    if not name:
        raise WeightsError(f"the weights of {model} {tag} lie on no model hub: download them and name the file")
    from huggingface_hub import try_to_load_from_cache

    for candidate in (file,) if file else _FOLDER_WEIGHTS:
        found = try_to_load_from_cache(f"{owner}/{name}", candidate)
        if isinstance(found, str):
            return Path(found)
    raise WeightsError(
        f"the weights of {model} {tag} are not here and not fetched unasked: run `hf download {owner}/{name}` once"
    )


def _refuse_remote_tokenizer(open_clip: Any, model: str) -> None:
    """open_clip would ask a hub for the tokenizer of SigLIP and the like."""
    name = open_clip.get_model_config(model)["text_cfg"].get("hf_tokenizer_name")
    if name:
        raise WeightsError(
            f"the tokenizer of {model} lies on a hub: run `hf download {name} --local-dir FOLDER`, which brings the "
            "weights too, and set query.open_clip_weights to that folder"
        )


def pretrained_preprocessing(open_clip: Any, model: str, file_name: str) -> dict[str, Any]:
    """Mean, standard deviation and interpolation that the model's published weights were trained with.

    From a local file open_clip does not know the tag and would take OpenAI's values, which are wrong for SigLIP and
    MobileCLIP; so the tag whose name `file_name` contains is looked up, else the model's newest.
    """
    tags = open_clip.list_pretrained_tags_by_model(model)
    tag = next((t for t in tags if t in file_name), tags[-1] if tags else None)
    known = open_clip.get_pretrained_cfg(model, tag) if tag else {}
    return _preprocessing_of(open_clip, known)


def _preprocessing_of(open_clip: Any, known: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "mean": known.get("mean") or open_clip.OPENAI_DATASET_MEAN,
        "std": known.get("std") or open_clip.OPENAI_DATASET_STD,
        "interpolation": known.get("interpolation") or "bicubic",
    }
