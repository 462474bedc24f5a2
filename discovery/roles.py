"""Who writes: the role of each workflow as far as it shows, what a role of its own would need, and everybody else with
write rights. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from discovery.facts import DatabaseFacts
from discovery.guesses import key_of
from discovery.names import dotted, quoted
from discovery.sql_use import ALL
from discovery.uses import WorkflowUse

_DATABASE = re.compile(r"postgre|sql|database|\bdb\b|pg", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True, slots=True)
class RoleGuess:
    """The database role of a workflow. ``exists``: the database has it. ``doubts`` say why it may be another."""

    role: str
    exists: bool
    doubts: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Writer:
    """A role with write rights that is no workflow's: its writes belong to nobody. ``where`` are tables, with their
    columns where only those."""

    role: str
    where: tuple[str, ...]
    owner: bool


def guess(uses: Sequence[WorkflowUse], keys: Mapping[str, str], facts: DatabaseFacts) -> dict[str, RoleGuess]:
    """A role for each workflow, by its id: what its credential's name says, else what its own name says, else one that
    has to be made. No two workflows get the same one. ``keys`` are the catalogue keys by id."""
    known = {r.name for r in facts.roles if r.login and not r.superuser}
    shared = shared_credentials(uses)
    found: dict[str, RoleGuess] = {}
    for use in uses:
        taken = {g.role for g in found.values()}
        said = [c.name for c in use.facts.credentials if _DATABASE.search(c.kind)]
        own = [r for name in said for r in _named(name, known)]
        proposed = f"wf_{keys[use.facts.id].replace('-', '_')}"
        crowd = sorted({other for name in said for other in shared.get(name, ()) if other != use.facts.name})
        if own and own[0] not in taken and not crowd:
            found[use.facts.id] = RoleGuess(role=own[0], exists=True, doubts=_missing(use, own[0], facts))
        elif proposed in known and proposed not in taken:
            why = f"its name fits; its credential ({', '.join(said) or 'none'}) does not tell which role it logs in as"
            found[use.facts.id] = RoleGuess(role=proposed, exists=True, doubts=(why,))
        else:
            why = "proposed: roles.sql makes it; give the workflow a credential that logs in as it"
            if crowd:
                why += f"; now it shares its credential with {', '.join(crowd)}, so nobody can tell their writes apart"
            found[use.facts.id] = RoleGuess(role=_free(proposed, taken), exists=proposed in known, doubts=(why,))
    return found


def shared_credentials(uses: Sequence[WorkflowUse]) -> dict[str, tuple[str, ...]]:
    """Names of database credentials that several workflows use, with those workflows."""
    users: dict[str, list[str]] = {}
    for use in uses:
        for credential in use.facts.credentials:
            if _DATABASE.search(credential.kind):
                users.setdefault(credential.name, []).append(use.facts.name)
    return {name: tuple(sorted(set(w))) for name, w in users.items() if len(set(w)) > 1}


def writers(facts: DatabaseFacts, tables: Collection[str], known: Collection[str]) -> tuple[Writer, ...]:
    """Login roles that may write ``tables`` and are none of ``known`` (roles of workflows and of Reinstate)."""
    by_role: dict[str, list[str]] = {}
    owners = {facts.tables[t].owner for t in tables if t in facts.tables}
    for right in facts.rights:
        if right.table in tables and right.writes and right.role not in known:
            some = set()
            for columns in (right.insert, right.update):
                some |= {ALL} if columns is None else set(columns)
            parts = "" if right.delete or ALL in some else f" ({', '.join(sorted(some))})"
            by_role.setdefault(right.role, []).append(right.table + parts)
    return tuple(Writer(role=r, where=tuple(w), owner=r in owners) for r, w in sorted(by_role.items()))


def grants(use: WorkflowUse, role: str, facts: DatabaseFacts) -> Iterator[str]:
    """The SQL that gives ``role`` what the workflow needs and no more."""
    who = quoted(role)
    sql = use.sql
    tables = sorted(t for t in {*use.sql.reads, *use.sql.finds, *sql.writes} if t in facts.tables)
    for schema in sorted({t.partition(".")[0] for t in tables}):
        yield f"GRANT USAGE ON SCHEMA {quoted(schema)} TO {who};"
    for table in tables:
        rights = ["SELECT"]
        if table in sql.inserts:
            rights.append("INSERT")
        columns = sql.updates.get(table, set())
        if ALL in columns:
            rights.append("UPDATE")
        elif columns:
            rights.append(f"UPDATE ({', '.join(quoted(c) for c in sorted(columns))})")
        if table in sql.deletes:
            rights.append("DELETE")
        yield f"GRANT {', '.join(rights)} ON {dotted(table)} TO {who};"
    for table in sorted(sql.inserts):
        serial = [c.default for c in facts.tables[table].columns if c.default and c.default.startswith("nextval(")]
        for default in serial:
            sequence = default.removeprefix("nextval('").partition("'")[0]
            yield f"GRANT USAGE ON SEQUENCE {sequence} TO {who};"


def _missing(use: WorkflowUse, role: str, facts: DatabaseFacts) -> tuple[str, ...]:
    """What the role would need and does not have: it may be another one."""
    may = {r.table for r in facts.rights if r.role == role and r.writes}
    lacking = sorted(use.sql.writes - may)
    return (f"role {role} may not write {', '.join(lacking)}: is it another one?",) if lacking else ()


def _named(text: str, roles: Collection[str]) -> list[str]:
    """Roles whose name stands in ``text``, the longest first."""
    words = {text, *re.split(r"[\s,;:()@/]+", text)}
    found = [r for r in roles if r in words or key_of(r) == key_of(text)]
    return sorted(found, key=lambda r: (-len(r), r))


def _free(name: str, taken: Collection[str]) -> str:
    number = 2
    free = name
    while free in taken:
        free, number = f"{name}_{number}", number + 1
    return free
