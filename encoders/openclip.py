"""Image-text encoders in the layout of open_clip, such as BioCLIP (arXiv 2311.18803, 2505.23883).

A checkpoint is a folder, as the hub has it: `open_clip_config.json` (architecture and
preprocessing), one weights file, and tokenizer files where the configuration names a Hugging Face
tokenizer. Nothing is downloaded, and nothing in the folder is executed, whatever the configuration
says.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from bittern.encoders.base import PICTURES, AudioWindowing, Image, Media, Modality
from bittern.encoders.batching import check_images, check_texts, in_portions
from bittern.encoders.checkpoints import (
    check_tokenizer,
    check_vocabulary,
    load_into,
    pick_device,
    read_json,
    read_tensors,
    sha256_of_files,
    sha256_of_weights,
    tower_digest,
    weights_file,
)
from bittern.errors import ModelDamagedError, QueryError, UnsupportedModalityError

if TYPE_CHECKING:
    import torch

CONFIG = "open_clip_config.json"
WEIGHTS = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
    "model.safetensors",
)
"""Names of weights files, in the order in which they are looked for."""
Precision = Literal["fp32", "fp16", "bf16"]

_STRETCH = 8
"""Pictures longer than this many times their width are cropped before they are scaled: the
centre crop drops the rest anyway, and one of 1 x 50,000 pixels would become 7 GB."""
_TOKENIZER_FILES = ("tokenizer*", "vocab*", "merges.txt", "special_tokens_map.json", "*.model")
_PREPROCESSING: dict[str, Any] = {
    "mean": [0.48145466, 0.4578275, 0.40821073],
    "std": [0.26862954, 0.26130258, 0.27577711],
    "interpolation": "bicubic",
    "resize_mode": "shortest",
    "fill_color": 0,
}
"""What open_clip assumes where a checkpoint says nothing: the values of the first CLIP."""


def torch_dtype(precision: Precision) -> torch.dtype:
    """The dtype of a precision."""
    import torch

    return {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[precision]


def read_config(folder: Path, name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Architecture and preprocessing, if nothing has to be fetched for them."""
    path = folder / CONFIG
    whole = read_json(path, name)
    config = whole.get("model_cfg")
    if not isinstance(config, dict) or not isinstance(config.get("embed_dim"), int):
        raise ModelDamagedError(f"{name}: {path} has no 'model_cfg' with an 'embed_dim'")
    vision, text = config.get("vision_cfg"), config.get("text_cfg")
    if not isinstance(vision, dict) or not isinstance(text, dict):
        raise ModelDamagedError(f"{name}: {path} lacks 'vision_cfg' or 'text_cfg'")
    foreign = {"timm_model_name", "hf_model_name"} & (vision.keys() | text.keys())
    if foreign or "multimodal_cfg" in config:
        raise ModelDamagedError(
            f"{name}: {path} describes towers that are not open_clip's own "
            f"({', '.join(sorted(foreign)) or 'multimodal_cfg'}), which are not supported"
        )
    own = whole.get("preprocess_cfg")
    preprocess = {**_PREPROCESSING, **(own if isinstance(own, dict) else {})}
    preprocess["size"] = vision.get("image_size", 224)
    return config, {key: preprocess[key] for key in (*_PREPROCESSING, "size")}


def build(config: Mapping[str, Any], name: str, precision: Precision) -> torch.nn.Module:
    """The architecture, with no weights yet."""
    import open_clip

    arguments = dict(config)
    towers = open_clip.CustomTextCLIP if arguments.pop("custom_text", False) else open_clip.CLIP
    try:
        module: torch.nn.Module = towers(
            **arguments, cast_dtype=open_clip.get_cast_dtype(precision)
        )
    except MemoryError:
        raise
    except Exception as error:  # whatever a senseless configuration leads to
        raise ModelDamagedError(f"{name}: no towers can be built from {CONFIG}: {error}") from error
    return module


def image_transform(config: Mapping[str, Any], name: str) -> Any:
    """From a Pillow picture to float32 [3, size, size], as the checkpoint was trained.

    Raises:
        ModelDamagedError: a preprocessing that open_clip does not know.
    """
    import open_clip

    try:
        return open_clip.image_transform(
            image_size=config["size"],
            is_train=False,
            mean=config["mean"],
            std=config["std"],
            interpolation=config["interpolation"],
            resize_mode=config["resize_mode"],
            fill_color=config["fill_color"],
        )
    except (AssertionError, TypeError, ValueError) as error:
        raise ModelDamagedError(f"{name}: unusable preprocessing {dict(config)}") from error


