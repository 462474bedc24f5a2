"""A catalogue's app from what was seen, as a tree of values with what is unsure about them. Pure.

Whatever is a guess carries its reason; what nobody can see from outside (who owns it, how long it may be away) gets a
place to be filled in. Everything that a draft switches on only warns, until a person lets it do more.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from discovery import draft_tables, guesses, roles, suites
from discovery.detectors import detectors
from discovery.facts import WorkflowFacts
from discovery.look import Seen
from discovery.names import short
from discovery.roles import RoleGuess, Writer
from discovery.uses import WorkflowUse
from discovery.yaml_writer import Doubt, Noted, doubts, unsure
from platforms.base import EntryKind

NOBODY = "nobody yet"
_READING = ("", "GET", "HEAD", "OPTIONS")


@dataclass(frozen=True, kw_only=True, slots=True)
class References:
    """Where the secrets of the app are found: ``env:NAME`` or ``file:PATH`` each."""

    url: str
    api_key: str
    installer: str
    capturer: str
    recoverer: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Draft:
    """``app`` is the tree for :mod:`discovery.yaml_writer`; ``suites`` by file name. ``roles`` are by workflow key."""

    app: Mapping[str, Any]
    suites: Mapping[str, Mapping[str, Any]]
    roles: Mapping[str, RoleGuess]
    keys: Mapping[str, str]
    """Catalogue keys of the workflows by their id in the platform."""
    writers: tuple[Writer, ...]
    remarks: tuple[Doubt, ...]
    """What is unsure and stands at no place in the tree."""

    @property
    def doubts(self) -> tuple[Doubt, ...]:
        """Everything that a person has to look at."""
        return (*doubts(self.app), *self.remarks)


@dataclass(frozen=True, kw_only=True, slots=True)
class Known:
    """What a catalogue says already. Roles of Reinstate write on purpose."""

    workflow_keys: Mapping[str, str] = field(default_factory=dict)
    """Keys by the workflow's name."""
    workflow_roles: Mapping[str, str] = field(default_factory=dict)
    tables: Collection[str] = ()
    own_roles: Collection[str] = ()


def draft(key: str, title: str, seen: Seen, references: References, known: Known | None = None) -> Draft:
    """The app ``key`` with every workflow that touches a table of the database, or is called by one that does."""
    known = known or Known()
    involved = _involved(seen)
    keys = _keys([u.facts for u in involved], known)
    guessed = roles.guess(involved, keys, seen.database)
    guessed = {
        i: RoleGuess(role=known.workflow_roles[keys[i]], exists=True) if keys[i] in known.workflow_roles else g
        for i, g in guessed.items()
    }
    tables = {t: draft_tables.table(t, seen, involved) for t in seen.tables}
    masked = {t: draft_tables.personal(t, seen) for t in seen.tables}
    checks = {}
    for name in seen.tables:
        bare = short(set(seen.tables), name)
        checks[f"{bare}.json"] = suites.suite(
            seen.database.tables[name],
            seen.profiles[name],
            name=bare,
            references=seen.held.get(name, ()),
            unique=draft_tables.unique(name, seen),
            totals=seen.totals,
            masked=set(masked[name]),
            now=seen.now,
        )
    app = {
        "key": key,
        "title": title,
        "owner": unsure(NOBODY, "write in who answers for the app, and who stands in for them (also at each workflow)"),
        "deputy": NOBODY,
        "tier": unsure("high", "critical, high, normal or low: what is more critical than the autonomy allows waits"),
        "platform": {"kind": seen.platform.kind, "url": references.url, "api_key": references.api_key},
        "database": {
            "installer": references.installer,
            "capturer": references.capturer,
            "recoverer": references.recoverer,
        },
        "objectives": unsure(
            {"rto_s": 900, "rpo_s": 3600, "goals": []},
            "how long may it be away, how much may be lost (seconds), and what must be true afterwards?",
        ),
        "workflows": [_workflow(u, involved, keys, guessed) for u in involved],
        "tables": [tables[t] for t in seen.tables],
        "detectors": detectors(seen, involved, {t: draft_tables.unique(t, seen) for t in seen.tables}),
        "suites": "checks",
        "connectors": _connectors(involved),
    }
    mine = {g.role for g in guessed.values()} | set(known.own_roles)
    return Draft(
        app={k: v for k, v in app.items() if v != []},
        suites=checks,
        roles={keys[i]: g for i, g in guessed.items()},
        keys=keys,
        writers=roles.writers(seen.database, seen.tables, mine),
        remarks=tuple(_remarks(seen, involved, mine)),
    )


def _involved(seen: Seen) -> list[WorkflowUse]:
    """Workflows that touch the database, and those that call them or are called by them."""
    found = list(seen.uses)
    while True:
        names = {n for u in found for n in (u.facts.id, u.facts.name)}
        called = {c for u in found for c in u.calls}
        more = [
            u
            for u in seen.others
            if u not in found and (called & {u.facts.id, u.facts.name} or names.intersection(u.calls))
        ]
        if not more:
            return sorted(found, key=lambda u: u.facts.name)
        found += more


def _keys(workflows: Sequence[WorkflowFacts], known: Known) -> dict[str, str]:
    found: dict[str, str] = {}
    for workflow in workflows:
        base = known.workflow_keys.get(workflow.name) or guesses.key_of(workflow.name)
        key, number = base, 2
        while key in found.values():
            key, number = f"{base}-{number}", number + 1
        found[workflow.id] = key
    return found


