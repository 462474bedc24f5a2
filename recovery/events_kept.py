"""What a person sees of events and does about them: held ones, unknown ones, in the ingress and in the record."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from ingress.model import Event, State
from ingress.queue import CREDENTIALS
from ingress.reading import Brief
from ledger import kinds
from platforms.base import RunState
from recovery import delivery, held
from recovery.containment import Say
from recovery.context import AppContext
from recovery.delivery import Delivered
from recovery.errors import NothingToRecover, Refused
from recovery.held import Released

LEASE_S: Final = 30.0
WORTH_A_LOOK: Final = (State.HELD, State.SENDING, State.UNKNOWN, State.FAILED, State.DROPPED, State.CUT)
"""States that somebody may want to do something about."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Listed:
    """One event. ``id`` is the ingress's, or what the record calls an event of a replay. ``key`` is the event's own."""

    id: str
    workflow: str
    key: str | None
    state: str
    at: datetime
    request: str
    status: int | None
    why: str | None


def listing(
    ctx: AppContext, *, states: Iterable[State] = WORTH_A_LOOK, workflow: str | None = None, limit: int | None = None
) -> list[Listed]:
    """Events in these states, oldest first. Unknown ones of replays and retries stand only in the record."""
    wanted = tuple(states)
    queued = ctx.events.briefs(states=wanted, workflow=workflow, limit=limit) if ctx.events is not None else []
    found = [_listed(e) for e in queued]
    if State.UNKNOWN in wanted or not wanted:
        names = {held.name(e) for e in queued}
        found += [
            Listed(
                id=str(e.body["event"]),
                workflow=str(e.body["workflow"]),
                key=None,
                state=State.UNKNOWN,
                at=e.at,
                request="",
                status=None,
                why=e.body.get("why"),
            )
            for e in delivery.unknown(ctx)
            if e.body["event"] not in names and workflow in (None, e.body["workflow"])
        ]
    return sorted(found, key=lambda e: e.at)


def _listed(event: Brief) -> Listed:
    return Listed(
        id=event.id,
        workflow=event.workflow,
        key=event.key,
        state=event.state,
        at=event.received_at,
        request=f"{event.method} {event.path}",
        status=event.status,
        why=event.why,
    )


def one(ctx: AppContext, event_id: str) -> Event:
    """The event of the ingress with this id, or the only one whose id begins so. Raises ``NothingToRecover``."""
    found = [] if ctx.events is None else ctx.events.starting(event_id)
    if len(found) != 1:
        what = "several events begin so; give more of the id" if found else "the ingress holds no such event"
        raise NothingToRecover(f"event {event_id}: {what}; see `reinstate events list`")
    return found[0]


def shown(event: Event, *, values: bool = False) -> dict[str, Any]:
    """All that is kept of an event. Without ``values``, only the kind and size of each value of its content."""
    content = event.input
    content["headers"] = {k: "…" if k in CREDENTIALS else v for k, v in content["headers"].items()}
    return {
        "id": event.id,
        "workflow": event.workflow,
        "key": event.key,
        "state": str(event.state),
        "request": f"{event.method} {event.path}",
        "received_at": event.received_at,
        "forwarded_at": event.forwarded_at,
        "answered_at": event.answered_at,
        "status": event.status,
        "run": event.run,
        "incident": event.incident,
        "retry_of": event.retry_of,
        "why": event.why,
        "content": content if values else masked(content),
    }


def masked(value: Any) -> Any:
    """The same shape with each value told by kind and size alone. Pure."""
    if isinstance(value, Mapping):
        return {str(k): masked(v) for k, v in value.items()}
    if isinstance(value, list):
        return [masked(v) for v in value]
    if isinstance(value, str):
        return f"text of {len(value)}"
    return "nothing" if value is None else "yes or no" if isinstance(value, bool) else "number"


def waiting(ctx: AppContext, workflows: Iterable[str]) -> dict[str, int]:
    """How many events wait, by workflow."""
    return ctx.events.waiting(*workflows) if ctx.events is not None else {}


