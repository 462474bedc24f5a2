"""What can go wrong with recovery points. Each message names the object, the cause and the next step in one line.

* worth trying again: :class:`StoreUnreachable` (if ``retryable``), :class:`StoreBusy`, :class:`LogicMoved`,
  :class:`Busy`;
* trying again cannot help: :class:`Damaged`, and everything that is a :class:`snapshots.errors.Refused`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from psycopg import errors

from snapshots import locks
from snapshots.errors import Refused, SnapshotError, Unreachable


class StoreUnreachable(Unreachable):
    """The store could not be read or written. ``retryable`` is false when it refuses us or is not a folder."""

    def __init__(self, message: str, *, retryable: bool = True) -> None:
        super().__init__(message, retryable=retryable)


class StoreFull(StoreUnreachable):
    """No room for another object. Nothing half written is left."""


class StoreBusy(SnapshotError):
    """Somebody else is at work in the store who must not be disturbed. Nothing changed; try again later."""


class BadKey(Refused):
    """What was given as an encryption key cannot be one."""


class KeyMissing(Refused):
    """The store is encrypted, and the key that opens it is not among those given."""


class NotEncrypted(Refused):
    """The store holds objects that are not encrypted although a key is given: they could be anybody's."""


class Damaged(SnapshotError):
    """An object of the store is missing, cut or altered. Use another point, or a copy of the store."""


class PointMissing(Refused):
    """The store has no such point."""


class UnknownFormat(Refused):
    """The manifest was written by a later version of Reinstate."""


class BadName(Refused):
    """An address or name that no store can have."""


class WorkflowMissing(Refused):
    """The platform does not have the workflow that the catalogue names, or has it twice."""


class LogicMoved(SnapshotError):
    """The logic changed during every attempt to capture. Capture again once the deployment is over."""


class TableMissing(Refused):
    """A table of the catalogue or the point does not exist in the database, or not in the point."""


class ShapeChanged(Refused):
    """The table's columns are not those of the point: its rows do not fit."""


class CapPassed(Refused):
    """The restore would change more than its caps, or its plan, allow."""


class WouldBreak(Refused):
    """The restored rows would not fit the rest of the database. Everything was rolled back."""


class StepApplied(Refused):
    """This step of this recovery was already applied by a plan with another hash."""


class NotEmpty(Refused):
    """A copy is restored only into empty tables."""


class Busy(SnapshotError):
    """Other sessions held the locks for too long, or a deadlock was broken. Nothing changed; try again."""


@contextmanager
def translated() -> Iterator[None]:
    """PostgreSQL's own refusals, as errors of this room."""
    try:
        yield
    except (errors.LockNotAvailable, errors.DeadlockDetected, errors.SerializationFailure) as error:
        raise Busy(f"The tables are in use ({locks.cause(error)}); try again.") from error
    except errors.InsufficientPrivilege as error:
        raise Refused(f"The role may not do this ({error.diag.message_primary}); apply `reinstate roles`.") from error
    except errors.UndefinedTable as error:
        raise Refused(f"{error.diag.message_primary}; install the journal's schema (`reinstate journal`).") from error
    except errors.OperationalError as error:
        cause = error.diag.message_primary or type(error).__name__
        raise Unreachable(
            f"The database gave up in the middle ({cause}); nothing was changed; try again.", retryable=True
        ) from error
    except errors.DatabaseError as error:
        if error.sqlstate == "RJ003":
            raise Refused(f"{error.diag.message_primary}; install the journal again.") from error
        raise
