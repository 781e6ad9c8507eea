"""The training loop: epochs over an objective, with checkpoints.

A run folder has ``config.json``, ``checkpoint.safetensors``, ``log.jsonl``, ``log.csv`` and
``plot.png``. A killed run continues from its checkpoint, to the weights of an uninterrupted run:
bit for bit on a CPU of the same kind.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from filelock import FileLock, Timeout

from bittern.errors import TrainingError
from bittern.files import replace_file
from bittern.hashing.training.checkpoint import RunState
from bittern.hashing.training.config import TrainingConfig
from bittern.hashing.training.objective import Objective
from bittern.hashing.training.optimiser import Placement, placement
from bittern.hashing.training.records import (
    CHECKPOINT_FILE,
    PLOT_FILE,
    BitStatistics,
    Progress,
    RunLog,
    TrainingResult,
    bit_statistics,
    draw_plot,
)

CONFIG_FILE = "config.json"
LOCK_FILE = "run.lock"
_PROBE_BATCHES = 8
_STEPS_BETWEEN_CHECKS = 32
_PLOT_EACH_EPOCH_FROM_S = 20.0
_COLLAPSED_EPOCHS = 3
"""The run ends after this many epochs in a row with only constant bits."""

_log = logging.getLogger(__name__)
Batch = TypeVar("Batch")


def train(
    objective: Objective[Batch],
    config: TrainingConfig,
    run_folder: Path,
    *,
    plots: bool = True,
    progress: Progress = lambda *_: None,
) -> TrainingResult:
    """Train until the last epoch or until patience runs out; `objective` gets the best weights.

    Args:
        objective: modules, data and loss.
        config: the settings.
        run_folder: created if missing; the run in it is resumed.
        plots: draw ``plot.png``.
        progress: called after each batch with ``training``, and the steps of all epochs.

    Raises:
        TrainingError: the GPU's memory is too small, the loss is not finite, all bits stay
            constant, there is patience but no validation, another process trains in the folder,
            or its run has other settings or data.
        InvalidInputError: a device or precision that this machine lacks.
        ModelDamagedError: the checkpoint cannot be read.
    """
    placed = placement(config)
    run_folder.mkdir(parents=True, exist_ok=True)
    gpus = [placed.device] if placed.device.type == "cuda" else []
    with _locked(run_folder), torch.random.fork_rng(devices=gpus), _threads_restored():
        torch.manual_seed(config.seed)
        run = _Run(objective, config, run_folder, placed, plots)
        try:
            run.epochs(progress)
            return run.result()
        except torch.OutOfMemoryError as error:
            raise TrainingError(
                f"batches of {config.batch_size} do not fit into the GPU's memory: train with a "
                "smaller batch_size into another folder (gradients of several batches can be added "
                "up with accumulate; the coding rate then sees one batch at a time)",
                field="batch_size",
            ) from error
        finally:
            run.log.close()


class _Run:
    """A run in this process."""

    def __init__(
        self,
        objective: Objective[Any],
        config: TrainingConfig,
        folder: Path,
        placed: Placement,
        plots: bool,
    ) -> None:
        self.objective, self.config, self.folder, self.placed = objective, config, folder, placed
        self.plots = plots
        objective.module.to(placed.device)
        self.state = RunState(objective, config, placed)
        checkpoint = folder / CHECKPOINT_FILE
        self.resumed = checkpoint.exists()
        if self.resumed:
            self.state.load(checkpoint)
        self.was_finished = self.state.finished
        self.log = RunLog(folder, self.state.log_bytes)
        replace_file(folder / CONFIG_FILE, config.to_json().encode())

    def epochs(self, progress: Progress) -> None:
        """Run the remaining epochs."""
        while not self.state.finished:
            self._begin()
            self._steps(progress)
            self._close()

    def _begin(self) -> None:
        """Prepare an epoch; a resumed one gets back its weights."""
        state = self.state
        self.objective.begin_epoch(state.epoch)
        if state.step > 0:
            state.rewind()

    def _steps(self, progress: Progress) -> None:
        """Train on the remaining batches of an epoch."""
        state, config, steps = self.state, self.config, self.objective.steps_per_epoch
        self.objective.module.train()
        due, loss = False, float("nan")
        patience = 1 if self.placed.device.type == "cpu" else _STEPS_BETWEEN_CHECKS
        for batch in self.objective.batches(state.epoch, state.step):
            self._step(batch)
            if state.step % patience == 0 or state.step == steps:
                loss = state.check_losses()
            if config.log_every and state.step % config.log_every == 0:
                self._log_steps()
            done = (state.epoch - 1) * steps + state.step
            note = f"epoch {state.epoch}, loss {loss:.3f}"
            progress("training", done, config.epochs * steps, note)
            due = due or bool(config.checkpoint_every and state.step % config.checkpoint_every == 0)
            if due and state.step < steps and state.step % config.accumulate == 0:
                self._save()
                due = False
        if state.step != steps:
            raise TrainingError(
                f"epoch {state.epoch} had {state.step} batches of the {steps} announced"
            )

    def _step(self, batch: Any) -> None:
        state, accumulate = self.state, self.config.accumulate
        with self.placed.autocast:
            out = self.objective.loss(batch)
        begun = state.step - state.step % accumulate
        window = min(accumulate, self.objective.steps_per_epoch - begun)
        state.optimiser.backward(out.total / window if window > 1 else out.total)
        state.note(out)
        if state.step - begun == window:
            state.optimiser.step()

    def _log_steps(self) -> None:
        state = self.state
        state.check_losses()
        means = state.mean_losses(self.config.log_every)
        self.log.step(state.epoch, state.step, means, state.optimiser.learning_rate)

    def _close(self) -> None:
        """Validate, record, and make the epoch durable."""
        state = self.state
        state.check_losses()
        validation = self._validate()
        if self.config.patience and not validation:
            raise TrainingError(
                f"patience is {self.config.patience} epochs, but nothing is held out to judge an "
                "epoch by: raise validation_share, or leave patience at 0",
                field="patience",
            )
        bits = self._probe()
        self._judge(bits)
        record = state.end_epoch(validation, bits)
        self.log.epoch(state.history)
        self._save()
        if not state.finished and record.seconds >= _PLOT_EACH_EPOCH_FROM_S:
            self._draw(bits)

    def _save(self) -> None:
        self.state.check_losses()
        self.state.log_bytes = self.log.bytes_written
        self.state.save(self.folder / CHECKPOINT_FILE)

    def _validate(self) -> dict[str, float]:
        self.objective.module.eval()
        with torch.inference_mode(), self.placed.autocast:
            return self.objective.validate() or {}

    def _probe(self) -> list[BitStatistics]:
        """Bit statistics per view of an epoch's last batches, in evaluation mode.

        In training mode, the noise of batch norms would hide constant bits.
        """
        epoch = min(self.state.epoch, self.config.epochs)
        start = max(0, self.objective.steps_per_epoch - _PROBE_BATCHES)
        self.objective.module.eval()
        views: list[list[torch.Tensor]] = []
        with torch.inference_mode(), self.placed.autocast:
            for batch in self.objective.batches(epoch, start):
                views.append([z.float() for z in self.objective.loss(batch).logits])
        return [
            bit_statistics(torch.cat(logits).cpu().numpy()) for logits in zip(*views, strict=True)
        ]

    def _judge(self, bits: list[BitStatistics]) -> None:
        """Warn of constant bits; fail if all bits are constant for several epochs.

        With few batches per epoch, the first epochs may end so.
        """
        recent = self.state.history[1 - _COLLAPSED_EPOCHS :]
        collapsed = [record for record in recent if bits and record.dead_bits == bits[0].bits]
        if len(collapsed) == _COLLAPSED_EPOCHS - 1:
            self._refuse_collapse(bits)
        for text in _warnings(bits):
            _log.warning("epoch %d: %s", self.state.epoch, text)

    def _refuse_collapse(self, bits: list[BitStatistics]) -> None:
        epoch = min(self.state.epoch, self.config.epochs)
        if bits and all(view.collapsed for view in bits):
            raise TrainingError(
                f"collapsed: all {bits[0].bits} bits are constant after epoch {epoch}. "
                f"Raise rate_weight ({self.config.rate_weight:g}) or "
                f"batch_size ({self.config.batch_size}), or lower learning_rate "
                f"({self.config.learning_rate:g}).",
                details={"epoch": str(epoch), "bits": str(bits[0].bits)},
            )

    def _draw(self, bits: list[BitStatistics]) -> None:
        if self.plots:
            draw_plot(self.state.history, bits, self.folder / PLOT_FILE, self.folder.name)

    def result(self) -> TrainingResult:
        """Restore the best weights and describe them."""
        state = self.state
        state.restore_best()
        bits = self._probe()
        self._refuse_collapse(bits)
        self._draw(bits)
        return TrainingResult(
            history=tuple(state.history),
            best_epoch=state.best_epoch or len(state.history),
            bits=tuple(bits),
            warnings=(*self.objective.warnings, *_warnings(bits)),
            stopped_early=len(state.history) < self.config.epochs,
            resumed=self.resumed,
            was_finished=self.was_finished,
        )


def _warnings(bits: list[BitStatistics]) -> list[str]:
    dead = sorted({bit for view in bits for bit in view.dead})
    if not dead:
        return []
    some = ", ".join(str(bit) for bit in dead[:8]) + (", ..." if len(dead) > 8 else "")
    return [
        f"{len(dead)} of {bits[0].bits} bits are dead (the same for 99% of the items): {some}. "
        "Fewer bits, a greater rate_weight or larger batches would use them."
    ]


@contextmanager
def _threads_restored() -> Iterator[None]:
    """Restore the number of threads, which a resumed run changes."""
    threads = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    lock = FileLock(folder / LOCK_FILE, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise TrainingError(
            f"another process is training in {folder}: wait for it, or choose another folder",
            field="run_folder",
        ) from None
    try:
        yield
    finally:
        lock.release()
