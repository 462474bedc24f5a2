"""The flows load as a worker loads them, are light, retry only what may heal, and say what they do."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
import yaml
from prefect.events import DeploymentEventTrigger
from prefect.flows import Flow, load_flow_from_entrypoint
from prefect.logging import disable_run_logger
from pydantic import TypeAdapter

import recovery.session
from checks.model import Diagnosis
from flows import contain, deployments, protect, recover, resume, watch
from platforms.base import Permanent, Retryable
from recovery.errors import PauseNotProven, Refused, StepFailed, VerificationFailed
from snapshots.errors import Unreachable

ROOT = Path(__file__).parents[2]
PROJECT = yaml.safe_load((ROOT / "prefect.yaml").read_text())
DEPLOYMENTS = {d["entrypoint"].rpartition(".")[2]: d for d in PROJECT["deployments"]}
HEAVY = ("pandas", "great_expectations", "pyarrow", "psycopg", "numpy", "recovery", "checks", "snapshots", "ledger")


@pytest.mark.parametrize("name", sorted(DEPLOYMENTS))
def test_every_deployment_loads_and_takes_its_parameters(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    entrypoint = DEPLOYMENTS[name]["entrypoint"].replace(":", ".")
    found = load_flow_from_entrypoint(entrypoint, use_placeholder_flow=False)
    assert isinstance(found, Flow)
    assert found.name == name
    assert found.description
    given = DEPLOYMENTS[name].get("parameters", {})
    assert set(given) <= set(found.parameters.properties)
    for parameter, schema in found.parameters.properties.items():
        assert schema.get("description"), f"{name}: {parameter} is not described for the operator"


def test_every_flow_is_deployed() -> None:
    assert set(DEPLOYMENTS) == set(deployments.flows()) == set(deployments.NAMES)


def test_triggers_of_deployments_are_valid_and_answer_the_watcher() -> None:
    specs = [dict(t) for d in DEPLOYMENTS.values() for t in d.get("triggers", [])]
    assert specs
    for spec in specs:
        trigger = TypeAdapter(DeploymentEventTrigger).validate_python({"name": "x", **spec})
        assert trigger.expect == {watch.CONTAINED}


@pytest.mark.parametrize("module", ["protect", "recover", "contain", "watch", "resume", "progress"])
def test_flow_modules_are_light(module: str) -> None:
    script = f"import sys, flows.{module}; print([m for m in {HEAVY!r} if m in sys.modules])"
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    assert ended.stdout.strip() == "[]"


class Ended:
    """A task run's end."""

    def __init__(self, error: Exception | None) -> None:
        self.error = error

    def result(self) -> None:
        if self.error is not None:
            raise self.error


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (Retryable("n8n does not answer"), True),
        (Unreachable("no database", retryable=True), True),
        (psycopg.OperationalError("gone"), True),
        (psycopg.errors.LockNotAvailable("held"), True),
        (psycopg.errors.DeadlockDetected("deadlock"), True),
        (Permanent("wrong key"), False),
        (Unreachable("wrong password", retryable=False), False),
        (Refused("a gap"), False),
        (PauseNotProven("still writing"), False),
        (StepFailed("an event failed"), False),
        (VerificationFailed("suites"), False),
        (ValueError("a bug"), False),
        (None, False),
    ],
    ids=repr,
)
def test_only_what_may_heal_is_tried_again(error: Exception | None, again: bool) -> None:
    ended: Any = Ended(error)
    nothing: Any = None
    assert recover.retryable(nothing, nothing, ended) is again


def test_deciding_tasks_keep_no_results_and_a_proof_is_never_retried() -> None:
    tasks: list[Any] = [
        recover.make_plan, recover.run_step, protect.capture, contain.pause, watch.look_out, resume.bring_back,
    ]  # fmt: skip
    assert not [t.name for t in tasks if t.persist_result is not False]
    assert resume.bring_back.retries == 0
    assert recover.make_plan.retries == 0


