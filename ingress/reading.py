"""What the queue of events holds, read only. What only counts or lists events leaves their content where it is: it may
be large, and there may be many."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection, RowMapping

from ingress.database import Database, event, event_of, hold, hold_of, route
from ingress.errors import UnknownEvent
from ingress.model import OPEN, REACHED, WAITING, Event, Hold, Person, Route, State
from ingress.people import Mention, mention

PAGE: Final = 50
"""Events that are in memory at once where all are read."""
HANDLED: Final = (State.PASSED, State.SENT, State.DONE)


@dataclass(frozen=True, kw_only=True, slots=True)
class Brief:
    """An event without its content."""

    id: str
    workflow: str
    key: str | None
    method: str
    path: str
    state: State
    received_at: datetime
    status: int | None
    why: str | None


class Reading:
    """The events of one app, and what is known of their workflows. Raises ``QueueUnreachable``."""

    def __init__(self, database: Database, app: str) -> None:
        self._db = database
        self._app = app

    def event(self, event_id: str) -> Event:
        """Raises ``UnknownEvent``."""
        with self._db.reading() as conn:
            return self._one(conn, event_id)

    def starting(self, prefix: str) -> list[Event]:
        """The events whose id begins so (at most a few)."""
        return self._list(self._events().where(event.c.id.startswith(prefix, autoescape=True)).limit(3))

    def passed(
        self, workflow: str | None = None, since: datetime | None = None, until: datetime | None = None
    ) -> list[Event]:
        """Events that the platform got, or may have got: those passed on before ``until`` whose answer came at or
        after ``since`` or has not come, by the time at which they were passed on."""
        query = self._events().where(event.c.forwarded_at.is_not(None), event.c.state.in_([*REACHED, State.DONE]))
        if workflow is not None:
            query = query.where(event.c.workflow == workflow)
        if since is not None:
            query = query.where(sa.or_(event.c.answered_at.is_(None), event.c.answered_at >= since))
        if until is not None:
            query = query.where(event.c.forwarded_at < until)
        return self._list(query.order_by(event.c.forwarded_at, event.c.seq))

    def in_flight(self, workflow: str | None = None) -> list[Event]:
        """Events that were passed on and not answered yet."""
        query = self._events().where(event.c.state.in_([State.PASSING, State.SENDING]))
        query = query.where(event.c.forwarded_at.is_not(None)).order_by(event.c.forwarded_at, event.c.seq)
        return self._list(query if workflow is None else query.where(event.c.workflow == workflow))

    def latest(self, workflow: str) -> str | None:
        """The id of the event that was passed on last."""
        with self._db.reading() as conn:
            return conn.execute(
                sa.select(event.c.id)
                .where(event.c.app == self._app, event.c.workflow == workflow, event.c.forwarded_at.is_not(None))
                .order_by(event.c.forwarded_at.desc(), event.c.seq.desc())
                .limit(1)
            ).scalar_one_or_none()

    def handled(self, workflow: str, key: str) -> Event | None:
        """An event of that key which the platform took and did not refuse."""
        query = self._events().where(event.c.workflow == workflow, event.c.key == key, event.c.state.in_(HANDLED))
        found = self._list(query.where(sa.or_(event.c.status.is_(None), event.c.status < 400)).limit(1))
        return found[0] if found else None

    def unsure(self, workflow: str, key: str) -> bool:
        """Whether an event of that key may have run, and no person has found out yet: the same key must not be sent
        as if it were new."""
        query = self._events().where(event.c.workflow == workflow, event.c.key == key)
        return bool(self._list(query.where(event.c.state == State.UNKNOWN).limit(1)))

    def events(
        self, *, states: Iterable[State] = (), workflow: str | None = None, limit: int | None = None
    ) -> list[Event]:
        """The newest events in these states (any), in order of arrival."""
        return self._list(_newest(self._events(), states, workflow, limit))[::-1]

    def briefs(
        self, *, states: Iterable[State] = (), workflow: str | None = None, limit: int | None = None
    ) -> list[Brief]:
        """The same as :meth:`events`, without their content."""
        names = tuple(Brief.__dataclass_fields__)
        query = sa.select(*(event.c[name] for name in names)).where(event.c.app == self._app)
        query = _newest(query, states, workflow, limit)
        with self._db.reading() as conn:
            rows = conn.execute(query).mappings().all()
        return [Brief(**{**row, "state": State(row["state"])}) for row in reversed(rows)]

    def counts(self) -> dict[State, int]:
        """How many events stand where."""
        return {State(state): number for state, number in self._counted(event.c.state)}

    def counts_of(self, incident: str | None, workflows: Collection[str]) -> dict[State, int]:
        """How many events that came to these workflows on account of one incident (of none) stand where."""
        chosen = (event.c.incident == incident, event.c.workflow.in_(workflows))
        return {State(state): number for state, number in self._counted(event.c.state, *chosen)}

    def waiting(self, *workflows: str) -> dict[str, int]:
        """How many events wait, by workflow (these, or all); those for whom none waits are left out."""
        return dict(self._counted(event.c.workflow, *_waiting(workflows)))

    def incidents(self, *workflows: str) -> frozenset[str]:
        """The incidents on whose account events of these workflows (of all) wait."""
        return frozenset(
            found for found, _ in self._counted(event.c.incident, *_waiting(workflows)) if found is not None
        )

    def of_person(self, value: str) -> Person:
        """The events that name a person by ``value``. Reads all of them, a page at a time."""
        found: dict[str, list[str]] = {"ended": [], "open": [], "inside": []}
        after = 0
        while page := self._list(self._events().where(event.c.seq > after).order_by(event.c.seq).limit(PAGE)):
            after = page[-1].seq
            for one in page:
                how = mention(one, value)
                if how is Mention.INSIDE:
                    found["inside"].append(one.id)
                elif how is Mention.VALUE:
                    found["open" if one.state in OPEN else "ended"].append(one.id)
        return Person(**{name: tuple(ids) for name, ids in found.items()})

    # Holds and ways in

    def holds(self) -> dict[str, Hold]:
        """The held workflows."""
        with self._db.reading() as conn:
            rows = conn.execute(sa.select(hold).where(hold.c.app == self._app)).mappings()
            return {h.workflow: h for h in map(hold_of, rows)}

    def held(self, *workflows: str, limit: int | None = None) -> list[Event]:
        """The events of these workflows (of all) that wait, in the order in which they are sent."""
        query = self._events().where(*_waiting(workflows)).order_by(event.c.place, event.c.seq)
        return self._list(query.limit(limit))

    def sending(self, *workflows: str, limit: int | None = None) -> list[Event]:
        """Those of them that somebody began to send."""
        query = self._events().where(*_waiting(workflows), event.c.state == State.SENDING)
        return self._list(query.order_by(event.c.place, event.c.seq).limit(limit))

    def routes(self) -> tuple[Route, ...]:
        with self._db.reading() as conn:
            rows = conn.execute(
                sa.select(route).where(route.c.app == self._app).order_by(route.c.path, route.c.method)
            ).mappings()
            return tuple(Route(**{n: r[n] for n in ("workflow", "method", "path", "event_key")}) for r in rows)

    def _events(self) -> sa.Select[Any]:
        return sa.select(event).where(event.c.app == self._app)

    def _counted(self, by: sa.Column[Any], *chosen: sa.ColumnElement[bool]) -> list[tuple[Any, int]]:
        query = sa.select(by, sa.func.count()).where(event.c.app == self._app, *chosen).group_by(by)
        with self._db.reading() as conn:
            return [(value, int(number)) for value, number in conn.execute(query)]

    def _list(self, query: sa.Select[Any]) -> list[Event]:
        with self._db.reading() as conn:
            return [event_of(row) for row in conn.execute(query).mappings()]

    def _row(self, conn: Connection, event_id: str) -> RowMapping:
        row = conn.execute(self._events().where(event.c.id == event_id)).mappings().first()
        if row is None:
            raise UnknownEvent(f"event {event_id}: the queue does not hold it; see `reinstate events list`")
        return row

    def _one(self, conn: Connection, event_id: str) -> Event:
        return event_of(self._row(conn, event_id))

    def _hold(self, conn: Connection, workflow: str) -> Hold | None:
        row = conn.execute(sa.select(hold).where(hold.c.app == self._app, hold.c.workflow == workflow)).mappings()
        found = row.first()
        return hold_of(found) if found is not None else None


def _waiting(workflows: Collection[str]) -> tuple[sa.ColumnElement[bool], ...]:
    waits = event.c.state.in_(WAITING)
    return (waits, event.c.workflow.in_(workflows)) if workflows else (waits,)


def _newest(query: sa.Select[Any], states: Iterable[State], workflow: str | None, limit: int | None) -> sa.Select[Any]:
    if wanted := list(states):
        query = query.where(event.c.state.in_(wanted))
    if workflow is not None:
        query = query.where(event.c.workflow == workflow)
    return query.order_by(event.c.seq.desc()).limit(limit)
