"""A symmetric contrastive loss between two sets of embeddings, as CLIP's (arXiv 2103.00020).

For distilling an audio tower into the text space of an image-text model (arXiv 2602.00681):
recordings are drawn to the teacher's embedding of their caption, and away from those of the other
captions of the batch. Captions repeat (a species has many recordings), so equals count as equally
right instead of as each other's wrong answers. Details ours: only the abstract was at hand.
"""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn.functional import log_softmax

from bittern.errors import CodeError

FIRST_SCALE = 1 / 0.07
LARGEST_SCALE = 100.0


class Scale(nn.Module):
    """The learned factor of cosines: begins at 1 / 0.07, never above 100."""

    def __init__(self) -> None:
        super().__init__()
        self.log = nn.Parameter(torch.tensor(math.log(FIRST_SCALE)))

    def forward(self) -> torch.Tensor:
        """The factor, a scalar with a gradient (none while it is beyond its limit)."""
        return self.log.exp().clamp(max=LARGEST_SCALE)


def contrastive_loss(
    student: torch.Tensor,
    teacher: torch.Tensor,
    scale: torch.Tensor,
    same: torch.Tensor | None = None,
) -> torch.Tensor:
    """Mean over both directions of the cross-entropy of the right answers.

    An item's right answers are the items of its group; its target is spread evenly over them.
    Computed in float32.

    Args:
        student: [n, dim] of unit L2 norm.
        teacher: [n, dim] of unit L2 norm; row r belongs to row r of `student`.
        scale: factor of cosines.
        same: bool [n, n], which rows are of one group; None for each row alone.

    Returns:
        a scalar; 0 at best where no two rows are of one group.

    Raises:
        CodeError: shapes that do not fit together, or fewer than two rows.
    """
    if student.shape != teacher.shape or student.ndim != 2 or len(student) < 2:
        raise CodeError(
            f"student and teacher must both be [n > 1, dim], not {list(student.shape)} and "
            f"{list(teacher.shape)}"
        )
    count = len(student)
    if same is None:
        same = torch.eye(count, dtype=torch.bool, device=student.device)
    if same.shape != (count, count):
        raise CodeError(f"same must be [{count}, {count}], not {list(same.shape)}")
    with torch.autocast(student.device.type, enabled=False):
        cosines = scale.float() * (student.float() @ teacher.float().T)
        target = same.float() / same.float().sum(dim=1, keepdim=True)
        there = -(target * log_softmax(cosines, dim=1)).sum(dim=1).mean()
        back = -(target * log_softmax(cosines.T, dim=1)).sum(dim=1).mean()
    return (there + back) / 2
