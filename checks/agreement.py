"""Logic and data fit: named clauses, each a question to the platform or the database with its answer in one line.

A clause that does not hold is *drift*; drift stops a recovery at a safe state. Clauses are asked after each major step,
those of that step and of all before it. Each question is asked again every time: nothing is remembered. A clause that
does not hold says what to do next.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import psycopg

from catalog.models import App
from checks.model import Clause, SuiteReport
from checks.statements import Fit
from platforms.base import Platform
from snapshots.database import columns, qualified
from snapshots.errors import Refused
from snapshots.journal.journal import transactions
from snapshots.model import Position

SHOWN = 5
WRITING = ("INSERT", "UPDATE", "DELETE")


def check(*clauses: Clause | Iterable[Clause]) -> list[Clause]:
    """All clauses, flat, in the order given."""
    return [c for one in clauses for c in ([one] if isinstance(one, Clause) else one)]


def drift(clauses: Iterable[Clause]) -> list[Clause]:
    """Those that do not hold: not empty means stop."""
    return [c for c in clauses if not c.holds]


def live_version(platform: Platform, workflow_id: str, *, workflow: str, planned: str, paused: bool) -> Clause:
    """Production runs the planned content; while paused, that is what would run next (the saved content). A saved
    content is never taken for a live one: a restored draft leaves production on the old version."""
    name, step = f"live-version:{workflow}", f"reinstate workflow publish {workflow} {planned[:12]}"
    if paused:
        if (live := platform.live_version(workflow_id)) is not None:
            says = f"is active with {live.hash[:12]} though it should be paused"
            return _clause(name, False, says, "find out who activated it, then `reinstate contain` again")
        found, kind = platform.draft_version(workflow_id).hash, "saved (paused)"
    else:
        version = platform.live_version(workflow_id)
        if version is None:
            return _clause(name, False, f"runs nothing; planned is {planned[:12]}", f"`{step} --activate`")
        found, kind = version.hash, "live"
    says = f"{kind} is {found[:12]}" + ("" if found == planned else f", planned is {planned[:12]}")
    return _clause(name, found == planned, says, f"`{step}`, or `reinstate protect` if the new version is meant")


def settings(platform: Platform, workflow_id: str, *, workflow: str, planned: str) -> Clause:
    """Name and settings of the workflow are the planned ones, where the platform keeps them apart from versions."""
    saved = platform.draft_version(workflow_id).settings_hash
    holds = saved in ("", planned)
    says = "as planned" if holds else f"saved are {saved[:12]}, planned {planned[:12]}; someone changed them"
    step = f"see `reinstate workflow history {workflow}`; publish the version again to bring its settings back"
    return _clause(f"settings:{workflow}", holds, says, step)


def present(*, workflow: str, found: bool) -> Clause:
    """The platform has the workflow."""
    says = "it is in the platform" if found else "it is gone from the platform"
    return _clause(f"present:{workflow}", found, says, f"`reinstate workflow publish {workflow}` makes it again")


def credentials(problems: Sequence[str], *, looked_at: int) -> Clause:
    """Every credential that the definitions name is there, readable, accepted and the one of when all was good.
    ``problems`` are sentences that end in what to do."""
    says = _some(problems) if problems else f"{looked_at} credentials are as they were"
    return _clause("credentials", not problems, says, "mend or explain each, then ask again")


def definitions(fit: Fit) -> Clause:
    """Tables and columns that the definitions use exist, and their types hold what they held."""
    left = f"; {fit.unsure} cannot be judged without a run" if fit.unsure else ""
    says = _some(fit.wrong) if fit.wrong else f"{fit.sure} uses of tables fit{left}"
    step = "bring the column back, or publish a version that fits: `reinstate workflow diff`"
    return _clause("definitions", not fit.wrong, says, step)


def data_undone(remaining: Callable[[], Sequence[str]]) -> Clause:
    """Planning the data step again finds nothing. ``remaining`` plans it and returns what it would still do."""
    left = list(remaining())
    return _clause(
        "data-undone",
        not left,
        _some(left) if left else "planning it again finds nothing to do",
        "`reinstate recover --continue`",
    )


def no_late_writes(
    conn: psycopg.Connection[Any], *, roles: Collection[str], since: Position, allowed: Collection[int] = ()
) -> Clause:
    """No transaction of ``roles`` committed after the pause was proven at ``since``, but for ``allowed`` ones: the
    recovery's own replay and canary, which write as these roles. Role of the connection: capturer or recoverer."""
    known = set(allowed)
    late = [t for t in transactions(conn, since=since, actors=sorted(roles)) if t.xid not in known]
    says = [
        f"{t.actor} wrote {t.rows} rows at {t.last_at.isoformat(timespec='milliseconds')} (xid {t.xid})" for t in late
    ]
    clean = f"no writes by {', '.join(sorted(roles))}"
    step = "`reinstate contain` proves the pause again, then `reinstate plan` counts those writes in"
    return _clause("no-late-writes", not late, _some(says) if late else clean, step)


