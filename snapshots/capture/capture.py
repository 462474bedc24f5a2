"""Take a recovery point: the logic and the data of one app, as they were at one moment.

The data is one exported snapshot: in full, read by several sessions at once in bounded memory, or as what changed
since an earlier point; suites can run on the very same snapshot while it is held. The tables are locked against
changes of their shape before the snapshot is taken, so that nothing is rewritten or emptied under its readers. The
logic is read before and after the snapshot was taken and must be the same, else the capture starts over. The manifest
is published last, once, with the verification or without it: a capture that dies at any instant leaves no point, and
nothing that a reader would take for one.

All database work is done as the *capturer*, which only reads.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Literal

from psycopg import Connection, errors, sql

from platforms.base import Entry, Platform, RunState, WorkflowInfo
from snapshots import database, position
from snapshots.capture import increments, pieces, shape
from snapshots.capture.pieces import Readers, Runner, Work
from snapshots.erasure import erasure
from snapshots.journal import segments
from snapshots.journal import shape as journal_shape
from snapshots.model import Chunk, Position, RecoveryPoint, Segment, TableManifest, TableSpec, WorkflowState
from snapshots.points import chunks, points
from snapshots.points.errors import LogicMoved, TableMissing, WorkflowMissing, translated
from snapshots.restore import definition
from snapshots.store.store import Store

Verify = Callable[[str], dict[str, Any]]
"""Runs suites on the exported snapshot of that id; ``passed`` in its result says whether the point is verified."""

Method = Literal["auto", "full", "journal", "scan"]
Say = Callable[[str], None]
ATTEMPTS = 5
WRITERS = 4
"""Small objects are written side by side: each waits for the disk."""
_IN_FLIGHT = (RunState.NEW, RunState.RUNNING, RunState.WAITING)
_CLOCK_GRAIN = timedelta(seconds=1)
"""Platforms may tell their time in whole seconds."""


def quiet(_: str) -> None:
    """Says nothing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Snapshot:
    """An exported, read-only snapshot, valid while :func:`open_snapshot` holds it."""

    id: str
    """For ``SET TRANSACTION SNAPSHOT`` in other sessions of the same database."""
    position: Position
    conn: Connection[Any] = field(repr=False)


@contextmanager
def open_snapshot(dsn: str, tables: Sequence[str] = ()) -> Iterator[Snapshot]:
    """Hold one consistent view of the database as the capturer, with ``tables`` (and their journal) locked against
    changes of their shape. It keeps vacuum back: do not hold it for long."""
    conn = database.connect(dsn, purpose="capture")
    conn.prepare_threshold = 0  # the same questions to the catalogue for each table: planned once
    try:
        with translated():
            twins = [f"reinstate.{t.twin}" for t in journal_shape.stored(conn).values() if t.name in tables]
            conn.rollback()
            with conn.transaction():
                conn.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
                _lock(conn, tables)
                _lock(conn, twins)
                chunks.settle(conn)
                # With nothing but pg_catalog in the path, names inside values (regclass and its like) print in full.
                conn.execute("SELECT set_config('search_path', 'pg_catalog', true)")
                conn.execute("SET LOCAL plan_cache_mode = force_generic_plan")
                row = conn.execute("SELECT pg_export_snapshot()").fetchone()
                yield Snapshot(id=str(row[0] if row else ""), position=position.current(conn), conn=conn)
    finally:
        conn.close()


def _lock(conn: Connection[Any], tables: Sequence[str]) -> None:
    """The first statement of a repeatable read that sees nothing yet: what comes before the lock is in the snapshot."""
    if not tables:
        return
    listed = sql.SQL(", ").join(database.qualified(name) for name in tables)
    try:
        conn.execute(sql.SQL("LOCK TABLE {} IN ACCESS SHARE MODE").format(listed))
    except (errors.UndefinedTable, errors.InvalidSchemaName, errors.WrongObjectType) as error:
        raise TableMissing(
            f"One of the tables cannot be captured ({error.diag.message_primary}; declared are {', '.join(tables)}); "
            "correct its name in the catalogue or create it."
        ) from error


