"""What each workflow does to the database and to others, from its outline. Pure.

``reads`` answers one question: whose damage could this workflow carry on? So a column that only finds the row to be
written, a key of such a row, and a counter's own value do not count; the parent of a reference that it writes does.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from discovery.facts import DatabaseFacts, TableFact, WorkflowFacts
from discovery.sql_use import ALL, SqlUse
from discovery.tables_in_sql import read
from platforms.base import Access, Node, TableUse

_WRITING = re.compile(
    r"\b(INSERT\s+INTO|UPDATE\s+(?!OF\b)[\w.\"]+\s+|DELETE\s+FROM|MERGE\s+INTO|TRUNCATE)\b.*?(?=;|\Z)",
    re.IGNORECASE | re.DOTALL,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class NodeUse:
    """One node that does something outside the workflow."""

    node: Node
    use: SqlUse

    @property
    def writes(self) -> bool:
        return bool(self.use.writes)


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkflowUse:
    """One workflow's effects. ``reads`` maps tables to the columns that count (none: only that the row is there);
    ``writes`` is in the catalogue's form; ``calls`` are ids or names of workflows, as the platform gives them."""

    facts: WorkflowFacts
    sql: SqlUse
    reads: dict[str, tuple[str, ...]]
    writes: tuple[str, ...]
    nodes: tuple[NodeUse, ...]
    calls: tuple[str, ...]
    hosts: tuple[str, ...]
    unsure: tuple[str, ...]

    @property
    def tables(self) -> set[str]:
        """Every table that it touches in whatever way."""
        return {*self.reads, *self.sql.reads, *self.sql.finds, *self.sql.writes}


def uses(workflow: WorkflowFacts, facts: DatabaseFacts) -> WorkflowUse:
    """What ``workflow`` does. A disabled node does nothing."""
    total = SqlUse()
    nodes, unsure = [], []
    for node in workflow.outline.nodes:
        if node.disabled:
            continue
        use = node_use(node, facts)
        total.add(use)
        nodes.append(NodeUse(node=node, use=use))
        unsure += [f"node {node.name!r}: {why}" for why in (*node.unsure, *use.unsure)]
    return WorkflowUse(
        facts=workflow,
        sql=total,
        reads=_reads(total, facts),
        writes=_writes(total, facts),
        nodes=tuple(nodes),
        calls=_once(c for n in nodes for c in n.node.calls),
        hosts=_once(h for n in nodes for h in n.node.hosts),
        unsure=_once(unsure),
    )


def node_use(node: Node, facts: DatabaseFacts) -> SqlUse:
    """What one node does to the database: its SQL, the tables it names, and the functions it calls."""
    use = SqlUse()
    for text in node.sql:
        use.add(read(text, facts))
    for named in node.tables:
        _named(use, named, facts)
    for name in sorted(use.functions):
        function = facts.functions[name]
        inner = body(function.body, facts)
        use.add(inner)
        use.unsure.append(f"it calls the function {name}, which is read in part only")
    return use


def body(text: str, facts: DatabaseFacts) -> SqlUse:
    """The writing statements in the source of a function or trigger, as far as they stand in it as plain text."""
    use = SqlUse()
    for found in _WRITING.finditer(text):
        inner = read(re.sub(r"\b(NEW|OLD)\.", "", found.group(0)), facts)
        inner.unsure.clear()  # the function as a whole is unsure already
        use.add(inner)
    return use


def can_insert(table: TableFact, columns: Sequence[str]) -> bool:
    """Whether these columns are enough for a new row."""
    required = {c.name for c in table.columns if c.not_null and c.default is None and not c.generated}
    return required <= set(columns)


def _named(use: SqlUse, named: TableUse, facts: DatabaseFacts) -> None:
    full = facts.find(named.schema, named.table)
    if full is None or full not in facts.tables:
        use.unsure.append(f"table {named.schema or 'public'}.{named.table} is not in the database {facts.name}")
        return
    columns = set(named.columns) or {ALL}
    if named.access is not Access.WRITE:
        use.reads.setdefault(full, set()).update(columns)
    if named.access is Access.UNKNOWN:
        use.unsure.append(f"it may write {full}")
    if named.access is Access.WRITE:
        whole = ALL in columns or can_insert(facts.tables[full], sorted(columns))
        if whole:
            use.inserts.setdefault(full, set()).update(columns)
        if ALL in columns:
            use.deletes.add(full)
        # A new row or an old one, nobody can tell: a role of its own has to be allowed both.
        use.updates.setdefault(full, set()).update(columns)
        use.not_counters.setdefault(full, set()).update(columns)


def _reads(use: SqlUse, facts: DatabaseFacts) -> dict[str, tuple[str, ...]]:
    found: dict[str, set[str]] = {}
    for table, columns in use.reads.items():
        key = set(facts.tables[table].key) if table in facts.tables else set()
        if table not in use.writes:
            found[table] = set(columns)
        elif columns - key:
            found[table] = columns - key
    for kind in (use.inserts, use.updates):
        for table, columns in kind.items():
            for reference in facts.tables[table].foreign_keys if table in facts.tables else ():
                given = ALL in columns or set(reference.columns) & columns
                if given and reference.table != table and reference.table not in use.inserts:
                    found.setdefault(reference.table, set())
    return {t: tuple(sorted(found[t])) for t in sorted(found)}


def _writes(use: SqlUse, facts: DatabaseFacts) -> tuple[str, ...]:
    found = []
    for table in sorted(use.writes):
        if table in use.inserts or table in use.deletes or ALL in use.updates.get(table, set()):
            found.append(table)
        else:
            order = [c.name for c in facts.tables[table].columns] if table in facts.tables else []
            columns = sorted(use.updates[table], key=lambda c: (order.index(c) if c in order else len(order), c))
            found += [f"{table}.{c}" for c in columns]
    return tuple(found)


def _once(items: Iterator[str] | Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(items))
