"""The change journal: who changed which row, when, from what to what. Reading it, and the tick that keeps it honest.

Installing is in :mod:`snapshots.journal.install`, pruning in :mod:`snapshots.journal.prune`, removing in
:mod:`snapshots.journal.remove`, the audit in :mod:`snapshots.journal.audit`.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import psycopg
from psycopg import Connection, sql

from snapshots import position as positions
from snapshots.errors import Incomplete, Refused
from snapshots.journal.install import install
from snapshots.journal.prune import prune
from snapshots.journal.remove import remove
from snapshots.journal.shape import Stored, exists, stored
from snapshots.model import Gap, JournalTx, Position

__all__ = [
    "KEYS_PER_TX",
    "Status",
    "TableStatus",
    "gaps",
    "install",
    "prune",
    "remove",
    "require_complete",
    "status",
    "tick",
    "ticked",
    "transactions",
]

log = logging.getLogger(__name__)

KEYS_PER_TX = 200
"""At most so many keys per table and transaction in :class:`JournalTx`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TableStatus:
    table: str
    twin: str
    rows: int
    """The planner's estimate."""
    bytes: int
    size_cap_mb: int
    complete_since: datetime
    """The oldest moment that the journal can vouch for."""
    pieces: int
    bytes_per_day: int
    """What it has grown by on average since; the cost in disk space."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Status:
    """State of the journal. ``missing`` are expected tables that are not journaled."""

    installed: bool
    tables: tuple[TableStatus, ...]
    gaps: tuple[Gap, ...]
    """Those that last, and those found since the last tick."""
    last_tick: datetime | None
    missing: tuple[str, ...]
    past: tuple[Gap, ...] = ()
    """Gaps that are over and not forgotten yet: nothing is undone across them."""


def tick(conn: Connection[Any]) -> Position:
    """Record the position, look for gaps and close those that are over (role: recoverer or installer; commits).

    Raises :class:`Incomplete` when there is no journal.
    """
    if not exists(conn):
        conn.rollback()
        raise Incomplete("the journal is not installed in this database: run journal install", _nowhere(conn))
    row = conn.execute("SELECT snapshot, system_id, timeline, at FROM reinstate.record_tick()").fetchone()
    conn.commit()
    if row is None:
        raise Refused("the journal gave no position: run journal install again")
    _tend(conn)
    return Position(snapshot=row[0], system_id=row[1], timeline=row[2], at=row[3])


def _tend(conn: Connection[Any]) -> None:
    """New pieces, indexes of closed ones. What cannot be done now is left to a later tick: the position stands."""
    try:
        conn.execute("SELECT reinstate.tend()")
        conn.commit()
    except psycopg.DatabaseError as error:
        conn.rollback()
        log.warning("journal: its pieces are tended at a later tick (SQLSTATE %s)", error.sqlstate)


def ticked(
    conn: Connection[Any], *, back_s: float, reach_s: float, not_before: datetime | None = None
) -> Position | None:
    """The position recorded ``back_s`` seconds before the newest one, or the first after ``not_before``: where somebody
    who takes over looks from (any of our roles). ``None`` when there is none of this server within ``reach_s``."""
    here = positions.current(conn)
    row = conn.execute(
        """SELECT t.snapshot::text, t.system_id, t.timeline, t.at FROM reinstate.tick t
           WHERE t.at >= (SELECT max(n.at) FROM reinstate.tick n) - make_interval(secs => %(back)s)
               AND t.at >= clock_timestamp() - make_interval(secs => %(reach)s)
               AND (%(first)s::timestamptz IS NULL OR t.at >= %(first)s)
               AND t.system_id = %(system)s AND t.timeline = %(timeline)s ORDER BY t.at LIMIT 1""",
        {"back": back_s, "reach": reach_s, "first": not_before, "system": here.system_id, "timeline": here.timeline},
    ).fetchone()
    return Position(snapshot=row[0], system_id=row[1], timeline=row[2], at=row[3]) if row else None


def _nowhere(conn: Connection[Any]) -> Gap:
    row = conn.execute("SELECT clock_timestamp()").fetchone()
    assert row is not None  # noqa: S101 - the query has no condition
    return Gap(table="*", kind="journal-missing", detail="schema reinstate is not there", at=row[0], until=None)


def gaps(
    conn: Connection[Any], *, since: Position | datetime | None = None, tables: Sequence[str] | None = None
) -> list[Gap]:
    """Stretches the journal may have missed (any of our roles): recorded ones that reach past ``since``, and what is
    wrong right now although no tick has seen it. A table that is not journaled, was journaled only after ``since``
    or was pruned past it, is a gap too. ``tables`` limits the answer and is what must be journaled."""
    if not exists(conn):
        return [_nowhere(conn)]
    if isinstance(since, Position):
        positions.require_same_server(conn, since)
    at = since.at if isinstance(since, Position) else since
    known = stored(conn)
    wanted = set(known if tables is None else tables)
    found = [
        Gap(table=r[0], kind=r[1], detail=r[2], at=r[3], until=r[4])
        for r in conn.execute(
            """SELECT table_name, kind, detail, at, until FROM reinstate.gap
               WHERE until IS NULL OR %(at)s::timestamptz IS NULL OR until >= %(at)s ORDER BY at, id""",
            {"at": at},
        ).fetchall()
    ]
    open_kinds = {(g.table, g.kind) for g in found if g.until is None}
    open_tables = {g.table for g in found if g.until is None}
    for row in conn.execute("SELECT table_name, kind, detail, since, lasting FROM reinstate.findings()").fetchall():
        gap = Gap(table=row[0], kind=row[1], detail=row[2], at=row[3], until=None)
        if (gap.table, gap.kind) in open_kinds or (gap.kind == "capture-failed" and gap.table in open_tables):
            continue
        open_kinds.add((gap.table, gap.kind))
        found.append(gap)
    found = [g for g in found if g.table in wanted or g.table == "*"]
    return found + _unknown(known, wanted, at)


def _unknown(known: dict[str, Stored], wanted: set[str], since: datetime | None) -> list[Gap]:
    """Tables without a journal, or whose journal does not reach back to ``since``."""
    gaps_found = []
    for name in sorted(wanted):
        table = known.get(name)
        if table is None:
            gaps_found.append(
                Gap(
                    table=name,
                    kind="not-journaled",
                    detail=f"{name} is not journaled: run journal install",
                    at=since or datetime.min.replace(tzinfo=UTC),
                    until=None,
                )
            )
        elif since is not None and since < table.complete_since:
            kind = "pruned" if table.complete_since > table.installed_at else "not-yet-journaled"
            detail = f"the journal of {name} is complete only since {table.complete_since.isoformat()}"
            gaps_found.append(Gap(table=name, kind=kind, detail=detail, at=since, until=table.complete_since))
    return gaps_found


def require_complete(conn: Connection[Any], *, since: Position | datetime, tables: Sequence[str]) -> None:
    """Raise :class:`Incomplete` naming the first gap that touches the range."""
    for gap in gaps(conn, since=since, tables=tables):
        raise Incomplete(
            f"journal of {gap.table} has a gap ({gap.kind}: {gap.detail}): undo cannot vouch for it;"
            " a diff against a recovery point can be offered",
            gap,
        )


def status(conn: Connection[Any], *, expected: Sequence[str] = ()) -> Status:
    """The journal's state (any of our roles), also when it is not there at all."""
    if not exists(conn):
        return Status(installed=False, tables=(), gaps=(_nowhere(conn),), last_tick=None, missing=tuple(expected))
    rows = conn.execute(
        """SELECT j.table_name, j.twin, coalesce(t.rows, 0)::bigint, coalesce(t.bytes, 0)::bigint, j.size_cap_mb,
                  j.complete_since, coalesce(t.pieces, 0),
                  coalesce(t.bytes, 0) / greatest(extract(epoch FROM clock_timestamp() - j.complete_since) / 86400, 1)
           FROM reinstate.journal_table j LEFT JOIN LATERAL (
               SELECT sum(greatest(c.reltuples, pg_stat_get_live_tuples(c.oid), 0)) AS rows,
                      sum(pg_total_relation_size(c.oid)) AS bytes,
                      count(i.inhrelid) AS pieces
               FROM pg_class c LEFT JOIN pg_inherits i ON i.inhrelid = c.oid
               WHERE coalesce(i.inhparent, c.oid) = to_regclass(format('reinstate.%I', j.twin))) AS t ON true
           ORDER BY j.table_name"""
    ).fetchall()
    last = conn.execute("SELECT max(at) FROM reinstate.tick").fetchone()
    names = {r[0] for r in rows}
    known = gaps(conn, tables=sorted(names | set(expected)))
    return Status(
        installed=True,
        tables=tuple(
            TableStatus(
                table=r[0],
                twin=r[1],
                rows=r[2],
                bytes=r[3],
                size_cap_mb=r[4],
                complete_since=r[5],
                pieces=r[6],
                bytes_per_day=int(r[7]),
            )
            for r in rows
        ),
        gaps=tuple(g for g in known if g.until is None),
        past=tuple(g for g in known if g.until is not None),
        last_tick=last[0] if last else None,
        missing=tuple(t for t in expected if t not in names),
    )


