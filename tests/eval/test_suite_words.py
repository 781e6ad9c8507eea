from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bittern.benchmarks.eval.suites import words as suite_words
from bittern.benchmarks.eval.suites.words import MiniLMTower, WordsSuite, collect, split
from bittern.benchmarks.eval.systems.learned import GLOSS
from bittern.benchmarks.eval.tasks import Contents, Protocol, Task
from bittern.encoders.base import Modality
from bittern.encoders.wordnet import NOUNS, read_nouns
from bittern.errors import (
    InvalidInputError,
    LayoutError,
    SourceNotFoundError,
    UnsupportedModalityError,
)
from bittern.hashing.training.heads import WORDS

TEXT_ONLY = frozenset({"text"})
CLASSES, PER_CLASS = 6, 5
MIN_ITEMS = 4


def line(offset: int, word: str, above: int | None, gloss: str) -> str:
    pointers = f"001 @ {above:08d} n 0000" if above is not None else "000"
    return f"{offset:08d} 05 n 01 {word} 0 {pointers} | {gloss}  \n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six groups of five animals each, and one of two."""
    lines = []
    for group in range(CLASSES):
        lines.append(line(100 * group + 1, f"group_{group}", None, f"the group {group}"))
        for one in range(PER_CLASS):
            offset = 100 * group + 10 + one
            lines.append(line(offset, f"kind_{group}_{one}", 100 * group + 1, f"{group}.{one}; x"))
    lines.append(line(901, "small", None, "a small group"))
    lines += [line(910 + one, f"odd_{one}", 901, "odd") for one in range(2)]
    (tmp_path / NOUNS).write_text("".join(lines))
    return tmp_path


def tasks(folder: Path, protocol: Protocol | None = None) -> list[Task]:
    return WordsSuite(MIN_ITEMS).tasks(folder, protocol or Protocol(), TEXT_ONLY)


def listed(contents: Contents) -> list[object]:
    return [contents[position] for position in range(len(contents))]


def test_a_class_has_enough_items_and_an_item_belongs_to_its_first_kind(tmp_path: Path) -> None:
    path = tmp_path / NOUNS
    path.write_text(
        line(1, "bird", 90, "lays eggs; warm")
        + line(2, "owl", 1, 'hunts at night (as owls do); "an owl; called"')
        + line(3, "tern", 1, "a seabird")
        + line(4, "tawny_owl", 2, "hoots")
        + line(5, "barn_owl", 2, "shrieks; white")
        + line(6, "seed", None, "a small hard fruit")
    )
    words = collect(read_nouns(path, (5,)), min_items=2)
    assert words.names == ["bird", "owl"]
    assert words.texts == ["hunts at night (as owls do)", "a seabird", "hoots", "shrieks"]
    assert words.labels.tolist() == [0, 0, 1, 1]


@given(st.integers(0, 1000))
def test_nothing_of_a_novel_class_and_half_of_a_seen_one_is_for_training(seed: int) -> None:
    labels = np.repeat(np.arange(20), 6).astype(np.int32)
    one, same = split(labels, 20, seed), split(labels, 20, seed)
    rows = np.concatenate([one.train_rows, one.database_rows])
    assert np.sort(rows).tolist() == list(range(len(labels)))
    assert (len(one.seen), len(one.novel)) == (16, 4)
    assert not set(one.seen) & set(one.novel)
    each = np.bincount(labels[one.train_rows], minlength=20)
    assert each[one.seen].tolist() == [3] * 16
    assert each[one.novel].tolist() == [0] * 4
    assert np.array_equal(one.train_rows, same.train_rows)


@pytest.mark.parametrize(
    ("classes", "each", "message"), [(2, 5, "2 classes"), (5, 1, "of 1 items")]
)
def test_classes_that_cannot_be_split_are_refused(classes: int, each: int, message: str) -> None:
    labels = np.repeat(np.arange(classes), each).astype(np.int32)
    with pytest.raises(InvalidInputError, match=message):
        split(labels, classes, 0)


def test_every_repeat_is_the_split_of_that_number(folder: Path) -> None:
    words = collect(read_nouns(folder / NOUNS, (5, 20)), MIN_ITEMS)
    found = tasks(folder, Protocol(repeats=4))
    assert [task.repeat for task in found] == [0, 1, 2, 3]
    for task in found:
        expected = split(words.labels, CLASSES, task.repeat)
        assert listed(task.items.contents) == [words.texts[row] for row in expected.database_rows]
        assert task.training is not None
        train = listed(task.training.items.contents)
        assert train == [words.texts[row] for row in expected.train_rows]
        assert np.array_equal(task.training.items.classes, words.labels[expected.train_rows])
        assert task.training.queries.classes.tolist() == expected.seen.tolist()
        assert np.flatnonzero(task.groups["seen"]).tolist() == expected.seen.tolist()
        assert np.flatnonzero(task.groups["novel"]).tolist() == expected.novel.tolist()
        of_database = words.labels[expected.database_rows]
        for query in range(CLASSES):
            right = np.flatnonzero(of_database == query)
            assert task.relevance.of(query).tolist() == right.tolist()


