"""Annotated soundscapes in the layout of the collections on Zenodo (Kahl, Navine et al., 2022).

    soundscape_data/    long recordings, FLAC
    annotations.csv     Filename, Start Time (s), End Time (s), Low Freq (Hz), High Freq (Hz),
                        Species eBird Code: one line per box
    species.csv         Species eBird Code, Scientific Name, Common Name

A sound that nobody could tell has the code ``????``.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bittern.benchmarks.eval.layouts import (
    check_files,
    left_out_files,
    table_rows,
    wrong_layout,
)
from bittern.benchmarks.eval.protocol import Protocol
from bittern.errors import LayoutError, QrelsError
from bittern.text import agreeing, some_of

ORIGIN = "a collection of fully annotated soundscape recordings on Zenodo (Kahl, Navine et al.)"
FOLDER = "soundscape_data"
SUFFIXES = frozenset({".flac", ".wav", ".ogg", ".mp3"})
UNIDENTIFIED = "????"
FILE, START, END, CODE = "Filename", "Start Time (s)", "End Time (s)", "Species eBird Code"
SCIENTIFIC, COMMON = "Scientific Name", "Common Name"
_TOLD = 5


@dataclass(frozen=True)
class Collection:
    """Recordings, and what was annotated in them.

    Attributes:
        names: of the recordings, in order of the alphabet; those in which nothing was annotated
            are among them.
        species: Darwin Core names by code.
        recordings: int64 [a], the recording of each annotation.
        starts: float64 [a], seconds.
        ends: float64 [a], seconds, later than `starts`.
        codes: the species of each annotation.
        left_out: sentences, with counts.
    """

    names: Sequence[str]
    species: Mapping[str, Mapping[str, str]]
    recordings: NDArray[np.int64]
    starts: NDArray[np.float64]
    ends: NDArray[np.float64]
    codes: Sequence[str]
    left_out: Sequence[str] = ()


def read_collection(data: Path, protocol: Protocol) -> Collection:
    """Read a collection; annotations of nothing known are refused, or left out.

    Raises:
        LayoutError: a table cannot be read or is of another form; recordings are missing.
        QrelsError: annotations of unknown species, with times that cannot be, or none at all.
    """
    species = _species(data / "species.csv")
    boxes, troubles, harmless = _boxes(data / "annotations.csv", species)
    if troubles and protocol.unknown == "error":
        raise QrelsError(
            f"{data / 'annotations.csv'}: {'; '.join(troubles)}. Correct them, or leave them out "
            "by --unknown skip",
            field="data",
        )
    annotated = sorted({name for name, *_ in boxes})
    if not annotated:
        raise QrelsError(
            f"{data / 'annotations.csv'} has no annotation of a species of species.csv; take both "
            f"from {ORIGIN}",
            field="data",
        )
    what = "recordings that annotations.csv names"
    there = check_files(data / FOLDER, annotated, protocol.missing, what)
    known = {name for name, here in zip(annotated, there.tolist(), strict=True) if here}
    names = sorted(known | set(_recordings(data / FOLDER)))
    place = {name: number for number, name in enumerate(names)}
    kept = [box for box in boxes if box[0] in known]
    left_out = [*troubles, *harmless, *left_out_files(there, what)]
    return Collection(
        names=names,
        species=species,
        recordings=np.array([place[box[0]] for box in kept], np.int64),
        starts=np.array([box[1] for box in kept], np.float64),
        ends=np.array([box[2] for box in kept], np.float64),
        codes=[box[3] for box in kept],
        left_out=left_out,
    )


def _species(path: Path) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for line, row in table_rows(path, (CODE, SCIENTIFIC, COMMON), ORIGIN, filled=(CODE,)):
        code = row[CODE].strip()
        if code == UNIDENTIFIED:
            continue
        if code in found:
            got = f"'{code[:40]}' again in line {line}"
            raise wrong_layout(path, "one line per code", got, f"take it from {ORIGIN}")
        taxon = {"vernacularName": row.get(COMMON, ""), "scientificName": row.get(SCIENTIFIC, "")}
        if taxon["scientificName"]:
            taxon["genus"] = taxon["scientificName"].split()[0]
        found[code] = {column: name for column, name in taxon.items() if name}
        if not found[code]:
            raise LayoutError(
                f"{path}, line {line}: the species '{code[:40]}' has no name to ask for; take it "
                f"from {ORIGIN}",
                field="data",
            )
    if not found:
        raise wrong_layout(path, "species", "none", f"take it from {ORIGIN}")
    return found


_Box = tuple[str, float, float, str]


def _boxes(
    path: Path, species: Mapping[str, Mapping[str, str]]
) -> tuple[list[_Box], list[str], list[str]]:
    """The annotations that can be used, and sentences: on those that cannot, and on those that
    need not.
    """
    boxes: dict[_Box, None] = {}
    unknown: Counter[str] = Counter()
    never: list[int] = []
    unidentified = again = lines = 0
    for line, row in table_rows(path, (FILE, START, END, CODE), ORIGIN):
        lines += 1
        code = row[CODE].strip()
        start, end = _seconds(path, line, row[START]), _seconds(path, line, row[END])
        if code == UNIDENTIFIED:
            unidentified += 1
        elif code not in species:
            unknown[code] += 1
        elif not 0 <= start < end < math.inf:
            never.append(line)
        else:
            box = (row[FILE].strip(), start, end, code)
            again += box in boxes
            boxes[box] = None
    troubles = []
    if unknown:
        most = ", ".join(f"'{code[:40]}' ({count})" for code, count in unknown.most_common(_TOLD))
        more = f" and {len(unknown) - _TOLD} more codes" if len(unknown) > _TOLD else ""
        troubles.append(
            f"{some_of(unknown.total(), lines, 'annotation')} "
            f"{agreeing(unknown.total(), 'is of a code', 'are of codes')} that species.csv lacks: "
            f"{most}{more}"
        )
    if never:
        first = ", ".join(str(line) for line in never[:_TOLD])
        more = ", ..." if len(never) > _TOLD else ""
        bad = agreeing(len(never), "ends before it begins, or is", "end before they begin, or are")
        troubles.append(
            f"{some_of(len(never), lines, 'annotation')} {bad} at no time: "
            f"{agreeing(len(never), 'that in line', 'those in lines')} {first}{more}"
        )
    harmless = []
    if unidentified:
        mark = agreeing(unidentified, "marks a sound", "mark sounds")
        harmless.append(
            f"{some_of(unidentified, lines, 'annotation')} {mark} that the annotators could not "
            f"identify ({UNIDENTIFIED}); {agreeing(unidentified, 'it is', 'they are')} left out"
        )
    if again:
        repeat = agreeing(again, "repeats another and counts", "repeat others and count")
        harmless.append(f"{some_of(again, lines, 'annotation')} {repeat} once")
    return list(boxes), troubles, harmless


def _seconds(path: Path, line: int, told: str) -> float:
    try:
        return float(told)
    except ValueError:
        got = f"{told[:40]!r} in line {line}"
        raise wrong_layout(path, "times in seconds", got, f"take it from {ORIGIN}") from None


def _recordings(folder: Path) -> list[str]:
    return [
        each.name
        for each in folder.iterdir()
        if each.suffix.lower() in SUFFIXES and each.is_file() and not each.name.startswith(".")
    ]
