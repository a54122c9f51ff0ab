"""all-MiniLM-L6-v2 in plain torch: a text to one unit vector. Needs safetensors and tokenizers, not transformers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

from ...errors import WeightsError

_MAX_TOKENS = 128
_EPSILON = 1e-12


class MiniLM:
    """BERT with mean pooling. `weights` are the checkpoint's tensors by name; `heads` divides the width."""

    def __init__(self, weights: dict[str, torch.Tensor], tokenizer: Any, heads: int = 12):
        self._weights = weights
        self._tokenizer = tokenizer
        self._heads = heads
        self.dim = int(weights["embeddings.word_embeddings.weight"].shape[1])
        self._layers = len({name.split(".")[2] for name in weights if name.startswith("encoder.layer.")})

    @torch.inference_mode()
    def encode(self, texts: Sequence[str], batch: int = 128) -> torch.Tensor:
        """Unit vectors (len(texts), dim); texts beyond 128 tokens are cut."""
        if not texts:
            return torch.zeros(0, self.dim)
        # Texts of one length together: padding costs as much as words do.
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        parts = [self._encode_batch([texts[i] for i in order[s : s + batch]]) for s in range(0, len(texts), batch)]
        return torch.cat(parts)[torch.tensor(order).argsort()]

    def _encode_batch(self, texts: Sequence[str]) -> torch.Tensor:
        encoded = self._tokenizer.encode_batch(list(texts))
        ids = torch.tensor([e.ids for e in encoded])
        mask = torch.tensor([e.attention_mask for e in encoded])
        hidden = self.forward(ids, mask)
        share = mask[..., None].to(hidden.dtype)
        return functional.normalize((hidden * share).sum(1) / share.sum(1), dim=-1)

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Token ids and mask (B, T) to the last hidden states (B, T, dim)."""
        w = self._weights
        x = (
            w["embeddings.word_embeddings.weight"][ids]
            + w["embeddings.position_embeddings.weight"][: ids.shape[1]]
            + w["embeddings.token_type_embeddings.weight"][0]
        )
        x = self._norm(x, "embeddings.LayerNorm")
        allowed = mask[:, None, None].bool()
        for i in range(self._layers):
            layer = f"encoder.layer.{i}."
            query, key, value = (
                self._linear(x, f"{layer}attention.self.{name}").unflatten(-1, (self._heads, -1)).transpose(1, 2)
                for name in ("query", "key", "value")
            )
            attended = (
                functional.scaled_dot_product_attention(query, key, value, attn_mask=allowed).transpose(1, 2).flatten(2)
            )
            x = self._norm(
                x + self._linear(attended, layer + "attention.output.dense"), layer + "attention.output.LayerNorm"
            )
            inner = functional.gelu(self._linear(x, layer + "intermediate.dense"))
            x = self._norm(x + self._linear(inner, layer + "output.dense"), layer + "output.LayerNorm")
        return x

    def _linear(self, x: torch.Tensor, name: str) -> torch.Tensor:
        return functional.linear(x, self._weights[name + ".weight"], self._weights[name + ".bias"])

    def _norm(self, x: torch.Tensor, name: str) -> torch.Tensor:
        return functional.layer_norm(
            x, (self.dim,), self._weights[name + ".weight"], self._weights[name + ".bias"], _EPSILON
        )


def load(weights: Path, tokenizer: Path) -> MiniLM:
    """From `model.safetensors` and `tokenizer.json`. Raises WeightsError."""
    try:
        from safetensors.torch import load_file
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
    except Exception as error:
        raise WeightsError(f"{weights} and {tokenizer} are no MiniLM ({error}): fetch them again") from error
    return model
