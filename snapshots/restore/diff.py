"""What differs between a recovery point, or an earlier position, and live, and what a restore would overwrite.

A diff says nothing about who is right: later legitimate work differs from the point just as damage does. That is why
a restore from a point is only ever offered, with :func:`would_lose` beside it, and never chosen automatically.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from psycopg import Connection, sql

from snapshots import position
from snapshots.errors import Refused
from snapshots.journal import journal, shape
from snapshots.model import Gap, Position, RecoveryPoint, TableSpec
from snapshots.points.errors import translated
from snapshots.restore import by_journal, by_scan, staging
from snapshots.restore.frame import Frame, Target, counts, drop, frames, manifests, names, rows, target_of
from snapshots.restore.model import ActorLoss, How, Key, Loss, Source, TableDiff
from snapshots.store.store import Store

__all__ = [
    "KEYS",
    "ActorLoss",
    "Loss",
    "TableDiff",
    "computed",
    "diff",
    "loss_of",
    "manifests",
    "recounted",
    "would_lose",
]

KEYS = 100


def diff(
    conn: Connection[Any],
    target: RecoveryPoint | Position,
    store: Store | None,
    tables: Sequence[str | TableSpec] | None = None,
    *,
    keys: int = KEYS,
    source: Source = "auto",
) -> tuple[TableDiff, ...]:
    """Compare ``tables`` (default: all of the point, or all journaled ones) with live, exactly, on one snapshot.

    ``conn`` is idle; its role reads the tables and may create temporary ones (capturer or recoverer). Nothing stays
    behind. Raises :class:`ShapeChanged` when a table's columns are no longer those of the point, and :class:`Refused`
    when a position is beyond the journal's reach.
    """
    goal = target_of(target)
    with translated(), staging.transaction(conn, repeatable=True):
        made, _ = frames(conn, goal, tables, source)
        found = computed(conn, made, goal, store, keys=keys)
        drop(conn, made)
    return found


def would_lose(
    conn: Connection[Any],
    target: RecoveryPoint | Position,
    store: Store | None,
    tables: Sequence[str | TableSpec] | None = None,
    *,
    source: Source = "auto",
    keys: int = 0,
) -> Loss:
    """What a restore would overwrite: rows by table and, where a journal exists, work by actor.

    Same role and errors as :func:`diff`.
    """
    goal = target_of(target)
    with translated(), staging.transaction(conn, repeatable=True):
        made, gaps = frames(conn, goal, tables, source)
        found = computed(conn, made, goal, store, keys=keys)
        loss = loss_of(conn, goal, found, gaps)
        drop(conn, made)
    return loss


def computed(
    conn: Connection[Any],
    made: Sequence[Frame],
    target: Target,
    store: Store | None,
    *,
    keys: int = 0,
    look: bool = True,
) -> tuple[TableDiff, ...]:
    """Fill ``want`` of each table, in the caller's transaction, and describe it. Raises :class:`Refused` where the
    journal missed changes; without ``look`` the live rows are left to whoever overwrites them."""
    found = []
    app = target.point.app if target.point else None
    looked: dict[str, by_scan.Looked] = {}
    with ThreadPoolExecutor(1) as beside:
        for frame in made:
            if frame.how != "journal":
                if store is None:
                    raise Refused(f"Table {frame.name} can only be compared with a recovery point; give its store.")
                looked[frame.name] = by_scan.look(conn, frame, store, target.position, beside=beside, app=app)
        for frame in made:
            how: How = "journal"
            if store is not None and frame.name in looked:
                how = by_scan.compare(conn, frame, store, looked.pop(frame.name), app=app)
            else:
                by_journal.compute(conn, frame, target.position)
                if broken := counts(conn, frame)["X"] or (by_journal.unlike(conn, frame) if look else 0):
                    raise Refused(
                        f"The journal missed changes of {broken} rows of {frame.name}: their images do not link up; "
                        "compare with a recovery point (`--source scan`)."
                    )
            found.append(_described(conn, frame, counts(conn, frame), how=how, keys=keys))
    return tuple(found)


def recounted(
    conn: Connection[Any],
    found: Sequence[TableDiff],
    made: Mapping[str, Frame],
    planned: Mapping[str, Mapping[str, int]],
) -> tuple[TableDiff, ...]:
    """The diffs with what is planned for each table now, and with the rows it has now: others may have written since
    the look."""
    return tuple(
        replace(
            t,
            added=planned[t.table]["D"],
            changed=planned[t.table]["U"],
            deleted=planned[t.table]["I"],
            live_rows=rows(conn, made[t.table]),
        )
        for t in found
    )


def loss_of(conn: Connection[Any], target: Target, found: Sequence[TableDiff], gaps: Sequence[Gap]) -> Loss:
    """Whose work the rows of ``found`` are, as far as a journal of this server knows."""
    if not shape.exists(conn):
        return Loss(point_id=target.title, tables=tuple(found), actors=(), journaled=False)
    listed = [t.table for t in found]
    try:
        gaps = gaps or journal.gaps(conn, since=target.position, tables=listed)
        foreign = {g.table for g in gaps if g.kind == shape.OTHER_SERVER and g.until is None}
        actors = _by_actor(conn, target.position, [name for name in listed if name not in foreign])
    except Refused:  # another server or timeline: its numbers mean nothing here
        return Loss(point_id=target.title, tables=tuple(found), actors=(), journaled=False)
    return Loss(point_id=target.title, tables=tuple(found), actors=actors, journaled=True, gaps=tuple(gaps))


def _by_actor(conn: Connection[Any], since: Position, tables: Sequence[str]) -> tuple[ActorLoss, ...]:
    """What was written after the position, added up by the database: it may be millions of transactions. Raises
    :class:`Refused` for a position of another server."""
    position.require_same_server(conn, since)
    parts = [
        sql.SQL(
            "SELECT {}::text AS name, rj_xid AS xid, rj_actor::text AS actor, count(*) AS images FROM {} WHERE {}"
            " GROUP BY rj_xid, rj_actor"
        ).format(sql.Literal(t.name), sql.Identifier("reinstate", t.twin), position.after(since))
        for t in shape.stored(conn).values()
        if t.name in tables
    ]
    if not parts:
        return ()
    query = sql.SQL(
        "SELECT actor, count(DISTINCT xid), sum(images)::bigint, array_agg(DISTINCT name) FROM ({}) AS w GROUP BY actor"
    ).format(sql.SQL(" UNION ALL ").join(parts))
    return tuple(
        ActorLoss(actor=actor, transactions=transactions, images=images, tables=tuple(sorted(names)))
        for actor, transactions, images, names in sorted(conn.execute(query).fetchall())
    )


def _described(conn: Connection[Any], frame: Frame, count: Mapping[str, int], *, how: How, keys: int) -> TableDiff:
    live = rows(conn, frame)
    made = TableDiff(
        table=frame.name,
        added=count["D"],
        changed=count["U"],
        deleted=count["I"],
        point_rows=frame.manifest.rows if frame.manifest else live - count["D"] + count["I"],
        live_rows=live,
        how=how,
    )
    if not keys or not frame.key:
        return made
    return replace(
        made,
        added_keys=_keys(conn, frame, "D", keys),
        changed_keys=_keys(conn, frame, "U", keys),
        deleted_keys=_keys(conn, frame, "I", keys),
    )


def _keys(conn: Connection[Any], frame: Frame, kind: str, limit: int) -> tuple[Key, ...]:
    texts = sql.SQL(", ").join(sql.SQL("{}::text").format(sql.Identifier("w", c)) for c in frame.key)
    found = conn.execute(
        sql.SQL("SELECT {} FROM {} w WHERE w.rj_do = {} ORDER BY {} LIMIT {}").format(
            texts, frame.temp("want"), sql.Literal(kind), names(frame.key, "w"), sql.Literal(limit)
        )
    ).fetchall()
    return tuple(tuple(row) for row in found)
