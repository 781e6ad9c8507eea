from __future__ import annotations

import math

import pytest
import torch
from torch.nn.functional import normalize

from bittern.errors import CodeError
from bittern.hashing.losses import FIRST_SCALE, LARGEST_SCALE, Scale, contrastive_loss


def rows(seed: int, count: int = 6, dim: int = 8) -> torch.Tensor:
    return normalize(torch.randn(count, dim, generator=torch.Generator().manual_seed(seed)), dim=1)


def test_without_groups_it_is_the_cross_entropy_of_both_directions() -> None:
    a, b = rows(0), rows(1)
    cosines, right = 10 * a @ b.T, torch.arange(6)
    expected = torch.nn.functional.cross_entropy(cosines, right)
    expected = (expected + torch.nn.functional.cross_entropy(cosines.T, right)) / 2
    torch.testing.assert_close(contrastive_loss(a, b, torch.tensor(10.0)), expected)


def test_swapping_student_and_teacher_changes_nothing() -> None:
    a, b, scale = rows(2), rows(3), torch.tensor(5.0)
    torch.testing.assert_close(contrastive_loss(a, b, scale), contrastive_loss(b, a, scale))


def test_a_caption_that_comes_twice_is_no_wrong_answer() -> None:
    teacher = rows(4, 4)
    teacher[1] = teacher[0]
    groups = torch.tensor([0, 0, 1, 2])
    scale = torch.tensor(LARGEST_SCALE)
    same = groups[:, None] == groups
    aware = contrastive_loss(teacher, teacher, scale, same)
    unaware = contrastive_loss(teacher, teacher, scale)
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
        contrastive_loss(mapped, teacher, torch.tensor(10.0)).backward()  # type: ignore[no-untyped-call]
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
    whole = contrastive_loss(a, b, torch.tensor(20.0))
    half = contrastive_loss(a.half(), b.half(), torch.tensor(20.0))
    assert half.dtype == torch.float32
    assert float(half) == pytest.approx(float(whole), rel=1e-2)


@pytest.mark.parametrize(
    ("student", "teacher", "same"),
    [
        (rows(0), rows(0, 5), None),
        (rows(0, 1), rows(0, 1), None),
        (rows(0)[0], rows(0)[0], None),
        (rows(0), rows(1), torch.eye(3, dtype=torch.bool)),
    ],
)
def test_shapes_that_do_not_fit_are_refused(
    student: torch.Tensor, teacher: torch.Tensor, same: torch.Tensor | None
) -> None:
    with pytest.raises(CodeError):
        contrastive_loss(student, teacher, torch.tensor(1.0), same)
