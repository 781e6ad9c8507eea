"""Which systems there are, by the names that the command line takes."""

from __future__ import annotations

from collections.abc import Sequence

from bittern.benchmarks.eval.systems.base import System
from bittern.benchmarks.eval.systems.codes import DRAWS, TrainingFree
from bittern.benchmarks.eval.systems.learned import AlignedVectors, SavedHasher, TrainedHere
from bittern.benchmarks.eval.systems.quantized import ProductQuantizer
from bittern.benchmarks.eval.systems.vectors import FloatVectors
from bittern.errors import InvalidInputError
from bittern.hashing.saved_model import SavedModel

UNLABELLED: dict[str, System] = {
    "float32": FloatVectors("float32"),
    "float16": FloatVectors("float16"),
    "int8": FloatVectors("int8"),
    "centred": FloatVectors("centred"),
    "hb": TrainingFree("Hashing-Baseline", "pca"),
    "itq": TrainingFree("ITQ", "itq", draws=DRAWS),
    "lsh": TrainingFree("random projection", "lsh"),
    "pq": ProductQuantizer(rotate=False),
    "opq": ProductQuantizer(rotate=True),
}
"""Those that need no labels."""

LABELLED: dict[str, System] = {
    "aligned-float32": AlignedVectors(),
    "crovca-pairs": TrainedHere("CroVCA pairs", "crovca-pairs"),
    "crovca": TrainedHere("CroVCA supervised", "crovca"),
    "aligned-crovca": TrainedHere("aligned CroVCA", "aligned-crovca"),
    "hb-crovca": TrainedHere("HB + CroVCA", "hb-crovca"),
    "aligned": TrainedHere("aligned", "aligned"),
    "hybrid": TrainedHere("hybrid", "hybrid"),
}
"""Those that are trained on labelled items."""

LEARNED = "learned"
"""All saved models that were named."""

NAMES = (*UNLABELLED, *LABELLED, LEARNED)


def systems_for(
    names: Sequence[str], training_has_labels: bool, saved: Sequence[SavedModel] = ()
) -> list[System]:
    """Systems by name, each once, in the order in which they are listed here.

    Args:
        names: of `NAMES`; empty for all that this training set and these models allow.
        training_has_labels: whether training items have classes with texts.
        saved: models whose hashers are compared too.

    Raises:
        InvalidInputError: a system that this suite or this run cannot have, with the reason.
    """
    labelled = list(LABELLED) if training_has_labels else []
    wanted = {name.lower() for name in names} or {*UNLABELLED, *labelled, LEARNED}
    unlabelled = [name for name in LABELLED if name in wanted and not training_has_labels]
    if unlabelled:
        raise InvalidInputError(
            f"{', '.join(unlabelled)} must be trained on labelled items, and this suite has none; "
            f"without labels there are {', '.join(UNLABELLED)} and {LEARNED}",
            field="systems",
        )
    if names and LEARNED in wanted and not saved:
        raise InvalidInputError(
            f"'{LEARNED}' stands for saved models, and none was named: name one with --model",
            field="systems",
        )
    known = {**UNLABELLED, **LABELLED}
    chosen = [known[name] for name in known if name in wanted]
    return chosen + [SavedHasher(model) for model in saved if LEARNED in wanted]
