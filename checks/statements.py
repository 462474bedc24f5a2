"""Whether what definitions ask of the database still fits it: tables and columns exist, types are those they were.

SQL is judged by PostgreSQL's own parser: a statement is sent to be prepared and never run. What the parser cannot judge
without the platform's values (placeholders in the place of a name, several statements at once, another database's
tables) counts as *unsure* and is never called wrong.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import psycopg
from psycopg import pq

from platforms.base import Outline
from snapshots.database import columns
from snapshots.errors import Refused

MISSING: Final = {"42703": "names a column that does not exist", "3F000": "names a schema that does not exist"}
UNFITTING: Final = {
    "42804": "does not fit the types of its columns",
    "42883": "compares or calls with types that do not fit",
}
NO_TABLE: Final = "42P01"
_TEMPLATE: Final = re.compile(r"\{\{\{?.*?\}\}\}?", re.DOTALL)
_PART_OF_NAME: Final = re.compile(r'[\w".]')
_NUMBER: Final = ("smallint", "integer", "bigint", "numeric")
_SIZED: Final = re.compile(r"^(character varying|character|numeric|bit varying)\((\d+)(?:,(\d+))?\)$")

Types = Mapping[str, Mapping[str, str]]
"""By table, the type of each column as ``format_type`` prints it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Fit:
    """``wrong`` are sentences; ``sure`` and ``unsure`` count what could be judged and what could not."""

    wrong: tuple[str, ...]
    sure: int
    unsure: int


def fits(
    conn: psycopg.Connection[Any],
    outlines: Mapping[str, Outline],
    *,
    tables: Collection[str],
    roles: Mapping[str, str],
    then: Types,
) -> Fit:
    """``outlines`` by workflow against the database as it is. ``tables``: the app's (others may be another database's);
    ``roles``: the database role of each workflow, whose search path counts; ``then``: types when all was good.

    Role of the connection: capturer. Ends its transaction; changes nothing."""
    now: dict[str, dict[str, str] | None] = {}
    wrong: list[str] = []
    sure = unsure = 0
    for workflow, outline in outlines.items():
        used: set[str] = set()
        path = search_path(conn, roles.get(workflow, ""))
        for node in outline.nodes:
            if node.disabled:
                continue
            where = f"{workflow}, node {node.name!r}"
            for use in node.tables:
                name = _declared(use.schema, use.table, tables)
                if name is None:
                    unsure += 1
                    continue
                sure += 1
                used.add(name)
                have = _known(conn, name, now)
                if have is None:
                    wrong.append(f"{where}: table {name} does not exist")
                else:
                    wrong += [f"{where}: column {name}.{c} does not exist" for c in use.columns if c not in have]
            for statement in node.sql:
                said = judge(conn, statement, path=path, tables=tables)
                unsure += said is None
                sure += said is not None
                if said:
                    wrong.append(f"{where}: its SQL {said}")
                used |= {t for t in tables if re.search(rf"\b{re.escape(t.split('.')[1])}\b", statement)}
        for table in sorted(used):
            have = _known(conn, table, now) or {}
            for column, type_ in then.get(table, {}).items():
                if column in have and not holds(type_, have[column]):
                    wrong.append(f"{workflow}: {table}.{column} is {have[column]}, it was {type_} when all was good")
    conn.rollback()
    return Fit(wrong=tuple(dict.fromkeys(wrong)), sure=sure, unsure=unsure)


def judge(conn: psycopg.Connection[Any], statement: str, *, path: str, tables: Collection[str]) -> str | None:
    """What is wrong with one statement, ``""`` when nothing is, ``None`` when nobody can tell. Never runs it."""
    text = filled(statement)
    if text is None:
        return None
    conn.rollback()
    if path:
        conn.execute("SELECT set_config('search_path', %s, true)", (path,))
    result = conn.pgconn.prepare(b"", text.encode())
    try:
        if result.status == pq.ExecStatus.COMMAND_OK:
            return ""
        state = (result.error_field(pq.DiagnosticField.SQLSTATE) or b"").decode()
        message = (result.error_field(pq.DiagnosticField.MESSAGE_PRIMARY) or b"").decode(errors="replace")
    finally:
        conn.rollback()
    if state in MISSING:
        return f"{MISSING[state]} ({message})"
    if state in UNFITTING and text == statement.strip():  # filled in values have no type of their own
        return f"{UNFITTING[state]} ({message})"
    if state == NO_TABLE:
        named = re.findall(r'"([^"]+)"', message)
        if any(_declared(*_split(n), tables) for n in named):
            return f"names a table that does not exist ({message})"
    return None


def filled(statement: str) -> str | None:
    """The statement with the platform's placeholders filled in by NULL; ``None`` where one is part of a name."""
    text = statement.strip().removeprefix("=").strip().rstrip(";").strip()
    for match in _TEMPLATE.finditer(text):
        around = text[max(match.start() - 1, 0) : match.start()] + text[match.end() : match.end() + 1]
        if _PART_OF_NAME.search(around):
            return None
    return _TEMPLATE.sub("NULL", text) or None


def holds(then: str, now: str) -> bool:
    """Whether a column of type ``now`` takes and gives what one of type ``then`` did (pure)."""
    if then == now or (then, now) == ("real", "double precision"):
        return True
    if then in _NUMBER and now in _NUMBER:
        return _NUMBER.index(now) >= _NUMBER.index(then)
    old, new = _SIZED.match(then), _SIZED.match(now)
    if old is None:
        return False
    unlimited = "text" if old[1].startswith("character") else old[1]
    if new is None or new[1] != old[1]:
        return now == unlimited
    places, had = int(new[3] or 0), int(old[3] or 0)
    return places >= had and int(new[2]) - places >= int(old[2]) - had


def search_path(conn: psycopg.Connection[Any], role: str) -> str:
    """The search path that ``role`` has of its own; empty when it has the server's."""
    row = conn.execute(
        "SELECT s.setconfig FROM pg_catalog.pg_db_role_setting s JOIN pg_catalog.pg_roles r ON r.oid = s.setrole "
        "LEFT JOIN pg_catalog.pg_database d ON d.oid = s.setdatabase "
        "WHERE r.rolname = %s AND (s.setdatabase = 0 OR d.datname = current_database()) "
        "ORDER BY s.setdatabase DESC LIMIT 1",
        (role,),
    ).fetchone()
    found: Iterable[str] = row[0] if row else ()
    return next((s.partition("=")[2] for s in found if s.startswith("search_path=")), "")


def _known(conn: psycopg.Connection[Any], table: str, known: dict[str, dict[str, str] | None]) -> dict[str, str] | None:
    if table not in known:
        try:
            known[table] = {c.name: c.type for c in columns(conn, table)}
        except Refused:
            known[table] = None
    return known[table]


def _declared(schema: str | None, table: str, tables: Collection[str]) -> str | None:
    """The app's table of that name; ``None`` when it is none, or when a bare name fits several."""
    if schema is not None:
        return f"{schema}.{table}" if f"{schema}.{table}" in tables else None
    fitting = [t for t in tables if t.split(".")[1] == table]
    return fitting[0] if len(fitting) == 1 else None


def _split(name: str) -> tuple[str | None, str]:
    schema, dot, table = name.rpartition(".")
    return (schema if dot else None), table
