"""Steps of a recovery: an *intent* before the effect, an *outcome* after it, and what a rerun may conclude.

The invariant: a step's effect happens only after its intent is recorded. So a step without an intent has no effect; an
intent without an outcome is *unknown* and must be read back from the world, never assumed; only an outcome is known.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from ledger import kinds
from ledger.entry import Draft, Entry
from ledger.errors import Refused

if TYPE_CHECKING:
    from ledger.lease import Lease
    from ledger.ledger import Ledger, View

Status = Literal["done", "failed", "skipped"]


@dataclass(frozen=True, kw_only=True, slots=True)
class StepState:
    """What the ledger knows of one step. ``attempt`` counts its intents, ``body`` is that of the newest entry."""

    step: str
    seq: int
    at: datetime
    attempt: int
    body: dict[str, Any]

    @property
    def done(self) -> bool:
        """The effect is there; a rerun skips the step."""
        return isinstance(self, Done | Skipped)

    @property
    def finished(self) -> bool:
        """There is an outcome, good or bad. False: the effect is unknown, read it back."""
        return not isinstance(self, Intent)


@dataclass(frozen=True, kw_only=True, slots=True)
class Intent(StepState):
    """Begun, outcome unknown."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Done(StepState):
    """Ended well."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Failed(StepState):
    """Ended with an error; may be tried again."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Skipped(StepState):
    """Decided not to be needed."""


_OUTCOMES: dict[str, type[StepState]] = {"done": Done, "failed": Failed, "skipped": Skipped}


def intent(
    ledger: Ledger,
    recovery: str,
    step: str,
    *,
    app: str,
    incident: str | None = None,
    body: Mapping[str, Any] | None = None,
    lease: Lease | None = None,
) -> Entry:
    """Record that ``step`` is about to happen. Raises ``LeaseLost`` when ``lease`` is not held any more."""
    return ledger.append(
        kinds.STEP_INTENT, app=app, incident=incident, recovery=recovery, step=step, body=body, lease=lease
    )


def outcome(
    ledger: Ledger,
    recovery: str,
    step: str,
    *,
    app: str,
    status: Status,
    incident: str | None = None,
    body: Mapping[str, Any] | None = None,
) -> Entry:
    """Record how ``step`` ended. ``seconds`` is added to the body, since the intent, unless it is there.

    Raises ``Refused`` for a step that was never begun (unless it is skipped) or already has its outcome."""
    if status not in _OUTCOMES:
        raise Refused(f"step {step}: status {status!r} is none of {', '.join(_OUTCOMES)}; correct the call")
    given = {"seconds": None, "detail": {}, **(body or {}), "status": status}

    def compose(view: View) -> Draft:
        known = fold(view.entries(recovery=recovery, kinds=(kinds.STEP_INTENT, kinds.STEP_OUTCOME))).get(step)
        if status != "skipped" and (known is None or known.finished):
            why = "was never begun" if known is None else "has its outcome already"
            raise Refused(f"step {step} of {recovery}: {why}; record an intent before every attempt")
        if given["seconds"] is None and isinstance(known, Intent):
            given["seconds"] = round((view.now() - known.at).total_seconds(), 3)
        return Draft(kind=kinds.STEP_OUTCOME, app=app, incident=incident, recovery=recovery, step=step, body=given)

    return ledger.append_with(compose)


def state(ledger: Ledger, recovery: str) -> dict[str, StepState]:
    """What is known of every step of ``recovery``, in the order in which they were first begun."""
    return fold(ledger.entries(recovery=recovery, kinds=(kinds.STEP_INTENT, kinds.STEP_OUTCOME)))


def fold(entries: list[Entry]) -> dict[str, StepState]:
    """The same from entries in order. Pure."""
    known: dict[str, StepState] = {}
    for entry in entries:
        if entry.step is None or entry.kind not in (kinds.STEP_INTENT, kinds.STEP_OUTCOME):
            continue
        earlier = known.get(entry.step)
        attempt = earlier.attempt if earlier else 0
        if entry.kind == kinds.STEP_INTENT:
            made: type[StepState] = Intent
            attempt += 1
        else:
            made = _OUTCOMES.get(str(entry.body.get("status")), Failed)
        known[entry.step] = made(step=entry.step, seq=entry.seq, at=entry.at, attempt=attempt, body=entry.body)
    return known
