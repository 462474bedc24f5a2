"""Take a recovery point: the logic and the data of one app, as they were at one moment.

The data is one exported snapshot, read through once, table by table, in bounded memory; suites can run on the very
same snapshot while it is held. The logic is read before and after the snapshot was taken and must be the same, else
the capture starts over. The manifest is published last, once, with the verification or without it: a capture that
dies at any instant leaves no point, and nothing that a reader would take for one.

All database work is done as the *capturer*, which only reads.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from psycopg import Connection, sql

from platforms.base import Platform, RunState, WorkflowInfo

from . import chunks, database, points, position, shape
from .model import Chunk, Position, RecoveryPoint, TableManifest, TableSpec, WorkflowState
from .point_errors import LogicMoved, WorkflowMissing, translated
from .store import Store

Verify = Callable[[str], dict[str, Any]]
"""Runs suites on the exported snapshot of that id; ``passed`` in its result says whether the point is verified."""

ATTEMPTS = 5
_IN_FLIGHT = (RunState.NEW, RunState.RUNNING, RunState.WAITING)
_CLOCK_GRAIN = timedelta(seconds=1)
"""Platforms may tell their time in whole seconds."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Snapshot:
    """An exported, read-only snapshot, valid while :func:`open_snapshot` holds it."""

    id: str
    """For ``SET TRANSACTION SNAPSHOT`` in other sessions of the same database."""
    position: Position
    conn: Connection[Any] = field(repr=False)


@contextmanager
def open_snapshot(dsn: str) -> Iterator[Snapshot]:
    """Hold one consistent view of the database as the capturer. It keeps vacuum back: do not hold it for long."""
    conn = database.connect(dsn, purpose="capture")
    try:
        with translated(), conn.transaction():
            conn.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            chunks.settle(conn)
            # With nothing but pg_catalog in the path, names inside values (regclass and its like) print in full.
            conn.execute("SELECT set_config('search_path', 'pg_catalog', true)")
            row = conn.execute("SELECT pg_export_snapshot()").fetchone()
            yield Snapshot(id=str(row[0] if row else ""), position=position.current(conn), conn=conn)
    finally:
        conn.close()


def tables(snapshot: Snapshot, specs: Sequence[TableSpec], store: Store) -> tuple[TableManifest, ...]:
    """Copy the tables, as the snapshot shows them, into chunks ordered by key. Memory: one chunk at a time.

    Generated columns are listed in the manifest but not copied. A table without a usable key is ordered by the text
    of all its columns. A policy that would hide rows from the capturer is an error.
    """
    return tuple(_table(snapshot.conn, spec, store) for spec in specs)


def capture(
    dsn: str,
    specs: Sequence[TableSpec],
    workflows: Mapping[str, str],
    platform: Platform,
    store: Store,
    *,
    app: str,
    verify: Verify | None = None,
    attempts: int = ATTEMPTS,
) -> RecoveryPoint:
    """Take and publish a recovery point of ``app``.

    ``dsn`` is the capturer's; ``workflows`` maps the catalogue's key to the workflow's name in the platform. Runs that
    were, or may have been, in flight at the snapshot are listed in the point. ``verify`` runs before the manifest
    exists; when it raises, nothing is published. Raises :class:`WorkflowMissing`, :class:`LogicMoved` after
    ``attempts`` tries, and the errors of store, platform and database.
    """
    store.clean()
    for attempt in range(attempts):
        started = platform.health().now - _CLOCK_GRAIN
        before = logic(platform, workflows)
        unfinished = _unfinished(platform, before)
        with open_snapshot(dsn) as snapshot:
            after = logic(platform, workflows)
            if _moved(before, after) == []:
                in_flight = unfinished | _unfinished_since(platform, before, started)
                manifests = tables(snapshot, specs, store)
                counters = shape.sequences(snapshot.conn, [s.name for s in specs])
                verification = verify(snapshot.id) if verify else None
                point = RecoveryPoint(
                    id=points.new_id(snapshot.position.at),
                    app=app,
                    taken_at=snapshot.position.at,
                    position=snapshot.position,
                    workflows=after,
                    in_flight=tuple(sorted(in_flight)),
                    tables=manifests,
                    sequences={n: c.value for n, c in counters.items() if c.value is not None},
                    verification=verification,
                )
                points.publish(store, point)
                return point
        time.sleep(min(0.1 * 2**attempt, 1.0))
    raise LogicMoved(
        f"The logic of {app} changed during each of {attempts} captures ({', '.join(_moved(before, after))}); "
        "wait until the deployment is over and capture again."
    )


