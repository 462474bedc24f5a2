"""What a plan selects, joins, carries and replays, and what it refuses before anything is touched."""

from __future__ import annotations

import threading
from typing import Any

import psycopg
import pytest

from ledger.errors import LeaseHeld, LeaseLost
from platforms.fake import Suspend
from recovery import planning, session
from recovery.diagnosed import latest
from recovery.errors import NothingToRecover, Refused, StepFailed
from recovery.plan import Mode, Plan
from recovery.retry import is_retryable
from snapshots.errors import Unreachable
from snapshots.model import Policy
from snapshots.undo import undo
from snapshots.undo.errors import Drift
from tests.recovery.kiosk import Kiosk, app_model, expected, order

pytestmark = pytest.mark.postgres


def dry(kiosk: Kiosk, incident: str, **how: Any) -> Plan:
    return session.make(kiosk.open(), incident, **{"mode": "both", "policy": "refuse", "point": None, **how})


def test_bad_runs_are_undone_entangled_ones_joined_edits_of_people_carried(kiosk: Kiosk, wrecked: str) -> None:
    plan = dry(kiosk, wrecked)
    why = sorted((s.workflow, s.why) for s in plan.selection)
    assert why == [("intake", "bad-version")] * 3 + [("payment", "entangled")]
    assert len(plan.carried_xids) == 1, "the note on an order that the bad version made"
    assert [(e.workflow, e.key) for e in plan.events] == [("intake", "2"), ("intake", "3"), ("payment", "p2")]
    merged = {e.table: e.merged for e in plan.effects}
    assert merged == {"kiosk.orders": 1, "kiosk.stock": 1, "kiosk.payments": 0}
    assert (plan.active_before, plan.contained) == (("intake", "payment"), ("intake", "payment"))


def test_a_dry_run_changes_nothing_and_finds_the_same_again(kiosk: Kiosk, wrecked: str) -> None:
    rows, entries = kiosk.rows(), len(kiosk.open().ledger.entries())
    first, second = dry(kiosk, wrecked), dry(kiosk, wrecked)
    assert (kiosk.rows(), len(kiosk.open().ledger.entries())) == (rows, entries)
    assert first.model_copy(update={"made_at": ""}).hash == second.model_copy(update={"made_at": ""}).hash


def test_a_recorded_plan_is_the_one_that_was_made(kiosk: Kiosk, planned: Plan) -> None:
    assert session.load(kiosk.home, "kiosk", planned.recovery_id).hash == planned.hash


def test_an_untagged_write_that_depends_on_the_damage_and_fits_two_runs_is_refused(kiosk: Kiosk) -> None:
    kiosk.protect()
    kiosk.publish("intake", "bad")
    kiosk.call("intake", order("1"))
    together = threading.Barrier(2)
    real = kiosk.payment

    def overlapping(content: Any, event: Any, run: str) -> Any:
        together.wait(5)
        kiosk.tagged = False
        result = real(content, event, run) if event["body"]["event"] == "p1" else {}
        together.wait(5)
        return result

    kiosk.fake._runs.handlers["Payment"] = overlapping
    for event in ("p1", "p2"):
        kiosk.fake.start(kiosk.ids["payment"], {"body": {"event": event, "order": "o-1"}, "headers": {}})
    kiosk.fake.close()
    incident = kiosk.caught()
    with pytest.raises(Refused, match="its run is not known surely"):
        dry(kiosk, incident)


def test_a_gap_in_the_journal_is_refused_with_what_a_diff_would_lose(kiosk: Kiosk, wrecked: str) -> None:
    for verb in ("DISABLE", "ENABLE ALWAYS"):
        with psycopg.connect(kiosk.db.installer) as db:
            names = db.execute(
                "SELECT tgname FROM pg_trigger t JOIN pg_proc p ON p.oid = tgfoid "
                "WHERE tgrelid = 'kiosk.stock'::regclass AND p.pronamespace = 'reinstate'::regnamespace"
            ).fetchall()
            for (name,) in names:
                db.execute(f'ALTER TABLE kiosk.stock {verb} TRIGGER "{name}"'.encode())
        if verb == "DISABLE":
            kiosk.clerk("UPDATE kiosk.stock SET level = level - 7")
    with pytest.raises(Refused, match=r"A diff against point .* is possible, but needs approval"):
        dry(kiosk, wrecked)


def test_an_undeclared_trigger_is_refused_on_any_table(kiosk: Kiosk, wrecked: str) -> None:
    with psycopg.connect(kiosk.db.installer) as db:
        db.execute(
            "CREATE TRIGGER surprise BEFORE UPDATE ON kiosk.payments "
            "FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()"
        )
    with pytest.raises(Refused, match=r"kiosk\.payments: triggers surprise are not declared"):
        dry(kiosk, wrecked)
    assert dry(kiosk, wrecked, mode="logic").steps, "definitions alone touch no rows"


def test_a_cap_is_refused_and_nothing_is_changed(kiosk: Kiosk, wrecked: str) -> None:
    kiosk.configure(caps={"max_deleted_rows": 1})
    with pytest.raises(Refused, match="the cap is 1"):
        dry(kiosk, wrecked)
    with pytest.raises(Refused, match="the cap is 1"):
        kiosk.plan(wrecked)
    with kiosk.opened() as ctx:
        (told,) = ctx.ledger.entries(incident=wrecked, kinds=["plan.refused"])
    assert "the cap is 1" in told.body["reason"], "whoever is not looking must be told"


