"""The encoders that Bittern knows, and how their weights are found.

The first of these folders that holds all files is used:

1. the folder that the caller gives;
2. `$BITTERN_WEIGHTS/<name>`;
3. the Hugging Face cache (`HF_HUB_CACHE`, `HF_HOME`), at the pinned revision;
4. the Hugging Face hub, unless `HF_HUB_OFFLINE` is set.

The commits and SHA-256 of the three BioCLIP checkpoints were taken from public projects that pin
them, several for each. No record was found for BioLingual: its revision is the branch `main`, which
may change. The encoder's digests show such a change, since they hash the weights.

Importing this module imports neither torch nor a hub client.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import cast

from bittern.encoders.base import Encoder, Modality
from bittern.encoders.weights import (
    EncoderEntry,
    WeightsStatus,
    download,
    local_folder,
    offline,
    packages_status,
    recorded_sha256,
)
from bittern.errors import (
    BitternError,
    ModelDamagedError,
    ModelNotFoundError,
    WeightsMissingError,
)

__all__ = [
    "CATALOGUE",
    "EncoderEntry",
    "WeightsStatus",
    "find_entry",
    "find_weights",
    "licence_of",
    "load_encoder",
]

_TEXT_IMAGE = (Modality.TEXT, Modality.IMAGE)
_TEXT_AUDIO = (Modality.TEXT, Modality.AUDIO)

CATALOGUE: Mapping[str, EncoderEntry] = {
    entry.name: entry
    for entry in (
        EncoderEntry(
            name="field",
            layout="embedded",
            hub_id="",
            revision="",
            architecture="MiniLM-L6 + EfficientNet-Lite2 + BirdNET 2.4",
            dim=384,
            modalities=(Modality.TEXT, Modality.IMAGE, Modality.AUDIO),
            licence="text and image Apache-2.0, audio CC BY-NC-SA 4.0",
            size_mb=168,
            source="arXiv 1312.5650",
            notice=(
                "Sounds are heard by BirdNET 2.4 (K. Lisa Yang Center for Conservation "
                "Bioacoustics, Cornell Lab of Ornithology, and Chemnitz University of Technology), "
                "whose weights are licensed CC BY-NC-SA 4.0: for non-commercial use, with "
                "attribution, and shared alike. https://creativecommons.org/licenses/by-nc-sa/4.0/"
            ),
        ),
        EncoderEntry(
            name="bioclip",
            layout="open_clip",
            hub_id="imageomics/bioclip",
            revision="ce901ab3c6a913f9e9ef94ce6d27761069f4f01c",
            architecture="open_clip ViT-B/16",
            dim=512,
            modalities=_TEXT_IMAGE,
            licence="MIT",
            size_mb=599,
            weights_file="open_clip_pytorch_model.bin",
            sha256="e380384f0c30d425d8c6c40f24471f9dd497fbdfa734a89c461a94aee95f0ef4",
            source="arXiv 2311.18803",
        ),
        EncoderEntry(
            name="bioclip-2",
            layout="open_clip",
            hub_id="imageomics/bioclip-2",
            revision="2957b322090f9cb17ae72c71981c7218a28d81e0",
            architecture="open_clip ViT-L/14",
            dim=768,
            modalities=_TEXT_IMAGE,
            licence="MIT",
            size_mb=1711,
            weights_file="open_clip_model.safetensors",
            sha256="b7b2bf6fbc95799e42630e394cf95803892ab447c1a8ab629dbc82fbeaf7dfef",
            source="arXiv 2505.23883",
        ),
        EncoderEntry(
            name="bioclip-2.5",
            layout="open_clip",
            hub_id="imageomics/bioclip-2.5-vith14",
            revision="6e3d04e3d6522012c88181085c5ae666e14c45cd",
            architecture="open_clip ViT-H/14",
            dim=1024,
            modalities=_TEXT_IMAGE,
            licence="MIT",
            size_mb=3945,
            weights_file="open_clip_model.safetensors",
            sha256="ac2e37c2f89ef8e6b889176a9a3f418970ad9db15a218bd29e3321e95c46ae97",
        ),
        EncoderEntry(
            name="biolingual",
            layout="clap",
            hub_id="davidrrobinson/BioLingual",
            revision="main",
            architecture="transformers ClapModel (HTSAT + RoBERTa)",
            dim=512,
            modalities=_TEXT_AUDIO,
            licence="see huggingface.co/davidrrobinson/BioLingual",
            size_mb=615,
            source="arXiv 2308.04978",
        ),
    )
}
"""Every encoder by name."""


def find_entry(name: str) -> EncoderEntry:
    """The encoder of this name.

    Raises:
        ModelNotFoundError: there is none; the message lists the names and the closest.
    """
    if name in CATALOGUE:
        return CATALOGUE[name]
    close = difflib.get_close_matches(name.lower(), CATALOGUE, n=1)
    hint = f" Did you mean '{close[0]}'?" if close else ""
    raise ModelNotFoundError(
        f"there is no encoder '{name}'.{hint} Known are: {', '.join(CATALOGUE)}", field="model"
    )


def licence_of(name: str) -> str:
    """The licence of an encoder's weights; empty for an unknown encoder."""
    return CATALOGUE[name].licence if name in CATALOGUE else ""


def find_weights(name: str | EncoderEntry, weights: Path | None = None) -> WeightsStatus:
    """Look for an encoder's weights, reading none of them.

    Args:
        name: catalogue name, or an entry of the caller's own.
        weights: a folder to look in first.

    Returns:
        the status; a missing or unknown encoder is reported in its message, not raised.
    """
    try:
        entry = name if isinstance(name, EncoderEntry) else find_entry(name)
        if entry.layout == "embedded":
            return packages_status()
        folder = local_folder(entry, weights)
    except BitternError as error:
        return WeightsStatus(False, "", error.message)
    return WeightsStatus(True, str(folder), "ready")


def load_encoder(
    name_or_entry: str | EncoderEntry,
    *,
    weights: Path | None = None,
    device: str | None = None,
) -> Encoder:
    """Load an encoder; missing weights are downloaded from the hub unless it is offline.

    Args:
        name_or_entry: catalogue name, or an entry of the caller's own.
        weights: the folder with its files; no other folder is searched then.
        device: ``cpu``, ``cuda``, ``cuda:N``; None means the GPU if there is one.

    Raises:
        ModelNotFoundError: no encoder has this name.
        SourceNotFoundError: `weights` is not a folder.
        WeightsMissingError: the weights were not found; the message says how to get them.
        ModelDamagedError: the files are damaged or contradict each other.
        PreconditionError: no such device.
    """
    entry = find_entry(name_or_entry) if isinstance(name_or_entry, str) else name_or_entry
    if entry.layout == "embedded":
        field = importlib.import_module("bittern.encoders.field")
        return cast(Encoder, field.load(device=device))
    try:
        folder = local_folder(entry, weights)
    except WeightsMissingError:
        if weights is not None or offline():
            raise
        folder = download(entry)
    sha256 = recorded_sha256(entry, folder)
    encoder: Encoder
    if entry.layout == "open_clip":
        from bittern.encoders.openclip import OpenClipEncoder

        encoder = OpenClipEncoder(folder, name=entry.name, device=device, sha256=sha256)
    else:
        from bittern.encoders.clap import ClapEncoder

        encoder = ClapEncoder(folder, name=entry.name, device=device, sha256=sha256)
    if encoder.dim != entry.dim:
        raise ModelDamagedError(
            f"{entry.name}: the weights in {folder} have {encoder.dim} dimensions, this encoder "
            f"has {entry.dim}: they are of another model"
        )
    return encoder
