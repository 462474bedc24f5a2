"""The watcher on the kiosk: one incident per anomaly, whatever detectors, restarts and broken connections do to it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from incidents import record
from platforms.faulty import Fault, FaultKind
from recovery import alerts, handling, keeping, manual, resuming, session, watch
from recovery.context import AppContext
from recovery.errors import Refused
from recovery.handling import Caught
from recovery.steps import contain as contain_step
from tests.recovery.kiosk import Kiosk, app_model, order

pytestmark = pytest.mark.postgres

BOOK = {
    "scenario": "A bad version.", "trigger": "Wrong totals.", "impact": "Wrong bills.", "verification": [],
    "rollback": [], "complete_when": [], "terminate_when": [], "owner": "ada", "contacts": ["ada"],
}  # fmt: skip
BOOKS = [
    {**BOOK, "key": "first", "title": "Anything", "steps": ["Look."]},
    {**BOOK, "key": "totals-wrong", "title": "Wrong totals", "steps": ["Pause.", "Look.", "Recover.", "Tell."]},
]
DETECTORS: list[dict[str, Any]] = [
    {
        "key": "totals", "kind": "rule", "table": "kiosk.orders", "sql": "r.total < 1000", "severity": "sev1",
        "impact": "Customers pay too much.", "playbook": "totals-wrong",
    },
    {
        "key": "statuses", "kind": "rule", "table": "kiosk.orders", "sql": "r.status <> 'lost'",
        "impact": "Orders are lost.",
    },
    {
        "key": "amounts", "kind": "rule", "table": "kiosk.payments", "sql": "r.amount < 21", "severity": "sev3",
        "impact": "Payments are wrong.",
    },
]  # fmt: skip


@pytest.fixture(autouse=True)
def brisk(monkeypatch: pytest.MonkeyPatch, kiosk: Kiosk) -> None:
    """A catalogue with playbooks, and a watcher in a hurry."""
    kiosk.configure(playbooks=BOOKS, detectors=DETECTORS)
    monkeypatch.setattr(manual, "open_app", kiosk.opened)
    monkeypatch.setattr(watch, "INTERVAL_S", 0.02)
    monkeypatch.setattr(watch, "TICK_S", 0.1)
    monkeypatch.setattr(watch, "FIRST_WAIT_S", 0.05)


class Watching:
    """A watcher in a thread, as a process of its own would run."""

    def __init__(self, kiosk: Kiosk) -> None:
        self.ctx = kiosk.open()
        self.said: list[str] = []
        self.caught: list[Caught] = []
        self.failure: BaseException | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        try:
            self.caught.extend(watch.watch(self.ctx, say=self.said.append, stop=self._over.is_set))
        except BaseException as error:  # noqa: BLE001 - the test looks at it
            self.failure = error

    def __enter__(self) -> Watching:
        self._thread.start()
        self.rounds()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def until(self, holds: Callable[[], object], *, timeout_s: float = 10.0) -> None:
        deadline = time.monotonic() + timeout_s
        while not holds():
            assert self.failure is None, self.failure
            assert time.monotonic() < deadline, (self.said, self.caught)
            time.sleep(0.01)

    def rounds(self) -> None:
        """Let it look some more times."""
        with self.ctx.connect("recoverer", "test") as connection:

            def ticks() -> int:
                row = connection.execute("SELECT count(*) FROM reinstate.tick").fetchone()
                connection.rollback()
                return int(row[0]) if row else 0

            wanted = ticks() + 2
            self.until(lambda: ticks() >= wanted)


def kinds(ctx: AppContext) -> list[str]:
    return [e.kind for e in ctx.ledger.entries() if e.kind.startswith(("incident.", "contain."))]


def bodies(ctx: AppContext, kind: str) -> list[dict[str, Any]]:
    return [e.body for e in ctx.ledger.entries(kinds=[kind])]


CONTAINED = ["contain.started", "contain.live-before", "contain.proven"]


def test_an_alert_says_how_bad_what_it_means_and_which_playbook(kiosk: Kiosk) -> None:
    kiosk.protect()
    kiosk.publish("intake", "bad")
    with Watching(kiosk) as watching:
        kiosk.call("intake", order("1", total=30))
        watching.until(lambda: watching.caught)
        watching.rounds()
    (body,) = bodies(watching.ctx, "incident.opened")
    assert (body["severity"], body["workflows"]) == ("sev1", ["intake"])
    assert body["impact"] == "Customers pay too much. Orders are lost."
    assert body["playbook"] == {
        "key": "totals-wrong", "title": "Wrong totals", "owner": "ada", "steps": ["Pause.", "Look.", "Recover."],
    }  # fmt: skip
    assert kinds(watching.ctx) == ["incident.opened", *CONTAINED, "incident.diagnosed"]
    assert [c.opened for c in watching.caught] == [True]
    assert any("playbook totals-wrong, owner ada" in line for line in watching.said)


def test_without_leave_to_contain_it_opens_the_incident_and_touches_nothing(kiosk: Kiosk) -> None:
    kiosk.configure(playbooks=BOOKS, detectors=DETECTORS, autonomy={"contain": False})
    kiosk.protect()
    kiosk.publish("intake", "bad")
    with Watching(kiosk) as watching:
        kiosk.call("intake", order("1", total=30))
        watching.until(lambda: watching.caught)
        watching.rounds()
    (caught,) = watching.caught
    assert (caught.opened, caught.contained, caught.unproven) == (True, None, None)
    assert kinds(watching.ctx) == ["incident.opened", "incident.diagnosed"]
    assert (kiosk.live("intake"), kiosk.may_write("intake")) == ("bad", True)
    (announcement,) = keeping.unannounced(watching.ctx)
    assert (announcement.event, announcement.payload["contained"]) == (keeping.OPENED, False)
    with Watching(kiosk) as again:
        again.rounds()
    assert again.caught == []
    assert manual.contain(again.ctx, ["intake"], incident=None, reason="by hand").incident == caught.incident
    assert kiosk.live("intake") is None


def test_an_incident_in_which_nothing_was_contained_can_be_closed(kiosk: Kiosk) -> None:
    kiosk.configure(playbooks=BOOKS, detectors=DETECTORS, autonomy={"contain": False})
    incident = record.open_incident(kiosk.open().ledger, "kiosk", severity="sev2", title="totals").id
    assert manual.resume(kiosk.home, "kiosk", incident=incident, by="ada", override="all is well") == (incident, ())
    assert record.read(kiosk.open().ledger, incident).status is record.Status.FALSE_ALARM


def test_two_detectors_in_turn_neither_open_nor_contain_twice(kiosk: Kiosk) -> None:
    kiosk.protect()
    with Watching(kiosk) as watching:
        kiosk.clerk("UPDATE kiosk.orders SET status = 'lost' WHERE id = 'h1'")
        watching.until(lambda: watching.caught)
        for statement in (
            "UPDATE kiosk.orders SET status = 'sent' WHERE id = 'h1'",
            "UPDATE kiosk.orders SET total = 5000 WHERE id = 'h2'",
            "UPDATE kiosk.orders SET total = 20 WHERE id = 'h2'",
            "UPDATE kiosk.orders SET status = 'lost' WHERE id = 'h3'",
            "UPDATE kiosk.orders SET status = 'sent' WHERE id = 'h3'",
            "UPDATE kiosk.orders SET total = 5000 WHERE id = 'h4'",
        ):
            kiosk.clerk(statement)
            watching.rounds()
    found = kinds(watching.ctx)
    assert found.count("incident.opened") == 1
    assert found.count("contain.proven") == 1
    (joined,) = bodies(watching.ctx, "incident.joined")
    assert (joined["severity"], joined["impact"], joined["playbook"]["key"]) == (
        "sev1", "Customers pay too much.", "totals-wrong",
    )  # fmt: skip
    now = record.find_open(watching.ctx.ledger, "kiosk")
    assert now is not None
    assert (now.severity, now.playbook["key"]) == ("sev1", "totals-wrong")


def test_a_restarted_watcher_joins_the_open_incident(kiosk: Kiosk) -> None:
    kiosk.protect()
    kiosk.publish("intake", "bad")
    with Watching(kiosk) as first:
        kiosk.call("intake", order("1", total=30))
        first.until(lambda: first.caught)
    before = kinds(first.ctx)
    with Watching(kiosk) as second:
        kiosk.clerk("UPDATE kiosk.orders SET total = 7000 WHERE id = 'h5'")
        second.rounds()
    assert second.caught == []
    assert kinds(second.ctx) == before


def test_damage_done_while_no_watcher_ran_is_found(kiosk: Kiosk) -> None:
    kiosk.protect()
    with Watching(kiosk):
        pass
    kiosk.publish("intake", "bad")
    kiosk.call("intake", order("1", total=30))
    with Watching(kiosk) as later:
        later.until(lambda: later.caught)
    assert later.caught[0].workflows == ("intake", "payment")


class KilledError(BaseException):
    pass


@pytest.mark.parametrize("killed_at", ["pause", "raise_fence", "settle", "diagnose"])
def test_what_a_killed_watcher_began_the_next_one_finishes(
    kiosk: Kiosk, monkeypatch: pytest.MonkeyPatch, killed_at: str
) -> None:
    kiosk.protect()
    kiosk.publish("intake", "bad")

    def killed(*_: Any, **__: Any) -> Any:
        raise KilledError

    target: Any = handling if killed_at == "diagnose" else handling.contain.__globals__
    with monkeypatch.context() as patch:
        if killed_at == "diagnose":
            patch.setattr(target, killed_at, killed)
        else:
            patch.setitem(target, killed_at, killed)
        first = Watching(kiosk)
        with first:
            kiosk.call("intake", order("1", total=30))
            deadline = time.monotonic() + 10
            while first.failure is None and time.monotonic() < deadline:
                time.sleep(0.01)
    assert isinstance(first.failure, KilledError)
    with Watching(kiosk) as second:
        second.until(lambda: second.caught)
        second.rounds()
    (caught,) = second.caught
    assert caught.diagnosis is not None
    found = kinds(second.ctx)
    assert found.count("incident.opened") == 1
    assert found.count("contain.proven") == 1
    assert found[-1] == "incident.diagnosed"
    assert (kiosk.live("intake"), kiosk.may_write("intake")) == (None, False)
    assert session.plan(kiosk.home, "kiosk", incident=caught.incident, mode="both", policy="refuse", point=None)


def test_a_pause_that_is_not_proven_is_on_record_and_tried_again(kiosk: Kiosk) -> None:
    kiosk.configure(
        playbooks=BOOKS, detectors=DETECTORS, containment={"drain_s": 0.1, "settle_s": 0.1, "timeout_s": 0.3}
    )
    kiosk.protect()
    kiosk.publish("intake", "bad")
    with Watching(kiosk) as watching:
        kiosk.faults(Fault(kind=FaultKind.LYING_PAUSE, times=None))
        object.__setattr__(watching.ctx, "platform", kiosk.platform)
        kiosk.call("intake", order("1", total=30))
        watching.until(lambda: len(watching.caught) >= 2)
        assert all(c.unproven and c.contained is None for c in watching.caught)
        kiosk.faults()
        object.__setattr__(watching.ctx, "platform", kiosk.platform)
        watching.until(lambda: watching.caught[-1].contained is not None)
    assert watching.caught[-1].diagnosis is not None
    found = kinds(watching.ctx)
    assert found.count("incident.opened") == 1
    assert found.count("contain.failed") >= 2
    assert found.index("contain.failed") < found.index("contain.proven") < found.index("incident.diagnosed")
    assert kiosk.live("intake") is None


def test_a_broken_connection_is_survived_and_said_once(kiosk: Kiosk) -> None:
    kiosk.protect()
    kiosk.publish("intake", "bad")
    with Watching(kiosk) as watching:
        with psycopg.connect(kiosk.db.server.superuser_dsn(), autocommit=True) as admin:
            admin.execute(f"ALTER DATABASE {kiosk.db.name} ALLOW_CONNECTIONS false")
            admin.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = %s AND application_name = 'reinstate watch'",
                (kiosk.db.name,),
            )
            watching.until(lambda: any("trying again" in line for line in watching.said))
            time.sleep(0.4)
            admin.execute(f"ALTER DATABASE {kiosk.db.name} ALLOW_CONNECTIONS true")
        kiosk.call("intake", order("1", total=30))
        watching.until(lambda: watching.caught)
    assert sum("trying again" in line for line in watching.said) == 1
    assert sum("watching goes on" in line for line in watching.said) == 1
    assert watching.caught[0].workflows == ("intake", "payment")


@pytest.fixture
def cut(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The connection breaks in the middle of the first containment."""
    real, times = handling.contain, [0]

    def broken(*given: Any, **more: Any) -> Any:
        times[0] += 1
        if times[0] == 1:
            raise psycopg.OperationalError("server closed the connection unexpectedly")
        return real(*given, **more)

    monkeypatch.setattr(handling, "contain", broken)
    yield
    assert times[0] == 2


