"""Audio-text encoders in the layout of transformers' CLAP, such as BioLingual (arXiv 2308.04978).

A checkpoint is a folder, as the hub has it: `config.json`, `preprocessor_config.json`, one
weights file and tokenizer files.

CLAP's feature extractor crops long clips at random, and in fusion mode marks a random clip of
each batch as "longer". Neither happens here: every clip must be exactly one window, features are
computed clip by clip, and no clip is marked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bittern.encoders.base import (
    SOUNDS,
    AudioWindowing,
    Media,
    Modality,
    check_texts,
    check_windows,
)
from bittern.encoders.checkpoints import (
    as_damage,
    check_tokenizer,
    check_vocabulary,
    read_json,
    sha256_of_file,
    sha256_of_files,
    tower_digest,
)
from bittern.encoders.torch_encoder import TorchEncoder
from bittern.encoders.weights import WEIGHTS_FILES
from bittern.errors import ModelDamagedError

if TYPE_CHECKING:
    import torch

CONFIG = "config.json"
PREPROCESSING = "preprocessor_config.json"

_TOKENIZER_FILES = ("tokenizer*", "vocab*", "merges.txt", "special_tokens_map.json")
_CONSTANTS = (
    "position_ids",
    "token_type_ids",
    "relative_position_index",
    "attn_mask",
    "num_batches_tracked",
)


WINDOWING = "windows side by side, the last one repeated until full"


class ClapEncoder(TorchEncoder):
    """Text and audio towers of one CLAP checkpoint; windows do not overlap."""

    modalities = frozenset({Modality.TEXT, Modality.AUDIO})

    def __init__(
        self,
        folder: Path,
        *,
        name: str,
        device: str | None = None,
        sha256: str = "",
        batch_size: int = 8,
    ) -> None:
        """Load a checkpoint; it runs in fp16 (autocast) on a GPU.

        Args:
            folder: the checkpoint.
            name: catalogue name; used in errors.
            device: ``cpu``, ``cuda``, ``cuda:N``; None means the GPU if there is one.
            sha256: expected SHA-256 of the weights file; empty for any.
            batch_size: most items at a time in a tower.

        Raises:
            ModelDamagedError: files are missing, damaged or contradict each other.
            PreconditionError: no such device.
        """
        super().__init__(name, device, batch_size)
        config = read_json(folder / CONFIG, name)
        weights_sha256 = self._load(
            _build(config, name), folder, WEIGHTS_FILES["clap"], sha256, ignorable=_CONSTANTS
        )
        self._extractor, self._tokenizer = _processors(folder, name)
        settings: Any = self.module.config
        check_vocabulary(len(self._tokenizer), settings.text_config.vocab_size, name)
        self.dim = int(settings.projection_dim)
        # RoBERTa counts positions from after the padding token.
        positions = int(settings.text_config.max_position_embeddings)
        positions -= int(settings.text_config.pad_token_id) + 1
        self.context_length = min(positions, int(self._tokenizer.model_max_length))
        rate = int(self._extractor.sampling_rate)
        self._samples = int(self._extractor.nb_max_samples)
        seconds = self._samples / rate
        self.windowing: AudioWindowing | None = AudioWindowing(rate, seconds, seconds)
        self.digests = _digests(folder, config, weights_sha256)

    def prepare(self, modality: Modality, batch: Sequence[Media]) -> dict[str, torch.Tensor]:
        """Inputs of the tower, on its device: token ids, or log-mel spectrograms.

        Raises:
            as `encode`.
        """
        import torch

        self.check_modality(modality)
        if modality is Modality.TEXT:
            inputs = self._tokens(check_texts(batch))
        else:
            mels = [self._mel(window) for window in check_windows(batch, self._samples)]
            inputs = {
                "input_features": torch.from_numpy(np.stack(mels)),
                "is_longer": torch.zeros(len(mels), 1, dtype=torch.bool),
            }
        return {key: value.to(self.device) for key, value in inputs.items()}

    def embed(self, modality: Modality, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Run a tower on the inputs that `prepare` returned; gradients flow through it.

        Returns:
            float32 [n, dim] of unit L2 norm, on the device.
        """
        import torch

        module: Any = self.module
        text = modality is Modality.TEXT
        half = self.device.type == "cuda"
        with torch.autocast(self.device.type, torch.float16, enabled=half):
            output = (module.get_text_features if text else module.get_audio_features)(**inputs)
        embedding = output if isinstance(output, torch.Tensor) else output.pooler_output
        return torch.nn.functional.normalize(embedding.float(), dim=-1)

    def _mel(self, window: NDArray[np.float32]) -> NDArray[np.float32]:
        """Log-mel spectrogram of one window: float32 [1 or 4, frames, mels]."""
        features = self._extractor(
            window, sampling_rate=self._extractor.sampling_rate, return_tensors="np"
        )
        return np.asarray(features["input_features"][0], dtype=np.float32)

    def _tokens(self, texts: list[str]) -> dict[str, torch.Tensor]:
        with self._lock:  # fast tokenizers cannot be shared between threads
            encoded = self._tokenizer(texts, truncation=False, padding=True, return_tensors="pt")
        counts = encoded["attention_mask"].sum(dim=1)
        longest = int(counts.argmax())
        if int(counts[longest]) > self.context_length:
            raise self.too_long(texts[longest], int(counts[longest]))
        return {key: encoded[key] for key in ("input_ids", "attention_mask")}


def _build(config: Mapping[str, Any], name: str) -> torch.nn.Module:
    """The architecture, with no weights yet."""
    from transformers import ClapConfig, ClapModel

    if config.get("model_type") != "clap":
        raise ModelDamagedError(
            f"{name}: its configuration is of a {config.get('model_type')!r} model, not 'clap'"
        )
    with as_damage(f"{name}: no towers can be built from {CONFIG}"):
        module: torch.nn.Module = ClapModel(ClapConfig.from_dict(dict(config)))
    return module


def _processors(folder: Path, name: str) -> tuple[Any, Any]:
    """Feature extractor and tokenizer, from the folder alone."""
    from transformers import AutoTokenizer, ClapFeatureExtractor

    read_json(folder / PREPROCESSING, name)
    check_tokenizer(folder, name)
    with as_damage(f"{name}: no feature extractor or tokenizer in {folder}"):
        extractor = ClapFeatureExtractor.from_pretrained(folder, local_files_only=True)
        tokenizer = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    return extractor, tokenizer


def _digests(folder: Path, config: Mapping[str, Any], weights_sha256: str) -> dict[Modality, str]:
    shared = {"weights": weights_sha256, "projection": config.get("projection_dim")}
    tokenizer = sha256_of_files(p for glob in _TOKENIZER_FILES for p in folder.glob(glob))
    return {
        Modality.TEXT: tower_digest(
            {**shared, "tower": config.get("text_config"), "tokenizer": tokenizer}
        ),
        Modality.AUDIO: tower_digest(
            {
                **shared,
                "tower": config.get("audio_config"),
                "preprocessing": sha256_of_file(folder / PREPROCESSING),
                "decoding": SOUNDS,
                "windowing": WINDOWING,
            }
        ),
    }
