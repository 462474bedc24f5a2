"""The steward's duties and its loop, against a Prefect server that only remembers; and what it announces to whom."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
import yaml
from prefect.client.schemas.responses import DeploymentResponse
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelled, Completed, Crashed, Paused, Pending, Running, Scheduled

from catalog.load import load
from drills.order_desk import EXAMPLE
from flows import deployments, serve, steward, stewardship
from ledger import Ledger, kinds
from ledger.mask import Guard
from recovery import keeping
from recovery.keeping import Announcement, Dead

APP = load(EXAMPLE).app("order-desk")
RUN = uuid4()
DEAD = Dead(recovery="R1-INC-1", incident="INC-1", mode="both", flow_run=str(RUN), attempt=2, why="its process ended")


class Server:
    """What the steward asks of Prefect, remembered."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.states: list[tuple[UUID, Any, bool]] = []
        self.made: list[dict[str, Any]] = []
        self.automations: list[str] = [deployments.automation_name("order-desk")]
        self.state: Any = Running()
        self.away = False

    @contextmanager
    def client(self, **_: Any) -> Any:
        if self.away:
            raise httpx.ConnectError("All connection attempts failed")
        yield self

    def request(self, method: str, path: str, *, json: list[dict[str, Any]]) -> None:
        assert (method, path) == ("POST", "/events")
        self.events += json

    def read_automations_by_name(self, name: str) -> list[str]:
        return [a for a in self.automations if a == name]

    def read_flow_run(self, run: UUID) -> Any:
        if run != RUN:
            raise ObjectNotFound(RuntimeError("no such run"))
        return SimpleNamespace(id=run, state=self.state)

    def read_deployment_by_name(self, name: str) -> Any:
        return SimpleNamespace(id=f"id of {name}")

    def set_flow_run_state(self, run: UUID, state: Any, *, force: bool) -> None:
        self.states.append((run, state, force))

    def create_flow_run_from_deployment(self, deployment: str, **rest: Any) -> Any:
        self.made.append({"deployment": deployment, **rest})
        return SimpleNamespace(id=uuid4())


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    made = Server()
    monkeypatch.setattr(stewardship, "get_client", made.client)
    return made


@pytest.fixture
def ctx(tmp_path: Path) -> Any:
    return SimpleNamespace(app=APP, ledger=Ledger(tmp_path / "ledger.sqlite"), home=tmp_path)


@pytest.fixture
def said() -> list[str]:
    return []


def waiting(monkeypatch: pytest.MonkeyPatch, number: int = 1) -> Announcement:
    found = Announcement(incident="INC-1", event=keeping.CONTAINED, payload={"incident": "INC-1", "number": number})
    monkeypatch.setattr(keeping, "unannounced", lambda _: [found])
    return found


