"""Checkpoints: the state of a run in one file, to continue as if it had not been interrupted.

The file is safetensors (no pickle): tensors, and JSON in its header. It is replaced atomically.
"""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from pydantic import TypeAdapter
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from bittern.errors import BitternError, ModelDamagedError, TrainingError
from bittern.files import replace_file
from bittern.hashing.training.config import TrainingConfig, differing
from bittern.hashing.training.objective import Objective, Step
from bittern.hashing.training.optimiser import Optimiser, Placement
from bittern.hashing.training.records import BitStatistics, EpochRecord

FORMAT = 1
REMEDY = "Remove it to start over, or train into another folder."
_STATE = "state"
_MOST_THREADS = 1024
Batch = TypeVar("Batch")


class RunState:
    """The state of a run.

    Attributes:
        epoch: the current one, from 1.
        step: finished batches of the epoch.
        history: records of the epochs before.
        best_epoch: the one with the best validation value, the latest of equals; 0 before.
        finished: whether the run has ended.
        log_bytes: length of the log at the latest checkpoint.
        optimiser: with its moments.
    """

    def __init__(
        self, objective: Objective[Batch], config: TrainingConfig, placed: Placement
    ) -> None:
        self._config, self._placed = config, placed
        self._digest = objective.data_digest
        self._steps = objective.steps_per_epoch
        groups = objective.parameter_groups()
        per_epoch = math.ceil(self._steps / config.accumulate)
        self.optimiser = Optimiser(groups, config, placed, per_epoch * config.epochs)
        self._weights = _weights(objective.module, self.optimiser.parameters)
        self.epoch, self.step = 1, 0
        self.history: list[EpochRecord] = []
        self.best_epoch = 0
        self.finished = False
        self.log_bytes = 0
        self._best: dict[str, torch.Tensor] = {}
        self._loaded: dict[str, torch.Tensor] = {}
        self._names: list[str] = []
        self._losses = torch.empty(0)
        self._checked = 0
        self._latest = math.nan
        self._seconds = 0.0
        self._since = time.perf_counter()

    def note(self, out: Step) -> None:
        """Count a batch, and store its losses on their device: fetching them would wait."""
        if self.step >= self._steps:
            raise TrainingError(f"epoch {self.epoch} has more than its {self._steps} batches")
        values = [out.total.detach(), *out.terms.values()]
        if not self._names:
            self._names = ["loss", *out.terms]
        if not self._losses.numel():
            self._losses = torch.zeros(self._steps, len(values), device=self._placed.device)
        row = self._losses[self.step]
        for column, value in enumerate(values):
            row[column] = value
        self.step += 1

    def check_losses(self) -> float:
        """The latest loss.

        Raises:
            TrainingError: a loss since the last check is not finite.
        """
        fetched = self._losses[self._checked : self.step, 0].cpu().numpy()
        bad = np.flatnonzero(~np.isfinite(fetched))
        if len(bad):
            step = self._checked + int(bad[0]) + 1
            raise TrainingError(
                f"the loss is {fetched[bad[0]]} at epoch {self.epoch}, step {step}. Lower "
                f"learning_rate ({self._config.learning_rate:g}), set clip_norm, or train in "
                f"precision fp32 (now {self._placed.precision}); the last checkpoint is from "
                "before.",
                details={"epoch": str(self.epoch), "step": str(step)},
            )
        if self.step > self._checked:
            self._checked = self.step
            self._latest = float(fetched[-1])
        return self._latest

    def mean_losses(self, latest: int | None = None) -> dict[str, float]:
        """Mean of each term over the latest steps of this epoch, or all of them."""
        start = 0 if latest is None else max(0, self.step - latest)
        values = self._losses[start : self.step].cpu().double().mean(dim=0).tolist()
        return dict(zip(self._names, values, strict=True))

    def end_epoch(
        self, validation: Mapping[str, float], bits: Sequence[BitStatistics]
    ) -> EpochRecord:
        """Record the epoch, store its weights if they are the best, begin the next."""
        parts = self.mean_losses()
        now = time.perf_counter()
        record = EpochRecord(
            epoch=self.epoch,
            loss=parts.pop("loss"),
            parts=parts,
            validation=dict(validation),
            learning_rate=self.optimiser.learning_rate,
            dead_bits=len({bit for view in bits for bit in view.dead}),
            balance=float(np.mean([view.balance for view in bits])) if bits else 0.0,
            correlation=float(np.mean([v.mean_correlation for v in bits])) if bits else 0.0,
            seconds=self._seconds + now - self._since,
        )
        self.history.append(record)
        self._keep_best(record)
        self.finished = self._stale() or self.epoch >= self._config.epochs
        self.epoch, self.step, self._checked = self.epoch + 1, 0, 0
        self._losses.zero_()
        self._loaded = {}
        self._seconds, self._since = 0.0, now
        return record

    def _keep_best(self, record: EpochRecord) -> None:
        value = record.watched
        if value is None or math.isnan(value):
            return
        best = self.history[self.best_epoch - 1].watched if self.best_epoch else None
        # The later of equals: with few held-out items, values tie while training still helps.
        if best is None or value >= best:
            self.best_epoch = record.epoch
            self._best = {name: t.detach().cpu().clone() for name, t in self._weights.items()}

    def _stale(self) -> bool:
        """Whether patience has run out; a tie is not an improvement."""
        if not (self._config.patience and self.best_epoch):
            return False
        best = self.history[self.best_epoch - 1].watched
        first = next(record.epoch for record in self.history if record.watched == best)
        return self.epoch - first >= self._config.patience

    def save(self, path: Path) -> None:
        """Write the checkpoint."""
        tensors = {f"weights.{name}": t for name, t in self._weights.items()}
        tensors |= {f"best.{name}": t for name, t in self._best.items()}
        tensors |= {f"optimiser.{name}": t for name, t in self.optimiser.tensors().items()}
        tensors["rng.cpu"] = torch.get_rng_state()
        if self._placed.device.type == "cuda":
            tensors["rng.cuda"] = torch.cuda.get_rng_state(self._placed.device)
        tensors["losses"] = self._losses
        save_checkpoint(path, tensors, self._facts())

    def _facts(self) -> dict[str, Any]:
        return {
            "epoch": self.epoch,
            "step": self.step,
            "history": [record.to_dict() for record in self.history],
            "best_epoch": self.best_epoch,
            "finished": self.finished,
            "log_bytes": self.log_bytes,
            "loss_names": self._names,
            "seconds": self._seconds + time.perf_counter() - self._since,
            "optimiser": self.optimiser.state(),
            "threads": torch.get_num_threads(),
            "config": self._config.to_dict(),
            "origin": self._origin(),
        }

    def _origin(self) -> dict[str, Any]:
        """Values that must be equal to resume a run, besides its settings."""
        return {
            "data": self._digest,
            "steps_per_epoch": self._steps,
            "device": self._placed.device.type,
            "precision": self._placed.precision,
        }

    def load(self, path: Path) -> None:
        """Continue from a checkpoint.

        Raises:
            ModelDamagedError: it cannot be read, or is inconsistent.
            TrainingError: it belongs to other settings, data or weights.
        """
        with _as_damage(path):
            self._load(path)
            self._check()

    def _load(self, path: Path) -> None:
        tensors, facts = load_checkpoint(path)
        self._refuse_other_run(facts)
        if shapes(under(tensors, "weights")) != shapes(self._weights):
            raise TrainingError(f"{path} is of another model than the one to be trained")
        # With another number of threads additions have another order, and a bit may flip.
        torch.set_num_threads(min(max(1, int(facts["threads"])), _MOST_THREADS))
        self._loaded = tensors
        self.rewind()
        self._best = under(tensors, "best")
        moments = under(tensors, "optimiser")
        if shapes(moments) != self._shapes_of(moments):
            raise ValueError("the optimiser's moments are of other parameters")
        self.optimiser.restore(moments, facts["optimiser"])
        self._losses = tensors["losses"].to(self._placed.device)
        self.epoch, self.step = int(facts["epoch"]), int(facts["step"])
        self._checked = 0
        self.history = TypeAdapter(list[EpochRecord]).validate_python(facts["history"])
        self.best_epoch, self.finished = int(facts["best_epoch"]), bool(facts["finished"])
        self.log_bytes, self._names = int(facts["log_bytes"]), [*map(str, facts["loss_names"])]
        self._seconds, self._since = float(facts["seconds"]), time.perf_counter()

    def _shapes_of(self, moments: Mapping[str, torch.Tensor]) -> dict[str, torch.Size]:
        """Expected shapes of the moments; a parameter without a step has none."""
        return {
            f"{number}.{key}": torch.Size() if key == "step" else parameter.shape
            for number, parameter in enumerate(self.optimiser.parameters)
            for key in ("step", "exp_avg", "exp_avg_sq")
            if f"{number}.step" in moments
        }

    def _check(self) -> None:
        """Raise a `ValueError` if the loaded state is inconsistent."""
        done = len(self.history)
        faults = {
            "its epochs": [r.epoch for r in self.history] != list(range(1, done + 1))
            or self.epoch != done + 1,
            "its step": not 0 <= self.step <= self._steps,
            "its best epoch": not 0 <= self.best_epoch <= done
            or bool(self._best) != bool(self.best_epoch),
            "the length of its log": not 0 <= self.log_bytes < 2**63,
            "its losses": self._losses.shape != (self._steps, len(self._names)),
            "its best weights": bool(self._best) and shapes(self._best) != shapes(self._weights),
            # Infinity may be intended (in masks); NaN is a sign of a broken run.
            "NaN in its weights": any(
                bool(t.isnan().any()) for t in (*self._weights.values(), *self._best.values())
            ),
        }
        if found := [what for what, wrong in faults.items() if wrong]:
            raise ValueError(", ".join(found))

    def _refuse_other_run(self, facts: Mapping[str, Any]) -> None:
        before, now = facts["config"], self._config.to_dict()
        names = differing(before, now)
        pairs = {n: (before.get(n), now.get(n)) for n in names}
        pairs |= {
            n: (facts["origin"].get(n), value)
            for n, value in self._origin().items()
            if facts["origin"].get(n) != value
        }
        if pairs:
            changes = "; ".join(f"{n} was {a}, is {b}" for n, (a, b) in pairs.items())
            raise TrainingError(
                f"the run cannot be resumed with other settings: {changes}. Use the same "
                "settings and data, or train into another folder.",
                field=next(iter(pairs)),
                details={n: f"{a} -> {b}" for n, (a, b) in pairs.items()},
            )

    def rewind(self) -> None:
        """Restore weights and generators of the loaded checkpoint."""
        _copy(under(self._loaded, "weights"), self._weights)
        torch.set_rng_state(self._loaded["rng.cpu"])
        if "rng.cuda" in self._loaded:
            torch.cuda.set_rng_state(self._loaded["rng.cuda"], self._placed.device)

    def restore_best(self) -> None:
        """Restore the best weights, if there was a validation."""
        _copy(self._best, self._weights)


