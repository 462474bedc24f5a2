"""The database of one schema: made once, emptied for each example, used by the actors and the product's roles."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import psycopg
from data_model import Row, State
from data_schemas import AUDIT, Schema, Table, ddl

from platforms.base import Health
from snapshots import database, roles
from snapshots.journal import install
from snapshots.model import TableSpec

ACTORS = ("ann", "bob", "cid")
LOCK_TIMEOUT_S = 0.01


class NoPlatform:
    """A platform without workflows: the machine is about data."""

    def health(self) -> Health:
        return Health(ok=True, detail="", now=datetime.now(UTC))

    def workflows(self) -> list[Any]:
        return []

    def runs(self, *_: Any, **__: Any) -> list[Any]:
        return []


class DataDesk:
    """Connections by role. Actors' connections are in autocommit mode: they begin and end transactions themselves."""

    def __init__(self, server: Any, schema: Schema) -> None:
        self.schema = schema
        self.server = server
        self.name = f"machine_{schema.number}"
        for role in ("installer", "capturer", "recoverer", *ACTORS):
            server.create_role(role)
        server.create_database(self.name, owner="installer")
        with psycopg.connect(server.dsn(self.name, "installer")) as owner:
            owner.execute(ddl(schema, ACTORS).encode())
        names = [f"m.{table.name}" for table in schema.tables]
        with psycopg.connect(server.superuser_dsn(self.name), autocommit=True) as administrator:
            administrator.execute(roles.sql(database=self.name, tables=names).encode())
        self.connections = {
            role: database.connect(server.dsn(self.name, role), purpose="test", lock_timeout_s=LOCK_TIMEOUT_S)
            for role in ("installer", "capturer", "recoverer", *ACTORS)
        }
        for actor in ACTORS:
            self.connections[actor].autocommit = True
        owner = self.connections["installer"]
        self.specs = tuple(self._spec(table) for table in schema.tables)
        owner.rollback()
        install.install(owner, self.specs, capturer="capturer", recoverer="recoverer")
        self._texts = " UNION ALL ".join(
            f"SELECT '{table.name}', id::text, ARRAY[{', '.join(f'{name}::text' for name in table.names)}]"
            f" FROM m.{table.name}"
            for table in schema.tables
        ).encode()

    def _spec(self, table: Table) -> TableSpec:
        name = f"m.{table.name}"
        return TableSpec(
            name=name,
            key=table.key,
            additive=table.additive,
            suppress=table.triggers,
            references=database.foreign_keys(self.connections["installer"], name),
        )

    @property
    def capturer(self) -> psycopg.Connection[Any]:
        return self.connections["capturer"]

    @property
    def recoverer(self) -> psycopg.Connection[Any]:
        return self.connections["recoverer"]

    def dsn(self, role: str) -> str:
        return str(self.server.dsn(self.name, role))

    def rows(self) -> State:
        """What has been committed: every row, each column as text."""
        found: State = {}
        with self.capturer.transaction():
            for name, ident, values in self.capturer.execute(self._texts):
                found[name, ident] = dict(zip(self.schema.table(name).names, values, strict=True))
        return found

    def reset(self) -> None:
        """No rows and no journal; xids and sequences go on."""
        for role, conn in self.connections.items():
            conn.execute("ROLLBACK") if role in ACTORS else conn.rollback()
        owner = self.connections["installer"]
        with owner.transaction():
            owner.execute(f"TRUNCATE {', '.join(f'm.{table.name}' for table in self.schema.tables)}".encode())
            twins = [row[0] for row in owner.execute("SELECT twin FROM reinstate.journal_table")]
            owner.execute(f"TRUNCATE {', '.join(f'reinstate.{twin}' for twin in twins)}".encode())
            owner.execute("DELETE FROM reinstate.applied; DELETE FROM reinstate.tick; DELETE FROM reinstate.gap")

    def close(self) -> None:
        for conn in self.connections.values():
            conn.close()
        self.server.drop_database(self.name)


def literal(value: str | None, kind: str) -> str:
    return "NULL" if value is None else "'" + value.replace("'", "''") + f"'::{kind}"


def insert_sql(table: Table, ident: str, values: Row) -> str:
    names = [*table.key, *values]
    written = [literal(ident, table.key_type)]
    if table.partitioned:
        written.append(str(int(ident) % 2))
    written += [literal(value, table.columns[name]) for name, value in values.items()]
    return f"INSERT INTO m.{table.name} ({', '.join(names)}) VALUES ({', '.join(written)})"


def update_sql(table: Table, idents: Sequence[str], values: Row, add: dict[str, int]) -> str:
    sets = [f"{name} = {literal(value, table.columns[name])}" for name, value in values.items()]
    sets += [f"{name} = {name} + {by}" for name, by in add.items()]
    return f"UPDATE m.{table.name} SET {', '.join(sets)} WHERE {_among(table, idents)}"


def delete_sql(table: Table, idents: Sequence[str]) -> str:
    return f"DELETE FROM m.{table.name} WHERE {_among(table, idents)}"


def rekey_sql(table: Table, ident: str, new: str) -> str:
    return f"UPDATE m.{table.name} SET id = {literal(new, table.key_type)} WHERE {_among(table, [ident])}"


def _among(table: Table, idents: Sequence[str]) -> str:
    return f"id IN ({', '.join(literal(ident, table.key_type) for ident in idents)})"


__all__ = ["ACTORS", "AUDIT", "DataDesk", "NoPlatform", "delete_sql", "insert_sql", "rekey_sql", "update_sql"]
