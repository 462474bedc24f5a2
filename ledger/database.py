"""The database under a ledger: SQLite in one file, or PostgreSQL. Opening, creating, and one writer at a time."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
import uuid
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import URL, Connection, Engine, make_url

from ledger import tables
from ledger.errors import Damaged, LedgerError, Refused, UnknownSchema, Unreachable

BUSY_S: Final = 30.0
"""How long a writer waits for another one."""

_WAL_TRIES: Final = 100

_LOCK_KEY: Final = 0x5265696E
"""Advisory lock of PostgreSQL that serialises writers of a ledger; any constant would do."""


def parse(url_or_path: str | os.PathLike[str]) -> URL:
    """A path means SQLite. ``postgresql://`` means PostgreSQL over psycopg."""
    text = os.fspath(url_or_path)
    if "://" not in text:
        return URL.create("sqlite", database=str(Path(text).expanduser().absolute()))
    try:
        url = make_url(text)
    except sa.exc.ArgumentError:
        raise Refused("ledger: its address is no URL; give a path or postgresql://user@host/database") from None
    if url.drivername in ("postgresql", "postgres"):
        url = url.set(drivername="postgresql+psycopg")
    if url.drivername not in ("sqlite", "postgresql+psycopg"):
        raise Refused(f"ledger: {url.drivername} is not supported; give a path or postgresql://user@host/database")
    if url.drivername == "sqlite" and url.database in (None, "", ":memory:"):
        raise Refused("ledger: a ledger in memory would be forgotten; give the path of a file")
    return url


