"""The database under the queue: SQLite in one file, or PostgreSQL. What is committed has reached the disk."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, cast

import sqlalchemy as sa
from sqlalchemy.engine import URL, Connection, Dialect, Engine, RowMapping, make_url

from ingress.errors import QueueUnreachable
from ingress.model import Event, Hold, State

BUSY_S: Final = 30.0
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LOCK_KEY: Final = 0x496E6772
"""Advisory lock of PostgreSQL that makes the tables only once; any constant would do."""


class Instant(sa.TypeDecorator[datetime]):
    """A time, kept as microseconds since 1970: exact and sortable in every database."""

    impl = sa.BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:  # noqa: ARG002 - its signature
        return None if value is None else (value - _EPOCH) // timedelta(microseconds=1)

    def process_result_value(self, value: int | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002 - the same
        return None if value is None else _EPOCH + timedelta(microseconds=value)


metadata = sa.MetaData()

event = sa.Table(
    "ingress_event",
    metadata,
    sa.Column("seq", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True),
    sa.Column("place", sa.BigInteger, nullable=False),
    sa.Column("id", sa.Text, nullable=False, unique=True),
    sa.Column("app", sa.Text, nullable=False),
    sa.Column("workflow", sa.Text, nullable=False),
    sa.Column("key", sa.Text),
    sa.Column("method", sa.Text, nullable=False),
    sa.Column("path", sa.Text, nullable=False),
    sa.Column("query", sa.Text, nullable=False),
    sa.Column("headers", sa.Text, nullable=False),
    sa.Column("credentials", sa.Text),  # headers that prove who the sender is; gone once the event has ended
    sa.Column("body", sa.LargeBinary, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("received_at", Instant, nullable=False),
    sa.Column("forwarded_at", Instant),
    sa.Column("answered_at", Instant),
    sa.Column("status", sa.Integer),
    sa.Column("run", sa.Text),
    sa.Column("why", sa.Text),
    sa.Column("incident", sa.Text),
    sa.Column("retry_of", sa.Text),
    sa.Column("owner", sa.Text),
    sa.Index("ingress_event_by_key", "app", "workflow", "key"),
    sa.Index("ingress_event_by_state", "app", "state", "place"),
    sa.Index("ingress_event_by_time", "app", "workflow", "forwarded_at"),
    sqlite_autoincrement=True,
)

hold = sa.Table(
    "ingress_hold",
    metadata,
    sa.Column("app", sa.Text, primary_key=True),
    sa.Column("workflow", sa.Text, primary_key=True),
    sa.Column("policy", sa.Text, nullable=False),
    sa.Column("per_s", sa.Float),
    sa.Column("incident", sa.Text),
    sa.Column("since", Instant, nullable=False),
)

route = sa.Table(
    "ingress_route",
    metadata,
    sa.Column("app", sa.Text, primary_key=True),
    sa.Column("method", sa.Text, primary_key=True),
    sa.Column("path", sa.Text, primary_key=True),
    sa.Column("workflow", sa.Text, nullable=False),
    sa.Column("event_key", sa.Text),
)


class Database:
    """An open queue database. Safe to share between threads. Raises ``QueueUnreachable`` on opening and using."""

    def __init__(self, url_or_path: str | os.PathLike[str]) -> None:
        self.url = parse(url_or_path)
        self.sqlite = self.url.drivername == "sqlite"
        self.name = str(self.url.database) if self.sqlite else self.url.render_as_string(hide_password=True)
        if self.sqlite:
            _private_file(Path(str(self.url.database)))
        self._engine = _engine(self.url, sqlite=self.sqlite)
        self._ready = False

    def close(self) -> None:
        self._engine.dispose()

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        with self._session(write=False) as conn:
            yield conn

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """Commits, durably, unless it raises."""
        with self._session(write=True) as conn:
            yield conn

    @contextmanager
    def _session(self, *, write: bool) -> Iterator[Connection]:
        try:
            self._prepare()
            with self._engine.connect().execution_options(queue_write=write) as conn, conn.begin():
                yield conn
        except sa.exc.DBAPIError as error:
            raise self._unreachable(error) from error
        except sa.exc.TimeoutError as error:
            raise self._unreachable(error) from error

    def lock(self, conn: Connection, *names: str, shared: bool = False) -> None:
        """Wait for others that named the same, until the transaction ends. In SQLite a writer is alone anyway."""
        if not self.sqlite:
            number = int.from_bytes(hashlib.sha256("\0".join(names).encode()).digest()[:8], "big", signed=True)
            lock = sa.func.pg_advisory_xact_lock_shared if shared else sa.func.pg_advisory_xact_lock
            conn.execute(sa.select(lock(number)))

    def _prepare(self) -> None:
        if self._ready:
            return
        if self.sqlite:
            # Outside a transaction, where alone the mode can be changed.
            with self._engine.connect() as conn:
                conn.connection.cursor().execute("PRAGMA journal_mode=WAL")
        with self._engine.connect().execution_options(queue_write=True) as conn, conn.begin():
            if not self.sqlite:
                conn.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK_KEY)))
            metadata.create_all(conn)
        self._ready = True

    def _unreachable(self, error: Exception) -> QueueUnreachable:
        cause = " ".join(str(getattr(error, "orig", None) or error).split()[:30])
        return QueueUnreachable(f"event queue {self.name}: {cause}; check that it is reachable, then retry")


def parse(url_or_path: str | os.PathLike[str]) -> URL:
    """A path means SQLite; ``postgresql://`` means PostgreSQL over psycopg."""
    text = os.fspath(url_or_path)
    if "://" not in text:
        return URL.create("sqlite", database=str(Path(text).expanduser().absolute()))
    with contextlib.suppress(sa.exc.ArgumentError):
        url = make_url(text)
        if url.drivername in ("postgresql", "postgres"):
            url = url.set(drivername="postgresql+psycopg")
        if url.drivername == "postgresql+psycopg" or (url.drivername == "sqlite" and url.database):
            return url
    raise QueueUnreachable("event queue: its address is of no use; give a path or postgresql://user@host/database")


