"""Any open_clip model from a local weights file."""

from __future__ import annotations

import hashlib
import importlib
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import WeightsError
from ...types import Array
from ..onnx_network import network_threads
from .crops import crop_batch

log = logging.getLogger(__name__)

_BATCH = 8
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
        self.id = identifier
        self._model = model.eval()
        self._tokenizer = tokenizer
        self._preprocessing = preprocessing
        self.dim = int(self.encode_text(["a chair"]).shape[1])

    def encode_text(self, texts: Sequence[str]) -> Array:
        """Unit vectors float32 (len(texts), dim); texts beyond the model's context are cut."""
        if not texts:
            return np.zeros((0, self.dim), np.float32)
        with self._torch.inference_mode():
            return self._model.encode_text(self._tokenizer(list(texts)), normalize=True).float().numpy()

    def encode_images(self, crops: Sequence[Array]) -> Array:
        """Unit vectors float32 (len(crops), dim) of uint8 (h, w, 3) crops, padded to squares, never cut."""
        parts = [np.zeros((0, self.dim), np.float32)]
        for start in range(0, len(crops), _BATCH):
            batch = self._torch.from_numpy(crop_batch(crops[start : start + _BATCH], **self._preprocessing))
            with self._torch.inference_mode():
                parts.append(self._model.encode_image(batch, normalize=True).float().numpy())
        return np.concatenate(parts)


def load(model: str, weights: str) -> OpenClipEncoder:
    """The named open_clip model with a local `.pt` or `.safetensors` file. Raises WeightsError."""
    if not weights:
        raise WeightsError("open_clip needs a local weights file: set query.open_clip_weights")
    path = Path(weights).expanduser()
    if not path.is_file():
        raise WeightsError(f"query.open_clip_weights = {weights}: no such file; weights are not fetched by name")
    try:
        import_torchvision()
        import open_clip
    except ImportError as error:
        raise WeightsError(f"open_clip needs {error.name or error}: {_INSTALL}") from None
    if model not in open_clip.list_models():
        raise WeightsError(f"query.open_clip_model = {model!r}: not a model of the installed open_clip")
    try:
        network = open_clip.create_model(model, pretrained=str(path), weights_only=True)
        tokenizer = open_clip.get_tokenizer(model)
    except Exception as error:
        raise WeightsError(f"{path} does not fit open_clip's {model} ({error})") from error
    preprocessing = pretrained_preprocessing(open_clip, model, path.name)
    size = network.visual.image_size
    preprocessing["size"] = int(size[0] if isinstance(size, Sequence) else size)
    return OpenClipEncoder(network, tokenizer, preprocessing, f"open_clip-{model}-{_fingerprint(path)}")


def pretrained_preprocessing(open_clip: Any, model: str, file_name: str) -> dict[str, Any]:
    """Mean, standard deviation and interpolation that the model's published weights were trained with.

    From a local file open_clip does not know the tag and would take OpenAI's values, which are wrong for SigLIP and
    MobileCLIP; so the tag whose name the file's name contains is looked up, else the model's newest.
    """
    tags = open_clip.list_pretrained_tags_by_model(model)
    tag = next((t for t in tags if t in file_name), tags[-1] if tags else None)
    known = open_clip.get_pretrained_cfg(model, tag) if tag else {}
    return {
        "mean": known.get("mean") or open_clip.OPENAI_DATASET_MEAN,
        "std": known.get("std") or open_clip.OPENAI_DATASET_STD,
        "interpolation": known.get("interpolation") or "bicubic",
    }


def _fingerprint(path: Path) -> str:
    """Eight hex digits of the file's content: other weights, other features."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()[:8]
