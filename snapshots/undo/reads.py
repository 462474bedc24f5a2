"""Who else is affected: transactions that cannot stand without the selection, and those that may have read damaged
values. Reads only; capturer or recoverer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import psycopg
from psycopg import sql

from snapshots.journal.shape import stored
from snapshots.model import RunRef, UndoSpec
from snapshots.undo.errors import UndoRefused
from snapshots.undo.plan import Computed, compute
from snapshots.undo.relations import is_kept, references_to
from snapshots.undo.select import select
from snapshots.undo.shape import SELECTED, Relation, Shape, equal
from snapshots.undo.step import one_transaction

SUSPECTS_LISTED = 200
MAX_ROUNDS = 100

Reads = Mapping[str, Sequence[str]]
"""What each database role reads, as the catalogue says: ``schema.table`` or ``schema.table.column``."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EntangledTx:
    """A later transaction that cannot stand once the selection is undone. ``why``: ``edited`` (a row that the
    selection created), ``references`` (it made a row refer to one that the selection created) or, in a cascade,
    ``read`` (its role reads what the selection damaged)."""

    xid: int
    actor: str
    run: str | None
    at: datetime
    tables: tuple[str, ...]
    why: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Suspect:
    """A later transaction that may have read a damaged value: ``rows`` of those it wrote the selection had
    overwritten; 0: its role reads a damaged table."""

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


def entangled(conn: psycopg.Connection[Any], spec: UndoSpec) -> tuple[EntangledTx, ...]:
    """Later transactions, neither selected nor cancelled, that cannot stand; in journal order. They are one step:
    add them (or their whole runs) to the selection and ask again until nothing new comes."""
    return _standing(conn, spec, {})


def cascade(
    conn: psycopg.Connection[Any], spec: UndoSpec, *, reads: Reads | None = None, whole_runs: bool = True
) -> tuple[UndoSpec, tuple[EntangledTx, ...]]:
    """Extend the selection until nothing is entangled with it and, with ``reads``, no later work of a role that reads
    damaged columns is left. With ``whole_runs``, the run of a found transaction joins as a whole. Returns the extended
    selection and everything found, in the order of finding. Raises :class:`UndoRefused` for a selection that is
    limited to tables or rows: what follows from half a transaction is not known."""
    if spec.limited_to:
        raise UndoRefused("policy cascade undoes whole transactions: leave out tables and conditions")
    spec = _by_number(conn, spec)
    found: list[EntangledTx] = []
    for _ in range(MAX_ROUNDS):
        new = _standing(conn, spec, reads or {})
        if not new:
            return spec, tuple(found)
        found.extend(new)
        own = [RunRef(actor="", run=None, xids=tuple(tx.xid for tx in new))]
        if whole_runs:
            own += [RunRef(actor=actor, run=run) for actor, run in sorted({(tx.actor, tx.run) for tx in new if tx.run})]
        spec = replace(spec, runs=(*spec.runs, *own))
    raise UndoRefused(f"the cascade did not come to an end in {MAX_ROUNDS} rounds: recover from a point instead")


def suspects(
    conn: psycopg.Connection[Any], spec: UndoSpec, *, limit: int = SUSPECTS_LISTED, reads: Reads | None = None
) -> Suspects:
    """Later transactions, not selected, on rows that the selection overwrote, in whatever column, and with ``reads``
    those of roles that read damaged columns. Shown only."""
    with one_transaction(conn, snapshot=True):
        computed = compute(conn, spec, settle=False)
        _make_who(conn)
        for shape in computed.chained():
            conn.execute(
                sql.SQL(
                    "INSERT INTO pg_temp.rj_who SELECT c.rj_xid, 'wrote' FROM {row} AS r JOIN {chg} AS c ON {same} "
                    "WHERE r.rj_base IS NOT NULL AND NOT c.rj_sel AND c.rj_n > r.rj_first"
                ).format(row=shape.temp("row"), chg=shape.temp("chg"), same=shape.same_key("r", "c"))
            )
        _readers(conn, computed, reads or {})
        counted = conn.execute("SELECT count(DISTINCT xid) FROM pg_temp.rj_who").fetchone()
        rows = {
            int(xid): int(rows)
            for xid, rows in conn.execute(
                "SELECT xid::text, count(*) FILTER (WHERE why = 'wrote') FROM pg_temp.rj_who "
                "GROUP BY xid ORDER BY xid LIMIT %s",
                (limit,),
            )
        }
        return Suspects(
            count=int(counted[0]) if counted else 0,
            listed=tuple(replace(tx, rows=rows[tx.xid]) for tx in _describe(conn, sorted(rows))),
        )


