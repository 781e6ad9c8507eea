"""Low-rank adapters (LoRA, arXiv 2106.09685) on the attention of a tower.

A frozen projection `W x` becomes `W x + alpha / rank * B A x`, with `A` float32 [rank, in] drawn
at random and `B` float32 [out, rank] zero at first. Query, key, value and output projections of
every block get one each; nothing else of the tower is trained, and no bias.

The tower itself always runs in evaluation mode: its own dropout and stochastic depth are off,
and the batch normalisation of a spectrogram uses the stored statistics. Training and use differ
in the adapters' own dropout only.

`peft` adds them; `bittern.encoders.attention` splits fused attention for it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import ConfigDict, Field

from bittern.encoders.base import Encoder, Modality
from bittern.errors import InvalidInputError, PreconditionError

if TYPE_CHECKING:
    import torch

MAX_RANK = 1024
_ADAPTER = "bittern"
_ROOTS: Mapping[Modality, tuple[str, ...]] = {
    Modality.TEXT: ("text_model", "text", "transformer"),
    Modality.IMAGE: ("visual",),
    Modality.AUDIO: ("audio_model",),
}
"""Where a tower's blocks are: transformers' CLAP, open_clip with and without `custom_text`."""
_TARGETS = (
    r".*resblocks\.\d+\.attn\.(q_proj|k_proj|v_proj|out_proj)"
    r"|.*\.\d+\.attention\.(self\.(query|key|value)|output\.dense)"
)
"""Attention projections of open_clip's blocks, and of RoBERTa's and HTSAT's."""


@dataclass(frozen=True)
class LoraSettings:
    """Settings of adapters.

    Attributes:
        rank: of the added matrices.
        alpha: the added product is scaled by `alpha / rank`.
        dropout: share of the adapters' inputs dropped in training.
    """

    __pydantic_config__ = ConfigDict(strict=True, extra="forbid")
    rank: Annotated[int, Field(ge=1, le=MAX_RANK)]
    alpha: Annotated[int, Field(ge=1, le=MAX_RANK)]
    dropout: Annotated[float, Field(ge=0, lt=1)]


class Adapters:
    """The adapters on one tower, made by `attach`.

    Attributes:
        named: the trained parameters, float32, by name: `<projection>.A` [rank, in] and
            `<projection>.B` [out, rank], in order of name.
    """

    def __init__(self, layers: Mapping[str, Any]) -> None:
        self._layers = layers
        self.named: dict[str, torch.nn.Parameter] = {
            f"{name}.{letter}": getattr(layer, f"lora_{letter}")[_ADAPTER].weight
            for name, layer in sorted(layers.items())
            for letter in "AB"
        }

    def set_training(self, training: bool) -> None:
        """Switch the adapters' dropout. The tower stays in evaluation mode."""
        for layer in self._layers.values():
            layer.lora_dropout.train(training)

    def set_gradients(self, wanted: bool) -> None:
        """Train the adapters, or freeze them; they act on embeddings either way."""
        for parameter in self.named.values():
            parameter.requires_grad_(wanted)


def attach(encoder: Encoder, modality: Modality, settings: LoraSettings, *, seed: int) -> Adapters:
    """Put adapters on one tower of an encoder, in place.

    New adapters add exactly zero, but embeddings may differ from the bare tower's in the last
    bits, since attention is then computed in separate steps.

    Args:
        encoder: one whose towers are torch modules, not shared with other users.
        modality: which tower.
        settings: rank, scale and dropout.
        seed: of the random matrices; the same on every device.

    Returns:
        adapters with gradients on and dropout off.

    Raises:
        InvalidInputError: the towers of this encoder cannot take adapters.
        PreconditionError: this tower has adapters already.
    """
    import torch
    from peft import LoraConfig, inject_adapter_in_model
    from peft.tuners.lora import LoraLayer

    root = _root(encoder, modality)
    if any(isinstance(module, LoraLayer) for module in root.modules()):
        raise PreconditionError(f"{encoder.name}: its {modality} tower has adapters already")
    _split_attention(root)
    if not any(re.fullmatch(_TARGETS, name) for name, _ in root.named_modules()):
        raise _unsuitable(encoder, modality)
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        bias="none",
        target_modules=_TARGETS,
    )
    with torch.random.fork_rng(devices=[]):  # peft draws too: keep the caller's random state
        inject_adapter_in_model(config, root, adapter_name=_ADAPTER)
    root.eval()
    adapters = Adapters({n: m for n, m in root.named_modules() if isinstance(m, LoraLayer)})
    _draw(adapters.named, seed)
    return adapters


def _root(encoder: Encoder, modality: Modality) -> torch.nn.Module:
    """The module that holds the blocks of one tower."""
    import torch

    module = getattr(encoder, "module", None)
    if modality in encoder.modalities and isinstance(module, torch.nn.Module):
        for name in _ROOTS[modality]:
            root = getattr(module, name, None)
            if isinstance(root, torch.nn.Module):
                return root
    raise _unsuitable(encoder, modality)


def _unsuitable(encoder: Encoder, modality: Modality) -> InvalidInputError:
    return InvalidInputError(
        f"{encoder.name} has no {modality} tower that adapters can be put on: they need a "
        "transformer of open_clip or CLAP; train without adapters, or choose another encoder",
        field="lora",
    )


def _split_attention(root: torch.nn.Module) -> None:
    from bittern.encoders.attention import SplitAttention

    for name, module in list(root.named_modules()):
        if re.fullmatch(r".*resblocks\.\d+\.attn", name) and SplitAttention.can_split(module):
            parent, _, child = name.rpartition(".")
            setattr(root.get_submodule(parent), child, SplitAttention(module))


def _draw(named: Mapping[str, torch.nn.Parameter], seed: int) -> None:
    """`A` uniform within 1 / sqrt(in), `B` zero, as LoRA's authors do; on the CPU, then moved."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in named.items():
            parameter.data = parameter.data.float()
            if name.endswith(".B"):
                parameter.zero_()
                continue
            bound = 1 / math.sqrt(parameter.shape[1])
            drawn = torch.rand(parameter.shape, generator=generator)
            parameter.copy_((2 * drawn - 1) * bound)
