"""The suites, by name; each is loaded when it is needed."""

from __future__ import annotations

from importlib import import_module

from bittern.benchmarks.eval.suites.base import DataFile, Suite
from bittern.errors import InvalidInputError

_SUITES = {
    "inquire": ("inquire", "Inquire"),
    "inat24": ("inat24", "INat24"),
    "inatsounds": ("inatsounds", "INatSounds"),
    "ssw60": ("ssw60", "SSW60"),
    "soundscapes": ("soundscapes", "Soundscapes"),
    "words": ("words", "WordsSuite"),
    "field": ("field", "FieldSuite"),
    "custom": ("custom", "CustomSuite"),
}
NAMES = tuple(_SUITES)

__all__ = ["NAMES", "DataFile", "Suite", "suite_named"]


def suite_named(name: str) -> Suite:
    """The suite of this name.

    Raises:
        InvalidInputError: an unknown suite.
    """
    if name not in _SUITES:
        raise InvalidInputError(
            f"unknown suite '{name}'; choose one of {', '.join(NAMES)}", field="suite"
        )
    module, kind = _SUITES[name]
    suite: Suite = getattr(import_module(f"{__name__}.{module}"), kind)()
    return suite