class Database:
    """An open ledger database. Safe to share between threads; follows a fork of the process."""

    def __init__(self, url: URL) -> None:
        self.url = url
        self.name = url.database if self.sqlite else url.render_as_string(hide_password=True)
        self._engine = self._make()
        self._pid = os.getpid()
        weakref.finalize(self, Engine.dispose, self._engine)

    @property
    def sqlite(self) -> bool:
        return self.url.drivername == "sqlite"

    @property
    def path(self) -> Path | None:
        return Path(str(self.url.database)) if self.sqlite else None

    def close(self) -> None:
        self._engine.dispose()

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """One consistent view. Raises ``Unreachable`` or ``Damaged``."""
        with self._session(write=False) as conn:
            yield conn

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """The only writer, across processes and machines, until the block ends; commits unless it raises."""
        with self._session(write=True) as conn:
            if not self.sqlite:
                conn.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK_KEY)))
            yield conn

    def now(self, conn: Connection) -> datetime:
        """The time for entries and leases: the database server's where there is one, since machines differ."""
        if self.sqlite:
            return datetime.now(UTC)
        return conn.execute(sa.select(sa.func.clock_timestamp())).scalar_one().astimezone(UTC)  # type: ignore[no-any-return]

    def prepare(self) -> str:
        """Create the ledger where there is none; return its id. Raises ``Damaged``, ``UnknownSchema``."""
        if self.path is not None:
            _private_file(self.path)
            self._switch_to_wal()
        with self.reading() as conn:
            ready = self._has_ledger(conn)
        if not ready:
            with self.writing() as conn:
                if not self._has_ledger(conn):
                    self._create(conn)
        with self.reading() as conn:
            values = dict(conn.execute(sa.select(tables.meta.c.name, tables.meta.c.value)).all())
        version = values.get("schema", "")
        if version != str(tables.SCHEMA_VERSION):
            raise UnknownSchema(
                f"ledger {self.name}: written with schema {version or 'unknown'}, this Reinstate knows "
                f"{tables.SCHEMA_VERSION}; use the version of Reinstate that wrote it, or a newer one"
            )
        return str(values["ledger"])

    def missing_triggers(self, conn: Connection) -> Sequence[str]:
        """Names of the append-only triggers that somebody removed, changed or disabled."""
        if self.sqlite:
            rows = conn.execute(sa.text("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'")).all()
            present: dict[str, str] = dict(rows)
            return [name for name, sql in tables.SQLITE_TRIGGERS.items() if present.get(name) != sql]
        query = sa.text(
            "SELECT tgname FROM pg_trigger WHERE tgenabled IN ('O', 'A') "
            "AND tgrelid IN (to_regclass('ledger_entry'), to_regclass('ledger_meta'))"
        )
        names = set(conn.execute(query).scalars())
        return [name for name in tables.POSTGRES_TRIGGERS if name not in names]

    def _make(self) -> Engine:
        if not self.sqlite:
            return sa.create_engine(self.url, pool_size=2, max_overflow=8, pool_pre_ping=True)
        engine = sa.create_engine(self.url, connect_args={"timeout": BUSY_S, "check_same_thread": False})

        @sa.event.listens_for(engine, "connect")
        def _settings(dbapi_connection: Any, _record: Any) -> None:
            # Transactions are begun below, in the mode they need; the driver would begin them late and deferred.
            dbapi_connection.isolation_level = None
            dbapi_connection.execute("PRAGMA synchronous=FULL")

        @sa.event.listens_for(engine, "begin")
        def _begin(conn: Connection) -> None:
            conn.exec_driver_sql("BEGIN IMMEDIATE" if conn.get_execution_options().get("ledger_write") else "BEGIN")

        return engine

    @contextmanager
    def _session(self, *, write: bool) -> Iterator[Connection]:
        if self._pid != os.getpid():
            # A connection must not be used from two processes, nor closed by the one that did not open it.
            self._engine.dispose(close=False)
            self._pid = os.getpid()
        try:
            with self._engine.connect().execution_options(ledger_write=write) as conn, conn.begin():
                yield conn
        except LedgerError:
            raise
        except (sa.exc.OperationalError, sa.exc.InterfaceError, sa.exc.TimeoutError) as error:
            raise Unreachable(f"ledger {self.name}: {_cause(error)}; check that it is reachable, then retry") from error
        except sa.exc.DBAPIError as error:
            raise Damaged(f"ledger {self.name}: {_cause(error)}; verify the ledger before going on") from error

    def _switch_to_wal(self) -> None:
        """Outside any transaction, where alone it works. Who opens a new file at the same moment may be in the way."""
        for attempt in range(_WAL_TRIES):
            try:
                with self._engine.connect() as conn:
                    conn.connection.cursor().execute("PRAGMA journal_mode=WAL")
                return
            except (sa.exc.OperationalError, sqlite3.OperationalError) as error:
                if attempt == _WAL_TRIES - 1:
                    raise Unreachable(f"ledger {self.name}: {_cause(error)}; check the file, then retry") from error
                time.sleep(0.05)
            except (sa.exc.DatabaseError, sqlite3.DatabaseError) as error:
                raise Damaged(
                    f"ledger {self.name}: {_cause(error)}; give the path of a ledger or a new file"
                ) from error

    def _has_ledger(self, conn: Connection) -> bool:
        names = sa.inspect(conn).get_table_names()
        if self.sqlite and names and tables.meta.name not in names:
            raise Damaged(f"ledger {self.name}: a database, but no ledger; give the path of a ledger or of a new file")
        return tables.meta.name in names

    def _create(self, conn: Connection) -> None:
        tables.metadata.create_all(conn)
        conn.execute(
            sa.insert(tables.meta),
            [
                {"name": "schema", "value": str(tables.SCHEMA_VERSION)},
                {"name": "ledger", "value": uuid.uuid4().hex},
                {"name": "created_at", "value": self.now(conn).isoformat()},
            ],
        )
        if not self.sqlite:
            conn.execute(sa.text(tables.POSTGRES_FUNCTION))
        for ddl in (tables.SQLITE_TRIGGERS if self.sqlite else tables.POSTGRES_TRIGGERS).values():
            conn.execute(sa.text(ddl))


def _private_file(path: Path) -> None:
    """The file exists and only its owner may read it; SQLite gives its side files the same mode."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        # Only when it is new: closing any descriptor of the file would drop the locks that this process holds on it
        # through other connections, and another process could then remove the write-ahead log under them.
        with contextlib.suppress(FileExistsError):
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))
        if path.stat().st_mode & 0o077:
            path.chmod(0o600)
    except OSError as error:
        raise Unreachable(f"ledger {path}: {error.strerror}; check the path and its permissions, then retry") from error


def _cause(error: Exception) -> str:
    return " ".join(str(getattr(error, "orig", None) or error).split())
