"""Text into Markdown such that it stays text: a title may hold anything and still breaks no page. Pure.

Backslashes for what Markdown reads, entities for what would become HTML or a link of itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_MARKS = re.compile(r"([\\`*_{}\[\]#|~$])")
_ENTITIES = (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"))
_LINKS = re.compile(r"(://|@|(?<=\bwww)\.)", re.IGNORECASE)
_PLAIN = re.compile(r"[\w.,:/+-]+")
_LEADING = re.compile(r"^([-+=]|\d+(?=[.)]))")


def text(value: object) -> str:
    """One line of text, safe anywhere in a page: in a paragraph, a heading, a list or a table."""
    line = " ".join(str("" if value is None else value).split())
    for character, entity in _ENTITIES:
        line = line.replace(character, entity)
    line = _MARKS.sub(r"\\\1", line)
    line = _LINKS.sub(lambda m: "".join(f"&#{ord(c)};" for c in m[0]), line)
    return _LEADING.sub(lambda m: "".join(f"&#{ord(c)};" for c in m[0]), line)


def code(value: object) -> str:
    """A name or hash in code style where it looks like one, else as text: a code span escapes nothing."""
    line = " ".join(str("" if value is None else value).split())
    return f"`{line}`" if _PLAIN.fullmatch(line) else text(line)


def table(columns: Iterable[str], rows: Iterable[Iterable[str]]) -> list[str]:
    """Lines of a table. A column whose name begins with ``#`` holds numbers. Cells are escaped by the caller."""
    names = list(columns)
    return [
        _row(n.removeprefix("#") for n in names),
        _row("---:" if n.startswith("#") else "---" for n in names),
        *(_row(cells) for cells in rows),
    ]


def page(lines: Iterable[str]) -> str:
    """Lines as one text: at most one empty line in a row, one at the end."""
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip() + "\n"


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
