"""What differs between a recovery point and live, and what a restore to the point would overwrite.

A diff says nothing about who is right: later legitimate work differs from the point just as damage does. That is why
a restore from a point is only ever offered, with :func:`would_lose` beside it, and never chosen automatically.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from psycopg import Connection, sql

from . import journal, journal_shape, position, staging
from .model import Gap, JournalTx, RecoveryPoint, TableManifest
from .point_errors import TableMissing, translated
from .store import Store

KEYS = 100

Key = tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class TableDiff:
    """Rows that differ, seen from the point: ``added`` are in live only, ``deleted`` in the point only. Of a table
    without a usable key nothing counts as changed. Keys are text, at most as many per kind as were asked for."""

    table: str
    added: int
    changed: int
    deleted: int
    point_rows: int
    live_rows: int
    added_keys: tuple[Key, ...] = ()
    changed_keys: tuple[Key, ...] = ()
    deleted_keys: tuple[Key, ...] = ()

    @property
    def rows(self) -> int:
        """Rows that a restore to the point would touch."""
        return self.added + self.changed + self.deleted


@dataclass(frozen=True, kw_only=True, slots=True)
class ActorLoss:
    """Later work of one database role that a restore to the point would take back, as the journal saw it.
    ``images`` counts old and new rows apart: an update is two."""

    actor: str
    transactions: int
    images: int
    tables: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Loss:
    """What a restore to a point would overwrite. Without a journal (``journaled`` false) nobody can say whose work it
    is; with ``gaps``, ``actors`` may miss some of it. The rows are exact in any case."""

    point_id: str
    tables: tuple[TableDiff, ...]
    actors: tuple[ActorLoss, ...]
    journaled: bool
    gaps: tuple[Gap, ...] = ()

    @property
    def rows(self) -> int:
        return sum(t.rows for t in self.tables)

    def sentence(self) -> str:
        """One line for a person: how many rows, of which tables, by whom."""
        if not self.rows:
            return f"A restore to point {self.point_id} would overwrite nothing."
        rows = ", ".join(
            f"{t.table} ({t.added} new, {t.changed} edited, {t.deleted} deleted)" for t in self.tables if t.rows
        )
        who = ", ".join(f"{a.actor} ({a.transactions} transactions)" for a in self.actors) or "nobody the journal saw"
        known = f"written since by {who}" if self.journaled else "by whom is not known, there is no journal"
        doubt = "; the journal has gaps, so this list of writers may be incomplete" if self.gaps else ""
        return f"A restore to point {self.point_id} would overwrite {self.rows} rows: {rows}; {known}{doubt}."


def diff(
    conn: Connection[Any],
    point: RecoveryPoint,
    store: Store,
    tables: Sequence[str] | None = None,
    *,
    keys: int = KEYS,
) -> tuple[TableDiff, ...]:
    """Compare ``tables`` (default: all of the point) with live, exactly, on one snapshot of live.

    ``conn`` is idle; its role reads the tables and may create temporary ones (capturer or recoverer). Nothing stays
    behind. Raises :class:`ShapeChanged` when a table's columns are no longer those of the point.
    """
    chosen = manifests(point, tables)
    found: list[TableDiff] = []
    with translated(), staging.transaction(conn, repeatable=True):
        for number, manifest in enumerate(chosen):
            staged = staging.stage(conn, manifest, store, number=number)
            found.append(describe(conn, staged, staging.compare(conn, staged), keys=keys))
    return tuple(found)


def would_lose(conn: Connection[Any], point: RecoveryPoint, store: Store, tables: Sequence[str] | None = None) -> Loss:
    """What a restore to ``point`` would overwrite: rows by table and, where a journal exists, work by actor.

    Same role and errors as :func:`diff`.
    """
    compared = diff(conn, point, store, tables, keys=0)
    names = [t.table for t in compared]
    with translated(), conn.transaction():
        here = position.current(conn)
        known = (here.system_id, here.timeline) == (point.position.system_id, point.position.timeline)
        if not known or not journal_shape.exists(conn):
            return Loss(point_id=point.id, tables=compared, actors=(), journaled=False)
        gaps = journal.gaps(conn, since=point.position, tables=names)
        by_actor: dict[str, list[JournalTx]] = {}
        for transaction in journal.transactions(conn, since=point.position, tables=names):
            by_actor.setdefault(transaction.actor, []).append(transaction)
    actors = [
        ActorLoss(
            actor=actor,
            transactions=len({t.xid for t in written}),
            images=sum(t.rows for t in written),
            tables=tuple(sorted({name for t in written for name in t.tables})),
        )
        for actor, written in sorted(by_actor.items())
    ]
    return Loss(point_id=point.id, tables=compared, actors=tuple(actors), journaled=True, gaps=tuple(gaps))


def manifests(point: RecoveryPoint, tables: Iterable[str] | None) -> tuple[TableManifest, ...]:
    """The point's tables of those names, in the point's order. Raises :class:`TableMissing`."""
    if tables is None:
        return point.tables
    wanted = set(tables)
    absent = wanted - {t.name for t in point.tables}
    if absent:
        raise TableMissing(f"Point {point.id} does not hold {', '.join(sorted(absent))}; choose another point.")
    return tuple(t for t in point.tables if t.name in wanted)


def describe(conn: Connection[Any], staged: staging.Staged, counts: dict[str, int], *, keys: int) -> TableDiff:
    """The diff of a compared table, with at most ``keys`` keys of each kind."""
    row = conn.execute(sql.SQL("SELECT count(*) FROM {}").format(staged.live)).fetchone()
    samples = {kind: _keys(conn, staged, kind, keys) if counts[kind] else () for kind in counts}
    return TableDiff(
        table=staged.manifest.name,
        added=counts["added"],
        changed=counts["changed"],
        deleted=counts["deleted"],
        point_rows=staged.manifest.rows,
        live_rows=int(row[0]) if row else 0,
        added_keys=samples["added"],
        changed_keys=samples["changed"],
        deleted_keys=samples["deleted"],
    )


def _keys(conn: Connection[Any], staged: staging.Staged, kind: str, limit: int) -> tuple[Key, ...]:
    if not staged.key or not limit:
        return ()
    key = sql.SQL(", ").join(sql.SQL("{}::text").format(sql.Identifier("t", c)) for c in staged.key)
    order = sql.SQL(", ").join(sql.Identifier("t", c) for c in staged.key)
    match = (
        sql.SQL("{} t ON t.ctid = c.point_row").format(staged.rows)
        if kind == "deleted"
        else sql.SQL("{} t ON t.ctid = c.live_row AND t.tableoid = c.live_table").format(staged.live)
    )
    rows = conn.execute(
        sql.SQL("SELECT {} FROM {} c JOIN {} WHERE c.kind = {} ORDER BY {} LIMIT {}").format(
            key, staged.changes, match, sql.Literal(kind), order, sql.Literal(limit)
        ),
    ).fetchall()
    return tuple(tuple(row) for row in rows)
