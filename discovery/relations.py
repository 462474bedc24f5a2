"""Which tables belong to the app, and which relations hold between them although no constraint says so. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from discovery.facts import DatabaseFacts, ForeignKey, TableFact
from discovery.uses import WorkflowUse, body


def app_tables(uses: Iterable[WorkflowUse], facts: DatabaseFacts) -> tuple[str, ...]:
    """Tables that workflows touch, what triggers on them write, what they refer to, and what refers to them."""
    found = {t for use in uses for t in use.tables if t in facts.tables}
    while True:
        more = {
            other
            for table in found
            for other in (
                *(r.table for r in facts.tables[table].foreign_keys),
                *(t for trigger in facts.tables[table].triggers for t in body(trigger.body, facts).writes),
            )
            if other in facts.tables
        }
        if more <= found:
            break
        found |= more
    children = {t.name for t in facts.tables.values() if any(r.table in found for r in t.foreign_keys)}
    return tuple(sorted(found | children))


def possible_references(table: TableFact, tables: Sequence[TableFact]) -> Iterator[ForeignKey]:
    """Relations that names and types suggest: ``order_id`` to the key of ``orders``, ``sku`` to the table keyed by
    ``sku``. The rows have to decide."""
    taken = {c for r in table.foreign_keys for c in r.columns}
    for column in table.columns:
        if column.name in taken or (column.name,) == table.key:
            continue
        for parent in tables:
            if len(parent.key) != 1 or parent.name == table.name:
                continue
            key = parent.column(parent.key[0])
            if key is None or key.type != column.type:
                continue
            if _points(column.name, key.name, parent.name):
                yield ForeignKey(columns=(column.name,), table=parent.name, to=(key.name,))
                break


def _points(column: str, key: str, table: str) -> bool:
    bare = table.partition(".")[2]
    flat = column.lower().replace("_", "")
    for stem in _stems(bare.lower().replace("_", "")):
        if flat == stem + key.lower().replace("_", ""):
            return True
    return column == key and key.lower() not in ("id", "key", "name", "code", "uuid", "type")


def _stems(name: str) -> Iterator[str]:
    yield name
    if name.endswith("ies"):
        yield name[:-3] + "y"
    if name.endswith("es"):
        yield name[:-2]
    if name.endswith("s"):
        yield name[:-1]
