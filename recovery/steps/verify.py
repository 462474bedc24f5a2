"""Prove the restored state before anything resumes."""

from __future__ import annotations

from typing import Any

from recovery import verification
from recovery.containment import Say
from recovery.context import AppContext
from recovery.errors import VerificationFailed
from recovery.plan import Plan, Step


def act(ctx: AppContext, plan: Plan, step: Step, say: Say) -> dict[str, Any]:  # noqa: ARG001 - one signature for all acts
    proof = verification.verify(ctx, incident=plan.incident_id, plan=plan, expected_active=())
    kind = "verify.passed" if proof.passed else "verify.failed"
    body = proof.body()
    ctx.ledger.append(kind, app=plan.app, incident=plan.incident_id, recovery=plan.recovery_id, body=body)
    if not proof.passed:
        raise VerificationFailed(
            f"app {plan.app}: {'; '.join(proof.problems)}; it stays paused and fenced: see `reinstate report`"
        )
    say(f"{proof.suites.ran} expectations passed; logic and data agree on {len(proof.clauses)} clauses")
    return body
