"""Bring back tables that are gone: dropped ones from the point's definition, emptied ones into what is there.

A dropped table is built in a scratch schema, rows by parallel COPY and indexes side by side, and moved to its place in
one short transaction together with everything that hangs on it. Until then nobody sees it; if the work dies on the way,
nothing but the scratch schema is left, which the next run removes. Foreign keys are added without a look at the rows
and validated afterwards, so that the tables they touch stay open; one that does not hold stays unvalidated, and is
named.

Role: the installer, who owns the app's tables and may create schemas (`reinstate roles`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

from psycopg import Connection, errors, sql

from snapshots import database
from snapshots.capture import shape
from snapshots.journal import shape as journal_shape
from snapshots.model import Applied, RecoveryPoint, TableManifest, TableSpec
from snapshots.points import chunks
from snapshots.points.errors import NotEmpty, ShapeChanged, StepApplied, TableMissing, translated
from snapshots.restore import build, ddl
from snapshots.restore.build import Say
from snapshots.restore.frame import manifests
from snapshots.store.store import Store
from snapshots.undo.step import applied, record

WORKERS = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Returned:
    """What was brought back. ``unvalidated`` names foreign keys (table, constraint) that the rows there are do not
    satisfy: they hold for what is written from now on."""

    rows: Mapping[str, int]
    sequences: tuple[str, ...] = ()
    unvalidated: tuple[tuple[str, str], ...] = ()
    journaled: tuple[str, ...] = ()
    """Tables on which the journal was put again; the gap in it is on record."""
    applied: Applied | None = field(default=None, compare=False)


def missing(conn: Connection[Any], tables: Iterable[TableManifest]) -> tuple[TableManifest, ...]:
    """Those of the tables that do not exist (any role)."""
    return tuple(manifest for manifest in tables if absent(conn, manifest.name))


def absent(conn: Connection[Any], table: str) -> bool:
    """Whether there is no such table (any role)."""
    row = conn.execute("SELECT to_regclass(%s) IS NULL", (database.qualified(table).as_string(conn),)).fetchone()
    return bool(row and row[0])


def restore(
    dsn: str,
    point: RecoveryPoint,
    store: Store,
    tables: Sequence[TableSpec | str],
    *,
    recovery_id: str | None = None,
    step: str = "restore-table",
    plan_hash: str = "",
    workers: int = WORKERS,
    say: Say = lambda _: None,
) -> Returned:
    """Make ``tables`` of the point again, rows and all, where they do not exist; fill those that are empty.

    ``dsn`` is the installer's. With ``recovery_id`` the effect is recorded in ``reinstate.applied``, in its own
    transaction, and a second call returns without doing anything. Tables that were journaled are journaled again; the
    stretch without is a gap. Raises :class:`NotEmpty`, :class:`TableMissing` for a point that does not hold a table's
    definition, :class:`Refused` while another such restore runs, and the errors of store and database.
    """
    specs = {t if isinstance(t, str) else t.name: t for t in tables}
    chosen = manifests(point, specs)
    with closing(build.opened(dsn)) as conn, translated():
        if recovery_id and (done := _done(conn, recovery_id, step, plan_hash)):
            return Returned(rows=done.detail.get("rows", {}), applied=done)
        lost = missing(conn, chosen)
        empty = tuple(m for m in chosen if m not in lost)
        _require(conn, lost, empty)
        conn.rollback()
        made = build.build(conn, dsn, lost, store, app=point.app, workers=workers, say=say)
        say("moving into place")
        with conn.transaction():
            chunks.settle(conn)
            _place(conn, lost, made)
            pending = _refer(conn, lost)
            for manifest in empty:
                made[manifest.name] = _fill(conn, manifest, store, app=point.app)
            moved = forward(conn, point.sequences, [m.name for m in chosen])
            detail = {"kind": "restore-table", "point": point.id, "rows": dict(made), "sequences": moved}
            proof = None
            if recovery_id and journal_shape.exists(conn):
                proof = record(conn, recovery_id, step, plan_hash, detail)
        if lost:
            build.drop(conn)
        open_ = _validate(conn, pending, say)
        _analyze(conn, [m.name for m in chosen])
        again = _journal(conn, [t for t in tables if isinstance(t, TableSpec)], [m.name for m in lost])
    return Returned(rows=dict(made), sequences=tuple(moved), unvalidated=open_, journaled=again, applied=proof)


def forward(conn: Connection[Any], recorded: Mapping[str, int], tables: Sequence[str]) -> list[str]:
    """Move sequences of ``tables`` that are behind the point's value up to it, never back; names of those moved."""
    moved = []
    for name, counter in shape.sequences(conn, tables).items():
        if name in recorded and counter.behind(recorded[name]):
            which = database.qualified(name).as_string(conn)
            conn.execute("SELECT setval(%s::regclass, %s, true)", (which, recorded[name]))
            moved.append(name)
    return moved


