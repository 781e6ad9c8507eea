"""Which embedding spaces a run has: towers that are shared, and names that tell them apart."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bittern.benchmarks.eval import spaces as spaces_module
from bittern.benchmarks.eval.spaces import MINILM, WORDS, Space, spaces, spaces_for
from bittern.hashing.saved_model import SavedModel
from bittern.service.jobs.model_choice import DEFAULT_ENCODER
from bittern.service.models.model import Embedder, Embedders
from tests.engine.conftest import toy_model
from tests.engine.toy import ToyEncoder


@pytest.fixture(autouse=True)
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spaces_module, "catalogue_encoder", lambda name: ToyEncoder())


def saved_in(folder: Path, bits: int, seed: int = 0) -> str:
    toy_model(ToyEncoder(), bits, seed).save(folder)
    return str(folder)


def lengths(space: Space) -> list[int]:
    return [model.card.bits for model in space.saved]


def test_models_over_the_same_towers_share_a_space_each_once(tmp_path: Path) -> None:
    one, other = saved_in(tmp_path / "one", 64), saved_in(tmp_path / "other", 32)
    [space] = spaces([one, other, one], [16])
    assert (space.name, lengths(space)) == ("toy", [64, 32])
    [space] = spaces([other, one], [16])
    assert lengths(space) == [32, 64]


def test_a_copy_of_a_model_is_the_same_model(tmp_path: Path) -> None:
    [space] = spaces([saved_in(tmp_path / name, 64) for name in ("one", "copy")], [16])
    assert lengths(space) == [64]
    [space] = spaces([saved_in(tmp_path / "a", 64), saved_in(tmp_path / "b", 64, seed=1)], [16])
    assert lengths(space) == [64, 64]


def test_a_model_with_towers_of_its_own_gives_its_space_its_own_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapted = Embedder("toy", lambda name: ToyEncoder())

    def ready(options: Any, named: Any) -> SavedModel:
        saved = toy_model(ToyEncoder(), 32 if options.model == "plain" else 64)
        if options.model == "plain":
            return saved
        return replace(saved, card=replace(saved.card, name="egret", assembly={"image": {}}))

    class Loaded(Embedders):
        def of(self, saved: SavedModel) -> Embedder:
            return adapted if saved.card.assembly else self.named(saved.card.encoder)

    monkeypatch.setattr(spaces_module, "ready_model", ready)
    monkeypatch.setattr(spaces_module, "Embedders", Loaded)
    found = spaces(["plain", "adapted"], [16])
    assert [(space.name, lengths(space)) for space in found] == [("toy", [32]), ("egret", [64])]
    assert found[1].towers is adapted


def test_spaces_of_one_name_and_other_towers_get_names_of_their_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    towers = [
        Embedder("toy", lambda name, salt=salt: ToyEncoder(salt=salt))  # type: ignore[misc]
        for salt in ("", "other")
    ]
    alone = Space("alone", towers[0])
    given = [Space("toy", towers[0]), alone, Space("toy", towers[1])]
    monkeypatch.setattr(spaces_module, "spaces", lambda names, bits: given)
    found = [space.name for space in spaces_for("field", ["x"], [16])]
    assert found[1] == "alone"
    assert len(set(found)) == 3
    assert all(name.startswith("toy ") and len(name) == 12 for name in (found[0], found[2]))
    assert found == [space.name for space in spaces_for("field", ["x"], [16])]


def test_only_words_has_an_encoder_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[list[str]] = []

    def named(names: list[str], bits: object) -> list[Space]:
        opened.append(names)
        return [Space(name, Embedder(name, lambda name: ToyEncoder())) for name in names]

    monkeypatch.setattr(spaces_module, "spaces", named)
    assert [space.name for space in spaces_for(WORDS, [], [16])] == [MINILM]
    assert [space.name for space in spaces_for(WORDS, ["bird", MINILM], [16])] == [MINILM, "bird"]
    assert [space.name for space in spaces_for(WORDS, ["bird"], [16])] == ["bird"]
    assert [space.name for space in spaces_for("field", [], [16])] == [DEFAULT_ENCODER]
    assert [space.name for space in spaces_for("field", [MINILM], [16])] == [MINILM]
    assert opened == [[], ["bird"], ["bird"], [DEFAULT_ENCODER], [MINILM]]
