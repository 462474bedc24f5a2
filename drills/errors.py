"""What can go wrong in a drill itself, as opposed to in what it tests."""

from __future__ import annotations


class DrillError(Exception):
    """The drill cannot go on: object, cause and next step in one line."""


class PlatformRefused(DrillError):
    """The platform of the example app answered a request of the drill with an error."""


class DrillHeld(DrillError):
    """Another drill of the same home is running."""


class NoSuchDrill(DrillError):
    """No scorecard of that name is kept."""


class StageFailed(DrillError):
    """A stage of a drill failed; the drill's scorecard says which and why."""