def logic(platform: Platform, workflows: Mapping[str, str]) -> tuple[WorkflowState, ...]:
    """What production runs now, by catalogue key: the live version of an active workflow, the saved one of a paused.

    Raises :class:`WorkflowMissing` when a name is unknown to the platform, or known twice.
    """
    known: dict[str, list[WorkflowInfo]] = {}
    for info in platform.workflows():
        known.setdefault(info.name, []).append(info)
    return tuple(_state(platform, key, name, known.get(name, [])) for key, name in sorted(workflows.items()))


def _moved(before: Sequence[WorkflowState], after: Sequence[WorkflowState]) -> list[str]:
    then, now = ({w.workflow: (w.platform_id, w.active, w.version_hash) for w in side} for side in (before, after))
    return [workflow for workflow in now if now[workflow] != then[workflow]]


def _state(platform: Platform, key: str, name: str, found: Sequence[WorkflowInfo]) -> WorkflowState:
    if len(found) != 1:
        what = "has no workflow" if not found else f"has {len(found)} workflows"
        raise WorkflowMissing(f"The platform {what} named {name!r} ({key}); correct the catalogue or the platform.")
    live = platform.live_version(found[0].id)
    version = live or platform.draft_version(found[0].id)
    return WorkflowState(
        workflow=key,
        platform_id=found[0].id,
        active=live is not None,
        version_hash=version.hash,
        definition=dict(version.definition),
    )


def _unfinished(platform: Platform, workflows: Sequence[WorkflowState]) -> set[str]:
    ours = {w.platform_id for w in workflows}
    return {r.id for r in platform.runs(states=_IN_FLIGHT) if r.workflow_id in ours}


def _unfinished_since(platform: Platform, workflows: Sequence[WorkflowState], since: datetime) -> set[str]:
    """Runs that began or ended in between: unfinished at the snapshot as far as anyone can tell."""
    ours = {w.platform_id for w in workflows}
    return {r.id for r in platform.runs(since=since) if r.workflow_id in ours}


def _table(conn: Connection[Any], spec: TableSpec, store: Store) -> TableManifest:
    columns = shape.columns(conn, spec.name)
    stored = chunks.stored(columns)
    key = shape.usable_key(conn, spec.name, spec.key) if set(spec.key) <= {c.name for c in stored} else ()
    ordering = (
        sql.SQL(", ").join(sql.SQL("t.{}").format(sql.Identifier(c)) for c in key)
        if key
        else chunks.row_text(stored, "t")
    )
    query = sql.SQL("COPY (SELECT {} FROM {} t ORDER BY {}) TO STDOUT (FORMAT binary)").format(
        chunks.select_list(stored, "t"), shape.source(conn, spec.name), ordering
    )
    kept: list[Chunk] = []
    with conn.cursor() as cursor, cursor.copy(query) as copy:
        copy.set_types(chunks.copy_types(stored))
        places = [i for i, c in enumerate(stored) if c.name in key]
        for rows in chunks.split(copy.rows(), places):
            data = chunks.encode(chunks.from_rows(rows, stored))
            kept.append(Chunk(sha256=store.put_chunk(data), rows=len(rows), bytes=len(data)))
    return TableManifest(name=spec.name, columns=columns, key=key, rows=sum(c.rows for c in kept), chunks=tuple(kept))
