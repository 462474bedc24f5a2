"""Tables of a draft: keys, business keys, relations, counters, what is public, what triggers do. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from discovery import guesses
from discovery.facts import ColumnFact, DatabaseFacts, TableFact, TriggerFact
from discovery.look import Seen
from discovery.uses import WorkflowUse, body
from discovery.yaml_writer import Noted, unsure

ENOUGH_UNIQUE = 50
_TELLS = re.compile(r"pg_notify|\bnotify\b|dblink|http_|pg_net|\bnet\.http|postgres_fdw", re.IGNORECASE)


def table(name: str, seen: Seen, uses: Sequence[WorkflowUse]) -> Any:
    """One entry of ``tables:``."""
    fact, profile = seen.database.tables[name], seen.profiles[name]
    item: dict[str, Any] = {"name": name, "key": list(fact.key)}
    about = []
    if not fact.key:
        about.append("it has no primary key: name what identifies a row, or it is copied in full and never undone")
    if profile.problem:
        about.append(f"its rows were not looked at: {profile.problem}")
    if not any(name in u.tables for u in uses):
        about.append("no workflow names it: it is here because tables of the app refer to it, or it to them")
    if found := unique(name, seen):
        item["unique"] = unsure([list(u) for u in found], "no constraint says so; no value occurs twice so far")
    if held := seen.held.get(name):
        item["references"] = unsure(
            [{"columns": list(r.columns), "table": r.table, "to": list(r.to)} for r in held],
            "no foreign key says so; the name does, and every row has its parent so far",
        )
    if counted := additive(name, uses, fact):
        item["additive"] = Noted(value=counted, note=("Workflows add to it, so an undo takes back the difference.",))
    item["public"] = public(name, seen)
    if private := personal(name, seen):
        why = "; ".join(f"{c}: {w}" for c, w in private.items())
        item["public"] = Noted(value=item["public"], note=(f"Personal, so masked: {why}.",))
    if fact.triggers:
        item["triggers"], derived = _triggers(fact, seen.database)
        inside = [t for t in derived if t in seen.tables]
        if inside:
            item["derives"] = inside
    at, others = event_time(fact, uses)
    if at:
        item["event_time"] = unsure(at, f"it may also be {', '.join(others)}") if others else at
    if who := guesses.subject(list(private)):
        item["subject"] = unsure(who, "the column by which `reinstate erase` finds a person")
    return Noted(value=item, unsure=tuple(about)) if about else item


def unique(name: str, seen: Seen) -> tuple[tuple[str, ...], ...]:
    """Business keys that no constraint enforces: quotable names without a value that occurs twice."""
    fact, profile = seen.database.tables[name], seen.profiles[name]
    if profile.sampled or profile.looked < ENOUGH_UNIQUE:
        return ()
    pointers = {c for r in (*fact.foreign_keys, *seen.held.get(name, ())) for c in r.columns}
    known = {k[0] for k in (fact.key, *fact.unique) if len(k) == 1}
    found = []
    for column in fact.columns:
        facts = profile.column(column.name)
        if facts is None or column.name in known | pointers or column.category not in "SN":
            continue
        filled = profile.looked - facts.nulls
        if guesses.business_key(column.name) and facts.distinct == filled >= ENOUGH_UNIQUE:
            found.append((column.name,))
    return tuple(found)


def additive(name: str, uses: Sequence[WorkflowUse], fact: TableFact) -> list[str]:
    """Numbers that workflows only ever add to or take from."""
    counted = {c for u in uses for c in u.sql.counters.get(name, ())}
    set_otherwise = {c for u in uses for c in u.sql.not_counters.get(name, ())}
    return [c.name for c in fact.columns if c.name in counted - set_otherwise and c.category == "N"]


def personal(name: str, seen: Seen) -> dict[str, str]:
    """Columns that seem to be about a person, with the reason; references to people's tables among them."""
    fact, profile = seen.database.tables[name], seen.profiles[name]
    found = {}
    for column in fact.columns:
        facts = profile.column(column.name)
        if column.category in "SUA" and column.type != "uuid":
            why = guesses.personal(name, column.name, emails=facts.emails if facts else 0.0)
            if why:
                found[column.name] = why
    for reference in (*fact.foreign_keys, *seen.held.get(name, ())):
        if guesses.about_people(reference.table) and len(reference.columns) == 1:
            found.setdefault(reference.columns[0], f"it points at a row of {reference.table}")
    return found


def public(name: str, seen: Seen) -> list[str]:
    """Columns whose values may be shown: keys, numbers, times, flags and small sets, unless they are about a person.
    Free text is masked."""
    fact, profile = seen.database.tables[name], seen.profiles[name]
    private = personal(name, seen)
    keys = {c for k in (fact.key, *fact.unique, *unique(name, seen)) for c in k}
    keys |= {c for r in (*fact.foreign_keys, *seen.held.get(name, ())) for c in r.columns}

    def shown(column: ColumnFact) -> bool:
        facts = profile.column(column.name)
        plain = column.category in "NBDE" or column.type == "uuid" or column.name in keys
        return column.name not in private and (
            plain or bool(facts and facts.values and not guesses.free_text(column.name))
        )

    return [c.name for c in fact.columns if shown(c)]


def event_time(fact: TableFact, uses: Sequence[WorkflowUse]) -> tuple[str | None, list[str]]:
    """The column with the business time of a row, and others that it may be."""
    times = [c for c in fact.columns if c.category == "D" and not c.type.startswith(("time ", "interval"))]
    times = [c for c in times if not guesses.is_clock(c.name)]
    if not times:
        return None, []
    inserted = {c for u in uses for c in u.sql.inserts.get(fact.name, ())}
    ranked = sorted(
        times,
        key=lambda c: (not guesses.is_time(c.name), c.name.startswith("created"), c.name not in inserted),
    )
    best = ranked[0]
    rivals = [c.name for c in ranked[1:] if guesses.is_time(c.name) == guesses.is_time(best.name)]
    return best.name, rivals


def _triggers(fact: TableFact, database: DatabaseFacts) -> tuple[Any, list[str]]:
    """What an undo does with each trigger, as a guess from its function, and the tables that they maintain."""
    found: dict[str, Any] = {}
    derived: list[str] = []
    for trigger in fact.triggers:
        writes = sorted(t for t in body(trigger.body, database).writes if t in database.tables)
        derived += [t for t in writes if t not in derived]
        found[trigger.name] = unsure("suppress", _why(trigger, writes))
    return found, derived


def _why(trigger: TriggerFact, writes: Sequence[str]) -> str:
    told = f"guessed from its function {trigger.function}: "
    if _TELLS.search(trigger.body):
        return f"{told}it tells somebody outside; `fire` if they have to hear of an undo as well"
    if writes:
        return f"{told}it writes {', '.join(writes)}, which is in the journal and comes back with the rest"
    if trigger.before:
        return f"{told}it sets columns of the row itself, which come back with it"
    return f"{told}nothing that it writes is seen in it"