@pytest.mark.usefixtures("cut")
def test_a_connection_lost_while_containing_leaves_nothing_half_done(kiosk: Kiosk) -> None:
    kiosk.protect()
    kiosk.publish("intake", "bad")
    with Watching(kiosk) as watching:
        kiosk.call("intake", order("1", total=30))
        watching.until(lambda: watching.caught)
    assert watching.caught[0].contained is not None
    assert kinds(watching.ctx) == ["incident.opened", *CONTAINED, "incident.diagnosed"]


def test_rows_of_a_false_alarm_open_no_second_incident_and_new_damage_does(kiosk: Kiosk) -> None:
    kiosk.protect()
    with Watching(kiosk) as watching:
        kiosk.clerk("UPDATE kiosk.orders SET status = 'lost' WHERE id = 'h1'")
        watching.until(lambda: watching.caught)
        incident = watching.caught[0].incident
        watching.rounds()
        manual.resume(kiosk.home, "kiosk", incident=incident, by="ada", override="a test", say=lambda _: None)
        watching.rounds()
        watching.rounds()
        assert kinds(watching.ctx).count("incident.opened") == 1
        kiosk.clerk("UPDATE kiosk.orders SET status = 'lost' WHERE id = 'h2'")
        watching.until(lambda: len(watching.caught) == 2)
    assert watching.caught[1].opened


