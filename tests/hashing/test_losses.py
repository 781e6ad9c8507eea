"""The losses, against their definitions written out."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits as bce
from torch.nn.functional import normalize

from bittern.errors import CodeError
from bittern.hashing.losses import (
    FIRST_SCALE,
    LARGEST_SCALE,
    Scale,
    alignment,
    coding_rate,
    contrastive_loss,
    cross_view_loss,
    prototype_targets,
    supervised_loss,
)


def logits(rows: int = 12, bits: int = 8, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, bits, generator=torch.Generator().manual_seed(seed))


def test_alignment_is_the_mean_over_ordered_pairs_of_views() -> None:
    views = [logits(seed=seed) for seed in range(4)]
    pairs = [bce(a, (b > 0).float()) for a in views for b in views if a is not b]
    assert torch.allclose(alignment(views), torch.stack(pairs).mean(), atol=1e-6)


def test_no_gradient_passes_the_threshold_of_the_other_view() -> None:
    a, b = logits(seed=1).requires_grad_(), logits(seed=2).requires_grad_()
    torch.autograd.backward(alignment([a, b]))
    expected = torch.sigmoid(a.detach()) - (b.detach() > 0).float()
    assert a.grad is not None
    assert torch.allclose(a.grad, expected / a.numel() / 2, atol=1e-7)


def test_the_coding_rate_follows_its_formula() -> None:
    for rows, bits in ((12, 8), (5, 16)):
        z = logits(rows, bits)
        v = (z / z.norm(dim=1, keepdim=True)).double()
        inner = torch.eye(bits).double() + bits / (rows * 0.05) * v.T @ v
        expected = -0.5 * torch.logdet(inner) * (bits + rows) / (bits * rows)
        assert coding_rate(z).item() == pytest.approx(expected.item(), rel=1e-5)


def test_codes_that_fill_the_space_have_the_smaller_rate() -> None:
    collapsed = logits(64, 16)[:1].repeat(64, 1)
    assert coding_rate(logits(64, 16)) < coding_rate(collapsed)


@pytest.mark.parametrize("precision", [torch.float16, torch.bfloat16])
def test_the_losses_are_computed_in_float32_whatever_comes_in(precision: torch.dtype) -> None:
    views = [logits(seed=seed).to(precision) for seed in range(2)]
    loss = cross_view_loss(views)
    assert loss.total.dtype == loss.rate.dtype == torch.float32
    assert torch.equal(loss.total, cross_view_loss([z.float() for z in views]).total)


@pytest.mark.parametrize("precision", [torch.float16, torch.bfloat16])
def test_autocast_does_not_reach_the_losses(precision: torch.dtype) -> None:
    # Rows along a few directions: the log-determinant is what half precision cannot take.
    views = [logits(64, 3, seed) @ logits(3, 128, 9) for seed in range(2)]
    member = torch.eye(8).repeat(8, 1)
    plain, labelled = cross_view_loss(views), supervised_loss(views, member)
    with torch.autocast("cpu", precision):
        assert torch.equal(cross_view_loss(views).total, plain.total)
        assert torch.equal(supervised_loss(views, member).total, labelled.total)


def test_the_total_weighs_the_rate() -> None:
    loss = cross_view_loss([logits(seed=1), logits(seed=2)], rate_weight=0.3)
    assert loss.total.item() == pytest.approx((loss.alignment + 0.3 * loss.rate).item())


def test_prototypes_are_means_over_the_views_and_items_of_a_class() -> None:
    views = [torch.tensor([[3.0], [-1.0], [-5.0]]), torch.tensor([[1.0], [-2.0], [1.0]])]
    first, second = [1, 0], [0, 1]
    # Means per item are 2, -1.5, -2; class 0 has items 0 and 1: .25. Class 1 has item 2: -2.
    targets = prototype_targets(views, torch.tensor([first, first, second]))
    assert targets.tolist() == [[1.0], [1.0], [0.0]]


def test_the_target_of_an_item_of_two_classes_is_the_mean_of_both_prototypes() -> None:
    view = torch.tensor([[4.0], [-1.0], [0.0]])
    member = torch.tensor([[1, 0], [0, 1], [1, 1]])
    # Prototypes: class 0 = (4 + 0) / 2 = 2; class 1 = (-1 + 0) / 2 = -.5; their mean is .75.
    assert prototype_targets([view], member)[2].item() == 1.0


def test_items_without_a_class_count_in_the_rate_only() -> None:
    views = [logits(6, seed=seed) for seed in range(2)]
    member = torch.zeros(6, 2)
    member[:4, 0] = 1
    whole = supervised_loss(views, member)
    labelled = supervised_loss([z[:4] for z in views], member[:4])
    assert torch.allclose(whole.alignment, labelled.alignment, atol=1e-6)
    assert not torch.allclose(whole.rate, labelled.rate)


def test_supervised_views_come_to_share_the_code_of_their_class() -> None:
    torch.manual_seed(0)
    labels = torch.arange(64) % 4
    x = torch.nn.functional.one_hot(labels, 4).float() + 0.3 * torch.randn(64, 4)
    head = torch.nn.Sequential(torch.nn.Linear(4, 16), torch.nn.BatchNorm1d(16))
    optimiser = torch.optim.Adam(head.parameters(), 1e-2)
    member = torch.nn.functional.one_hot(labels, 4)
    for _ in range(300):
        optimiser.zero_grad()
        torch.autograd.backward(supervised_loss([head(x)], member).total)
        optimiser.step()
    codes = head(x) > 0
    distance = (codes[:, None] != codes[None]).float().mean(dim=2)
    same = labels[:, None] == labels[None]
    assert distance[same].mean() < 0.1
    assert distance[~same].mean() > 0.2


@pytest.mark.parametrize(
    "views",
    [
        [],
        [logits()],
        [logits(4), logits(5)],
        [logits(bits=8), logits(bits=16)],
        [torch.zeros(3), torch.zeros(3)],
    ],
)
def test_views_that_do_not_fit_together_are_refused(views: list[torch.Tensor]) -> None:
    with pytest.raises(CodeError, match="views"):
        alignment(views)


def test_membership_of_another_length_is_refused() -> None:
    with pytest.raises(CodeError, match="membership must be"):
        supervised_loss([logits(4)], torch.ones(5, 2))


def test_a_batch_of_one_has_a_finite_loss() -> None:
    loss = cross_view_loss([logits(1), logits(1, seed=1)])
    assert math.isfinite(loss.total.item())


ALONE = torch.eye(6, dtype=torch.bool)
"""Every row is a group of its own."""


def rows(seed: int, count: int = 6, dim: int = 8) -> torch.Tensor:
    return normalize(torch.randn(count, dim, generator=torch.Generator().manual_seed(seed)), dim=1)


def test_without_groups_it_is_the_cross_entropy_of_both_directions() -> None:
    a, b = rows(0), rows(1)
    cosines, right = 10 * a @ b.T, torch.arange(6)
    expected = torch.nn.functional.cross_entropy(cosines, right)
    expected = (expected + torch.nn.functional.cross_entropy(cosines.T, right)) / 2
    torch.testing.assert_close(contrastive_loss(a, b, torch.tensor(10.0), ALONE), expected)


def test_swapping_student_and_teacher_changes_nothing() -> None:
    a, b, scale = rows(2), rows(3), torch.tensor(5.0)
    torch.testing.assert_close(
        contrastive_loss(a, b, scale, ALONE), contrastive_loss(b, a, scale, ALONE)
    )


def test_a_repeated_caption_is_not_a_wrong_answer() -> None:
    teacher = rows(4, 4)
    teacher[1] = teacher[0]
    groups = torch.tensor([0, 0, 1, 2])
    scale = torch.tensor(LARGEST_SCALE)
    same = groups[:, None] == groups
    aware = contrastive_loss(teacher, teacher, scale, same)
    unaware = contrastive_loss(teacher, teacher, scale, torch.eye(4, dtype=torch.bool))
    # Two equals share what is right, log 2 each way; the gradient on them vanishes.
    assert float(aware) == pytest.approx(math.log(2) / 2, abs=1e-3)
    student = teacher.clone().requires_grad_()
    contrastive_loss(student, teacher, scale, same).backward()  # type: ignore[no-untyped-call]
    assert student.grad is not None
    along = student.grad[0] - (student.grad[0] @ teacher[0]) * teacher[0]
    assert float(along.abs().max()) < 1e-3
    assert torch.isfinite(unaware)


def test_minimising_it_brings_pairs_together() -> None:
    teacher = rows(5)
    linear = torch.nn.Linear(8, 8)
    optimiser = torch.optim.Adam(linear.parameters(), lr=0.05)
    source = rows(6)
    for _ in range(150):
        optimiser.zero_grad()
        mapped = normalize(linear(source), dim=1)
        contrastive_loss(mapped, teacher, torch.tensor(10.0), ALONE).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    assert (mapped @ teacher.T).argmax(dim=1).tolist() == list(range(6))


def test_the_scale_begins_as_published_and_stops_at_a_hundred() -> None:
    scale = Scale()
    assert float(scale()) == pytest.approx(FIRST_SCALE)
    with torch.no_grad():
        scale.log.fill_(50.0)
    assert float(scale()) == LARGEST_SCALE


def test_half_precision_does_not_lose_the_loss() -> None:
    a, b = rows(0), rows(1)
    whole = contrastive_loss(a, b, torch.tensor(20.0), ALONE)
    half = contrastive_loss(a.half(), b.half(), torch.tensor(20.0), ALONE)
    assert half.dtype == torch.float32
    assert float(half) == pytest.approx(float(whole), rel=1e-2)


@pytest.mark.parametrize(
    ("student", "teacher", "same"),
    [
        (rows(0), rows(0, 5), ALONE),
        (rows(0, 1), rows(0, 1), torch.eye(1, dtype=torch.bool)),
        (rows(0)[0], rows(0)[0], ALONE),
        (rows(0), rows(1), torch.eye(3, dtype=torch.bool)),
    ],
)
def test_shapes_that_do_not_fit_are_refused(
    student: torch.Tensor, teacher: torch.Tensor, same: torch.Tensor
) -> None:
    with pytest.raises(CodeError):
        contrastive_loss(student, teacher, torch.tensor(1.0), same)
