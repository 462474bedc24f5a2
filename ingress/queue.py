"""The durable queue of events: what came in, where it stands, and which workflows' events are kept back.

Every method is one committed transaction. Whether an event is passed on or kept is decided where it is written
down, so that nothing is passed on once :meth:`Queue.hold` has returned, and nothing is kept once the hold has ended.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Collection, Iterable, Sequence
from datetime import UTC, datetime
from os import PathLike
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ingress.database import Database, event, event_of, hold, route
from ingress.errors import WrongState
from ingress.model import OPEN, WAITING, Event, Policy, Route, State
from ingress.reading import PAGE, Reading

CREDENTIALS: Final = frozenset({"authorization", "proxy-authorization", "cookie"})

KEPT_AS: Final[dict[str, State]] = {
    "replay": State.HELD,
    "discard": State.DISCARDED,
    "reject": State.REJECTED,
}


class Queue(Reading):
    """The events of one app. ``url`` is a path (SQLite) or a PostgreSQL address. ``owner`` names the process that
    passes events on. Safe to share between threads and processes. Raises ``QueueUnreachable``."""

    def __init__(self, url: str | PathLike[str], *, app: str = "", owner: str = "") -> None:
        super().__init__(Database(url), app)
        self._owner = owner

    @property
    def name(self) -> str:
        """Where it is, without a password."""
        return self._db.name

    def close(self) -> None:
        self._db.close()

    # What comes in

    def record(
        self,
        *,
        workflow: str,
        key: str | None,
        method: str,
        path: str,
        query: str,
        headers: Sequence[tuple[str, str]],
        body: bytes,
    ) -> Event:
        """Write an event down and decide: ``passing`` (pass it on now), or what the hold's policy says. While events
        are kept, the same key again is the event that is kept already."""
        with self._db.writing() as conn:
            self._db.lock(conn, self._app, workflow, shared=True)
            held = self._hold(conn, workflow)
            state = State.PASSING if held is None else KEPT_AS[held.policy]
            if held is not None and key is not None and state is not State.REJECTED:
                self._db.lock(conn, self._app, workflow, "key", key)
                found = conn.execute(
                    self._events()
                    .where(event.c.workflow == workflow, event.c.key == key)
                    .where(
                        # A copy of what the pause dropped is older than the hold, and an unknown one may be.
                        sa.or_(
                            event.c.state.in_([*WAITING, State.UNKNOWN]),
                            sa.and_(
                                event.c.state.in_([State.DISCARDED, State.SENT]),
                                sa.or_(event.c.received_at >= held.since, event.c.answered_at >= held.since),
                            ),
                        )
                    )
                    .order_by(event.c.seq)
                ).mappings()
                if (first := found.first()) is not None:
                    return event_of(first)
            now = datetime.now(UTC)
            values = {
                "workflow": workflow,
                "key": key,
                "method": method,
                "path": path,
                "query": query,
                "headers": [h for h in headers if h[0] not in CREDENTIALS],
                # Who is turned away tries again: nothing of it needs to be kept.
                "body": b"" if state is State.REJECTED else body,
                "state": state,
                "received_at": now,
                "forwarded_at": now if state is State.PASSING else None,
                "incident": held.incident if held else None,
            }
            open_still = state in OPEN
            return self._insert(conn, values, [h for h in headers if h[0] in CREDENTIALS] if open_still else [])

    def answered(self, event_id: str, status: int) -> Event:
        """The platform answered. If the pause was thought to have dropped it, it did not: nothing is sent again."""
        with self._db.writing() as conn:
            found = self._one(conn, event_id)
            if found.state in (State.PASSING, State.CUT, State.DROPPED):
                copy = conn.execute(self._events().where(event.c.retry_of == event_id)).mappings().first()
                if copy is not None and copy["state"] == State.HELD:
                    self._change(conn, copy["id"], state=State.REPEATED, why="the first one was answered after all")
                self._change(conn, event_id, state=State.PASSED, status=status, answered_at=datetime.now(UTC), why=None)
            return self._one(conn, event_id)

    def unanswered(self, event_id: str, why: str) -> Event:
        """Nobody will hear the platform's answer any more."""
        with self._db.writing() as conn:
            if self._one(conn, event_id).state is State.PASSING:
                self._change(conn, event_id, state=State.CUT, why=why, answered_at=datetime.now(UTC))
            return self._one(conn, event_id)

    def not_taken(self, event_id: str, status: int | None, why: str, *, keep: bool = True) -> Event:
        """The platform surely did not take the event: unreachable (``status`` is None), or it says that the workflow
        is paused. It is kept if the workflow is held by now, unless the sender was told already (``keep`` False); else
        the sender is told what the platform said."""
        with self._db.writing() as conn:
            found = self._one(conn, event_id)
            if found.state is not State.PASSING:
                return found
            self._db.lock(conn, self._app, found.workflow, shared=True)
            held = self._hold(conn, found.workflow) if keep else None
            if held is not None:
                state = KEPT_AS[held.policy]
                self._change(conn, event_id, state=state, forwarded_at=None, incident=held.incident, why=why)
            elif status is None:
                self._change(conn, event_id, state=State.TURNED_AWAY, forwarded_at=None, why=why)
            else:
                self._change(conn, event_id, state=State.PASSED, status=status, answered_at=datetime.now(UTC))
            return self._one(conn, event_id)

    def drop(self, event_id: str, why: str) -> Event:
        """The platform threw a passed event away when its workflow was paused. By the hold's policy a copy of it, with
        an id of its own, is kept in its place; returns the copy, or the event where nothing is sent again."""
        with self._db.writing() as conn:
            found = self._one(conn, event_id)
            self._db.lock(conn, self._app, found.workflow)
            row = self._row(conn, event_id)
            if row["state"] == State.PASSING:
                held = self._hold(conn, found.workflow)
                kept = held is not None and held.policy == "replay"
                credentials = json.loads(row["credentials"] or "[]")
                self._change(conn, event_id, state=State.DROPPED, why=why, answered_at=datetime.now(UTC))
                if kept:
                    copied = ("workflow", "key", "method", "path", "query", "body", "received_at", "place")
                    values: dict[str, Any] = {name: row[name] for name in copied}
                    values |= {"headers": json.loads(row["headers"]), "state": State.HELD, "retry_of": event_id}
                    values["incident"] = held.incident if held else None
                    return self._insert(conn, values, credentials)
            copy = conn.execute(self._events().where(event.c.retry_of == event_id)).mappings().first()
            return event_of(copy) if copy is not None else self._one(conn, event_id)

    def take_over(self) -> list[str]:
        """Called at a start: what earlier processes passed on and had no answer to is ``cut``. Returns the ids."""
        with self._db.writing() as conn:
            found = conn.execute(
                sa.select(event.c.id)
                .where(event.c.app == self._app, event.c.state == State.PASSING)
                .where(sa.or_(event.c.owner != self._owner, event.c.owner.is_(None)))
            )
            ids = [str(event_id) for event_id in found.scalars().all()]
            for event_id in ids:
                why = "the ingress stopped before the answer came"
                self._change(conn, event_id, state=State.CUT, why=why, answered_at=datetime.now(UTC))
            return ids

    def give_up(self, before: datetime, beside: Collection[str]) -> list[str]:
        """What this process passed on before that time and has no hand on any more, ``beside`` those named, is
        ``cut``: how it ended could not be noted. Returns the ids."""
        query = self._events().where(event.c.state == State.PASSING, event.c.owner == self._owner)
        lost = [e.id for e in self._list(query.where(event.c.received_at < before)) if e.id not in beside]
        for event_id in lost:
            self.unanswered(event_id, "the answer could not be noted")
        return lost

    # Holding and releasing

    def hold(self, workflow: str, policy: Policy, *, per_s: float | None = None, incident: str | None = None) -> bool:
        """From now on nothing of the workflow is passed on. Returns whether it was not held before; a hold that is
        there stays as it is."""
        with self._db.writing() as conn:
            self._db.lock(conn, self._app, workflow)
            if self._hold(conn, workflow) is not None:
                return False
            values = {"app": self._app, "workflow": workflow, "policy": policy, "per_s": per_s, "incident": incident}
            conn.execute(sa.insert(hold).values(**values, since=datetime.now(UTC)))
            return True

    def release(self, workflow: str) -> bool:
        """End the hold, unless events are held. Returns whether the workflow is free."""
        with self._db.writing() as conn:
            self._db.lock(conn, self._app, workflow)
            waiting = sa.select(event.c.id).where(event.c.app == self._app, event.c.workflow == workflow)
            if conn.execute(waiting.where(event.c.state == State.HELD).limit(1)).first() is not None:
                return False
            conn.execute(sa.delete(hold).where(hold.c.app == self._app, hold.c.workflow == workflow))
            return True

    def begin(self, event_id: str) -> Event:
        """A kept event is about to be sent. Raises ``WrongState`` when it does not wait."""
        with self._db.writing() as conn:
            found = self._one(conn, event_id)
            if found.state not in WAITING:
                raise WrongState(f"event {event_id}: it is {found.state}, so it cannot be sent; see `reinstate events`")
            if found.state is State.HELD:
                self._change(conn, event_id, state=State.SENDING, forwarded_at=datetime.now(UTC), why=None)
            return self._one(conn, event_id)

    def finish(
        self, event_id: str, state: State, *, status: int | None = None, run: str | None = None, why: str | None = None
    ) -> Event:
        """How a kept event ended; back to ``held`` when it surely was not taken."""
        with self._db.writing() as conn:
            back = state is State.HELD
            at = None if state in (State.HELD, State.UNKNOWN, State.REPEATED, State.DISCARDED) else datetime.now(UTC)
            self._change(conn, event_id, state=state, status=status, run=run, why=why, answered_at=at)
            if back or state in (State.REPEATED, State.DISCARDED):
                self._change(conn, event_id, forwarded_at=None)
            return self._one(conn, event_id)

    def settle(self, event_id: str, state: State) -> Event:
        """A person found out what became of an unknown event: ``done``, or ``held`` because it did not run. Raises
        ``WrongState`` for an event that is not unknown."""
        with self._db.writing() as conn:
            found = self._one(conn, event_id)
            if found.state is not State.UNKNOWN:
                raise WrongState(f"event {event_id}: it is {found.state}, not unknown; there is nothing to settle")
            gone = {"forwarded_at": None} if state is State.HELD else {}
            self._change(conn, event_id, state=state, **gone)
            return self._one(conn, event_id)

    def prune(self, before: datetime) -> int:
        """Forget events that came before and have ended. Returns how many."""
        with self._db.writing() as conn:
            gone = conn.execute(
                sa.delete(event)
                .where(event.c.app == self._app, event.c.received_at < before)
                .where(event.c.state.not_in(OPEN))
            )
            return int(gone.rowcount)

    def forget(self, ids: Sequence[str]) -> int:
        """Remove these events, but for those that have not ended. Returns how many went."""
        with self._db.writing() as conn:
            return sum(
                conn.execute(
                    sa.delete(event)
                    .where(event.c.app == self._app, event.c.id.in_(ids[at : at + PAGE]))
                    .where(event.c.state.not_in(OPEN))
                ).rowcount
                for at in range(0, len(ids), PAGE)
            )

    # Ways in

    def set_routes(self, routes: Iterable[Route]) -> None:
        """From now on these are the ways in, for all processes."""
        with self._db.writing() as conn:
            self._db.lock(conn, self._app, "routes")
            conn.execute(sa.delete(route).where(route.c.app == self._app))
            for r in {(r.method, r.path): r for r in routes}.values():
                values = {"method": r.method, "path": r.path, "workflow": r.workflow, "event_key": r.event_key}
                conn.execute(sa.insert(route).values(app=self._app, **values))

    # Parts

    def _insert(self, conn: Connection, values: dict[str, Any], credentials: Sequence[Sequence[str]]) -> Event:
        event_id = uuid.uuid4().hex
        kept = {
            "place": 0,
            **values,
            "id": event_id,
            "app": self._app,
            "owner": self._owner,
            "headers": json.dumps(values["headers"]),
            "credentials": json.dumps(credentials) if credentials else None,
        }
        conn.execute(sa.insert(event).values(**kept))
        if not kept["place"]:
            conn.execute(sa.update(event).where(event.c.id == event_id).values(place=event.c.seq))
        return self._one(conn, event_id)

    def _change(self, conn: Connection, event_id: str, **values: Any) -> None:
        if "state" in values and values["state"] not in OPEN:
            values["credentials"] = None
        conn.execute(sa.update(event).where(event.c.app == self._app, event.c.id == event_id).values(**values))
