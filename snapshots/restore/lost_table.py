"""Bring back tables that are gone: dropped ones from the point's definition, emptied ones into what is there.

A dropped table is built in a scratch schema, rows by parallel COPY and indexes side by side, and moved to its place in
one short transaction together with everything that hangs on it. Until then nobody sees it; if the work dies on the way,
nothing but the scratch schema is left, which the next run removes. The grants come back under the fences that stand.
Foreign keys are added without a look at the rows and validated afterwards, so that the tables they touch stay open; one
that does not hold stays unvalidated, and is named. What follows the placing may die too: :func:`finish` does it again.

Role: the installer, who owns the app's tables and may create schemas (`reinstate roles`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg import Connection, errors, sql

from snapshots import database
from snapshots.capture import shape
from snapshots.errors import Unreachable
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
STEP = "restore-table"
NOT_VALID_ON_PARTITIONED = 180000
"""The first server version that adds a foreign key to a partitioned table without a look at its rows."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Returned:
    """What was brought back. ``unvalidated`` names foreign keys (table, constraint) that the rows there are do not
    satisfy: they hold for what is written from now on. Before PostgreSQL 18 a partitioned table is left without such
    a key."""

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
    step: str = STEP,
    plan_hash: str = "",
    workers: int = WORKERS,
    say: Say = lambda _: None,
) -> Returned:
    """Make ``tables`` of the point again, rows and all, where they do not exist; fill those that are empty.

    ``dsn`` is the installer's. With ``recovery_id`` the effect is recorded in ``reinstate.applied``, in its own
    transaction, and a second call does no more than :func:`finish`. Tables that were journaled are journaled again; the
    stretch without is a gap. Raises :class:`NotEmpty`, :class:`TableMissing` for a point that does not hold a table's
    definition, :class:`Refused` while another such restore runs, and the errors of store and database.
    """
    specs = {t if isinstance(t, str) else t.name: t for t in tables}
    chosen = manifests(point, specs)
    with closing(build.opened(dsn)) as conn:
        with translated():
            proof = _done(conn, recovery_id, step, plan_hash) if recovery_id else None
            conn.rollback()
            if proof is not None:
                return _finished(conn, proof.detail, specs, say, proof)
            lost = missing(conn, chosen)
            empty = tuple(m for m in chosen if m not in lost)
            _require(conn, lost, empty)
            conn.rollback()
            made = build.build(conn, dsn, lost, store, app=point.app, workers=workers, say=say)
            say("moving into place")
            with conn.transaction():
                chunks.settle(conn)
                _place(conn, lost, made)
                foreign = _refer(conn, lost)
                for manifest in empty:
                    made[manifest.name] = _fill(conn, manifest, store, app=point.app)
                moved = forward(conn, point.sequences, [m.name for m in chosen])
                detail = {
                    "kind": "restore-table",
                    "point": point.id,
                    "rows": dict(made),
                    "sequences": moved,
                    "made": [m.name for m in lost],
                    "foreign": foreign,
                }
                if recovery_id and journal_shape.exists(conn):
                    proof = record(conn, recovery_id, step, plan_hash, detail)
                if lost and journal_shape.exists(conn):
                    _fence_again(conn)
        return _finished(conn, detail, specs, say, proof)


def finish(dsn: str, done: Applied, *, say: Say = lambda _: None) -> Returned:
    """Do what follows the placing of lost tables, as far as it is not done: look whether foreign keys hold, journal the
    tables again, remove the scratch schemas (role: the installer). Nothing for a table that is gone again. Raises
    :class:`Refused` while another such restore runs, and :class:`Unreachable`: run it again."""
    with closing(build.opened(dsn)) as conn:
        return _finished(conn, done.detail, {}, say, done)


def _finished(
    conn: Connection[Any],
    detail: Mapping[str, Any],
    specs: Mapping[str, TableSpec | str],
    say: Say,
    proof: Applied | None,
) -> Returned:
    with _after_commit():
        made = detail.get("made", [])
        if made:
            build.claim(conn)
            build.drop(conn)
        open_ = _validate(conn, detail.get("foreign", []), say)
        _analyze(conn, detail["rows"])
        again = _journal(conn, made, specs)
    return Returned(
        rows=dict(detail["rows"]),
        sequences=tuple(detail["sequences"]),
        unvalidated=open_,
        journaled=again,
        applied=proof,
    )


@contextmanager
def _after_commit() -> Iterator[None]:
    try:
        yield
    except psycopg.Error as error:
        cause = error.diag.message_primary or type(error).__name__
        raise Unreachable(
            f"The tables are back, but not all that follows is done ({cause}); run the restore again to finish it.",
            retryable=True,
        ) from error


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


