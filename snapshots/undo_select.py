"""The selection of an undo: from runs and transactions to the set of transactions, and what is wrong with it.

A transaction is selected as a whole: by its number, or because one of its writes carries the actor and the run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg
from psycopg import sql

from snapshots.errors import Incomplete
from snapshots.journal_shape import exists, stored
from snapshots.model import UndoSpec

SELECTED = sql.Identifier("pg_temp", "rj_sel")


@dataclass(frozen=True, kw_only=True, slots=True)
class Selection:
    """``first_at`` and ``first_xid`` are of the earliest selected write, ``None`` when nothing was selected."""

    first_at: datetime | None
    first_xid: int | None
    tables: tuple[str, ...]
    """Journaled tables with a selected write, sorted."""
    problems: tuple[str, ...]


def require_journal(conn: psycopg.Connection[Any]) -> None:
    """Raise :class:`Incomplete` where no journal is installed."""
    if not exists(conn):
        raise Incomplete(
            f"database {conn.info.dbname} has no journal: nobody knows what the selected runs wrote; "
            "compare with a recovery point, and install the journal"
        )


def select(conn: psycopg.Connection[Any], spec: UndoSpec) -> Selection:
    """Fill ``pg_temp.rj_sel`` (dropped at the end of the transaction) with the selected transactions."""
    require_journal(conn)
    listed = sorted({xid for run in spec.runs for xid in run.xids})
    tagged = sorted({(run.actor, run.run) for run in spec.runs if run.run is not None})
    twins = {table.name: sql.Identifier("reinstate", table.twin) for table in stored(conn).values()}
    conn.execute(sql.SQL("CREATE TEMP TABLE {} (xid xid8 PRIMARY KEY, tagged bool) ON COMMIT DROP").format(SELECTED))
    insert = sql.SQL("INSERT INTO {} ").format(SELECTED)
    conn.execute(
        insert + sql.SQL("SELECT x::xid8, false FROM unnest(%s::text[]) AS u(x) ON CONFLICT DO NOTHING"),
        ([str(xid) for xid in {*listed, *spec.cancelled}],),
    )
    if tagged:
        for twin in twins.values():
            conn.execute(
                insert
                + sql.SQL(
                    "SELECT DISTINCT t.rj_xid, true FROM {} AS t JOIN unnest(%s::text[], %s::text[]) AS r(actor, run) "
                    "ON t.rj_actor = r.actor::name AND t.rj_run = r.run ON CONFLICT DO NOTHING"
                ).format(twin),
                ([actor for actor, _ in tagged], [run for _, run in tagged]),
            )
    conn.execute(sql.SQL("ANALYZE {}").format(SELECTED))
    problems: list[str] = []
    first: tuple[datetime, int] | None = None
    tables: list[str] = []
    seen: set[int] = set()
    for name, twin in twins.items():
        row = conn.execute(
            sql.SQL(
                "SELECT min(t.rj_at), min(t.rj_xid::text::bigint), "
                "array_agg(DISTINCT t.rj_xid::text::bigint) FILTER (WHERE t.rj_xid::text::bigint = ANY(%s)) "
                "FROM {} AS t JOIN {} AS s ON s.xid = t.rj_xid"
            ).format(twin, SELECTED),
            (listed,),
        ).fetchone()
        if row is None or row[0] is None:
            continue
        tables.append(name)
        first = min(first or (row[0], row[1]), (row[0], row[1]))
        seen.update(row[2] or ())
        problems.extend(_mixed(conn, name, twin, tagged))
    problems.extend(
        f"transaction {xid} is not in the journal (it wrote before the journal was installed, or was pruned): "
        "compare with a recovery point"
        for xid in listed
        if xid not in seen
    )
    covered = {table.name for table in spec.tables}
    problems.extend(
        f"the selection also wrote to {name}, which is not part of this undo: add the table"
        for name in tables
        if name not in covered
    )
    return Selection(
        first_at=first[0] if first else None,
        first_xid=first[1] if first else None,
        tables=tuple(tables),
        problems=tuple(dict.fromkeys(problems)),
    )


def _mixed(
    conn: psycopg.Connection[Any], name: str, twin: sql.Identifier, tagged: Sequence[tuple[str, str | None]]
) -> list[str]:
    """Runs, not selected, that wrote in a transaction selected for its tag: undoing it would undo their work.
    Transactions selected by number are meant as they are."""
    rows = conn.execute(
        sql.SQL(
            "SELECT DISTINCT t.rj_actor::text, t.rj_run FROM {twin} AS t "
            "JOIN {sel} AS s ON s.xid = t.rj_xid AND s.tagged WHERE t.rj_run IS NOT NULL "
            "AND NOT EXISTS (SELECT 1 FROM unnest(%s::text[], %s::text[]) AS r(actor, run) "
            "WHERE t.rj_actor = r.actor::name AND t.rj_run = r.run) ORDER BY 1, 2 LIMIT 5"
        ).format(twin=twin, sel=SELECTED),
        ([actor for actor, _ in tagged], [run for _, run in tagged]),
    ).fetchall()
    return [
        f"run {run} of {actor} shares a transaction on {name} with a selected run: select it too, or undo neither"
        for actor, run in rows
    ]
