"""Readers that are open while a backup is copied back over the archive."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

from bittern.index.archive import Archive
from bittern.index.backup import backup
from tests.index.samples import OWL, ids, photo


def test_a_backup_that_is_copied_back_is_noticed_though_versions_have_the_same_numbers(
    tmp_path: Path,
) -> None:
    path, copy = tmp_path / "marsh", tmp_path / "copy"
    with Archive.create(path) as made:
        made.register_model(OWL, {"card.json": b"{}"})
        made.add([photo(name) for name in "abcdef"], model=OWL.digest)
    backup(path, copy)
    query = np.zeros(8, np.uint8)
    with Archive.open(path) as reader:

        def answers(asked: Archive) -> tuple[object, ...]:
            found = asked.search(query, model=OWL.digest, k=9, metric="hamming").hits
            hits = [(hit.observation.id, hit.distance) for hit in found]
            return ids(asked), asked.rows().tolist(), asked.generation, hits

        with Archive.open(path, write=True) as writer:
            writer.delete(["f", "e"])
        before = answers(reader), reader.state
        for gone in ("a", "b"):
            shutil.rmtree(path)
            shutil.copytree(copy, path)
            with Archive.open(path, write=True) as writer:
                writer.delete([gone])
            with Archive.open(path) as fresh:
                assert answers(reader) == answers(fresh)
            assert gone not in ids(reader)
            assert reader.generation == before[0][2]
            assert reader.state != before[1]
        with Archive.open(path, write=True) as writer:
            writer.delete(["c"])
        with Archive.open(path) as fresh:
            assert answers(reader) == answers(fresh)
        assert reader.verify() == []
