"""`train_model`: from a source to a saved model.

A source is read and split before PyTorch is imported, so wrong input is refused at once. Then the
encoder embeds everything once, and a hasher is fitted to that, or adapters are trained with it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bittern.encoders.base import Encoder, Modality
from bittern.encoders.catalogue import CATALOGUE, find_entry, licence_of, load_encoder
from bittern.encoders.prompts import IMAGE_TEMPLATES
from bittern.encoders.weights import EncoderEntry
from bittern.errors import InvalidInputError, ManifestError, UnsupportedModalityError
from bittern.hashing.saved_model import ModelCard, SavedModel, Story
from bittern.hashing.training.embedding_sets import SET_FILE, EmbeddingSet
from bittern.hashing.training.records import Progress
from bittern.hashing.training.validation import TrainingData, split_rows
from bittern.service.ingest.precomputed import Precomputed
from bittern.service.jobs.model_choice import DEFAULT_ENCODER
from bittern.service.models.fitting import animal_captions
from bittern.service.training.embedded_examples import Towers, embed_examples
from bittern.service.training.examples import (
    Example,
    Examples,
    Skipped,
    captions_of,
    names_of_folder,
    read_labels,
    read_pairs,
)
from bittern.service.training.output_folder import ModelEncoder, OutputFolder
from bittern.service.training.request import LoadEncoder, TrainingRequest
from bittern.service.training.split import Split, split_by_modality

if TYPE_CHECKING:
    from bittern.service.training.fit import Fitted

_WORD = re.compile(r"[^\W\d_]{3}")


@dataclass(frozen=True)
class TrainingReport:
    """The result of a training.

    Attributes:
        folder: of the model.
        card: of the model.
        fitted: its hasher, comparison and warnings.
        skipped: unusable entries, with reasons.
    """

    folder: Path
    card: ModelCard
    fitted: Fitted
    skipped: Sequence[Skipped]


def _load(name: str, device: str | None) -> Encoder:
    return load_encoder(name, device=device)


def train_model(
    request: TrainingRequest,
    progress: Progress = lambda *_: None,
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
    out = OutputFolder(request)
    if request.what == "distill":
        return _distill(request, out, progress, load)
    if (request.source / SET_FILE).is_file():
        return _train_on_set(request, out, progress, load)
    return _train_on_media(request, out, progress, load)


def _train_on_media(
    request: TrainingRequest, out: OutputFolder, progress: Progress, load: LoadEncoder
) -> TrainingReport:
    """Train heads, and adapters if the settings have some, on a manifest or a folder of media."""
    entry = _trainable(request)
    stored = Precomputed.open(request.embeddings) if request.embeddings else None
    examples = _read_examples(request, entry)
    splits = split_by_modality(examples, request)
    encoder = load(entry.name, request.config.device)
    with out.held():
        text = encoder if any(e.captions for e in examples) else None
        towers = Towers(encoder, text, encoder.name)
        embedded = [
            embed_examples(
                split.examples,
                towers,
                out.embeddings,
                stored=stored,
                strict=request.strict,
                progress=progress,
            )
            for split in splits
        ]
        sets = [e.split(split) for e, split in zip(embedded, splits, strict=True)]
        data = TrainingData(sets, request.what == "labels", _words(request, encoder, text))
        skipped = [*examples.skipped, *(s for e in embedded for s in e.skipped)]
        if request.config.lora_rank:
            from bittern.service.training.adapter_training import fit_adapters

            fitted, used = fit_adapters(request, data, embedded, encoder, out, progress)
        else:
            from bittern.service.training.fit import fit_hasher

            fitted = fit_hasher(request.hasher, data, request.config, out.run, progress)
            digests = {str(m): d for m, d in encoder.digests.items()}
            used = ModelEncoder(encoder.name, digests, licence_of(encoder.name))
        fitted = _with_unlisted(fitted, examples, stored)
        return _save(request, out, fitted, used, data, skipped, _story(examples, splits))


def _train_on_set(
    request: TrainingRequest, out: OutputFolder, progress: Progress, load: LoadEncoder
) -> TrainingReport:
    """Train heads on the user's embeddings."""
    if request.embeddings:
        raise InvalidInputError(
            f"{request.source} holds embeddings itself ({SET_FILE}): leave out --embeddings, or "
            "give the media or a table as the source",
            field="embeddings",
        )
    source = EmbeddingSet.open(request.source)
    entry = _encoder_of_set(request, source)
    digests = dict(source.description.towers)
    if not {view.modality for view in source.views.values()} <= digests.keys():
        digests = {str(m): d for m, d in load(entry.name, "cpu").digests.items()}
    share = request.held_out_share(source.rows)
    split = split_rows(source, share, request.config.seed)
    data = TrainingData([split], request.what == "labels")
    with out.held():
        from bittern.service.training.fit import fit_hasher

        fitted = fit_hasher(request.hasher, data, request.config, out.run, progress)
        story = {
            "source": request.source.name, "digest": source.digest, "items": source.rows
        }  # fmt: skip
        used = ModelEncoder(entry.name, digests, entry.licence)
        return _save(request, out, fitted, used, data, (), story)