def load_tokenizer(folder: Path, config: Mapping[str, Any], name: str) -> Any:
    """open_clip's own tokenizer, or the Hugging Face tokenizer in the folder.

    Raises:
        ModelDamagedError: its files are missing or damaged.
    """
    import open_clip

    # Override what a configuration may ask for: running code from the folder, fetching files,
    # and thinning out long texts at random (no text that is too long gets that far).
    text = config["text_cfg"]
    foreign = bool(text.get("hf_tokenizer_name"))
    safe: dict[str, Any] = {"reduction_mask": ""}
    if foreign:
        check_tokenizer(folder, name)
        safe = {"trust_remote_code": False, "local_files_only": True}
    try:
        tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}", **safe)
    except Exception as error:  # whatever damaged tokenizer files lead to
        raise ModelDamagedError(f"{name}: no tokenizer in {folder}: {error}") from error
    size = len(tokenizer.tokenizer) if foreign else tokenizer.vocab_size
    check_vocabulary(size, int(text.get("vocab_size", 49408)), name)
    return tokenizer


def digests_of(
    folder: Path, config: Mapping[str, Any], weights_sha256: str, preprocess: Mapping[str, Any]
) -> dict[Modality, str]:
    """Per tower, hex SHA-256 of all that decides its embeddings."""
    towers = ("vision_cfg", "text_cfg")
    shared = {
        "weights": weights_sha256,
        "model": {key: value for key, value in config.items() if key not in towers},
    }
    tokenizer = "open_clip"
    if config["text_cfg"].get("hf_tokenizer_name"):
        tokenizer = sha256_of_files(p for glob in _TOKENIZER_FILES for p in folder.glob(glob))
    return {
        Modality.TEXT: tower_digest(
            {**shared, "tower": config["text_cfg"], "tokenizer": tokenizer}
        ),
        Modality.IMAGE: tower_digest(
            {
                **shared,
                "tower": config["vision_cfg"],
                "preprocessing": dict(preprocess),
                "decoding": PICTURES,
            }
        ),
    }