def active_set(platform: Platform, ids: Mapping[str, str], *, expected: Collection[str]) -> Clause:
    """Exactly the ``expected`` workflows (catalogue keys) are active. ``ids`` maps keys to the platform's ids."""
    active_ids = {w.id for w in platform.workflows() if w.active}
    active = {key for key, id_ in ids.items() if id_ in active_ids}
    missing, extra = sorted(set(expected) - active), sorted(active - set(expected))
    says = [*(f"{k} is not active" for k in missing), *(f"{k} is active" for k in extra)]
    clean = f"active: {', '.join(sorted(active)) or 'none'}"
    step = "activate or deactivate them in the platform, or `reinstate protect` if it is meant"
    return _clause("active-set", not says, _some(says) if says else clean, step)


def schema(conn: psycopg.Connection[Any], app: App) -> Clause:
    """The tables and columns that the workflows read and write exist; any role that sees them."""
    wrong: list[str] = []
    known: dict[str, set[str] | None] = {}
    places = sorted({(p, w.key) for w in app.workflows for p in (*w.reads, *w.writes)})
    for place, workflow in places:
        table, column = ".".join(place.split(".")[:2]), "".join(place.split(".")[2:])
        if table not in known:
            known[table] = _columns(conn, table)
        have = known[table]
        if have is None:
            wrong.append(f"table {table} of {workflow} does not exist")
        elif column and column not in have:
            wrong.append(f"column {place} of {workflow} does not exist")
    clean = f"{len(places)} places exist"
    return _clause("schema", not wrong, _some(wrong) if wrong else clean, "bring them back, or correct the catalogue")


def _columns(conn: psycopg.Connection[Any], table: str) -> set[str] | None:
    try:
        return {c.name for c in columns(conn, table)}
    except Refused:
        return None


def credentials_roles(conn: psycopg.Connection[Any], app: App, *, fenced: Collection[str]) -> Clause:
    """Each workflow's role exists, may log in, and may write what its workflow writes exactly when it is not among
    the ``fenced`` (role names). A fenced role with any write right left, or a free one without, is drift."""
    wrong: list[str] = []
    for workflow in app.workflows:
        role = workflow.role
        row = conn.execute("SELECT rolcanlogin FROM pg_catalog.pg_roles WHERE rolname = %s", (role,)).fetchone()
        if row is None:
            wrong.append(f"role {role} of {workflow.key} does not exist")
            continue
        if not row[0]:
            wrong.append(f"role {role} of {workflow.key} may not log in")
        # A fence takes away every write, also to tables the catalogue does not know the workflow writes.
        places = [t.name for t in app.tables] if role in fenced else list(workflow.writes)
        for place in places:
            rights = _rights(conn, role, place)
            if rights is None:
                wrong.append(f"{place} of {workflow.key} does not exist")
            elif role in fenced and rights:
                wrong.append(f"role {role} is fenced but may {', '.join(rights)} on {place}")
            elif role not in fenced and not rights:
                wrong.append(f"role {role} may not write {place}")
    says = f"{len(app.workflows)} roles, fenced: {', '.join(sorted(fenced)) or 'none'}"
    step = (
        "grant what is missing, or `reinstate contain` to fence again; `reinstate roles --print-sql` lists the grants"
    )
    return _clause("credentials-roles", not wrong, _some(wrong) if wrong else says, step)


def _rights(conn: psycopg.Connection[Any], role: str, place: str) -> list[str] | None:
    """The write privileges of ``role`` on a table or one of its columns; ``None`` if that does not exist."""
    parts = place.split(".")
    table = ".".join(parts[:2])
    have = _columns(conn, table)
    if have is None or (len(parts) == 3 and parts[2] not in have):
        return None
    target = qualified(table).as_string(conn)
    found = []
    for privilege in WRITING:
        row = conn.execute("SELECT has_table_privilege(%s, %s, %s)", (role, target, privilege)).fetchone()
        held = bool(row and row[0])
        if not held and privilege != "DELETE":
            if len(parts) == 3:
                query, given = "SELECT has_column_privilege(%s, %s, %s, %s)", (role, target, parts[2], privilege)
                row = conn.execute(query, given).fetchone()
            else:
                row = conn.execute("SELECT has_any_column_privilege(%s, %s, %s)", (role, target, privilege)).fetchone()
            held = bool(row and row[0])
        if held:
            found.append(privilege)
    return found


def suites(report: SuiteReport) -> Clause:
    """The report passed, and something ran."""
    holds = report.passed and report.ran > 0
    says = [r.detail or r.expectation for r in report.failed] or ["nothing ran"]
    clean = f"{report.ran} expectations hold"
    step = "`reinstate diagnose` finds the cause; `reinstate undo` or `reinstate restore` bring the rows back"
    return _clause("suites", holds, clean if holds else _some(says), step)


def _clause(name: str, holds: bool, detail: str, step: str = "") -> Clause:
    return Clause(name=name, holds=holds, detail=detail, next="" if holds else step)


def _some(items: Sequence[str]) -> str:
    more = len(items) - SHOWN
    return "; ".join(items[:SHOWN]) + (f"; and {more} more" if more > 0 else "")