def _encoder_of_set(request: TrainingRequest, source: EmbeddingSet) -> EncoderEntry:
    """The encoder that made the user's embeddings."""
    made_by = source.description.encoder
    if request.config.lora_rank:
        raise InvalidInputError(
            f"{request.source} holds embeddings; adapters (--lora) need the media themselves",
            field="lora",
        )
    if request.model and made_by and request.model != made_by:
        raise InvalidInputError(
            f"the embeddings in {request.source} are of {made_by}, not of {request.model}",
            field="model",
        )
    name = made_by or request.model
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
    return entry


def _with_unlisted(fitted: Fitted, examples: Examples, stored: Precomputed | None) -> Fitted:
    """With a warning of embeddings that no example has."""
    if stored is None:
        return fitted
    for example in examples:  # also of a run that has embedded everything before
        stored.rows_of(example.id)
    warnings = [sentence] if (sentence := stored.unlisted()) else []
    return replace(fitted, warnings=(*fitted.warnings, *warnings))


def _distill(
    request: TrainingRequest, out: OutputFolder, progress: Progress, load: LoadEncoder
) -> TrainingReport:
    """Train a student, and add it to the teacher's towers."""
    entry = _trainable(request)
    if Modality.AUDIO not in entry.modalities:
        raise InvalidInputError(
            f"the student {entry.name} has no audio tower; choose biolingual or field",
            field="student",
        )
    stored = Precomputed.open(request.embeddings) if request.embeddings else None
    examples = _read_recordings(request)
    (split,) = split_by_modality(examples, request)
    from bittern.service.training.distillation import distill, load_teacher

    teacher = load_teacher(request, load)
    student = load(entry.name, request.config.device)
    with out.held():
        fitted, used, data, unusable = distill(
            request, teacher, student, split, out, progress, stored
        )
        fitted = _with_unlisted(fitted, examples, stored)
        story = _story(examples, [split]) | {"teacher": request.teacher}
        skipped = [*examples.skipped, *unusable]
        return _save(request, out, fitted, used, data, skipped, story)


def _trainable(request: TrainingRequest) -> EncoderEntry:
    """The encoder's entry; refuses adapters for towers that cannot take any."""
    entry = find_entry(request.encoder or DEFAULT_ENCODER)
    if entry.layout == "embedded" and request.config.lora_rank:
        others = ", ".join(n for n, e in CATALOGUE.items() if e.layout != "embedded")
        raise InvalidInputError(
            f"the towers of {entry.name} cannot take adapters; leave out --lora, or choose another "
            f"encoder: {others}",
            field="lora",
        )
    return entry


