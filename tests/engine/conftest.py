from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from bittern.api import ArchiveAPI
from bittern.encoders.base import Modality
from bittern.hashing.saved_model import SavedModel
from bittern.hashing.training_free import fit
from bittern.index.archive import Archive
from bittern.service.jobs.description import IndexOptions
from bittern.service.jobs.indexing import index_source
from bittern.service.local.archive import LocalArchive
from bittern.service.sources import read_source
from tests.engine.toy import COLOURS, ToyEncoder, fill_folder
from tests.serving import client_of


def toy_model(encoder: ToyEncoder, bits: int = 64, seed: int = 0) -> SavedModel:
    texts = encoder.encode(Modality.TEXT, list(COLOURS))
    sample = {str(m): np.concatenate([texts, -texts]) for m in encoder.modalities}
    hasher = fit("lsh", sample, bits, seed=seed)
    return SavedModel.describe(
        f"toy-{bits}",
        hasher,
        encoder=encoder.name,
        towers={str(m): d for m, d in encoder.digests.items()},
        licence="CC0-1.0",
    )


@pytest.fixture
def encoder() -> ToyEncoder:
    return ToyEncoder()


@pytest.fixture
def empty(tmp_path: Path, encoder: ToyEncoder) -> Iterator[LocalArchive]:
    """An archive without a model."""
    with Archive.create(tmp_path / "archive") as archive:
        yield LocalArchive(archive, load_encoder=lambda name: encoder)


@pytest.fixture
def model_folder(tmp_path: Path, encoder: ToyEncoder) -> Path:
    toy_model(encoder).save(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def media(tmp_path: Path) -> Path:
    return fill_folder(tmp_path / "media")


@pytest.fixture
def options(model_folder: Path) -> IndexOptions:
    return IndexOptions(model=str(model_folder))


@pytest.fixture
def local(empty: LocalArchive, media: Path, options: IndexOptions) -> LocalArchive:
    """An archive with three pictures and four recordings of red, green and blue."""
    index_source(empty, read_source(media).entries, options)
    return empty


@pytest.fixture
def remote(local: LocalArchive) -> Iterator[ArchiveAPI]:
    """The same archive, behind a server."""
    with client_of(local) as client:
        yield client


@pytest.fixture(params=["local", "remote"], ids=["in process", "over gRPC"])
def archive(request: pytest.FixtureRequest) -> ArchiveAPI:
    either: ArchiveAPI = request.getfixturevalue(request.param)
    return either
