"""A catalogue held against what there is. Pure; nothing is repaired here."""

from __future__ import annotations

from collections.abc import Iterator

from catalog.models import App
from discovery.audit_database import database, journal, rights, suites
from discovery.audit_platform import workflows
from discovery.findings import Finding, Reality, Severity, note
from discovery.uses import uses

_ORDER = tuple(Severity)


def audit(app: App, reality: Reality) -> list[Finding]:
    """Every mismatch, the worst first."""
    return sorted(set(_all(app, reality)), key=lambda f: (_ORDER.index(f.severity), f.object, f.what))


def _all(app: App, reality: Reality) -> Iterator[Finding]:
    seen = []
    if reality.platform is not None and reality.database is not None:
        seen = [uses(w, reality.database) for w in reality.platform.workflows]
    if reality.platform is not None:
        yield from workflows(app, reality.platform, seen)
    if reality.database is not None:
        yield from database(app, reality.database)
        yield from rights(app, reality.database, reality)
    if reality.journal is not None:
        yield from journal(app, reality.journal)
    if reality.suites is not None:
        yield from suites(app, reality.suites, reality.database)
    for limit in reality.limits:
        yield note(f"platform {app.platform.kind}", limit.rstrip("."), "Nothing to do: plans count on it")
