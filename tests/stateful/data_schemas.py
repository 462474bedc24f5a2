"""Small app schemas for the machine, as values: the SQL that makes one and the model of its triggers come from here.

A schema is drawn from a number: tables with keys of several shapes, foreign keys of every kind (also to the table
itself and in circles), unique columns, partitions, generated columns and triggers of the app's own.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

PALETTE: dict[str, tuple[str | None, ...]] = {
    "text": ("", "a", "b'c", "é 🚒", "long " * 600, None),
    "numeric": ("1.1", "1.10", "NaN", "-0.00001", None),
    "boolean": ("true", "false", None),
    "jsonb": ('{"x": 1.0}', '{"x": 1.00}', "[]", None),
    "int[]": ("{}", "{1,2}", "[3:4]={7,NULL}", "{{1},{2}}", None),
    "timestamp with time zone": ("infinity", "2026-01-01 00:00:00.000001+00", "4713-01-01 00:00:00+00 BC", None),
    "bytea": ("\\x00ff5c", "\\x", None),
    "double precision": ("-0", "NaN", "0.1", "5e-324", None),
    "int4range": ("empty", "[1,5)", None),
}
"""Values by type, in the form in which the server prints them."""
COUNT = "integer"
"""Type of the columns that are added to."""


@dataclass(frozen=True, kw_only=True)
class Reference:
    column: str
    parent: str
    on_delete: str
    """``CASCADE``, ``SET NULL`` or ``NO ACTION``."""
    deferred: bool = False


@dataclass(frozen=True, kw_only=True)
class Table:
    """``key`` is ``("id",)`` (int or text) or ``("id", "half")``; rows are known by ``id`` alone. ``half`` follows from
    ``id``, so that a partitioned table's rows stay where they are."""

    name: str
    key: tuple[str, ...]
    key_type: str
    columns: dict[str, str]
    """Those the actors write, by type; references among them."""
    references: tuple[Reference, ...] = ()
    unique: str | None = None
    partitioned: bool = False
    touch: bool = False
    """A BEFORE UPDATE trigger counts the updates in ``touched``."""
    echo: bool = False
    """An AFTER trigger updates the same row: ``echo`` repeats the first column."""
    audit: bool = False
    """An AFTER trigger adds a row to the audit table for each kind of change in a transaction."""

    @property
    def names(self) -> tuple[str, ...]:
        extra = [name for name, there in (("touched", self.touch), ("echo", self.echo)) if there]
        return (*self.key, *self.columns, *extra)

    @property
    def additive(self) -> tuple[str, ...]:
        return tuple(name for name, kind in self.columns.items() if name.startswith("n_"))

    @property
    def triggers(self) -> tuple[str, ...]:
        named = (("t_audit", self.audit), ("t_echo", self.echo), ("t_touch", self.touch))
        return tuple(name for name, there in named if there)


@dataclass(frozen=True, kw_only=True)
class Schema:
    number: int
    tables: tuple[Table, ...]
    """In the order in which they are made: parents first, save for circles."""

    @property
    def audited(self) -> bool:
        return any(table.audit for table in self.tables)

    def table(self, name: str) -> Table:
        return next(table for table in self.tables if table.name == name)


AUDIT = Table(name="audit", key=("id",), key_type="text", columns={})


