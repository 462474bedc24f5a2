"""Which errors may heal by trying again. Permanent or retryable is a type, never a guess from a message."""

from __future__ import annotations


def is_retryable(error: BaseException) -> bool:
    """True for a platform, database, store or ledger that may come back, and for a lock that may be free next time."""
    import psycopg

    from ledger.errors import Unreachable as LedgerUnreachable
    from platforms.base import Retryable
    from snapshots.errors import Unreachable
    from snapshots.points.errors import Busy, LogicMoved

    if isinstance(error, Unreachable):
        return error.retryable
    return isinstance(
        error,
        (
            Retryable,
            LedgerUnreachable,
            Busy,
            LogicMoved,
            psycopg.OperationalError,
            psycopg.errors.LockNotAvailable,
            psycopg.errors.DeadlockDetected,
        ),
    )


def heals(error: BaseException) -> bool:
    """True when the recovery itself met no obstacle: its surroundings (platform, database, ledger, Prefect's server)
    went away for longer than it retried. Recorded with ``recovery.stopped``, so that it is continued without a person
    once they are back; a refusal or a failed proof never is."""
    import httpx

    if is_retryable(error) or isinstance(error, httpx.TransportError | httpx.HTTPStatusError):
        return True
    # Prefect's own errors are told by their home: this room does not import it. A cancelled run is a person's will.
    kind = type(error)
    return kind.__module__.partition(".")[0] == "prefect" and kind.__name__ != "CancelledRun"