def _standing(conn: psycopg.Connection[Any], spec: UndoSpec, reads: Reads) -> tuple[EntangledTx, ...]:
    with one_transaction(conn, snapshot=True):
        computed = compute(conn, spec, settle=False)
        _make_who(conn)
        by_name = {shape.name: shape for shape in computed.shapes}
        for shape in computed.chained():
            conn.execute(
                sql.SQL(
                    "INSERT INTO pg_temp.rj_who SELECT DISTINCT c.rj_xid, 'edited' FROM {row} AS r "
                    "JOIN {chg} AS c ON {same} WHERE r.rj_start IS NULL AND NOT c.rj_sel "
                    "AND c.rj_before IS NOT NULL AND c.rj_after IS NOT NULL "
                    "AND c.rj_n > coalesce(r.rj_reset, r.rj_first)"
                ).format(row=shape.temp("row"), chg=shape.temp("chg"), same=shape.same_key("r", "c"))
            )
        for relation in computed.relations:
            if relation.parent in by_name and is_kept(by_name, relation):
                _referrers(conn, computed, relation, spec)
        _readers(conn, computed, reads)
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


def _make_who(conn: psycopg.Connection[Any]) -> None:
    conn.execute("CREATE TEMP TABLE pg_temp.rj_who (xid xid8, why text) ON COMMIT DROP")


def _referrers(conn: psycopg.Connection[Any], computed: Computed, relation: Relation, spec: UndoSpec) -> None:
    """Transactions that left an image, holding the reference, of a row that stays and refers to a row that goes."""
    parent = computed.shape(relation.parent)
    child_spec = next((table for table in spec.tables if table.name == relation.child), None)
    twin = stored(conn).get(relation.child)
    if parent is None or child_spec is None or twin is None:
        return
    key = child_spec.key
    conn.execute(
        sql.SQL(
            "INSERT INTO pg_temp.rj_who SELECT DISTINCT t.rj_xid, 'references' FROM ({references}) AS x "
            "JOIN {fin} AS f ON {f_x} JOIN {twin} AS t ON {value} AND {child_keys} "
            "WHERE NOT f.rj_present AND t.rj_side = 'n' AND t.rj_seq > f.rj_first"
        ).format(
            references=references_to(computed, relation, key),
            fin=parent.temp("fin"),
            f_x=parent.same_key("f", "x"),
            twin=sql.Identifier("reinstate", twin.twin),
            value=equal("t", relation.columns, "f", [parent.was(name) for name in relation.to]),
            child_keys=equal("x", [f"rj_c{n}" for n in range(len(key))], "t", key),
        )
    )


def _readers(conn: psycopg.Connection[Any], computed: Computed, reads: Reads) -> None:
    """Later transactions of roles that read a damaged column, whatever they wrote. What was created or deleted damages
    every column of its table. The first damage counts: when a reader looked is not known."""
    for actor, names in sorted(reads.items()):
        damaged = [
            computed.selection.lows[shape.name]
            for shape in computed.shapes
            if any(_damaged(computed, shape, name) for name in names)
        ]
        if not damaged:
            continue
        for table in stored(conn).values():
            conn.execute(
                sql.SQL(
                    "INSERT INTO pg_temp.rj_who SELECT DISTINCT t.rj_xid, 'read' FROM {} AS t "
                    "WHERE t.rj_actor = {} AND t.rj_seq > {} "
                    "AND NOT EXISTS (SELECT 1 FROM {} AS s WHERE s.xid = t.rj_xid)"
                ).format(
                    sql.Identifier("reinstate", table.twin), sql.Literal(actor), sql.Literal(min(damaged)), SELECTED
                )
            )


def _damaged(computed: Computed, shape: Shape, name: str) -> bool:
    tally = computed.tallies[shape.name]
    if not (tally.delete or tally.insert or tally.update):
        return False
    table, column = (name, None) if name.count(".") < 2 else name.rsplit(".", 1)
    if table != shape.name:
        return False
    return column is None or bool(tally.delete or tally.insert) or tally.touches(shape, [column])


def _by_number(conn: psycopg.Connection[Any], spec: UndoSpec) -> UndoSpec:
    """A selection that is narrowed by roles, times or transactions, as the list of its transactions: what joins it
    must not be narrowed too."""
    if not (spec.xids or spec.actors or spec.since or spec.until):
        return spec
    with one_transaction(conn, snapshot=True):
        select(conn, replace(spec, cancelled=()))
        xids = tuple(
            int(row[0]) for row in conn.execute(sql.SQL("SELECT xid::text FROM {} ORDER BY xid").format(SELECTED))
        )
    chosen = (RunRef(actor="", run=None, xids=xids),)
    return replace(spec, runs=chosen, xids=(), actors=(), since=None, until=None)


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
