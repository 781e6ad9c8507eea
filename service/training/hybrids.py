"""Aligned and hybrid codes for a training (docs/background/learned-codes.md)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bittern.errors import BitternError, InvalidInputError, TrainingError
from bittern.hashing.aligned import Moments
from bittern.hashing.hashers import Hasher, HybridHasher
from bittern.hashing.training.alignment import moments_of
from bittern.hashing.training.bits import bit_statistics
from bittern.hashing.training.checkpoint import write_text_atomically
from bittern.hashing.training.choosing import choose_plan
from bittern.hashing.training.config import FREE_ON_RESUME, TrainingConfig
from bittern.hashing.training.hybrid import aligned_part
from bittern.hashing.training.plans import ALIGNED_PLANS, PLANS, HybridPlan
from bittern.service.training.probing import Part
from bittern.service.training.request import OnProgress, digest_of

PLAN_FILE = "plan.json"
CHOICES = {"aligned": ALIGNED_PLANS, "hybrid": PLANS}
"""Kinds of hashers, and the plans that are tried for them."""
_LARGEST_PLAN = 1 << 16


@dataclass(frozen=True)
class Settled:
    """A plan, and where it comes from.

    Attributes:
        plan: the plan.
        found: for the model's card: what it came to on held-out classes, or why none was chosen.
        reused: whether the run had settled on it before.
    """

    plan: HybridPlan
    found: Mapping[str, Any]
    reused: bool = False


def settled_plan(
    kind: str,
    parts: Sequence[Part],
    config: TrainingConfig,
    run_folder: Path,
    progress: OnProgress,
) -> Settled:
    """The plan that the run began with, or else one that is chosen on training classes.

    Where items have no classes or species to hold out, or too few, a plan that did well
    elsewhere is taken, and the card says so.

    Raises:
        TrainingError: what the run noted is damaged.
    """
    path = run_folder / PLAN_FILE
    settings = {n: value for n, value in config.to_dict().items() if n not in FREE_ON_RESUME}
    key = digest_of(kind, json.dumps(settings), *(_told(part) for part in parts))
    if path.is_file() and (before := _read(path, key)) is not None:
        return before
    part = max(parts, key=lambda part: len(part.training))
    try:
        trials = choose_plan(
            part.source,
            config,
            run_folder / "choice",
            plans=distinct(CHOICES[kind], config.bits),
            rows=part.training,
            on_split=lambda done, of: progress("choosing", done, of, "how to share out the bits"),
        )
        best = trials[0]
        settled = Settled(
            best.plan,
            {"held_out_seen": best.seen, "held_out_novel": best.novel, "plans": len(trials)},
        )
    except InvalidInputError as error:
        plan = HybridPlan(learned_share=0.0) if kind == "aligned" else HybridPlan()
        settled = Settled(plan, {"not_chosen": error.message})
    run_folder.mkdir(parents=True, exist_ok=True)
    told = {"key": key, "plan": asdict(settled.plan), "found": settled.found}
    write_text_atomically(path, json.dumps(told, indent=1) + "\n")
    return settled


def distinct(plans: Sequence[HybridPlan], bits: int) -> list[HybridPlan]:
    """Plans that differ at this length: bits come in bytes, so small shares round to nothing.

    Where there are no learned bits (or no aligned ones), weights and the ridge of what is not
    there say nothing either. Of equal plans the first is kept.
    """
    kept: dict[HybridPlan, HybridPlan] = {}
    for plan in plans:
        learned = plan.learned_bits(bits)
        meant = replace(plan, learned_share=learned / bits)
        if learned == 0:
            meant = replace(meant, learned_ridge=1.0, weights=(1.0, 1.0))
        elif learned == bits:
            meant = replace(meant, ridge=1.0, weights=(1.0, 1.0))
        kept.setdefault(meant, plan)
    return list(kept.values())


def _told(part: Part) -> str:
    return part.source.summary.digest + part.training.tobytes().hex()


def _read(path: Path, key: str) -> Settled | None:
    """What the run noted; None if that was for another training."""
    try:
        if path.stat().st_size > _LARGEST_PLAN:
            raise ValueError("it is too large")
        told = json.loads(path.read_bytes())
        values = told["plan"]
        first, second = (float(weight) for weight in values["weights"])
        plan = HybridPlan(
            float(values["ridge"]),
            float(values["learned_share"]),
            float(values["learned_ridge"]),
            (first, second),
        )
        return Settled(plan, dict(told["found"]), True) if told["key"] == key else None
    except (ValueError, KeyError, TypeError, RecursionError, BitternError) as error:
        raise TrainingError(f"{path} is damaged ({error!r}): train into another folder") from error


def moments_of_parts(parts: Sequence[Part]) -> dict[str, Moments]:
    """Moments of the training rows of every medium.

    Raises:
        InvalidInputError: there are no words to align with.
    """
    return {
        medium: moments
        for part in parts
        for medium, moments in moments_of(part.source, rows=part.training).items()
    }


def joined(
    plan: HybridPlan,
    moments: dict[str, Moments],
    config: TrainingConfig,
    learned: Hasher | None,
) -> Hasher:
    """Aligned bits, with the learned ones of the plan beside them."""
    rest = config.bits - (learned.bits if learned else 0)
    if learned is not None and rest == 0:
        return learned
    aligned = aligned_part(moments, rest, plan, config.seed)
    if learned is None:
        return aligned
    return HybridHasher([aligned, learned], plan.weights, asdict(plan))


def bits_told(hasher: Hasher, sample: Mapping[str, NDArray[np.float32]]) -> dict[str, float]:
    """Statistics of the bits over training rows, for the card: means over the modalities.

    Args:
        hasher: the whole of it.
        sample: per modality float32 [n, dim].
    """
    told = [bit_statistics(hasher.logits(rows, modality)) for modality, rows in sample.items()]
    return {
        "bit_balance": float(np.mean([one.balance for one in told])),
        "bit_correlation": float(np.mean([one.mean_correlation for one in told])),
        "dead_bits": max(len(one.dead) for one in told),
    }
