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

Dates are text in ISO 8601 order: ``eventDate >= '2024-05'``. `filter_functions` defines the named
conditions and the reading of dates. Column names match in any case; quote them with "..." or `...`
if they are SQL keywords.

A condition is parsed, checked node by node, and written as new SQL. So none of the caller's text
reaches the store, and each error names the refused expression.
"""

from __future__ import annotations

import functools
import logging
import math
import threading
from collections.abc import Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from bittern.errors import FilterError
from bittern.index.columns import ColumnType, suggestion
from bittern.index.filter_functions import CONDITIONS, VALUES, Argument, condition
from bittern.index.store import quoted

if TYPE_CHECKING:
    from sqlglot import Dialect, exp

MAX_CHARS = 10_000
MAX_TOKENS = 4_000
MAX_DEPTH = 40
"""Deepest nesting of a condition."""
MAX_CONDITIONS = 500
"""Most comparisons of a condition."""
MAX_FUNCTIONS = 50
"""Most function calls of a condition, except for lower and upper, which are fast."""
_EXAMPLE = "scientificName = 'Strix aluco' AND decimalLatitude > 50"
_WORDS = frozenset(
    [
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
    ]
)
_compiling = ContextVar("compiling", default=False)
_importing = threading.Lock()
_COMPARISONS = {"eq": "=", "neq": "<>", "lt": "<", "lte": "<=", "gt": ">", "gte": ">="}
_ARGUMENTS = {"this", "expression", "expressions", "low", "high", "negate", "to", "is_string"}
"""What sqlglot's nodes may hold here: SQL's rarer clauses are further arguments of a node."""
_NUMERIC = ("double", "int64")
_CASTS: Mapping[str, tuple[ColumnType, str]] = {
    "DOUBLE": ("double", "DOUBLE"),
    "FLOAT": ("double", "DOUBLE"),
    "TEXT": ("string", "STRING"),
    "VARCHAR": ("string", "STRING"),
}


def compile_where(where: str, columns: Mapping[str, ColumnType]) -> str:
    """Check a condition and write it in the store's SQL.

    Args:
        where: the condition.
        columns: the allowed columns, with their types.

    Returns:
        the condition with exact, quoted column names.

    Raises:
        FilterError: it is not one boolean expression over these columns.
    """
    if not isinstance(where, str):
        raise _refused(f"a condition is text, not {type(where).__name__}")
    if len(where) > MAX_CHARS:
        raise _refused(f"the condition has {len(where)} characters, the limit is {MAX_CHARS}")
    before = _compiling.set(True)
    try:
        tree = _parse(where, columns)
        return _Renderer(columns).condition(tree, 0)
    except RecursionError:
        raise _too_deep() from None
    finally:
        _compiling.reset(before)


def _parse(where: str, columns: Mapping[str, ColumnType]) -> exp.Expression:
    dialect = _dialect()
    from sqlglot.errors import SqlglotError
    from sqlglot.tokens import Token, TokenType

    try:
        tokens = dialect.tokenize(where)
    except SqlglotError as error:
        raise _refused(_unreadable(error, where)) from error
    if not tokens:
        raise _refused("the condition is empty; leave it out to match everything")
    if len(tokens) > MAX_TOKENS:
        raise _refused(f"the condition has {len(tokens)} words, the limit is {MAX_TOKENS}")
    names = {name.lower() for name in columns} - _WORDS
    plain = (TokenType.STRING, TokenType.IDENTIFIER, TokenType.VAR)
    depth = 0
    for number, token in enumerate(tokens):
        if token.comments:
            raise _refused("comments are not allowed in a condition")
        if token.token_type is TokenType.SEMICOLON:
            raise _refused("';' is not allowed: a condition is one expression")
        depth += {TokenType.L_PAREN: 1, TokenType.R_PAREN: -1}.get(token.token_type, 0)
        if depth > MAX_DEPTH:
            raise _too_deep()
        if token.token_type not in plain and token.text.lower() in names:
            # Some Darwin Core columns are SQL keywords: order, class, references.
            tokens[number] = Token(
                TokenType.IDENTIFIER, token.text, token.line, token.col, token.start, token.end
            )
    _check_no_comment_marks(where)
    try:
        trees = [tree for tree in dialect.parser().parse(tokens, where) if tree is not None]
    except SqlglotError as error:
        raise _refused(_unreadable(error, where)) from error
    if len(trees) != 1:
        raise _refused("a condition is exactly one expression")
    return trees[0]


def _check_no_comment_marks(where: str) -> None:
    # A comment before the first word belongs to no token.
    outside = "".join(where.split("'")[::2])
    for mark in ("--", "/*"):
        if mark in outside:
            raise _refused("comments are not allowed in a condition")


def _dialect() -> Dialect:
    """The language of conditions.

    Its modules import each other in a circle: threads that import them at once can fail.
    """
    with _importing:
        return _made_dialect()


@functools.cache
def _made_dialect() -> Dialect:
    """Standard SQL, with columns quoted as in "name" or as in `name`, and no built-in functions."""
    from sqlglot import Dialect, parser, tokens

    # It logs text of conditions as it is, line breaks included. What matters is raised, too.
    logging.getLogger("sqlglot").addFilter(lambda record: not _compiling.get())

    class _Tokenizer(tokens.Tokenizer):  # type: ignore[misc, unused-ignore]
        IDENTIFIERS: ClassVar = ['"', "`"]

    class _Parser(parser.Parser):  # type: ignore[misc, unused-ignore]
        FUNCTIONS: ClassVar[dict[str, Any]] = {}
        FUNCTION_PARSERS: ClassVar = {"CAST": parser.Parser.FUNCTION_PARSERS["CAST"]}

    class Where(Dialect):  # type: ignore[misc, unused-ignore]
        Tokenizer = _Tokenizer
        Parser = _Parser

    return Where()


def _unreadable(error: Exception, where: str) -> str:
    """The error message for a condition that cannot be parsed."""
    if where.count("'") % 2:
        return (
            "the condition cannot be read: a text has no closing quote; write it in single quotes, "
            "as in 'Strix aluco', and double a ' within it"
        )
    found = (getattr(error, "errors", None) or [{}])[0]
    word, column = str(found.get("highlight") or ""), int(found.get("col") or 0)
    before = where[: column - len(word)] if word else ""
    if not word or before + word != where[:column]:
        return "the condition cannot be read; an example: " + _EXAMPLE
    if str(found.get("description")).startswith("Expecting )"):
        return f"the condition cannot be read: a ')' is missing {_after(where, column)}"
    if where[column:].strip() == "" and str(found.get("description")).startswith("Required"):
        return (
            f"the condition cannot be read: it is incomplete {_after(where, column)}; an example: "
            f"{_EXAMPLE}"
        )
    return (
        f"the condition cannot be read: unexpected {word[:40]!r}"
        f"{' ' + _after(where, column - len(word)) if before.strip() else ''}; an example: "
        f"{_EXAMPLE}"
    )


def _after(where: str, end: int) -> str:
    shown = where[:end].strip()
    return f"after {('...' if len(shown) > 40 else '') + shown[-40:]!r}"


def _refused(message: str) -> FilterError:
    """The error for a condition that is refused as a whole."""
    return FilterError(message, field="where")


def _too_deep() -> FilterError:
    """The error for a condition that is nested too deep."""
    return _refused(f"the condition is nested more than {MAX_DEPTH} deep; write it flatter")


# Writing a parsed condition as SQL


class _Value(NamedTuple):
    """A rendered value: its SQL, its type, and whether it is a literal."""

    sql: str
    type: ColumnType
    literal: bool = False


class _Renderer:
    """Writes a parsed condition as SQL, and refuses everything outside the language.

    Args:
        columns: the allowed columns, with their types.
    """

    def __init__(self, columns: Mapping[str, ColumnType]) -> None:
        self._columns = columns
        self._by_lower = {name.lower(): name for name in columns}
        self._conditions = 0
        self._functions = 0

    # Conditions

    def condition(self, node: exp.Expression, depth: int) -> str:
        """A boolean expression, in parentheses."""
        if depth > MAX_DEPTH:
            raise _too_deep()
        if node.key == "paren":
            return self.condition(node.this, depth + 1)
        if node.key in ("and", "or"):
            return self._junction(node, depth)
        if node.key == "not":
            return f"(NOT {self.condition(node.this, depth + 1)})"
        self._conditions += 1
        if self._conditions > MAX_CONDITIONS:
            raise _refused(f"the condition has more than {MAX_CONDITIONS} comparisons")
        if node.key == "in":
            return self._in(node, depth)
        if node.key != "column" and not _given(node) <= _ARGUMENTS:
            raise self._not_allowed(node, "is not a condition")
        if node.key in _COMPARISONS:
            left, right = self._alike(node, node.this, node.expression, depth=depth)
            return f"({left} {_COMPARISONS[node.key]} {right})"
        match node.key:
            case "between":
                low, high = node.args["low"], node.args["high"]
                value, least, most = self._alike(node, node.this, low, high, depth=depth)
                return f"({value} BETWEEN {least} AND {most})"
            case "like" | "ilike":
                return self._like(node, depth)
            case "is":
                return self._is(node, depth)
            case "anonymous" if node.name.lower() not in VALUES:
                return self._named(node)
            case "column" | "boolean":
                flag = self._value(node, depth)
                if flag.type == "bool":
                    return f"({flag.sql})"
        raise self._not_allowed(node, "is not a condition")

    def _junction(self, node: exp.Expression, depth: int) -> str:
        """A chain of AND or of OR, written as a balanced tree: engines recurse too."""
        kind, word = type(node), node.key.upper()
        terms: list[str] = []
        pending = [node]
        while pending:
            term = pending.pop()
            if type(term) is kind:
                pending += [term.expression, term.this]
            else:
                terms.append(self.condition(term, depth + 1))
        while len(terms) > 1:
            pairs = [terms[i : i + 2] for i in range(0, len(terms), 2)]
            terms = [f"({f' {word} '.join(pair)})" if len(pair) > 1 else pair[0] for pair in pairs]
        return terms[0]

    def _in(self, node: exp.Expression, depth: int) -> str:
        if _given(node) != {"this", "expressions"}:
            raise self._not_allowed(node, "needs a list of literals: IN ('a', 'b')")
        for item in node.expressions:
            if not self._value(item, depth + 1).literal:
                raise self._not_allowed(item, "is not a literal; IN takes literals only")
        value, *items = self._alike(node, node.this, *node.expressions, depth=depth)
        return f"({value} IN ({', '.join(items)}))"

    def _like(self, node: exp.Expression, depth: int) -> str:
        value = self._value(node.this, depth + 1)
        pattern = self._value(node.expression, depth + 1)
        if value.type != "string" or pattern.type != "string" or not pattern.literal:
            raise self._not_allowed(node, "needs a text column and a 'pattern'")
        negate = "NOT " if node.args.get("negate") else ""
        return f"({value.sql} {negate}{node.key.upper()} {pattern.sql})"

    def _is(self, node: exp.Expression, depth: int) -> str:
        value, other = self._value(node.this, depth + 1), node.expression
        if other.key == "null":
            return f"({value.sql} IS NULL)"
        if other.key == "boolean" and value.type == "bool":
            return f"({value.sql} IS {'TRUE' if other.this else 'FALSE'})"
        raise self._not_allowed(node, "is not supported: use IS NULL, or = to compare")

    def _named(self, node: exp.Expression) -> str:
        """A condition with a name: taxon('Strigidae')."""
        name = node.name.lower()
        if name not in CONDITIONS or not isinstance(node.this, str):
            raise self._not_allowed(
                node,
                f"is an unknown function (conditions are {', '.join(CONDITIONS)}; "
                f"values are {', '.join(VALUES)})",
            )
        self._count_function()
        return condition(self._columns, name, [self._argument(each) for each in node.expressions])

    def _argument(self, node: exp.Expression) -> Argument:
        """A literal argument of a named condition."""
        number = node.this if node.key == "neg" else node
        if node.key == "literal" and node.is_string:
            return str(node.this)
        if number.key != "literal" or number.is_string:
            raise self._not_allowed(node, "is not a literal: write a 'text' or a number")
        self._number(number)
        return -float(number.this) if number is not node else float(number.this)

    def _count_function(self) -> None:
        self._functions += 1
        if self._functions > MAX_FUNCTIONS:
            raise _refused(f"the condition calls more than {MAX_FUNCTIONS} functions")

    def _alike(self, node: exp.Expression, *nodes: exp.Expression, depth: int) -> list[str]:
        """SQL of values that are compared: all text, all numbers or all true/false."""
        values = [self._value(one, depth + 1) for one in nodes]
        kinds = {"number" if value.type in _NUMERIC else value.type for value in values}
        if len(kinds) > 1:
            names = {"string": "text", "number": "numbers", "bool": "true/false"}
            raise self._not_allowed(
                node, f"compares {' with '.join(sorted(names[kind] for kind in kinds))}"
            )
        mixed = {value.type for value in values} == {"double", "int64"}
        return [
            f"CAST({value.sql} AS DOUBLE)" if mixed and value.type == "int64" else value.sql
            for value in values
        ]

    # Values

    def _value(self, node: exp.Expression, depth: int) -> _Value:
        if depth > MAX_DEPTH:
            raise _too_deep()
        if node.key == "column":
            return self._column(node)
        if not _given(node) <= _ARGUMENTS:
            raise self._not_allowed(node, "is not allowed")
        match node.key:
            case "paren":
                return self._value(node.this, depth + 1)
            case "literal" if node.is_string:
                return _Value(quoted(node.this), "string", True)
            case "literal":
                return self._number(node)
            case "boolean":
                return _Value("true" if node.this else "false", "bool", True)
            case "neg":
                return self._negative(node, depth)
            case "anonymous":
                return self._function(node, depth)
            case "cast":
                return self._cast(node, depth)
            case "null":
                raise _refused("nothing equals NULL in SQL; write: column IS NULL")
        raise self._not_allowed(node, "is not allowed")

    def _negative(self, node: exp.Expression, depth: int) -> _Value:
        value = self._value(node.this, depth + 1)
        if value.type == "int64" and not value.literal:
            # The smallest 64-bit number has no negative.
            return _Value(f"(-CAST({value.sql} AS DOUBLE))", "double")
        if value.type in _NUMERIC:
            return _Value(f"(-{value.sql})", value.type, value.literal)
        raise self._not_allowed(node, "is not a number")

    def _function(self, node: exp.Expression, depth: int) -> _Value:
        """A value of one text: lower(family), year(eventDate)."""
        name = node.name.lower()
        if name not in VALUES or not isinstance(node.this, str):
            raise self._not_allowed(node, "is not allowed")
        kind, needs, write = VALUES[name]
        if name not in ("lower", "upper"):
            self._count_function()
        if len(node.expressions) != 1:
            raise self._not_allowed(node, needs)
        value = self._value(node.expressions[0], depth + 1)
        if value.type != "string":
            raise self._not_allowed(node, needs)
        return _Value(write(value.sql), kind)

    def _column(self, node: exp.Expression) -> _Value:
        name = node.this.name if _given(node) == {"this"} else ""
        exact = self._by_lower.get(name.lower())
        if exact is None:
            shown = name or node.sql()
            hint = suggestion(shown, self._columns)
            if getattr(node.this, "quoted", False) and not hint:
                hint = f" (a text takes single quotes: {quoted(shown[:80])})"
            raise FilterError(
                f"there is no column {shown[:80]!r}{hint}; columns: {', '.join(self._columns)}",
                field="where",
                details={"column": shown[:80]},
            )
        return _Value(f"`{exact}`", self._columns[exact])

    def _number(self, node: exp.Expression) -> _Value:
        text = str(node.this)
        if text.isascii() and text.isdigit():
            if len(text) > 19 or int(text) >= 2**63:
                raise self._not_allowed(node, "is a number of more than 64 bits")
            return _Value(str(int(text)), "int64", True)
        try:
            number = float(text)
        except ValueError:
            raise self._not_allowed(node, "is not a number") from None
        if not math.isfinite(number):
            raise self._not_allowed(node, "is too large a number")
        return _Value(f"CAST({number!r} AS DOUBLE)", "double", True)

    def _cast(self, node: exp.Expression, depth: int) -> _Value:
        target = node.args["to"].this
        known = _CASTS.get(getattr(target, "name", ""))
        if known is None or node.args["to"].expressions:
            raise self._not_allowed(node, "is not supported; dates are compared as text")
        value = self._value(node.this, depth + 1)
        if value.type == "bool" or (value.type == "string" and known[0] != "string"):
            raise self._not_allowed(node, "would turn text or true/false into a number")
        return _Value(f"CAST({value.sql} AS {known[1]})", known[0])

    def _not_allowed(self, node: exp.Expression, why: str) -> FilterError:
        text = node.sql()
        shown = text if len(text) <= 80 else text[:77] + "..."
        return FilterError(
            f"`{shown}` {why}; a condition compares columns, for example: {_EXAMPLE}",
            field="where",
            details={"part": shown},
        )


def _given(node: exp.Expression) -> set[str]:
    """Names of a node's arguments that are set."""
    return {name for name, value in node.args.items() if value not in (None, False, [])}
