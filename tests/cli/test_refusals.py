"""Wrong input is refused before PyTorch is imported, and so before a network is loaded."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

REPORTING = """
import sys
from bittern.cli import main
sys.argv[0] = "bittern"
try:
    main()
finally:
    print("torch" in sys.modules)
"""


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("search ARCHIVE owl -k 0", "k must be a whole number from 1 to 10000, not 0"),
        ("search ARCHIVE --image nowhere.jpg", "nowhere.jpg: there is no such file"),
        ("search ARCHIVE photo.jpg", "'photo.jpg' is a file, not words: give it with --image"),
        ("search ARCHIVE an owl", "Put words between quotes"),
        ("search ARCHIVE owl --image https://a.org/b.jpg", "download the file first"),
        ("search ARCHIVE dir/call.wav", "give it with --audio"),
        ("search ARCHIVE", "give at least one of WORDS, --image, --audio and --id"),
        ("search ARCHIVE --minus owl", "give at least one of WORDS, --image, --audio and --id"),
        ("search ARCHIVE owl --minus owl", "'owl' is both looked for and subtracted"),
        ("search ARCHIVE owl --minus-image nowhere.jpg", "nowhere.jpg: there is no such file"),
        ("search ARCHIVE --id a --id b --id a --minus-id b", "'b' is both looked for"),
        ("search ARCHIVE owl --where labl=1", "did you mean 'label'?"),
        ("search ARCHIVE owl --relevance very", "not 'very'"),
        ("search ARCHIVE owl --model nosuch", "has no model 'nosuch'"),
        ("serve ARCHIVE --listen 99999", "not '99999'"),
        ("serve ARCHIVE --engine warp", "not 'warp'"),
        ("index new nowhere", "nowhere"),
        ("train pairs nowhere --model field --output new", "nowhere"),
        ("train labels nowhere --model bioclip-2 --lora --output new", "nowhere"),
        ("train distill nowhere --teacher field-256 --output new", "nowhere"),
        ("train pairs nowhere --model field --bits 12 --output new", "bits must be"),
    ],
)
def test_wrong_input_is_refused_before_torch_is_imported(
    archive: Path, tmp_path: Path, command: str, message: str
) -> None:
    arguments = [str(archive) if word == "ARCHIVE" else word for word in command.split()]
    done = subprocess.run(
        [sys.executable, "-c", REPORTING, *arguments],
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode in (1, 2)
    assert message in done.stderr
    assert done.stdout == "False\n"