def _done(conn: Connection[Any], recovery_id: str, step: str, plan_hash: str) -> Applied | None:
    if not journal_shape.exists(conn):
        return None
    done = applied(conn, recovery_id, step)
    if done is not None and done.plan_hash != plan_hash:
        raise StepApplied(f"Step {step} of recovery {recovery_id} was applied by another plan; start a new recovery.")
    return done


def _require(conn: Connection[Any], lost: Sequence[TableManifest], empty: Sequence[TableManifest]) -> None:
    for manifest in lost:
        if not manifest.definition:
            raise TableMissing(
                f"The point does not say how {manifest.name} was made (it is from an older version); create the table, "
                "then restore its rows."
            )
    for manifest in empty:
        require_empty(conn, manifest)


def require_empty(conn: Connection[Any], manifest: TableManifest) -> None:
    """Raise :class:`ShapeChanged` or :class:`NotEmpty` unless the point's rows can be loaded into the table."""
    if changed := shape.differences(conn, manifest):
        raise ShapeChanged(f"Table {manifest.name} does not fit the point: {'; '.join(changed)}; migrate the copy.")
    row = conn.execute(sql.SQL("SELECT EXISTS (SELECT FROM {})").format(database.qualified(manifest.name))).fetchone()
    if row and row[0]:
        raise NotEmpty(
            f"Table {manifest.name} is not empty; restore by difference, or into a fresh copy of the schema."
        )


def _place(conn: Connection[Any], lost: Sequence[TableManifest], made: Mapping[str, int]) -> None:
    known = {r[0] for r in conn.execute("SELECT rolname FROM pg_roles").fetchall()}
    scratch = build.scratch_of(lost)
    for manifest in lost:
        if manifest.name in made:
            for statement in ddl.place(manifest.definition, scratch, known):
                conn.execute(statement)


def _refer(conn: Connection[Any], lost: Sequence[TableManifest]) -> list[tuple[str, str, sql.Composed]]:
    """Add the foreign keys of the tables and of others to them; returns those that are to be validated."""
    pending = []
    seen = set()
    for manifest in lost:
        for child, name, add, look in ddl.references(manifest.definition):
            if (child, name) in seen or not _lacks(conn, child, name):
                continue
            seen.add((child, name))
            try:
                with conn.transaction():
                    conn.execute(add)
            except errors.UndefinedTable:
                continue  # the other table is gone too, and brings the key when it comes back
            if look is not None:
                pending.append((child, name, look))
    return pending


def _lacks(conn: Connection[Any], table: str, constraint: str) -> bool:
    row = conn.execute(
        "SELECT to_regclass(%(t)s) IS NOT NULL AND NOT EXISTS (SELECT FROM pg_constraint"
        " WHERE conrelid = to_regclass(%(t)s) AND conname = %(c)s)",
        {"t": database.qualified(table).as_string(conn), "c": constraint},
    ).fetchone()
    return bool(row and row[0])


def _validate(
    conn: Connection[Any], pending: Sequence[tuple[str, str, sql.Composed]], say: Say
) -> tuple[tuple[str, str], ...]:
    failed = []
    for child, name, look in pending:
        say(f"checking {name} of {child}")
        try:
            with conn.transaction():
                conn.execute(look)
        except (errors.IntegrityError, errors.LockNotAvailable):
            failed.append((child, name))
    return tuple(failed)


def _fill(conn: Connection[Any], manifest: TableManifest, store: Store, *, app: str) -> int:
    """Rows into an empty table that is there, in the caller's transaction, the app's triggers off meanwhile."""
    from snapshots.restore.staging import load as copy_in
    from snapshots.restore.whole import triggers_off

    with triggers_off(conn, manifest.name):
        return copy_in(conn, database.qualified(manifest.name), manifest, store, app=app)


def _analyze(conn: Connection[Any], tables: Sequence[str]) -> None:
    with conn.transaction():
        for name in tables:
            conn.execute(sql.SQL("ANALYZE {}").format(database.qualified(name)))


def _journal(conn: Connection[Any], specs: Sequence[TableSpec], lost: Sequence[str]) -> tuple[str, ...]:
    """Put the journal again on the lost tables that it knows. The tick before records that it was off."""
    known = journal_shape.stored(conn)
    again = [s for s in specs if s.name in lost and s.name in known]
    conn.rollback()
    if not again:
        return ()
    from snapshots.journal import journal

    settings = dict(conn.execute("SELECT name, value FROM reinstate.setting").fetchall())
    conn.rollback()
    journal.tick(conn)
    journal.install(conn, again, capturer=settings["capturer"], recoverer=settings["recoverer"])
    return tuple(s.name for s in again)