def release(ctx: AppContext, workflows: Iterable[str], *, say: Say) -> Released:
    """Send what is held for these workflows (for all), once they are active. Raises :class:`Refused` while one with
    held events is paused, ``NothingToRecover`` when nothing is held."""
    chosen = tuple(workflows) or tuple(w.key for w in ctx.app.workflows)
    if ctx.events is None or not (set(waiting(ctx, chosen)) | (set(ctx.events.holds()) & set(chosen))):
        raise NothingToRecover(f"app {ctx.app.key}: no event is held; see `reinstate events list --all`")
    infos = ctx.infos()
    if paused := sorted(w for w in waiting(ctx, chosen) if not infos[w].active):
        raise Refused(f"app {ctx.app.key}: {', '.join(paused)} is paused; resume it first: `reinstate resume`")
    with _alone(ctx, "release of events"):
        return held.release(ctx, chosen, incident=None, say=say)


def discard(ctx: AppContext, event_ids: Iterable[str], *, by: str, reason: str) -> list[str]:
    """Held events are only kept on record, and never sent. Returns their ids."""
    gone = []
    with _alone(ctx, "discarding of events"):
        for event_id in event_ids:
            found = one(ctx, event_id)
            if found.state is not State.HELD:
                raise Refused(f"event {found.id}: it is {found.state}, not held; nothing was discarded of it")
            _note(ctx, kinds.EVENT_DISCARDED, found.workflow, held.name(found), by=by, reason=reason)
            assert ctx.events is not None  # noqa: S101 - it was found there
            ctx.events.finish(found.id, State.DISCARDED, why=f"discarded by {by}: {reason}" if reason else None)
            gone.append(found.id)
    return gone


def settle(ctx: AppContext, event_id: str, *, done: bool, by: str, reason: str) -> str:
    """A person found out whether an unknown event ran. One that did not run and is kept by the ingress is held again,
    so that it can be released. Returns what became of it. Raises ``NothingToRecover`` when none is unknown."""
    with _alone(ctx, "settling of an event"):
        listed = [e for e in listing(ctx, states=[State.UNKNOWN]) if e.id == event_id or e.id.startswith(event_id)]
        if len(listed) != 1:
            what = "several unknown events begin so; give more of the id" if listed else "no such event is unknown"
            raise NothingToRecover(f"event {event_id}: {what}; see `reinstate events list`")
        found = listed[0]
        queued = ctx.events.starting(found.id) if ctx.events is not None else []
        name = held.name(queued[0]) if queued else found.id
        _note(ctx, kinds.EVENT_SETTLED, found.workflow, name, by=by, reason=reason, done=done)
        if queued and ctx.events is not None:
            ctx.events.settle(found.id, State.DONE if done else State.HELD)
    if done:
        return "recorded: it ran"
    return "held again; `reinstate events release` sends it" if queued else "recorded: it did not run; enter it by hand"


def retry(ctx: AppContext, run_id: str) -> Delivered:
    """Run the event of a failed run again, once, in its workflow as it is now. Raises :class:`Refused` for a run that
    did not fail or whose workflow is paused, ``Permanent`` where the platform cannot."""
    run = ctx.platform.run_detail(run_id).run
    keys = {info.id: key for key, info in ctx.infos().items() if info.active}
    if run.workflow_id not in keys:
        raise Refused(f"run {run_id}: its workflow is paused or not in the catalogue; resume it first")
    if run.state.in_flight or run.state is RunState.SUCCESS:
        raise Refused(f"run {run_id}: it is {run.state}, so there is nothing to run again")
    with _alone(ctx, f"retry of run {run_id}"):
        return delivery.retrigger(ctx, keys[run.workflow_id], run_id)


def _note(ctx: AppContext, kind: str, workflow: str, event: str, **more: Any) -> None:
    ctx.ledger.append(kind, app=ctx.app.key, body={"workflow": workflow, "event": event, **more})


def _alone(ctx: AppContext, what: str) -> Any:
    return ctx.ledger.lease(ctx.app.key, f"{what} by process {os.getpid()} on {socket.gethostname()}", LEASE_S)
