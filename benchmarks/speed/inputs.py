"""What is measured with: media of a manifest or drawn, and models, the product's own or random.

Speed does not depend on the weights, so networks of full size get random ones, and nothing is
downloaded.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray
from PIL import Image

from bittern.benchmarks.speed.harness import SAMPLE, say
from bittern.encoders.base import Encoder, Modality
from bittern.hashing.saved_model import SavedModel
from bittern.service.jobs.description import DEFAULT_BITS, IndexOptions
from bittern.service.jobs.model_choice import ready_model
from bittern.service.models.fitting import fitted_model
from bittern.service.models.model import Embedder, Model, catalogue_encoder
from bittern.service.sources import read_source
from bittern.types import MediaItem

WIDTH, HEIGHT = 4000, 3000
RATE = 48_000
_GRAIN = 6.0
_QUALITY = 90

RANDOM = "bioclip"
"""The network of imageomics/bioclip (arXiv 2311.18803), CLIP's ViT-B/16; weights are random."""
CAPTIONS = (
    "a photo of Botaurus stellaris with common name great bittern",
    "Strix aluco with common name tawny owl",
    "Animalia Chordata Aves Pelecaniformes Ardeidae Botaurus stellaris",
    "The sound of a great bittern booming in the reeds",
    "the call of a tawny owl at night",
    "a chorus of common frogs by the pond",
)
"""Texts to train on; the tokenizer of a random CLAP is made of them."""

VIT_B_16: Mapping[str, Any] = {
    "embed_dim": 512,
    "vision_cfg": {"image_size": 224, "layers": 12, "width": 768, "patch_size": 16},
    "text_cfg": {
        "context_length": 77,
        "vocab_size": 49408,
        "width": 512,
        "heads": 8,
        "layers": 12,
    },
}
"""The ``model_cfg`` of imageomics/bioclip (arXiv 2311.18803): CLIP's ViT-B/16."""

HTSAT_ROBERTA: Mapping[str, Any] = {}
"""davidrrobinson/BioLingual (arXiv 2308.04978) has the size of transformers' defaults for CLAP."""

CLAP_FEATURES: Mapping[str, Any] = {"truncation": "rand_trunc", "padding": "repeatpad"}
"""Settings of its feature extractor: 10 s at 48 kHz, 64 mel bands, 1,001 frames."""

_UNKNOWN = "<unk>"
_SPECIAL = ["<s>", "<pad>", "</s>", _UNKNOWN, "<mask>"]


# Media


def media_of(source: Path) -> list[MediaItem]:
    """The usable items of a manifest or a folder.

    Raises:
        SourceNotFoundError, ManifestError: it cannot be read.
    """
    return [entry for entry in read_source(source) if isinstance(entry, MediaItem)]


def write_photographs(folder: Path, count: int) -> list[Path]:
    """JPEG files of 12 megapixels: the sample's photographs, enlarged, with a sensor's grain.

    Grain makes such files large and slow to decode.
    """
    folder.mkdir(parents=True, exist_ok=True)
    pictures = [item for item in media_of(SAMPLE) if item.modality == "image"]
    rng = np.random.default_rng(0)
    grain = rng.normal(0.0, _GRAIN, (HEIGHT, WIDTH, 1)).astype(np.float32)
    written = []
    for number in range(count):
        path = pictures[number % len(pictures)].path
        assert path is not None
        with Image.open(path) as picture:
            large = picture.convert("RGB").resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
        values = np.asarray(large, np.float32) + np.roll(grain, 17 * number, axis=1)
        target = folder / f"{number:04d}.jpg"
        Image.fromarray(values.clip(0, 255).astype(np.uint8)).save(target, quality=_QUALITY)
        written.append(target)
    return written


def write_recording(target: Path, seconds: float) -> None:
    """A WAV file, 48 kHz, 16 bits: the sample's recordings in a loop."""
    left = int(seconds * RATE)
    with soundfile.SoundFile(target, "w", RATE, 1, "PCM_16") as file:
        for clip in itertools.cycle(list(_clips())):
            file.write(clip[:left])
            left -= len(clip)
            if left <= 0:
                return


