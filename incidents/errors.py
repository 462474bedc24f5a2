"""What can go wrong with incidents. One line each: the object, the cause, the next step. All permanent."""

from __future__ import annotations


class IncidentError(Exception):
    """Base of this room's errors."""


class UnknownIncident(IncidentError):
    """There is no incident of that id."""


class AlreadyClosed(IncidentError):
    """A closed incident stays closed; further trouble is a new one."""


class NotSent(IncidentError):
    """A notice did not go out; the message says why, without secrets."""
