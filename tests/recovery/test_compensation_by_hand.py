"""What people do about compensations: settle one, undo a run with its refund, look at the list."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from catalog.errors import CatalogError
from console import exits
from console.commands import undo_told
from console.main import run
from incidents import record
from ledger import kinds
from ledger.errors import LeaseHeld
from ledger.timeline import line
from platforms.base import Retryable
from platforms.faulty import Fault, FaultKind, Faulty
from recovery import by_hand, compensation, context, delivery, undo_outside
from recovery.errors import NotCompensated, Refused
from recovery.facts import Undone, decided
from tests.recovery.payment_service import PaymentService, running
from tests.recovery.refunds import INCIDENT, Killed, Till, refund

MAIL = {"name": "mail", "inverse": "irreversible", "node": "Mail", "manual": "write to the customer"}


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[PaymentService]:
    monkeypatch.setattr(compensation, "FIRST_WAIT_S", 0.001)
    monkeypatch.setattr(delivery, "LOOKUP_S", 0.05)
    with running() as made:
        yield made


def till(tmp_path: Path, service: PaymentService, *steps: Mapping[str, Any]) -> Till:
    desk = Till(tmp_path / "home", service, steps)
    desk.call("a")
    desk.call("b")
    return desk


def settle(desk: Till, run: str, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> None:
    monkeypatch.setattr("incidents.record.read", lambda *_: None)
    given = {"workflow": "intake", "run": run, "step": "charge", "status": "done", "by": "ada", "reason": "at the bank"}
    by_hand.settle(desk.open(), INCIDENT, **{**given, **changes})


def test_a_recovery_goes_on_after_a_person_settled_what_stopped_it(
    tmp_path: Path, service: PaymentService, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = till(tmp_path, service, refund(service))
    plan = desk.plan()
    service.faults[:] = ["402"]
    with pytest.raises(NotCompensated):
        desk.perform(plan)
    assert [(x.run, x.status, x.open) for x in by_hand.listing(desk.open(), INCIDENT, plan)] == [
        ("2", "failed", True),
        ("1", "waiting", False),
    ]
    settle(desk, "2", monkeypatch)
    desk.perform(plan)
    assert [charge for charge, _ in service.refunds] == ["ch-1"]
    done = by_hand.listing(desk.open(), INCIDENT, plan)
    assert [(x.status, x.by) for x in done] == [("done", "ada"), ("done", None)]
    [told] = [line(e).text for e in desk.open().ledger.entries() if e.body.get("by") == "ada"]
    assert told == "Taken back by hand, by ada: charge of run 2 of intake: at the bank"


def test_the_commands_list_and_settle(
    tmp_path: Path, service: PaymentService, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    desk = till(tmp_path, service, refund(service, manual="refund it at the bank"))
    ledger = desk.open().ledger
    opened = record.open_incident(ledger, "kiosk", severity="sev2", title="Wrong totals", workflows=["intake"])
    assert opened.id
    plan = desk.plan().model_copy(update={"incident_id": opened.id})
    body = {**plan.model_dump(mode="json"), "hash": plan.hash}
    ledger.append(kinds.PLAN_MADE, app="kiosk", incident=opened.id, recovery=plan.recovery_id, body=body)
    service.faults[:] = ["402"]
    with pytest.raises(NotCompensated):
        desk.perform(plan)
    monkeypatch.setattr(context, "open_app", lambda *_: nullcontext(desk.open()))
    assert run(["compensations", "list"]) == exits.REFUSED
    assert "the answer was 402" in capsys.readouterr().out
    words = ["compensations", "settle", "intake", "2", "--step", "charge", "--by", "ada"]
    assert run([*words, "--reason", " "]) == exits.USAGE
    assert run([*words, "--reason", "at the bank"]) == exits.OK
    assert run([*words, "--reason", "at the bank"]) == exits.REFUSED
    capsys.readouterr()
    assert run(["compensations", "list", "--json"]) == exits.OK
    found = json.loads(capsys.readouterr().out)
    assert [(line["run"], line["status"], line["by"]) for line in found] == [
        ("2", "done", "ada"),
        ("1", "waiting", None),
    ]


def test_what_was_settled_before_the_plan_is_part_of_it(
    tmp_path: Path, service: PaymentService, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = till(tmp_path, service, refund(service, inverse={"values": {"charge": "outputs.Charge.0.number"}}))
    runs = [Undone(workflow="intake", run_id=r.id) for r in desk.runs]
    assert len(decided(desk.open(), INCIDENT, runs).refusals) == 2
    for called in desk.runs:
        settle(desk, called.id, monkeypatch, status="not-needed")
    assert {c.action for c in desk.plan().compensations} == {"settled"}
    assert desk.perform(desk.plan())["compensations"] == 0


def test_settling_is_refused_where_it_would_be_wrong(
    tmp_path: Path, service: PaymentService, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = till(tmp_path, service, refund(service))
    desk.perform(desk.plan())
    with pytest.raises(Refused, match=r"was taken back by R1-INC-\S+ already"):
        settle(desk, "1", monkeypatch)
    with pytest.raises(CatalogError, match="which has 'charge'; correct the name"):
        settle(desk, "1", monkeypatch, step="chrage")
    with pytest.raises(CatalogError, match="workflow nobody: not in the catalogue"):
        settle(desk, "1", monkeypatch, workflow="nobody")
    with desk.open().ledger.lease("kiosk", "a recovery", 60.0), pytest.raises(LeaseHeld):
        settle(desk, "9", monkeypatch)


def test_an_undo_by_a_person_offers_and_does_the_refund_once(tmp_path: Path, service: PaymentService) -> None:
    desk = till(tmp_path, service, refund(service), MAIL)
    desk.returns = {"Mail": [{}]}
    run = desk.call("c").id
    ctx = desk.open()
    outside = undo_outside.look(ctx, [run, "999"])
    told = list(undo_told.about(outside, compensate=False))
    assert told == [
        "outside the rows: not known of run 999, which the platform does not have; look at it by hand",
        f"outside the rows: mail of run {run} of intake: by hand (it cannot be taken back): write to the customer",
        f"outside the rows: charge of run {run} of intake: stays; --compensate takes it back (http)",
    ]
    with pytest.raises(Refused, match="does not know run 999"):
        undo_outside.refuse(outside)
    for number in range(2):
        outside = undo_outside.look(ctx, [run])
        undo_outside.refuse(outside)
        taken = undo_outside.take_back(ctx, outside, recovery=f"undo-{number}", plan_hash="h")
        assert undo_told.outcomes(taken) == ([] if number else [f"charge of run {run} of intake: done"])
    assert [charge for charge, _ in service.refunds] == ["ch-3"]
    [kept] = undo_outside.stays_done(ctx, ["undo-0"])
    assert kept == f"charge of intake stays taken back for run {run}: it left the database, so no undo reaches it"


def test_an_undo_ends_at_a_critical_step_and_goes_on_there(tmp_path: Path, service: PaymentService) -> None:
    desk = till(tmp_path, service, refund(service))
    ctx, runs = desk.open(), [r.id for r in desk.runs]
    service.faults[:] = ["402"]
    taken = undo_outside.take_back(ctx, undo_outside.look(ctx, runs), recovery="undo-1", plan_hash="h")
    assert [(one.run_id, outcome.status) for one, outcome in taken] == [("2", "failed")]
    undo_outside.take_back(ctx, undo_outside.look(ctx, runs), recovery="undo-2", plan_hash="h")
    assert [charge for charge, _ in service.refunds] == ["ch-2", "ch-1"]


def test_an_undo_needs_no_platform_for_what_declares_nothing(tmp_path: Path, service: PaymentService) -> None:
    desk = till(tmp_path, service)
    desk.platform = Faulty(desk.fake, [Fault(kind=FaultKind.TIMEOUT, times=None)])
    assert undo_outside.look(desk.open(), ["1"]) == undo_outside.Outside()
    desk.steps = [refund(service)]
    outside = undo_outside.look(desk.open(), ["1"])
    assert "timed out" in outside.unreachable
    with pytest.raises(Refused, match="undo without --compensate"):
        undo_outside.refuse(outside)


WORKFLOW = {"kind": "workflow", "workflow": "payment", "values": {"charge": "outputs.Charge.0.id"}}


@pytest.fixture
def asked() -> list[tuple[str, str]]:
    return []


def refunding(tmp_path: Path, service: PaymentService, asked: list[tuple[str, str]]) -> Till:
    desk = till(tmp_path, service, {**refund(service), "compensation": WORKFLOW})
    desk.refunding = lambda event, _run: asked.append((event["body"]["charge"], event["headers"]["x-reinstate-event"]))
    return desk


@pytest.mark.parametrize("kind", [FaultKind.LOST_REPLY, FaultKind.CUT_ANSWER])
def test_a_workflow_run_whose_answer_was_lost_is_read_back_by_its_key(
    tmp_path: Path, service: PaymentService, asked: list[tuple[str, str]], kind: FaultKind
) -> None:
    desk = refunding(tmp_path, service, asked)
    desk.platform = Faulty(desk.fake, [Fault(kind=kind, method="send", times=2)])
    plan = desk.plan()
    desk.perform(plan)
    desk.perform(plan)
    assert [charge for charge, _ in asked] == ["ch-2", "ch-1"]
    assert [key for _, key in asked] == [c.key for c in plan.compensations]


def test_a_workflow_run_that_may_not_have_happened_is_never_sent_twice(
    tmp_path: Path, service: PaymentService, asked: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = refunding(tmp_path, service, asked)
    desk.platform = Faulty(desk.fake, [Fault(kind=FaultKind.TIMEOUT, method="send")])
    plan = desk.plan()
    for _ in range(2):
        with pytest.raises(NotCompensated, match="may or may not have been taken back"):
            desk.perform(plan)
    assert asked == []
    assert len(delivery.unknown(desk.open())) == 1
    settle(desk, "2", monkeypatch)
    assert delivery.unknown(desk.open()) == []
    desk.perform(plan)
    assert [charge for charge, _ in asked] == ["ch-1"]


def test_a_workflow_run_that_failed_is_sent_again_only_when_a_person_continues(
    tmp_path: Path, service: PaymentService, asked: list[tuple[str, str]]
) -> None:
    desk = refunding(tmp_path, service, asked)

    def fails(event: Mapping[str, Any], run: str) -> None:
        asked.append((event["body"]["charge"], run))
        if len(asked) == 1:
            raise ValueError("the bank is closed")

    desk.refunding = fails
    plan = desk.plan()
    with pytest.raises(NotCompensated, match=r"its run \d+ ended as error"):
        desk.perform(plan)
    desk.perform(plan)
    assert [charge for charge, _ in asked] == ["ch-2", "ch-2", "ch-1"]


@pytest.mark.parametrize("after", [False, True])
def test_killed_around_the_workflow_run_it_is_done_once(
    tmp_path: Path, service: PaymentService, asked: list[tuple[str, str]], after: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = refunding(tmp_path, service, asked)
    plan = desk.plan()
    real = desk.fake.send

    def dying(*args: Any, **kwargs: Any) -> Any:
        monkeypatch.setattr(desk.fake, "send", real)
        if after:
            real(*args, **kwargs)
        raise Killed

    monkeypatch.setattr(desk.fake, "send", dying)
    with pytest.raises(Killed):
        desk.perform(plan)
    desk.perform(plan)
    assert [charge for charge, _ in asked] == ["ch-2", "ch-1"]


def test_a_platform_that_is_gone_concludes_nothing(
    tmp_path: Path, service: PaymentService, asked: list[tuple[str, str]]
) -> None:
    desk = refunding(tmp_path, service, asked)
    plan = desk.plan()
    desk.platform = Faulty(desk.fake, [Fault(kind=FaultKind.TIMEOUT, method="open_private_entry")])
    with pytest.raises(Retryable):
        desk.perform(plan)
    assert desk.recorded() == []
    desk.perform(plan)
    assert [charge for charge, _ in asked] == ["ch-2", "ch-1"]
