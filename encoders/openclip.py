"""Image-text encoders in the layout of open_clip, such as BioCLIP (arXiv 2311.18803, 2505.23883).

A checkpoint is a folder, as the hub has it: `open_clip_config.json` (architecture and
preprocessing), one weights file, and tokenizer files where the configuration names a Hugging Face
tokenizer. Nothing is downloaded, and no code of the folder runs, whatever the configuration says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from bittern.encoders.base import (
    PICTURES,
    AudioWindowing,
    Image,
    Media,
    Modality,
    check_images,
    check_texts,
)
from bittern.encoders.checkpoints import (
    as_damage,
    check_tokenizer,
    check_vocabulary,
    read_json,
    sha256_of_files,
    tower_digest,
)
from bittern.encoders.torch_encoder import TorchEncoder, shortened
from bittern.encoders.weights import WEIGHTS_FILES
from bittern.errors import ModelDamagedError, QueryError

if TYPE_CHECKING:
    import torch

CONFIG = "open_clip_config.json"
Precision = Literal["fp32", "fp16", "bf16"]

_STRETCH = 8
"""Pictures longer than this many times their width are cropped before they are scaled: the
centre crop drops the rest anyway, and a picture of 1 x 50,000 pixels would take 7 GB."""
_TOKENIZER_FILES = ("tokenizer*", "vocab*", "merges.txt", "special_tokens_map.json", "*.model")
_PREPROCESSING: dict[str, Any] = {
    "mean": [0.48145466, 0.4578275, 0.40821073],
    "std": [0.26862954, 0.26130258, 0.27577711],
    "interpolation": "bicubic",
    "resize_mode": "shortest",
    "fill_color": 0,
}
"""open_clip's defaults: the values of the first CLIP."""


def torch_dtype(precision: Precision) -> torch.dtype:
    """The dtype of a precision."""
    import torch

    return {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[precision]


def read_config(folder: Path, name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Architecture and preprocessing, if both need no further files."""
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
    with as_damage(f"{name}: no towers can be built from {CONFIG}"):
        module: torch.nn.Module = towers(
            **arguments, cast_dtype=open_clip.get_cast_dtype(precision)
        )
    return module


def image_transform(config: Mapping[str, Any], name: str) -> Any:
    """From a Pillow picture to float32 [3, size, size], as the checkpoint was trained.

    Raises:
        ModelDamagedError: a preprocessing that open_clip does not know.
    """
    import open_clip

    options = {key: value for key, value in config.items() if key != "size"}
    with as_damage(f"{name}: unusable preprocessing {dict(config)}"):
        return open_clip.image_transform(image_size=config["size"], is_train=False, **options)


def load_tokenizer(folder: Path, config: Mapping[str, Any], name: str) -> Any:
    """open_clip's own tokenizer, or the Hugging Face tokenizer in the folder.

    Raises:
        ModelDamagedError: its files are missing or damaged.
    """
    import open_clip

    # Override options of the configuration that would run code from the folder, fetch files, or
    # drop tokens of long texts at random.
    text = config["text_cfg"]
    foreign = bool(text.get("hf_tokenizer_name"))
    safe: dict[str, Any] = {"reduction_mask": ""}
    if foreign:
        check_tokenizer(folder, name)
        safe = {"trust_remote_code": False, "local_files_only": True}
    with as_damage(f"{name}: no tokenizer in {folder}"):
        tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}", **safe)
    size = len(tokenizer.tokenizer) if foreign else tokenizer.vocab_size
    check_vocabulary(size, int(text.get("vocab_size", 49408)), name)
    return tokenizer


def digests_of(
    folder: Path, config: Mapping[str, Any], weights_sha256: str, preprocess: Mapping[str, Any]
) -> dict[Modality, str]:
    """Per tower, hex SHA-256 of everything that decides its embeddings."""
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


class OpenClipEncoder(TorchEncoder):
    """Text and image towers of one open_clip checkpoint.

    Attributes:
        precision: ``fp32``, ``fp16`` or ``bf16``.
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
            sha256: expected SHA-256 of the weights file; empty for any.
            batch_size: most items at a time in a tower.

        Raises:
            ModelDamagedError: files are missing, damaged or contradict each other.
            PreconditionError: no such device.
        """
        import open_clip

        super().__init__(name, device, batch_size)
        self.precision: Precision = precision or ("fp16" if self.device.type == "cuda" else "fp32")
        config, preprocessing = read_config(folder, name)
        module = build(config, name, self.precision)
        weights_sha256 = self._load(module, folder, WEIGHTS_FILES["open_clip"], sha256)
        if self.precision != "fp32":
            open_clip.convert_weights_to_lp(self.module, dtype=torch_dtype(self.precision))
        self.dim = int(config["embed_dim"])
        self._resize_mode = preprocessing["resize_mode"]
        self._preprocess = image_transform(preprocessing, name)
        self._tokenizer = load_tokenizer(folder, config, name)
        self.context_length = int(self._tokenizer.context_length)
        self.digests = digests_of(folder, config, weights_sha256, preprocessing)
        towers: Any = self.module
        self._encode_text = towers.encode_text
        self._encode_image = towers.encode_image

    def prepare(self, modality: Modality, batch: Sequence[Media]) -> torch.Tensor:
        """Inputs of the tower, on its device: token ids [n, context] or pixels [n, 3, h, w].

        Raises:
            as `encode`.
        """
        import torch

        self.check_modality(modality)
        if modality is Modality.TEXT:
            return self._tokens(check_texts(batch)).to(self.device)
        pixels = [self._pixels(image) for image in check_images(batch)]
        return torch.stack(pixels).to(self.device, torch_dtype(self.precision))

    def embed(self, modality: Modality, inputs: torch.Tensor) -> torch.Tensor:
        """Run a tower on the inputs that `prepare` returned; gradients flow through it.

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
        """Refuse texts that the tokenizer would truncate silently."""
        tokenizer = self._tokenizer
        if hasattr(tokenizer, "encode"):  # open_clip's own
            ids = tokenizer.encode(text)
            if set(ids) & set(tokenizer.all_special_ids):
                raise QueryError(
                    f"{self.name}: the text {shortened(text)} holds a control token; leave it out",
                    field="text",
                )
            count = len(ids) + 2
        else:
            cleaned = tokenizer.clean_fn(text)
            count = len(tokenizer.tokenizer(cleaned, truncation=False).input_ids)
        if count > self.context_length:
            raise self.too_long(text, count)


def without_extremes(image: Image) -> Image:
    """Crop a picture that is far longer than wide to its middle; return others unchanged.

    Args:
        image: uint8 [h, w, 3].

    Returns:
        uint8, neither side more than 8 times the other.
    """
    height, width = image.shape[:2]
    most = _STRETCH * min(height, width)
    top, left = max(0, height - most) // 2, max(0, width - most) // 2
    return np.ascontiguousarray(image[top : top + most, left : left + most])
