"""Attention whose query, key and value projections can be reached one by one.

`torch.nn.MultiheadAttention` keeps its three input projections in one parameter and passes its
output projection's weight to a fused kernel: there is no `Linear` layer for an adapter to wrap.
peft therefore adds the product of its matrices to the weights before each call and subtracts it
afterwards. That is not used here, because

- subtraction does not restore the weights: after one call a fifth of them differ in their last
  bits (in bfloat16, by up to 1e-3);
- query, key and value have to share one down-projection;
- dropout has no effect;
- two threads that use one tower see each other's weights.

`SplitAttention` computes the same attention from four `Linear` layers, on which peft's ordinary
adapters work.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional


class SplitAttention(nn.Module):
    """Self-attention with four `Linear` layers, on the weights of a fused one.

    The weights of `q_proj`, `k_proj` and `v_proj` are views of the fused parameter: no second
    copy. Move towers to their device before they are split.

    Attributes:
        q_proj, k_proj, v_proj, out_proj: projections, [dim, dim].
    """

    def __init__(self, base: nn.MultiheadAttention) -> None:
        super().__init__()
        self.heads = base.num_heads
        self.q_proj, self.k_proj, self.v_proj = _views(base)
        self.out_proj: nn.Module = base.out_proj
        self.train(base.training)

    @staticmethod
    def can_split(module: nn.Module) -> bool:
        """Whether a module is fused attention that can be split."""
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
    for start in (0, dim, 2 * dim):
        rows = slice(start, start + dim)
        linear = nn.Linear(dim, dim, bias=base.in_proj_bias is not None, device="meta")
        linear.weight = nn.Parameter(base.in_proj_weight.detach()[rows], requires_grad=False)
        if base.in_proj_bias is not None:
            linear.bias = nn.Parameter(base.in_proj_bias.detach()[rows], requires_grad=False)
        projections.append(linear)
    return projections
