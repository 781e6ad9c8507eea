"""BERT (Devlin et al., arXiv 1810.04805) in NumPy, for one text at a time.

For a short text it takes no longer than PyTorch, whose loading takes two seconds and 900 MB.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


class Bert:
    """A BERT encoder without its pooling layer. Thread-safe.

    Args:
        config: the network's `config.json`, as Hugging Face writes it.
        weights: its `model.safetensors`.
    """

    def __init__(self, config: Path, weights: Path) -> None:
        from safetensors.numpy import load_file

        settings = json.loads(config.read_text(encoding="utf-8"))
        tensors = load_file(weights)
        self._eps = np.float32(settings["layer_norm_eps"])
        self._words = tensors["embeddings.word_embeddings.weight"]
        self._positions = (
            tensors["embeddings.position_embeddings.weight"]
            + tensors["embeddings.token_type_embeddings.weight"][0]
        )
        self._norm = _affine(tensors, "embeddings.LayerNorm")
        self._layers = [
            _Layer(tensors, f"encoder.layer.{number}.", settings["num_attention_heads"])
            for number in range(settings["num_hidden_layers"])
        ]
        self._blas = _SingleThreadedBlas()

    def __call__(self, tokens: NDArray[np.int64]) -> Floats:
        """The last hidden state: token numbers [length] in, float32 [length, dim] out."""
        with self._blas:
            x = self._words[tokens] + self._positions[: len(tokens)]
            x = _normalised(x, self._norm, self._eps)
            for layer in self._layers:
                x = _normalised(x + layer.attention(x), layer.attention_norm, self._eps)
                x = _normalised(x + layer.feed_forward(x), layer.output_norm, self._eps)
            return x


@dataclass(frozen=True)
class _Affine:
    """Weights [in, out] (or [dim] of a layer norm) and bias."""

    weight: Floats
    bias: Floats

    def __call__(self, x: Floats) -> Floats:
        y: Floats = x @ self.weight
        y += self.bias
        return y


def _affine(tensors: Mapping[str, Floats], *names: str) -> _Affine:
    """The weights of layers with the same input as those of one layer."""
    # Transposed in memory: a product with few rows then takes two thirds of the time.
    weight = np.concatenate([tensors[f"{name}.weight"] for name in names])
    bias = np.concatenate([tensors[f"{name}.bias"] for name in names])
    return _Affine(np.ascontiguousarray(weight.T), bias)


class _Layer:
    """One layer's weights, self-attention and feed-forward network."""

    def __init__(self, tensors: Mapping[str, Floats], prefix: str, heads: int) -> None:
        attention = prefix + "attention."
        self._heads = heads
        self._qkv = _affine(tensors, *(f"{attention}self.{n}" for n in ("query", "key", "value")))
        self._mixed = _affine(tensors, attention + "output.dense")
        self.attention_norm = _affine(tensors, attention + "output.LayerNorm")
        self._inner = _affine(tensors, prefix + "intermediate.dense")
        self._outer = _affine(tensors, prefix + "output.dense")
        self.output_norm = _affine(tensors, prefix + "output.LayerNorm")

    def attention(self, x: Floats) -> Floats:
        """Self-attention: float32 [length, dim] in and out."""
        length, dim = x.shape
        by_head = self._qkv(x).reshape(length, 3, self._heads, dim // self._heads)
        query, key, value = by_head.transpose(1, 2, 0, 3)
        scores = query @ key.transpose(0, 2, 1) / np.float32(np.sqrt(dim // self._heads))
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        weights /= weights.sum(axis=-1, keepdims=True)
        return self._mixed((weights @ value).transpose(1, 0, 2).reshape(length, dim))

    def feed_forward(self, x: Floats) -> Floats:
        """Two linear layers with GELU between: float32 [length, dim] in and out."""
        h = self._inner(x)
        return self._outer(h * (1 + _erf(h / np.float32(np.sqrt(2)))) * np.float32(0.5))


def _normalised(x: Floats, norm: _Affine, eps: np.float32) -> Floats:
    """Layer norm: float32 [length, dim] in and out."""
    x = x - x.mean(axis=-1, keepdims=True)
    variance = (x * x).mean(axis=-1, keepdims=True)
    y: Floats = x / np.sqrt(variance + eps) * norm.weight + norm.bias
    return y


_ERF = np.array([1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592], np.float32)


def _erf(x: Floats) -> Floats:
    """The error function to 2e-7: Abramowitz and Stegun, formula 7.1.26."""
    size = np.abs(x)
    t = 1 / (1 + np.float32(0.3275911) * size)
    series = np.zeros_like(x)
    for coefficient in _ERF:
        series += coefficient
        series *= t
    y: Floats = np.copysign(1 - series * np.exp(-size * size), x)
    return y


class _SingleThreadedBlas:
    """Holds BLAS at one thread: products this small wait for threads longer than they take.

    The setting is the process's: of several threads, the last one to leave restores it.
    """

    def __init__(self) -> None:
        from threadpoolctl import ThreadpoolController

        self._libraries = ThreadpoolController().select(user_api="blas")
        self._lock = threading.Lock()
        self._users = 0
        self._limit: Any = None

    def __enter__(self) -> None:
        with self._lock:
            if not self._users:
                self._limit = self._libraries.limit(limits=1)
            self._users += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._users -= 1
            if not self._users:
                self._limit.restore_original_limits()