def _engine(url: URL, *, sqlite: bool) -> Engine:
    if not sqlite:
        return sa.create_engine(url, pool_size=4, max_overflow=16, pool_pre_ping=True)
    engine = sa.create_engine(url, connect_args={"timeout": BUSY_S, "check_same_thread": False})

    @sa.event.listens_for(engine, "connect")
    def _settings(dbapi_connection: Any, _record: Any) -> None:
        # Transactions are begun below, in the mode they need; the driver would begin them late and deferred.
        dbapi_connection.isolation_level = None
        dbapi_connection.execute("PRAGMA synchronous=FULL")

    @sa.event.listens_for(engine, "begin")
    def _begin(conn: Connection) -> None:
        conn.exec_driver_sql("BEGIN IMMEDIATE" if conn.get_execution_options().get("queue_write") else "BEGIN")

    return engine


def _private_file(path: Path) -> None:
    """The file exists and only its owner may read it; SQLite gives its side files the same mode."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with contextlib.suppress(FileExistsError):
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))
        if path.stat().st_mode & 0o077:
            path.chmod(0o600)
    except OSError as error:
        raise QueueUnreachable(f"event queue {path}: {error.strerror}; check the path and its permissions") from error


def hold_of(row: RowMapping) -> Hold:
    """A held workflow from its row."""
    return Hold(**{name: row[name] for name in ("workflow", "policy", "per_s", "incident", "since")})


FIELDS: Final = tuple(name for name in Event.__dataclass_fields__ if name not in ("headers", "state"))


def event_of(row: RowMapping) -> Event:
    """An event from its row."""
    pairs = [*json.loads(row["headers"]), *json.loads(row["credentials"] or "[]")]
    headers = cast("tuple[tuple[str, str], ...]", tuple((name, value) for name, value in pairs))
    return Event(**{name: row[name] for name in FIELDS}, headers=headers, state=State(row["state"]))
