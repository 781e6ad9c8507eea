"""`train_model`: from a source to a saved model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bittern.encoders.base import Encoder, Modality
from bittern.encoders.catalogue import CATALOGUE, find_entry, load_encoder
from bittern.errors import InvalidInputError
from bittern.hashing.saved_model import SavedModel, Story
from bittern.hashing.training.config import TrainingConfig
from bittern.hashing.training.embedding_sets import SET_FILE, EmbeddingSet
from bittern.hashing.training.validation import split_rows
from bittern.service.models.fitting import animal_captions
from bittern.service.training.embedded_examples import Towers, embed_examples
from bittern.service.training.examples import Examples, Skipped
from bittern.service.training.fit import Fitted, TrainingData, fit_hasher
from bittern.service.training.output_folder import Encoding, OutFolder, licence_of
from bittern.service.training.request import (
    LoadEncoder,
    OnProgress,
    TrainingReport,
    TrainingRequest,
)
from bittern.service.training.split import Prepared, prepare, read_examples, split_set


def _load(name: str, device: str | None) -> Encoder:
    return load_encoder(name, device=device)


def train_model(
    request: TrainingRequest,
    progress: OnProgress = lambda *_: None,
    *,
    load: LoadEncoder = _load,
) -> TrainingReport:
    """Train a model and save it in `request.out`; a training that was interrupted there is resumed.

    Args:
        request: the training.
        progress: called now and then.
        load: loads encoders.

    Raises:
        InvalidInputError: the request does not fit the source or the encoder.
        TrainingError: it diverged or collapsed, or `out` contains another training.
        NotFoundError, PreconditionError: unknown source or encoder, or missing weights.
    """
    out = OutFolder(request)
    if request.what == "distill":
        return _distill(request, out, progress, load)
    if (request.source / SET_FILE).is_file():
        return _train_on_set(request, out, progress, load)
    if request.model is None:
        raise InvalidInputError(
            f"name the encoder with --model; there are {', '.join(CATALOGUE)}", field="model"
        )
    check_trainable(request.model, request.config)
    encoder = load(request.model, request.config.device)
    examples = read_examples(request, encoder)
    prepared = prepare(examples, request)
    with out.held():
        return _train_on_media(request, out, progress, encoder, examples, prepared)


def check_trainable(encoder: str, config: TrainingConfig) -> None:
    """Refuse adapters for towers that cannot take any.

    Raises:
        ModelNotFoundError: unknown encoder.
        InvalidInputError: adapters for such towers.
    """
    if find_entry(encoder).layout == "embedded" and config.lora_rank:
        others = ", ".join(n for n, e in CATALOGUE.items() if e.layout != "embedded")
        raise InvalidInputError(
            f"the towers of {encoder} cannot take adapters; leave out --lora, or choose another "
            f"encoder: {others}",
            field="lora",
        )


def _train_on_media(
    request: TrainingRequest,
    out: OutFolder,
    progress: OnProgress,
    encoder: Encoder,
    examples: Examples,
    prepared: Sequence[Prepared],
) -> TrainingReport:
    text = encoder if any(e.captions for e in examples) else None
    towers = Towers(encoder, text, encoder.name)
    embedded = [
        embed_examples(p.examples, towers, out.embeddings, strict=request.strict, progress=progress)
        for p in prepared
    ]
    sets = [split_set(e, p) for e, p in zip(embedded, prepared, strict=True)]
    data = TrainingData(sets, request.what == "labels", _words(request, encoder, text))
    skipped = [*examples.skipped, *(s for e in embedded for s in e.rows.skipped)]
    if request.config.lora_rank:
        from bittern.service.training.adapter_training import fit_towers

        fitted, encoding = fit_towers(request, data, embedded, encoder, out, progress)
    else:
        fitted = fit_hasher(request.hasher, data, request.config, out.run, progress)
        digests = {str(m): d for m, d in encoder.digests.items()}
        encoding = Encoding(encoder.name, digests, licence_of(encoder.name))
    return finish(request, out, fitted, encoding, data, skipped, _story(examples, prepared))


def _train_on_set(
    request: TrainingRequest, out: OutFolder, progress: OnProgress, load: LoadEncoder
) -> TrainingReport:
    """Train heads on the user's embeddings."""
    source = EmbeddingSet.open(request.source)
    description = source.description
    if request.config.lora_rank:
        raise InvalidInputError(
            f"{request.source} holds embeddings; adapters (--lora) need the media themselves",
            field="lora",
        )
    if request.model and description.encoder and request.model != description.encoder:
        raise InvalidInputError(
            f"the embeddings in {request.source} are of {description.encoder}, not of "
            f"{request.model}",
            field="model",
        )
    name = description.encoder or request.model
    if name is None:
        raise InvalidInputError(
            f"{request.source}/{SET_FILE} does not say which encoder made the embeddings; name it "
            "with --model",
            field="model",
        )
    entry = find_entry(name)
    wrong = {view.dim for view in source.views.values()} - {entry.dim}
    if wrong:
        raise InvalidInputError(
            f"{name} makes embeddings of {entry.dim} numbers, those in {request.source} have "
            f"{', '.join(map(str, sorted(wrong)))}",
            field="model",
        )
    digests = dict(description.towers)
    if not {view.modality for view in source.views.values()} <= digests.keys():
        digests = {str(m): d for m, d in load(name, "cpu").digests.items()}
    split = split_rows(source, request.config.validation_share, request.config.seed)
    data = TrainingData([split], request.what == "labels")
    with out.held():
        fitted = fit_hasher(request.hasher, data, request.config, out.run, progress)
        story = {"source": request.source.name, "digest": source.digest}
        story |= {"items": source.rows}  # type: ignore[dict-item]
        encoding = Encoding(name, digests, entry.licence)
        return finish(request, out, fitted, encoding, data, (), story)


