"""Which workflow of the platform is which, renamed and deleted ones too, for the app and for the ingress's runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

import pytest

from ingress.model import Event, State
from ingress.queue import Queue
from platforms.base import RunState
from platforms.fake import FLOW_ENGINE
from recovery import context, history
from recovery.context import AppContext
from recovery.errors import RecoveryError
from recovery.protect import protect
from tests.recovery.kiosk import Kiosk, app_model, definition, order
from tests.recovery.version_desk import VersionDesk, intake, payment

IN_FLIGHT = [s for s in RunState if s.in_flight]


@pytest.fixture
def desk(tmp_path: Path) -> VersionDesk:
    return VersionDesk(tmp_path / "home", capabilities=FLOW_ENGINE)


@pytest.fixture
def opened(desk: VersionDesk, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], AppContext]]:
    """The app with an ingress, wired as it is opened; each call is a new process."""
    app = app_model(ingress={})
    monkeypatch.setattr(context, "load", lambda _: SimpleNamespace(apps=(app,)))
    monkeypatch.setattr(context, "open_platform", lambda *_: desk.fake)
    for name in ("KIOSK_URL", "KIOSK_KEY"):
        monkeypatch.setenv(name, "known")
    with ExitStack() as stack:
        yield lambda: stack.enter_context(context.open_app(desk.home, home=desk.home))


def event(queue: Queue | None, workflow: str) -> Event:
    assert queue is not None
    return queue.record(workflow=workflow, key=None, method="POST", path="/", query="", headers=[], body=b"{}")


def renamed(desk: VersionDesk) -> None:
    desk.fake.save(desk.ids["intake"], {**intake(desk.ids["payment"]), "name": "Intake v2"})


def test_renaming_drops_nothing_that_is_in_flight(desk: VersionDesk, opened: Callable[[], AppContext]) -> None:
    ctx = opened()
    history.observe(ctx)
    flying, other = event(ctx.events, "intake"), event(ctx.events, "payment")
    renamed(desk)
    desk.fake.deactivate(desk.ids["payment"])
    ctx = opened()
    assert ctx.events is not None
    assert [r.id for r in ctx.platform.runs(states=IN_FLIGHT)] == [flying.id]
    assert [r.id for r in ctx.platform.runs(desk.ids["intake"])] == [flying.id]
    assert ctx.events.event(flying.id).state is State.PASSING
    assert ctx.events.event(other.id).state is State.DROPPED


def test_one_that_nobody_has_seen_drops_nothing(desk: VersionDesk, opened: Callable[[], AppContext]) -> None:
    ctx = opened()
    assert ctx.events is not None
    flying = event(ctx.events, "intake")
    renamed(desk)
    assert ctx.platform.runs(states=IN_FLIGHT) == []
    assert ctx.events.event(flying.id).state is State.PASSING, "who knows where it went"


def test_a_deleted_one_dropped_what_it_had(desk: VersionDesk, opened: Callable[[], AppContext]) -> None:
    ctx = opened()
    history.observe(ctx)
    assert ctx.events is not None
    flying = event(ctx.events, "intake")
    desk.fake.delete(desk.ids["intake"])
    assert ctx.platform.runs(states=IN_FLIGHT) == []
    assert ctx.events.event(flying.id).state is State.DROPPED


def test_who_is_who(desk: VersionDesk) -> None:
    ctx = desk.ctx()
    assert ctx.ids() == desk.ids
    desk.fake.delete(desk.ids["payment"])
    assert set(ctx.located(desk.fake.workflows())) == {"intake"}, "nobody knew it"
    with pytest.raises(RecoveryError, match="payment: 0 workflows named 'Payment'"):
        ctx.infos(partly=True)
    again = desk.fake.add(payment())
    history.observe(ctx)
    double = desk.fake.add(payment())
    assert ctx.infos()["payment"].id == again, "of two of one name it is the one we knew"
    desk.fake.delete(double)
    renamed(desk)
    assert ctx.ids() == {"intake": desk.ids["intake"], "payment": again}
    assert {k: i.name for k, i in ctx.infos().items()} == {"intake": "Intake v2", "payment": "Payment"}
    desk.fake.delete(again)
    assert ctx.located(desk.fake.workflows())["payment"] is None
    assert set(ctx.infos(partly=True)) == set(ctx.ids()) == {"intake"}
    with pytest.raises(RecoveryError, match="payment: 0 workflows named 'Payment'"):
        ctx.infos()
    for _ in range(2):
        desk.fake.add(payment())
    assert ctx.ids() == {"intake": desk.ids["intake"]}
    with pytest.raises(RecoveryError, match="payment: 2 workflows named 'Payment'"):
        ctx.infos(partly=True)


@pytest.mark.postgres
def test_renaming_one_stops_neither_diagnosis_nor_plan(kiosk: Kiosk) -> None:
    kiosk.protect()
    kiosk.publish("intake", "bad")
    kiosk.call("intake", order("1", damages="h1"))
    kiosk.fake.save(kiosk.ids["payment"], definition("Payments", "good"))
    plan = kiosk.plan(kiosk.caught())
    assert [e.key for e in plan.events] == ["1"]


@pytest.mark.postgres
def test_a_renamed_one_is_still_in_the_next_point(kiosk: Kiosk) -> None:
    kiosk.protect()
    kiosk.fake.save(kiosk.ids["payment"], definition("Payments", "good"))
    point = protect(kiosk.open())
    assert {w.workflow: w.platform_id for w in point.workflows}["payment"] == kiosk.ids["payment"]
