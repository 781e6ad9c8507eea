from __future__ import annotations

import numpy as np
import torch

from bittern.hashing.training.batch_norm import settle
from bittern.hashing.training.centred_heads import CentredHeads
from bittern.hashing.training.config import TrainingConfig

DIM = 12


def heads(**settings: object) -> CentredHeads:
    config = TrainingConfig(bits=16, **settings)  # type: ignore[arg-type]
    return CentredHeads({"text": np.zeros(DIM), "image": np.full(DIM, 0.5)}, config)


def embeddings(seed: int = 0) -> torch.Tensor:
    return torch.randn(64, DIM, generator=torch.Generator().manual_seed(seed)) + 0.5


def test_settled_heads_are_balanced_after_a_single_batch() -> None:
    module = heads()
    module.train()
    module(embeddings(), "image")  # running averages now hold a tenth of the truth
    settle(module, {"image": embeddings(), "text": embeddings(1)})
    module.eval()
    logits = module(embeddings(), "image")
    torch.testing.assert_close(logits.mean(dim=0), torch.zeros(16), atol=1e-5, rtol=0)
    share = (logits > 0).float().mean(dim=0)
    assert float((share - 0.5).abs().max()) < 0.2


def test_a_shared_head_weighs_its_modalities_alike() -> None:
    module = heads(heads="shared")
    settle(module, {"image": embeddings(), "text": embeddings(1)[:8]})
    module.eval()
    means = [module(embeddings(), "image"), module(embeddings(1)[:8], "text")]
    middle = (means[0].mean(dim=0) + means[1].mean(dim=0)) / 2
    torch.testing.assert_close(middle, torch.zeros(16), atol=1e-5, rtol=0)


def test_weights_are_left_alone() -> None:
    module = heads()
    before = [p.clone() for p in module.parameters()]
    settle(module, {"image": embeddings(), "text": embeddings(1)})
    assert all(torch.equal(a, b) for a, b in zip(before, module.parameters(), strict=True))
