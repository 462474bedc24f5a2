"""The flow `recover` over the real ledger, requests and approvals; stand-ins for the plan's making and for its steps.

No Prefect server: the flow's own code is run, with a run of a given id."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from prefect.client.schemas.objects import State

import recovery.session
from flows import approval, artifacts, recover, states
from ledger import kinds
from ledger.errors import LeaseLost
from platforms.base import Permanent, Retryable
from recovery import autonomy, requests
from recovery.errors import Refused, Rejected, Relapse, StepFailed, VerificationFailed
from recovery.plan import Plan, Step
from tests.recovery.decided import APP, EXPIRES_S, Desk, desk_in, plan_of

STEPS = ("contain", "publish:intake", "close")


class Suspended(BaseException):
    """Stands for Prefect's signal that ends the process of a suspended run."""


@dataclass
class Stage:
    """The flow's surroundings. ``answers``: by run, what the person filled in; ``pages``: what was published."""

    desk: Desk
    answers: dict[str, approval.Answer] = field(default_factory=dict)
    failing: dict[str, Exception] = field(default_factory=dict)
    done: list[str] = field(default_factory=list)
    pages: list[str] = field(default_factory=list)
    ended_runs: list[tuple[str | None, str]] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    deployed: bool = True
    autonomous: bool = False

    def run(self, me: str, **parameters: Any) -> State[Any]:
        """One process of the run ``me``, to its end or its suspension."""
        self.me = me
        recover.flow_run.id = me  # type: ignore[misc]
        return recover.recover.fn(app=APP, catalog="catalog.yaml", **parameters)  # type: ignore[no-any-return]

    def suspended(self, me: str, **parameters: Any) -> Plan:
        """The same; it must suspend. Returns the plan it shows."""
        with pytest.raises(Suspended):
            self.run(me, **parameters)
        shown = self.desk.ctx.ledger.entries(kinds=[kinds.PLAN_SHOWN])[-1]
        return recovery.session.load_plan(self.desk.ctx, str(shown.recovery))

    def answer(self, me: str, shown: Plan, decision: str, **more: str) -> None:
        given = {"decision": decision, "by": "ada", "reason": "read it", "plan": shown.hash} | more
        self.answers[me] = approval.Answer.model_validate(given)

    def wait(self, _hash: str, text: str, *, expires_s: float) -> approval.Answer:
        assert text == "the plan"
        assert expires_s == EXPIRES_S
        if self.me not in self.answers:
            raise Suspended
        return self.answers[self.me]

    def step(self, _catalog: str, _app: str, _recovery: str, step_id: str, _title: str) -> dict[str, Any]:
        assert recovery.session.HELD
        self.done.append(step_id)
        if step_id in self.failing:
            raise self.failing[step_id]
        return {}

    def kinds(self) -> list[str]:
        return self.desk.kinds()


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    numbers = itertools.count(1)
    with desk_in(tmp_path) as desk:
        made = Stage(desk)
        noted = SimpleNamespace(**dict.fromkeys(("info", "warning", "error"), lambda t, *a: made.said.append(t % a)))

        @contextmanager
        def opened(*_: Any, **__: Any) -> Iterator[Any]:
            yield desk.ctx

        def make(ctx: Any, incident: str, **_: Any) -> Plan:
            steps = tuple(Step(id=s, kind=s.partition(":")[0], title=s) for s in STEPS)  # type: ignore[arg-type]
            return plan_of(incident, "R1", next(numbers)).model_copy(update={"steps": steps})

        desk.ctx.app.objectives = SimpleNamespace(rto_s=60, rpo_s=60)
        monkeypatch.setattr(recovery.session, "open_app", opened)
        monkeypatch.setattr(recovery.session, "make", make)
        for module in (recover, states, artifacts, approval):
            monkeypatch.setattr(module, "get_run_logger", lambda: noted)
        monkeypatch.setattr(recover, "flow_run", SimpleNamespace(id="F1", name="recover kiosk both"))
        monkeypatch.setattr(recover, "make_plan", recover.make_plan.fn)
        monkeypatch.setattr(recover, "run_step", made.step)
        monkeypatch.setattr(recover, "PATIENCE_S", 0.0)
        monkeypatch.setattr(approval, "rename", made.said.append)
        monkeypatch.setattr(approval, "deployed", lambda: made.deployed)
        monkeypatch.setattr(approval, "wait", made.wait)
        monkeypatch.setattr(approval, "end_waiting", lambda run, *, name, **_: made.ended_runs.append((run, name)))
        monkeypatch.setattr(
            artifacts, "plan", lambda *_, publish: (publish and made.pages.append("plan")) or "the plan"
        )
        for page in ("incident", "outcome"):
            monkeypatch.setattr(artifacts, page, lambda *_, page=page: made.pages.append(page))
        monkeypatch.setattr(artifacts, "progress", lambda *_: None)
        decide = autonomy.Decision(approved=False, why="a person must")
        allow = autonomy.Decision(approved=True, why="within the limits")
        monkeypatch.setattr(autonomy, "of", lambda *_: allow if made.autonomous else decide)
        yield made


