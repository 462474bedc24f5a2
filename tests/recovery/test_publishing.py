"""What is published is live and read back; what stands in the way is told by name; faults double nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from ledger import kinds
from platforms.base import CredentialState, PlatformError
from platforms.fake_model import EVERYTHING, FLOW_ENGINE, FORGETFUL
from platforms.faulty import Fault, FaultKind
from recovery import credentials, definitions, following, history, publishing, resuming
from recovery.credentials import Problem
from recovery.errors import Outcome, PublishFailed, RecoveryError
from recovery.publishing import Published
from tests.recovery.version_desk import VersionDesk, called, how, intake, payment


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publishing, "LIVE_S", 0.1)
    monkeypatch.setattr(publishing, "LOST_S", 0.02)
    monkeypatch.setattr(publishing, "POLL_S", 0.005)


@pytest.fixture(params=["drafts", "no drafts"])
def desk(tmp_path: Path, request: pytest.FixtureRequest) -> VersionDesk:
    """On a platform like n8n, and on one that publishes by saving and keeps ids."""
    return VersionDesk(tmp_path / "home", capabilities=EVERYTHING if request.param == "drafts" else FORGETFUL)


@pytest.fixture
def drafts(tmp_path: Path) -> VersionDesk:
    return VersionDesk(tmp_path / "home", capabilities=EVERYTHING)


def put(desk: VersionDesk, key: str, definition: dict[str, Any], *, activate: bool = True) -> Published:
    ctx = desk.ctx()
    return publishing.publish(ctx, key, desk.version(definition), by="ada", reason="it was wrong", activate=activate)


def wreck(desk: VersionDesk) -> None:
    history.observe(desk.ctx())
    desk.fake.save(desk.ids["payment"], payment("bad"))
    desk.fake.activate(desk.ids["payment"])


def test_a_publication_is_live_recorded_and_credited(desk: VersionDesk) -> None:
    wreck(desk)
    done = put(desk, "payment", payment())
    assert (done.outcome, done.changed, done.previous) == (Outcome.LIVE, True, desk.version(payment("bad")).hash)
    assert how(desk.live("payment")) == "good"
    ctx = desk.ctx()
    entry = ctx.ledger.entries(app="kiosk", kinds=[kinds.WORKFLOW_PUBLISHED])[-1]
    assert (entry.body["by"], entry.body["reason"], entry.body["version"]) == ("ada", "it was wrong", done.version)
    last = history.listing(ctx, "payment")[-1]
    assert (last.version, last.live, last.by, last.reason) == (done.version, done.version, "ada", "it was wrong")
    again = put(desk, "payment", payment())
    assert (again.outcome, again.changed) == (Outcome.LIVE, False)
    assert len(ctx.ledger.entries(app="kiosk", kinds=[kinds.WORKFLOW_PUBLISHED])) == 1


def test_live_by_the_platforms_word_is_not_enough_its_entry_has_to_answer(
    desk: VersionDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publishing, "SERVED_S", 0.1)
    wreck(desk)
    desk.faults = (Fault(kind=FaultKind.CLOSED_ENTRY, times=None),)
    with pytest.raises(PublishFailed, match="its entry does not answer after") as failed:
        put(desk, "payment", payment())
    assert failed.value.outcome is Outcome.NOT_SERVED
    desk.faults = (Fault(kind=FaultKind.CLOSED_ENTRY, times=3),)
    assert (done := put(desk, "payment", payment())).outcome is Outcome.LIVE
    assert not done.changed
    assert len(desk.ctx().ledger.entries(app="kiosk", kinds=[kinds.WORKFLOW_PUBLISHED])) == 1


def test_settings_are_read_back_although_they_are_no_part_of_the_version(desk: VersionDesk) -> None:
    wanted = {**payment(), "settings": {"executionTimeout": 7}}
    assert put(desk, "payment", wanted).outcome is Outcome.LIVE
    assert desk.live("payment")["settings"] == {"executionTimeout": 7}


def test_an_inactive_workflow_is_only_saved(desk: VersionDesk) -> None:
    wreck(desk)
    desk.fake.deactivate(desk.ids["payment"])
    assert put(desk, "payment", payment(), activate=False).outcome is Outcome.SAVED
    assert desk.live("payment") is None
    assert how(desk.fake.draft_version(desk.ids["payment"]).definition) == "good"


def test_a_draft_only_restore_is_told_from_a_live_one(drafts: VersionDesk) -> None:
    wreck(drafts)
    assert put(drafts, "payment", payment(), activate=False).outcome is Outcome.DRAFT_ONLY
    drafts.faults = (Fault(kind=FaultKind.DRAFT_ONLY_PUBLISH, times=None),)
    with pytest.raises(PublishFailed, match="draft only, production runs version") as failed:
        put(drafts, "payment", payment())
    assert failed.value.outcome is Outcome.DRAFT_ONLY
    assert how(drafts.live("payment")) == "bad"


def test_somebody_who_edits_meanwhile_is_named(desk: VersionDesk, monkeypatch: pytest.MonkeyPatch) -> None:
    wreck(desk)
    save = desk.fake.save

    def busy(workflow_id: str, definition: Any) -> Any:
        save(workflow_id, definition)
        return save(workflow_id, payment("mine"))

    monkeypatch.setattr(desk.fake, "save", busy)
    with pytest.raises(PublishFailed, match="somebody edits it meanwhile") as failed:
        put(desk, "payment", payment())
    assert failed.value.outcome is Outcome.EDITED


# Made again ----------------------------------------------------------------------------------------------------------


def test_a_deleted_workflow_is_made_again_and_calls_follow_its_new_id(drafts: VersionDesk) -> None:
    ctx = drafts.ctx()
    history.observe(ctx)
    wanted = definitions.find(ctx, "intake", drafts.version(intake(drafts.ids["payment"])).hash, None)
    drafts.fake.delete(drafts.ids["payment"])
    other = drafts.fake.add({**intake(drafts.ids["payment"]), "name": "Somebody else's"})
    done = put(drafts, "payment", payment())
    new = drafts.id_of("payment")
    assert (done.recreated, done.previous_id, done.platform_id) == (True, drafts.ids["payment"], new)
    assert (done.references, done.foreign) == (("intake",), ("Somebody else's",))
    assert called(drafts.live("intake")) == new
    assert called(drafts.fake.draft_version(other).definition) == drafts.ids["payment"]
    ctx = drafts.ctx()
    entry = ctx.ledger.entries(app="kiosk", kinds=[kinds.WORKFLOW_RECREATED])[-1]
    assert (entry.body["previous_id"], entry.body["references"]) == (drafts.ids["payment"], ["intake"])
    assert ctx.infos()["payment"].id == new
    # An older definition of the caller follows as well, under the hash that it then has.
    found = definitions.find(ctx, "intake", wanted.hash, None)
    assert (called(found.definition), found.hash) == (new, definitions.expected(ctx, "intake", wanted.hash))
    assert found.hash != wanted.hash


def test_a_resume_does_not_bring_back_a_version_that_calls_an_id_which_is_gone(drafts: VersionDesk) -> None:
    history.observe(drafts.ctx())
    before = drafts.version(intake(drafts.ids["payment"])).hash
    for id_ in drafts.ids.values():
        drafts.fake.deactivate(id_)
    drafts.fake.delete(drafts.ids["payment"])
    put(drafts, "payment", payment(), activate=False)
    what = resuming.Resumption(
        incident="INC-1", recovery=None, contained=(), active_before=(), wanted={"intake": before}
    )
    ctx = drafts.ctx()
    chosen = resuming.target(ctx, what, "intake", lambda _: None)
    saved = drafts.fake.draft_version(drafts.ids["intake"])
    assert chosen == (drafts.ids["intake"], saved.platform_version)
    assert resuming.as_now(ctx, what, "intake") == saved.hash != before
    assert called(saved.definition) == drafts.id_of("payment")


def test_where_ids_are_kept_nothing_has_to_follow(tmp_path: Path) -> None:
    desk = VersionDesk(tmp_path / "home", capabilities=FLOW_ENGINE)
    history.observe(desk.ctx())
    desk.fake.delete(desk.ids["payment"])
    done = put(desk, "payment", payment())
    assert (done.recreated, done.platform_id, done.references) == (True, desk.ids["payment"], ())
    assert called(desk.live("intake")) == desk.ids["payment"]


def test_a_draft_of_somebody_follows_too_and_is_not_made_live(drafts: VersionDesk) -> None:
    history.observe(drafts.ctx())
    drafts.fake.save(drafts.ids["intake"], intake(drafts.ids["payment"], "half done"))
    drafts.fake.delete(drafts.ids["payment"])
    put(drafts, "payment", payment())
    new, draft = drafts.id_of("payment"), drafts.fake.draft_version(drafts.ids["intake"]).definition
    assert (called(draft), how(draft)) == (new, "half done")
    assert (called(drafts.live("intake")), how(drafts.live("intake"))) == (new, "good")


def test_made_again_by_a_person_it_is_followed_and_recorded(drafts: VersionDesk) -> None:
    history.observe(drafts.ctx())
    drafts.fake.delete(drafts.ids["payment"])
    new = drafts.fake.add(payment("by hand"), active=True)
    done = put(drafts, "payment", payment())
    assert (done.recreated, done.previous_id, done.references) == (False, drafts.ids["payment"], ("intake",))
    ctx = drafts.ctx()
    assert [e.body["platform_id"] for e in ctx.ledger.entries(app="kiosk", kinds=[kinds.WORKFLOW_RECREATED])] == [new]
    put(drafts, "payment", payment("again"))
    assert len(ctx.ledger.entries(app="kiosk", kinds=[kinds.WORKFLOW_RECREATED])) == 1


def test_two_of_a_name_are_refused(drafts: VersionDesk) -> None:
    history.observe(drafts.ctx())
    drafts.fake.delete(drafts.ids["payment"])
    for _ in range(2):
        drafts.fake.add(payment())
    with pytest.raises(PublishFailed, match="2 workflows named 'Payment'") as failed:
        put(drafts, "payment", payment())
    assert failed.value.outcome is Outcome.AMBIGUOUS


def test_a_call_that_cannot_follow_is_named(drafts: VersionDesk, monkeypatch: pytest.MonkeyPatch) -> None:
    history.observe(drafts.ctx())
    drafts.fake.delete(drafts.ids["payment"])
    monkeypatch.setattr(following, "_replaced", lambda value, _ids: value)
    with pytest.raises(PublishFailed, match="cannot be pointed at the new id") as failed:
        put(drafts, "payment", payment())
    assert failed.value.outcome is Outcome.NOT_FOLLOWED


def test_ids_are_found_and_replaced_wherever_they_stand() -> None:
    ids = {"old": "new"}
    definition = {"settings": {"callerIds": "a, old,b"}, "nodes": [{"p": {"value": "old"}, "q": ["old", "older"]}]}
    assert following.names(definition, ids)
    assert following._replaced(definition, ids) == {
        "settings": {"callerIds": "a, new,b"},
        "nodes": [{"p": {"value": "new"}, "q": ["new", "older"]}],
    }
    assert not following.names({"text": "an old story", "older": 1}, ids)


# Credentials ---------------------------------------------------------------------------------------------------------

STATES = {
    CredentialState.INVALID: (Problem.INVALID, "refuses it"),
    CredentialState.UNREADABLE: (Problem.UNREADABLE, "encryption key it was stored with"),
}


@pytest.mark.parametrize("state", sorted(STATES))
def test_a_credential_that_cannot_work_stops_going_live(drafts: VersionDesk, state: CredentialState) -> None:
    history.observe(drafts.ctx())
    drafts.fake.save(drafts.ids["intake"], intake(drafts.ids["payment"], "bad"))
    drafts.fake.activate(drafts.ids["intake"])
    drafts.fake.set_credential("db-1", state)
    wanted = drafts.version(intake(drafts.ids["payment"]))
    with pytest.raises(PublishFailed, match=STATES[state][1]) as failed:
        publishing.publish(drafts.ctx(), "intake", wanted, by="a", reason="r", activate=True)
    assert failed.value.outcome is Outcome.CREDENTIALS
    assert how(drafts.live("intake")) == "bad"
    done = publishing.publish(drafts.ctx(), "intake", wanted, by="a", reason="r", activate=True, despite=True)
    assert (done.outcome, [t.problem for t in done.troubles]) == (Outcome.LIVE, [STATES[state][0]])


def test_a_missing_credential_is_told_from_a_refused_one(drafts: VersionDesk) -> None:
    del drafts.fake.vault["db-1"]
    ctx = drafts.ctx()
    found = credentials.troubles(ctx, "intake", drafts.ids["intake"], "x")
    assert [(t.problem, t.name) for t in found] == [(Problem.MISSING, "desk")]
    assert "make it again" in found[0].sentence


def test_a_credential_changed_since_the_version_was_good_is_named_and_only_then(drafts: VersionDesk) -> None:
    ctx = drafts.ctx()
    good = drafts.version(intake(drafts.ids["payment"])).hash
    history.observe(ctx)
    assert credentials.troubles(ctx, "intake", drafts.ids["intake"], good) == ()
    opened = ctx.ledger.append("test", app="kiosk").at
    drafts.fake.set_credential("db-1", CredentialState.VALID)
    found = credentials.troubles(ctx, "intake", drafts.ids["intake"], good, before=opened)
    assert [(t.problem, t.credential) for t in found] == [(Problem.CHANGED, "db-1")]
    history.observe(ctx, force=True)  # a look in the incident says nothing about how it was before
    assert credentials.troubles(ctx, "intake", drafts.ids["intake"], good, before=opened) == found
    assert credentials.troubles(ctx, "intake", drafts.ids["intake"], good) == ()  # taken for good by the look


def test_a_changed_credential_does_not_stop_a_person_who_publishes(drafts: VersionDesk) -> None:
    history.observe(drafts.ctx())
    drafts.fake.save(drafts.ids["intake"], intake(drafts.ids["payment"], "bad"))
    drafts.fake.activate(drafts.ids["intake"])
    drafts.fake.set_credential("db-1", CredentialState.VALID)
    done = put(drafts, "intake", intake(drafts.ids["payment"]))
    assert (done.outcome, [t.problem for t in done.troubles]) == (Outcome.LIVE, [Problem.CHANGED])


# Faults --------------------------------------------------------------------------------------------------------------

METHODS = ["workflows", "draft_version", "live_version", "save", "create", "activate", "credentials", "versions", None]
FAULTS = st.lists(
    st.builds(
        Fault,
        kind=st.sampled_from([FaultKind.TIMEOUT, FaultKind.SERVER_ERROR, FaultKind.LOST_REPLY, FaultKind.CUT_ANSWER]),
        method=st.sampled_from(METHODS),
        times=st.integers(1, 4),
        skip=st.integers(0, 4),
    ),
    max_size=4,
)


@given(
    faults=FAULTS,
    start=st.sampled_from(["bad", "gone", "inactive", "draft"]),
    capabilities=st.sampled_from([EVERYTHING, FORGETFUL]),
)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_answers_are_lost_it_is_live_once_or_said_not_to_be(
    faults: list[Fault], start: str, capabilities: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    desk = VersionDesk(tmp_path_factory.mktemp("faults") / "home", capabilities=capabilities)
    history.observe(desk.ctx())
    if start == "gone":
        desk.fake.delete(desk.ids["payment"])
    else:
        desk.fake.save(desk.ids["payment"], payment("bad"))
    if start == "bad":
        desk.fake.activate(desk.ids["payment"])
    if start == "inactive":
        desk.fake.deactivate(desk.ids["payment"])
    desk.faults = tuple(replace(f) for f in faults)
    try:
        done: Published | None = put(desk, "payment", payment())
    except (PlatformError, RecoveryError) as error:
        event(type(error).__name__)
        done = None
    else:
        event("live")
    if done is not None:
        assert done.outcome is Outcome.LIVE
        assert how(desk.live("payment")) == "good"
        assert called(desk.live("intake")) == desk.id_of("payment")
    desk.faults = ()
    assert put(desk, "payment", payment()).outcome is Outcome.LIVE
    assert how(desk.live("payment")) == "good"  # which also says that there is one of the name
    assert called(desk.live("intake")) == desk.id_of("payment")
    ctx = desk.ctx()
    seen = history.newest(ctx, "payment")
    assert seen is not None
    assert (seen.live, seen.platform_id) == (desk.version(payment()).hash, desk.id_of("payment"))
    assert history.load(ctx, seen.version) is not None