def _read_examples(request: TrainingRequest, encoder: EncoderEntry) -> Examples:
    """The source's examples that the encoder has a tower for.

    Labels that are words become captions too, if there is a text tower.
    """
    if request.what == "labels":
        examples = read_labels(
            request.source, label_column=request.label_column, strict=request.strict
        )
        words = all(_WORD.search(name) for name in examples.classes)  # unlike 00017 or c3
        if words and Modality.TEXT in encoder.modalities:
            examples = replace(examples, items=tuple(map(_with_names, examples)))
    else:
        if Modality.TEXT not in encoder.modalities:
            raise UnsupportedModalityError(
                f"{encoder.name} has no text tower for captions; train on labels, or choose "
                "another encoder"
            )
        examples = read_pairs(
            request.source, caption_column=request.caption_column, strict=request.strict
        )
    wanted = request.modality
    towers = {str(m) for m in encoder.modalities}
    suitable = tuple(e for e in examples if e.modality in towers and wanted in (None, e.modality))
    if not suitable:
        raise UnsupportedModalityError(
            f"{examples.source} has {examples.counted()}; {encoder.name} takes "
            f"{', '.join(sorted(towers))}" + (f", and --modality is {wanted}" if wanted else "")
        )
    reasons = tuple(
        Skipped(str(e.path), f"{encoder.name} has no {e.modality} tower")
        for e in examples
        if e.modality not in towers
    )
    return replace(examples, items=suitable, skipped=(*examples.skipped, *reasons))


def _with_names(example: Example) -> Example:
    names = [names_of_folder(label) for label in example.labels]
    filled = [captions_of(n, example.modality, None) for n in names]
    if len(filled) > 1:  # an item of several classes: one caption for each
        return replace(example, captions=tuple(c[0] for c in filled))
    return replace(example, captions=filled[0])


def _read_recordings(request: TrainingRequest) -> Examples:
    """Recordings with image captions of their names, which the teacher knows.

    A source without names, or a named column, provides its own captions.
    """
    source, column, strict = request.source, request.caption_column, request.strict
    examples = None
    if column is None:
        with suppress(ManifestError):
            examples = read_pairs(source, templates=IMAGE_TEMPLATES, strict=strict)
    if examples is None:
        examples = read_pairs(source, caption_column=column, strict=strict)
    if not examples.modalities["audio"]:
        raise InvalidInputError(f"{source} has {examples.counted()}, and no audio", field="source")
    return replace(examples.of("audio"), skipped=examples.skipped)


def _words(
    request: TrainingRequest, encoder: Encoder, text: Encoder | None
) -> dict[str, NDArray[np.float64]]:
    """The mean of text for a shared head, if labels are not words."""
    if text is not None or Modality.TEXT not in encoder.modalities:
        return {}
    if request.config.heads != "shared":
        return {}
    sound = Modality.AUDIO in encoder.modalities
    rows = encoder.encode(Modality.TEXT, animal_captions(sound=sound))
    return {"text": rows.mean(axis=0, dtype=np.float64)}


def _story(examples: Examples, splits: Sequence[Split]) -> dict[str, Any]:
    return {
        "source": examples.source.name,
        "digest": examples.digest(),
        "items": len(examples),
        "groups": len(examples.groups),
        "held_out": {split.examples[0].modality: split.way for split in splits},
    }


def _save(
    request: TrainingRequest,
    out: OutputFolder,
    fitted: Fitted,
    used: ModelEncoder,
    data: TrainingData,
    skipped: Sequence[Skipped],
    story: Mapping[str, Any],
) -> TrainingReport:
    """Save the model, and report."""
    metrics = dict(fitted.metrics)
    if request.config.epochs > 1 and metrics.get("validation"):
        metrics["epoch_chosen_on_held_out"] = True
    facts = {
        **story,
        "what": request.what,
        "rows": {one.modality: len(one.training) for one in data.sets},
        "rows_held_out": {one.modality: len(one.held_out) for one in data.sets},
        "skipped": len(skipped),
    }
    settings = {**request.config.to_dict(), "hasher": request.hasher}
    model = SavedModel.describe(
        request.out.resolve().name,
        fitted.hasher,
        encoder=used.name,
        towers={m: used.towers[m] for m in fitted.hasher.modalities},
        licence=used.licence,
        assembly=used.assembly,
        adapters=used.adapters,
        story=Story(data=facts, metrics=metrics, training=settings),
    )
    out.write(model)
    return TrainingReport(request.out, model.card, fitted, tuple(skipped))
