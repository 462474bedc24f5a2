"""What a SQL text of a workflow reads and writes, by table and column. Pure: nothing is run, nothing is asked.

A real parser reads it, after the platform's placeholders were made neutral. What the text alone does not tell is a
sentence in ``unsure``: a table named at run time, a function, a statement the parser cannot read. Never raises.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from typing import Any

from discovery.facts import DatabaseFacts
from discovery.placeholders import neutral
from discovery.sql_use import SqlUse

LARGEST = 200_000
"""Longer texts are not parsed."""
_HINT = re.compile(r"\b(from|join|into|update)\s+((?:\"[^\"]+\"|\w+)(?:\.(?:\"[^\"]+\"|\w+))?)", re.IGNORECASE)


def read(text: str, facts: DatabaseFacts) -> SqlUse:
    """The use of all statements in ``text``, their names resolved in the database that ``facts`` describe."""
    use = SqlUse()
    if len(text) > LARGEST:
        use.unsure.append(f"a statement of {len(text)} characters is too long to be read")
        return use
    from discovery.sql_names import Scope
    from discovery.sql_reader import Reader

    bare = neutral(text)
    for statement in _parsed(bare, use, facts):
        try:
            Reader(use, facts).statement(statement, Scope())
        except (RecursionError, AttributeError, KeyError, TypeError, ValueError, IndexError) as error:
            use.unsure.append(f"a statement was read in part only ({type(error).__name__})")
    return use


def _parsed(text: str, use: SqlUse, facts: DatabaseFacts) -> Sequence[Any]:
    import sqlglot

    log = logging.getLogger("sqlglot")
    level = log.level
    log.setLevel(logging.CRITICAL)  # what it falls back on is told below, in our words
    try:
        return [s for s in sqlglot.parse(text, read="postgres") if s is not None]
    except Exception as error:  # noqa: BLE001 - a parser met with any text; whatever it raises means the same
        hint = _hinted(text, facts)
        names = f"; it names {', '.join(hint)}" if hint else ""
        use.unsure.append(f"a statement cannot be parsed ({type(error).__name__}){names}")
        return []
    finally:
        log.setLevel(level)


def _hinted(text: str, facts: DatabaseFacts) -> list[str]:
    """Tables of the database that a text seems to name where no parser can tell."""
    found = []
    for _, name in _HINT.findall(text):
        schema, _, table = name.replace('"', "").rpartition(".")
        if (known := facts.find(schema or None, table)) and known not in found:
            found.append(known)
    return found
