"""Tables, roles, journal and suites of a catalogue against the database. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from catalog.models import App, Table, Workflow
from discovery import roles
from discovery.facts import DatabaseFacts, Right, TableFact
from discovery.findings import Finding, Reality, SuiteFacts, error, note, warning
from snapshots.journal.journal import Status

_ROLES_NEXT = "Let an administrator run what `reinstate roles --print-sql` prints"


def database(app: App, facts: DatabaseFacts) -> Iterator[Finding]:
    """Every declared table with its columns, triggers and relations; tables that refer to them undeclared."""
    declared = {t.name for t in app.tables}
    for table in app.tables:
        fact = facts.tables.get(table.name)
        if fact is None:
            what = "it is a view" if table.name in facts.views else f"database {facts.name} has no such table"
            yield error(f"table {table.name}", what, "Correct `tables:`, or restore it with `reinstate restore`")
            continue
        yield from _table(table, fact, facts, declared)
    for fact in facts.tables.values():
        parents = sorted({r.table for r in fact.foreign_keys} & declared)
        if fact.name not in declared and parents:
            yield warning(
                f"table {fact.name}",
                f"it refers to {', '.join(parents)} and is not declared",
                "Declare it: what refers to an undone row has to be known",
            )
    for detector in app.detectors:
        of = facts.tables.get(detector.table)
        for column in detector.columns:
            if of is not None and column not in of.names:
                yield error(f"detector {detector.key}", f"{detector.table} has no column {column}", "Correct it")


def _table(table: Table, fact: TableFact, facts: DatabaseFacts, declared: set[str]) -> Iterator[Finding]:
    about = f"table {table.name}"
    for field, columns in _columns(table):
        for column in columns:
            if column not in fact.names:
                yield error(about, f"`{field}:` names column {column}, which it does not have", "Correct the catalogue")
    for reference in table.references:
        parent = facts.tables.get(reference.table)
        for column in reference.to:
            if parent is not None and column not in parent.names:
                yield error(about, f"a reference names {reference.table}.{column}, which is not there", "Correct it")
    key = tuple(table.key) or fact.key
    if not key:
        yield warning(about, "it has no key, so its rows are never undone", "Give it a primary key, or declare `key:`")
    elif set(key) <= fact.names and not any(set(k) <= set(key) for k in (fact.key, *fact.unique) if k):
        yield warning(about, f"nothing enforces that its key ({', '.join(key)}) is unique", "Add a unique constraint")
    mine = {t.name for t in fact.triggers}
    for trigger in sorted(set(table.triggers) - mine):
        yield error(about, f"it has no trigger {trigger}", "Correct `triggers:`")
    for trigger in sorted(mine - set(table.triggers)):
        yield error(
            about,
            f"nothing says what an undo does with its trigger {trigger}, so it refuses",
            "Declare it under `triggers:` as suppress, fire or derived",
        )
    for parent_name in sorted({r.table for r in fact.foreign_keys} - declared):
        yield warning(about, f"it refers to {parent_name}, which is not declared", "Declare it under `tables:`")


def _columns(table: Table) -> Iterator[tuple[str, Iterable[str]]]:
    yield "key", table.key
    yield "additive", table.additive
    yield "public", table.public
    yield "event_time", [table.event_time] if table.event_time else []
    yield "subject", [table.subject] if table.subject else []
    yield "unique", [c for columns in table.unique for c in columns]
    yield "references", [c for r in table.references for c in r.columns]


def rights(app: App, facts: DatabaseFacts, reality: Reality) -> Iterator[Finding]:
    """Roles of the workflows and of Reinstate, with what they need and no more; and everybody else who writes."""
    tables = [t.name for t in app.tables if t.name in facts.tables]
    of = {(r.role, r.table): r for r in facts.rights}
    for workflow in app.workflows:
        yield from _workflow_role(workflow, facts, of, tables, fenced=workflow.role in reality.fenced)
    for table in tables:
        may = of.get((reality.capturer, table))
        if reality.capturer and not (may and may.select) and not _super(facts, reality.capturer):
            yield error(f"role {reality.capturer}", f"the capturer may not read {table}", _ROLES_NEXT)
        may = of.get((reality.recoverer, table))
        whole = may is not None and may.insert is None and may.update is None and may.delete
        if reality.recoverer and not whole and not _super(facts, reality.recoverer):
            yield error(f"role {reality.recoverer}", f"the recoverer may not write all of {table}", _ROLES_NEXT)
        if not reality.owned.get(table, True):
            yield error(f"role {reality.installer}", f"the installer does not own {table}", _ROLES_NEXT)
    for role in {reality.installer, reality.capturer, reality.recoverer} - {""}:
        if _super(facts, role):
            yield warning(f"role {role}", "it is a superuser", "Give Reinstate roles of its own: `reinstate roles`")
    known = {w.role for w in app.workflows} | {reality.installer, reality.capturer, reality.recoverer}
    for writer in roles.writers(facts, tables, known):
        yield warning(
            f"role {writer.role}",
            f"it may write {', '.join(writer.where)}, and no workflow has it",
            "Find out who uses it; what it writes is never undone with a workflow",
        )


def _workflow_role(
    workflow: Workflow, facts: DatabaseFacts, of: dict[tuple[str, str], Right], tables: Sequence[str], *, fenced: bool
) -> Iterator[Finding]:
    about, role = f"role {workflow.role}", facts.role(workflow.role)
    if role is None:
        yield error(about, f"workflow {workflow.key} should write as it, and there is no such role", _ROLES_NEXT)
        return
    if role.superuser:
        yield error(
            about, f"workflow {workflow.key} writes as a superuser, so no fence holds it", "Give it a plain role"
        )
        return
    if not role.login:
        yield error(about, "it cannot log in, so no credential can use it", "ALTER ROLE ... LOGIN")
    if fenced:
        yield note(about, "its rights are withdrawn: the workflow is contained", "`reinstate resume` gives them back")
        return
    for name in workflow.writes:
        table, column = ".".join(name.split(".")[:2]), ".".join(name.split(".")[2:])
        if table in facts.tables and not _may_write(of.get((workflow.role, table)), column):
            yield warning(
                about, f"it may not write {name}, as workflow {workflow.key} does", "Grant it, or correct `role:`"
            )
    listed = {".".join(n.split(".")[:2]) for n in workflow.writes}
    for table in tables:
        right = of.get((workflow.role, table))
        if facts.tables[table].owner == workflow.role:
            yield error(about, f"it owns {table}, so no fence holds it", "Give the table to another role")
        elif right is not None and right.writes and table not in listed:
            text = f"it may write {table}, which `writes:` of workflow {workflow.key} does not list"
            yield warning(about, text, "Revoke the right, or list the table")


def _may_write(right: Right | None, column: str) -> bool:
    if right is None:
        return False
    if not column:
        return right.insert != frozenset() or right.delete or right.update is None
    return any(columns is None or column in columns for columns in (right.insert, right.update))


def _super(facts: DatabaseFacts, name: str) -> bool:
    role = facts.role(name)
    return role is not None and role.superuser


def journal(app: App, status: Status) -> Iterator[Finding]:
    """The journal: there, on every table, without a gap."""
    if not status.installed:
        yield error("journal", "it is not installed, so nothing can be undone", "Run `reinstate journal install`")
        return
    for table in status.missing:
        yield error(f"table {table}", "its changes are not journaled", "Run `reinstate journal install`")
    for gap in status.gaps:
        yield error(
            f"journal of {gap.table}",
            f"it misses changes since {gap.at:%Y-%m-%d %H:%M} UTC: {gap.kind}, {gap.detail}",
            "See `reinstate journal status`; `reinstate journal install` mends most of it",
        )
    if status.past:
        yield note(
            "journal",
            f"{len(status.past)} gaps lie in the past",
            "Nothing is undone across them: `reinstate journal status`",
        )
    declared = {t.name for t in app.tables}
    for journaled in status.tables:
        if journaled.table not in declared:
            yield warning(f"table {journaled.table}", "it is journaled and not declared", "Declare it under `tables:`")


def suites(app: App, found: Sequence[SuiteFacts], facts: DatabaseFacts | None) -> Iterator[Finding]:
    """Each table has a suite, and each suite names what is there."""
    declared = {t.name for t in app.tables}
    covered = {s.table for s in found}
    for table in sorted(declared - covered):
        yield warning(f"table {table}", "no suite checks it", "Add one; `reinstate discover` drafts it")
    for suite in found:
        if suite.table not in declared:
            yield warning(
                f"suite {suite.name}", f"table {suite.table} is not declared", "Declare it, or drop the suite"
            )
        fact = facts.tables.get(suite.table) if facts is not None else None
        if facts is not None and fact is None:
            yield error(f"suite {suite.name}", f"there is no table {suite.table}", "Correct the suite")
        elif fact is not None:
            for column in sorted(suite.columns - fact.names):
                yield error(f"suite {suite.name}", f"{suite.table} has no column {column}", "Correct the suite")
