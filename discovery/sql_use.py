"""What a SQL text does, as values."""

from __future__ import annotations

from dataclasses import dataclass, field

ALL = "*"
"""Stands for any column of a table."""


@dataclass(kw_only=True, slots=True)
class SqlUse:
    """What was found. Tables are ``schema.table``."""

    reads: dict[str, set[str]] = field(default_factory=dict)
    """Columns whose values matter. One that only finds the rows to be written, or only counts up, is not among them."""
    finds: dict[str, set[str]] = field(default_factory=dict)
    """Columns that only find the rows to be written."""
    inserts: dict[str, set[str]] = field(default_factory=dict)
    """Columns that are given to inserted rows."""
    updates: dict[str, set[str]] = field(default_factory=dict)
    deletes: set[str] = field(default_factory=set)
    counters: dict[str, set[str]] = field(default_factory=dict)
    """Columns that are set to their own value plus or minus something."""
    not_counters: dict[str, set[str]] = field(default_factory=dict)
    """Columns that an update sets to anything else."""
    functions: set[str] = field(default_factory=set)
    """Functions of the app that it calls, ``schema.name``, their tables included in the rest where they are known."""
    unsure: list[str] = field(default_factory=list)

    def add(self, other: SqlUse) -> None:
        """Take over all of ``other``."""
        for mine, theirs in (
            (self.reads, other.reads),
            (self.finds, other.finds),
            (self.inserts, other.inserts),
            (self.updates, other.updates),
            (self.counters, other.counters),
            (self.not_counters, other.not_counters),
        ):
            for table, columns in theirs.items():
                mine.setdefault(table, set()).update(columns)
        self.deletes |= other.deletes
        self.functions |= other.functions
        self.unsure += [u for u in other.unsure if u not in self.unsure]

    @property
    def writes(self) -> set[str]:
        return {*self.inserts, *self.updates, *self.deletes}
