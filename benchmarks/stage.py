"""What several benchmarks share: made when the first one asks for it, gone at the end."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field

import psycopg
from psycopg import sql

from benchmarks import anomaly, service
from benchmarks.anomaly import Round
from benchmarks.service import Say, Service
from drills.order_desk import EXAMPLE
from snapshots.database import qualified


@dataclass(kw_only=True)
class Stage:
    """Use as a context manager. ``number``: rounds of what is measured several times."""

    say: Say
    number: int = anomaly.ROUNDS
    _open: ExitStack = field(default_factory=ExitStack)
    _service: Service | None = None
    _rounds: list[Round] | None = None

    def __enter__(self) -> Stage:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def service(self) -> Service:
        if self._service is None:
            self._service = self._open.enter_context(service.running(self.say))
        return self._service

    def rounds(self) -> list[Round]:
        """Anomalies, contained and answered; the same ones for every benchmark that asks."""
        if self._rounds is None:
            self._rounds = anomaly.rounds(self.service(), self.say, number=self.number)
        return self._rounds

    def rows(self) -> int:
        """Rows of the app that was measured; 0 when none was."""
        if self._service is None:
            return 0
        from recovery.context import open_app

        with (
            open_app(EXAMPLE, service.APP, self._service.home) as ctx,
            ctx.connect("capturer", "count") as conn,
        ):
            return sum(count(conn, t.name) for t in ctx.app.tables)


def count(connection: psycopg.Connection, table: str) -> int:
    row = connection.execute(sql.SQL("SELECT count(*) FROM {}").format(qualified(table))).fetchone()
    return int(row[0]) if row else 0
