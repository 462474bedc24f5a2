"""A whole recovery of a workflow that charges: what the bad runs charged is refunded, the replay charges anew, and each
event is charged once in the end."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from psycopg.sql import SQL, Identifier

from catalog.models import Compensation as Inverse
from ledger.timeline import timeline
from recovery import compensation, plan_page, session, standing
from recovery.compensating import Scalar
from recovery.errors import NotCompensated, Refused
from recovery.inverses import by_sql
from snapshots import database
from tests.conftest import AppDb
from tests.recovery.kiosk import Kiosk, app_model, expected, install
from tests.recovery.payment_service import PaymentService, running
from tests.recovery.refunds import Killed, refund

pytestmark = pytest.mark.postgres
MAIL = {"name": "mail", "inverse": "irreversible", "node": "Mail", "manual": "write to the customer"}
CREDIT = {
    "name": "credit",
    "inverse": "compensable",
    "node": "Work",
    "compensation": {
        "kind": "sql",
        "sql": "INSERT INTO kiosk.stock VALUES ('credit-' || :id || '%', :total) -- it's :not a name\n"
        "ON CONFLICT (sku) DO UPDATE SET level = kiosk.stock.level + :total::int;",
        "values": {"id": "outputs.Work.0.id", "total": "event.body.total"},
    },
}


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[PaymentService]:
    monkeypatch.setattr(compensation, "FIRST_WAIT_S", 0.001)
    with running() as made:
        yield made


def with_steps(*given: Mapping[str, Any], payment: tuple[Mapping[str, Any], ...] = ()) -> list[dict[str, Any]]:
    found = [w.model_dump(mode="json", exclude_defaults=True) for w in app_model().workflows]
    found[0]["steps"], found[1]["steps"] = list(given), list(payment)
    return found


def charging(kiosk: Kiosk, service: PaymentService, *given: Mapping[str, Any], **changes: Any) -> None:
    """Intake charges for each event, and sends a mail."""

    def intake(content: Mapping[str, Any], event: Mapping[str, Any], run: str) -> dict[str, Any]:
        done = kiosk.intake(content, event, run)
        return {**done, "Charge": [{"id": service.charge(event["body"]["event"])}], "Mail": [{}]}

    kiosk.fake.handlers = {"Intake": intake, "Payment": kiosk.payment}
    kiosk.configure(workflows=with_steps(*given), **changes)


def test_each_event_is_charged_once_in_the_end(kiosk: Kiosk, service: PaymentService) -> None:
    charging(kiosk, service, refund(service), MAIL)
    incident = kiosk.wreck()
    plan = kiosk.plan(incident)
    # The third bad run was refused by the database before it charged, but nobody can tell from what it recorded.
    assert [c.action for c in plan.compensations] == ["manual", "manual", "manual", "do", "manual", "do"]
    assert plan.compensations[1].why.startswith("the run was cut off")
    assert [s.id for s in plan.steps][:5] == ["contain", "publish:intake", "undo", "compensate", "replay"]
    page = plan_page.markdown(plan, kiosk.app)
    assert all(said in page for said in ("Outside the rows", "write to the customer", "does the step anew"))
    assert "1 taken back" not in plan_page.brief(plan, kiosk.app)
    assert "2 taken back" in plan_page.brief(plan, kiosk.app)
    assert session.load(kiosk.home, "kiosk", plan.recovery_id) == plan
    kiosk.run(plan)
    result = session.finished(kiosk.home, "kiosk", plan)
    assert service.net() == {"1": 1, "2": 1, "3": 1, "canary": 0}
    assert [c for c, _ in service.refunds][:2] == ["ch-3", "ch-2"]
    assert kiosk.rows() == expected()
    charged, mailed = result["by_hand"]
    assert charged == f"charge of intake, run {plan.compensations[1].run_id}"
    assert mailed.endswith(": write to the customer")
    story = [line.text for line in timeline(kiosk.open().ledger, incident)]
    assert any("Taken back" in text and "charge" in text for text in story)


def test_a_refund_that_fails_stops_before_the_replay_and_goes_on_later(kiosk: Kiosk, service: PaymentService) -> None:
    charging(kiosk, service, refund(service))
    incident = kiosk.wreck()
    plan = kiosk.plan(incident)
    service.faults[:] = ["ok", "402"]
    with pytest.raises(NotCompensated) as stopped:
        kiosk.run(plan)
    with pytest.raises(Refused, match="compensate must be done before replay"):
        session.step(kiosk.home, "kiosk", plan.recovery_id, "replay")
    session.stopped(kiosk.home, "kiosk", plan, str(stopped.value), error=stopped.value)
    [entry] = kiosk.open().ledger.entries(kinds=["recovery.stopped"])
    assert entry.body["state"] == "undone-not-compensated"
    assert "heals" not in entry.body
    assert not kiosk.may_write("intake")
    told = standing.standing(kiosk.open()).lines[-2:]
    assert "the answer was 402" in told[0]
    assert told[1] == "to go on: `reinstate compensations list`, then `reinstate recover --continue`"
    assert service.net() == {"1": 1, "2": 1, "3": 0}
    assert kiosk.go_on(incident)["state"] == "resumed"
    assert service.net() == {"1": 1, "2": 1, "3": 1, "canary": 0}


def test_an_attempt_of_the_replay_that_failed_after_its_charge_leaves_none(
    kiosk: Kiosk, service: PaymentService
) -> None:
    """The other side knows the charge by the run, so what was cut off is taken back there, if it was done."""
    failing = ["2", "canary-never"]

    def intake(content: Mapping[str, Any], event: Mapping[str, Any], run: str) -> dict[str, Any]:
        body = event["body"]
        done = kiosk.intake(content, event, run)
        service.charge(body["event"], run)
        if body["event"] in failing and "x-reinstate-event" in event["headers"]:
            failing.remove(body["event"])
            raise ValueError("the answer of the payment service was lost")
        return {**done, "Charge": [{}]}

    by_run = {"url": f"{service.url}/charges/{{charge}}/refund", "values": {"charge": "run"}}
    charging(kiosk, service, refund(service, unsure="compensate", inverse=by_run))
    kiosk.fake.handlers = {"Intake": intake, "Payment": kiosk.payment}
    kiosk.recover(kiosk.wreck())
    assert failing == ["canary-never"]
    assert service.net() == {"1": 1, "2": 1, "3": 1, "canary": 0}
    assert kiosk.rows() == expected()


def test_a_second_incident_does_not_refund_what_the_first_one_did(kiosk: Kiosk, service: PaymentService) -> None:
    charging(kiosk, service, refund(service))
    kiosk.recover(kiosk.wreck())
    before = len(service.refunds)
    kiosk.publish("intake", "bad")
    kiosk.call("intake", {"body": {"event": "5", "total": 20, "sku": "tea", "qty": 1, "damages": "h4"}, "headers": {}})
    plan = kiosk.plan(kiosk.caught())
    assert len([c for c in plan.compensations if c.action == "do"]) == 1
    kiosk.run(plan)
    assert service.net()["5"] == 1
    assert len(service.refunds) == before + 2  # of the bad run, and of the canary


def test_sql_is_done_once_whatever_dies(kiosk: Kiosk, service: PaymentService, monkeypatch: pytest.MonkeyPatch) -> None:
    charging(kiosk, service, CREDIT)
    incident = kiosk.wreck()
    plan = kiosk.plan(incident)
    credits = "SELECT sku, level FROM kiosk.stock WHERE sku LIKE 'credit-%' ORDER BY sku"
    real: Callable[..., Any] = by_sql.attempt

    def dying(*args: Any, **kwargs: Any) -> Any:
        monkeypatch.setattr(by_sql, "attempt", real)
        real(*args, **kwargs)
        raise Killed

    monkeypatch.setattr(by_sql, "attempt", dying)
    with pytest.raises(Killed):
        kiosk.run(plan, until="replay")
    kiosk.run(plan, until="replay")
    with psycopg.connect(kiosk.db.capturer) as connection:
        assert connection.execute(credits).fetchall() == [("credit-o-2%", 20), ("credit-o-3%", 120)]
        tags = (
            "SELECT DISTINCT detail->>'kind', recovery_id FROM reinstate.applied WHERE starts_with(step, 'compensate:')"
        )
        assert connection.execute(tags).fetchall() == [("compensation", plan.recovery_id)]
    assert kiosk.go_on(incident)["state"] == "resumed"


@pytest.mark.parametrize(
    ("sql", "status", "says"),
    [
        ("UPDATE kiosk.stock SET level = 0 WHERE sku = :id", "not-needed", "no row"),
        ("UPDATE kiosk.stock SET level = level + :total WHERE sku = 'tea'; SELECT :id", "done", ""),
        ("INSERT INTO kiosk.stock VALUES ('tea', :total::int - length(:id))", "refused", "constraint stock_pkey"),
        ("SELECT length(:id), 20 % :total::int, ':id'::text", "done", ""),
        ("DELETE FROM kiosk.nowhere WHERE id = :id AND :total > 0", "refused", "UndefinedTable"),
        ("UPDATE kiosk.stock SET level = :id::int WHERE :total > 0", "refused", "InvalidTextRepresentation"),
        ("SELECT pg_sleep(5), :id, :total", "again", "took longer than 0.2 s"),
        ("DROP TABLE kiosk.stock; SELECT :id, :total", "refused", "must be owner"),
    ],
)
def test_how_sql_may_end(module_kiosk: AppDb, sql: str, status: str, says: str) -> None:
    inverse = Inverse(kind="sql", sql=sql, timeout_s=0.2 if "pg_sleep" in sql else 30.0)
    given: dict[str, Scalar] = {"id": "o-secret", "total": 20}
    key = hashlib.sha256(sql.encode()).hexdigest()
    for _ in range(2):
        with database.connect(module_kiosk.recoverer, purpose="test") as connection:
            got = by_sql.attempt(connection, inverse, given, key=key, recovery="R1", plan_hash="h")
        assert got.result == status
        assert says in got.why
        assert "secret" not in got.why
    with psycopg.connect(module_kiosk.capturer) as connection:
        [(applied,)] = connection.execute("SELECT count(*) FROM reinstate.applied WHERE step LIKE %s", (f"%{key}",))
        assert applied == (status in ("done", "not-needed"))
        if "level + " in sql:
            assert connection.execute("SELECT level FROM kiosk.stock WHERE sku = 'tea'").fetchone() == (120,)
            twin = "SELECT DISTINCT rj_run FROM reinstate.{} WHERE rj_actor = 'recoverer'"
            [(name,)] = connection.execute("SELECT twin FROM reinstate.journal_table WHERE table_name = 'kiosk.stock'")
            assert connection.execute(SQL(twin).format(Identifier(name))).fetchall() == [("R1",)]


@pytest.fixture(scope="module")
def module_kiosk(module_app_db: AppDb) -> AppDb:
    install(module_app_db)
    return module_app_db


def test_two_processes_with_one_key_do_it_once(module_kiosk: AppDb) -> None:
    inverse = Inverse(kind="sql", sql="UPDATE kiosk.stock SET level = level + 1 WHERE sku = 'jam'")

    def one(_number: int) -> str:
        with database.connect(module_kiosk.recoverer, purpose="test") as connection:
            return by_sql.attempt(connection, inverse, {}, key="both", recovery="R1", plan_hash="h").result

    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(one, range(4))) == {"done"}
    with psycopg.connect(module_kiosk.capturer) as connection:
        assert connection.execute("SELECT level FROM kiosk.stock WHERE sku = 'jam'").fetchone() == (101,)


def test_a_workflow_takes_back_through_its_private_entry(kiosk: Kiosk, service: PaymentService) -> None:
    """It is contained itself, so its role is let in for that alone, and its address stays closed."""
    inverse = {"kind": "workflow", "workflow": "payment", "values": {"order": "outputs.Work.0.id"}}
    step = {"name": "reserve", "inverse": "compensable", "node": "Work", "compensation": inverse}
    charging(kiosk, service, step)
    asked: list[tuple[str, str]] = []

    def cancels(_content: Mapping[str, Any], event: Mapping[str, Any], run: str) -> dict[str, Any]:
        if "event" in event["body"]:
            return kiosk.payment(_content, event, run)
        asked.append((event["body"]["order"], event["headers"]["x-reinstate-event"]))
        with kiosk.transaction("wf_kiosk_payment", run) as db:
            db.execute("UPDATE kiosk.stock SET level = level WHERE sku = 'jam'")
        return {"Work": [{}]}

    kiosk.fake.handlers = {"Intake": kiosk.intake, "Payment": cancels}
    incident = kiosk.wreck()
    plan = kiosk.plan(incident)
    kiosk.run(plan, until="replay")
    assert [o for o, _ in asked] == ["o-3", "o-2"]
    assert len({key for _, key in asked}) == 2
    assert not kiosk.may_write("payment")
    assert kiosk.go_on(incident)["state"] == "resumed"
    assert kiosk.copies == []


def test_a_critical_value_that_is_missing_refuses_the_plan_until_a_person_settles_it(
    kiosk: Kiosk, service: PaymentService
) -> None:
    step = refund(service, inverse={"values": {"charge": "outputs.Charge.0.number"}})
    charging(kiosk, service, step)
    incident = kiosk.wreck()
    with pytest.raises(Refused, match="no value for charge") as refused:
        kiosk.plan(incident)
    assert "1 more like it" in str(refused.value)
