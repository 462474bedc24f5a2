"""A small app with one workflow role, journaled by the product's own roles, for the tests of the journal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg import Connection, sql

from snapshots import database, roles
from snapshots.journal import journal
from snapshots.model import Gap, TableSpec

WRITER = "wf_intake"
ORDERS = TableSpec(name="public.orders", key=("id",))

SCHEMA = """
CREATE TABLE public.orders (id int PRIMARY KEY, qty int, total numeric(12, 2), note text);
GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON public.orders TO wf_intake;
INSERT INTO public.orders SELECT n, n, n * 1.25, 'old' FROM generate_series(1, 5) n;
"""


@dataclass
class Desk:
    """``owner`` is the installer (for DDL of the app), ``app`` the workflow's session, kept open so that its plans are
    cached; ``recoverer`` and ``capturer`` are what the product runs as."""

    db: Any
    owner: Connection[Any]
    app: Connection[Any]
    recoverer: Connection[Any]
    capturer: Connection[Any]
    stack: ExitStack = field(repr=False)

    def session(self, dsn: str, **options: Any) -> Connection[Any]:
        """One more connection, closed with the desk."""
        return self.stack.enter_context(psycopg.connect(dsn, **options))

    def install(self, *tables: TableSpec, **options: Any) -> list[str]:
        self.owner.rollback()
        return journal.install(self.owner, tables or (ORDERS,), capturer="capturer", recoverer="recoverer", **options)

    def ddl(self, text: str) -> None:
        """What the app's owner does."""
        self.owner.execute(text.encode())
        self.owner.commit()

    def write(self, text: str) -> int:
        """What the workflow does; fails the test if it fails."""
        return self.app.execute(text.encode()).rowcount

    def piece(self, table: str = "public.orders") -> str:
        """The piece in use, quoted."""
        name = self.one("SELECT piece FROM reinstate.journal_table WHERE table_name = %s", table)
        return f'reinstate."{name}"'

    def images(self, table: str = "public.orders", columns: Sequence[str] = ("id",)) -> list[tuple[Any, ...]]:
        """(op, side, columns...) of the twin in journal order."""
        twin = self.one("SELECT twin FROM reinstate.journal_table WHERE table_name = %s", table)
        query = sql.SQL("SELECT rj_op::text, rj_side::text, {} FROM {} ORDER BY rj_seq, tableoid, ctid").format(
            sql.SQL(", ").join(map(sql.Identifier, columns)), sql.Identifier("reinstate", twin)
        )
        rows = self.capturer.execute(query).fetchall()
        self.capturer.rollback()
        return rows

    def one(self, query: str, *parameters: Any) -> Any:
        row = self.capturer.execute(query.encode(), parameters).fetchone()
        self.capturer.rollback()
        return row[0] if row else None

    def gaps(self, **options: Any) -> list[Gap]:
        found = journal.gaps(self.capturer, **options)
        self.capturer.rollback()
        return found

    def kinds(self, **options: Any) -> set[tuple[str, str]]:
        """(table, kind) of the gaps."""
        return {(g.table, g.kind) for g in self.gaps(**options)}

    def status(self, *expected: str) -> journal.Status:
        found = journal.status(self.capturer, expected=expected)
        self.capturer.rollback()
        return found


@contextmanager
def open_desk(db: Any, schema: str = SCHEMA, *, writers: Sequence[str] = (WRITER,)) -> Iterator[Desk]:
    """Roles by the product's own SQL, then the app's schema by its owner."""
    with ExitStack() as stack:
        dsns = {w: db.role(w) for w in writers}
        with psycopg.connect(db.superuser, autocommit=True) as administrator:
            administrator.execute(roles.sql(database=db.name, tables=()).encode())
        owner = stack.enter_context(database.connect(db.installer, purpose="test"))
        owner.execute(schema.encode())
        for table in ("public.orders",) if schema == SCHEMA else ():
            owner.execute(f"GRANT SELECT ON {table} TO capturer".encode())
        owner.commit()
        yield Desk(
            db=db,
            owner=owner,
            app=stack.enter_context(psycopg.connect(dsns[writers[0]], autocommit=True)),
            recoverer=stack.enter_context(database.connect(db.recoverer, purpose="test")),
            capturer=stack.enter_context(database.connect(db.capturer, purpose="test")),
            stack=stack,
        )
