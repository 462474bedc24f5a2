"""Names in SQL and in files."""

from __future__ import annotations

import re

_PLAIN = re.compile(r"[a-z_][a-z0-9_]*\Z")
_RESERVED = frozenset(
    [
        "all",
        "analyse",
        "analyze",
        "and",
        "any",
        "array",
        "as",
        "asc",
        "asymmetric",
        "authorization",
        "between",
        "both",
        "case",
        "cast",
        "check",
        "collate",
        "column",
        "constraint",
        "create",
        "cross",
        "current_date",
        "current_time",
        "current_user",
        "default",
        "deferrable",
        "desc",
        "distinct",
        "do",
        "else",
        "end",
        "except",
        "false",
        "fetch",
        "for",
        "foreign",
        "from",
        "full",
        "grant",
        "group",
        "having",
        "in",
        "initially",
        "inner",
        "intersect",
        "into",
        "is",
        "join",
        "lateral",
        "leading",
        "left",
        "like",
        "limit",
        "localtime",
        "natural",
        "not",
        "null",
        "offset",
        "on",
        "only",
        "or",
        "order",
        "outer",
        "overlaps",
        "placing",
        "primary",
        "references",
        "returning",
        "right",
        "row",
        "select",
        "session_user",
        "similar",
        "some",
        "symmetric",
        "table",
        "tablesample",
        "then",
        "time",
        "timestamp",
        "to",
        "trailing",
        "true",
        "union",
        "unique",
        "user",
        "using",
        "values",
        "variadic",
        "verbose",
        "when",
        "where",
        "window",
        "with",
    ]
)


def quoted(name: str) -> str:
    """A name as it stands in SQL, in quotes only where it needs them."""
    plain = _PLAIN.match(name) and name not in _RESERVED
    return name if plain else '"' + name.replace('"', '""') + '"'


def dotted(table: str) -> str:
    """``schema.table`` as it stands in SQL."""
    schema, _, name = table.partition(".")
    return f"{quoted(schema)}.{quoted(name)}"


def literal(text: str) -> str:
    """A text as it stands in SQL."""
    return "'" + text.replace("'", "''") + "'"


def short(tables: set[str], table: str) -> str:
    """The bare name of a table; with its schema where two schemas have one of that name."""
    bare = table.partition(".")[2]
    twice = sum(1 for t in tables if t.partition(".")[2] == bare) > 1
    return re.sub(r"[^\w.-]", "_", table if twice else bare)
