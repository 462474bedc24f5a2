"""What names and expressions in a parsed statement mean. Part of :mod:`discovery.sql_reader`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any

from sqlglot import exp

from discovery.facts import DatabaseFacts
from discovery.placeholders import is_open
from discovery.sql_use import ALL, SqlUse

_NO_TABLE = frozenset({"unnest", "generate_series", "excluded", "new", "old"})
_SYSTEM = ("pg_catalog", "information_schema")


@dataclass(kw_only=True, slots=True)
class Scope:
    """What names mean in one query: aliases to tables (``None``: nothing of the database), and what is outside."""

    aliases: dict[str, str | None] = field(default_factory=dict)
    ctes: frozenset[str] = frozenset()
    outer: Scope | None = None

    def table(self, alias: str) -> tuple[bool, str | None]:
        scope: Scope | None = self
        while scope is not None:
            if alias in scope.aliases:
                return True, scope.aliases[alias]
            scope = scope.outer
        return False, None


def folded(node: Any) -> str:
    """The name of a column or identifier as PostgreSQL takes it: in lower case unless it is quoted."""
    identifier = node.this if isinstance(node, exp.Column) else node
    name = str(identifier.name)
    return name if getattr(identifier, "args", {}).get("quoted") else name.lower()


class Names(ABC):
    """Reads expressions and books what they read in ``use``."""

    def __init__(self, use: SqlUse, facts: DatabaseFacts) -> None:
        self.use, self.facts = use, facts

    @abstractmethod
    def statement(self, node: Any, outer: Scope) -> None:
        """One statement or query, with what it contains."""

    def values(self, node: Any, scope: Scope) -> None:
        """Columns, nested queries and functions in an expression."""
        match node:
            case exp.Column():
                self.column(node, scope)
            case exp.Select() | exp.SetOperation() | exp.Insert() | exp.Update() | exp.Delete() | exp.Merge():
                self.statement(node, scope)
            case exp.Table():
                self.alias(node, scope)
            case exp.Dot() if isinstance(node.expression, exp.Anonymous):
                self.function(node.this.name, node.expression, scope)
            case exp.Anonymous():
                self.function(None, node, scope)
            case _:
                for child in node.iter_expressions():
                    self.values(child, scope)

    def function(self, schema: str | None, node: Any, scope: Scope) -> None:
        name = str(node.this).lower() if isinstance(node.this, str) else node.name.lower()
        known = [
            f for f in self.facts.functions if f == f"{schema}.{name}" or (schema is None and f.endswith(f".{name}"))
        ]
        if known and not self.facts.functions[known[0]].pure:
            self.use.functions.add(known[0])
        elif not known and schema not in (None, "pg_catalog"):
            self.use.unsure.append(f"function {schema}.{name} is not in the database")
        for argument in node.expressions:
            self.values(argument, scope)

    def column(self, node: Any, scope: Scope) -> None:
        name = folded(node)
        if node.table:
            known, table = scope.table(node.table.lower())
            if known and table is not None:
                self.reading(table, ALL if isinstance(node.this, exp.Star) else name)
            return
        if isinstance(node.this, exp.Star):
            self.whole(scope)
        elif not is_open(name):
            self.unqualified(name, scope)

    def unqualified(self, name: str, scope: Scope, *, every: bool = False) -> None:
        """A bare column: of the table that has it, the nearest query's first."""
        at: Scope | None = scope
        while at is not None:
            owners = [t for t in at.aliases.values() if t is not None and name in self.facts.tables[t].names]
            if owners:
                for table in owners if every else owners[:1]:
                    self.reading(table, name)
                return
            if name.lower() in at.aliases:  # a whole row, as in `row_to_json(t)`
                if (table_of_row := at.aliases[name.lower()]) is not None:
                    self.reading(table_of_row, ALL)
                return
            at = at.outer

    def whole(self, scope: Scope) -> None:
        for table in scope.aliases.values():
            if table is not None:
                self.reading(table, ALL)

    def reading(self, table: str, column: str) -> None:
        if column == ALL or column in self.facts.tables[table].names:
            self.use.reads.setdefault(table, set()).add(column)

    def alias(self, table: Any, scope: Scope) -> None:
        """A table in FROM: known under its alias, read at least for its existence."""
        name = self.resolve(table, scope)
        alias = (table.alias or table.name).lower()
        if alias:
            scope.aliases[alias] = name
        if name is not None:
            self.use.reads.setdefault(name, set())

    # Names of tables

    def resolve(self, table: Any, scope: Scope, *, written: bool = False) -> str | None:
        """The full name of a table; ``None`` for what is none: a common table expression, a function, a placeholder."""
        if not isinstance(table, exp.Table) or not isinstance(table.this, exp.Identifier):
            return None
        schema, name = table.db or None, table.name
        if is_open(name) or is_open(schema or ""):
            self.use.unsure.append(f"a table that it {'writes' if written else 'reads'} is only named at run time")
            return None
        if (schema is None and (name.lower() in scope.ctes or name.lower() in _NO_TABLE)) or schema in _SYSTEM:
            return None
        found = self.facts.find(schema, name)
        if found is None and not table.this.args.get("quoted"):
            found = self.facts.find(schema, name.lower())
        if found is None:
            self.use.unsure.append(f"table {schema or 'public'}.{name} is not in the database {self.facts.name}")
            return None
        if found in self.facts.views:
            self.behind(found, written=written)
            return None
        return found

    def behind(self, view: str, *, written: bool) -> None:
        """A view stands for the tables behind it."""
        if written:
            self.use.unsure.append(f"it writes through the view {view}")
        for table in self.facts.views[view]:
            if table in self.facts.tables:
                self.use.reads.setdefault(table, set()).add(ALL)
