"""The `where` language: one boolean SQL expression over an archive's columns.

    expression   comparison | expression AND expression | expression OR expression
                 | NOT expression | ( expression ) | a column of true/false
    comparison   value = <> != < <= > >= value | value [NOT] IN (literal, ...)
                 | value [NOT] BETWEEN value AND value | value [NOT] LIKE 'pattern'
                 | value [NOT] ILIKE 'pattern' | value IS [NOT] NULL | value IS [NOT] TRUE|FALSE
                 | taxon('name') | names_match('words') | during('2024-05', '2024-07')
                 | within_box(west, south, east, north)
    value        column | 'text' | number | -value | true | false
                 | lower(value) | upper(value) | CAST(value AS double|text)
                 | year(text) | month(text) | day_of_year(text)

Dates are text in ISO 8601 order: ``eventDate >= '2024-05'``. What the named conditions mean stands
in `filter_functions`, how dates are read in `filter_dates`. Column names are matched
whatever their case; quote them with "..." or `...` where SQL reads them as something else.

A condition is parsed, checked and written anew: nothing of the caller's text reaches the
store as it came, and each refusal names the part that was refused.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from bittern.index.columns import ColumnType
from bittern.index.filter_sql import MAX_DEPTH, Renderer, refused, too_deep

if TYPE_CHECKING:
    from sqlglot import Dialect, exp

MAX_CHARS = 10_000
MAX_TOKENS = 4_000
_EXAMPLE = "scientificName = 'Strix aluco' AND decimalLatitude > 50"
_WORDS = frozenset(
    {
        "and",
        "or",
        "not",
        "in",
        "between",
        "like",
        "ilike",
        "is",
        "null",
        "true",
        "false",
        "lower",
        "upper",
        "cast",
        "as",
    }
)


def compile_where(where: str, columns: Mapping[str, ColumnType]) -> str:
    """Check a condition and write it in the store's SQL.

    Args:
        where: the caller's text.
        columns: the columns that it may use, with their types.

    Returns:
        the condition with exact, quoted column names.

    Raises:
        FilterError: it is not one boolean expression over these columns.
    """
    if not isinstance(where, str):
        raise refused(f"a condition is text, not {type(where).__name__}")
    if len(where) > MAX_CHARS:
        raise refused(f"the condition has {len(where)} characters, the limit is {MAX_CHARS}")
    try:
        tree = _parse(where, columns)
        return Renderer(columns).condition(tree, 0)
    except RecursionError:
        raise too_deep() from None


def _parse(where: str, columns: Mapping[str, ColumnType]) -> exp.Expression:
    from sqlglot.errors import SqlglotError
    from sqlglot.tokens import Token, TokenType

    dialect = _dialect()
    try:
        tokens = dialect.tokenize(where)
    except SqlglotError as error:
        raise refused(_unreadable(error, where)) from error
    if not tokens:
        raise refused("the condition is empty; leave it out to match everything")
    if len(tokens) > MAX_TOKENS:
        raise refused(f"the condition has {len(tokens)} words, the limit is {MAX_TOKENS}")
    names = {name.lower() for name in columns} - _WORDS
    plain = (TokenType.STRING, TokenType.IDENTIFIER, TokenType.VAR)
    depth = 0
    for place, token in enumerate(tokens):
        if token.comments:
            raise refused("comments are not allowed in a condition")
        if token.token_type is TokenType.SEMICOLON:
            raise refused("';' is not allowed: a condition is one expression")
        depth += {TokenType.L_PAREN: 1, TokenType.R_PAREN: -1}.get(token.token_type, 0)
        if depth > MAX_DEPTH:
            raise too_deep()
        if token.token_type not in plain and token.text.lower() in names:
            # Darwin Core has columns that SQL takes for keywords: order, class, references.
            tokens[place] = Token(
                TokenType.IDENTIFIER, token.text, token.line, token.col, token.start, token.end
            )
    _check_no_comment_marks(where)
    try:
        trees = [tree for tree in dialect.parser().parse(tokens, where) if tree is not None]
    except SqlglotError as error:
        raise refused(_unreadable(error, where)) from error
    if len(trees) != 1:
        raise refused("a condition is exactly one expression")
    return trees[0]


def _check_no_comment_marks(where: str) -> None:
    # A comment before the first word belongs to no token.
    outside = "".join(where.split("'")[::2])
    for mark in ("--", "/*"):
        if mark in outside:
            raise refused("comments are not allowed in a condition")


@functools.cache
def _dialect() -> Dialect:
    """Standard SQL, with columns quoted as in "name" or as in `name`."""
    from sqlglot import Dialect, tokens

    class _Tokenizer(tokens.Tokenizer):  # type: ignore[misc, unused-ignore]
        IDENTIFIERS: ClassVar = ['"', "`"]

    class Where(Dialect):  # type: ignore[misc, unused-ignore]
        Tokenizer = _Tokenizer

    return Where()


def _unreadable(error: Exception, where: str) -> str:
    """Where a condition stops making sense, in words that need no knowledge of the parser."""
    if where.count("'") % 2:
        return (
            "the condition cannot be read: a text in it does not end; it stands in single quotes, "
            "as in 'Strix aluco', and a ' within it is written twice"
        )
    found = (getattr(error, "errors", None) or [{}])[0]
    word, column = str(found.get("highlight") or ""), int(found.get("col") or 0)
    before = where[: column - len(word)] if word else ""
    if not word or before + word != where[:column]:
        return "the condition cannot be read; an example: " + _EXAMPLE
    if str(found.get("description")).startswith("Expecting )"):
        return f"the condition cannot be read: a ')' is missing {_place(where, column)}"
    if where[column:].strip() == "" and str(found.get("description")).startswith("Required"):
        return (
            f"the condition cannot be read: it breaks off {_place(where, column)}, where something "
            f"has to follow; an example: {_EXAMPLE}"
        )
    return (
        f"the condition cannot be read: it makes no sense at {word[:40]!r}"
        f"{' ' + _place(where, column - len(word)) if before.strip() else ''}; an example: "
        f"{_EXAMPLE}"
    )


def _place(where: str, end: int) -> str:
    shown = where[:end].strip()
    return f"after {('...' if len(shown) > 40 else '') + shown[-40:]!r}"
