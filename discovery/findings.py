"""What an audit says: one thing that does not fit, how bad it is, and what to do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from discovery.facts import DatabaseFacts, PlatformFacts
from snapshots.journal.journal import Status


class Severity(StrEnum):
    ERROR = "error"
    """A recovery would fail, or miss something."""
    WARNING = "warning"
    """A recovery would do less than it could."""
    NOTE = "note"
    """Good to know."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """``object`` is what it is about (``workflow payment``), ``what`` is wrong with it, ``next`` what to do."""

    severity: Severity
    object: str
    what: str
    next: str

    def __str__(self) -> str:
        return f"{self.severity}: {self.object}: {self.what}. {self.next}"


@dataclass(frozen=True, kw_only=True, slots=True)
class SuiteFacts:
    """One suite, as far as an audit needs it: the columns that its expectations name."""

    name: str
    table: str
    columns: frozenset[str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Reality:
    """What there is. A part that could not be looked at is ``None``, and says so itself as a finding."""

    platform: PlatformFacts | None
    database: DatabaseFacts | None
    journal: Status | None = None
    suites: tuple[SuiteFacts, ...] | None = None
    installer: str = ""
    capturer: str = ""
    recoverer: str = ""
    owned: Mapping[str, bool] = field(default_factory=dict)
    """For each table, whether the installer owns it or belongs to its owner."""
    fenced: frozenset[str] = frozenset()
    """Roles whose rights are withdrawn now because their workflow is contained."""
    limits: tuple[str, ...] = ()
    """What the platform cannot do, in sentences."""


def error(about: str, what: str, then: str) -> Finding:
    return Finding(severity=Severity.ERROR, object=about, what=what, next=then)


def warning(about: str, what: str, then: str) -> Finding:
    return Finding(severity=Severity.WARNING, object=about, what=what, next=then)


def note(about: str, what: str, then: str) -> Finding:
    return Finding(severity=Severity.NOTE, object=about, what=what, next=then)
