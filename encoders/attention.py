"""Attention whose query, key and value projections can be reached one by one.

`torch.nn.MultiheadAttention` keeps its three input projections in one parameter and hands its
output projection's weight to a fused kernel: there is no `Linear` whose `forward` an adapter
could follow. peft's answer is to add the product of its matrices to the weights before each call
and to subtract it afterwards. That is not used here, because

- subtracting does not restore what was there: after one call a fifth of the frozen weights
  differ in their last bits (in bfloat16, by up to 1e-3);
- query, key and value have to share one down-projection;
- dropout has no effect;
- two threads that use one tower see each other's weights.

`SplitAttention` computes the same attention from four `Linear` layers, on which peft's ordinary
adapters work. It holds the original module, untouched, and steps aside for it on demand.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional


class SplitAttention(nn.Module):
    """Self-attention with four `Linear` layers, on the weights of a fused one.

    The weights of `q_proj`, `k_proj` and `v_proj` are views of the fused parameter, so nothing
    is held twice. Move towers to their device before they are split.

    Attributes:
        q_proj, k_proj, v_proj, out_proj: projections, [dim, dim].
        base: the original module.
        bypassed: while True, calls go to `base`, whose output they then equal bit for bit.
    """

    def __init__(self, base: nn.MultiheadAttention) -> None:
        super().__init__()
        self.heads = base.num_heads
        self.q_proj, self.k_proj, self.v_proj = _views(base)
        # Registered before `base`, which has it too, so that this is the name it goes by.
        self.out_proj: nn.Module = base.out_proj
        self.base = base
        self.bypassed = False
        self.train(base.training)

    @staticmethod
    def can_split(module: nn.Module) -> bool:
        """Whether a module is attention of the kind that can be split."""
        return (
            isinstance(module, nn.MultiheadAttention)
            and module.in_proj_weight is not None
            and module.batch_first
            and module.bias_k is None
            and not module.add_zero_attn
            and not module.dropout
        )

    def forward(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        need_weights: bool = False,
        attn_mask: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, None]:
        """Attend, as `torch.nn.MultiheadAttention` does without returning weights.

        Args:
            query: [n, length, dim].
            key: [n, length, dim].
            value: [n, length, dim].
            need_weights: must be False; named because callers of the fused module name it.
            attn_mask: added to the scores, float [length, length].

        Returns:
            [n, length, dim], and None instead of the attention weights.

        Raises:
            NotImplementedError: `need_weights` is True.
        """
        if need_weights:
            raise NotImplementedError("split attention does not return attention weights")
        if self.bypassed:
            output, _ = self.base(query, key, value, need_weights=False, attn_mask=attn_mask)
            return output, None
        q = self._by_head(self.q_proj(query))
        k = self._by_head(self.k_proj(key))
        v = self._by_head(self.v_proj(value))
        mask = None if attn_mask is None else attn_mask.to(q.dtype)
        mixed = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.out_proj(mixed.transpose(1, 2).flatten(2)), None

    def _by_head(self, rows: torch.Tensor) -> torch.Tensor:
        """[n, length, dim] to [n, heads, length, dim / heads]."""
        n, length, dim = rows.shape
        return rows.view(n, length, self.heads, dim // self.heads).transpose(1, 2)


def _views(base: nn.MultiheadAttention) -> list[nn.Linear]:
    """Query, key and value projection, sharing the memory of the fused one."""
    dim = base.embed_dim
    projections = []
    for part in range(3):
        rows = slice(part * dim, (part + 1) * dim)
        linear = nn.Linear(dim, dim, bias=base.in_proj_bias is not None, device="meta")
        linear.weight = nn.Parameter(base.in_proj_weight.detach()[rows], requires_grad=False)
        if base.in_proj_bias is not None:
            linear.bias = nn.Parameter(base.in_proj_bias.detach()[rows], requires_grad=False)
        projections.append(linear)
    return projections
