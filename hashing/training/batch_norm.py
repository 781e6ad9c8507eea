"""The statistics that a head's batch norm uses once it is trained.

PyTorch's running averages remember the last few dozen batches. A short training has fewer than
that, so they still hold much of what they began with, and bits come out constant that were
balanced in every batch. Statistics of the finished weights are what is wanted (precise batch
norm; Wu & Johnson, arXiv 2105.07576).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from bittern.hashing.hashcoder import HashCoder
from bittern.hashing.training.centred_heads import CentredHeads


@torch.no_grad()
def settle(heads: CentredHeads, embeddings: Mapping[str, torch.Tensor]) -> None:
    """Set each batch norm to the statistics of these embeddings under the weights as they are.

    Args:
        heads: changed in place.
        embeddings: per modality float32 [n, dim], two rows or more; a head that several share is
            given them all, each modality with the same weight.
    """
    of_head: dict[int, list[torch.Tensor]] = {}
    coders: dict[int, HashCoder] = {}
    for modality, rows in embeddings.items():
        coder = heads.head(modality)
        device = heads.mean(modality).device
        before_norm = coder.layers[:-1](heads.placed(rows.to(device).float(), modality))
        of_head.setdefault(id(coder), []).append(before_norm.double())
        coders[id(coder)] = coder
    for key, outputs in of_head.items():
        norm = coders[key].layers[-1]
        assert isinstance(norm, nn.BatchNorm1d)
        assert norm.running_mean is not None
        assert norm.running_var is not None
        mean = torch.stack([out.mean(dim=0) for out in outputs]).mean(dim=0)
        spread = [(out - mean).square().mean(dim=0) for out in outputs]
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(torch.stack(spread).mean(dim=0))
