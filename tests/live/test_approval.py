"""Approval on a real Prefect server: the run's process is gone while it waits, and the answer is bound to the plan.

The flow is the real one over a real ledger; what a plan holds and what a step does is a stand-in (`approval_stand_in`).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings

from console import exits
from console.main import run as reinstate
from estate import Estate
from flows import stewardship
from incidents import record
from ledger import Ledger, kinds
from recovery import approvals, session
from recovery.plan import Plan
from tests.live import approval_stand_in
from tests.live.service import Patient

pytestmark = pytest.mark.live

ROOT = Path(__file__).parents[2]
PATIENCE_S = 120.0
FINAL = {"COMPLETED", "FAILED", "CANCELLED", "CRASHED"}


@dataclass
class Served:
    """The flow, served from one process; ``api`` is the Prefect server's."""

    home: Path
    environment: dict[str, str]
    api: httpx.Client
    log: Path
    process: subprocess.Popen[str] | None = None
    deployment: str = ""
    incident: str = ""
    ledger: Ledger = field(init=False)

    def __post_init__(self) -> None:
        self.ledger = Ledger(self.home / "ledger.sqlite")

    def start(self) -> None:
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.live.approval_serve"],
                cwd=ROOT,
                env=self.environment,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        assert self.process.stdout is not None
        self.deployment = self.process.stdout.readline().strip()
        assert self.deployment, self.log.read_text()

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.communicate()

    def stop(self) -> None:
        """End it, and whatever run it has left."""
        if self.process is None or self.process.poll() is not None:
            return
        children = psutil.Process(self.process.pid).children(recursive=True)
        self.process.terminate()
        try:
            self.process.communicate(timeout=20)
        except subprocess.TimeoutExpired:
            self.kill()
        for child in children:
            if child.is_running():
                child.kill()
        psutil.wait_procs(children, timeout=10)

    def ask(self, **parameters: str) -> str:
        made = self.api.post(f"/deployments/{self.deployment}/create_flow_run", json={"parameters": parameters})
        made.raise_for_status()
        return str(made.json()["id"])

    def state(self, run: str) -> dict[str, Any]:
        found = self.api.get(f"/flow_runs/{run}").raise_for_status().json()
        return {**(found["state"] or {}), "run_name": found["name"]}

    def until(self, run: str, *types: str) -> dict[str, Any]:
        deadline = time.monotonic() + PATIENCE_S
        while (found := self.state(run)).get("type") not in types:
            assert time.monotonic() < deadline, f"{found}\n{self.log.read_text()[-3000:]}"
            time.sleep(0.2)
        return found

    def waiting(self, **parameters: str) -> tuple[str, Plan]:
        """A run that waits for approval, and the plan it shows."""
        run = self.ask(**parameters)
        self.until(run, "PAUSED", *FINAL)
        assert self.state(run)["name"] == "Suspended", self.state(run)
        shown = [e for e in self.entries(kinds.PLAN_SHOWN) if e.body["flow_run"] == run]
        with approval_stand_in.opened() as ctx:
            return run, session.load_plan(ctx, str(shown[-1].recovery))

    def answer(self, run: str, decision: str, plan_hash: str, reason: str = "read it") -> str:
        """What the form of the UI sends. Returns whether the server took it."""
        given = {"decision": decision, "by": "ada", "reason": reason, "plan": plan_hash}
        asked = self.api.post(f"/flow_runs/{run}/resume", json={"run_input": given})
        asked.raise_for_status()
        return str(asked.json()["status"])

    def in_the_second_step(self) -> tuple[str, Plan]:
        """An approved run that stays in its second step while there is a file ``hold``."""
        (self.home / "hold").touch()
        run, plan = self.waiting(trigger="operator")
        self.answer(run, "approve", plan.hash)
        deadline = time.monotonic() + PATIENCE_S
        while len(self.steps(plan)) < 2:
            assert time.monotonic() < deadline, self.state(run)
            time.sleep(0.1)
        return run, plan

    def entries(self, *wanted: str) -> list[Any]:
        return self.ledger.entries(incident=self.incident, kinds=wanted or None)

    def steps(self, plan: Plan) -> list[str]:
        """What was done for this plan."""
        notes = self.home / "steps"
        lines = [line.split() for line in notes.read_text().splitlines()] if notes.exists() else []
        return [step for made_for, step, _ in lines if made_for == plan.hash]

    def artifact(self, key: str) -> str:
        asked = {"artifacts": {"key": {"any_": [f"kiosk-{key}"]}}, "sort": "CREATED_DESC", "limit": 1}
        [found] = self.api.post("/artifacts/filter", json=asked).raise_for_status().json()
        return str(found["data"])