def test_a_recovery_at_work_is_not_disturbed(kiosk: Kiosk) -> None:
    kiosk.protect()
    with Watching(kiosk) as watching:
        kiosk.clerk("UPDATE kiosk.orders SET status = 'lost' WHERE id = 'h1'")
        watching.until(lambda: watching.caught)
        before = kinds(watching.ctx)
        with watching.ctx.ledger.lease("kiosk", "recovery"):
            kiosk.clerk("UPDATE kiosk.orders SET total = 7000 WHERE id = 'h5'")
            watching.until(lambda: any("during the recovery" in line for line in watching.said))
            watching.rounds()
            assert kinds(watching.ctx) == before
        watching.until(lambda: "incident.joined" in kinds(watching.ctx))


@pytest.mark.parametrize("damage", [True, False])
def test_a_relapse_whose_process_dies_is_contained_by_a_running_watcher(
    kiosk: Kiosk, wrecked: str, monkeypatch: pytest.MonkeyPatch, damage: bool
) -> None:
    plan = kiosk.plan(wrecked)

    def killed(*_: Any, **__: Any) -> Any:
        raise KilledError

    with Watching(kiosk) as watching:
        with watching.ctx.ledger.lease("kiosk", "recovery"):
            kiosk.run(plan, until="watch")
            monkeypatch.setattr(resuming, "contain", killed)
            what = resuming.of_plan(watching.ctx, plan)
            with pytest.raises(KilledError):
                resuming.relapse(watching.ctx, what, "it is wrong", watching.said.append, damage=damage)
            watching.rounds()
            assert kiosk.live("intake") == "good"
        watching.until(lambda: watching.caught)
    (caught,) = watching.caught
    assert (caught.contained is not None, caught.incident) == (True, wrecked)
    assert (kiosk.live("intake"), kiosk.may_write("intake")) == (None, False)