def test_runs_of_two_seeds_share_no_split(folder: Path) -> None:
    splits = [
        tuple(task.items.ids)
        for seed in (0, 1)
        for task in tasks(folder, Protocol(repeats=2, seed=seed))
    ]
    assert len(set(splits)) == 4


def test_items_are_called_what_wordnet_calls_them(folder: Path) -> None:
    task = tasks(folder)[0]
    named = dict(zip(task.items.ids, listed(task.items.contents), strict=True))
    assert task.training is not None
    named |= dict(zip(task.training.items.ids, listed(task.training.items.contents), strict=True))
    assert named["n00000312"] == "3.2"
    assert len(named) == CLASSES * PER_CLASS


def test_names_are_embedded_as_they_are_without_prompts(folder: Path) -> None:
    assert tasks(folder)[0].queries.contents[2] == ("group 2",)
    queries = tasks(folder, Protocol(prompts=["a kind of {name}", "{common}!"]))[0].queries
    assert queries.contents[4:6] == [("a kind of group 2",), ("group 2!",)]
    assert queries.classes[4:6].tolist() == [2, 2]
    averaged = Protocol(prompts=["a kind of {name}", "{common}!"], average_prompts=True)
    assert tasks(folder, averaged)[0].queries.contents[2] == ("a kind of group 2", "group 2!")


def test_groups_and_training_follow_the_prompts(folder: Path) -> None:
    task = tasks(folder, Protocol(prompts=["a {name}", "the {name}"]))[0]
    assert len(task.groups["seen"]) == len(task.queries) == 2 * CLASSES
    assert task.training is not None
    assert len(task.training.queries) == task.groups["seen"].sum() == 2 * 5
    assert task.training.queries.contents[0] in task.queries.contents


def test_sides_are_those_of_the_learned_contestants(folder: Path) -> None:
    task = tasks(folder)[0]
    assert (task.queries.side, task.items.side) == (WORDS, GLOSS)


def test_a_folder_without_nouns_is_refused_with_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match=r"no data\.noun in .*--data.*15 MB.*wordnet-base"):
        WordsSuite().check(tmp_path, Protocol())


def test_nouns_that_cannot_be_fetched_are_missing_data(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def nowhere(*args: object) -> Path:
        raise SourceNotFoundError("WordNet is not here; name a folder with --wordnet")

    monkeypatch.setattr(suite_words, "find_nouns", nowhere)
    with pytest.raises(LayoutError, match="name a folder with --data"):
        WordsSuite().tasks(None, Protocol(), TEXT_ONLY)


@pytest.mark.parametrize("content", [b"this is no synset\n", b"\xff\xfe\0\0", b"00000001 05 n zz"])
def test_another_file_of_that_name_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / NOUNS).write_bytes(content)
    with pytest.raises(LayoutError, match="not a synset"):
        tasks(tmp_path)


def test_too_few_groups_are_refused(folder: Path) -> None:
    with pytest.raises(InvalidInputError, match="0 of 7 classes have 50 items or more"):
        WordsSuite(50).tasks(folder, Protocol(), TEXT_ONLY)


class _Letters:
    """In MiniLM's position: a text's letters."""

    def __init__(self, batch: int) -> None:
        self.batch = batch

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        rows = np.zeros((len(texts), 384), np.float32)
        for row, text in zip(rows, texts, strict=True):
            row[ord(text[0]) % 384] = 1
        return rows


def test_the_tower_is_an_embedder_of_text_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bittern.encoders.field.networks.MiniLM", _Letters)
    tower = MiniLMTower()
    assert (tower.name, tower.windowing) == ("minilm", None)
    assert tower.encoder().modalities == {Modality.TEXT}
    found = tower.embed(Modality.TEXT, ["owl", "tern"])
    assert found.shape == (2, 384)
    assert found.dtype == np.float32
    with pytest.raises(UnsupportedModalityError):
        tower.embed(Modality.IMAGE, [])


def test_the_towers_digest_is_the_same_each_time() -> None:
    digest = MiniLMTower().digest(Modality.TEXT)
    assert len(digest) == 64
    assert digest == MiniLMTower().digest(Modality.TEXT)