def tables(
    snapshot: Snapshot,
    dsn: str,
    specs: Sequence[TableSpec],
    store: Store,
    *,
    base: RecoveryPoint | None = None,
    method: Method = "auto",
    workers: int = 2,
    run: Runner | None = None,
    say: Say = quiet,
) -> tuple[TableManifest, ...]:
    """The tables as the snapshot shows them, their rows in the store. Memory: one chunk for each of ``workers``.

    With ``base`` only what changed since it is read, where that can be told: by the journal (``auto``, ``journal``) or
    by the rows' own transaction numbers (``auto``, ``scan``). Every other table is copied in full, as all are without
    a base, in pieces that ``run`` stages (default: ``workers`` threads here). Generated columns are listed in the
    manifest but not copied. A policy that would hide rows from the capturer is an error.
    """
    with translated(), Readers(dsn, snapshot.id, workers=workers) as readers:
        if base is None and run is None:
            readers.warm()
        work = Work(conn=snapshot.conn, readers=readers, store=store)
        here = [increments.now(snapshot.conn, spec) for spec in specs]
        made: dict[str, TableManifest] = {}
        if base is not None and method != "full":
            made = _changed(work, here, base, method)
            for manifest in made.values():
                say(f"{manifest.name}: {manifest.rows} rows, changes by {manifest.method}")
        rest = [t for t in here if t.spec.name not in made]
        parts = [part for t in rest for part in pieces.plan(snapshot.conn, t.spec.name, t.columns)]
        stage = run or (lambda _, listed: pieces.stage(readers, listed, store, say=say))
        kept: dict[str, list[Chunk]] = {t.spec.name: [] for t in rest}
        for part, found in zip(parts, stage(snapshot.id, parts) if parts else (), strict=True):
            kept[part.table] += found
        for t in rest:
            copied = tuple(kept[t.spec.name])
            made[t.spec.name] = TableManifest(
                name=t.spec.name,
                columns=t.columns,
                key=t.key,
                rows=sum(c.rows for c in copied),
                chunks=copied,
                leaves=t.leaves,
            )
            say(f"{t.spec.name}: {made[t.spec.name].rows} rows in full")
    return tuple(made[spec.name] for spec in specs)


def _changed(
    work: Work, here: Sequence[increments.Now], base: RecoveryPoint, method: Method
) -> dict[str, TableManifest]:
    """Tables whose changes since ``base`` can be told."""
    then = {t.name: t for t in base.tables}
    leaning = [t for t in here if t.spec.name in then and increments.leans(t, then[t.spec.name])]
    whole = increments.journaled(work.conn, leaning, base.position) if method in ("auto", "journal") else {}
    with ThreadPoolExecutor(WRITERS) as writers:
        made: dict[str, Future[TableManifest]] = {}
        for table in leaning:
            name, found = table.spec.name, None
            if name in whole:
                found = increments.by_journal(work, table, then[name], base.position, whole[name])
            elif method in ("auto", "scan"):
                found = increments.by_scan(work, table, then[name], base.position)
            if found is not None:
                made[name] = writers.submit(increments.finished, work.store, found)
        return {name: written.result() for name, written in made.items()}


def capture(
    dsn: str,
    specs: Sequence[TableSpec],
    workflows: Mapping[str, str],
    platform: Platform,
    store: Store,
    *,
    app: str,
    ids: Mapping[str, str] | None = None,
    verify: Verify | None = None,
    base: RecoveryPoint | None = None,
    method: Method = "auto",
    workers: int = 2,
    full_after: int = 24,
    fingerprint: bool = False,
    run: Runner | None = None,
    say: Say = quiet,
    attempts: int = ATTEMPTS,
) -> RecoveryPoint:
    """Take and publish a recovery point of ``app``.

    ``dsn`` is the capturer's; ``workflows`` maps the catalogue's key to the workflow's name in the platform,
    and ``ids`` to the platform's id where that is known: a workflow that was renamed is still the same. Runs that were,
    or may have been, in flight at the snapshot are listed in the point. ``base`` is an earlier point of the app:
    see :func:`tables` for it and ``method``; it is not leaned on when an object of it is missing in the store, or when
    ``full_after`` points lean on its chunks already. ``fingerprint`` adds sums of row hashes, for which the tables are
    read once more. ``verify`` runs before the manifest exists; when it raises, nothing is published. ``say`` hears what
    was done. Raises :class:`WorkflowMissing`, :class:`LogicMoved` after ``attempts`` tries, and the errors of store,
    platform and database.
    """
    store.clean()
    for attempt in range(attempts):
        started = platform.health().now - _CLOCK_GRAIN
        before = logic(platform, workflows, ids)
        unfinished = _unfinished(platform, before)
        with store.writing("capture"), open_snapshot(dsn, [s.name for s in specs]) as snapshot:
            after = logic(platform, workflows, ids)
            if _moved(before, after) == []:
                in_flight = unfinished | _unfinished_since(platform, before, started)
                leaning = None if method == "full" else _usable(base, store, app, full_after, say)
                manifests = tables(
                    snapshot, dsn, specs, store, base=leaning, method=method, workers=workers, run=run, say=say
                )
                manifests = definition.attached(snapshot.conn, manifests)
                manifests = erasure.marked(store, app, manifests, leaning)
                if fingerprint:
                    manifests = _fingerprinted(snapshot, manifests)
                history = _history(snapshot, specs, store, base, leaning)
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
                    base=(leaning.base or leaning.id) if leaning and _leans(manifests) else None,
                    segments=history,
                )
                points.publish(store, point)
                return point
        time.sleep(min(0.1 * 2**attempt, 1.0))
    raise LogicMoved(
        f"The logic of {app} changed during each of {attempts} captures ({', '.join(_moved(before, after))}); "
        "wait until the deployment is over and capture again."
    )


