"""The flow `recover` over a real ledger and real approvals, with a stand-in for what a plan holds and what a step does.

A run can be suspended, killed and resumed for real while no platform and no database is needed. ``$REINSTATE_HOME`` is
where ledger and notes of the steps are. `approval_flow` puts them in place.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ledger import Ledger
from recovery.plan import Mode, Plan, Step
from tests.recovery.kiosk import app_model

STEPS = ("contain", "publish:intake", "verify", "close")


@contextmanager
def opened(*_: Any, **__: Any) -> Iterator[Any]:
    """Stands for ``open_app``: ledger and catalogue, nothing else. A file says how long plans may be approved."""
    home = Path(os.environ["REINSTATE_HOME"])
    app = app_model(approvals={"expires_s": int((home / "expires_s").read_text())})
    yield SimpleNamespace(home=home, app=app, ledger=Ledger(home / "ledger.sqlite"))


def make(ctx: Any, incident: str, *, mode: str, policy: str, **_: Any) -> Plan:
    """A plan without rows; no two are the same."""
    return Plan(
        recovery_id=f"R1-{incident}",
        incident_id=incident,
        app="kiosk",
        mode=Mode(mode),
        policy=policy,
        made_at=datetime.now(UTC).isoformat(),
        point_id=None,
        publications=(),
        selection=(),
        carried_xids=(),
        tables=(),
        effects=(),
        conflicts={},
        suspects=0,
        events=(),
        contained=("intake", "payment"),
        active_before=("intake", "payment"),
        steps=tuple(Step(id=s, kind=s.partition(":")[0], title=f"Do {s}") for s in STEPS),  # type: ignore[arg-type]
    )


def step(ctx: Any, plan: Plan, chosen: Step, *_: Any) -> dict[str, Any]:
    """Stands for the work: one line in a file. The second one waits while there is a file ``hold``."""
    home = Path(os.environ["REINSTATE_HOME"])
    with (home / "steps").open("a", encoding="utf-8") as notes:
        notes.write(f"{plan.hash} {chosen.id} {os.getpid()}\n")
    while chosen.id == STEPS[1] and (home / "hold").exists():
        time.sleep(0.1)
    return {}