def test_nothing_runs_before_a_person_says_yes_and_then_it_runs_once(stage: Stage) -> None:
    stage.desk.incident()
    plan = stage.suspended("F1")
    assert "recover kiosk both #1" in stage.said
    assert stage.done == []
    assert kinds.RECOVERY_STARTED not in stage.kinds()
    assert not recovery.session.HELD  # others may work while it waits
    stage.answer("F1", plan, "approve")
    ended = stage.run("F1")
    assert (ended.name, ended.is_completed()) == ("Recovered", True)
    assert stage.done == list(STEPS)
    assert stage.kinds().count(kinds.PLAN_MADE) == 1
    again = stage.run("F1")  # Prefect loses the answer of a run and starts it again
    assert again.name == "Recovered"
    assert stage.done == list(STEPS)


def test_a_no_ends_it_with_the_app_contained_and_says_what_to_do(stage: Stage) -> None:
    stage.desk.incident()
    stage.answer("F1", stage.suspended("F1"), "reject", reason="undo less")
    ended = stage.run("F1")
    assert (ended.name, ended.is_cancelled()) == ("Rejected", True)
    assert "ada rejected" in str(ended.message)
    assert "undo less" in str(ended.message)
    assert "start `recover` for another plan" in str(ended.message)
    assert stage.done == []
    assert stage.run("F1").name == "Rejected"
    assert kinds.RECOVERY_STARTED not in stage.kinds()


def test_a_yes_that_comes_too_late_counts_for_nothing(stage: Stage) -> None:
    stage.desk.incident()
    stage.answer("F1", stage.suspended("F1"), "approve")
    stage.desk.after(EXPIRES_S)
    ended = stage.run("F1")
    assert (ended.name, ended.is_failed()) == ("Expired", True)
    assert "start `recover` again" in str(ended.message)
    assert stage.kinds().count(kinds.PLAN_EXPIRED) == 1
    assert stage.done == []


def test_the_hash_in_the_answer_must_be_that_of_the_plan(stage: Stage) -> None:
    stage.desk.incident()
    stage.answer("F1", stage.suspended("F1"), "approve", plan="0" * 64)
    ended = stage.run("F1")
    assert (ended.name, ended.is_failed()) == ("Refused", True)
    assert "decision is about plan 000000000000" in str(ended.message)
    assert stage.done == []


def test_a_newer_plan_takes_the_place_of_the_one_that_waits(stage: Stage) -> None:
    stage.desk.incident()
    old = stage.suspended("F1")
    new = stage.suspended("F2")
    assert stage.ended_runs == [("F1", "Superseded")]
    stage.answer("F1", old, "approve")
    assert stage.run("F1").name == "Superseded"
    stage.answer("F2", new, "approve")
    assert stage.run("F2").name == "Recovered"


def test_an_event_that_comes_twice_does_nothing_the_second_time(stage: Stage) -> None:
    incident = stage.desk.incident()
    plan = stage.suspended("F1", trigger="event", incident=incident)
    again = stage.run("F2", trigger="event", incident=incident)
    assert (again.name, again.is_completed()) == ("Already handled", True)
    assert "waits for approval" in str(again.message)
    stage.answer("F1", plan, "approve")
    assert stage.run("F1", trigger="event", incident=incident).name == "Recovered"
    assert stage.run("F3", trigger="event", incident=incident).name == "Already handled"
    assert stage.kinds().count(kinds.PLAN_MADE) == 1


