"""Tiny checkpoints with random weights, in exactly the layouts in which the hub has large ones."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from bittern.encoders.base import Modality
from bittern.encoders.weights import EncoderEntry

CORPUS = [
    "a photo of a tawny owl",
    "The sound of a great bittern booming in the reeds",
    "Strix aluco with common name tawny owl",
    "Animalia Chordata Aves Strigiformes Strigidae Strix aluco",
    "the croak of a common frog at night by the pond",
]
OPENCLIP_DIM = 24
CLAP_DIM = 20
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def openclip_config(**text: Any) -> dict[str, Any]:
    """As `open_clip_config.json` of imageomics/bioclip, but small."""
    return {
        "model_cfg": {
            "embed_dim": OPENCLIP_DIM,
            "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8},
            "text_cfg": {
                "context_length": 77,
                "vocab_size": 49408,
                "width": 32,
                "heads": 2,
                "layers": 2,
                **text,
            },
        },
        "preprocess_cfg": {
            "mean": [0.48145466, 0.4578275, 0.40821073],
            "std": [0.26862954, 0.26130258, 0.27577711],
        },
    }


def write_openclip(folder: Path, *, seed: int = 0, pickled: bool = False, **text: Any) -> Path:
    """A folder as of imageomics/bioclip-2 (safetensors) or imageomics/bioclip (`pickled`)."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    config = openclip_config(**text)
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    arguments = json.loads(json.dumps(config["model_cfg"]))
    for key in ("hf_tokenizer_name", "tokenizer_kwargs"):
        arguments["text_cfg"].pop(key, None)
    torch.manual_seed(seed)
    tensors = open_clip.CLIP(**arguments).state_dict()
    if pickled:
        torch.save(tensors, folder / "open_clip_pytorch_model.bin")
    else:
        save_file(tensors, folder / "open_clip_model.safetensors")
    return folder


def write_openclip_custom_text(folder: Path) -> Path:
    """A folder whose text tower is a module of its own, as newer configurations have it."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    config = openclip_config()
    torch.manual_seed(0)
    towers = open_clip.CustomTextCLIP(**json.loads(json.dumps(config["model_cfg"])))
    save_file(towers.state_dict(), folder / "open_clip_model.safetensors")
    config["model_cfg"]["custom_text"] = True
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    return folder


def write_openclip_with_hub_tokenizer(folder: Path) -> Path:
    """A folder whose configuration names a Hugging Face tokenizer, which lies beside it."""
    tokenizer = _byte_level_bpe()
    # CLIP pools at the largest token id, so the end token must be it.
    write_openclip(folder, hf_tokenizer_name="some/tokenizer", context_length=16)
    from transformers import PreTrainedTokenizerFast

    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
    ).save_pretrained(folder)
    return folder


def write_clap(folder: Path, *, seed: int = 0, pickled: bool = False, fusion: bool = False) -> Path:
    """A folder as of davidrrobinson/BioLingual: configuration, weights, features, tokenizer."""
    import torch
    from transformers import ClapConfig, ClapFeatureExtractor, ClapModel, RobertaTokenizerFast

    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = _byte_level_bpe()
    config = ClapConfig(
        text_config={
            "vocab_size": tokenizer.get_vocab_size(),
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 48,
            "max_position_embeddings": 42,
        },
        audio_config={
            "spec_size": 64,
            "num_mel_bins": 16,
            "patch_embeds_hidden_size": 16,
            "depths": [1, 1],
            "num_attention_heads": [2, 2],
            "window_size": 4,
            "patch_size": 4,
            "patch_stride": [4, 4],
            "hidden_size": 32,
            "num_classes": 3,
            "enable_fusion": fusion,
        },
        projection_dim=CLAP_DIM,
    )
    torch.manual_seed(seed)
    model = ClapModel(config)
    model.save_pretrained(folder)
    if pickled:
        torch.save(model.state_dict(), folder / "pytorch_model.bin")
        (folder / "model.safetensors").unlink()
    ClapFeatureExtractor(
        feature_size=16,
        sampling_rate=4000,
        hop_length=100,
        max_length_s=2,
        fft_window_size=256,
        frequency_max=2000,
        truncation="fusion" if fusion else "rand_trunc",
        padding="repeatpad",
    ).save_pretrained(folder)
    RobertaTokenizerFast(tokenizer_object=tokenizer, model_max_length=512).save_pretrained(folder)
    return folder


def _byte_level_bpe() -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        CORPUS,
        trainers.BpeTrainer(
            vocab_size=400,
            special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    return tokenizer


def write_hub_cache(cache: Path, hub_id: str, folder: Path, *, commit: str = COMMIT) -> Path:
    """A Hugging Face cache with one repository: blobs, a snapshot of links, and `refs/main`."""
    from bittern.encoders.checkpoints import sha256_of_file

    repository = cache / f"models--{hub_id.replace('/', '--')}"
    snapshot = repository / "snapshots" / commit
    for part in (repository / "blobs", repository / "refs", snapshot):
        part.mkdir(parents=True, exist_ok=True)
    (repository / "refs" / "main").write_text(commit)
    for file in folder.iterdir():
        blob = repository / "blobs" / sha256_of_file(file)
        shutil.copyfile(file, blob)
        (snapshot / file.name).symlink_to(Path("../../blobs") / blob.name)
    return snapshot


def openclip_entry(**changes: Any) -> EncoderEntry:
    """A catalogue entry that the folder of `write_openclip` fits."""
    values: dict[str, Any] = {
        "name": "tiny-clip",
        "layout": "open_clip",
        "hub_id": "bittern-tests/tiny-clip",
        "revision": "main",
        "architecture": "open_clip ViT, tiny",
        "dim": OPENCLIP_DIM,
        "modalities": (Modality.TEXT, Modality.IMAGE),
        "licence": "none",
        "size_mb": 1,
    }
    return EncoderEntry(**{**values, **changes})


def clap_entry(**changes: Any) -> EncoderEntry:
    """A catalogue entry that the folder of `write_clap` fits."""
    return openclip_entry(
        **{
            "name": "tiny-clap",
            "layout": "clap",
            "hub_id": "bittern-tests/tiny-clap",
            "architecture": "transformers ClapModel, tiny",
            "dim": CLAP_DIM,
            "modalities": (Modality.TEXT, Modality.AUDIO),
            **changes,
        }
    )
