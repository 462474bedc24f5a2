"""Which errors may heal by trying again. Permanent or retryable is a type, never a guess from a message."""

from __future__ import annotations


def is_retryable(error: BaseException) -> bool:
    """True for a platform or database that may come back, and for a lock that may be free next time."""
    import psycopg

    from platforms.base import Retryable
    from snapshots.errors import Unreachable

    if isinstance(error, (Retryable, Unreachable)):
        return True
    return isinstance(
        error, (psycopg.OperationalError, psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected)
    )
