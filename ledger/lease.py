"""One lease per app: while one recovery holds it, a second one is refused with the holder's name.

A lease ends by release, by running out, or with its process (told by number, start time and machine). Each new holder
gets a higher *fencing* number; an append made with an old lease is refused in the same transaction (after Kleppmann,
"How to do distributed locking": a lock that can expire needs a token that the resource checks).
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from ledger import kinds
from ledger.entry import Draft
from ledger.errors import LeaseHeld, LeaseLost, LedgerError, Refused
from ledger.process import Process, current, surely_dead

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection, Row

    from ledger.ledger import Ledger


class Lease:
    """A held lease. ``with`` releases it; :meth:`check` before every effect stops a holder that lost it."""

    def __init__(self, ledger: Ledger, *, app: str, holder: str, fencing: int, since: datetime, ttl_s: float) -> None:
        self.app = app
        self.holder = holder
        self.fencing = fencing
        self.since = since
        self.ttl_s = ttl_s
        self._ledger = ledger
        self._valid_until = time.monotonic() + ttl_s
        self._lost = False
        self._ended = threading.Event()
        self._renewer = threading.Thread(target=self._keep, name=f"lease {app}", daemon=True)
        self._renewer.start()

    def __repr__(self) -> str:
        return f"Lease(app={self.app!r}, holder={self.holder!r}, fencing={self.fencing})"

    def __enter__(self) -> Lease:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def check(self) -> None:
        """Raises ``LeaseLost`` unless the lease is surely still held. Cheap: asks no database."""
        if self._lost or self._ended.is_set() or time.monotonic() > self._valid_until:
            raise self._gone()

    def still_held(self, conn: Connection) -> None:
        """The same, asked inside a transaction of the ledger. Raises ``LeaseLost``."""
        row = _row(conn, self.app)
        if self._ended.is_set() or row is None or row.fencing != self.fencing or row.holder is None:
            self._lost = True
            raise self._gone()

    def renew(self) -> None:
        """Hold it for another ``ttl_s`` seconds. Raises ``LeaseLost``."""
        import sqlalchemy as sa

        from ledger.tables import lease as table

        asked = time.monotonic()
        with self._ledger._db.writing() as conn:
            self.still_held(conn)
            until = self._ledger._now(conn) + timedelta(seconds=self.ttl_s)
            conn.execute(sa.update(table).where(table.c.app == self.app).values(until=until.isoformat()))
        self._valid_until = asked + self.ttl_s

    def release(self) -> None:
        """Let the next one in. Idempotent; releasing a lost lease does nothing."""
        import sqlalchemy as sa

        from ledger.tables import lease as table

        if self._ended.is_set():
            return
        self._ended.set()
        if threading.current_thread() is not self._renewer:
            self._renewer.join()
        with self._ledger._db.writing() as conn:
            conn.execute(
                sa.update(table).where(table.c.app == self.app, table.c.fencing == self.fencing).values(holder=None)
            )

    def _gone(self) -> LeaseLost:
        return LeaseLost(
            f"{self.app}: {self.holder} no longer holds the lease (number {self.fencing}); stop here and start again, "
            "what is done is kept"
        )

    def _keep(self) -> None:
        while not self._ended.wait(self.ttl_s / 3):
            try:
                self.renew()
            except LeaseLost:
                return
            except LedgerError:
                # Unreachable for the moment; check() refuses once the lease has run out.
                continue


def acquire(ledger: Ledger, app: str, holder: str, ttl_s: float) -> Lease:
    """Take the lease of ``app``; take over one that ran out or whose process is dead, on record.
    Raises ``LeaseHeld``."""
    import sqlalchemy as sa

    from ledger.tables import lease as table

    if ttl_s <= 0 or not app or not holder:
        raise Refused("lease: app and holder need a name, the duration more than 0 seconds; correct the call")
    me = current()
    with ledger._db.writing() as conn:
        now = ledger._now(conn)
        row = _row(conn, app)
        values = {
            "app": app,
            "fencing": (row.fencing if row else 0) + 1,
            "holder": holder,
            "host": me.host,
            "pid": me.pid,
            "started": me.started,
            "since": now.isoformat(),
            "until": (now + timedelta(seconds=ttl_s)).isoformat(),
        }
        taken = None
        if row is None:
            conn.execute(sa.insert(table).values(**values))
        else:
            if row.holder is not None:
                body = {
                    "holder": holder,
                    "previous": row.holder,
                    "previous_since": row.since,
                    "reason": _why_free(row, app, now),
                    "fencing": values["fencing"],
                }
                taken = ledger._insert(conn, Draft(kind=kinds.LEASE_TAKEN_OVER, app=app, body=body))
            conn.execute(sa.update(table).where(table.c.app == app).values(**values))
    if taken is not None:
        ledger._advance_head(taken)
    return Lease(ledger, app=app, holder=holder, fencing=int(values["fencing"]), since=now, ttl_s=ttl_s)


@dataclass(frozen=True, kw_only=True, slots=True)
class Held:
    """Who holds a lease that was not released. ``living`` is false once it ran out or its process surely ended."""

    holder: str
    process: Process
    since: datetime
    until: datetime
    living: bool


def held(ledger: Ledger, app: str) -> Held | None:
    """Who holds the lease of ``app``; ``None`` when nobody ever did or the last one released it. Changes nothing."""
    with ledger._db.reading() as conn:
        row = _row(conn, app)
        if row is None or row.holder is None:
            return None
        process = Process(host=row.host, pid=row.pid, started=row.started)
        until = datetime.fromisoformat(row.until)
        return Held(
            holder=row.holder,
            process=process,
            since=datetime.fromisoformat(row.since),
            until=until,
            living=until > ledger._now(conn) and not surely_dead(process),
        )


def _row(conn: Connection, app: str) -> Row[tuple[object, ...]] | None:
    import sqlalchemy as sa

    from ledger.tables import lease as table

    return conn.execute(sa.select(table).where(table.c.app == app)).first()


def _why_free(row: Row[tuple[object, ...]], app: str, now: datetime) -> str:
    """Why a lease that was never released may be taken. Raises ``LeaseHeld`` when it may not."""
    process = Process(host=row.host, pid=row.pid, started=row.started)
    until = datetime.fromisoformat(row.until)
    if surely_dead(process):
        return f"{process} ended without releasing it"
    if until <= now:
        return f"it ran out at {until:%Y-%m-%d %H:%M:%S} UTC"
    since = datetime.fromisoformat(row.since)
    raise LeaseHeld(app=app, holder=row.holder, since=since, until=until, where=str(process))