def test_a_pause_that_is_not_proven_is_no_ground_for_a_plan(kiosk: Kiosk, wrecked: str) -> None:
    ctx = kiosk.open()
    ctx.ledger.append("contain.failed", app="kiosk", incident=wrecked, body={"workflows": [], "reason": "x"})
    with pytest.raises(Refused, match="its pause is not proven"):
        dry(kiosk, wrecked)
    diagnosis = latest(ctx, wrecked)
    with pytest.raises(NothingToRecover, match="nothing is contained"):
        planning.make_plan(ctx, "INC-other", diagnosis, mode=Mode.BOTH, policy=Policy.REFUSE)


def wake(kiosk: Kiosk, name: str) -> str:
    """A run of the workflow is in flight, as a platform may start one behind our back."""

    def sleep(*_: Any) -> Any:
        raise Suspend(dict)

    real = kiosk.fake._runs.handlers[name]
    kiosk.fake._runs.handlers[name] = sleep
    kiosk.fake._workflows[kiosk.ids[name.lower()]].routes.append((0.0, kiosk.fake.draft_version(
        kiosk.ids[name.lower()]).platform_version))  # fmt: skip
    run = kiosk.call(name.lower(), order("9", order="o-1"))
    kiosk.fake._workflows[kiosk.ids[name.lower()]].routes.append((0.0, None))
    kiosk.fake._runs.handlers[name] = real
    return run.id


def test_a_run_in_flight_while_planning_is_refused(kiosk: Kiosk, wrecked: str) -> None:
    run = wake(kiosk, "Payment")
    with pytest.raises(Refused, match=f"run {run} of a paused workflow is waiting"):
        dry(kiosk, wrecked)


def test_a_run_in_flight_after_planning_stops_the_recovery_which_can_be_planned_again(
    kiosk: Kiosk, planned: Plan
) -> None:
    wake(kiosk, "Payment")
    with pytest.raises(StepFailed, match="was in flight"):
        kiosk.run(planned)
    assert kiosk.recover(planned.incident_id)["recovery"].startswith("R2-")
    wanted = {k: v for k, v in expected().items() if k != "payments"}
    assert {k: v for k, v in kiosk.rows().items() if k != "payments"} == wanted


def test_a_run_of_the_bad_version_after_the_diagnosis_makes_it_stale(kiosk: Kiosk, wrecked: str) -> None:
    kiosk.fake.stop(wake(kiosk, "Intake"))
    with pytest.raises(Refused, match="newer than the diagnosis"):
        dry(kiosk, wrecked)


def test_a_plan_that_drifted_too_far_can_be_made_again(
    kiosk: Kiosk, planned: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    def drifted(*_: Any, **__: Any) -> Any:
        raise Drift("table kiosk.orders: 9 deletes instead of 3: plan again")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(undo, "apply", drifted)
        with pytest.raises(Drift):
            kiosk.run(planned)
    assert kiosk.recover(planned.incident_id)["state"] == "resumed"
    assert kiosk.rows() == expected()
    kinds = [e.kind for e in kiosk.open().ledger.entries(recovery=planned.recovery_id)]
    assert "recovery.abandoned" in kinds


def test_a_recovery_that_changed_rows_is_continued_never_planned_again(kiosk: Kiosk, undone: Plan) -> None:
    with pytest.raises(Refused, match="--continue"):
        dry(kiosk, undone.incident_id)


@pytest.mark.parametrize("order_of_modes", [("data", "both"), ("data", "data"), ("logic", "data"), ("data", "logic")])
def test_recoveries_of_one_incident_never_undo_or_replay_twice(
    kiosk: Kiosk, wrecked: str, order_of_modes: tuple[str, str]
) -> None:
    for mode in order_of_modes:
        kiosk.recover(wrecked, mode=mode)
    assert kiosk.rows() == expected()


def test_two_recoveries_at_once_are_one_and_a_refusal_that_names_it(kiosk: Kiosk) -> None:
    with session.exclusive(kiosk.home, "kiosk"):
        with pytest.raises(LeaseHeld, match="recovery by process"), session.exclusive(kiosk.home, "kiosk"):
            pass
        assert "kiosk" in session.HELD
    assert session.HELD == {}


def test_a_process_that_lost_the_app_to_another_one_takes_no_further_step(kiosk: Kiosk, planned: Plan) -> None:
    with session.exclusive(kiosk.home, "kiosk"):
        session.HELD["kiosk"]._lost = True
        with pytest.raises(LeaseLost):
            session.step(kiosk.home, "kiosk", planned.recovery_id, "contain")


def test_the_plan_says_which_runs_are_undone_and_not_replayed(kiosk: Kiosk, wrecked: str) -> None:
    workflows = app_model().model_dump(mode="json")["workflows"]
    workflows[1]["trigger"] = {"kind": "schedule"}
    kiosk.configure(workflows=workflows)
    plan = dry(kiosk, wrecked)
    assert "1 runs of payment are undone and not replayed: the catalogue names no event key" in plan.notes


def test_only_what_may_heal_is_tried_again() -> None:
    assert is_retryable(Unreachable("down", retryable=True))
    assert not is_retryable(Unreachable("wrong password", retryable=False))
    assert not is_retryable(StepFailed("no"))
