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
    """``unsure``: sent by a replay, or it may be, and nobody knows whether it ran."""

    handled: frozenset[Named]
    unsure: frozenset[Named]


def event_key(incident: str, workflow: str, key: str) -> str:
    """What the record and the platform call an event that recoveries of an incident replay."""
    return f"{incident}:{workflow}:{key}"


def incidents(queue: Queue, workflows: Collection[str], incident: str | None) -> frozenset[str]:
    """The incidents on whose account events of these workflows wait, and the given one."""
    holding = {h.incident for h in queue.holds().values() if h.workflow in workflows}
    return queue.incidents(*workflows) | {i for i in (incident, *holding) if i is not None}


def read(ctx: AppContext, of: Iterable[str]) -> Replayed:
    """What all recoveries of these incidents replayed, also those that were given up afterwards or stopped on the way.
    Of a replay that did not come to its end single events need not be on record: all of it is unsure then."""
    stands = past(ctx.ledger.entries(app=ctx.app.key, kinds=KINDS))
    handled: set[Named] = set()
    unsure: set[Named] = set()
    for incident in of:
        single = _of_incident(stands, incident)
        of_steps = (kinds.PLAN_MADE, kinds.STEP_INTENT, kinds.STEP_OUTCOME)
        planned, begun = in_plans(ctx.ledger.entries(incident=incident, kinds=of_steps))
        # Where single events are on record, that says more than the step: some stay unknown, or were settled since.
        handled |= {n for n in planned if single.get(n, Past.DONE) in (Past.DONE, Past.FAILED)}
        handled |= {n for n, stand in single.items() if stand is Past.DONE}
        unsure |= {n for n, stand in single.items() if stand in (Past.BEGUN, Past.UNKNOWN)}
        unsure |= {n for n in begun if n not in single}
    return Replayed(handled=frozenset(handled), unsure=frozenset(unsure - handled))


def in_plans(entries: Iterable[Entry]) -> tuple[set[Named], set[Named]]:
    """The events of plans whose replay is done, and of those whose replay began and is not done, from entries in
    order. The newest replay of an event counts: one that was undone for it stands no more. Pure."""
    stands: dict[Named, bool] = {}
    planned: dict[str | None, list[Named]] = {}
    for entry in entries:
        if entry.kind == kinds.PLAN_MADE:
            planned[entry.recovery] = [(str(e["workflow"]), str(e["key"])) for e in entry.body.get("events", ())]
        elif entry.step == STEP and entry.kind == kinds.STEP_INTENT:
            stands |= dict.fromkeys(planned.get(entry.recovery, ()), False)
        elif entry.step == STEP and entry.body.get("status") == "done":
            stands |= dict.fromkeys(planned.get(entry.recovery, ()), True)
    done = {n for n, stand in stands.items() if stand}
    return done, stands.keys() - done


def _of_incident(stands: dict[Named, Past], incident: str) -> dict[Named, Past]:
    found = {}
    for (workflow, event), stand in stands.items():
        begins = event_key(incident, workflow, "")
        if event.startswith(begins):
            found[workflow, event.removeprefix(begins)] = stand
    return found
