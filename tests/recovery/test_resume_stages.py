"""Nothing resumes unproven; what resumes runs exactly the version it should, and a relapse is contained again."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from checks import suites
from checks.model import ExpectationResult, SuiteReport
from platforms.faulty import Fault, FaultKind, Faulty
from platforms.retrying import Retrying
from recovery import history, publishing, resuming, session, windows
from recovery.errors import NothingToRecover, Refused, Relapse, StepFailed, VerificationFailed
from recovery.plan import Plan
from recovery.verification import verify
from tests.recovery.kiosk import Kiosk, definition, expected, order

pytestmark = pytest.mark.postgres


def say(_: str) -> None:
    pass


def resume(kiosk: Kiosk, incident: str, override: str | None = None) -> tuple[str, ...]:
    return resuming.resume(kiosk.open(), incident, by="tester", override=override, say=say)


def failing(*_: Any, **__: Any) -> SuiteReport:
    wrong = ExpectationResult(
        suite="orders", table="kiosk.orders", expectation="totals", success=False, unexpected=2, keys=(("o-1",),)
    )
    return SuiteReport(passed=False, ran=3, failed=(wrong,), seconds=0.1, snapshot=None)


def none(*_: Any, **__: Any) -> SuiteReport:
    return SuiteReport(passed=True, ran=0, failed=(), seconds=0.0, snapshot=None)


def paused(kiosk: Kiosk) -> bool:
    return (kiosk.live("intake"), kiosk.live("payment")) == (None, None) and not kiosk.may_write("intake")


@pytest.mark.parametrize(("report", "says"), [(failing, "totals"), (none, "no expectation ran")])
def test_suites_that_fail_or_do_not_run_keep_everything_paused(
    kiosk: Kiosk, planned: Plan, monkeypatch: pytest.MonkeyPatch, report: Any, says: str
) -> None:
    monkeypatch.setattr(suites, "run", report)
    with pytest.raises(VerificationFailed, match=says):
        kiosk.run(planned)
    assert paused(kiosk)
    assert not any("o-1" in str(e.body.get("suites")) for e in kiosk.open().ledger.entries())
    monkeypatch.undo()


def test_stages_come_back_in_the_catalogues_order(kiosk: Kiosk, planned: Plan) -> None:
    kiosk.run(planned, until="resume:2")
    assert (kiosk.live("intake"), kiosk.live("payment")) == ("good", None)
    assert (kiosk.may_write("intake"), kiosk.may_write("payment")) == (True, False)


def test_what_was_inactive_before_stays_inactive_and_a_newer_draft_stays_a_draft(kiosk: Kiosk) -> None:
    kiosk.fake.save(kiosk.ids["payment"], definition("Payment", "draft"))
    kiosk.protect()
    kiosk.publish("intake", "bad")
    kiosk.call("intake", order("1"))
    kiosk.fake.deactivate(kiosk.ids["payment"])
    incident = kiosk.caught()
    assert kiosk.recover(incident)["state"] == "resumed"
    assert (kiosk.live("intake"), kiosk.live("payment")) == ("good", None)


def test_a_draft_saved_while_paused_does_not_go_live(kiosk: Kiosk, wrecked: str) -> None:
    kiosk.fake.save(kiosk.ids["payment"], definition("Payment", "draft"))
    kiosk.recover(wrecked)
    assert (kiosk.live("intake"), kiosk.live("payment")) == ("good", "good")
    assert kiosk.rows() == expected()


def test_an_edit_of_the_published_definition_before_the_resume_does_not_go_live(kiosk: Kiosk, planned: Plan) -> None:
    kiosk.run(planned, until="resume:1")
    kiosk.fake.save(kiosk.ids["intake"], definition("Intake", "edited meanwhile"))
    session.step(kiosk.home, "kiosk", planned.recovery_id, "resume:1")
    assert kiosk.live("intake") == "good"


def edited_while_the_stage_begins(kiosk: Kiosk, workflow: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody saves a draft after the versions were looked up and before they are made live."""
    real = windows.resuming_since

    def meanwhile(*given: Any) -> Any:
        kiosk.fake.save(kiosk.ids[workflow], definition(workflow.capitalize(), "edited meanwhile"))
        return real(*given)

    monkeypatch.setattr(windows, "resuming_since", meanwhile)


