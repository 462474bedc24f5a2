"""What an operator does about the wrecked shop, and does again after a kill: contain, diagnose, plan, every step.

Runs in a child of its own that dies by SIGKILL at the first point it has not died at yet: right before each entry of
the ledger and each step's outcome (what it records has happened), and right after each write to the platform or to the
fence (nothing says so). A child that meets no new point gets to the end.
"""

from __future__ import annotations

import os
import signal
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from checks import detectors, suites
from checks.model import SuiteReport
from incidents import record
from ledger import Ledger, steps
from platforms.base import Platform
from platforms.wrapper import Wrapper
from recovery import containment, context, handling, outline, session
from recovery.windows import decode
from snapshots import fence

APP = "shop"
WRITES = frozenset(
    {
        "save",
        "create",
        "activate",
        "deactivate",
        "stop",
        "open_private_entry",
        "open_private_callee",
        "send",
        "close_private_entry",
    }
)
T = TypeVar("T")


class Deaths:
    """Where children have died, one line each in ``file``; the ``scope`` tells the same point of two steps apart."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.scope = "contain"

    def so_far(self) -> list[str]:
        return self.file.read_text("utf-8").splitlines() if self.file.exists() else []

    def here(self, point: str) -> None:
        """Die, unless a child died here before."""
        named = f"{self.scope}: {point}"
        if named not in self.so_far():
            with self.file.open("a", encoding="utf-8") as lines:
                lines.write(named + "\n")
            os.kill(os.getpid(), signal.SIGKILL)


def passing(*_: Any, **__: Any) -> SuiteReport:
    """Stands for the suites, which take ten seconds to load and are not what is tested."""
    return SuiteReport(passed=True, ran=1, failed=(), seconds=0.0, snapshot=None)


class Dying(Wrapper):
    """A platform after each of whose writes the process dies."""

    def __init__(self, platform: Platform, deaths: Deaths) -> None:
        super().__init__(platform)
        self._deaths = deaths

    def _call(self, method: str, call: Callable[[], T]) -> T:
        result = call()
        if method in WRITES:
            self._deaths.here(f"after {method}")
        return result


def arm(deaths: Deaths) -> None:
    """Make the product die at every point."""
    append, outcome = Ledger.append, steps.outcome
    opened = context.open_platform  # type: ignore[attr-defined]

    def dying_append(self: Ledger, kind: str, **rest: Any) -> Any:
        deaths.here(f"before {kind}")
        return append(self, kind, **rest)

    def dying_outcome(*given: Any, **rest: Any) -> Any:
        deaths.here("before its outcome")
        return outcome(*given, **rest)

    def dying(what: str, done: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*given: Any) -> Any:
            result = done(*given)
            deaths.here(f"after the fence was {what}")
            return result

        return wrapped

    Ledger.append = dying_append  # type: ignore[method-assign]
    steps.outcome = dying_outcome
    context.open_platform = lambda *given: Dying(opened(*given), deaths)  # type: ignore[attr-defined]
    fence.raise_ = dying("raised", fence.raise_)
    fence.lower = dying("lowered", fence.lower)


def operate(catalog: Path, since: dict[str, Any], deaths: Deaths) -> None:
    """From wherever the record says things stand to the end."""
    with context.open_app(catalog, APP) as ctx:
        incident = record.find_open(ctx.ledger, APP)
        if incident is None:
            with ctx.connect("capturer", "look") as connection:
                findings = detectors.run(connection, ctx.app, since=decode(since))
            if not findings:
                return  # a child that died after the very last entry but one
            handling.handle(ctx, findings, since=decode(since))
        else:
            handling.finish_begun(ctx)
        incident = record.find_open(ctx.ledger, APP)
        assert incident is not None
        if not ctx.ledger.entries(incident=incident.id, kinds=["incident.diagnosed"]):
            found, why = handling.diagnose(ctx, incident.id, handling.look_again(ctx))
            assert found is not None, why
        if not containment.is_proven(ctx, incident.id) and not started(ctx, incident.id):
            containment.contain(ctx, incident.workflows, incident=incident.id)
        made = ctx.ledger.entries(incident=incident.id, kinds=["plan.made"])
    deaths.scope = "plan"
    recovery = made[-1].recovery if made else None
    if recovery is None:
        recovery = session.plan(catalog, APP, incident=incident.id, mode="both", policy="refuse", point=None)
    plan = session.load(catalog, APP, recovery)
    assert session.approve(catalog, APP, plan, by="tester", reason="read it")
    session.started(catalog, APP, plan)
    for step in plan.steps:
        deaths.scope = step.id
        session.step(catalog, APP, recovery, step.id)
    deaths.scope = "end"
    session.finished(catalog, APP, plan)


def started(ctx: context.AppContext, incident: str) -> bool:
    return bool(ctx.ledger.entries(incident=incident, kinds=["recovery.started"]))


def main(home: str, catalog: str, since: dict[str, Any], file: str, log: str) -> None:
    """Entry of the child; what goes wrong is written to ``log``, and ends it with 1."""
    os.environ["REINSTATE_HOME"] = home
    suites.run = passing
    outline.STAGE_WATCH_S = outline.FINAL_WATCH_S = 0.2
    deaths = Deaths(Path(file))
    arm(deaths)
    try:
        operate(Path(catalog), since, deaths)
    except BaseException:
        Path(log).write_text(traceback.format_exc(), "utf-8")
        raise
