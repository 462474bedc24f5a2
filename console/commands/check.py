"""`reinstate check`: hold the catalogue against the platform and the database."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from console import exits, output
from console.options import DEFAULT_CATALOG, AppKey, Catalog, Json, opened

if TYPE_CHECKING:
    from discovery.findings import Finding, SuiteFacts
    from recovery.context import AppContext, Role


def register(app: typer.Typer) -> None:
    app.command()(check)


def check(catalog: Catalog = DEFAULT_CATALOG, app: AppKey = None, as_json: Json = False) -> None:
    """Hold the catalogue against reality: workflows, tables, columns, triggers, roles, credentials, event keys, journal
    and suites. Changes nothing.

    Each finding says what it is about, what is wrong and what to do. Exit code 5 while there is an error; warnings and
    notes alone are no failure.

    Examples: `reinstate check -c shop`, `reinstate check --json`.
    """
    with opened(catalog, app) as ctx:
        found = findings(ctx, say=output.progress)
        name = ctx.app.key
    counts = {kind: sum(1 for f in found if f.severity == kind) for kind in ("error", "warning", "note")}
    output.emit({"app": name, **counts, "findings": output.plain(found)}, as_json=as_json)
    if not as_json:
        for finding in found:
            output.say(str(finding))
        said = ", ".join(f"{n} {kind}{'' if n == 1 else 's'}" for kind, n in counts.items())
        output.say(f"{name}: {said}" if found else f"{name}: the catalogue fits what there is")
    if counts["error"]:
        raise typer.Exit(exits.REFUSED)


def findings(ctx: AppContext, *, say: Callable[[str], None] = lambda _: None) -> list[Finding]:
    """Everything that does not fit. A part that is out of reach is itself a finding."""
    from discovery import platform as live
    from discovery.audit import audit
    from discovery.findings import Reality, error
    from platforms.base import PlatformError
    from recovery import setup

    found: list[Finding] = []
    seen = None
    limits: tuple[str, ...] = ()
    try:
        seen = live.facts(ctx.platform, say)
        limits = _limits(ctx)
    except PlatformError as problem:
        found.append(error("platform", str(problem), "Check `platform:` in the catalogue, its key, and that it runs"))
    say("reading the database")
    known = _database(ctx, found)
    suites, problem_of_suites = _suites(ctx.suites)
    if problem_of_suites:
        found.append(error("suites", problem_of_suites, "Nothing counts as verified until they load"))
    reality = Reality(
        platform=seen,
        suites=suites,
        installer=setup.user(ctx, "installer"),
        capturer=setup.user(ctx, "capturer"),
        recoverer=setup.user(ctx, "recoverer"),
        limits=limits,
        **known,
    )
    return [*found, *audit(ctx.app, reality)]


def _limits(ctx: AppContext) -> tuple[str, ...]:
    from platforms.limits import limits

    return limits(ctx.platform.capabilities)


def _database(ctx: AppContext, found: list[Finding]) -> dict[str, Any]:
    """Facts of the database as the capturer sees them, and whether the other two roles get in at all."""
    from discovery import database
    from discovery.findings import error
    from snapshots.errors import SnapshotError
    from snapshots.journal import journal

    roles: tuple[Role, ...] = ("installer", "recoverer", "capturer")
    known: dict[str, Any] = {"database": None}
    for role in roles:
        try:
            with ctx.connect(role, "check") as connection:
                if role == "capturer":
                    tables = [t.name for t in ctx.app.tables]
                    known["database"] = database.facts(connection)
                    known["journal"] = journal.status(connection, expected=tables)
                    known["fenced"] = database.fenced(connection)
                elif role == "installer":
                    known["owned"] = database.owned(connection, [t.name for t in ctx.app.tables])
        except SnapshotError as problem:
            found.append(error(f"database as {role}", str(problem), "Check the address in secrets.env and the role"))
    return known


def _suites(folder: Path) -> tuple[tuple[SuiteFacts, ...] | None, str | None]:
    from checks import suite_files
    from checks.errors import SuiteBroken
    from discovery.findings import SuiteFacts

    try:
        files = suite_files.read(folder)
    except SuiteBroken as problem:
        return None, str(problem)
    return tuple(SuiteFacts(name=f.name, table=f.table, columns=_columns(f.expectations)) for f in files), None


def _columns(expectations: tuple[dict[str, Any], ...]) -> frozenset[str]:
    """The columns that expectations name, those inside queries apart."""
    found: set[str] = set()
    for item in expectations:
        given = item["kwargs"]
        for name in ("column", "column_A", "column_B"):
            if isinstance(given.get(name), str):
                found.add(given[name])
        for name in ("column_list", "column_set"):
            found.update(c for c in given.get(name) or () if isinstance(c, str))
    return frozenset(found)
