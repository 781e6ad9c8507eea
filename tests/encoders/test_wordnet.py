from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from bittern.encoders import wordnet
from bittern.encoders.wordnet import find_nouns, read_nouns
from bittern.errors import InvalidInputError, LimitExceededError, SourceNotFoundError

ANIMAL, PLANT, ARTIFACT = 5, 20, 6
LICENCE = "  1 This software and database is being provided to you, the LICENSEE, by  \n"


def line(
    offset: int, file: int, words: list[str], hypernyms: list[int], gloss: str, kind: str = "@"
) -> str:
    """One synset as wndb(5WN) writes it; it also points to a part, which is no hypernym."""
    named = " ".join(f"{word} 0" for word in words)
    above = "".join(f" {kind} {h:08d} n 0000" for h in hypernyms)
    pointers = f"{len(hypernyms) + 1:03d} %p {99:08d} n 0000{above}"
    return f"{offset:08d} {file:02d} n {len(words):02x} {named} {pointers} | {gloss}  \n"


@pytest.fixture
def nouns(tmp_path: Path) -> Path:
    lines = [
        LICENCE,
        line(1, ANIMAL, ["bird"], [90], "warm-blooded; lays eggs"),
        line(2, ANIMAL, ["owl", "bird_of_Minerva"], [1], 'hunts at night; "an owl called"'),
        line(3, ANIMAL, ["tern"], [1], "a seabird"),
        line(4, ANIMAL, ["tawny_owl"], [2, 1], "hoots"),
        line(5, ANIMAL, ["barn_owl"], [2], "shrieks; white"),
        line(6, PLANT, ["seed"], [], "a small hard fruit"),
        line(7, ARTIFACT, ["decoy"], [1], "no bird at all"),
        line(8, ANIMAL, ["Hedwig"], [2], "an owl of fiction", kind="@i"),
    ]
    path = tmp_path / "data.noun"
    path.write_text("".join(lines))
    return path


def test_synsets_are_read_with_their_names_and_direct_hypernyms(
    nouns: Path,
) -> None:
    owl = read_nouns(nouns, (ANIMAL,))[1]
    assert (owl.offset, owl.file) == ("00000002", ANIMAL)
    assert owl.words == ("owl", "bird of Minerva")
    assert owl.hypernyms == ("00000001",)
    assert owl.gloss == 'hunts at night; "an owl called"'


def test_only_the_chosen_lexicographer_files_are_read(nouns: Path) -> None:
    assert [s.words[0] for s in read_nouns(nouns, (PLANT, ARTIFACT))] == ["seed", "decoy"]


def test_instances_are_no_kinds(nouns: Path) -> None:
    assert read_nouns(nouns, (ANIMAL,))[-1].hypernyms == ()


@pytest.mark.parametrize(
    "wrong",
    [
        "00000001 05 n 01 bird 0 000\n",  # no gloss
        "00000001 05 v 01 bird 0 000 | sings\n",  # a verb
        "00000001 05 n zz bird 0 000 | sings\n",  # no count of words
        "00000001 05 n 01 bird 0 002 @ 00000002 | sings\n",  # pointers cut short
        "\n",
    ],
)
def test_a_line_of_another_format_is_refused_with_its_number(tmp_path: Path, wrong: str) -> None:
    path = tmp_path / "data.noun"
    path.write_text(LICENCE + wrong)
    with pytest.raises(InvalidInputError, match=r"line 2 of .*data\.noun"):
        read_nouns(path, (ANIMAL,))


def test_a_huge_file_is_refused_before_it_is_read(
    nouns: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wordnet, "MAX_BYTES", 100)
    with pytest.raises(LimitExceededError, match="may have 100"):
        read_nouns(nouns, (ANIMAL,))


def test_a_named_folder_without_wordnet_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceNotFoundError, match="--wordnet"):
        find_nouns(tmp_path / "elsewhere", tmp_path)


def test_an_installed_wordnet_is_taken_before_a_fetched_one(
    nouns: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wordnet, "INSTALLED", nouns.parent)
    assert find_nouns(None, tmp_path / "cache") == nouns


def test_the_package_is_fetched_once_and_kept(
    nouns: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wordnet, "INSTALLED", Path("/nowhere"))
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    called = []

    def pretend(command: list[str], cwd: Path, **rest: object) -> None:
        called.append(Path(command[0]).name)
        if command[1] == "download":
            (cwd / "wordnet-base_3.0.deb").touch()
        else:
            (cwd / "unpacked" / "nowhere").mkdir(parents=True)
            (cwd / "unpacked" / "nowhere" / "data.noun").write_bytes(nouns.read_bytes())

    monkeypatch.setattr(subprocess, "run", pretend)
    cache = tmp_path / "cache"
    first, again = find_nouns(None, cache), find_nouns(None, cache)
    assert first == again
    assert first.read_bytes() == nouns.read_bytes()
    assert called == ["apt-get", "dpkg-deb"]
    assert [path.name for path in first.parent.iterdir()] == ["data.noun"]


def test_a_fetch_that_fails_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wordnet, "INSTALLED", Path("/nowhere"))
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")

    def fail(command: list[str], **rest: object) -> None:
        raise subprocess.CalledProcessError(100, command, "", "E: no network\n")

    monkeypatch.setattr(subprocess, "run", fail)
    with pytest.raises(SourceNotFoundError, match=r"E: no network.*apt-get install wordnet-base"):
        find_nouns(None, tmp_path)


def test_without_apt_the_remedy_is_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wordnet, "INSTALLED", Path("/nowhere"))
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(SourceNotFoundError, match=r"neither was apt-get.*--wordnet"):
        find_nouns(None, tmp_path)