def test_what_is_saved_while_a_stage_begins_does_not_go_live(
    kiosk: Kiosk, planned: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    kiosk.run(planned, until="resume:1")
    edited_while_the_stage_begins(kiosk, "intake", monkeypatch)
    session.step(kiosk.home, "kiosk", planned.recovery_id, "resume:1")
    assert kiosk.live("intake") == "good"
    assert kiosk.fake.draft_version(kiosk.ids["intake"]).hash != planned.publications[0].to_version


def test_nor_does_it_in_place_of_what_our_own_history_saved_again(
    kiosk: Kiosk, planned: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    kiosk.run(planned, until="resume:2")
    forget(kiosk)
    edited_while_the_stage_begins(kiosk, "payment", monkeypatch)
    session.step(kiosk.home, "kiosk", planned.recovery_id, "resume:2")
    assert kiosk.live("payment") == "good"


def test_a_draft_that_replaces_what_our_own_history_saved_again_is_not_resumed(
    kiosk: Kiosk, planned: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    kiosk.run(planned, until="resume:2")
    forget(kiosk)
    real = publishing.publish

    def then_edited(*given: Any, **more: Any) -> Any:
        done = real(*given, **more)
        forget(kiosk)
        return done

    monkeypatch.setattr(publishing, "publish", then_edited)
    with pytest.raises(StepFailed, match="somebody saved another version"):
        session.step(kiosk.home, "kiosk", planned.recovery_id, "resume:2")
    assert kiosk.live("payment") is None


def test_a_platform_without_versions_makes_live_what_is_saved(kiosk: Kiosk, planned: Plan) -> None:
    kiosk.fake._can = replace(kiosk.fake._can, keeps_versions=False)
    kiosk.run(planned)
    assert (kiosk.live("intake"), kiosk.live("payment")) == ("good", "good")


def test_an_edit_of_the_published_definition_is_drift_when_the_recovery_goes_on(kiosk: Kiosk, planned: Plan) -> None:
    kiosk.run(planned, until="resume:1")
    kiosk.fake.save(kiosk.ids["intake"], definition("Intake", "edited meanwhile"))
    with pytest.raises(VerificationFailed, match="live-version:intake"):
        kiosk.run(planned)


def forget(kiosk: Kiosk) -> None:
    """Somebody edits the paused workflow, and the platform forgets the version that was live."""
    for how in ("draft", "another draft"):
        kiosk.fake.save(kiosk.ids["payment"], definition("Payment", how))
    del kiosk.fake._workflows[kiosk.ids["payment"]].versions[:2]


def test_a_version_that_the_platform_forgot_comes_back_from_our_own_history(kiosk: Kiosk, planned: Plan) -> None:
    kiosk.run(planned, until="resume:2")
    forget(kiosk)
    kiosk.run(planned)
    assert kiosk.live("payment") == "good"
    assert kiosk.may_write("payment")
    reasons = [e.body.get("reason") for e in kiosk.open().ledger.entries(kinds=["workflow.published"])]
    assert f"resume after {planned.incident_id}: it was live before" in reasons


def test_a_version_that_nobody_has_is_not_replaced_by_what_is_saved(
    kiosk: Kiosk, planned: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    kiosk.run(planned, until="resume:2")
    forget(kiosk)
    monkeypatch.setattr(history, "load", lambda *_, **__: None)
    with pytest.raises(StepFailed, match="neither saved nor in the platform's history"):
        kiosk.run(planned)
    assert kiosk.live("payment") is None
    assert not kiosk.may_write("payment")


def test_a_workflow_deleted_during_the_pause_is_made_again_and_active_as_before(kiosk: Kiosk, planned: Plan) -> None:
    kiosk.run(planned, until="resume:2")
    kiosk.fake.delete(kiosk.ids["payment"])
    kiosk.run(planned)
    infos = kiosk.open().infos()
    assert infos["payment"].id != kiosk.ids["payment"]
    assert infos["payment"].active
    kiosk.ids["payment"] = infos["payment"].id
    assert kiosk.live("payment") == "good"
    assert kiosk.copies == []
    assert session.finished(kiosk.home, "kiosk", planned)["state"] == "resumed"


def test_an_entry_that_opens_late_is_waited_for(kiosk: Kiosk, planned: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publishing, "TOLD_S", 0.0)
    late = Faulty(kiosk.fake, [Fault(kind=FaultKind.CLOSED_ENTRY, times=3, workflow_id=kiosk.ids["intake"])])
    kiosk.platform = Retrying(late)
    kiosk.run(planned)
    assert late.hits == [3]
    assert session.finished(kiosk.home, "kiosk", planned)["state"] == "resumed"


def test_an_entry_that_never_opens_is_a_relapse_although_it_reads_back_live(
    kiosk: Kiosk, wrecked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publishing, "SERVED_S", 0.1)
    kiosk.faults(Fault(kind=FaultKind.CLOSED_ENTRY, times=None, workflow_id=kiosk.ids["intake"]))
    with pytest.raises(Relapse, match="intake is live by the platform's word and its entry does not answer"):
        kiosk.recover(wrecked)
    assert paused(kiosk)
    kiosk.faults()
    assert resume(kiosk, wrecked) == ("intake", "payment")


def test_a_publish_that_stays_a_draft_is_a_relapse_and_can_be_resumed_once_mended(kiosk: Kiosk, wrecked: str) -> None:
    kiosk.publish("intake", "bad")
    kiosk.faults(Fault(kind=FaultKind.DRAFT_ONLY_PUBLISH, times=None, workflow_id=kiosk.ids["intake"]))
    from recovery.containment import contain

    contain(kiosk.open(), ["intake"], incident=wrecked)
    with pytest.raises(Relapse, match="intake runs version"):
        kiosk.recover(wrecked)
    assert paused(kiosk)
    assert kiosk.copies == []
    with pytest.raises(NothingToRecover):
        session.interrupted(kiosk.open(), wrecked)
    kiosk.faults()
    assert resume(kiosk, wrecked) == ("intake", "payment")
    assert kiosk.live("intake") == "good"
    assert kiosk.rows() == expected()


def test_detectors_that_fire_after_the_resume_contain_again_and_a_second_recovery_ends_it(
    kiosk: Kiosk, planned: Plan
) -> None:
    incident = planned.incident_id
    kiosk.run(planned, until="watch")
    kiosk.call("intake", order("5"))
    kiosk.publish("intake", "bad")
    kiosk.call("intake", order("4", damages="h5"))
    with pytest.raises(Relapse, match="reinstate diagnose"):
        kiosk.run(planned)
    assert paused(kiosk)
    with pytest.raises(Refused, match="older than the relapse"):
        kiosk.plan(incident)
    kiosk.caught()
    assert kiosk.recover(incident)["recovery"].startswith("R2-")
    wanted = expected()
    assert kiosk.rows()["payments"] == wanted["payments"]
    assert dict(kiosk.rows()["stock"])["tea"] == dict(wanted["stock"])["tea"] - 2
    found = {r[0]: r[1:3] for r in kiosk.rows()["orders"]}
    assert {k: found[k] for k in ("o-2", "o-3", "h1")} == {r[0]: r[1:3] for r in wanted["orders"] if r[0] in
                                                            ("o-2", "o-3", "h1")}  # fmt: skip
    assert [str(v) for v in (*found["o-4"], *found["o-5"], *found["h5"])] == ["20.00", "new", "20.00", "new", "50.00",
                                                                           "sent"]  # fmt: skip


def test_after_data_alone_the_blamed_version_does_not_come_back(kiosk: Kiosk, wrecked: str) -> None:
    kiosk.recover(wrecked, mode="data")
    assert resume(kiosk, wrecked) == ()
    assert paused(kiosk)
    kiosk.recover(wrecked, mode="logic")
    assert resume(kiosk, wrecked) == ("intake", "payment")
    assert kiosk.live("intake") == "good"
    assert kiosk.rows() == expected()


def test_after_logic_alone_failing_suites_keep_it_paused_but_for_a_recorded_override(
    kiosk: Kiosk, wrecked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(suites, "run", failing)
    assert kiosk.recover(wrecked, mode="logic")["state"] == "logic-restored"
    assert resume(kiosk, wrecked) == ()
    assert paused(kiosk)
    assert resume(kiosk, wrecked, override="we count by hand") == ("intake", "payment")
    kinds = [e.kind for e in kiosk.open().ledger.entries(incident=wrecked)]
    assert kinds.index("override") < kinds.index("resume.begun")
    assert kinds[-1] == "incident.closed"


def test_a_recovery_that_stopped_half_way_is_no_ground_for_a_resume(kiosk: Kiosk, undone: Plan) -> None:
    assert resume(kiosk, undone.incident_id) == ()
    assert paused(kiosk)


def test_a_resume_that_was_killed_half_way_is_proven_from_the_start(kiosk: Kiosk, wrecked: str) -> None:
    class Killed(BaseException):
        pass

    kiosk.recover(wrecked, mode="data")
    kiosk.recover(wrecked, mode="logic")
    real = resuming.stage

    def dying(ctx: Any, what: Any, members: Any, *rest: Any) -> Any:
        if "payment" in members:
            raise Killed
        return real(ctx, what, members, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resuming, "stage", dying)
        with pytest.raises(Killed):
            resume(kiosk, wrecked)
    assert kiosk.live("intake") == "good"
    kiosk.call("intake", order("6"))
    assert resume(kiosk, wrecked) == ("intake", "payment")


def test_a_write_behind_the_fence_after_the_pause_is_drift(kiosk: Kiosk, undone: Plan) -> None:
    import psycopg

    with psycopg.connect(kiosk.db.superuser) as db:
        db.execute("GRANT UPDATE ON kiosk.stock TO wf_intake")
    with kiosk.transaction("wf_intake", None) as db:
        db.execute("UPDATE kiosk.stock SET level = level WHERE sku = 'jam'")
        db.execute("UPDATE kiosk.stock SET level = level + 1 WHERE sku = 'jam'")
    held = {c.name: c.holds for c in verify(kiosk.open(), incident=undone.incident_id, plan=undone).clauses}
    assert not held["no-late-writes"]
    assert not held["credentials-roles"]


def test_a_changed_setting_of_the_published_workflow_is_drift(kiosk: Kiosk, undone: Plan) -> None:
    saved = dict(kiosk.fake.draft_version(kiosk.ids["intake"]).definition)
    kiosk.fake.save(kiosk.ids["intake"], {**saved, "settings": {"saveDataErrorExecution": "none"}})
    held = {c.name: c.holds for c in verify(kiosk.open(), incident=undone.incident_id, plan=undone).clauses}
    assert held["live-version:intake"]
    assert not held["settings:intake"]
