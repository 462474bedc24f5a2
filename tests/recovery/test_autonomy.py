"""Whose plan approves itself: what is outside the catalogue's limits waits for a person, with the reason in words."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalog.models import App
from ledger import Ledger, kinds
from recovery import autonomy
from recovery.autonomy import Decision, decide
from recovery.context import AppContext
from recovery.plan import PERSON, Compensation, Event, Mode, Plan, Publication, RunSelection, TableEffect
from tests.recovery.kiosk import app_model
from tests.recovery.test_keeping import Desk

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
FREE: dict[str, Any] = {"recover": True, "max_rows": 100, "most_critical": "normal", "cooldown_s": 600}


def plan(**changes: Any) -> Plan:
    selection = (selected("1"), selected("2"))
    values: dict[str, Any] = {
        "recovery_id": "R1-INC-1",
        "incident_id": "INC-1",
        "app": "kiosk",
        "mode": Mode.BOTH,
        "policy": "refuse",
        "made_at": NOW.isoformat(),
        "point_id": "p1",
        "publications": (
            Publication(workflow="intake", platform_id="1", from_version="b", to_version="g", source="point"),
        ),
        "selection": selection,
        "carried_xids": (),
        "tables": ("kiosk.orders",),
        "effects": (TableEffect(table="kiosk.orders", delete=2, update=3, insert=0, merged=0),),
        "conflicts": {},
        "suspects": 0,
        "events": (Event(workflow="intake", key="1", run_id="1", order=1),),
        "contained": ("intake", "payment"),
        "active_before": ("intake", "payment"),
        "steps": (),
    }
    return Plan.model_validate({**values, **changes})


def selected(run: str, attribution: str = "exact", *, xids: tuple[int, ...] = (7,)) -> RunSelection:
    return RunSelection(
        workflow="intake", role="wf_intake", run_id=run, xids=xids, why="bad-version", attribution=attribution
    )


def taken_back(action: str = "do") -> Compensation:
    return Compensation.model_validate(
        {
            "workflow": "intake",
            "run_id": "1",
            "step": "charge",
            "inverse": "compensable",
            "action": action,
            "key": "k",
            "kind": "http",
        }
    )


def test_a_plan_with_compensations_approves_itself_only_where_the_catalogue_says_so() -> None:
    assert judged(plan(compensations=(taken_back(),)), app(compensate=True)).approved
    assert judged(plan(compensations=(taken_back("settled"),))).approved


def app(**autonomy: Any) -> App:
    return app_model(autonomy={**FREE, **autonomy})


def judged(made: Plan, catalogue: App | None = None, **more: Any) -> Decision:
    given_: dict[str, Any] = {"trigger": "event", "last_automatic": None, "now": NOW, **more}
    return decide(catalogue or app(), made, **given_)


def test_a_plan_within_every_limit_approves_itself() -> None:
    found = judged(plan())
    assert found.approved
    assert "5 of at most 100 rows" in found.why
    assert judged(plan(), trigger="steward").approved


@pytest.mark.parametrize("trigger", ["operator", "command", "", "anything"])
def test_what_a_person_started_a_person_approves(trigger: str) -> None:
    found = judged(plan(), trigger=trigger)
    assert not found.approved
    assert "a person approves" in found.why


@pytest.mark.parametrize(
    ("made", "catalogue", "more", "why"),
    [
        (plan(), app(recover=False), {}, "recover: true"),
        (plan(), app(max_rows=4), {}, "changes 5 rows, the limit is 4"),
        (plan(conflicts={"row-gone": 2}), app(), {}, r"2 conflicting rows \(row-gone\)"),
        (plan(conflicts={"key-taken": 1}, policy="keep-later"), app(), {}, "key-taken"),
        (plan(suspects=3), app(), {}, "3 later transactions"),
        (plan(), app(most_critical="low"), {}, "app kiosk is of tier normal.*workflow intake is of tier normal"),
        (plan(contained=("intake", "gone")), app(), {}, "no longer holds gone"),
        (plan(selection=(selected("1", "ambiguous"),)), app(), {}, r"1 undone runs are not surely .*\(ambiguous\)"),
        (plan(selection=(selected("1", "none"),)), app(), {}, "none"),
        (plan(compensations=(taken_back(),)), app(), {}, "performs 1 compensations outside the rows"),
        (plan(), app(), {"unattributed": 2}, "2 writes of the blamed workflow"),
        (plan(notes=(f"run 9 of intake has no event key; {PERSON} at its input",)), app(), {}, "run 9 of intake"),
        (plan(), app(), {"last_automatic": NOW - timedelta(seconds=599)}, "less than 600 s ago"),
        (plan(made_at=(NOW - timedelta(hours=2)).isoformat()), app(), {}, "older than 3600 s"),
    ],
)
def test_each_limit_alone_makes_it_wait(made: Plan, catalogue: App, more: dict[str, Any], why: str) -> None:
    found = judged(made, catalogue, **more)
    assert not found.approved
    with pytest.raises(AssertionError, match=f"(?s){why}"):
        raise AssertionError(found.why)


@pytest.mark.parametrize(
    ("made", "catalogue", "more"),
    [
        (plan(conflicts={"later-same-column": 4}, suspects=9, policy="keep-later"), app(), {}),
        (plan(conflicts={"key-taken": 0}), app(), {}),
        (plan(selection=(selected("1", "none", xids=()), selected("2", "unique"))), app(), {}),
        (plan(notes=("2 events were handled by a good run as well; they are not replayed",)), app(), {}),
        (plan(), app(max_rows=5), {}),
        (plan(), app(), {"last_automatic": NOW - timedelta(seconds=600)}),
    ],
)
def test_what_is_no_reason_to_wait(made: Plan, catalogue: App, more: dict[str, Any]) -> None:
    assert judged(made, catalogue, **more).approved


def test_every_reason_is_named_at_once() -> None:
    found = judged(plan(suspects=3, conflicts={"row-gone": 2}), app(recover=False, max_rows=1), unattributed=1)
    assert found.why.count(";") == 4


@settings(deadline=None)
@given(
    rows=st.integers(0, 200), conflicts=st.integers(0, 3), suspects=st.integers(0, 3),
    policy=st.sampled_from(["refuse", "keep-later"]), limit=st.sampled_from(["critical", "high", "normal", "low"]),
    recover=st.booleans(), ago=st.integers(0, 1200),
)  # fmt: skip
def test_it_never_approves_outside_a_limit(
    *, rows: int, conflicts: int, suspects: int, policy: str, limit: str, recover: bool, ago: int
) -> None:
    made = plan(
        effects=(TableEffect(table="t", delete=rows, update=0, insert=0, merged=0),),
        conflicts={"later-same-column": conflicts}, suspects=suspects, policy=policy,
    )  # fmt: skip
    last = NOW - timedelta(seconds=ago)
    found = judged(made, app(most_critical=limit, recover=recover), last_automatic=last)
    open_questions = policy == "refuse" and bool(conflicts or suspects)
    assert found.approved == (recover and rows <= 100 and not open_questions and limit != "low" and ago >= 600)


@pytest.fixture
def ctx(tmp_path: Path) -> Iterator[AppContext]:
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        yield cast(AppContext, Desk(app(), ledger))


def note(ctx: AppContext, kind: str, **body: Any) -> None:
    ctx.ledger.append(kind, app="kiosk", incident="INC-1", recovery="R1-INC-1", body=body)


def now_plan() -> Plan:
    return plan(made_at=datetime.now(UTC).isoformat())


def test_the_steward_may_only_what_what_it_goes_on_with_may(ctx: AppContext) -> None:
    made = now_plan()
    assert not autonomy.of(ctx, made, "steward").approved  # nothing says that it was automatic
    note(ctx, kinds.RECOVERY_REQUESTED, trigger="event")
    note(ctx, kinds.RECOVERY_REQUESTED, trigger="steward")
    assert autonomy.of(ctx, made, "steward").approved
    note(ctx, kinds.RECOVERY_REQUESTED, trigger="operator")
    note(ctx, kinds.RECOVERY_REQUESTED, trigger="steward")
    assert not autonomy.of(ctx, made, "steward").approved
    assert autonomy.of(ctx, made, "event").approved


def test_the_cooldown_counts_from_the_last_approval_without_a_person(ctx: AppContext) -> None:
    made = now_plan()
    note(ctx, kinds.PLAN_APPROVED, plan_hash="other", by="ann")
    note(ctx, kinds.PLAN_APPROVED, plan_hash=made.hash, by=autonomy.APPROVER)
    assert autonomy.of(ctx, made, "event").approved
    note(ctx, kinds.PLAN_APPROVED, plan_hash="other", by=autonomy.APPROVER)
    assert not autonomy.of(ctx, made, "event").approved
    assert autonomy.of(ctx, made, "event", now=datetime.now(UTC) + timedelta(seconds=601)).approved


def test_unexplained_writes_of_the_blamed_workflow_count_and_others_do_not(ctx: AppContext) -> None:
    note(ctx, kinds.INCIDENT_DIAGNOSED, unattributed=[{"actor": "wf_kiosk_payment"}])
    assert autonomy.of(ctx, now_plan(), "event").approved
    note(ctx, kinds.INCIDENT_DIAGNOSED, unattributed=[{"actor": "wf_intake"}, {"actor": "wf_kiosk_payment"}])
    found = autonomy.of(ctx, now_plan(), "event")
    assert not found.approved
    assert "1 writes" in found.why
