"""Errors of this room. One tree, by what the caller can do about it.

* :class:`SnapshotError`: base; its message is one line naming object, cause and next step.

  * :class:`Refused`: doing it would be wrong now; nothing was changed.
  * :class:`Incomplete`: the journal cannot vouch for the range asked for; carries the gap.
  * :class:`Unreachable`: no connection; ``retryable`` tells whether waiting can help.
"""

from __future__ import annotations

from snapshots.model import Gap


class SnapshotError(Exception):
    """Something about the app's data could not be done."""


class Refused(SnapshotError):
    """Permanent until the named cause is removed. Nothing was changed."""


class Incomplete(SnapshotError):
    """The journal may have missed changes in the range. A diff against a recovery point can be offered instead."""

    def __init__(self, message: str, gap: Gap | None = None) -> None:
        super().__init__(message)
        self.gap = gap


class Unreachable(SnapshotError):
    """The database did not let us in. ``retryable`` is false for a wrong password or an unknown database."""

    def __init__(self, message: str, *, retryable: bool) -> None:
        super().__init__(message)
        self.retryable = retryable