def test_who_waited_for_the_lease_looks_again_before_it_plans(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    incident = stage.desk.incident()
    exclusive = recovery.session.exclusive

    @contextmanager
    def slow(*given: Any, **more: Any) -> Iterator[None]:
        stage.desk.after(requests.CLAIM_S + 1)
        stage.desk.ask("F2")
        stage.desk.show(stage.desk.plan(incident), flow_run="F2")
        with exclusive(*given, **more):
            yield

    monkeypatch.setattr(recovery.session, "exclusive", slow)
    assert stage.run("F1", trigger="event").name == "Already handled"
    assert stage.kinds().count(kinds.PLAN_MADE) == 1


def test_what_the_catalogue_allows_approves_itself(stage: Stage) -> None:
    stage.desk.incident()
    stage.autonomous = True
    assert stage.run("F1", trigger="event").name == "Recovered"
    [approved] = stage.desk.ctx.ledger.entries(kinds=[kinds.PLAN_APPROVED])
    assert approved.body["by"] == autonomy.APPROVER
    assert kinds.PLAN_SHOWN not in stage.kinds()


@pytest.mark.parametrize("trigger", ["operator", "command"])
def test_what_a_person_starts_never_approves_itself(stage: Stage, trigger: str) -> None:
    stage.desk.incident()
    stage.autonomous = True
    stage.suspended("F1", trigger=trigger)
    assert kinds.PLAN_APPROVED not in stage.kinds()


def test_once_a_person_was_asked_no_limit_answers_in_their_place(stage: Stage) -> None:
    stage.desk.incident()
    plan = stage.suspended("F1", trigger="event")
    stage.autonomous = True
    stage.answer("F1", plan, "reject")
    assert stage.run("F1", trigger="event").name == "Rejected"
    assert stage.done == []


def test_without_a_deployment_it_waits_on_record_and_is_run_by_name(stage: Stage) -> None:
    stage.desk.incident()
    stage.deployed = False
    ended = stage.run("F1", trigger="command")
    assert (ended.name, ended.data["state"]) == ("Waiting for approval", "waiting for approval")
    plan = recovery.session.load_plan(stage.desk.ctx, ended.data["recovery"])
    stage.desk.approve(plan)
    assert recovery.session.interrupted(stage.desk.ctx, plan.incident_id) == plan.recovery_id
    assert stage.run("F2", trigger="command", recovery=plan.recovery_id).name == "Recovered"


def test_a_decision_by_command_is_found_by_the_run_that_comes_back(stage: Stage) -> None:
    stage.desk.incident()
    stage.desk.approve(stage.suspended("F1"), by="grace")
    assert stage.run("F1").name == "Recovered"
    stage.desk.incident()
    stage.desk.reject(stage.suspended("F2"), by="grace")
    ended = stage.run("F2")
    assert (ended.name, "grace rejected" in str(ended.message)) == ("Rejected", True)


@pytest.mark.parametrize(
    ("error", "name", "said", "heals"),
    [
        (StepFailed("an event failed"), "Stopped safely", "start `recover` with recovery R1-", None),
        (Retryable("n8n does not answer"), "Stopped safely", "goes on by itself", True),
        (Permanent("wrong key"), "Stopped safely", "The app is paused and fenced", None),
        (VerificationFailed("a suite failed"), "Not verified", "Nothing was resumed", None),
        (Relapse("wrong totals again"), "Contained again", "wrong totals again", None),
        (Refused("a gap"), "Stopped safely", "what is done is kept", None),
        (ValueError("a bug"), "Stopped safely", "a bug", None),
    ],
    ids=repr,
)
def test_what_stops_it_half_way_is_on_record_and_in_the_state(
    stage: Stage, error: Exception, name: str, said: str, heals: bool | None
) -> None:
    stage.desk.incident()
    stage.desk.approve(stage.suspended("F1"))
    stage.failing["publish:intake"] = error
    ended = stage.run("F1")
    assert (ended.name, ended.is_failed(), ended.data) == (name, True, error)
    assert said in str(ended.message)
    assert "Nothing was changed" not in str(ended.message)
    [stopped] = stage.desk.ctx.ledger.entries(kinds=[kinds.RECOVERY_STOPPED])
    assert stopped.body.get("heals") is heals
    assert stage.pages[-1] == "outcome"
    stage.failing.clear()
    assert stage.run("F1").name == "Recovered"


def test_who_lost_the_lease_says_nothing_about_the_recovery_of_the_other(stage: Stage) -> None:
    stage.desk.incident()
    stage.desk.approve(stage.suspended("F1"))
    stage.failing["contain"] = LeaseLost("somebody else goes on")
    assert stage.run("F1").name == "Held by another recovery"
    assert kinds.RECOVERY_STOPPED not in stage.kinds()


def test_another_recovery_at_work_is_named(stage: Stage) -> None:
    stage.desk.incident()
    with stage.desk.ctx.ledger.lease(APP, "somebody", 30):
        ended = stage.run("F1")
    assert (ended.name, "somebody" in str(ended.message)) == ("Held by another recovery", True)


def test_nothing_to_recover_is_no_bug(stage: Stage) -> None:
    ended = stage.run("F1")
    assert (ended.name, ended.is_failed()) == ("Nothing to recover", True)
    assert "no open incident" in str(ended.message)


def test_a_bug_before_anything_began_shows_where_it_came_from(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    stage.desk.incident()

    def bug(*_: Any, **__: Any) -> None:
        raise KeyError("oops")

    monkeypatch.setattr(recovery.session, "make", bug)
    with pytest.raises(KeyError):
        stage.run("F1")


def test_a_recovery_that_was_given_up_meanwhile_does_not_run(stage: Stage) -> None:
    stage.desk.incident()
    plan = stage.suspended("F1")
    stage.desk.approve(plan)
    stage.desk.tell(kinds.RECOVERY_ABANDONED, plan.incident_id, plan.recovery_id, reason="relapse", by="reinstate")
    ended = stage.run("F1")
    assert (ended.name, "given up" in str(ended.message)) == ("Superseded", True)
    assert stage.done == []


def test_a_cancelled_run_is_not_continued_behind_the_persons_back(stage: Stage) -> None:
    stage.desk.incident()
    plan = stage.suspended("F1")
    stage.desk.approve(plan)
    stage.desk.tell(kinds.RECOVERY_STARTED, plan.incident_id, plan.recovery_id, flow_run="F1", plan_hash=plan.hash)
    run: Any = SimpleNamespace(id="F1", parameters={"app": APP, "catalog": "catalog.yaml"})
    recover.leave(recover.recover, run, State(type="CANCELLED"))  # type: ignore[arg-type]
    assert stage.kinds()[-1] == kinds.RECOVERY_STOPPED
    other: Any = SimpleNamespace(id="F9", parameters=run.parameters)
    recover.leave(recover.recover, other, State(type="CANCELLED"))  # type: ignore[arg-type]
    assert stage.kinds().count(kinds.RECOVERY_STOPPED) == 1


def test_a_page_that_cannot_be_published_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    warned: list[str] = []
    monkeypatch.setattr(
        artifacts, "get_run_logger", lambda: SimpleNamespace(warning=lambda t, *a: warned.append(t % a))
    )

    def gone(*_: Any, **__: Any) -> None:
        raise OSError("no server\nsecond line")

    monkeypatch.setattr(artifacts, "create_markdown_artifact", gone)
    monkeypatch.setattr(artifacts, "create_progress_artifact", gone)
    artifacts.markdown("kiosk-plan", "text", "description")
    assert artifacts.progress("kiosk", plan_of("INC-1", "R1", 1)) is None
    assert warned == [
        "kiosk-plan could not be published: no server",
        "the progress could not be published: no server",
    ]


def test_the_form_takes_no_other_plan_and_no_decision_by_accident() -> None:
    schema = approval.form("f" * 64, "the plan").model_json_schema()
    assert schema["properties"]["plan"]["enum"] == ["f" * 64]
    assert schema["properties"]["decision"]["enum"] == ["approve", "reject"]
    assert set(schema["required"]) == {"decision", "by"}
    assert list(schema["properties"]) == ["decision", "by", "reason", "plan"]
    assert all(p.get("description") and p.get("title") for p in schema["properties"].values())


def test_each_named_error_is_one() -> None:
    import importlib

    for name in states.NAMES:
        module, _, cls = name.rpartition(".")
        assert issubclass(getattr(importlib.import_module(module), cls), Exception)
    assert states.named(Rejected("no")) == ("Rejected", "")