def _distill(
    request: TrainingRequest, out: OutFolder, progress: OnProgress, load: LoadEncoder
) -> TrainingReport:
    """Train a student, and add it to the teacher's towers."""
    from bittern.service.training.distillation import distill, prepare_lesson

    if request.model is None:
        raise InvalidInputError("name the student's encoder with --student", field="student")
    check_trainable(request.model, request.config)
    lesson = prepare_lesson(request, load)
    with out.held():
        fitted, encoding, data, embedded = distill(request, lesson, out, progress)
        story = _story(lesson.examples, [lesson.prepared]) | {"teacher": request.teacher}
        skipped = [*lesson.examples.skipped, *embedded.rows.skipped]
        return finish(request, out, fitted, encoding, data, skipped, story)


def _story(examples: Examples, prepared: Sequence[Prepared]) -> dict[str, Any]:
    return {
        "source": examples.source.name,
        "digest": examples.digest(),
        "items": len(examples),
        "groups": len(examples.groups),
        "held_out": {p.examples[0].modality: p.way for p in prepared},
    }


def finish(
    request: TrainingRequest,
    out: OutFolder,
    fitted: Fitted,
    encoding: Encoding,
    data: TrainingData,
    skipped: Sequence[Skipped],
    story: Mapping[str, Any],
) -> TrainingReport:
    """Save the model, and report."""
    name = request.out.resolve().name
    modalities = fitted.hasher.modalities
    rows = {one.modality: len(one.training) for one in data.sets}
    held_out = {one.modality: len(one.held_out) for one in data.sets}
    metrics = dict(fitted.metrics)
    if request.config.epochs > 1 and metrics.get("validation"):
        metrics["epoch_chosen_on_held_out"] = True
    model = SavedModel.describe(
        name,
        fitted.hasher,
        encoder=encoding.name,
        towers={m: encoding.towers[m] for m in modalities},
        licence=encoding.licence,
        assembly=encoding.assembly,
        adapters=encoding.adapters,
        story=Story(
            data={
                **story,
                "what": request.what,
                "rows": rows,
                "rows_held_out": held_out,
                "skipped": len(skipped),
            },
            metrics=metrics,
            training={**request.config.to_dict(), "hasher": request.hasher},
        ),
    )
    out.write(model)
    return TrainingReport(
        name=name,
        folder=request.out,
        digest=model.card.digest,
        encoder=encoding.name,
        bits=model.card.bits,
        modalities=modalities,
        items=rows,
        held_out={"rows": held_out, "ways": story.get("held_out", {})},
        skipped=tuple(skipped),
        comparison=fitted.comparison,
        metrics=metrics,
        warnings=fitted.warnings,
        seconds=fitted.seconds,
        resumed=fitted.resumed,
        was_finished=fitted.was_finished,
    )


def _words(
    request: TrainingRequest, encoder: Encoder, text: Encoder | None
) -> dict[str, NDArray[np.float64]]:
    """Means of text for a shared head, if labels are not words."""
    if text is not None or Modality.TEXT not in encoder.modalities:
        return {}
    if request.config.heads != "shared":
        return {}
    sound = Modality.AUDIO in encoder.modalities
    rows = encoder.encode(Modality.TEXT, animal_captions(sound=sound))
    return {"text": rows.mean(axis=0, dtype=np.float64)}
