"""Conditions that limit a selection to some rows: SQL that an operator wrote, over the row image ``r``.

They are for operators only: a condition is part of the query that the undo runs with its own rights. Therefore it must
be one expression, without statements, comments or sub-queries, and of functions whose result depends on nothing but
the row, so that plan and execution select the same. The database itself is asked whether it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import psycopg
from psycopg import errors, sql

from snapshots.model import UndoSpec
from snapshots.undo.errors import UndoRefused
from snapshots.undo.shape import Shape

FORBIDDEN = (";", "--", "/*", "$", "\\")
"""Statements, comments and other ways to quote."""


def validate(conn: psycopg.Connection[Any], spec: UndoSpec, shapes: Sequence[Shape]) -> None:
    """Raise :class:`UndoRefused` naming the first condition that is not a plain expression over its table. Any role
    that reads the journal and may make temporary tables; leaves nothing behind."""
    by_name = {shape.name: shape for shape in shapes}
    for table, condition in spec.where:
        shape = by_name.get(table)
        if shape is None:
            raise UndoRefused(
                f"condition on {table}: the table is not journaled or not declared: correct the selection"
            )
        if reason := malformed(condition):
            raise UndoRefused(f"condition on {table}: {reason}: write one plain SQL condition over r")
        try:
            with conn.transaction(force_rollback=True):
                conn.execute(
                    sql.SQL("CREATE TEMP TABLE pg_temp.r ON COMMIT DROP AS SELECT {} FROM {} AS t WHERE false").format(
                        shape.values("t"), shape.twin
                    )
                )
                # The predicate of an index: one expression, no sub-query, nothing that depends on more than the row.
                conn.execute(
                    sql.SQL("CREATE INDEX ON pg_temp.r ((1)) WHERE ({})").format(sql.SQL(condition)), binary=True
                )
        except (errors.ProgrammingError, errors.DataError, errors.NotSupportedError) as error:
            raise UndoRefused(
                f"condition on {table}: {error.diag.message_primary}: write one plain SQL condition over r"
            ) from None


def malformed(condition: str) -> str | None:
    """Why ``condition`` cannot be one expression, or ``None``. Pure."""
    if not condition.strip():
        return "it is empty"
    depth = 0
    quote = ""
    for character in condition:
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
        elif character == "(":
            depth += 1
        elif character == ")":
            depth -= 1
            if depth < 0:
                return "a bracket closes what it does not open"
    if quote:
        return "a quotation does not end"
    if depth:
        return "a bracket is not closed"
    for text in FORBIDDEN:
        if text in condition:
            return f"{text} is not allowed in it"
    return None
