"""The flows load as a worker loads them, are light, retry only what may heal, and say what they do."""

from __future__ import annotations

import importlib
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

from checks.model import Diagnosis
from flows import contain, deployments, protect, recover, resume, watch
from platforms.base import Permanent, Retryable
from recovery.errors import PauseNotProven, Refused, StepFailed, VerificationFailed
from snapshots.errors import Unreachable

ROOT = Path(__file__).parents[2]
PROJECT = yaml.safe_load((ROOT / "prefect.yaml").read_text())
DEPLOYMENTS = {d["entrypoint"]: d for d in PROJECT["deployments"]}
HEAVY = ("pandas", "great_expectations", "pyarrow", "psycopg", "numpy", "recovery", "checks", "snapshots", "ledger")
FLOWS = ("protect", "recover", "contain", "watch", "resume", "maintain")
MODULES = (*FLOWS, "approval", "artifacts", "forms", "progress", "states")


@pytest.mark.parametrize("entrypoint", sorted(DEPLOYMENTS))
def test_every_deployment_loads_and_takes_its_parameters(entrypoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    found = load_flow_from_entrypoint(entrypoint.replace(":", "."), use_placeholder_flow=False)
    assert isinstance(found, Flow)
    assert found.name == entrypoint.rpartition(".")[2]
    assert found.description
    given = DEPLOYMENTS[entrypoint].get("parameters", {})
    assert set(given) <= set(found.parameters.properties)
    for parameter, schema in found.parameters.properties.items():
        assert schema.get("description"), f"{entrypoint}: {parameter} is not described for the operator"


def test_every_flow_is_deployed() -> None:
    names = [f.stem for f in (ROOT / "flows").glob("*.py")]
    modules = {n: importlib.import_module(f"flows.{n}") for n in names}
    found = {f"flows.{n}.{n}" for n, m in modules.items() if isinstance(getattr(m, n, None), Flow)}
    assert found == set(DEPLOYMENTS)
    assert set(deployments.flows()) == set(deployments.NAMES) == {f.rpartition(".")[2] for f in found}


def test_triggers_of_deployments_are_valid_and_answer_the_watcher() -> None:
    specs = [dict(t) for d in DEPLOYMENTS.values() for t in d.get("triggers", [])]
    assert specs
    for spec in specs:
        trigger = TypeAdapter(DeploymentEventTrigger).validate_python({"name": "x", **spec})
        assert trigger.expect == {watch.CONTAINED}


def test_flow_modules_are_light() -> None:
    modules = ", ".join(f"flows.{m}" for m in MODULES)
    script = f"import sys, {modules}; print([m for m in {HEAVY!r} if m in sys.modules])"
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


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def open_app(catalog: Path, app: str) -> Iterator[Any]:
        yield SimpleNamespace(app=SimpleNamespace(key=app))

    monkeypatch.setattr("recovery.context.open_app", open_app)


@pytest.mark.usefixtures("opened")
def test_the_watch_announces_what_it_contained(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Any] = []
    contained = SimpleNamespace(workflows=("intake",))
    caught = SimpleNamespace(incident="INC-1", contained=contained, diagnosis=object.__new__(Diagnosis))
    news = SimpleNamespace(incident="INC-1", event=watch.CONTAINED, payload={"incident": "INC-1"})

    def watching(ctx: Any, *, say: Any, stop: Any) -> Iterator[Any]:
        assert not stop()
        yield caught

    def emit(*given: Any, **more: Any) -> Any:
        told.append((given, more))
        return SimpleNamespace(id="E1")

    monkeypatch.setattr("recovery.watch.watch", watching)
    monkeypatch.setattr("recovery.keeping.unannounced", lambda _: [news])
    monkeypatch.setattr("recovery.keeping.announced", lambda _, incident, event: told.append((incident, event)))
    monkeypatch.setattr(watch, "emit_event", emit)
    with disable_run_logger():
        found = watch.look_out.fn("catalog.yaml", "desk", 60.0)
    assert found == [{"incident": "INC-1", "workflows": ["intake"], "diagnosed": True}]
    resource = {"prefect.resource.id": "reinstate.app.desk"}
    assert told == [
        ((watch.CONTAINED,), {"resource": resource, "payload": {"incident": "INC-1"}}),
        ("INC-1", "E1"),
    ]


def test_a_resume_that_is_not_proven_fails_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise VerificationFailed("suites did not pass")

    monkeypatch.setattr("recovery.manual.resume", refuse)
    with disable_run_logger(), pytest.raises(VerificationFailed):
        resume.bring_back.fn("catalog.yaml", "desk", None, "ada", None)
