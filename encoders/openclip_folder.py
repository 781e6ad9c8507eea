"""The files of an open_clip checkpoint, and what is made of them.

A folder, as the hub has it: `open_clip_config.json` (architecture and preprocessing), one
weights file, and tokenizer files where the configuration names a Hugging Face tokenizer.
Nothing is fetched, and nothing in the folder is executed, whatever the configuration asks for.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from bittern.encoders.base import Modality
from bittern.encoders.checkpoints import (
    check_tokenizer,
    check_vocabulary,
    read_json,
    sha256_of_files,
    tower_digest,
)
from bittern.encoders.decoding import PICTURES
from bittern.errors import ModelDamagedError

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
