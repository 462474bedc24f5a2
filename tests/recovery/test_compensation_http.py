"""Refunds over a real HTTP connection that fails in every way: each charge is refunded once, in order, or a person is
told by name."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ledger import Ledger
from recovery import compensated, compensation
from recovery.errors import NotCompensated
from recovery.facts import Undone, facts_of
from recovery.inverses import by_http
from recovery.inverses.attempt import Result
from tests.recovery.payment_service import FAULTS, PaymentService, running
from tests.recovery.refunds import Killed, Till, refund


@pytest.fixture(scope="module")
def service_of_module() -> Iterator[PaymentService]:
    with running() as service:
        yield service


@pytest.fixture
def service(service_of_module: PaymentService, monkeypatch: pytest.MonkeyPatch) -> PaymentService:
    monkeypatch.setattr(compensation, "FIRST_WAIT_S", 0.001)
    forget(service_of_module)
    return service_of_module


def forget(service: PaymentService) -> None:
    for kept in (
        service.faults,
        service.charges,
        service.refunds,
        service.calls,
        service.bodies,
        service.headers,
        service.paths,
    ):
        kept.clear()


def till(tmp_path: Path, service: PaymentService, *events: str, **changes: Any) -> Till:
    made = Till(tmp_path / "home", service, [refund(service, **changes)])
    for event in events:
        made.call(event)
    return made


def test_each_charge_is_refunded_once_the_latest_first(tmp_path: Path, service: PaymentService) -> None:
    desk = till(tmp_path, service, "a", "b", "c")
    plan = desk.plan()
    detail = desk.perform(plan)
    assert [charge for charge, _ in service.refunds] == ["ch-3", "ch-2", "ch-1"]
    assert (detail["done"], detail["by_hand"]) == (3, [])
    assert desk.perform(plan)["done"] == 3  # a rerun looks at the record
    assert len(service.calls) == 3


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_survived_with_the_same_key(tmp_path: Path, service: PaymentService, fault: str) -> None:
    desk = till(tmp_path, service, "a")
    service.faults[:] = [fault]
    assert desk.perform(desk.plan())["done"] == 1
    assert len(service.refunds) == 1
    assert len(service.calls) == 2
    assert len(set(service.calls)) == 1


@pytest.mark.parametrize(
    ("faults", "status", "tries"),
    [
        (["drop-after"] * 3, "unknown", 3),
        (["500-before"] * 3, "unknown", 3),
        (["409"] * 3, "unknown", 3),
        (["429"] * 3, "failed", 3),
        (["402"], "failed", 1),
        (["301"], "failed", 1),
        (["404"], "failed", 1),
        (["410"], "not-needed", 1),
        (["418"], "not-needed", 1),
        (["drop-after", "402"], "unknown", 2),
        (["429", "402"], "failed", 2),
    ],
)
def test_what_an_exhausted_attempt_is_called(
    tmp_path: Path, service: PaymentService, faults: list[str], status: str, tries: int
) -> None:
    desk = till(tmp_path, service, "a", critical=False, inverse={"not_needed": [418]}, manual="refund it at the bank")
    service.faults[:] = faults
    detail = desk.perform(desk.plan())
    [entry] = desk.open().ledger.entries(kinds=["compensation.ended"])
    assert (entry.body["status"], len(service.calls)) == (status, tries)
    assert entry.body["seconds"] >= 0
    if status == "not-needed":
        assert detail["by_hand"] == []
    else:
        assert entry.body["manual"] == "refund it at the bank"
        assert detail["by_hand"] == [f"charge of intake, run {desk.runs[0].id}: refund it at the bank"]


def test_nobody_listens(tmp_path: Path, service: PaymentService) -> None:
    nowhere = {"url": "http://127.0.0.1:1/{charge}"}
    desk = till(tmp_path, service, "a", critical=False, inverse=nowhere)
    desk.perform(desk.plan())
    assert [status for _, status in desk.recorded()] == ["failed"]


def test_a_critical_step_that_fails_stops_before_anything_earlier_is_touched(
    tmp_path: Path, service: PaymentService
) -> None:
    desk = till(tmp_path, service, "a", "b", "c", manual="refund it at the bank")
    plan = desk.plan()
    service.faults[:] = ["ok", "402"]
    with pytest.raises(NotCompensated, match="run 2 of intake could not be taken back: the answer was 402") as stopped:
        desk.perform(plan)
    assert "refund it at the bank" in str(stopped.value)
    assert "nothing is replayed, the app stays paused" in str(stopped.value)
    assert [charge for charge, _ in service.refunds] == ["ch-3"]
    desk.perform(plan)  # the cause is mended
    assert [charge for charge, _ in service.refunds] == ["ch-3", "ch-2", "ch-1"]


def test_one_that_is_not_critical_is_skipped_by_name_and_stays_so(tmp_path: Path, service: PaymentService) -> None:
    """A rerun must not take it back after what came later in the order, nor after a person did."""
    desk = till(tmp_path, service, "a", "b", critical=False)
    plan = desk.plan()
    service.faults[:] = ["402"]
    detail = desk.perform(plan)
    assert (detail["done"], detail["skipped"], detail["by_hand"]) == (1, 1, ["charge of intake, run 2"])
    assert desk.perform(plan) == detail
    assert [charge for charge, _ in service.refunds] == ["ch-1"]


def test_values_are_kept_out_of_the_record(tmp_path: Path, service: PaymentService) -> None:
    body = {"reason": "order {event}", "event": "{event}", "amount": "{amount}"}
    values = {"charge": "outputs.Charge.0.id", "event": "event.body.event", "amount": "outputs.Price.0.total"}
    desk = till(tmp_path, service, critical=False, inverse={"body": body, "values": values})
    desk.returns = {"Price": [{"total": 12.5}]}
    desk.call("secret-event")
    plan = desk.plan()
    service.faults[:] = ["drop-after", "500-before", "402"]
    desk.perform(plan)
    assert service.bodies[0] == {"reason": "order secret-event", "event": "secret-event", "amount": 12.5}
    told = plan.model_dump_json() + "".join(str(e.body) for e in desk.open().ledger.entries())
    assert all(word not in told for word in ("secret-event", "ch-1", "12.5", "4242"))


def test_headers_are_secrets_and_the_key_is_ours(
    tmp_path: Path, service: PaymentService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PAY_AUTH", "Bearer let-me-in-please")
    desk = till(tmp_path, service, "a", inverse={"headers": {"Authorization": "env:PAY_AUTH"}})
    plan = desk.plan()
    desk.perform(plan)
    assert service.headers[0]["Authorization"] == "Bearer let-me-in-please"
    assert service.calls == [plan.compensations[0].key]
    told = plan.model_dump_json() + "".join(str(e.body) for e in desk.open().ledger.entries())
    assert "let-me-in" not in told


@pytest.mark.parametrize("bent", ["../../admin", "a/b?x=1#y", "..", "ü %"])
def test_a_value_cannot_bend_the_address(tmp_path: Path, service: PaymentService, bent: str) -> None:
    values = {"charge": "event.body.event"}
    desk = till(tmp_path, service, bent, critical=False, inverse={"values": values})
    desk.perform(desk.plan())
    if bent == "..":
        assert service.paths == []
    else:
        assert service.paths == [f"/charges/{quote(bent, safe='')}/refund"]


def test_what_is_done_is_what_was_approved(tmp_path: Path, service: PaymentService) -> None:
    desk = till(tmp_path, service, "a")
    plan = desk.plan()
    desk.steps = [refund(service, inverse={"body": {"reason": "changed since"}})]
    with pytest.raises(NotCompensated, match="otherwise than the plan"):
        desk.perform(plan)
    assert service.calls == []


@pytest.mark.parametrize(
    ("status", "method", "result"),
    [
        (200, "POST", Result.DONE),
        (202, "PATCH", Result.DONE),
        (204, "DELETE", Result.DONE),
        (404, "DELETE", Result.NOT_NEEDED),
        (404, "POST", Result.REFUSED),
        (410, "PUT", Result.NOT_NEEDED),
        (409, "POST", Result.LOST),
        (408, "POST", Result.AGAIN),
        (503, "POST", Result.LOST),
        (307, "POST", Result.REFUSED),
        (401, "POST", Result.REFUSED),
    ],
)
def test_what_an_answer_means(status: int, method: str, result: Result) -> None:
    assert by_http.judge(status, method=method).result is result


@pytest.mark.parametrize(("given_s", "wait_s"), [("3", 3.0), ("86400", 60.0), ("Wed, 21 Oct", None), (None, None)])
def test_the_other_side_may_ask_for_a_pause(given_s: str | None, wait_s: float | None) -> None:
    assert by_http.judge(429, method="POST", retry_after=given_s).wait_s == wait_s


MOMENTS = ("begun", "sent", "ended")


def killing(monkeypatch: pytest.MonkeyPatch, moment: str, number: int, *, after: bool) -> None:
    """Die at the ``number``-th time that something is begun, sent or ended: just before it, or just after."""
    seen = [0]

    def dying(function: Any, matches: Any) -> Any:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            struck = matches(*args) and (seen.__setitem__(0, seen[0] + 1) or seen[0] == number)
            if struck and not after:
                raise Killed
            result = function(*args, **kwargs)
            if struck:
                raise Killed
            return result

        return wrapped

    if moment == "sent":
        monkeypatch.setattr(by_http, "call", dying(by_http.call, lambda *_: True))
    else:
        monkeypatch.setattr(
            Ledger, "append", dying(Ledger.append, lambda _self, kind, *_: kind == f"compensation.{moment}")
        )


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("number", [1, 2])
def test_killed_at_each_boundary_each_inverse_is_done_once_and_in_order(
    tmp_path: Path, service: PaymentService, moment: str, number: int, after: bool
) -> None:
    desk = till(tmp_path, service, "a", "b")
    plan = desk.plan()
    with pytest.MonkeyPatch.context() as patch:
        killing(patch, moment, number, after=after)
        with pytest.raises(Killed):
            desk.perform(plan)
    desk.perform(plan)
    assert [charge for charge, _ in service.refunds] == ["ch-2", "ch-1"]
    assert len(set(service.calls)) == 2
    assert {past.status for past in compensated.known(desk.open()).values()} == {"done"}


FAULT = st.sampled_from(["ok", "ok", "ok", "drop-before", "drop-after", "500-before", "500-after", "429", "402", "410"])


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    faults=st.lists(FAULT, max_size=8),
    kills=st.lists(st.tuples(st.sampled_from(MOMENTS), st.integers(1, 4), st.booleans()), max_size=2),
    critical=st.booleans(),
)
def test_no_schedule_of_faults_and_kills_refunds_twice_or_forgets(
    tmp_path_factory: pytest.TempPathFactory,
    service: PaymentService,
    faults: list[str],
    kills: list[tuple[str, int, bool]],
    critical: bool,
) -> None:
    forget(service)
    desk = till(tmp_path_factory.mktemp("till"), service, "a", "b", critical=critical)
    plan = desk.plan()
    service.faults[:] = faults
    for moment, number, after in kills:
        with pytest.MonkeyPatch.context() as patch:
            killing(patch, moment, number, after=after)
            attempted(desk, plan)
    for _ in range(12):
        if attempted(desk, plan):
            break
    assert attempted(desk, plan)
    refunded = [charge for charge, _ in service.refunds]
    assert len(refunded) == len(set(refunded))
    outcome = {run: past.status for (_, run, _, _), past in compensated.known(desk.open()).items()}
    assert set(outcome) == {r.id for r in desk.runs}
    charge_of = {r.id: f"ch-{n}" for n, r in enumerate(desk.runs, start=1)}
    for run, status in outcome.items():
        assert status != "done" or charge_of[run] in refunded
        assert status != "failed" or charge_of[run] not in refunded
        assert not critical or status in ("done", "not-needed")
    # In order: what is refunded later never belongs to a later run.
    assert refunded == sorted(refunded, reverse=True)


def attempted(desk: Till, plan: Any) -> bool:
    """Whether the step came to its end in this process."""
    try:
        desk.perform(plan)
    except (Killed, NotCompensated):
        return False
    return True


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_process_that_is_killed_for_good_is_continued_by_another(
    tmp_path: Path, service: PaymentService, after: bool
) -> None:
    """With ``kill -9``, in a process of its own, around the first call."""
    desk = till(tmp_path, service, "a", "b")
    plan = desk.plan()
    child = os.fork()
    if child == 0:
        real = by_http.call

        def dying(*args: Any) -> Any:
            if after:
                real(*args)
            os.kill(os.getpid(), signal.SIGKILL)

        by_http.call = dying  # type: ignore[assignment]
        try:
            desk.perform(plan)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL
    assert len(service.refunds) == after
    desk.perform(plan)
    assert [charge for charge, _ in service.refunds] == ["ch-2", "ch-1"]
    assert len(set(service.calls)) == 2


def test_a_refusal_after_a_kill_is_not_called_a_failure(tmp_path: Path, service: PaymentService) -> None:
    """What the dead process had sent may have been done, whatever the next answer says."""
    desk = till(tmp_path, service, "a", critical=False)
    plan = desk.plan()
    with pytest.MonkeyPatch.context() as patch:
        killing(patch, "sent", 1, after=True)
        with pytest.raises(Killed):
            desk.perform(plan)
    service.faults[:] = ["402"]
    desk.perform(plan)
    assert [status for _, status in desk.recorded()] == ["unknown"]


def test_what_is_on_record_is_not_done_again_by_whoever_asks(tmp_path: Path, service: PaymentService) -> None:
    desk = till(tmp_path, service, "a")
    plan = desk.plan()
    desk.perform(plan)
    ctx, [one] = desk.open(), plan.compensations
    frame = compensation.Frame(recovery="R2", incident=None, plan_hash="h", version_of=lambda _key: pytest.fail("no"))
    facts = facts_of(ctx, Undone(workflow=one.workflow, run_id=one.run_id))
    past = compensated.of(compensated.known(ctx), one)
    assert compensation.once(ctx, frame, one, facts, past).status == "done"
    assert len(service.calls) == 1