def _fence_again(conn: Connection[Any]) -> None:
    """Raise every fence that stands again, over the grants that came back; lowering it gives them back. The last thing
    in the transaction: from here on a fence that goes up waits for its end, and then sees the tables."""
    conn.execute("SELECT pg_advisory_xact_lock(hashtextextended('reinstate.fence', 0))")
    for role, ref in conn.execute(
        "SELECT DISTINCT f.role, f.ref FROM reinstate.fenced f JOIN pg_roles r ON r.rolname = f.role"
        " WHERE f.restored_at IS NULL ORDER BY 1, 2"
    ).fetchall():
        conn.execute("SELECT reinstate.fence(%s::name, %s)", (role, ref))


def _refer(conn: Connection[Any], lost: Sequence[TableManifest]) -> list[list[str]]:
    """Add the foreign keys of the tables and of others to them; returns those that are yet to be proven."""
    pending: list[list[str]] = []
    seen = set()
    for manifest in lost:
        for key in ddl.references(manifest.definition):
            if (key.child, key.name) in seen or not _lacks(conn, key.child, key.name):
                continue
            seen.add((key.child, key.name))
            checked = conn.info.server_version < NOT_VALID_ON_PARTITIONED and _partitioned(conn, key.child)
            try:
                with conn.transaction():
                    conn.execute(key.add_checked if checked else key.add)
            except errors.UndefinedTable:
                continue  # the other table is gone too, and brings the key when it comes back
            except errors.IntegrityError:
                pending.append([key.child, key.name])
            else:
                if key.valid and not checked:
                    pending.append([key.child, key.name])
    return pending


def _lacks(conn: Connection[Any], table: str, constraint: str) -> bool:
    return not absent(conn, table) and _valid(conn, table, constraint) is None


def _valid(conn: Connection[Any], table: str, constraint: str) -> bool | None:
    """Whether the constraint was proven; ``None``: there is none of that name."""
    row = conn.execute(
        "SELECT convalidated FROM pg_constraint WHERE conrelid = to_regclass(%s) AND conname = %s",
        (database.qualified(table).as_string(conn), constraint),
    ).fetchone()
    return bool(row[0]) if row else None


def _partitioned(conn: Connection[Any], table: str) -> bool:
    row = conn.execute(
        "SELECT relkind = 'p' FROM pg_class WHERE oid = to_regclass(%s)", (database.qualified(table).as_string(conn),)
    ).fetchone()
    return bool(row and row[0])


def _validate(conn: Connection[Any], pending: Iterable[Sequence[str]], say: Say) -> tuple[tuple[str, str], ...]:
    """Prove the keys that are not; those that could not be."""
    for child, name in pending:
        with suppress(errors.IntegrityError, errors.OperationalError), conn.transaction():
            if _valid(conn, child, name) is False:
                say(f"checking {name} of {child}")
                conn.execute(ddl.validate(child, name))
    with conn.transaction():
        return tuple((c, n) for c, n in pending if not absent(conn, c) and not _valid(conn, c, n))


def _fill(conn: Connection[Any], manifest: TableManifest, store: Store, *, app: str) -> int:
    """Rows into an empty table that is there, in the caller's transaction, the app's triggers off meanwhile."""
    from snapshots.restore.staging import load as copy_in
    from snapshots.restore.whole import triggers_off

    with triggers_off(conn, manifest.name):
        return copy_in(conn, database.qualified(manifest.name), manifest, store, app=app)


def _analyze(conn: Connection[Any], tables: Iterable[str]) -> None:
    with conn.transaction():
        for name in tables:
            if not absent(conn, name):
                conn.execute(sql.SQL("ANALYZE {}").format(database.qualified(name)))


def _journal(conn: Connection[Any], made: Sequence[str], specs: Mapping[str, TableSpec | str]) -> tuple[str, ...]:
    """Put the journal again on the tables that it knows and is not on. The tick before records that it was off."""
    known = journal_shape.stored(conn)
    again = [known[name] for name in made if name in known and not absent(conn, name)]
    conn.rollback()
    if not again:
        return ()
    from snapshots.journal import journal

    settings = dict(conn.execute("SELECT name, value FROM reinstate.setting").fetchall())
    conn.rollback()
    journal.tick(conn)
    put = []
    for table in again:
        given = specs.get(table.name)
        done = journal.install(
            conn,
            [
                given
                if isinstance(given, TableSpec)
                else TableSpec(name=table.name, key=table.key, suppress=table.suppress)
            ],
            capturer=settings["capturer"],
            recoverer=settings["recoverer"],
            size_cap_mb=table.size_cap_mb,
        )
        if done:
            put.append(table.name)
    return tuple(put)
