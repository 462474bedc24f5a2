"""The small language of declared inverses: ``:name`` in SQL, ``{name}`` in texts, dotted paths to values. Pure.

SQL is only taken apart as far as finding names and the ends of statements needs: strings, quoted names, comments and
dollar quotes are passed over, and ``::`` is a cast.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

NAME = re.compile(r"[a-z_][a-z0-9_]*")
IN_TEXT = re.compile(r"\{([a-z_][a-z0-9_]*)\}")
WHOLE_TEXT = re.compile(r"\{([a-z_][a-z0-9_]*)\}\Z")
_TOKEN = re.compile(
    r"""
    (?P<comment> --[^\n]* | /\*.*?\*/ )
  | (?P<quoted> [eE]'(?:[^'\\]|\\.|'')*' | '(?:[^']|'')*' | "(?:[^"]|"")*" | \$(?P<tag>[A-Za-z_]\w*|)\$.*?\$(?P=tag)\$ )
  | (?P<cast> :: | := )
  | (?P<name> :[a-z_][a-z0-9_]*\b )
  | (?P<end> ; )
  | (?P<open> ['"] | /\* )
  | (?P<text> \w+ | . )
    """,
    re.VERBOSE | re.DOTALL,
)
_CONTROL = frozenset(
    {"begin", "start", "commit", "end", "rollback", "abort", "savepoint", "release", "prepare", "vacuum", "copy"}
)


class Malformed(ValueError):
    """What is wrong with the SQL, as half a sentence."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Statement:
    """One statement. ``query`` has ``%(name)s`` for each name, as psycopg wants it."""

    query: str
    names: frozenset[str]


def statements(sql: str) -> tuple[Statement, ...]:
    """The statements of ``sql`` in order. Raises :class:`Malformed`."""
    found = tuple(_statements(sql))
    if not found:
        raise Malformed("holds no statement")
    return found


def _statements(sql: str) -> Iterator[Statement]:
    query: list[str] = []
    names: set[str] = set()
    first = ""
    for match in [*_TOKEN.finditer(sql), None]:
        kind = match.lastgroup if match else "end"
        text = match.group() if match else ""
        match kind:
            case "open":
                raise Malformed(f"has a {text} that nothing closes")
            case "comment":
                query.append(" ")
            case "name":
                names.add(text[1:])
                query.append(f"%({text[1:]})s")
            case "end":
                if first.lower() in _CONTROL:
                    raise Malformed(f"may not hold {first.upper()}: it runs in one transaction with its record")
                if first:
                    yield Statement(query="".join(query).strip(), names=frozenset(names))
                query, names, first = [], set(), ""
            case _:
                first = first or text.strip()
                query.append(text.replace("%", "%%"))


def in_text(text: str) -> frozenset[str]:
    """The names in a URL or a text of the body."""
    return frozenset(IN_TEXT.findall(text))


def filled(text: str, value: Callable[[str], str]) -> str:
    """``text`` with each ``{name}`` replaced by ``value(name)``."""
    return IN_TEXT.sub(lambda m: value(m[1]), text)


EACH = "*"
"""In a path, the place of an item's number: the inverse is done once for each item that the step's node returned."""


def per_item(path: str) -> bool:
    return EACH in path.split(".")
