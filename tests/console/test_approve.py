"""Deciding at the command line: for exactly the plan that was read; on record whatever becomes of the flow run."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from console import exits, flow_runs
from console.commands import approve
from console.errors import Unreachable
from ledger import kinds
from recovery.plan import Plan
from tests.console.desk import Desk, answering
from tests.recovery.decided import plan_of


@pytest.fixture
def shown(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> Plan:
    """A plan that a suspended run shows; no Prefect server."""
    monkeypatch.setattr("recovery.context.open_platform", answering)
    monkeypatch.setattr(approve, "resume_run", lambda *_, **__: (True, "flow run recover desk both #1 goes on"))
    plan = plan_of("INC-1", "R1", 1).model_copy(update={"app": "desk"})
    tell(desk, kinds.INCIDENT_OPENED, plan, severity="sev2", title="Wrong totals")
    tell(desk, kinds.PLAN_MADE, plan, **plan.model_dump(mode="json"), hash=plan.hash)
    body = {"plan_hash": plan.hash, "flow_run": "F1", "expires_at": "2999-01-01T00:00:00+00:00"}
    tell(desk, kinds.PLAN_SHOWN, plan, **body)
    return plan


def tell(desk: Desk, kind: str, plan: Plan, **body: Any) -> None:
    from ledger import Ledger

    with Ledger(desk.home / "ledger.sqlite") as ledger:
        ledger.append(kind, app="desk", incident=plan.incident_id, recovery=plan.recovery_id, body=body)


def decisions(desk: Desk) -> list[tuple[str, str, str]]:
    wanted = (kinds.PLAN_APPROVED, kinds.PLAN_REJECTED)
    return [(e.kind, e.body["by"], e.body["reason"]) for e in desk.entries() if e.kind in wanted]


def test_what_waits_is_listed(desk: Desk, shown: Plan, capsys: pytest.CaptureFixture[str]) -> None:
    assert desk.run("approvals") == exits.OK
    said = capsys.readouterr().out
    assert shown.recovery_id in said
    assert shown.hash[:12] in said
    assert "reinstate approve" in said
    assert desk.run("approvals", "--json") == exits.OK
    [found] = json.loads(capsys.readouterr().out)
    assert (found["plan_hash"], found["flow_run"]) == (shown.hash, "F1")


def test_a_yes_is_on_record_and_the_run_goes_on(desk: Desk, shown: Plan, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ("approve", shown.recovery_id, "--plan", shown.hash[:12], "--by", "ada", "--reason", "read it")
    assert desk.run(*asked) == exits.OK
    assert "is approved; flow run recover desk both #1 goes on\n" in capsys.readouterr().out
    assert desk.run(*asked) == exits.OK
    assert decisions(desk) == [(kinds.PLAN_APPROVED, "ada", "read it")]
    capsys.readouterr()
    assert desk.run("approvals") == exits.OK
    assert capsys.readouterr().out == "no plan waits for a decision\n"


def test_a_no_is_on_record(desk: Desk, shown: Plan, capsys: pytest.CaptureFixture[str]) -> None:
    assert desk.run("reject", shown.recovery_id, "--by", "ada", "--reason", "undo less", "--json") == exits.OK
    assert json.loads(capsys.readouterr().out)["decision"] == "reject"
    assert desk.run("approve", shown.recovery_id) == exits.REFUSED
    assert "ada rejected its plan" in capsys.readouterr().err
    assert decisions(desk) == [(kinds.PLAN_REJECTED, "ada", "undo less")]


@pytest.mark.parametrize(("plan", "code"), [("0" * 12, exits.REFUSED), ("0" * 3, exits.USAGE)])
def test_who_read_another_plan_decides_nothing(
    desk: Desk, shown: Plan, capsys: pytest.CaptureFixture[str], plan: str, code: int
) -> None:
    assert desk.run("approve", shown.recovery_id, "--plan", plan) == code
    assert capsys.readouterr().err.count("\n") == 1
    assert decisions(desk) == []


def test_an_unknown_recovery_is_named(desk: Desk, shown: Plan, capsys: pytest.CaptureFixture[str]) -> None:
    assert desk.run("approve", "R9-INC-1") == exits.NOTHING
    assert "R9-INC-1" in capsys.readouterr().err


def test_a_server_that_is_away_takes_nothing_from_the_decision(
    desk: Desk, shown: Plan, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: Any, **__: Any) -> tuple[bool, str]:
        raise Unreachable("Prefect server: none is running")

    monkeypatch.setattr(approve, "resume_run", away)
    assert desk.run("approve", shown.recovery_id) == exits.OK
    assert "`reinstate recover --continue` runs it" in capsys.readouterr().out
    assert len(decisions(desk)) == 1


@pytest.mark.parametrize(
    ("run", "answer", "said"),
    [
        ({"name": "r #1", "state": {"type": "PAUSED", "name": "Suspended"}}, {"status": "ACCEPT"}, "r #1 goes on"),
        (
            {"name": "r #1", "state": {"type": "FAILED", "name": "Expired"}},
            None,
            "does not wait any more (it is Expired)",
        ),
        (
            {"name": "r #1", "state": {"type": "PAUSED", "name": "Suspended"}},
            {"status": "REJECT", "details": {"reason": "too late"}},
            "could not be resumed (too late)",
        ),
        (None, None, "is gone"),
    ],
    ids=["goes on", "ended", "refused", "gone"],
)
def test_what_became_of_the_run_is_told(
    run: dict[str, Any] | None, answer: dict[str, Any] | None, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[httpx.Request] = []

    def handle(request: httpx.Request) -> httpx.Response:
        sent.append(request)
        if request.method == "POST":
            assert answer is not None
            return httpx.Response(200, json=answer)
        return httpx.Response(404) if run is None else httpx.Response(200, json=run)

    client = httpx.Client
    monkeypatch.setattr(flow_runs, "prefect_address", lambda: "http://127.0.0.1:1/api")
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", "operator:pass:word")
    monkeypatch.setattr(httpx, "Client", lambda **more: client(transport=httpx.MockTransport(handle), **more))
    given = {"decision": "approve", "by": "ada", "reason": "", "plan_hash": "f" * 64}
    woken, clause = flow_runs.resume_run("F1", **given)
    assert said in clause
    assert woken is (said == "r #1 goes on")
    assert sent[0].headers["authorization"] == httpx._auth.BasicAuth("operator", "pass:word")._auth_header
    if answer is not None:
        assert json.loads(sent[1].content)["run_input"]["plan"] == "f" * 64


def test_a_busy_server_is_asked_again_and_in_vain_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [503, 503, 200, 503, 200]

    def handle(request: httpx.Request) -> httpx.Response:
        status = answers.pop(0) if answers else 503
        if status == 503:
            return httpx.Response(503)
        said = {"status": "ACCEPT"} if request.method == "POST" else {"name": "r #1", "state": {"type": "PAUSED"}}
        return httpx.Response(200, json=said)

    client = httpx.Client
    monkeypatch.setattr(flow_runs, "prefect_address", lambda: "http://127.0.0.1:1/api")
    monkeypatch.setattr(flow_runs, "BUSY_S", 3.0)
    monkeypatch.setattr(httpx, "Client", lambda **more: client(transport=httpx.MockTransport(handle), **more))
    given = {"decision": "approve", "by": "ada", "reason": "", "plan_hash": "f" * 64}
    assert flow_runs.resume_run("F1", **given) == (True, "flow run r #1 goes on with it")
    assert not answers
    monkeypatch.setattr(flow_runs, "BUSY_S", 0.1)
    with pytest.raises(Unreachable, match="503"):
        flow_runs.resume_run("F1", **given)