def test_new_damage_elsewhere_widens_the_pause_and_outdates_the_plan(kiosk: Kiosk) -> None:
    kiosk.protect()
    kiosk.call("intake", order("1", total=30))
    with Watching(kiosk) as watching:
        with kiosk.transaction("wf_kiosk_payment", None) as db:
            db.execute("INSERT INTO kiosk.payments VALUES ('p-x', 'o-1', 99)")
        watching.until(lambda: watching.caught)
        (first,) = watching.caught
        assert first.workflows == ("payment",)
        kiosk.publish("intake", "bad")
        kiosk.call("intake", order("3", total=30))
        watching.until(lambda: len(watching.caught) == 2)
    assert watching.caught[1].workflows == ("intake", "payment")
    assert watching.caught[1].incident == first.incident
    assert not watching.caught[1].opened


def test_a_plan_from_before_the_pause_was_widened_is_not_run(kiosk: Kiosk, wrecked: str) -> None:
    plan = kiosk.plan(wrecked)
    narrow = plan.model_copy(update={"contained": ("payment",)})
    with pytest.raises(Exception, match="intake were paused with the incident after the plan was made"):
        contain_step.act(kiosk.open(), narrow, narrow.steps[0], lambda _: None)


def test_what_is_wrong_from_the_start_is_said_at_once(kiosk: Kiosk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KIOSK_R", kiosk.db.dsn("recoverer").replace("test-recoverer", "wrong"))
    with pytest.raises(Exception, match="authentication failed"):
        next(watch.watch(kiosk.open()))


def test_a_damaged_app_without_a_point_is_still_contained(kiosk: Kiosk) -> None:
    with pytest.raises(Refused):
        handling.look_again(kiosk.open())
    incident = record.open_incident(
        kiosk.open().ledger,
        "kiosk",
        severity="sev2",
        title="t",
        workflows=["intake"],
        findings=[{"detector": "totals"}],
    ).id
    caught = handling.finish_begun(kiosk.open())
    assert caught is not None
    assert (caught.incident, caught.diagnosis) == (incident, None)
    assert caught.undiagnosed
    assert handling.finish_begun(kiosk.open()) is None


def test_an_app_without_playbooks_has_none() -> None:
    assert alerts.summary(alerts.playbook(app_model(), ["totals"])) == {}
