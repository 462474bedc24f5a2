"""Build tables where nobody sees them: rows by COPY over several connections, then indexes side by side.

The scratch schemas of a run that died are removed by the next one: a lock of the session says that none is at work.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from typing import Any, TypeVar

import psycopg
from psycopg import Connection, sql

from snapshots import database
from snapshots.errors import Refused
from snapshots.model import TableManifest
from snapshots.points import chunks, reading
from snapshots.points.errors import Damaged
from snapshots.restore import ddl
from snapshots.restore.frame import names
from snapshots.store.store import Store

T = TypeVar("T")
Say = Callable[[str], None]

SCRATCH = "reinstate_lost_"
_LOCK = "SELECT pg_try_advisory_lock(hashtextextended('reinstate.lost', 0))"
_MEMORY = "SET maintenance_work_mem = '256MB'; SET max_parallel_maintenance_workers = 0"


def opened(dsn: str) -> Connection[Any]:
    """A connection for building (role: the installer)."""
    conn = database.connect(dsn, purpose="restore table", lock_timeout_s=30)
    conn.execute(_MEMORY)
    conn.commit()
    return conn


def scratch_of(lost: Sequence[TableManifest]) -> dict[str, str]:
    """The scratch schema of each schema that the tables lie in."""
    real = dict.fromkeys(s for m in lost for s in ddl.schemas(m.definition))
    return {name: f"{SCRATCH}{number}" for number, name in enumerate(real)}


def claim(conn: Connection[Any]) -> None:
    """Take, until the session ends, the lock that says that a restore of lost tables is at work. Commits. Raises
    :class:`Refused` while another one is."""
    row = conn.execute(_LOCK).fetchone()
    if not row or not row[0]:
        raise Refused("Another restore of lost tables runs in this database; wait until it is done.")
    conn.commit()


def drop(conn: Connection[Any]) -> None:
    """Remove every scratch schema, under the lock of :func:`claim`. Commits."""
    with conn.transaction():
        for (name,) in conn.execute(
            "SELECT nspname FROM pg_namespace WHERE starts_with(nspname, %s)", (SCRATCH,)
        ).fetchall():
            conn.execute(sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(sql.Identifier(name)))


def build(
    conn: Connection[Any],
    dsn: str,
    lost: Sequence[TableManifest],
    store: Store,
    *,
    app: str,
    workers: int,
    say: Say,
) -> dict[str, int]:
    """Tables, rows and indexes in the scratch schemas, committed; returns rows by table."""
    if not lost:
        return {}
    claim(conn)
    drop(conn)
    scratch = scratch_of(lost)
    with conn.transaction():
        chunks.settle(conn)
        for real, name in scratch.items():
            conn.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(sql.Identifier(real)))
            conn.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(name)))
        for manifest in lost:
            for statement in ddl.tables(manifest.definition, scratch):
                conn.execute(statement)
    try:
        with ExitStack() as stack:
            pool = [stack.enter_context(closing(opened(dsn))) for _ in range(max(1, workers))]
            made = {}
            for manifest in sorted(lost, key=lambda m: -m.rows):
                say(f"{manifest.name}: {manifest.rows} rows")
                schema, _, name = manifest.name.partition(".")
                into = sql.Identifier(scratch[schema], name)
                made[manifest.name] = load(pool, into, manifest, store, app=app)
            say("indexes")
            _each(pool, [s for m in lost for s in ddl.indexes(m.definition, scratch)])
        with conn.transaction():
            for manifest in lost:
                for statement in ddl.keys(manifest.definition, scratch):
                    conn.execute(statement)
    except BaseException:
        with suppress(psycopg.Error):
            conn.rollback()
            drop(conn)
        raise
    return made


def load(
    pool: Sequence[Connection[Any]],
    into: sql.Identifier,
    manifest: TableManifest,
    store: Store,
    *,
    app: str | None = None,
) -> int:
    """The rows of ``manifest`` into the table ``into``, by one COPY per connection, each committed; returns how many.
    The connections' role may insert there. Raises :class:`Damaged` and the errors of the store."""
    columns = chunks.stored(manifest.columns)
    if not columns:
        return 0
    statement = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT csv)").format(into, names(c.name for c in columns))
    source = iter(reading.batches(store, manifest, app=app))
    turn = threading.Lock()

    def pour(conn: Connection[Any]) -> int:
        count = 0
        with conn.transaction():
            chunks.settle(conn)
            with conn.cursor() as cursor, cursor.copy(statement) as copy:
                while (batch := _next(source, turn)) is not None:
                    copy.write(chunks.csv_blocks(batch, columns))
                    count += batch.num_rows
        return count

    count = sum(_side_by_side(pour, pool))
    if count != manifest.rows and count > manifest.rows - (not app):
        raise Damaged(f"Table {manifest.name} has {count} rows in its chunks, not {manifest.rows}; use another point.")
    return count


def _next(source: Iterator[T], turn: threading.Lock) -> T | None:
    with turn:
        return next(source, None)


def _side_by_side(work: Callable[[Connection[Any]], T], pool: Sequence[Connection[Any]]) -> list[T]:
    with ThreadPoolExecutor(max_workers=len(pool)) as threads:
        return [f.result() for f in [threads.submit(work, conn) for conn in pool]]


def _each(pool: Sequence[Connection[Any]], statements: Sequence[sql.Composed]) -> None:
    """Run the statements on whichever connection is free."""
    left = iter(statements)
    turn = threading.Lock()

    def run(conn: Connection[Any]) -> None:
        while (statement := _next(left, turn)) is not None:
            with conn.transaction():
                conn.execute(statement)

    _side_by_side(run, pool)