@pytest.fixture(scope="module")
def module_served() -> Iterator[Served]:
    with tempfile.TemporaryDirectory(prefix="reinstate-approval-") as folder, pytest.MonkeyPatch.context() as env:
        work = Path(folder)
        estate = Estate(work / "estate")
        home = work / "home"
        home.mkdir()
        served: Served | None = None
        try:
            at = estate.up(("prefect",))
            env.setenv("REINSTATE_HOME", str(home))
            env.setenv("PREFECT_API_URL", at.prefect_api_url)
            env.setenv("PREFECT_API_AUTH_STRING", at.prefect_auth)
            env.setenv("PREFECT_HOME", str(work / "prefect"))
            env.setenv("DO_NOT_TRACK", "1")
            environment = {**os.environ, "PYTHONPATH": str(ROOT)}
            user, _, password = at.prefect_auth.partition(":")
            asking: dict[str, Any] = {"auth": (user, password), "timeout": 20, "transport": Patient()}
            with httpx.Client(base_url=at.prefect_api_url, **asking) as api:
                served = Served(home=home, environment=environment, api=api, log=work / "serve.log")
                served.start()
                yield served
        finally:
            if served is not None:
                served.stop()
                served.ledger.close()
            estate.down()


@pytest.fixture
def served(module_served: Served) -> Iterator[Served]:
    """With a new incident, and ten minutes for a decision."""
    (module_served.home / "expires_s").write_text("600")
    opened = record.open_incident(module_served.ledger, "kiosk", severity="sev2", title="Wrong", workflows=["intake"])
    module_served.incident = opened.id
    module_served.ledger.append(kinds.INCIDENT_DIAGNOSED, app="kiosk", incident=opened.id)
    yield module_served
    (module_served.home / "hold").unlink(missing_ok=True)
    if record.read(module_served.ledger, opened.id).closed_at is None:
        record.close(module_served.ledger, opened.id, reason="the test is over", by="tester")


def test_a_waiting_run_survives_the_kill_of_its_server_and_runs_once_approved(served: Served) -> None:
    run, plan = served.waiting(trigger="operator")
    assert served.state(run)["run_name"].startswith("recover kiosk both #")
    assert "# Plan to bring back Kiosk" in served.artifact("plan")
    inputs = served.api.post(f"/flow_runs/{run}/input/filter", json={"prefix": "suspended", "limit": 9}).json()
    assert any("the plan to bring back Kiosk" in str(i["value"]) for i in inputs)
    served.kill()
    time.sleep(1)
    assert served.state(run)["name"] == "Suspended"
    assert served.steps(plan) == []
    served.start()
    assert served.answer(run, "approve", plan.hash) == "ACCEPT"
    ended = served.until(run, *FINAL)
    assert (ended["type"], ended["name"]) == ("COMPLETED", "Recovered")
    assert served.steps(plan) == list(approval_stand_in.STEPS)
    assert len(served.entries(kinds.PLAN_MADE)) == 1
    [approved] = served.entries(kinds.PLAN_APPROVED)
    assert (approved.body["by"], approved.body["plan_hash"]) == ("ada", plan.hash)
    assert float(served.artifact("progress")) == 100
    assert "Recovered" in served.artifact("report")
    assert (served.home / "reports" / f"{served.incident}.html").exists()


def test_a_rejected_plan_leaves_the_app_contained_and_says_what_to_do(served: Served) -> None:
    run, plan = served.waiting(trigger="operator")
    served.answer(run, "reject", plan.hash, reason="undo less")
    ended = served.until(run, *FINAL)
    assert (ended["type"], ended["name"]) == ("CANCELLED", "Rejected")
    assert "undo less" in ended["message"]
    assert "start `recover` for another plan" in ended["message"]
    assert served.steps(plan) == []
    assert not served.entries(kinds.RECOVERY_STARTED)


def test_an_answer_that_comes_too_late_counts_for_nothing(served: Served) -> None:
    (served.home / "expires_s").write_text("1")
    run, plan = served.waiting(trigger="operator")
    time.sleep(1)
    served.answer(run, "approve", plan.hash)
    ended = served.until(run, *FINAL)
    assert (ended["type"], ended["name"]) == ("FAILED", "Expired")
    assert served.entries(kinds.PLAN_EXPIRED)
    assert served.steps(plan) == []


