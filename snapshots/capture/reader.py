"""A session that reads rows straight into Arrow, on a snapshot that another session holds.

It runs PostgreSQL's binary COPY through ADBC, in C and without the interpreter's lock, so that readers in threads work
side by side. Values come as :func:`chunks.select_list` asks for them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import adbc_driver_manager
import pyarrow as pa
from adbc_driver_postgresql import StatementOptions, dbapi
from psycopg import conninfo

from snapshots.errors import Refused, SnapshotError, Unreachable
from snapshots.model import ColumnInfo
from snapshots.points import chunks

BATCH_BYTES = 4 * 1024 * 1024
_SETTINGS = {**chunks.SETTINGS, "search_path": "pg_catalog"}
"""With nothing but ``pg_catalog`` in the path, names inside values (regclass and its like) print in full."""


class Reader:
    """One session of the capturer on the exported snapshot ``snapshot_id``; close it. For one thread at a time.

    The snapshot must be held by its exporter until the reader is closed. Raises :class:`Unreachable`.
    """

    def __init__(self, dsn: str, snapshot_id: str, *, beside: Reader | None = None) -> None:
        """``beside``: another reader of the same database, from which this one takes what it knows of types."""
        self._dsn = dsn
        with _translated(dsn):
            if beside is not None:
                self._conn: Any = beside._conn.adbc_clone()
            else:
                given = {name: str(value) for name, value in conninfo.conninfo_to_dict(dsn).items()}
                given.setdefault("connect_timeout", "10")
                given["application_name"] = "reinstate capture"
                self._conn = dbapi.connect(conninfo.make_conninfo("", **given))
        try:
            with _translated(dsn), self._conn.cursor() as cursor:
                cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
                cursor.execute(f"SET TRANSACTION SNAPSHOT '{_plain(snapshot_id)}'")
                settled = ", ".join(f"set_config('{n}', '{v}', true)" for n, v in _SETTINGS.items())
                cursor.execute(f"SELECT {settled}")
                cursor.fetchall()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def batches(self, query: str, columns: Sequence[ColumnInfo]) -> Iterator[pa.RecordBatch]:
        """What ``query`` selects for ``columns``, in batches of about ``BATCH_BYTES`` with :func:`chunks.schema`."""
        layout = chunks.schema(columns)
        with _translated(self._dsn), self._conn.cursor() as cursor:
            cursor.adbc_statement.set_options(**{StatementOptions.BATCH_SIZE_HINT_BYTES.value: str(BATCH_BYTES)})
            cursor.execute(query)
            with cursor.fetch_record_batch() as stream:
                for batch in stream:
                    yield batch.cast(layout)

    def close(self) -> None:
        with contextlib.suppress(adbc_driver_manager.Error):
            self._conn.close()


def _plain(snapshot_id: str) -> str:
    """Ids look like ``00000003-0000001B-1``; nothing else goes into a statement."""
    if not snapshot_id.replace("-", "").isalnum():
        raise Refused(f"{snapshot_id!r} is not the id of an exported snapshot; export it again.")
    return snapshot_id


@contextlib.contextmanager
def _translated(dsn: str) -> Iterator[None]:
    """ADBC's errors as errors of this room; their text, without the password, is PostgreSQL's own."""
    try:
        yield
    except adbc_driver_manager.Error as error:
        raise translated(error, dsn) from None


def translated(error: Any, dsn: str) -> SnapshotError:
    """What an ADBC error means for a capture."""
    text = str(error)
    password = conninfo.conninfo_to_dict(dsn).get("password")
    if password:
        text = text.replace(str(password), "***")
    lines = [line.strip() for line in text.splitlines() if line.strip() and "Query was:" not in line]
    cause = next((line for line in lines if "ERROR:" in line or "FATAL:" in line), lines[0] if lines else "no message")
    cause = cause.partition("ERROR:")[2].strip() or cause.partition("FATAL:")[2].strip() or cause
    state = error.sqlstate or ""
    if state == "42501" or "permission denied" in cause or "row-level security" in cause:
        return Refused(f"The role may not do this ({cause}); apply `reinstate roles`.")
    if state[:2] in ("08", "57", "53", "40", "55") or not state:
        return Unreachable(
            f"The database gave up in the middle ({cause}); nothing was published; try again.", retryable=True
        )
    return Refused(f"The rows could not be read ({cause}, SQLSTATE {state}); nothing was published.")
