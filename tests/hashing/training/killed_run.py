"""Train on the set in a folder, and die by SIGKILL after some batches of the second epoch."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import torch

from bittern.hashing.training.config import TrainingConfig, read_settings
from bittern.hashing.training.embedding_sets import EmbeddingSet
from bittern.hashing.training.heads import objective_for
from bittern.hashing.training.loop import train


def die(stage: str, done: int, total: int, note: str) -> None:
    if done == total // 3 + 4:  # of three epochs
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    torch.set_num_threads(2)
    folder = Path(sys.argv[1])
    config = TrainingConfig(**read_settings(folder / "settings.json"))
    objective = objective_for(EmbeddingSet.open(folder / "set"), config)
    train(objective, config, folder / "killed", progress=die)
