"""Losses of training: cross-view code alignment, and a contrastive one.

Cross-view code alignment (CroVCA, arXiv 2510.27584):

Each view of an item predicts the code of every other view. A coding rate separates the
codes of a batch, so no negatives are needed. *Views* show the same item: two crops of a
photograph, or a caption and its recording (compact hypercube embeddings, arXiv 2601.22783).

Everything is computed in float32, also under autocast: the log-determinant of a coding rate needs
more than half precision.

The contrastive loss is CLIP's (arXiv 2103.00020), for distilling an audio tower into the text space
of an image-text model (arXiv 2602.00681; details ours: only the abstract was available).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Any, TypeVar, cast

import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits, log_softmax, normalize

from bittern.errors import CodeError

RATE_WEIGHT = 0.1
_EPSILON = 0.05
FIRST_SCALE = 1 / 0.07
LARGEST_SCALE = 100.0


@dataclass(frozen=True)
class Loss:
    """A loss and its terms; scalars, float32.

    Attributes:
        total: ``alignment + rate_weight * rate``.
        alignment: binary cross-entropy between views, or towards prototypes.
        rate: minus the coding rate, mean over the views.
    """

    total: torch.Tensor
    alignment: torch.Tensor
    rate: torch.Tensor


Function = TypeVar("Function", bound=Callable[..., Any])


def _in_float32(function: Function) -> Function:
    """Disable autocast in a function: it would compute products in half precision."""

    @wraps(function)
    def outside(*args: Any, **kwargs: Any) -> Any:
        with torch.autocast("cpu", enabled=False), torch.autocast("cuda", enabled=False):
            return function(*args, **kwargs)

    return cast(Function, outside)


@_in_float32
def alignment(views: Sequence[torch.Tensor]) -> torch.Tensor:
    """Mean over ordered pairs of views of ``BCEWithLogits(z_i, 1[z_j > 0])``.

    The threshold passes no gradient.

    Args:
        views: two or more, each [n, bits]; row r of each shows the same item.

    Raises:
        CodeError: fewer than two views, or shapes that differ.
    """
    views = _checked(views, at_least=2)
    # For one target, the mean over the other views: linear in the target, so sums suffice.
    codes = [(z > 0).float() for z in views]
    everything = torch.stack(codes).sum(dim=0)
    others = len(views) - 1
    losses = [
        binary_cross_entropy_with_logits(z, (everything - code) / others)
        for z, code in zip(views, codes, strict=True)
    ]
    return torch.stack(losses).mean()


@_in_float32
def coding_rate(logits: torch.Tensor) -> torch.Tensor:
    """Minus the coding rate of a batch; smaller means that its codes fill more of the space.

    ``R = -1/2 logdet(I + b / (B eps) V^T V) (b + B) / (b B)``, with the rows of the B x b logits
    scaled to unit norm in V, and eps the distortion that is allowed.

    Args:
        logits: [B, b].

    Raises:
        CodeError: not a matrix, or empty.
    """
    (z,) = _checked([logits], at_least=1)
    batch, bits = z.shape
    v = normalize(z, dim=1)
    # I + V^T V and I + V V^T have the same determinant: take the smaller.
    gram = v.T @ v if bits <= batch else v @ v.T
    eye = torch.eye(len(gram), device=z.device)
    volume: torch.Tensor = torch.linalg.slogdet(eye + bits / (batch * _EPSILON) * gram).logabsdet
    return -0.5 * volume * (bits + batch) / (bits * batch)


def cross_view_loss(views: Sequence[torch.Tensor], rate_weight: float = RATE_WEIGHT) -> Loss:
    """CroVCA without labels: alignment of the views plus the mean of their coding rates.

    Args:
        views: two or more, each [n, bits]; modalities, crops or captions of the same items.
        rate_weight: weight of the coding rate.

    Raises:
        CodeError: fewer than two views, or shapes that differ.
    """
    return _with_rate(alignment(views), views, rate_weight)


@_in_float32
def supervised_loss(
    views: Sequence[torch.Tensor],
    membership: torch.Tensor,
    rate_weight: float = RATE_WEIGHT,
) -> Loss:
    """CroVCA with labels: every view predicts the code of its classes' prototypes.

    A class's prototype is the mean of its items' logits over all views of the batch; an item's
    target is ``1[mean of its classes' prototypes > 0]``. An item without a class counts in the
    coding rate only.

    Args:
        views: one or more, each [n, bits].
        membership: [n, classes], 1 where the item is of the class, else 0; any number per row.
        rate_weight: weight of the coding rate.

    Raises:
        CodeError: shapes that do not fit together.
    """
    views = _checked(views, at_least=1)
    if membership.ndim != 2 or len(membership) != len(views[0]):
        raise CodeError(
            f"membership must be [{len(views[0])}, classes], not {list(membership.shape)}"
        )
    member = membership.float()
    labelled = (member.sum(dim=1) > 0).float()[:, None]
    targets = prototype_targets(views, member)
    weight = labelled.expand_as(targets)
    total = weight.sum().clamp(min=1.0)
    losses = [
        binary_cross_entropy_with_logits(z, targets, weight=weight, reduction="sum") / total
        for z in views
    ]
    return _with_rate(torch.stack(losses).mean(), views, rate_weight)


@torch.no_grad()
@_in_float32
def prototype_targets(views: Sequence[torch.Tensor], membership: torch.Tensor) -> torch.Tensor:
    """The target code of each item of a batch, float32 0/1 [n, bits].

    Args:
        views: each [n, bits].
        membership: [n, classes], 0 or 1.
    """
    member = membership.float()
    mean = torch.stack([z.float() for z in views]).mean(dim=0)
    of_class = member.T @ mean / member.sum(dim=0).clamp(min=1.0)[:, None]
    of_item = member @ of_class / member.sum(dim=1).clamp(min=1.0)[:, None]
    return (of_item > 0).float()


def _with_rate(aligned: torch.Tensor, views: Sequence[torch.Tensor], rate_weight: float) -> Loss:
    rate = torch.stack([coding_rate(z) for z in views]).mean()
    return Loss(aligned + rate_weight * rate, aligned, rate)


def _checked(views: Sequence[torch.Tensor], at_least: int) -> list[torch.Tensor]:
    shapes = [list(z.shape) for z in views]
    if len(views) < at_least:
        raise CodeError(f"alignment needs {at_least} views or more, not {len(views)}")
    if any(len(s) != 2 or 0 in s or s != shapes[0] for s in shapes):
        raise CodeError(f"views must all be [n, bits] and of one shape, not {shapes}")
    return [z.float() for z in views]


class Scale(nn.Module):
    """The learned factor of cosines: begins at 1 / 0.07, never above 100."""

    def __init__(self) -> None:
        super().__init__()
        self.log = nn.Parameter(torch.tensor(math.log(FIRST_SCALE)))

    def forward(self) -> torch.Tensor:
        """The factor, a scalar with a gradient (none beyond its limit)."""
        return self.log.exp().clamp(max=LARGEST_SCALE)


def contrastive_loss(
    student: torch.Tensor,
    teacher: torch.Tensor,
    scale: torch.Tensor,
    same: torch.Tensor,
) -> torch.Tensor:
    """Mean over both directions of the cross-entropy of the right answers.

    An item's right answers are the items of its group, with equal target probabilities: a species
    has many recordings with one caption. Computed in float32.

    Args:
        student: [n, dim] of unit L2 norm.
        teacher: [n, dim] of unit L2 norm; row r belongs to row r of `student`.
        scale: factor of cosines.
        same: bool [n, n], which rows are of one group.

    Returns:
        A scalar; at best 0 if all groups differ.

    Raises:
        CodeError: shapes that do not fit together, or fewer than two rows.
    """
    if student.shape != teacher.shape or student.ndim != 2 or len(student) < 2:
        raise CodeError(
            f"student and teacher must both be [n > 1, dim], not {list(student.shape)} and "
            f"{list(teacher.shape)}"
        )
    count = len(student)
    if same.shape != (count, count):
        raise CodeError(f"same must be [{count}, {count}], not {list(same.shape)}")
    with torch.autocast(student.device.type, enabled=False):
        cosines = scale.float() * (student.float() @ teacher.float().T)
        target = same.float() / same.float().sum(dim=1, keepdim=True)
        there = -(target * log_softmax(cosines, dim=1)).sum(dim=1).mean()
        back = -(target * log_softmax(cosines.T, dim=1)).sum(dim=1).mean()
    return (there + back) / 2
