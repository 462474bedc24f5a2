"""How the journal's own objects are changed: in a transaction of its own, with a short lock timeout and growing pauses,
so that the app waits at most that long for us."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import psycopg
from psycopg import Connection, sql
from psycopg.pq import TransactionStatus

from snapshots.errors import Refused

LOCK_TIMEOUT_MS = 300
ATTEMPTS = 8


def run(conn: Connection[Any], statements: Sequence[str | sql.Composable]) -> list[str]:
    texts = [s if isinstance(s, str) else s.as_string(conn) for s in statements]
    for text in texts:
        conn.execute(text.encode())
    return texts


def patiently(
    conn: Connection[Any], what: str, work: Callable[[], list[str]], sleep: Callable[[float], None]
) -> list[str]:
    """Run ``work`` in a transaction of its own with a short lock timeout, again with growing pauses."""
    for attempt in range(ATTEMPTS):
        try:
            conn.execute(sql.SQL("SET LOCAL lock_timeout = {}").format(sql.Literal(f"{LOCK_TIMEOUT_MS}ms")))
            # Two installs, or a prune that copies a twin while its columns change, would spoil each other.
            conn.execute("SELECT pg_advisory_xact_lock(hashtextextended('reinstate.change', 0))")
            done = work()
            conn.commit()
        except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected):
            conn.rollback()
            if attempt + 1 < ATTEMPTS:
                sleep(0.1 * 2**attempt)
        except psycopg.errors.InsufficientPrivilege as error:
            conn.rollback()
            cause = str(error).splitlines()[0]
            raise Refused(f"{what}: {cause}: run the SQL of the roles command as administrator") from None
        except BaseException:
            conn.rollback()
            raise
        else:
            return done
    raise Refused(f"{what} is too busy: no lock within {LOCK_TIMEOUT_MS} ms in {ATTEMPTS} attempts: try again later")


def require_idle(conn: Connection[Any]) -> None:
    if conn.info.transaction_status != TransactionStatus.IDLE:
        raise Refused("the connection has a transaction open: commit it first, the journal uses its own")
