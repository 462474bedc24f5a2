"""Staged resume as steps of a plan; see :mod:`recovery.resuming`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from platforms.base import PlatformError
from recovery import resuming, windows
from recovery.containment import Say
from recovery.context import AppContext
from recovery.errors import Relapse
from recovery.plan import Plan, Step
from recovery.steps import finish
from snapshots import position


def act(ctx: AppContext, plan: Plan, step: Step, say: Say) -> dict[str, Any]:
    """Resume one stage."""
    what = resuming.of_plan(ctx, plan)
    with private_copies_removed_on_relapse(ctx, plan):
        back = resuming.stage(ctx, what, step.params["workflows"], step.params["watch_s"], say)
    body = {"stage": step.params["stage"], "workflows": back, "ok": True}
    ctx.ledger.append(
        "resume.stage", app=plan.app, incident=plan.incident_id, recovery=plan.recovery_id, step=step.id, body=body
    )
    return body


def watch_act(ctx: AppContext, plan: Plan, step: Step, say: Say) -> dict[str, Any]:
    """Watch the detectors over live traffic once everything is back, from where the first stage began."""
    begun = ctx.ledger.entries(recovery=plan.recovery_id, kinds=[windows.RESUMING])
    with ctx.connect("recoverer", "watch") as connection:
        since = windows.decode(dict(begun[0].body["position"])) if begun else position.current(connection)
    with private_copies_removed_on_relapse(ctx, plan):
        findings = resuming.watch(ctx, resuming.of_plan(ctx, plan), since, step.params["watch_s"], say)
    return {"seconds": step.params["watch_s"], "warnings": [f.message for f in findings]}


@contextmanager
def private_copies_removed_on_relapse(ctx: AppContext, plan: Plan) -> Iterator[None]:
    """A relapse ends the recovery, so its last step never comes."""
    try:
        yield
    except Relapse:
        with suppress(PlatformError):  # the relapse is what matters
            finish.close_private(ctx, plan)
        raise
