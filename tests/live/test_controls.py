"""Controls that must go red: each leaves one part of a recovery out, and the scorecard of a drill must say so.

A test of the product that cannot fail proves nothing; these are the failures it must be able to show.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import psycopg
import pytest
from psycopg import sql

from checks import suites
from checks.model import SuiteReport
from drills.scoring import score
from platforms.faulty import Fault, FaultKind
from recovery import containment, execute, manual, session
from recovery.errors import PauseNotProven, Relapse, VerificationFailed
from recovery.plan import Event, Plan, RunSelection
from snapshots.points import points
from snapshots.restore import restore
from snapshots.undo import merge
from snapshots.undo.errors import UndoRefused
from tests.live.wreck import APP, CONTAINED, Injector, Wreck

pytestmark = [pytest.mark.live, pytest.mark.controls]


def without(*kinds: str) -> Any:
    """An edit of the plan that drops steps of these kinds."""
    return lambda plan: plan.model_copy(update={"steps": tuple(s for s in plan.steps if s.kind not in kinds)})


def unresumed(plan: Plan) -> Plan:
    """Stop before anybody resumes: the judge looks at the data."""
    return without("verify", "canary", "resume", "watch", "close")(plan)


UNRESUMED = {"not-recovered", "unverified", "version", "active"}
"""What is said of every recovery that stopped before it resumed, whatever its data are like."""


def red(wreck: Wreck, *codes: str, error: BaseException | None = None) -> None:
    """The scorecard is red, and these are among its reasons."""
    card = wreck.card(error)
    assert not card.passed
    assert set(codes) <= set(card.red), card.reasons


def test_the_whole_recovery_is_green(wreck: Wreck) -> None:
    plan = wreck.plan()
    assert wreck.execute(plan)["state"] == "resumed"
    seen = wreck.observed()
    card = score(seen)
    assert (card.passed, card.reasons) == (True, ())
    assert (card.wrong_fields_after, card.precision, card.recall, card.replay_success) == (0, 1.0, 1.0, 1.0)
    # The very same drill, had the product acted upon the negative control, or had there been none.
    # A run that the false alarm cut in half may have left something half done.
    assert set(score(replace(seen, control=wreck.alarmed)).red) - {"control-harm"} == {"control-acted"}
    assert score(replace(seen, control=None)).red == ("control-missing",)


def test_no_recovery_is_red(made: Wreck) -> None:
    assert made.verdict["rows_damaged"] >= 600
    assert made.verdict["legit_edits_on_damaged_rows"] >= 50
    assert made.verdict["overlapping_run_pairs"] >= 20
    assert made.unrecovered is not None
    assert {"not-recovered", "fields-wrong", "recall"} <= set(made.unrecovered.red)
    assert (made.unrecovered.recall or 0) < 0.1  # staff may set the right value without knowing


def test_restoring_a_whole_point_loses_legitimate_work(wreck: Wreck) -> None:
    with wreck.opened() as ctx, ctx.connect("recoverer", "control") as connection:
        point = points.load(ctx.store, APP, wreck.point)
        caps = restore.Caps(max_deleted_rows=10**6, max_deleted_share=1.0, max_changed_rows=10**6)
        restore.apply(
            connection, point, ctx.store, ctx.tables, recovery_id="C", step="restore", plan_hash="0", caps=caps
        )
    red(wreck, "fields-wrong", "precision")


def test_undo_without_column_merge_is_red(wreck: Wreck, monkeypatch: pytest.MonkeyPatch) -> None:
    fold = merge.fold

    def images_only(conn: psycopg.Connection[Any], shape: Any, policy: Any) -> None:
        conn.execute(sql.SQL("UPDATE {} SET rj_edit = NULL, rj_reset = NULL").format(shape.temp("row")))
        fold(conn, shape, policy)

    monkeypatch.setattr("snapshots.undo.merge.fold", images_only)
    wreck.execute_steps(wreck.plan(unresumed))
    red(wreck, "fields-wrong", "recall")


def test_one_table_skipped_is_red(wreck: Wreck) -> None:
    def skip(plan: Plan) -> Plan:
        return unresumed(plan).model_copy(update={"tables": tuple(t for t in plan.tables if t != "desk.products")})

    with pytest.raises(UndoRefused, match=r"desk\.products") as refused:
        wreck.execute_steps(wreck.plan(skip))
    red(wreck, "stage", "recall", "fields-wrong", error=refused.value)


def test_one_bad_run_missed_is_red(wreck: Wreck) -> None:
    def miss(plan: Plan) -> Plan:
        one = next(s for s in plan.selection if s.why == "bad-version" and s.xids)
        kept = tuple(s for s in plan.selection if s != one)
        events = tuple(e for e in plan.events if e.run_id != one.run_id)
        return unresumed(plan).model_copy(update={"selection": kept, "events": events})

    plan = wreck.plan(miss)
    try:
        wreck.execute_steps(plan)
    except Exception as error:  # noqa: BLE001 - the product may notice by itself; either way it is red
        red(wreck, "stage", "recall", error=error)
        return
    red(wreck, "fields-wrong", "recall")


def test_one_good_run_undone_is_red(wreck: Wreck) -> None:
    def overdo(plan: Plan) -> Plan:
        selected = {s.run_id for s in plan.selection}
        with wreck.opened() as ctx, ctx.connect("capturer", "control") as connection:
            row = connection.execute(
                "SELECT rj_run, rj_xid::text::bigint FROM reinstate.j_desk__payments "
                "WHERE rj_actor = 'wf_payment' AND rj_run <> ALL (%s) ORDER BY rj_seq LIMIT 1",
                (sorted(str(x) for x in selected),),
            ).fetchone()
        assert row
        good = RunSelection(
            workflow="payment", role="wf_payment", run_id=row[0], xids=(row[1],), why="entangled", attribution="exact"
        )
        return unresumed(plan).model_copy(update={"selection": (*plan.selection, good)})

    wreck.execute_steps(wreck.plan(overdo))
    red(wreck, "fields-wrong", "precision")


def test_replaying_twice_is_red(wreck: Wreck, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = wreck.plan(unresumed)
    wreck.execute_steps(plan)
    assert set(wreck.card().red) == UNRESUMED
    from recovery.steps import replay

    def renamed(plan: Plan, event: Event) -> str:
        return f"again:{plan.incident_id}:{event.workflow}:{event.key}"

    monkeypatch.setattr(replay, "event_key", renamed)
    orders = plan.model_copy(update={"events": tuple(e for e in plan.events if e.workflow == "order-intake")})
    with wreck.opened() as ctx:
        replay.act(ctx, orders, next(s for s in plan.steps if s.kind == "replay"), lambda _: None)
    red(wreck, "fields-wrong", "recall")


def test_never_replaying_is_red(wreck: Wreck) -> None:
    wreck.execute_steps(wreck.plan(lambda p: without("replay", "carry")(unresumed(p))))
    red(wreck, "fields-wrong", "replay")


def test_a_publish_that_stays_a_draft_is_noticed_and_contained_again(
    wreck: Wreck, monkeypatch: pytest.MonkeyPatch, faulty: Injector
) -> None:
    platform = faulty(Fault(kind=FaultKind.DRAFT_ONLY_PUBLISH, times=None))
    monkeypatch.setattr("recovery.publishing.LIVE_S", 2.0)
    with wreck.opened() as ctx:
        intake = ctx.infos()["order-intake"].id
        ctx.platform.activate(intake)  # the bad version was live before the containment
        platform().deactivate(intake)
    plan = wreck.plan()
    with pytest.raises(Relapse, match="order-intake runs version") as relapse:
        wreck.execute(plan)
    monkeypatch.undo()
    red(wreck, "stage", "not-recovered", "version", error=relapse.value)
    with wreck.opened() as ctx:
        assert not any(i.active for i in ctx.infos().values() if i.name in CONTAINED)


@pytest.mark.parametrize("kind", [FaultKind.LYING_PAUSE, FaultKind.LYING_PAUSE_AND_ENTRY])
def test_a_pause_that_lies_is_not_proven(wreck: Wreck, faulty: Injector, kind: FaultKind) -> None:
    wreck.execute(wreck.plan())
    faulty(Fault(kind=kind, times=None))
    with wreck.opened() as ctx, wreck.traffic():
        quick = ctx.app.model_copy(update={"containment": ctx.app.containment.model_copy(update={"timeout_s": 4.0})})
        object.__setattr__(ctx, "app", quick)
        incident = manual.open_incident(ctx, ["order-intake"], "control")
        with pytest.raises(PauseNotProven) as unproven:
            containment.contain(ctx, ["order-intake"], incident=incident)
    card = wreck.card(unproven.value, incident=incident, judged=False)
    assert {"stage", "not-contained"} <= set(card.red), card.reasons


def test_suites_that_did_not_run_stop_the_resume(wreck: Wreck, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = wreck.plan()

    def nothing(*_: Any, **__: Any) -> SuiteReport:
        return SuiteReport(passed=True, ran=0, failed=(), seconds=0.0, snapshot=None)

    monkeypatch.setattr(suites, "run", nothing)
    with pytest.raises(VerificationFailed) as unproven:
        wreck.execute(plan)
    red(wreck, "stage", "unverified", "not-recovered", error=unproven.value)
    with wreck.opened() as ctx:
        assert not any(i.active for i in ctx.infos().values() if i.name in CONTAINED)


def test_a_changed_plan_is_not_covered_by_the_approval(wreck: Wreck) -> None:
    plan = wreck.plan()
    with wreck.opened() as ctx:
        given = session.approval(ctx, plan)
        assert given
        changed = plan.model_copy(update={"suspects": plan.suspects + 1})
        with pytest.raises(Exception, match="approve it again") as refused:
            execute.run_step(ctx, changed, changed.steps[0], given, lambda _: None)
    card = wreck.card(refused.value, judged=False)
    assert {"stage", "not-recovered"} <= set(card.red), card.reasons