def transactions(
    conn: Connection[Any],
    *,
    since: Position | datetime,
    actors: Sequence[str] | None = None,
    xids: Sequence[int] | None = None,
    runs: Sequence[str] | None = None,
    tables: Sequence[str] | None = None,
    with_keys: bool = False,
) -> list[JournalTx]:
    """Journaled transactions after ``since`` by first write (any of our roles). After a :class:`Position` means: not
    yet committed then, also when the rows were written before. After a time means: with a write at or after it.
    One transaction that wrote for several runs or actors appears once for each. Needs schema ``reinstate``."""
    parts: list[sql.Composable] = []
    known = stored(conn)
    if isinstance(since, Position):
        positions.require_same_server(conn, since)
        when: sql.Composable = positions.after(since)
    else:
        when = sql.SQL("rj_at >= {}").format(sql.Literal(since))
    for table in known.values():
        if tables is not None and table.name not in tables:
            continue
        conditions: list[sql.Composable] = [when]
        if actors is not None:
            conditions.append(sql.SQL("rj_actor = ANY ({}::name[])").format(sql.Literal(list(actors))))
        if xids is not None:
            texts = [str(x) for x in xids]
            conditions.append(sql.SQL("rj_xid = ANY ({}::text[]::xid8[])").format(sql.Literal(texts)))
        if runs is not None:
            conditions.append(sql.SQL("rj_run = ANY ({}::text[])").format(sql.Literal(list(runs))))
        keys: sql.Composable = sql.SQL("NULL::jsonb")
        if with_keys and table.key:
            listed = sql.SQL(", ").join(sql.SQL("{}::text").format(sql.Identifier(k)) for k in table.key)
            keys = sql.SQL("to_jsonb((array_agg(DISTINCT jsonb_build_array({})))[1:{}])").format(
                listed, sql.Literal(KEYS_PER_TX)
            )
        parts.append(
            sql.SQL(
                "SELECT {name}::text AS table_name, rj_xid::text::bigint AS xid, rj_actor::text AS actor,"
                " rj_run AS run, min(rj_at) AS first_at, max(rj_at) AS last_at, count(*) AS rows, {keys} AS keys,"
                " array_agg(DISTINCT rj_op::text) AS ops"
                " FROM {twin} WHERE {when} GROUP BY rj_xid, rj_actor, rj_run"
            ).format(
                name=sql.Literal(table.name),
                keys=keys,
                twin=sql.Identifier("reinstate", table.twin),
                when=sql.SQL(" AND ").join(conditions),
            )
        )
    if not parts:
        return []
    grouped: dict[tuple[int, str, str | None], list[Any]] = {}
    for row in conn.execute(sql.SQL(" UNION ALL ").join(parts)).fetchall():
        grouped.setdefault((row[1], row[2], row[3]), []).append(row)
    made = [
        JournalTx(
            xid=xid,
            actor=actor,
            run=run,
            first_at=min(r[4] for r in rows),
            last_at=max(r[5] for r in rows),
            rows=sum(r[6] for r in rows),
            tables=tuple(sorted(r[0] for r in rows)),
            keys={r[0]: tuple(tuple(k) for k in r[7]) for r in rows if r[7]},
            ops=frozenset(op for r in rows for op in r[8]),
        )
        for (xid, actor, run), rows in grouped.items()
    ]
    return sorted(made, key=lambda t: (t.first_at, t.xid))
