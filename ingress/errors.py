"""Why the ingress does not go on. Each message names the object, the cause and the next step in one line."""

from __future__ import annotations


class IngressError(Exception):
    """Base of this room's errors."""


class QueueUnreachable(IngressError):
    """The database of events cannot be opened, read or written."""


class UnknownEvent(IngressError, LookupError):
    """No event of that id is kept."""


class WrongState(IngressError):
    """The event is not where this can be done to it."""
