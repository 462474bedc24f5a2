"""What the ledger knows of compensations: attempts, outcomes, what a person settled. Pure but for reading entries."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from ledger import kinds
from ledger.entry import Entry
from recovery.context import AppContext
from recovery.plan import Compensation

Step = tuple[str, str, str, int | None]
"""Workflow, run, name of the step, item."""
KINDS = (kinds.COMPENSATION_BEGUN, kinds.COMPENSATION_ENDED)
TAKEN_BACK = frozenset({"done", "not-needed"})


@dataclass(frozen=True, kw_only=True, slots=True)
class StepRecord:
    """One step of one run. ``open``: an attempt was begun whose end is not on record. ``by``: the person who settled
    it. ``runs`` are runs of its inverse whose failure is on record."""

    key: str
    recovery: str | None
    incident: str | None
    attempts: int = 0
    open: bool = False
    status: str | None = None
    by: str | None = None
    error: str = ""
    manual: str | None = None
    seconds: float | None = None
    runs: frozenset[str] = frozenset()

    @property
    def taken_back(self) -> bool:
        return self.status in TAKEN_BACK

    @property
    def sentence(self) -> str:
        """How it was taken back."""
        how = "found not needed" if self.status == "not-needed" else "taken back"
        return f"{how} {f'by hand, as {self.by} recorded' if self.by else f'by {self.recovery}'}"


def of(past: Mapping[Step, StepRecord], one: Compensation) -> StepRecord | None:
    """What is on record of one inverse; a person settles a step with all its items."""
    whole = past.get((one.workflow, one.run_id, one.step, None))
    return whole if whole is not None and whole.taken_back else past.get((one.workflow, one.run_id, one.step, one.item))


def known(ctx: AppContext, *, recovery: str | None = None, incident: str | None = None) -> dict[Step, StepRecord]:
    """Of all the app's incidents, or of one recovery or incident."""
    return fold(ctx.ledger.entries(app=ctx.app.key, recovery=recovery, incident=incident, kinds=KINDS))


def fold(entries: Iterable[Entry]) -> dict[Step, StepRecord]:
    """The same from entries in order. Pure."""
    found: dict[Step, StepRecord] = {}
    for entry in entries:
        body = entry.body
        item = body.get("item")
        step = (
            str(body.get("workflow")),
            str(body.get("run")),
            str(body.get("step_name")),
            item if isinstance(item, int) else None,
        )
        past = found.get(step) or StepRecord(key=str(body.get("key")), recovery=entry.recovery, incident=entry.incident)
        past = replace(past, key=str(body.get("key")), recovery=entry.recovery, incident=entry.incident)
        if entry.kind == kinds.COMPENSATION_BEGUN:
            found[step] = replace(past, attempts=past.attempts + 1, open=True)
        else:
            failed = {str(body["run_id"])} if body.get("run_id") and body.get("status") == "failed" else set()
            seconds = body.get("seconds")
            found[step] = replace(
                past,
                open=False,
                status=str(body.get("status")),
                by=str(body["by"]) if body.get("by") else None,
                error=str(body.get("error") or ""),
                manual=body.get("manual"),
                seconds=float(seconds) if isinstance(seconds, int | float) else None,
                runs=past.runs | failed,
            )
    return found


def settled(ctx: AppContext) -> dict[Step, str]:
    """What was taken back already, with how, by step."""
    return {step: past.sentence for step, past in known(ctx).items() if past.taken_back}
