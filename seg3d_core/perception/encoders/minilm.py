# Copyright 2026 The seg3d maintainers
# SPDX-License-Identifier: Apache-2.0

"""all-MiniLM-L6-v2 as an ONNX graph: a text to one unit vector. Needs safetensors and tokenizers, not transformers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import WeightsError
from ...types import Array
from ..onnx_network import Graph, Network

_MAX_TOKENS = 128
_EPSILON = 1e-12
# Added to a score, nothing is left of it after the softmax.
_FORBIDDEN = -1e9


class MiniLM:
    """BERT with mean pooling. `weights` are the checkpoint's tensors by name; `heads` divides the width."""

    def __init__(self, weights: Mapping[str, Array], tokenizer: Any, heads: int = 12):
        self._tokenizer = tokenizer
        # Looked up here: a session would copy the table, which is half of the network.
        self._words = weights["embeddings.word_embeddings.weight"]
        self.dim = int(self._words.shape[1])
        self._network = _Builder(weights, heads).network()

    def encode(self, texts: Sequence[str], batch: int = 128) -> Array:
        """Unit vectors float32 (len(texts), dim); texts beyond 128 tokens are cut."""
        if not texts:
            return np.zeros((0, self.dim), np.float32)
        # Texts of one length together: padding costs as much as words do.
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        parts = [self._encode_batch([texts[i] for i in order[s : s + batch]]) for s in range(0, len(texts), batch)]
        return np.concatenate(parts)[np.argsort(order)]

    def _encode_batch(self, texts: Sequence[str]) -> Array:
        encoded = self._tokenizer.encode_batch(list(texts))
        ids = np.array([e.ids for e in encoded], np.int64)
        mask = np.array([e.attention_mask for e in encoded], np.int64)
        return self._network(words=self._words[ids], mask=mask)


class _Builder:
    """Puts the graph together; gone, and with it the tensors that the network does not use, when it is done."""

    def __init__(self, weights: Mapping[str, Array], heads: int):
        self._weights = weights
        self._heads = heads
        self._dim = int(weights["embeddings.word_embeddings.weight"].shape[1])
        words, mask = (np.float32, ("batch", "tokens", self._dim)), (np.int64, ("batch", "tokens"))
        self._graph = Graph({"words": words, "mask": mask})

    def network(self) -> Network:
        """From word embeddings (B, T, dim) and mask (B, T) to unit vectors (B, dim)."""
        add, constant, w = self._graph.add, self._graph.constant, self._weights
        # Every text is of the first type.
        places = w["embeddings.position_embeddings.weight"] + w["embeddings.token_type_embeddings.weight"][0]
        length = add("Shape", "mask", start=1, end=2)
        places = add("Slice", constant(places), constant(np.array([0])), length)
        x = self._norm(add("Add", "words", places), "embeddings.LayerNorm")
        share = add("Cast", add("Unsqueeze", "mask", constant(np.array([2]))), to=_float_type())
        absent = add("Sub", constant(np.float32(1)), add("Transpose", share, perm=[0, 2, 1]))
        absent = add("Unsqueeze", add("Mul", absent, constant(np.float32(_FORBIDDEN))), constant(np.array([1])))
        for i in range(len({name.split(".")[2] for name in w if name.startswith("encoder.layer.")})):
            x = self._layer(x, f"encoder.layer.{i}.", absent)
        axis = constant(np.array([1]))
        total = add("ReduceSum", add("Mul", x, share), axis, keepdims=0)
        mean = add("Div", total, add("ReduceSum", share, axis, keepdims=0))
        return self._graph.network(add("LpNormalization", mean, axis=-1, p=2), "MiniLM")

    def _layer(self, x: str, layer: str, absent: str) -> str:
        """One transformer layer; `absent` (B, 1, 1, T) keeps padding out of the softmax."""
        add, constant = self._graph.add, self._graph.constant
        scale = constant(np.float32((self._dim // self._heads) ** -0.5))
        query, key, value = (
            self._heads_of(self._linear(x, f"{layer}attention.self.{name}"), perm)
            for name, perm in (("query", [0, 2, 1, 3]), ("key", [0, 2, 3, 1]), ("value", [0, 2, 1, 3]))
        )
        scores = add("Add", add("Mul", add("MatMul", query, key), scale), absent)
        attended = add("MatMul", add("Softmax", scores, axis=-1), value)
        attended = add("Reshape", add("Transpose", attended, perm=[0, 2, 1, 3]), constant(np.array([0, 0, self._dim])))
        attended = self._linear(attended, layer + "attention.output.dense")
        x = self._norm(add("Add", x, attended), layer + "attention.output.LayerNorm")
        inner = self._gelu(self._linear(x, layer + "intermediate.dense"))
        inner = self._linear(inner, layer + "output.dense")
        return self._norm(add("Add", x, inner), layer + "output.LayerNorm")

    def _heads_of(self, x: str, perm: list[int]) -> str:
        """(B, T, dim) to (B, heads, T, dim / heads), or as `perm` says."""
        split = self._graph.constant(np.array([0, 0, self._heads, self._dim // self._heads]))
        return self._graph.add("Transpose", self._graph.add("Reshape", x, split), perm=perm)

    def _linear(self, x: str, name: str) -> str:
        weight, bias = (self._weights[f"{name}.{part}"] for part in ("weight", "bias"))
        product = self._graph.add("MatMul", x, self._graph.constant(weight.T))
        return self._graph.add("Add", product, self._graph.constant(bias))

    def _norm(self, x: str, name: str) -> str:
        parameters = (self._graph.constant(self._weights[f"{name}.{part}"]) for part in ("weight", "bias"))
        return self._graph.add("LayerNormalization", x, *parameters, axis=-1, epsilon=_EPSILON)

    def _gelu(self, x: str) -> str:
        """x (1 + erf(x / sqrt 2)) / 2."""
        add, constant = self._graph.add, self._graph.constant
        share = add("Erf", add("Div", x, constant(np.float32(2**0.5))))
        return add("Mul", add("Mul", x, add("Add", share, constant(np.float32(1)))), constant(np.float32(0.5)))


def _float_type() -> int:
    from onnx import TensorProto

    return int(TensorProto.FLOAT)


def load(weights: Path, tokenizer: Path) -> MiniLM:
    """From `model.safetensors` and `tokenizer.json`. Raises WeightsError."""
    try:
        from safetensors.numpy import load_file
        from tokenizers import Tokenizer
    except ImportError as error:
        raise WeightsError(f"MiniLM needs {error.name}: pip install 'seg3d[offline]'") from None
    try:
        words = Tokenizer.from_file(str(tokenizer))
        # The published tokenizer pads every text to 128 tokens.
        words.enable_padding(pad_id=words.token_to_id("[PAD]") or 0)
        words.enable_truncation(_MAX_TOKENS)
        model = MiniLM(load_file(str(weights)), words)
        model.encode(["a chair"])
    except WeightsError:
        raise
    except Exception as error:
        raise WeightsError(f"{weights} and {tokenizer} are no MiniLM ({error}): fetch them again") from error
    return model
