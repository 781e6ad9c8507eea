"""Finds and reads the nouns of WordNet 3.0, `data.noun` and `index.noun` (format: wndb(5WN)).

WordNet is copyright 2006 by Princeton University. It is read from the Debian package
`wordnet-base`, which is downloaded when needed.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bittern.errors import InvalidInputError, LimitExceededError, SourceNotFoundError

INSTALLED = Path("/usr/share/wordnet")
NOUNS = "data.noun"
PACKAGE = "wordnet-base"
MAX_BYTES = 64 << 20
"""Limit of `data.noun`, which has 15 MB in WordNet 3.0."""
_FETCH_SECONDS = 300
_REMEDY = (
    f"install it (apt-get install {PACKAGE}), or name a folder that holds {NOUNS} with --wordnet"
)


@dataclass(frozen=True)
class Synset:
    """One meaning.

    Attributes:
        offset: its name in the file.
        file: number of its lexicographer file (05 animal, 06 artifact, 20 plant...).
        words: its names, spaces for underscores.
        hypernyms: offsets of its direct hypernyms, in the file's order.
        instance_of: likewise, for a named individual.
        gloss: definition and examples.
    """

    offset: str
    file: int
    words: tuple[str, ...]
    hypernyms: tuple[str, ...]
    instance_of: tuple[str, ...]
    gloss: str


def find_nouns(folder: Path | None, cache: Path) -> Path:
    """Find `data.noun`: in `folder` if given, else installed, else cached, else downloaded.

    Args:
        folder: with `data.noun`; if given, no other is searched.
        cache: folder to unpack a downloaded package into.

    Raises:
        SourceNotFoundError: it was not found and cannot be downloaded.
    """
    if folder is not None:
        if not (folder / NOUNS).is_file():
            raise SourceNotFoundError(
                f"there is no {NOUNS} in {folder}; name the folder that holds it, or leave "
                f"--wordnet out to have the package {PACKAGE} fetched"
            )
        return folder / NOUNS
    kept = cache / PACKAGE / NOUNS
    for path in (INSTALLED / NOUNS, kept):
        if path.is_file():
            return path
    _fetch(kept)
    return kept


def _fetch(target: Path) -> None:
    """Unpack `data.noun` from the Debian package, without installing it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as name:
        work = Path(name)
        _command(["apt-get", "download", PACKAGE], work)
        packages = sorted(work.glob(f"{PACKAGE}_*.deb"))
        if not packages:
            raise SourceNotFoundError(f"apt-get downloaded no {PACKAGE}; {_REMEDY}")
        _command(["dpkg-deb", "-x", str(packages[0]), "unpacked"], work)
        unpacked = work / "unpacked" / INSTALLED.relative_to("/") / NOUNS
        if not unpacked.is_file():
            raise SourceNotFoundError(f"{packages[0].name} holds no {NOUNS}; {_REMEDY}")
        unpacked.replace(target)


def _command(words: Sequence[str], folder: Path) -> None:
    program = shutil.which(words[0])
    if program is None:
        raise SourceNotFoundError(f"WordNet was not found, and neither was {words[0]}; {_REMEDY}")
    try:
        subprocess.run(  # noqa: S603  the words are ours
            [program, *words[1:]],
            cwd=folder,
            check=True,
            capture_output=True,
            text=True,
            timeout=_FETCH_SECONDS,
        )
    except subprocess.CalledProcessError as error:
        said = (error.stderr or error.stdout).strip().splitlines()
        last = said[-1] if said else f"exit status {error.returncode}"
        raise SourceNotFoundError(
            f"WordNet was not found, and {words[0]} failed ({last}); {_REMEDY}"
        ) from error
    except subprocess.TimeoutExpired as error:
        raise SourceNotFoundError(
            f"{words[0]} did not finish in {_FETCH_SECONDS} seconds; {_REMEDY}"
        ) from error


def read_nouns(path: Path, files: Sequence[int] | None = None) -> list[Synset]:
    """Synsets in the order of `data.noun`; only those of some lexicographer files if given.

    Raises:
        LimitExceededError: the file is larger than 64 MiB.
        InvalidInputError: a line is not of the format.
    """
    if (size := path.stat().st_size) > MAX_BYTES:
        raise LimitExceededError(f"{path} has {size} bytes; {NOUNS} may have {MAX_BYTES}")
    chosen = None if files is None else frozenset(files)
    found = []
    with path.open(encoding="utf-8", errors="replace") as lines:
        for number, line in enumerate(lines, 1):
            if line.startswith("  "):  # the licence
                continue
            try:
                synset = _synset(line)
            except (IndexError, ValueError) as error:
                raise InvalidInputError(
                    f"line {number} of {path} is not a synset in the format of wndb(5WN): "
                    f"{line[:60]!r}; take {NOUNS} of WordNet 3.0"
                ) from error
            if chosen is None or synset.file in chosen:
                found.append(synset)
    return found


def _synset(line: str) -> Synset:
    """``offset file n words (word id)... pointers (kind offset n source)... | gloss``."""
    data, bar, gloss = line.partition(" | ")
    fields = data.split()
    if not bar or fields[2] != "n":
        raise ValueError("no gloss, or no noun")
    after_words = 4 + 2 * int(fields[3], 16)
    pointers = fields[after_words + 1 :]
    if len(pointers) != 4 * int(fields[after_words]):
        raise ValueError("another number of pointers than it says")
    return Synset(
        offset=fields[0],
        file=int(fields[1]),
        words=tuple(word.replace("_", " ") for word in fields[4:after_words:2]),
        hypernyms=_offsets(pointers, "@"),
        instance_of=_offsets(pointers, "@i"),
        gloss=gloss.strip(),
    )


def _offsets(pointers: Sequence[str], kind: str) -> tuple[str, ...]:
    return tuple(pointers[i + 1] for i in range(0, len(pointers), 4) if pointers[i] == kind)


def read_senses(path: Path) -> dict[str, list[str]]:
    """Each word of `index.noun` with the offsets of its synsets, the most frequent first."""
    found = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("  "):  # the licence
            fields = line.split()
            found[fields[0].replace("_", " ")] = fields[-int(fields[2]) :]
    return found