def _workflow(
    use: WorkflowUse, every: Sequence[WorkflowUse], keys: Mapping[str, str], guessed: Mapping[str, RoleGuess]
) -> Any:
    facts = use.facts
    role = guessed[facts.id]
    about = list(use.unsure)
    if sum(1 for u in every if u.facts.name == facts.name) > 1:
        about.append("another workflow has the same name: workflows are found by name, rename one in the platform")
    if not facts.active:
        about.append("it is not active in the platform: does it still belong to the app?")
    callers = [keys[u.facts.id] for u in every if u is not use and {facts.id, facts.name} & set(u.calls)]
    item: dict[str, Any] = {
        "key": keys[facts.id],
        "name": facts.name,
        "role": unsure(role.role, *role.doubts),
        "owner": NOBODY,
        "deputy": NOBODY,
        "trigger": _trigger(facts),
        "reads": [_read(table, columns) for table, columns in use.reads.items()],
        "writes": list(use.writes),
    }
    if callers:
        item["downstream"] = Noted(value=sorted(callers), note=("They call it.",))
    elif followers := _followers(use, every, keys):
        item["downstream"] = unsure(
            [], f"{', '.join(followers)} read what it writes; name those that must pause when it does"
        )
    steps = _steps(use)
    if steps:
        item["steps"] = steps
    return Noted(value=item, unsure=tuple(about)) if about else item


def _read(table: str, columns: Sequence[str]) -> Any:
    shown = [c for c in columns if c != "*"]
    return Noted(value=table, note=(f"of it: {', '.join(shown)}",)) if shown else table


def _trigger(facts: WorkflowFacts) -> Any:
    """What starts it, the entry from outside before others."""
    kinds = [e.kind for e in facts.outline.entries]
    if EntryKind.WEBHOOK in kinds:
        guess = guesses.event_paths(facts.events)
        item: dict[str, Any] = {"kind": "webhook"}
        if guess.key:
            item["event_key"] = guess.key
        if guess.time:
            item["event_time"] = guess.time
        return unsure(item, *guess.doubts)
    if EntryKind.SCHEDULE in kinds:
        return unsure(
            {"kind": "schedule", "replay": "discard"},
            "a run of a schedule has no event to replay: does its next run make up for one that was undone?",
        )
    if EntryKind.CALL in kinds:
        return Noted(value={"kind": "manual", "replay": "discard"}, note=("Other workflows start it.",))
    if EntryKind.EVENT in kinds:
        return unsure(
            {"kind": "manual", "replay": "discard"},
            "something inside the platform starts it; its events cannot be sent again from outside",
        )
    why = () if EntryKind.MANUAL in kinds else ("nothing in its definition says what starts it",)
    return unsure({"kind": "manual", "replay": "discard"}, *why)


def _followers(use: WorkflowUse, every: Sequence[WorkflowUse], keys: Mapping[str, str]) -> list[str]:
    made = {*use.sql.inserts}
    return sorted(keys[u.facts.id] for u in every if u is not use and made & set(u.reads))


def _steps(use: WorkflowUse) -> list[Any]:
    """Nodes with effects: rows come back by themselves, what a call did elsewhere does not."""
    found: list[Any] = []
    for part in use.nodes:
        node = part.node
        method = str(node.parameters.get("method") or node.parameters.get("requestMethod") or "").upper()
        if part.writes:
            found.append({"name": node.name, "node": node.name, "inverse": "reversible"})
        elif node.hosts and method not in _READING:
            where = ", ".join(node.hosts)
            step = {
                "name": node.name,
                "node": node.name,
                "inverse": "irreversible",
                "critical": False,
                "manual": f"Take back by hand what {node.name} did at {where}.",
            }
            found.append(unsure(step, f"it calls {where}: declare a compensation where the other side has one"))
    return found


def _connectors(uses: Sequence[WorkflowUse]) -> list[Any]:
    by_host: dict[str, list[str]] = {}
    for use in uses:
        for host in use.hosts:
            by_host.setdefault(host, []).append(use.facts.name)
    return [
        {"key": guesses.key_of(host), "what": f"{host}, called by {', '.join(names)}", "owner": NOBODY}
        for host, names in sorted(by_host.items())
    ]


def _remarks(seen: Seen, involved: Sequence[WorkflowUse], known: Collection[str]) -> list[Doubt]:
    """What is unsure about the app as a whole."""
    found = [Doubt(where="platform", why=p) for p in seen.platform.problems]
    for writer in roles.writers(seen.database, seen.tables, known):
        who = "owns tables, and" if writer.owner else "it is no workflow's role, and"
        why = f"{who} may write {', '.join(writer.where)}: who uses it? Its writes belong to no workflow"
        found.append(Doubt(where=f"role {writer.role}", why=why))
    for name, users in sorted(roles.shared_credentials(involved).items()):
        why = f"{', '.join(users)} share it, so nobody can tell their writes apart or fence one alone"
        found.append(Doubt(where=f"credential {name!r}", why=why))
    found += [
        Doubt(
            where=f"table {name}",
            why=f"{', '.join(reference.columns)} looks like a reference to {reference.table}, and some rows have no "
            "parent there: if it is one, declare it and repair them",
        )
        for name in sorted(seen.broken)
        for reference in seen.broken[name]
    ]
    outside = sorted({t.name for t in seen.database.tables.values()} - set(seen.tables))
    if outside:
        some = f"{', '.join(outside[:12])}{f' and {len(outside) - 12} more' if len(outside) > 12 else ''}"
        found.append(Doubt(where="database", why=f"no workflow uses {some}: they are left out"))
    return found