def draw(number: int) -> Schema:
    """The schema of that number, always the same."""
    chance = random.Random(number)  # noqa: S311 - a recipe, not a secret
    tables: list[Table] = []
    for n in range(chance.randint(2, 4)):
        kinds = chance.sample(sorted(PALETTE), chance.randint(1, 3))
        columns = {f"c{i}": kind for i, kind in enumerate(kinds)}
        if chance.random() < 0.7:
            columns["n_a"] = COUNT
        references: list[Reference] = []
        key_type = chance.choice(["integer", "text"])
        candidates = [t for t in tables if not t.partitioned]
        for parent in chance.sample(candidates, min(len(candidates), chance.choice([0, 1, 1, 1]))):
            references.append(
                Reference(
                    column=f"r_{parent.name}",
                    parent=parent.name,
                    on_delete=chance.choice(["CASCADE", "SET NULL", "NO ACTION", "NO ACTION"]),
                    deferred=chance.random() < 0.3,
                )
            )
            columns[f"r_{parent.name}"] = parent.key_type
        name = f"t{n}"
        partitioned = not references and n > 0 and chance.random() < 0.25
        if not partitioned and chance.random() < 0.25:
            references.append(
                Reference(column="r_self", parent=name, on_delete=chance.choice(["CASCADE", "NO ACTION"]))
            )
            columns["r_self"] = key_type
        unique = None
        if not partitioned and chance.random() < 0.3:
            unique = "u"
            columns["u"] = COUNT
        tables.append(
            Table(
                name=name,
                key=("id", "half") if partitioned else ("id",),
                key_type="integer" if partitioned else key_type,
                columns=columns,
                references=tuple(references),
                unique=unique,
                partitioned=partitioned,
                touch=chance.random() < 0.4,
                echo=chance.random() < 0.4,
                audit=chance.random() < 0.4,
            )
        )
    if any(table.audit for table in tables):
        tables.append(AUDIT)
    return Schema(number=number, tables=tuple(tables))


def ddl(schema: Schema, actors: tuple[str, ...]) -> str:
    """Everything the app's owner makes: schema ``m`` with tables, triggers and the actors' rights."""
    parts = ["CREATE SCHEMA m;"]
    for table in schema.tables:
        columns = [f"id {table.key_type}"]
        if table.partitioned:
            columns.append("half integer")
        columns += [f"{name} {kind}" for name, kind in table.columns.items()]
        if table.touch:
            columns.append("touched integer NOT NULL DEFAULT 0")
        if table.echo:
            columns.append("echo text")
        if not table.partitioned and table is not AUDIT:
            columns.append("twice integer GENERATED ALWAYS AS (1 + 1) STORED")
        columns.append(f"PRIMARY KEY ({', '.join(table.key)})")
        if table.unique:
            columns.append(f"UNIQUE ({table.unique})")
        tail = " PARTITION BY LIST (half)" if table.partitioned else ""
        parts.append(f"CREATE TABLE m.{table.name} ({', '.join(columns)}){tail};")
        if table.partitioned:
            parts += [
                f"CREATE TABLE m.{table.name}_{n} PARTITION OF m.{table.name} FOR VALUES IN ({n});" for n in (0, 1)
            ]
    for table in schema.tables:
        for reference in table.references:
            when = " DEFERRABLE INITIALLY DEFERRED" if reference.deferred else ""
            parts.append(
                f"ALTER TABLE m.{table.name} ADD FOREIGN KEY ({reference.column}) REFERENCES m.{reference.parent} (id)"
                f" ON DELETE {reference.on_delete}{when};"
            )
        parts += _triggers(table)
    parts += [
        "GRANT USAGE ON SCHEMA m TO PUBLIC;",
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA m TO {', '.join(actors)};",
    ]
    return "\n".join(parts)


def _triggers(table: Table) -> list[str]:
    made: list[str] = []

    def add(name: str, when: str, body: str) -> None:
        function = f"m.{table.name}_{name}()"
        made.append(f"CREATE FUNCTION {function} RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body} END $$;")
        made.append(f"CREATE TRIGGER {name} {when} ON m.{table.name} FOR EACH ROW EXECUTE FUNCTION {function};")

    first = next(iter(table.columns), "")
    if table.touch:
        add("t_touch", "BEFORE UPDATE", "NEW.touched := OLD.touched + 1; RETURN NEW;")
    if table.echo:
        same = " AND ".join(f"{name} = NEW.{name}" for name in table.key)
        add(
            "t_echo",
            "AFTER INSERT OR UPDATE",
            f"UPDATE m.{table.name} SET echo = NEW.{first}::text WHERE {same}"
            f" AND echo IS DISTINCT FROM NEW.{first}::text; RETURN NULL;",
        )
    if table.audit:
        add(
            "t_audit",
            "AFTER INSERT OR UPDATE OR DELETE",
            "INSERT INTO m.audit VALUES (current_setting('app.tag') || ' ' || TG_TABLE_NAME || ' ' ||"
            " coalesce(NEW.id, OLD.id)::text || ' ' || TG_OP) ON CONFLICT DO NOTHING; RETURN NULL;",
        )
    return made
