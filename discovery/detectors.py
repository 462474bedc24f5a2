"""Detectors of a draft: what the watcher should look for first. Pure. All of them only warn, until somebody has seen
that they keep quiet while all is well."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from discovery import guesses
from discovery.draft_tables import event_time, personal
from discovery.facts import ForeignKey
from discovery.look import Seen
from discovery.names import dotted, quoted, short
from discovery.sums import Total
from discovery.uses import WorkflowUse
from discovery.yaml_writer import Noted

ENOUGH_ROWS = 100
DELETED_PERCENT = 5


def detectors(
    seen: Seen, uses: Sequence[WorkflowUse], unique: Mapping[str, Sequence[Sequence[str]]]
) -> Sequence[Any] | Noted:
    """Entries of ``detectors:``; an empty list where nothing was seen to watch for."""
    found: list[dict[str, Any]] = []
    inserted = {t for u in uses for t in u.sql.inserts}
    written = {t for u in uses for t in u.sql.writes}
    for table in seen.tables:
        bare = short(set(seen.tables), table)
        found += _keys(seen, table, bare, unique.get(table, ()))
        rows = seen.profiles[table].rows
        if table in written and rows >= ENOUGH_ROWS:
            found.append(
                _of(f"{bare} deleted", "mass-delete", table, percent_floor=DELETED_PERCENT,
                    min_rows=max(20, rows // 100), severity="sev1", impact=f"A large part of {table} is gone.")
            )  # fmt: skip
        if table in inserted:
            found += _drifts(seen, uses, table, bare)
    found += [_rule(total, short(set(seen.tables), total.parent)) for total in seen.totals]
    taken: set[str] = set()
    for item in found:
        base = guesses.key_of(item["key"])
        item["key"] = next(k for k in (base, *(f"{base}-{n}" for n in range(2, len(found) + 2))) if k not in taken)
        taken.add(item["key"])
    if not found:
        return []
    why = "set `contain: true` for those that have kept quiet for some days: they then pause the workflows to blame"
    return Noted(value=found, unsure=(why,))


def _keys(seen: Seen, table: str, bare: str, unique: Sequence[Sequence[str]]) -> list[dict[str, Any]]:
    """Business keys that occur twice, and references that lead nowhere."""
    twice = [
        _of(f"{bare} {' '.join(key)} twice", "duplicates", table, columns=list(key), severity="sev2",
            impact=f"One {', '.join(key)} stands for two rows.")
        for key in unique
    ]  # fmt: skip
    alone = [
        _of(f"{bare} without {short(set(seen.tables), reference.table)}", "orphans", table,
            reference=_reference(reference), severity="sev2",
            impact=f"Rows refer to one of {reference.table} that is not there.")
        for reference in seen.held.get(table, ())
    ]  # fmt: skip
    return twice + alone


def _of(key: str, kind: str, table: str, **rest: Any) -> dict[str, Any]:
    return {"key": key, "kind": kind, "table": table, **rest, "contain": False}


def _reference(reference: ForeignKey) -> dict[str, Any]:
    return {"columns": list(reference.columns), "table": reference.table, "to": list(reference.to)}


def _drifts(seen: Seen, uses: Sequence[WorkflowUse], table: str, bare: str) -> list[dict[str, Any]]:
    """How many rows come, and how large their numbers are, against what is usual."""
    fact, profile = seen.database.tables[table], seen.profiles[table]
    at, _ = event_time(fact, uses)
    if at is None or profile.rows < ENOUGH_ROWS:
        return []
    found = [
        _of(f"{bare} volume", "volume-drift", table, min_rows=20, percent_floor=60, severity="sev3",
            impact=f"Many more or fewer rows of {table} than usual.")
    ]  # fmt: skip
    hidden = {*fact.key, *personal(table, seen), *(c for r in fact.foreign_keys for c in r.columns)}
    given = {c for u in uses for c in u.sql.inserts.get(table, ())}
    for column in fact.columns:
        seen_of = profile.column(column.name)
        many = seen_of is not None and (seen_of.distinct or 0) >= 20
        if column.category == "N" and many and column.name not in hidden and column.name in given:
            found.append(
                _of(f"{bare} {column.name}", "value-drift", table, columns=[column.name], min_rows=20,
                    percent_floor=40, severity="sev3", impact=f"{column.name} is much higher or lower than usual.")
            )  # fmt: skip
    return found


def _rule(total: Total, bare: str) -> dict[str, Any]:
    """A total that does not fit its parts. Rows without any part are left to other detectors: their run may go on."""
    own, to = quoted(total.reference.columns[0]), quoted(total.reference.to[0])
    only = f" AND x.{quoted(total.only)}" if total.only else ""
    term = " * ".join(f"x.{part}" for part in total.term.split(" * "))
    parts = f"FROM {dotted(total.child)} AS x WHERE x.{own} = r.{to}{only}"
    condition = f"NOT EXISTS (SELECT 1 {parts})\nOR r.{quoted(total.column)} = (SELECT sum({term}) {parts})"
    return _of(f"{bare} {total.column} is a sum", "rule", total.parent, columns=[total.column], sql=condition,
               grace_s=20, severity="sev2", impact=f"{total.said}; it no longer is.")  # fmt: skip