def _weights(
    module: torch.nn.Module, parameters: Sequence[torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Optimised parameters, and all buffers."""
    optimised = {id(p) for p in parameters}
    named = {name: p for name, p in module.named_parameters() if id(p) in optimised}
    if len(named) != len(optimised):
        raise TrainingError("a parameter group holds parameters that are not of the module")
    return {**named, **dict(module.named_buffers())}


@torch.no_grad()
def _copy(source: Mapping[str, torch.Tensor], target: Mapping[str, torch.Tensor]) -> None:
    for name, tensor in source.items():
        target[name].copy_(tensor)


def save_checkpoint(
    path: Path, tensors: Mapping[str, torch.Tensor], state: Mapping[str, Any]
) -> None:
    """Replace the checkpoint at `path`.

    Args:
        path: of the file; its folder exists.
        tensors: by name, on any device.
        state: JSON values.
    """
    header = {_STATE: json.dumps({**state, "format": FORMAT}), "format": "pt"}
    stored = {name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}
    replace_file(path, save(stored, metadata=header))


def load_checkpoint(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Tensors (on the CPU) and state.

    Raises:
        ModelDamagedError: not a checkpoint of this version.
    """
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        state = json.loads(header[_STATE])
        version = state["format"]
    except (
        SafetensorError,
        OSError,
        KeyError,
        TypeError,
        ValueError,
        RecursionError,
    ) as error:
        raise ModelDamagedError(
            f"the checkpoint {path} cannot be read: {error}. {REMEDY}"
        ) from error
    if version != FORMAT:
        raise ModelDamagedError(
            f"the checkpoint {path} has format {version}, this version reads {FORMAT}. {REMEDY}"
        )
    return tensors, state


@contextlib.contextmanager
def _as_damage(path: Path) -> Iterator[None]:
    """Turn other errors than Bittern's into a `ModelDamagedError` of the checkpoint."""
    try:
        yield
    except (BitternError, torch.OutOfMemoryError):
        raise
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RuntimeError) as e:
        reason = f"{type(e).__name__}: {' '.join(str(e).split())[:300]}"
        raise ModelDamagedError(f"the checkpoint {path} is inconsistent: {reason}. {REMEDY}") from e


def under(tensors: Mapping[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    """The tensors called ``<prefix>.<name>``, by name."""
    start = prefix + "."
    return {n.removeprefix(start): t for n, t in tensors.items() if n.startswith(start)}


def shapes(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Size]:
    """Shapes by name."""
    return {name: tensor.shape for name, tensor in tensors.items()}