class Session:
    """Stands for `recovery.session`: notes what the flow asks, in order."""

    def __init__(self, *, approved: bool = True, failing: str | None = None) -> None:
        self.asked: list[str] = []
        self.approved, self.failing = approved, failing
        steps = [SimpleNamespace(id=i, title=i) for i in ("contain", "undo", "close")]
        self.made = SimpleNamespace(hash="h" * 64, rows=3, events=(), steps=steps)

    @contextmanager
    def exclusive(self, *_: Any) -> Iterator[None]:
        self.asked.append("lease")
        yield
        self.asked.append("lease given back")

    def load(self, *_: Any) -> Any:
        return self.made

    def approve(self, *_: Any, **__: Any) -> bool:
        return self.approved

    def started(self, *_: Any, **__: Any) -> None:
        self.asked.append("started")

    def stopped(self, *given: Any) -> None:
        self.asked.append(f"stopped: {given[-1]}")

    def finished(self, *_: Any) -> dict[str, Any]:
        self.asked.append("finished")
        return {"recovery": "R1", "state": "resumed"}


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs the flow's own code over a stand-in session, without a server."""

    def play(session: Session, **parameters: Any) -> Any:
        monkeypatch.setattr(recovery, "session", session)
        monkeypatch.setattr(recover, "make_plan", lambda *_: session.asked.append("plan") or "R1")
        monkeypatch.setattr(recover, "get_run_logger", lambda: SimpleNamespace(info=lambda *_: None))

        def step(catalog: str, app: str, recovery_id: str, step_id: str, title: str) -> dict[str, Any]:
            session.asked.append(step_id)
            if step_id == session.failing:
                raise StepFailed("it broke")
            return {}

        monkeypatch.setattr(recover, "run_step", step)
        return recover.recover.fn("desk", "catalog.yaml", **parameters)

    return play


def test_a_recovery_runs_its_steps_in_order_under_the_lease(played: Any) -> None:
    session = Session()
    assert played(session)["state"] == "resumed"
    assert session.asked == ["lease", "plan", "started", "contain", "undo", "close", "finished", "lease given back"]


def test_a_plan_that_was_shown_is_not_made_again(played: Any) -> None:
    session = Session()
    played(session, recovery="R1")
    assert "plan" not in session.asked


def test_nothing_runs_without_approval(played: Any) -> None:
    session = Session(approved=False)
    assert played(session)["state"] == "waiting for approval"
    assert session.asked == ["lease", "plan", "lease given back"]


def test_a_failed_step_ends_the_recovery_on_record(played: Any) -> None:
    session = Session(failing="undo")
    with pytest.raises(StepFailed):
        played(session)
    assert session.asked == ["lease", "plan", "started", "contain", "undo", "stopped: it broke"]


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def open_app(catalog: Path, app: str) -> Iterator[Any]:
        yield SimpleNamespace(app=SimpleNamespace(key=app))

    monkeypatch.setattr("recovery.context.open_app", open_app)


@pytest.mark.usefixtures("opened")
def test_the_watch_announces_what_it_contained(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Any] = []
    caught = SimpleNamespace(
        incident="INC-1", contained=SimpleNamespace(workflows=("intake",)), diagnosis=object.__new__(Diagnosis)
    )

    def watching(ctx: Any, *, say: Any, stop: Any) -> Iterator[Any]:
        assert not stop()
        yield caught

    monkeypatch.setattr("recovery.watch.watch", watching)
    monkeypatch.setattr(watch, "emit_event", lambda *given, **more: told.append((given, more)))
    with disable_run_logger():
        news = watch.look_out.fn("catalog.yaml", "desk", 60.0)
    assert news == [{"incident": "INC-1", "workflows": ["intake"], "diagnosed": True}]
    [(given, more)] = told
    assert given == (watch.CONTAINED,)
    assert more["resource"] == {"prefect.resource.id": "reinstate.app.desk"}
    assert more["payload"] == news[0]


def test_a_resume_that_is_not_proven_fails_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise VerificationFailed("suites did not pass")

    monkeypatch.setattr("recovery.manual.resume", refuse)
    with disable_run_logger(), pytest.raises(VerificationFailed):
        resume.bring_back.fn("catalog.yaml", "desk", None, "ada", None)