def test_a_run_that_nobody_answers_ends_by_the_stewards_hand(served: Served) -> None:
    (served.home / "expires_s").write_text("1")
    run, plan = served.waiting(trigger="operator")
    time.sleep(1)
    address = {PREFECT_API_URL: served.environment["PREFECT_API_URL"]}
    login = {PREFECT_API_AUTH_STRING: served.environment["PREFECT_API_AUTH_STRING"]}
    with approval_stand_in.opened() as ctx, temporary_settings({**address, **login}):
        stewardship.expire(ctx, print)
    ended = served.state(run)
    assert (ended["type"], ended["name"]) == ("FAILED", "Expired")
    assert "start `recover` again" in ended["message"]
    assert served.answer(run, "approve", plan.hash) == "ABORT"


def test_an_answer_to_another_plan_changes_nothing_and_a_newer_plan_ends_the_older_run(served: Served) -> None:
    old, first = served.waiting(trigger="operator")
    assert served.answer(old, "approve", "0" * 64) == "REJECT"
    assert served.state(old)["name"] == "Suspended"
    new, second = served.waiting(trigger="operator")
    assert second.hash != first.hash
    assert served.answer(old, "approve", second.hash) != "ACCEPT"
    ended = served.state(old)
    assert (ended["type"], ended["name"]) == ("FAILED", "Superseded")
    served.answer(new, "approve", second.hash)
    assert served.until(new, *FINAL)["name"] == "Recovered"
    assert served.steps(first) == []


def test_an_event_that_comes_three_times_makes_one_plan_and_a_waiting_run_holds_no_place(served: Served) -> None:
    """At most one run of the deployment at a time: the others run while the first is suspended."""
    runs = [served.ask(trigger="event", incident=served.incident) for _ in range(2)]
    names = {r: served.until(r, "PAUSED", *FINAL)["name"] for r in runs}
    assert sorted(names.values()) == ["Already handled", "Suspended"]
    again = served.until(served.ask(trigger="event", incident=served.incident), *FINAL)
    assert (again["type"], again["name"]) == ("COMPLETED", "Already handled")
    assert sorted(served.state(r)["name"] for r in runs) == ["Already handled", "Suspended"]
    assert len(served.entries(kinds.PLAN_MADE)) == 1


def test_an_approval_by_command_wakes_the_run(served: Served, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr("console.commands.approve.opened", approval_stand_in.opened)
    run, plan = served.waiting(trigger="operator")
    assert reinstate(["approvals"]) == exits.OK
    assert plan.recovery_id in capsys.readouterr().out
    assert reinstate(["approve", plan.recovery_id, "--plan", "0" * 12]) == exits.REFUSED
    assert reinstate(["approve", plan.recovery_id, "--plan", plan.hash[:12], "--by", "grace"]) == exits.OK
    assert "goes on with it" in capsys.readouterr().out
    assert served.until(run, *FINAL)["name"] == "Recovered"
    [approved] = served.entries(kinds.PLAN_APPROVED)
    assert approved.body["by"] == "grace"


def test_a_killed_run_that_is_started_again_goes_on_with_what_it_had(served: Served) -> None:
    run, plan = served.in_the_second_step()
    pid = int((served.home / "steps").read_text().split()[-1])
    os.kill(pid, signal.SIGKILL)
    served.until(run, "CRASHED")
    (served.home / "hold").unlink()
    retry = {"state": {"type": "SCHEDULED", "name": "AwaitingRetry"}, "force": True}  # what the UI's Retry sends
    served.api.post(f"/flow_runs/{run}/set_state", json=retry).raise_for_status()
    assert served.until(run, "COMPLETED", "FAILED")["name"] == "Recovered"
    assert len(served.entries(kinds.PLAN_MADE)) == 1
    assert len(served.entries(kinds.RECOVERY_STARTED)) == 2
    with approval_stand_in.opened() as ctx:
        assert approvals.of(ctx, plan).by == "ada"


def test_a_run_that_a_person_cancels_is_stopped_on_record(served: Served) -> None:
    run, _ = served.in_the_second_step()
    cancel = {"state": {"type": "CANCELLING", "name": "Cancelling"}}  # what the UI's Cancel sends
    served.api.post(f"/flow_runs/{run}/set_state", json=cancel).raise_for_status()
    assert served.until(run, *FINAL)["type"] == "CANCELLED"
    deadline = time.monotonic() + PATIENCE_S
    while not served.entries(kinds.RECOVERY_STOPPED):
        assert time.monotonic() < deadline, served.log.read_text()[-3000:]
        time.sleep(0.2)
    [stopped] = served.entries(kinds.RECOVERY_STOPPED)
    assert "cancelled by a person" in stopped.body["reason"]