class OpenClipEncoder:
    """Text and image towers of one open_clip checkpoint. See `bittern.encoders.base.Encoder`.

    Attributes:
        name: catalogue name.
        dim: length of an embedding.
        modalities: text and image.
        windowing: None, there is no audio tower.
        module: the towers as a `torch.nn.Module`, for adapters.
        device: where they run.
        precision: ``fp32``, ``fp16`` or ``bf16``.
        context_length: tokens that a text may have, start and end included.
    """

    modalities = frozenset({Modality.TEXT, Modality.IMAGE})
    windowing: AudioWindowing | None = None

    def __init__(
        self,
        folder: Path,
        *,
        name: str,
        device: str | None = None,
        precision: Precision | None = None,
        sha256: str = "",
        batch_size: int = 32,
    ) -> None:
        """Load a checkpoint.

        Args:
            folder: the checkpoint.
            name: catalogue name; used in errors.
            device: ``cpu``, ``cuda``, ``cuda:N``; None means the GPU if there is one.
            precision: None means fp16 on a GPU and fp32 on a CPU.
            sha256: what the weights file must have; empty if any will do.
            batch_size: most items at a time in a tower.

        Raises:
            ModelDamagedError: files are missing, damaged or contradict each other.
            PreconditionError: there is no such device.
        """
        import open_clip

        self.name = name
        self.device = pick_device(device)
        self.precision: Precision = precision or ("fp16" if self.device.type == "cuda" else "fp32")
        self._batch_size = batch_size
        self._lock = threading.Lock()
        config, preprocessing = read_config(folder, name)
        weights = weights_file(folder, WEIGHTS, name)
        weights_sha256 = sha256_of_weights(weights, name, sha256)
        self.module: torch.nn.Module = build(config, name, self.precision)
        load_into(self.module, read_tensors(weights, name), name)
        self.module.to(self.device).eval().requires_grad_(False)
        if self.precision != "fp32":
            open_clip.convert_weights_to_lp(self.module, dtype=torch_dtype(self.precision))
        self.dim = int(config["embed_dim"])
        self._resize_mode = preprocessing["resize_mode"]
        self._preprocess = image_transform(preprocessing, name)
        self._tokenizer = load_tokenizer(folder, config, name)
        self.context_length = int(self._tokenizer.context_length)
        self._digests = digests_of(folder, config, weights_sha256, preprocessing)
        towers: Any = self.module
        self._encode_text = towers.encode_text
        self._encode_image = towers.encode_image

    @property
    def digests(self) -> Mapping[Modality, str]:
        """Per tower, hex SHA-256 of weights, configuration and preprocessing.

        Device and precision are not part of it: they flip few bits, and how many is measured.
        """
        return self._digests

    def encode(self, modality: Modality, batch: Sequence[Media]) -> NDArray[np.float32]:
        """Embed texts or pictures.

        Args:
            modality: text or image.
            batch: `str`, or uint8 [h, w, 3].

        Returns:
            float32 [n, dim], each row of unit L2 norm.

        Raises:
            UnsupportedModalityError: sound was given.
            QueryError: a text is empty, or longer than the tower can take.
            InvalidInputError: an item has the wrong type, dtype or shape.
            ModelDamagedError: an embedding is not finite.
        """
        import torch

        def embed(portion: Sequence[Media]) -> torch.Tensor:
            return self.embed(modality, self.prepare(modality, portion))

        with torch.inference_mode():
            return in_portions(batch, self._batch_size, self.dim, embed)

    def prepare(self, modality: Modality, batch: Sequence[Media]) -> torch.Tensor:
        """What the tower takes, on its device: token ids [n, context] or pixels [n, 3, h, w].

        Raises:
            as `encode`.
        """
        import torch

        if modality is Modality.TEXT:
            return self._tokens(check_texts(batch)).to(self.device)
        if modality is not Modality.IMAGE:
            raise UnsupportedModalityError(
                f"{self.name} has towers for text and image, not for {modality}"
            )
        pixels = [self._pixels(image) for image in check_images(batch)]
        return torch.stack(pixels).to(self.device, torch_dtype(self.precision))

    def embed(self, modality: Modality, inputs: torch.Tensor) -> torch.Tensor:
        """Run a tower on what `prepare` returned; gradients flow where they are wanted.

        Returns:
            float32 [n, dim] of unit L2 norm, on the device.
        """
        import torch

        encode = self._encode_text if modality is Modality.TEXT else self._encode_image
        return torch.nn.functional.normalize(encode(inputs).float(), dim=-1)

    def _pixels(self, image: Image) -> torch.Tensor:
        from PIL import Image as PillowImage

        if self._resize_mode == "shortest":
            image = without_extremes(image)
        pixels: torch.Tensor = self._preprocess(PillowImage.fromarray(image))
        return pixels

    def _tokens(self, texts: list[str]) -> torch.Tensor:
        with self._lock:  # fast tokenizers cannot be shared between threads
            for text in texts:
                self._check_tokens(text)
            tokens: torch.Tensor = self._tokenizer(texts)
        return tokens

    def _check_tokens(self, text: str) -> None:
        """Refuse what the tokenizer would cut in silence."""
        tokenizer = self._tokenizer
        if hasattr(tokenizer, "encode"):  # open_clip's own
            ids = tokenizer.encode(text)
            if set(ids) & set(tokenizer.all_special_ids):
                raise QueryError(
                    f"{self.name}: the text {_short(text)} holds a control token; leave it out",
                    field="text",
                )
            count = len(ids) + 2
        else:
            cleaned = tokenizer.clean_fn(text)
            count = len(tokenizer.tokenizer(cleaned, truncation=False).input_ids)
        if count > self.context_length:
            raise QueryError(
                f"{self.name}: the text {_short(text)} has {count} tokens, this encoder takes "
                f"{self.context_length}; shorten it",
                field="text",
                details={"tokens": str(count), "limit": str(self.context_length)},
            )


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")


def without_extremes(image: Image) -> Image:
    """The middle of a picture that is far longer than wide; any other as it is.

    Args:
        image: uint8 [h, w, 3].

    Returns:
        uint8, neither side more than 8 times the other.
    """
    height, width = image.shape[:2]
    most = _STRETCH * min(height, width)
    top, left = max(0, height - most) // 2, max(0, width - most) // 2
    return np.ascontiguousarray(image[top : top + most, left : left + most])