def _clips() -> Iterator[NDArray[np.float32]]:
    import soxr

    for item in media_of(SAMPLE):
        if item.modality == "audio":
            samples, rate = soundfile.read(str(item.path), dtype="float32", always_2d=True)
            yield soxr.resample(samples.mean(axis=1), rate, RATE)


# Models


def load_embedder(encoder: str) -> Embedder:
    """An encoder of the catalogue.

    Raises:
        WeightsMissingError: its weights are not on this machine.
    """
    embedder = Embedder(encoder, catalogue_encoder)
    embedder.encoder()
    return embedder


def product_model(
    embedder: Embedder, media: Callable[[], Mapping[str, NDArray[np.float32]]]
) -> Model:
    """The model that `bittern index` uses: shipped, or with a hasher fitted on the media.

    Args:
        embedder: with its encoder.
        media: per media modality, float32 [n, dim]; called if a hasher must be fitted.
    """
    say(f"making {embedder.name}-{DEFAULT_BITS}")
    options = IndexOptions(model=embedder.name, bits=DEFAULT_BITS)
    saved: SavedModel | None = ready_model(options, lambda name: embedder)
    return Model(saved or fitted_model(embedder.encoder(), DEFAULT_BITS, media()), embedder)


def loaded_model(name: str, weights: Path) -> Model:
    """A model of 256 bits whose networks are loaded.

    Args:
        name: ``field`` or `RANDOM`.
        weights: folder of the random weights, written if missing.
    """
    if name != RANDOM:
        return product_model(load_embedder(name), dict)
    from bittern.encoders.openclip import OpenClipEncoder

    if not weights.is_dir():
        say("writing a ViT-B/16 with random weights")
        write_openclip(weights)
    encoder: Encoder = OpenClipEncoder(weights, name=RANDOM, device="cpu")
    embedder = Embedder(name, lambda _: encoder)
    rng = np.random.default_rng(0)

    def sample() -> dict[str, NDArray[np.float32]]:
        pictures = [rng.integers(0, 256, (256, 256, 3), dtype=np.uint8) for _ in range(32)]
        return {"image": embedder.embed(Modality.IMAGE, pictures)}

    return product_model(embedder, sample)


def write_openclip(folder: Path, model: Mapping[str, Any] = VIT_B_16) -> Path:
    """A folder that `bittern.encoders.openclip.OpenClipEncoder` loads.

    Args:
        folder: created if missing.
        model: the ``model_cfg``.
    """
    import open_clip
    import torch
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"model_cfg": dict(model), "preprocess_cfg": {}})
    (folder / "open_clip_config.json").write_text(text)
    torch.manual_seed(0)
    towers = open_clip.CLIP(**json.loads(text)["model_cfg"])
    save_file(towers.state_dict(), folder / "open_clip_model.safetensors")
    return folder


def write_clap(
    folder: Path,
    model: Mapping[str, Any] = HTSAT_ROBERTA,
    features: Mapping[str, Any] = CLAP_FEATURES,
) -> Path:
    """A folder that `bittern.encoders.clap.ClapEncoder` loads; its vocabulary is small.

    Args:
        folder: created if missing.
        model: arguments of `transformers.ClapConfig`.
        features: arguments of `transformers.ClapFeatureExtractor`.
    """
    import torch
    from transformers import ClapConfig, ClapFeatureExtractor, ClapModel, RobertaTokenizerFast
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    ClapModel(ClapConfig(**json.loads(json.dumps(dict(model))))).save_pretrained(folder)
    ClapFeatureExtractor(**features).save_pretrained(folder)
    tokenizer = RobertaTokenizerFast(tokenizer_object=_vocabulary(), model_max_length=512)
    tokenizer.save_pretrained(folder)
    return folder


def _vocabulary() -> Any:
    """Byte pairs of the captions, as RoBERTa's tokenizer has them of the web."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE(unk_token=_UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=_SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CAPTIONS, trainer)
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    return tokenizer