class TestAnnouncing:
    def test_an_incident_is_announced_and_then_recorded(
        self, server: Server, ctx: Any, said: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        found = waiting(monkeypatch)
        stewardship.announce(ctx, said.append)
        [event] = server.events
        assert event["event"] == "reinstate.incident.contained"
        assert event["resource"] == {"prefect.resource.id": "reinstate.app.order-desk"}
        assert event["payload"]["incident"] == "INC-1"
        [entry] = ctx.ledger.entries(kinds=[kinds.INCIDENT_ANNOUNCED])
        assert entry.body["event"] == event["id"] == str(stewardship.event_id(found))
        assert "INC-1" in said[0]

    def test_killed_before_it_was_recorded_the_same_event_is_sent_again(
        self, server: Server, ctx: Any, said: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        waiting(monkeypatch)
        monkeypatch.setattr(keeping, "announced", lambda *_: None)
        stewardship.announce(ctx, said.append)
        stewardship.announce(ctx, said.append)
        assert len({e["id"] for e in server.events}) == 1
        waiting(monkeypatch, number=2)
        stewardship.announce(ctx, said.append)
        assert len({e["id"] for e in server.events}) == 2

    def test_before_the_flows_are_served_nothing_is_announced_into_the_void(
        self, server: Server, ctx: Any, said: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        waiting(monkeypatch)
        server.automations.clear()
        stewardship.announce(ctx, said.append)
        assert server.events == []
        assert ctx.ledger.entries(kinds=[kinds.INCIDENT_ANNOUNCED]) == []

    def test_a_server_that_is_away_loses_nothing(
        self, server: Server, ctx: Any, said: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        waiting(monkeypatch)
        server.away = True
        with pytest.raises(httpx.ConnectError):
            stewardship.announce(ctx, said.append)
        assert ctx.ledger.entries(kinds=[kinds.INCIDENT_ANNOUNCED]) == []
        server.away = False
        stewardship.announce(ctx, said.append)
        assert len(server.events) == 1


class TestContinuing:
    @pytest.fixture(autouse=True)
    def dead(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(keeping, "dead", lambda _: [DEAD])
        monkeypatch.setattr(keeping, "continuing", lambda _, __: True)

    @pytest.mark.parametrize("state", [Running(), Pending(), Paused()])
    def test_a_run_that_nobody_works_on_gives_its_place_to_one_that_goes_on(
        self, server: Server, ctx: Any, said: list[str], state: Any
    ) -> None:
        server.state = state
        stewardship.go_on(ctx, said.append)
        [(run, crashed, force)] = server.states
        assert (run, crashed.is_crashed(), force) == (RUN, True, True)
        [made] = server.made
        assert made["deployment"] == "id of recover/order-desk"
        assert made["parameters"] == {"recovery": "R1-INC-1", "trigger": "steward"}
        assert made["idempotency_key"] == DEAD.key

    @pytest.mark.parametrize("state", [Crashed(), Completed()])
    def test_a_run_that_has_ended_keeps_its_state(self, server: Server, ctx: Any, said: list[str], state: Any) -> None:
        server.state = state
        stewardship.go_on(ctx, said.append)
        assert server.states == []
        assert len(server.made) == 1

    def test_a_run_that_will_go_on_by_itself_is_left_alone(self, server: Server, ctx: Any, said: list[str]) -> None:
        server.state = Scheduled(scheduled_time=datetime.now(UTC) + timedelta(seconds=3))
        stewardship.go_on(ctx, said.append)
        assert (server.states, server.made) == ([], [])

    def test_what_a_person_cancelled_is_not_continued(self, server: Server, ctx: Any, said: list[str]) -> None:
        server.state = Cancelled()
        stewardship.go_on(ctx, said.append)
        assert (server.states, server.made) == ([], [])
        [entry] = ctx.ledger.entries(kinds=[kinds.RECOVERY_STOPPED])
        assert "cancelled" in entry.body["reason"]

    def test_one_that_somebody_else_continues_is_left_to_them(
        self, server: Server, ctx: Any, said: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(keeping, "continuing", lambda _, __: False)
        stewardship.go_on(ctx, said.append)
        assert (server.states, server.made) == ([], [])

    @pytest.mark.parametrize("flow_run", [None, "R1-INC-1-continued-1", "9c0da6b3-b164-46ca-a596-ebd9ecabf3e9"])
    def test_a_run_that_nobody_knows_is_no_obstacle(
        self, server: Server, ctx: Any, said: list[str], monkeypatch: pytest.MonkeyPatch, flow_run: str | None
    ) -> None:
        lost = Dead(recovery="R1-INC-1", incident="INC-1", mode="both", flow_run=flow_run, attempt=1, why="gone")
        monkeypatch.setattr(keeping, "dead", lambda _: [lost])
        stewardship.go_on(ctx, said.append)
        assert server.states == []
        assert len(server.made) == 1


class TestLoop:
    def test_an_error_is_said_once_without_secrets_and_so_is_its_end(self) -> None:
        heard: list[str] = []
        known: dict[str, tuple[str, float]] = {}

        def try_it(job: Callable[[], None]) -> None:
            steward.quietly("announce", job, said=known, guard=Guard(secrets=["hush-hush"]), say=heard.append)

        def fail() -> None:
            raise RuntimeError("postgresql://ann:hunter2@there refuses\nhush-hush")

        for _ in range(3):
            try_it(fail)
        try_it(lambda: None)
        try_it(lambda: None)
        assert len(heard) == 2
        assert "hush" not in heard[0]
        assert "hunter2" not in heard[0]
        assert "\n" not in heard[0]
        assert heard[1] == "announce: works again"

    def test_a_slow_or_failing_job_keeps_no_other_from_being_done(self) -> None:
        stopping = threading.Event()
        done: list[str] = []

        def fail() -> None:
            raise ValueError("always")

        def count() -> None:
            done.append("well")
            if len(done) == 3:
                stopping.set()

        heard: list[str] = []
        known: dict[str, tuple[str, float]] = {}

        def careful(name: str, job: Callable[[], None]) -> None:
            steward.quietly(name, job, said=known, guard=Guard(), say=heard.append)

        steward.loop([("ill", 0.01, fail), ("well", 0.01, count)], stopping, careful)
        assert done == ["well"] * 3
        assert len(heard) == 1

    def test_announcing_is_asked_twice_a_second(self, ctx: Any) -> None:
        paces = {name: every for name, every, _ in steward.jobs([ctx], ["order-desk"])}
        assert paces["announce order-desk"] == 0.5
        assert all(every >= 0.5 for every in paces.values())


def test_a_run_outlives_those_who_read_what_it_says(tmp_path: Path) -> None:
    """Prefect's own console ends the process when its pipe breaks; this one does not."""
    settings = yaml.safe_load(serve.plain_console(tmp_path / "home").read_text("utf-8"))
    out, pipe = os.pipe()
    os.close(out)
    program = (
        "import json, logging.config, sys; logging.config.dictConfig(json.load(sys.stdin));"
        "[logging.getLogger('prefect.flow_runs').error('still here') for _ in range(3)]; print('alive')"
    )
    handlers = {"console": settings["handlers"]["console"]}
    loggers = {"prefect": {"level": "INFO", "handlers": ["console"]}}
    told = {"version": 1, "formatters": settings["formatters"], "handlers": handlers, "loggers": loggers}
    ended = subprocess.run(
        [sys.executable, "-c", program],
        input=json.dumps(told).encode(),
        stdout=subprocess.PIPE,
        stderr=pipe,
        check=False,
    )
    os.close(pipe)
    assert (ended.returncode, ended.stdout) == (0, b"alive\n")


def known(active: bool) -> DeploymentResponse:
    schedule = {"deployment_id": str(uuid4()), "schedule": {"cron": "5 5 * * *"}, "active": active, "slug": "protect"}
    return DeploymentResponse.model_validate(
        {"id": str(uuid4()), "name": "order-desk", "flow_id": str(uuid4()), "schedules": [schedule]}
    )


class TestDeployments:
    def test_the_catalogue_says_when_and_the_operator_whether(self) -> None:
        [new] = deployments.schedules("protect", APP, None)
        assert (new.schedule.cron, new.active, new.slug) == (APP.schedules.protect, True, "protect")  # type: ignore[union-attr]
        [running] = deployments.schedules("protect", APP, known(active=True))
        [paused] = deployments.schedules("protect", APP, known(active=False))
        assert (running.active, paused.active) == (True, False)
        assert paused.schedule.cron == APP.schedules.protect  # type: ignore[union-attr]
        assert deployments.schedules("recover", APP, None) == []

    def test_an_empty_line_in_the_catalogue_switches_a_schedule_off(self) -> None:
        off = APP.model_copy(update={"schedules": APP.schedules.model_copy(update={"drill": ""})})
        assert deployments.schedules("drill", off, None) == []
        assert len(deployments.schedules("drill", APP, None)) == 1

    def test_every_deployment_runs_from_a_module_one_at_a_time_and_is_described(self) -> None:
        for name, flow in deployments.flows().items():
            schema = deployments.form(flow, APP, ["order-desk"], [])
            made = deployments.deployment(name, flow, APP, EXAMPLE, schema=schema, known=None)
            assert made.entrypoint == f"flows.{name}.{name}"
            assert (made.name, made.concurrency_limit) == ("order-desk", 1)
            assert {"reinstate", name, "order-desk"} == set(made.tags)
            assert made.description
            assert made.parameters["app"] == "order-desk"
            assert set(made.parameters) <= set(flow.parameters.properties)

    def test_the_automation_starts_a_recovery_with_what_the_event_says(self) -> None:
        [action] = deployments.automation("order-desk", uuid4()).actions
        parameters = action.parameters  # type: ignore[union-attr]
        assert parameters == {
            "incident": "{{ event.payload.incident }}",
            "policy": "non-conflicting-only",
            "trigger": "event",
        }
        assert set(parameters) <= set(deployments.flows()["recover"].parameters.properties)
