"""Exit codes, mapped once. Errors are named, not imported: a start must not load what it does not use."""

from __future__ import annotations

from typing import Final

OK: Final = 0
UNEXPECTED: Final = 1
USAGE: Final = 2
CATALOGUE: Final = 3
UNREACHABLE: Final = 4
REFUSED: Final = 5
NOT_PROVEN: Final = 6
HELD: Final = 7
NOTHING: Final = 8

MEANING: Final = {
    OK: "done",
    UNEXPECTED: "an error nobody foresaw; nothing is assumed about its effect: look at `reinstate status`",
    USAGE: "the command line is off, or a question was answered with no; nothing was changed",
    CATALOGUE: "the catalogue, a suite or a secret is missing or malformed; nothing was changed",
    UNREACHABLE: "the platform, the database, the store, a file or the Prefect server cannot be reached or refuses us",
    REFUSED: "it may not be done now (gap, cap, conflict, unverified point, missing approval), or a look found "
    "something open (an incident, a gap); nothing was changed",
    NOT_PROVEN: "a pause, a verification or a resume was not proven; the app is in a safe, paused state",
    HELD: "another recovery of the same app, or other work in its store, is running; its holder is named",
    NOTHING: "there is nothing to do: no such incident, point or recovery",
}

BY_ERROR: Final = {
    "catalog.errors.CatalogError": CATALOGUE,
    "discovery.errors.NothingFound": NOTHING,
    "discovery.errors.DiscoveryError": REFUSED,
    "checks.errors.Undiagnosed": REFUSED,
    "checks.errors.CheckError": CATALOGUE,
    "platforms.base.PlatformError": UNREACHABLE,
    "snapshots.errors.Unreachable": UNREACHABLE,
    "psycopg.OperationalError": UNREACHABLE,
    "psycopg.InterfaceError": UNREACHABLE,
    "psycopg.errors.InsufficientPrivilege": UNREACHABLE,
    "builtins.OSError": UNREACHABLE,
    "estate.errors.EstateError": UNREACHABLE,
    "console.errors.Unreachable": UNREACHABLE,
    "console.errors.BadUse": USAGE,
    "snapshots.points.errors.PointMissing": NOTHING,
    "snapshots.points.errors.BadKey": CATALOGUE,
    "snapshots.points.errors.KeyMissing": CATALOGUE,
    "snapshots.points.errors.StoreBusy": HELD,
    "drills.errors.DrillHeld": HELD,
    "drills.errors.NoSuchDrill": NOTHING,
    "drills.errors.DrillError": NOT_PROVEN,
    "snapshots.errors.SnapshotError": REFUSED,
    "recovery.errors.NothingToRecover": NOTHING,
    "recovery.errors.Refused": REFUSED,
    "recovery.errors.RecoveryError": NOT_PROVEN,
    "ledger.errors.LeaseHeld": HELD,
    "ledger.errors.LeaseLost": HELD,
    "ledger.errors.Refused": REFUSED,
    "ledger.errors.Damaged": REFUSED,
    "ledger.errors.UnknownSchema": REFUSED,
    "ledger.errors.LedgerError": UNREACHABLE,
    "incidents.errors.IncidentError": NOTHING,
    "ingress.errors.UnknownEvent": NOTHING,
    "ingress.errors.WrongState": REFUSED,
    "ingress.errors.IngressError": UNREACHABLE,
}
"""Most specific class first is not needed: the error's own ancestry decides."""


def code(error: BaseException) -> int:
    """The exit code of an error: that of its nearest named ancestor."""
    for ancestor in type(error).__mro__:
        found = BY_ERROR.get(f"{ancestor.__module__}.{ancestor.__qualname__}")
        if found is not None:
            return found
    return UNEXPECTED
