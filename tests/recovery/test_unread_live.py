"""A pause that could not read what was live: a resume brings that back all the same, or nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest

from incidents import record
from platforms.base import Permanent
from platforms.fake import FLOW_ENGINE
from platforms.faulty import Fault, FaultKind
from recovery import history, planning, resuming, versioning
from recovery.containment import contain, live_before
from recovery.errors import PauseNotProven, Refused, StepFailed
from recovery.plan import Plan
from tests.recovery.kiosk import Kiosk, definition

pytestmark = pytest.mark.postgres
UNREADABLE = Fault(kind=FaultKind.EXPIRED_TOKEN, method="live_version", times=None)


def opened(kiosk: Kiosk, *workflows: str) -> str:
    ledger = kiosk.open().ledger
    return record.open_incident(ledger, "kiosk", severity="sev2", title="x", workflows=[*workflows]).id


def half_contained(kiosk: Kiosk) -> str:
    """Paused, but the platform did not answer what was live before. Returns the incident."""
    incident = opened(kiosk, "payment")
    kiosk.faults(UNREADABLE)
    with pytest.raises((PauseNotProven, Permanent)):
        contain(kiosk.open(), ["payment"], incident=incident)
    kiosk.faults()
    return incident


def unread(kiosk: Kiosk, *, seen: bool) -> str:
    """Contained without an answer about what was live, a draft saved, contained again. ``seen``: we had looked before.
    Returns the incident."""
    if seen:
        history.observe(kiosk.open())
    incident = half_contained(kiosk)
    assert kiosk.live("payment") is None
    assert live_before(kiosk.open(), incident) == {}
    kiosk.fake.save(kiosk.ids["payment"], definition("Payment", "draft"))
    history.observe(kiosk.open())  # as the watcher does: the draft is now the newest that we have seen
    assert contain(kiosk.open(), ["payment"], incident=incident).active_before == ("payment",)
    return incident


def resume(kiosk: Kiosk, incident: str, override: str | None = None) -> tuple[str, ...]:
    return resuming.resume(kiosk.open(), incident, by="tester", override=override, say=lambda _: None)


def test_what_the_pause_could_not_read_comes_back_as_our_own_history_knows_it(kiosk: Kiosk) -> None:
    incident = unread(kiosk, seen=True)
    told = [e.body for e in kiosk.open().ledger.entries(incident=incident, kinds=["contain.live-before"])]
    assert [set(body["versions"]) for body in told] == [{"payment"}]
    assert told[0]["sources"] == {"payment": "history"}
    assert resume(kiosk, incident) == ("payment",)
    assert kiosk.live("payment") == "good"


def test_a_resume_right_after_the_failed_pause_finds_out_first(kiosk: Kiosk) -> None:
    history.observe(kiosk.open())
    incident = half_contained(kiosk)
    kiosk.fake.save(kiosk.ids["payment"], definition("Payment", "draft"))
    assert resume(kiosk, incident) == ("payment",)
    assert kiosk.live("payment") == "good"


def test_what_is_taken_from_history_does_not_confirm_that_it_was_live_until_then(kiosk: Kiosk) -> None:
    incident = unread(kiosk, seen=True)
    began = kiosk.open().ledger.entries(incident=incident, kinds=["contain.started"])[0].at
    first, *later = history.spans(kiosk.open())[kiosk.ids["payment"]]
    assert first.hash not in {span.hash for span in later}
    assert first.until is not None
    assert first.until <= began


def test_without_history_nothing_resumes_and_the_draft_stays_one(kiosk: Kiosk) -> None:
    incident = unread(kiosk, seen=False)
    assert live_before(kiosk.open(), incident) == {}
    for override in (None, "all is well"):
        with pytest.raises(Refused, match=r"payment: which version was live .* `reinstate workflow publish"):
            resume(kiosk, incident, override)
    assert kiosk.live("payment") is None
    assert not kiosk.may_write("payment")
    ctx = kiosk.open()
    what = resuming.of_incident(ctx, incident)
    with pytest.raises(StepFailed, match="workflow payment: which version was live"):
        resuming.stage(ctx, what, ["payment"], 0.0, lambda _: None)
    assert kiosk.live("payment") is None


@pytest.mark.parametrize("which", [0, 1], ids=["saved", "earlier"])
def test_without_history_an_override_that_names_the_version_resumes_it(kiosk: Kiosk, which: int) -> None:
    incident = unread(kiosk, seen=False)
    version = kiosk.fake.versions(kiosk.ids["payment"])[which]
    assert resume(kiosk, incident, f"payment ran {version.hash[:12]}, says the log") == ("payment",)
    assert kiosk.live("payment") == ("draft", "good")[which]
    said = [e.body["what"] for e in kiosk.open().ledger.entries(incident=incident, kinds=["override"])]
    assert f"resume payment with version {version.hash[:12]}" in said


@pytest.mark.parametrize("seen", [True, False])
def test_a_version_that_a_person_publishes_during_such_a_pause_is_the_one_that_comes_back(
    kiosk: Kiosk, seen: bool
) -> None:
    incident = unread(kiosk, seen=seen)
    ctx = kiosk.open()
    content = definition("Payment", "mended")
    hashes = kiosk.fake.hashes(content)
    draft = kiosk.fake.draft_version(kiosk.ids["payment"])
    wanted = replace(draft, hash=hashes[0], settings_hash=hashes[1], definition=content, platform_version=None)
    made = versioning.plan(ctx, "payment", wanted, activate=False)
    versioning.publish(ctx, made, by="ada", reason="the right one")
    kiosk.fake.save(kiosk.ids["payment"], definition("Payment", "another draft"))
    assert resume(kiosk, incident) == ("payment",)
    assert kiosk.live("payment") == "mended"


def test_where_saving_publishes_an_edit_during_the_pause_does_not_come_back(kiosk: Kiosk) -> None:
    kiosk.fake._can = FLOW_ENGINE
    incident = unread(kiosk, seen=True)
    assert resume(kiosk, incident) == ("payment",)
    assert kiosk.live("payment") == "good"


def test_a_second_workflow_joins_the_incident_and_the_first_record_of_what_was_live_stays(kiosk: Kiosk) -> None:
    incident = opened(kiosk, "payment")
    first = contain(kiosk.open(), ["payment"], incident=incident)
    kiosk.publish("payment", "newer")
    kiosk.publish("intake", "newer")
    live = kiosk.fake.live_version(kiosk.ids["intake"])
    assert live is not None
    second = contain(kiosk.open(), ["intake"], incident=incident)
    assert second.live_before == {**first.live_before, "intake": live.hash}
    assert second.active_before == ("intake", "payment")


def test_a_plan_resumes_nothing_of_which_nobody_knows_what_was_live(
    kiosk: Kiosk, wrecked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning, "live_before", lambda *_: {})
    with pytest.raises(Refused, match=r"payment: which version was live .* `reinstate workflow publish payment"):
        kiosk.plan(wrecked)
    with pytest.raises(Refused, match="workflow payment: which version was live"):
        kiosk.plan(wrecked, mode="data")  # it replays through payment
    assert kiosk.plan(wrecked, mode="logic").good_versions.keys() == {"intake"}


def test_a_plan_replays_through_what_was_live_and_not_through_the_draft(kiosk: Kiosk, planned: Plan) -> None:
    live = live_before(kiosk.open(), planned.incident_id)
    assert planned.good_versions["payment"] == live["payment"]
