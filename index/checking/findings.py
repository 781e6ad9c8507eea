"""What checking an archive found: problems, and what to do about each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["header", "checksum", "version", "rows", "model", "index", "codes"]
"""What a problem is about: archive.json, the contents of a file, a version of the store, rows that
contradict each other, a model's files or column, the index in memory, or codes made again."""

OnChecked = Callable[[int, int], None]
"""Called with bytes checked so far, and bytes to check in all."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One problem.

    Attributes:
        kind: what it is about.
        what: what is wrong, with the file or the values.
        remedy: what to do about it.
        path: the file at fault, relative to the archive; "" for none.
    """

    kind: Kind
    what: str
    remedy: str
    path: str = ""

    def __str__(self) -> str:
        return f"{self.what}; {self.remedy}"


@dataclass(frozen=True, slots=True)
class Verification:
    """What checking an archive found.

    Attributes:
        findings: what is wrong with the archive; empty where it is sound.
        made_anew: derived files that cannot be used, one line each, with the reason. They are
            made anew when they are wanted, from what is sound: no problem of the archive.
        observations: rows by modality.
        orphans: files that belong to nothing, relative to the archive: no problem either.
        files: how many files were compared with their checksums.
        size: bytes of those files.
        without_sums: files that have no checksum yet; the next writer gives them one.
    """

    findings: list[Finding]
    made_anew: list[str]
    observations: Mapping[str, int]
    orphans: list[str] = field(default_factory=list)
    files: int = 0
    size: int = 0
    without_sums: int = 0

    @property
    def problems(self) -> list[str]:
        """What is wrong and what to do about it, one line each."""
        return [str(finding) for finding in self.findings]
