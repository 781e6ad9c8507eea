"""Train on the set in a folder, and die by SIGKILL after some batches of the second epoch."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import torch

from bittern.hashing.training.config import read_config
from bittern.hashing.training.embeddings import EmbeddingSet
from bittern.hashing.training.heads import PairsObjective
from bittern.hashing.training.loop import train
from bittern.hashing.training.records import Progress


def die(progress: Progress) -> None:
    if (progress.epoch, progress.step) == (2, 4):
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    torch.set_num_threads(2)
    folder = Path(sys.argv[1])
    config = read_config(folder / "settings.json")
    objective = PairsObjective(EmbeddingSet.open(folder / "set"), config)
    train(objective, config, folder / "killed", progress=die)
