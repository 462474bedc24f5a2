"""Prove the restored state before anything resumes."""

from __future__ import annotations

from typing import Any

from recovery import verification
from recovery.containment import Say
from recovery.context import AppContext
from recovery.errors import VerificationFailed
from recovery.plan import Plan, Step


def act(ctx: AppContext, plan: Plan, step: Step, say: Say) -> dict[str, Any]:
    """Before a resume everything must pass. After one half alone the clauses must hold; suites that cannot pass yet
    are recorded, and keep the app paused."""
    proof = verification.verify(ctx, incident=plan.incident_id, plan=plan)
    kind = "verify.passed" if proof.passed else "verify.failed"
    body = proof.body()
    ctx.ledger.append(kind, app=plan.app, incident=plan.incident_id, recovery=plan.recovery_id, body=body)
    enough = proof.passed if step.params["resumed"] else proof.agreed
    if not enough:
        raise VerificationFailed(
            f"app {plan.app}: {'; '.join(proof.problems)}; it stays paused and fenced: see `reinstate report`"
        )
    failed = f", {len(proof.suites.failed)} do not hold yet" if proof.suites.failed else ""
    say(f"{proof.suites.ran} expectations ran{failed}; logic and data agree on {len(proof.clauses)} clauses")
    return body
