"""What can stop an undo or a carry. Each message names the object, the cause and the next step in one line.

::

    SnapshotError
    ├── Refused
    │   └── UndoRefused     permanent: the same call never succeeds; plan again
    │       ├── Drift       the data moved further from the plan than its caps allow
    │       └── StepTaken   another plan already applied this step
    └── Unreachable
        ├── UndoBusy        retryable: a lock was not free, or a deadlock was broken; nothing changed
        └── OutcomeUnknown  retryable: the connection broke; ask ``undo.applied`` on a new one what holds
"""

from __future__ import annotations

from snapshots.errors import Refused, Unreachable


class UndoRefused(Refused):
    """Permanent: nothing changed, and trying the same again cannot help."""


class Drift(UndoRefused):
    """The rows recomputed under lock are too far from the planned ones. Plan again and approve the new plan."""


class StepTaken(UndoRefused):
    """This step of this recovery was already applied by a plan with another hash."""


class UndoBusy(Unreachable):
    """Retryable: other sessions held the locks longer than the time-out. Nothing changed."""

    def __init__(self, message: str) -> None:
        super().__init__(message, retryable=True)


class OutcomeUnknown(Unreachable):
    """The connection broke during the step: it happened as a whole or not at all, and ``reinstate.applied`` knows.
    Retryable: the same call on a new connection returns what was done, or does it."""

    def __init__(self, message: str) -> None:
        super().__init__(message, retryable=True)
