"""Whatever was active, wherever Reinstate is killed and whatever the platform can do: after a contain and a resume the
active set and the live versions are the earlier ones, and nothing else may write or run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from incidents import record
from ledger import Ledger
from platforms.base import Capabilities, Platform
from platforms.fake import EVERYTHING, FLOW_ENGINE, FORGETFUL
from platforms.wrapper import Wrapper
from recovery import containment, history, outline, resuming, windows
from recovery.context import AppContext
from tests.recovery.kiosk import Kiosk, definition

pytestmark = pytest.mark.postgres
T = TypeVar("T")
WRITES = frozenset({"save", "create", "activate", "deactivate"})
KEYS = ("intake", "payment")


class Killed(BaseException):
    """The process is gone: nothing may handle this."""


@dataclass
class Fate:
    """Dies at the ``left``-th point from now; never with none."""

    left: int | None
    met: list[str] = field(default_factory=list)

    def point(self, name: str) -> None:
        self.met.append(name)
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                raise Killed(name)


class Mortal(Wrapper):
    def __init__(self, platform: Platform, fate: Fate) -> None:
        super().__init__(platform)
        self._fate = fate

    def _call(self, method: str, call: Callable[[], T]) -> T:
        if method not in WRITES:
            return call()
        self._fate.point(f"before {method}")
        result = call()
        self._fate.point(f"after {method}")
        return result


class MortalLedger(Ledger):
    fate: Fate

    def append(self, kind: str, **rest: Any) -> Any:
        self.fate.point(f"before {kind}")
        return super().append(kind, **rest)


def process(kiosk: Kiosk, fate: Fate) -> AppContext:
    """What a new process opens, and where it dies."""
    kiosk.platform = Mortal(kiosk.fake, fate)
    ctx = kiosk.open()
    ledger = MortalLedger(kiosk.home / "ledger.sqlite")
    ledger.fate = fate
    return AppContext(
        home=ctx.home, catalog_path=ctx.catalog_path, app=ctx.app, platform=ctx.platform, ledger=ledger, store=ctx.store
    )


def operate(ctx: AppContext, incident: str) -> None:
    """Contain, then resume all that was contained: what is done again after each kill."""
    if not windows.open_for_all(ctx, incident):
        containment.contain(ctx, ["intake"], incident=incident)
    what = resuming.of_incident(ctx, incident)
    for members in outline.stages(ctx.app.resume_order, what.contained):
        resuming.stage(ctx, what, members, 0.0, lambda _: None)


def world(kiosk: Kiosk) -> dict[str, str | None]:
    return {key: kiosk.live(key) for key in KEYS}


@pytest.mark.parametrize("can", [EVERYTHING, FORGETFUL, FLOW_ENGINE], ids=["everything", "forgetful", "flow-engine"])
def test_contain_killed_anywhere_and_resumed_gives_back_the_earlier_set(kiosk: Kiosk, can: Capabilities) -> None:
    kiosk.configure(containment={"drain_s": 0.05, "settle_s": 0.01, "timeout_s": 2.0})
    kiosk.fake._can = can
    names = iter(range(1000))

    @settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(
        active=st.sets(st.sampled_from(KEYS)),
        drafts=st.sets(st.sampled_from(KEYS)),
        deaths=st.lists(st.integers(0, 14), max_size=4),
        lost=st.booleans(),
    )
    def holds(active: set[str], drafts: set[str], deaths: list[int], lost: bool) -> None:
        number = next(names)
        for key in KEYS:
            kiosk.fake.save(kiosk.ids[key], definition(key.capitalize(), f"good-{number}"))
            (kiosk.fake.activate if key in active else kiosk.fake.deactivate)(kiosk.ids[key])
            if key in drafts and can.draft_apart_from_live:
                kiosk.fake.save(kiosk.ids[key], definition(key.capitalize(), f"draft-{number}"))
        before = world(kiosk)
        assert {k for k, live in before.items() if live} == active
        ctx = kiosk.open()
        history.observe(ctx)
        incident = record.open_incident(ctx.ledger, "kiosk", severity="sev2", title="x", workflows=["intake"]).id
        for place, death in enumerate([*deaths, None]):
            try:
                operate(process(kiosk, Fate(death)), incident)
            except Killed:
                if lost and place == 0 and "payment" in active and kiosk.live("payment") is None:
                    kiosk.fake.delete(kiosk.ids["payment"])  # somebody deletes what is paused
            else:
                break
        kiosk.ids = {key: info.id for key, info in kiosk.open().infos().items()}
        assert world(kiosk) == before
        assert all(kiosk.may_write(key) for key in KEYS)
        record.close(kiosk.open().ledger, incident, by="tester", reason="test")

    holds()
