"""Which events recoveries replayed, so that a kept copy of one is not sent as well.

Read from the record, because events are released by whoever resumes: a step of a plan, or a person by hand, after any
number of recoveries.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Final

from ingress.queue import Queue
from ledger import kinds
from ledger.entry import Entry
from recovery.context import AppContext
from recovery.delivery import KINDS, Past, past

STEP: Final = "replay"
Named = tuple[str, str]
"""Workflow and the event's own key."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Replayed:
    """``unsure``: sent by a replay, and nobody knows whether it ran."""

    handled: frozenset[Named]
    unsure: frozenset[Named]


def event_key(incident: str, workflow: str, key: str) -> str:
    """What the record and the platform call an event that recoveries of an incident replay."""
    return f"{incident}:{workflow}:{key}"


def incidents(queue: Queue, workflows: Collection[str], incident: str | None) -> frozenset[str]:
    """The incidents on whose account events of these workflows wait, and the given one."""
    waiting = [e.incident for e in queue.held(*workflows)]
    holding = [h.incident for h in queue.holds().values() if h.workflow in workflows]
    return frozenset(i for i in (incident, *waiting, *holding) if i is not None)


def read(ctx: AppContext, of: Iterable[str]) -> Replayed:
    """What all recoveries of these incidents replayed, also those that were given up afterwards."""
    stands = past(ctx.ledger.entries(app=ctx.app.key, kinds=KINDS))
    handled: set[Named] = set()
    unsure: set[Named] = set()
    for incident in of:
        single = _of_incident(stands, incident)
        planned = in_plans(ctx.ledger.entries(incident=incident, kinds=(kinds.PLAN_MADE, kinds.STEP_OUTCOME)))
        # Where single events are on record, that says more than the step: some stay unknown, or were settled since.
        handled |= {n for n in planned if single.get(n, Past.DONE) in (Past.DONE, Past.FAILED)}
        handled |= {n for n, stand in single.items() if stand is Past.DONE}
        unsure |= {n for n, stand in single.items() if stand in (Past.BEGUN, Past.UNKNOWN)}
    return Replayed(handled=frozenset(handled), unsure=frozenset(unsure - handled))


def in_plans(entries: Iterable[Entry]) -> set[Named]:
    """The events of plans whose replay is done, from entries in order. Pure."""
    found: set[Named] = set()
    planned: dict[str | None, list[Named]] = {}
    for entry in entries:
        if entry.kind == kinds.PLAN_MADE:
            planned[entry.recovery] = [(str(e["workflow"]), str(e["key"])) for e in entry.body.get("events", ())]
        elif entry.step == STEP and entry.body.get("status") == "done":
            found.update(planned.get(entry.recovery, ()))
    return found


def _of_incident(stands: dict[Named, Past], incident: str) -> dict[Named, Past]:
    found = {}
    for (workflow, event), stand in stands.items():
        begins = event_key(incident, workflow, "")
        if event.startswith(begins):
            found[workflow, event.removeprefix(begins)] = stand
    return found
