"""The models of one archive: registered in it, chosen for a query or an item, loaded once."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable

from bittern.encoders.base import Modality
from bittern.errors import ModelNotFoundError, PreconditionError, UnsupportedModalityError
from bittern.hashing.saved_model import SavedModel
from bittern.index.archive import Archive
from bittern.index.models import ModelRecord
from bittern.service.models.model import Embedders, Model
from bittern.service.models.saved import encoder_names, load_saved, weights_of
from bittern.types import ModelInfo

logger = logging.getLogger("bittern.models")

_SHORTEST_DIGEST = 8


class ModelRegistry:
    """The models of one archive. Thread-safe.

    Attributes:
        embedders: the encoders, which models share.
    """

    def __init__(self, archive: Archive, embedders: Embedders) -> None:
        """Load nothing yet; `archive` is open."""
        self._archive = archive
        self.embedders = embedders
        self._loaded: dict[str, Model] = {}
        self._lock = threading.RLock()

    def load(self, record: ModelRecord) -> Model:
        """A model of the archive in any state; its encoder is loaded when it is first used."""
        with self._lock:
            if record.digest not in self._loaded:
                saved = load_saved(self._archive.model_folder(record.digest))
                self._loaded[record.digest] = Model(saved, self.embedders.of(saved))
            return self._loaded[record.digest]

    def register(self, saved: SavedModel, *, pending: bool = False) -> Model:
        """Add a model to the archive, unless it has it already.

        Args:
            saved: the model.
            pending: its codes are not searched before `Writer.switch_model`.

        Raises:
            PreconditionError: it is pending already, and `pending` is False.
        """
        card = saved.card
        known = [each for each in self._archive.registered() if each.digest == card.digest]
        if known and known[0].state == "pending" and not pending:
            raise PreconditionError(
                f"archive '{self._archive.name}' is being coded again with model "
                f"'{known[0].name}', which is not finished: run bittern reencode "
                f"{self._archive.path} again with that model"
            )
        if known:
            return self.load(known[0])
        record = ModelRecord(
            name=card.name,
            digest=card.digest,
            bits=card.bits,
            encoder=card.encoder,
            modalities=tuple(sorted(card.towers)),
            state="pending" if pending else "ready",
        )
        self._archive.register_model(record, saved.files())
        return self.load(record)

    def find(
        self,
        name: str | None = None,
        *,
        towers: Iterable[Modality] = (),
        target: Modality | None = None,
    ) -> Model:
        """A model of the archive.

        Args:
            name: its name, digest, or the first 8 or more digits of its digest; None for one
                that has the towers.
            towers: modalities that it must have.
            target: of several models, take the one that coded most observations of this
                modality; the oldest of these, or of all where there is no target.

        Raises:
            ModelNotFoundError: no such model.
            UnsupportedModalityError: none that has these towers.
        """
        records = self._archive.model_records()
        have = ", ".join(f"{r.name} ({'+'.join(r.modalities)})" for r in records) or "none"
        if name is not None:
            records = [record for record in records if _is_called(record, name)]
            if not records:
                raise ModelNotFoundError(
                    f"archive '{self._archive.name}' has no model '{name}'; its models are: {have}",
                    field="model",
                    details={"model": name},
                )
        wanted = set(towers)
        fit = [record for record in records if wanted <= set(record.modalities)]
        if not fit:
            raise UnsupportedModalityError(
                f"no model of archive '{self._archive.name}'{f' named {name}' if name else ''} has "
                f"the towers {' and '.join(sorted(wanted))}; its models are: {have}",
                field="model",
            )
        if name is None:  # a retired model is used only if no other fits
            fit = [record for record in fit if record.state == "ready"] or fit
        if target and len(fit) > 1:
            fit = [max(fit, key=lambda r: self._archive.code_counts(r.digest)[str(target)])]
        return self.load(fit[0])

    def infos(self) -> list[ModelInfo]:
        """What `ArchiveAPI.models` returns."""
        infos = []
        for record in self._archive.model_records():
            status = weights_of(record.encoder)
            infos.append(
                ModelInfo(
                    name=record.name,
                    digest=record.digest,
                    bits=record.bits,
                    encoder=record.encoder,
                    modalities=tuple(record.modalities),
                    rows=self._archive.code_counts(record.digest),
                    weights="ready" if status.ready else status.message,
                    licence=self.load(record).card.licence,
                )
            )
        return infos

    def encoders(self) -> set[str]:
        """Catalogue names of the encoders behind the models."""
        return {name for r in self._archive.model_records() for name in encoder_names(r.encoder)}

    def warm(self) -> None:
        """Check all weights and load the text networks; warn of missing weights."""
        for record in self._archive.model_records():
            model = self.load(record)
            for modality in sorted(model.modalities):
                try:
                    model.check_tower(modality)
                    if modality == Modality.TEXT:
                        model.embed(modality, ["a bird"])
                except (PreconditionError, ModelNotFoundError) as error:
                    logger.warning("%s cannot answer %s queries: %s", record.name, modality, error)


def _is_called(record: ModelRecord, name: str) -> bool:
    is_digest = len(name) >= _SHORTEST_DIGEST and record.digest.startswith(name.lower())
    return record.name == name or is_digest