def _leans(manifests: Sequence[TableManifest]) -> bool:
    return any(m.method != "full" for m in manifests)


def _usable(base: RecoveryPoint | None, store: Store, app: str, full_after: int, say: Say) -> RecoveryPoint | None:
    """``base`` if a new point may lean on it."""
    if base is None or base.app != app:
        return None
    root = base.base or base.id
    if sum(1 for known in store.point_ids(app) if known > root) >= full_after:
        say(f"{full_after} points lean on {root}: this one is full")
        return None
    if absent := store.missing(points.pieces(base)):
        say(f"point {base.id} misses {len(absent)} objects in the store: this one is full")
        return None
    return base


def _history(
    snapshot: Snapshot, specs: Sequence[TableSpec], store: Store, last: RecoveryPoint | None, base: RecoveryPoint | None
) -> tuple[Segment, ...]:
    """The journal's images since the last point, after those that point lists. A point that starts anew puts what led
    up to it together; the next ones begin with nothing."""
    here = snapshot.position
    if last is None or (last.position.system_id, last.position.timeline) != (here.system_id, here.timeline):
        return ()
    since = segments.export(snapshot.conn, specs, last.position, store)
    if base is None:
        return segments.compact(store, (*(last.segments if last.base else ()), *since))
    return (*(last.segments if last.base else ()), *since)


def _fingerprinted(snapshot: Snapshot, manifests: Sequence[TableManifest]) -> tuple[TableManifest, ...]:
    from snapshots.journal import fingerprint

    return tuple(
        replace(m, fingerprint=fingerprint.fingerprint(snapshot.conn, m.columns, m.name, m.key)) for m in manifests
    )


def logic(
    platform: Platform, workflows: Mapping[str, str], ids: Mapping[str, str] | None = None
) -> tuple[WorkflowState, ...]:
    """What production runs now, by catalogue key: the live version of an active workflow, the saved one of a paused.

    Raises :class:`WorkflowMissing` when neither the id is known to the platform nor, once, the name.
    """
    listed = platform.workflows()
    found = []
    for key, name in sorted(workflows.items()):
        known = [i for i in listed if i.id == (ids or {}).get(key)]
        found.append(_state(platform, key, name, known or [i for i in listed if i.name == name]))
    return tuple(found)


def _moved(before: Sequence[WorkflowState], after: Sequence[WorkflowState]) -> list[str]:
    def told(side: Sequence[WorkflowState]) -> dict[str, tuple[object, ...]]:
        return {w.workflow: (w.platform_id, w.active, w.version_hash, w.settings_hash) for w in side}

    then, now = told(before), told(after)
    return [workflow for workflow in now if now[workflow] != then[workflow]]


def _state(platform: Platform, key: str, name: str, found: Sequence[WorkflowInfo]) -> WorkflowState:
    if len(found) != 1:
        what = "has no workflow" if not found else f"has {len(found)} workflows"
        raise WorkflowMissing(f"The platform {what} named {name!r} ({key}); correct the catalogue or the platform.")
    live, saved = platform.live_version(found[0].id), platform.draft_version(found[0].id)
    version = live or saved
    beside = saved if saved.hash != version.hash else None
    read = platform.outline(version.definition)
    return WorkflowState(
        workflow=key,
        platform_id=found[0].id,
        active=live is not None,
        version_hash=version.hash,
        definition=dict(version.definition),
        settings_hash=version.settings_hash,
        platform_version=version.platform_version,
        author=version.author,
        entries=tuple(_entry(e) for e in read.entries),
        calls=tuple(sorted({call for node in read.nodes for call in node.calls})),
        credentials=tuple(sorted({name for node in read.nodes for name in node.credentials})),
        saved_hash=beside.hash if beside else None,
        saved=dict(beside.definition) if beside else None,
    )


def _entry(entry: Entry) -> dict[str, str | None]:
    return {
        "kind": entry.kind.value,
        "node": entry.node,
        "method": entry.method,
        "path": entry.path,
        "schedule": entry.schedule,
    }


def _unfinished(platform: Platform, workflows: Sequence[WorkflowState]) -> set[str]:
    ours = {w.platform_id for w in workflows}
    return {r.id for r in platform.runs(states=_IN_FLIGHT) if r.workflow_id in ours}


def _unfinished_since(platform: Platform, workflows: Sequence[WorkflowState], since: datetime) -> set[str]:
    """Runs that began or ended in between: unfinished at the snapshot as far as anyone can tell."""
    ours = {w.platform_id for w in workflows}
    return {r.id for r in platform.runs(since=since) if r.workflow_id in ours}
