"""Who else is affected: transactions that cannot stand without the selection, those that may have read damaged
values, and how much was damaged. Reads only; capturer or recoverer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import psycopg
from psycopg import sql

from snapshots.journal_shape import stored
from snapshots.model import RunRef, UndoSpec
from snapshots.undo_plan import compute
from snapshots.undo_relations import references_to
from snapshots.undo_select import SELECTED
from snapshots.undo_step import one_transaction
from snapshots.undo_tables import Relation, Shape, equal

SUSPECTS_LISTED = 200
MAX_ROUNDS = 100


@dataclass(frozen=True, kw_only=True, slots=True)
class EntangledTx:
    """A later transaction that cannot stand once the selection is undone. ``why``: ``edited`` (a row that the
    selection created) or ``references`` (it made a row refer to one that the selection created)."""

    xid: int
    actor: str
    run: str | None
    at: datetime
    tables: tuple[str, ...]
    why: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Suspect:
    """A later transaction on rows that the selection overwrote: it may have read a damaged value."""

    xid: int
    actor: str
    run: str | None
    at: datetime
    rows: int
    tables: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Suspects:
    """``count`` is complete; ``listed`` are the first ones in journal order."""

    count: int
    listed: tuple[Suspect, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class TableDamage:
    """Rows that the selection created, overwrote and deleted (net, per row), and those that someone else has
    changed since."""

    table: str
    created: int
    overwritten: int
    deleted: int
    edited_later: int


def entangled(conn: psycopg.Connection[Any], spec: UndoSpec) -> tuple[EntangledTx, ...]:
    """Later transactions, neither selected nor cancelled, that cannot stand; in journal order. They are one step:
    add them (or their whole runs) to the selection and ask again until nothing new comes."""
    with one_transaction(conn, snapshot=True):
        computed = compute(conn, spec, settle=False)
        conn.execute("CREATE TEMP TABLE pg_temp.rj_who (xid xid8, why text) ON COMMIT DROP")
        by_name = {shape.name: shape for shape in computed.shapes}
        for shape in computed.shapes:
            conn.execute(
                sql.SQL(
                    "INSERT INTO pg_temp.rj_who SELECT DISTINCT c.rj_xid, 'edited' FROM {row} AS r "
                    "JOIN {chg} AS c ON {same} WHERE r.rj_start IS NULL AND NOT c.rj_sel "
                    "AND c.rj_before IS NOT NULL AND c.rj_after IS NOT NULL "
                    "AND c.rj_n > coalesce(r.rj_reset, r.rj_first)"
                ).format(row=shape.temp("row"), chg=shape.temp("chg"), same=shape.same_key("r", "c"))
            )
        for relation in computed.relations:
            if relation.parent in by_name:
                _referrers(conn, by_name, relation, spec)
        who = {
            int(xid): tuple(why)
            for xid, why in conn.execute(
                sql.SQL(
                    "SELECT w.xid::text, array_agg(DISTINCT w.why ORDER BY w.why) FROM pg_temp.rj_who AS w "
                    "WHERE NOT EXISTS (SELECT 1 FROM {} AS s WHERE s.xid = w.xid) GROUP BY 1"
                ).format(SELECTED)
            )
        }
        return tuple(
            EntangledTx(xid=tx.xid, actor=tx.actor, run=tx.run, at=tx.at, tables=tx.tables, why=who[tx.xid])
            for tx in _describe(conn, sorted(who))
        )


def _referrers(conn: psycopg.Connection[Any], by_name: dict[str, Shape], relation: Relation, spec: UndoSpec) -> None:
    """Transactions that left an image, holding the reference, of a row that stays and refers to a row that goes."""
    parent = by_name[relation.parent]
    child_spec = next((table for table in spec.tables if table.name == relation.child), None)
    twin = stored(conn).get(relation.child)
    if child_spec is None or twin is None:
        return
    key = child_spec.key
    conn.execute(
        sql.SQL(
            "INSERT INTO pg_temp.rj_who SELECT DISTINCT t.rj_xid, 'references' FROM ({references}) AS x "
            "JOIN {row} AS r ON {r_x} JOIN {img} AS v ON v.rj_id = r.rj_live "
            "JOIN {first} AS f ON f.rj_n = r.rj_first "
            "JOIN {twin} AS t ON {value} AND {child_keys} "
            "WHERE r.rj_start IS NULL AND t.rj_side = 'n' AND t.rj_seq > f.rj_seq"
        ).format(
            references=references_to(by_name, relation, key),
            row=parent.temp("row"),
            r_x=parent.same_key("r", "x"),
            img=parent.temp("img"),
            first=parent.temp("chg"),
            twin=sql.Identifier("reinstate", twin.twin),
            value=equal("t", relation.columns, "v", relation.to),
            child_keys=equal("x", [f"rj_c{n}" for n in range(len(key))], "t", key),
        )
    )


def entangled_closure(
    conn: psycopg.Connection[Any], spec: UndoSpec, expand: Callable[[tuple[EntangledTx, ...]], Sequence[RunRef]]
) -> tuple[UndoSpec, tuple[EntangledTx, ...]]:
    """Extend the selection until nothing is entangled with it. ``expand`` says what to add for newly found
    transactions, usually their whole runs; the transactions themselves are always added. Returns the extended
    selection and everything found."""
    found: list[EntangledTx] = []
    for _ in range(MAX_ROUNDS):
        new = entangled(conn, spec)
        if not new:
            break
        found.extend(new)
        own = tuple(RunRef(actor=tx.actor, run=None, xids=(tx.xid,)) for tx in new)
        spec = replace(spec, runs=(*spec.runs, *own, *expand(new)))
    return spec, tuple(found)


def suspects(conn: psycopg.Connection[Any], spec: UndoSpec, *, limit: int = SUSPECTS_LISTED) -> Suspects:
    """Later transactions, not selected, on rows that the selection overwrote, in whatever column. Shown only."""
    with one_transaction(conn, snapshot=True):
        computed = compute(conn, spec, settle=False)
        conn.execute("CREATE TEMP TABLE pg_temp.rj_who (xid xid8) ON COMMIT DROP")
        for shape in computed.shapes:
            conn.execute(
                sql.SQL(
                    "INSERT INTO pg_temp.rj_who SELECT c.rj_xid FROM {row} AS r JOIN {chg} AS c ON {same} "
                    "WHERE r.rj_base IS NOT NULL AND NOT c.rj_sel AND c.rj_n > r.rj_first"
                ).format(row=shape.temp("row"), chg=shape.temp("chg"), same=shape.same_key("r", "c"))
            )
        counted = conn.execute("SELECT count(DISTINCT xid) FROM pg_temp.rj_who").fetchone()
        rows = {
            int(xid): int(rows)
            for xid, rows in conn.execute(
                "SELECT xid::text, count(*) FROM pg_temp.rj_who GROUP BY xid ORDER BY xid LIMIT %s", (limit,)
            )
        }
        return Suspects(
            count=int(counted[0]) if counted else 0,
            listed=tuple(replace(tx, rows=rows[tx.xid]) for tx in _describe(conn, sorted(rows))),
        )


def damage(conn: psycopg.Connection[Any], spec: UndoSpec) -> tuple[TableDamage, ...]:
    """What the selection did, by table; for the report."""
    with one_transaction(conn, snapshot=True):
        computed = compute(conn, spec, settle=False)
        found: list[TableDamage] = []
        for shape in computed.shapes:
            row = conn.execute(
                sql.SQL(
                    "SELECT count(*) FILTER (WHERE NOT before AND after), count(*) FILTER (WHERE before AND after), "
                    "count(*) FILTER (WHERE before AND NOT after), count(*) FILTER (WHERE later) FROM ("
                    "SELECT r.rj_base IS NOT NULL AS before, r.rj_later AS later, (SELECT c.rj_after IS NOT NULL "
                    "FROM {chg} AS c WHERE c.rj_n = s.rj_n) AS after FROM {row} AS r JOIN (SELECT {keys}, "
                    "max(c.rj_n) AS rj_n FROM {chg} AS c WHERE c.rj_sel GROUP BY {keys}) AS s ON {same}) AS x"
                ).format(
                    chg=shape.temp("chg"),
                    row=shape.temp("row"),
                    keys=shape.keys("c"),
                    same=shape.same_key("s", "r"),
                )
            ).fetchone()
            created, overwritten, deleted, later = row or (0, 0, 0, 0)
            found.append(
                TableDamage(
                    table=shape.name,
                    created=created,
                    overwritten=overwritten,
                    deleted=deleted,
                    edited_later=later,
                )
            )
        return tuple(found)


def _describe(conn: psycopg.Connection[Any], xids: Sequence[int]) -> list[Suspect]:
    """Actor, run, time and tables of transactions, from all twins, in journal order."""
    seen: dict[int, tuple[int, str, str | None, datetime, set[str]]] = {}
    for table in stored(conn).values():
        for xid, seq, actor, run, at in conn.execute(
            sql.SQL(
                "SELECT t.rj_xid::text, min(t.rj_seq), min(t.rj_actor::text), min(t.rj_run), min(t.rj_at) "
                "FROM {} AS t WHERE t.rj_xid = ANY(%s::text[]::xid8[]) GROUP BY t.rj_xid"
            ).format(sql.Identifier("reinstate", table.twin)),
            ([str(xid) for xid in xids],),
        ):
            old = seen.get(int(xid), (seq, actor, run, at, set[str]()))
            seen[int(xid)] = (min(seq, old[0]), actor, old[2] or run, min(at, old[3]), {*old[4], table.name})
    return [
        Suspect(xid=xid, actor=actor, run=run, at=at, rows=0, tables=tuple(sorted(tables)))
        for xid, (_, actor, run, at, tables) in sorted(seen.items(), key=lambda item: item[1][0])
    ]
