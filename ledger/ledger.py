"""Opening, writing and reading a ledger."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ledger import kinds, verify
from ledger.entry import Draft, Entry, Stored, genesis, opened, plain, seal
from ledger.errors import Damaged, LedgerError, Refused, Unreachable
from ledger.headfile import Head, HeadFile
from ledger.mask import Guard

if TYPE_CHECKING:  # SQLAlchemy takes long to import: only who opens a ledger pays for it
    from collections.abc import Mapping

    from sqlalchemy.engine import Connection

    from ledger.lease import Lease

Clock = Callable[[], datetime]


class View:
    """The ledger as one transaction sees it. Inside :meth:`Ledger.append_with` nobody else writes meanwhile."""

    def __init__(self, conn: Connection, ledger_id: str, clock: Callable[[Connection], datetime]) -> None:
        self._conn = conn
        self._ledger_id = ledger_id
        self._clock = clock

    def now(self) -> datetime:
        """The time an entry made now would carry."""
        return self._clock(self._conn)

    def entries(
        self,
        *,
        app: str | None = None,
        incident: str | None = None,
        recovery: str | None = None,
        kinds: Iterable[str] | None = None,
        after_seq: int = 0,
        limit: int | None = None,
    ) -> list[Entry]:
        """Entries in order, narrowed by every filter given. Raises ``Damaged`` at an unreadable one."""
        import sqlalchemy as sa

        from ledger.tables import entry as table

        query = sa.select(table).where(table.c.seq > after_seq).order_by(table.c.seq).limit(limit)
        for column, value in (("app", app), ("incident", incident), ("recovery", recovery)):
            if value is not None:
                query = query.where(table.c[column] == value)
        if kinds is not None:
            query = query.where(table.c.kind.in_(list(kinds)))
        return [opened(Stored(*row)) for row in self._conn.execute(query)]

    def head(self) -> tuple[int, str]:
        """Number and hash of the newest entry; 0 and the genesis hash while there is none."""
        import sqlalchemy as sa

        from ledger.tables import entry as table

        row = self._conn.execute(sa.select(table.c.seq, table.c.hash).order_by(table.c.seq.desc()).limit(1)).first()
        return (row.seq, row.hash) if row else (0, genesis(self._ledger_id))

    def hash_of(self, seq: int) -> str | None:
        """The hash of entry ``seq`` (0: genesis), ``None`` if there is no such entry."""
        import sqlalchemy as sa

        from ledger.tables import entry as table

        if seq == 0:
            return genesis(self._ledger_id)
        found: str | None = self._conn.execute(sa.select(table.c.hash).where(table.c.seq == seq)).scalar()
        return found

    def stored(self) -> Iterator[Stored]:
        """Every entry as stored, in order, a bounded number in memory."""
        import sqlalchemy as sa

        from ledger.tables import entry as table

        result = self._conn.execute(sa.select(table).order_by(table.c.seq).execution_options(yield_per=500))
        return (Stored(*row) for row in result)


class Ledger:
    """An append-only, hash-chained record. Safe between threads, processes and, on PostgreSQL, machines.

    ``url_or_path``: a file (SQLite, created with mode 0600) or ``postgresql://...``. ``secrets``: known secret values
    that are masked in bodies; ``redact``: further key names whose values are masked. ``head``: the head file, by
    default ``<path>.head`` beside a SQLite file and none for PostgreSQL. ``clock`` replaces the time source in tests.
    Raises ``Unreachable``, ``Damaged``, ``UnknownSchema``, ``Refused`` (see :mod:`ledger.errors`).
    """

    def __init__(
        self,
        url_or_path: str | os.PathLike[str],
        *,
        secrets: Sequence[str] = (),
        redact: Sequence[str] = (),
        head: Path | None = None,
        clock: Clock | None = None,
    ) -> None:
        from ledger.database import Database, parse

        url = parse(url_or_path)
        self._guard = Guard(secrets=[*secrets, *([str(url.password)] if url.password else [])], redact=redact)
        self._clock = clock
        self._db = Database(url)
        path = self._db.path
        if head is None and path is not None:
            head = path.with_name(path.name + ".head")
        self._head = HeadFile(head) if head is not None else None
        if path is not None and not path.exists():
            self._refuse_to_replace(path)
        self.id = self._db.prepare()
        if self._head is not None and self.head()[0] == 0:
            self._head.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._head.create(Head(ledger=self.id, seq=0, hash=genesis(self.id)))

    def __repr__(self) -> str:
        return f"Ledger({self._db.name!r})"

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give connections back. The ledger may be used again afterwards."""
        self._db.close()

    @property
    def name(self) -> str:
        """Where the ledger is, without password."""
        return str(self._db.name)

    def append(
        self,
        kind: str,
        *,
        app: str,
        incident: str | None = None,
        recovery: str | None = None,
        step: str | None = None,
        body: Mapping[str, Any] | None = None,
        lease: Lease | None = None,
    ) -> Entry:
        """Record one fact, durably, after everything recorded before. Kinds and bodies: :mod:`ledger.kinds`.

        Bodies may hold dates, decimals, enums, dataclasses and the like; the entry returned holds what was stored,
        secrets masked. With ``lease``, nothing is recorded (``LeaseLost``) unless it is still held."""
        draft = Draft(kind=kind, app=app, incident=incident, recovery=recovery, step=step, body=body or {})
        return self.append_with(lambda _view: draft, lease=lease)

    def append_with(self, compose: Callable[[View], Draft], *, lease: Lease | None = None) -> Entry:
        """Record what ``compose`` returns after looking at the ledger; nobody else writes in between.
        Nothing is recorded when ``compose`` raises."""
        sealed: Stored | None = None
        try:
            with self._db.writing() as conn:
                if lease is not None:
                    lease.still_held(conn)
                sealed = self._insert(conn, compose(View(conn, self.id, self._now)))
        except Unreachable:
            # The reply to a commit may be lost although the commit was not: read back before calling it a failure.
            if sealed is None or self._hash_of(sealed.seq) != sealed.hash:
                raise
        self._advance_head(sealed)
        return opened(sealed)

    def entries(
        self,
        *,
        app: str | None = None,
        incident: str | None = None,
        recovery: str | None = None,
        kinds: Iterable[str] | None = None,
        after_seq: int = 0,
        limit: int | None = None,
    ) -> list[Entry]:
        """Entries in order, narrowed by every filter given."""
        with self._db.reading() as conn:
            return View(conn, self.id, self._now).entries(
                app=app, incident=incident, recovery=recovery, kinds=kinds, after_seq=after_seq, limit=limit
            )

    def head(self) -> tuple[int, str]:
        """Number and hash of the newest entry; ``(0, genesis)`` for an empty ledger."""
        with self._db.reading() as conn:
            return View(conn, self.id, self._now).head()

    def verify(self) -> list[str]:
        """What is wrong with the record, one line each, in order; empty when it is as it was written."""
        found: list[str] = []
        head: Head | None = None
        if self._head is not None:
            try:
                head = self._head.read()
            except Damaged as error:
                found.append(str(error))
            else:
                if head is None:
                    found.append(f"head file {self._head.path}: missing, a cut tail cannot be ruled out")
        with self._db.reading() as conn:
            found.extend(f"trigger {name}: gone or changed" for name in self._db.missing_triggers(conn))
            found.extend(verify.problems(View(conn, self.id, self._now).stored(), ledger_id=self.id, head=head))
        return found

    def accept_head(self, *, app: str, by: str, reason: str) -> Entry:
        """Take the ledger as it stands for whole again, on record: the head file is written anew."""
        if self._head is None:
            raise Refused(f"ledger {self.name}: it has no head file; open it with one")
        entry = self.append(kinds.HEAD_RESET, app=app, body={"by": by, "reason": reason})
        with self._head.locked():
            seq, newest = self.head()
            self._head.replace(Head(ledger=self.id, seq=seq, hash=newest))
        return entry

    def lease(self, app: str, holder: str, ttl_s: float = 60.0) -> Lease:
        """Exclude everybody else from work on ``app``. Use as a context manager; renewed in the background.
        Raises ``LeaseHeld``."""
        from ledger.lease import acquire

        return acquire(self, app, holder, ttl_s)

    def _now(self, conn: Connection) -> datetime:
        return self._clock().astimezone(UTC) if self._clock else self._db.now(conn)

    def _insert(self, conn: Connection, draft: Draft) -> Stored:
        import sqlalchemy as sa

        from ledger.tables import entry as table

        for name in (draft.kind, draft.app, draft.incident, draft.recovery, draft.step):
            if isinstance(name, str) and not self._guard.clean(name):
                raise Refused(f"ledger: a name in an entry of {draft.app[:3]}... holds a secret; use another name")
        body = self._guard.value(plain(draft.body))
        cleaned = Draft(
            kind=draft.kind,
            app=draft.app,
            incident=draft.incident,
            recovery=draft.recovery,
            step=draft.step,
            body=body,
        )
        seq, newest = View(conn, self.id, self._now).head()
        sealed = seal(cleaned, seq=seq + 1, at=self._now(conn), prev_hash=newest)
        conn.execute(sa.insert(table).values(**sealed._asdict()))
        return sealed

    def _hash_of(self, seq: int) -> str | None:
        try:
            with self._db.reading() as conn:
                return View(conn, self.id, self._now).hash_of(seq)
        except LedgerError:
            return None

    def _advance_head(self, sealed: Stored) -> None:
        if self._head is None:
            return
        head = Head(ledger=self.id, seq=sealed.seq, hash=sealed.hash)
        try:
            self._head.advance(head, prev_hash=sealed.prev_hash, hash_of=self._hash_of)
        except OSError:
            # The entry is committed, so this must not look like a failed append. The head lags; the next append
            # catches up, and verify() reports one that falls further and further behind.
            return

    def _refuse_to_replace(self, path: Path) -> None:
        """A head without its ledger: starting a new one would hide that the old one is gone."""
        if self._head is None:
            return
        old = self._head.read()
        if old is not None and old.seq > 0:
            raise Damaged(
                f"ledger {path}: the file is gone, its head file knows {old.seq} entries; restore it from a copy, "
                f"or move {self._head.path.name} away to start a new ledger"
            )
