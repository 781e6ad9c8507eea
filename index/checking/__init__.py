"""Whether an archive is what was written: checksums, checks at opening, verify, repair.

opening.py    what every opening checks             settling.py   checksums of each commit
contents.py   every file against its checksum       manifests.py  which files a version needs
rows.py       rows, models and index agree          orphans.py    files that belong to nothing
repairing.py  what can be put right without loss of anything that is sound
"""

from bittern.index.checking.findings import Finding, OnChecked, Verification
from bittern.index.checking.rows import snapshot_to_verify
from bittern.index.verify import verified, verified_files

__all__ = [
    "Finding",
    "OnChecked",
    "Verification",
    "snapshot_to_verify",
    "verified",
    "verified_files",
]
