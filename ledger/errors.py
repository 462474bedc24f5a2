"""What can go wrong in this room. One line each: the object, the cause, the next step.

LedgerError
+-- Unreachable   (retryable: locked, connection refused, disk full)
+-- Refused       (permanent: the caller asks for something the ledger must not hold)
+-- Damaged       (permanent: what is stored is not what was written)
+-- UnknownSchema (permanent: written by another version of Reinstate)
+-- LeaseHeld     (retryable: somebody else is at work on the app)
+-- LeaseLost     (permanent: this holder must stop at once)
"""

from __future__ import annotations

from datetime import datetime


class LedgerError(Exception):
    """Base of everything raised by the ledger; ``retryable`` says whether trying again may help."""

    retryable = False


class Unreachable(LedgerError):
    """The ledger cannot be read or written right now."""

    retryable = True


class Refused(LedgerError):
    """The ledger will not record this, however often it is asked."""


class Damaged(LedgerError):
    """What is stored is not a ledger, or no longer the one that was written."""


class UnknownSchema(LedgerError):
    """The ledger was written by a version of Reinstate that this one does not know."""


class LeaseHeld(LedgerError):
    """Somebody else is at work on the app. Names the holder, since when, and what to do."""

    retryable = True

    def __init__(self, *, app: str, holder: str, since: datetime, until: datetime, where: str) -> None:
        self.app = app
        self.holder = holder
        self.since = since
        self.until = until
        super().__init__(
            f"{app}: {holder} ({where}) has been at work on it since {since:%Y-%m-%d %H:%M:%S} UTC; wait until it "
            f"ends, or end that process: its lease then passes on at once, at the latest at {until:%H:%M:%S} UTC"
        )


class LeaseLost(LedgerError):
    """The lease passed to somebody else or ran out: this holder must not act any more."""
