"""What was seen of a database and a platform, as values. Reading them is the business of :mod:`discovery.database` and
:mod:`discovery.platform`; everything else here works on these alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from platforms.base import Credential, Outline


@dataclass(frozen=True, kw_only=True, slots=True)
class ColumnFact:
    """One column. ``category`` is PostgreSQL's ``typcategory``: N number, S string, D time, B boolean, E enum, A array,
    U other."""

    name: str
    type: str
    category: str
    not_null: bool = False
    default: str | None = None
    generated: bool = False

    @property
    def comparable(self) -> bool:
        """Whether its values can be counted and sorted; ``json`` and arrays cannot, or not usefully."""
        return self.category in "NSDBE" or self.type in ("uuid", "inet", "cidr")


@dataclass(frozen=True, kw_only=True, slots=True)
class TriggerFact:
    """One trigger of the app. ``body`` is the function's source where its language has one."""

    name: str
    function: str
    before: bool
    row: bool
    enabled: bool
    body: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ForeignKey:
    columns: tuple[str, ...]
    table: str
    to: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class TableFact:
    """One table, ``schema.table``. ``rows`` is an estimate; ``unique`` are keys that the database itself enforces, the
    primary key apart."""

    name: str
    owner: str
    rows: int
    columns: tuple[ColumnFact, ...]
    key: tuple[str, ...] = ()
    unique: tuple[tuple[str, ...], ...] = ()
    foreign_keys: tuple[ForeignKey, ...] = ()
    triggers: tuple[TriggerFact, ...] = ()

    def column(self, name: str) -> ColumnFact | None:
        return next((c for c in self.columns if c.name == name), None)

    @property
    def names(self) -> frozenset[str]:
        return frozenset(c.name for c in self.columns)


@dataclass(frozen=True, kw_only=True, slots=True)
class FunctionFact:
    """A function of the app. ``pure``: declared immutable, so it writes nothing and reads no table."""

    name: str
    language: str
    pure: bool
    body: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Right:
    """What one login role may do to one table, also by membership. Columns are given where the right is not one to
    the whole table; ``None`` is the whole table, an empty set nothing."""

    role: str
    table: str
    select: bool
    insert: frozenset[str] | None
    update: frozenset[str] | None
    delete: bool

    @property
    def writes(self) -> bool:
        return self.delete or self.insert != frozenset() or self.update != frozenset()


@dataclass(frozen=True, kw_only=True, slots=True)
class RoleFact:
    name: str
    superuser: bool
    login: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class DatabaseFacts:
    """All tables outside the system's and Reinstate's own schemas. ``views`` name the tables behind each view."""

    name: str
    tables: Mapping[str, TableFact]
    views: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    functions: Mapping[str, FunctionFact] = field(default_factory=dict)
    roles: tuple[RoleFact, ...] = ()
    rights: tuple[Right, ...] = ()
    search_path: tuple[str, ...] = ("public",)

    def find(self, schema: str | None, table: str) -> str | None:
        """The full name of a table or view that SQL calls ``schema.table`` or just ``table``; ``None``: there is none.
        A bare name that the search path does not find is taken where only one schema has it."""
        for place in (schema,) if schema else self.search_path:
            if f"{place}.{table}" in self.tables or f"{place}.{table}" in self.views:
                return f"{place}.{table}"
        if schema:
            return None
        found = [n for n in (*self.tables, *self.views) if n.partition(".")[2] == table]
        return found[0] if len(found) == 1 else None

    def role(self, name: str) -> RoleFact | None:
        return next((r for r in self.roles if r.name == name), None)


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkflowFacts:
    """One workflow as the platform shows it. ``events`` are inputs of recent runs, newest first."""

    id: str
    name: str
    active: bool
    outline: Outline
    credentials: tuple[Credential, ...] = ()
    events: tuple[Mapping[str, Any], ...] = field(default=(), repr=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class PlatformFacts:
    kind: str
    workflows: tuple[WorkflowFacts, ...]
    problems: tuple[str, ...] = ()
    """What could not be read, in sentences."""
