"""Values of the ingress: an event and where it stands, a held workflow, a way in."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal
from urllib.parse import parse_qs, parse_qsl

Policy = Literal["replay", "discard", "reject"]


class State(StrEnum):
    """Where an event stands."""

    PASSING = "passing"
    """Passed on to the platform, which has not answered yet."""
    PASSED = "passed"
    """The platform answered; ``status`` says what."""
    CUT = "cut"
    """Passed on, and nobody knows the answer: it did not come in time, or the ingress died before it came."""
    DROPPED = "dropped"
    """Passed on, and thrown away by the platform when the workflow was paused."""
    TURNED_AWAY = "turned-away"
    """The platform could not be reached, so it never got it; the sender was told to try again."""
    HELD = "held"
    """Kept for after the pause."""
    SENDING = "sending"
    """A kept event on its way to the platform."""
    SENT = "sent"
    """A kept event that the platform took."""
    FAILED = "failed"
    """A kept event that the platform took and answered with an error."""
    REPEATED = "repeated"
    """A kept event that had been handled already: not sent."""
    DISCARDED = "discarded"
    """Only recorded: by policy during a pause, or by a person."""
    REJECTED = "rejected"
    """Turned away during a pause, by policy: the sender tries again."""
    UNKNOWN = "unknown"
    """A kept event that may or may not have run: a person must look."""
    DONE = "done"
    """A person found that an unknown event had run."""


WAITING = (State.HELD, State.SENDING)
OPEN = (State.PASSING, State.HELD, State.SENDING, State.UNKNOWN)
"""Not ended: what replaying such an event may need is kept, authorization and cookies too."""
REACHED = (
    State.PASSING,
    State.PASSED,
    State.CUT,
    State.DROPPED,
    State.SENDING,
    State.SENT,
    State.FAILED,
    State.UNKNOWN,
)
"""The platform got it, or may have got it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """What came in. ``seq`` orders by arrival, ``place`` says where in that order it is sent. ``key`` is the event's
    own key where the catalogue names one. ``status`` is the HTTP status of the platform's answer. ``retry_of`` is the
    event that a pause dropped and that this one sends again. Headers are pairs as they came, names in lower case."""

    id: str
    seq: int
    place: int
    workflow: str
    key: str | None
    method: str
    path: str
    query: str = field(repr=False)
    headers: tuple[tuple[str, str], ...] = field(repr=False)
    body: bytes = field(repr=False)
    state: State
    received_at: datetime
    forwarded_at: datetime | None = None
    answered_at: datetime | None = None
    status: int | None = None
    run: str | None = None
    why: str | None = None
    incident: str | None = None
    retry_of: str | None = None

    @property
    def input(self) -> dict[str, Any]:
        """The event as a workflow's trigger sees it: ``body``, ``headers`` and ``query``."""
        return as_input(self.query, self.headers, self.body)


def as_input(query: str, headers: tuple[tuple[str, str], ...], body: bytes) -> dict[str, Any]:
    """A request as a trigger's input. JSON and forms are read, other text stays text. Pure."""
    named = dict(headers)
    return {
        "headers": named,
        "query": {name: values[0] if len(values) == 1 else values for name, values in parse_qs(query).items()},
        "body": _read(body, named.get("content-type", "")),
    }


def _read(body: bytes, kind: str) -> Any:
    text = body.decode("utf-8", errors="replace")
    if "form-urlencoded" in kind:
        return dict(parse_qsl(text))
    try:
        return json.loads(text) if text else {}
    except ValueError:
        return text


@dataclass(frozen=True, kw_only=True, slots=True)
class Person:
    """Ids of the events that name a person: those that ended, those that have not, and those that have the value only
    inside another text."""

    ended: tuple[str, ...] = ()
    open: tuple[str, ...] = ()
    inside: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Hold:
    """A workflow whose events are kept back. ``per_s``: at most so many are sent a second afterwards."""

    workflow: str
    policy: Policy
    per_s: float | None
    incident: str | None
    since: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class Route:
    """A way into a workflow: method and path below the platform's address. A part of the path that begins with a
    colon stands for any one part. ``event_key`` is a dotted path into the trigger's input."""

    workflow: str
    method: str
    path: str
    event_key: str | None = None

    def matches(self, method: str, path: str) -> bool:
        mine, theirs = self.path.strip("/").split("/"), path.strip("/").split("/")
        return (
            self.method == method
            and len(mine) == len(theirs)
            and all(a == b or (a.startswith(":") and b != "") for a, b in zip(mine, theirs, strict=True))
        )


def route_of(routes: tuple[Route, ...], method: str, path: str) -> Route | None:
    """The way that a request takes; the one with the fewest open parts where several fit. Pure."""
    fitting = [r for r in routes if r.matches(method, path)]
    return min(fitting, key=lambda r: r.path.count("/:"), default=None)
