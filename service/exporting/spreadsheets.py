"""Cells that a spreadsheet would run.

Spreadsheets take a cell that begins with ``=``, ``+``, ``-`` or ``@`` for a formula, which may open
programs and addresses, and an archive's metadata are other people's words. Such a cell gets an
apostrophe in front, which spreadsheets understand as "text". Numbers stay as they are, coordinates
west of Greenwich among them; so do texts of digits only, such as ``-5`` and ``+44 20 7946``.
"""

from __future__ import annotations

import re

FORMULA = r"^([\t\r]|\s*[=@＝＠]|\s*[+\-＋－][0-9 .,:/]*[^0-9 .,:/])"
"""Beginning of such a cell; Python and Arrow read it alike."""
_FORMULA = re.compile(FORMULA)


def harmless(text: str) -> str:
    """The text as a cell that no spreadsheet runs."""
    return f"'{text}" if _FORMULA.match(text) else text
