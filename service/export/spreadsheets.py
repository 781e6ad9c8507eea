"""Cells that a spreadsheet would run.

Spreadsheets take a cell that begins with ``=``, ``+``, ``-`` or ``@`` for a formula, which may open
programs and addresses, and an archive's metadata are other people's words. Some of them first trim
spaces, control characters and characters that cannot be seen. A text that is a formula with or
without these gets an apostrophe in front, which spreadsheets understand as "text". Numbers stay as
they are, coordinates west of Greenwich among them; so do texts of digits only, such as ``-5`` and
``+44 20 7946``.
"""

from __future__ import annotations

import re

_TRIMMED = (
    (0x00, 0x20), (0x7F, 0xA0), (0xAD, 0xAD), (0x600, 0x605), (0x61C, 0x61C), (0x6DD, 0x6DD),
    (0x70F, 0x70F), (0x890, 0x891), (0x8E2, 0x8E2), (0x1680, 0x1680), (0x180E, 0x180E),
    (0x2000, 0x200F), (0x2028, 0x202F), (0x205F, 0x206F), (0x3000, 0x3000), (0xFEFF, 0xFEFF),
    (0xFFF9, 0xFFFB), (0x110BD, 0x110BD), (0x110CD, 0x110CD), (0x13430, 0x1343F),
    (0x1BCA0, 0x1BCA3), (0x1D173, 0x1D17A), (0xE0000, 0xE007F),
)  # fmt: skip
"""Unicode's separators, control and format characters: categories Z, Cc and Cf. They are listed
because ``\\s`` means more to Python than to Arrow."""
_CLASS = "".join(f"{chr(first)}-{chr(last)}" for first, last in _TRIMMED)
FORMULA = rf"^([\t\r]|[{_CLASS}]*[=@＝＠]|[{_CLASS}]*[+\-＋－][0-9 .,:/]*[^0-9 .,:/])"
"""Beginning of such a cell; Python and Arrow read it alike."""
_FORMULA = re.compile(FORMULA)


def harmless(text: str) -> str:
    """The text as a cell that no spreadsheet runs."""
    return f"'{text}" if _FORMULA.match(text) else text
