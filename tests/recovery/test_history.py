"""The own history loses no version, tells what happened, and dates versions without ever guessing."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ledger import kinds
from platforms.base import Run, RunState
from platforms.dated import Dated, Span, dated
from platforms.fake import FakePlatform
from platforms.fake_model import EVERYTHING, FLOW_ENGINE, FORGETFUL
from platforms.faulty import Fault, FaultKind
from recovery import history, kept
from recovery.errors import Refused
from recovery.seen import Seen, spans
from snapshots.points.errors import Damaged, KeyMissing, NotEncrypted
from snapshots.store import retention, rotation
from tests.recovery.version_desk import VersionDesk, intake, payment, same

KEY = base64.b64encode(b"k" * 32).decode()


@pytest.fixture
def desk(tmp_path: Path) -> VersionDesk:
    return VersionDesk(tmp_path / "home")


def test_every_version_is_kept_also_those_between_two_looks(desk: VersionDesk) -> None:
    ctx = desk.ctx()
    assert [(s.workflow, s.active) for s in history.observe(ctx)] == [("intake", True), ("payment", True)]
    desk.fake.save(desk.ids["payment"], payment("one"))
    desk.fake.save(desk.ids["payment"], payment("two"))
    found = history.observe(ctx, by="ada", reason="prices", of="payment")
    assert [(s.passed, s.by) for s in found] == [(True, None), (False, "ada")]
    for how in ("good", "one", "two"):
        version = history.load(ctx, desk.version(payment(how)).hash)
        assert version is not None
        assert same(version.definition, payment(how))
    assert history.observe(ctx) == []


def test_publishing_an_older_version_is_seen_although_nothing_was_saved(desk: VersionDesk) -> None:
    ctx = desk.ctx()
    desk.fake.save(desk.ids["payment"], payment("bad"))
    desk.fake.activate(desk.ids["payment"])
    history.observe(ctx)
    desk.fake.activate(desk.ids["payment"], f"{desk.ids['payment']}-1")
    found = history.observe(ctx)
    assert [(s.version == desk.version(payment("bad")).hash, s.live) for s in found] == [
        (True, desk.version(payment()).hash)
    ]


def test_a_look_at_which_nothing_changed_asks_one_question(desk: VersionDesk) -> None:
    history.observe(desk.ctx())
    desk.faults = tuple(
        Fault(kind=FaultKind.TIMEOUT, method=m, times=None)
        for m in ("draft_version", "live_version", "versions", "credentials")
    )
    assert history.observe(desk.ctx()) == []


def test_settings_activation_deletion_and_a_new_id_are_changes(desk: VersionDesk) -> None:
    ctx = desk.ctx()
    history.observe(ctx)
    fake, old = desk.fake, desk.ids["intake"]
    fake.save(old, intake(desk.ids["payment"], timezone="Europe/Berlin"))
    first = history.observe(ctx)
    fake.deactivate(old)
    second = history.observe(ctx)
    fake.delete(old)
    third = history.observe(ctx)
    new = fake.add(intake(desk.ids["payment"]), active=True)
    fourth = history.observe(ctx)
    assert len({s.settings for s in (*first, *fourth)}) == 2
    assert [(s.active, s.live) for s in second] == [(False, None)]
    assert [(s.gone, s.platform_id) for s in third] == [(True, old)]
    assert [(s.gone, s.platform_id, s.active) for s in fourth] == [(False, new, True)]
    gone = ctx.ledger.entries(app="kiosk", kinds=[kinds.WORKFLOW_GONE])
    assert [e.body["platform_id"] for e in gone] == [old]


def test_a_renamed_workflow_is_still_the_one_we_know(desk: VersionDesk) -> None:
    history.observe(desk.ctx())
    desk.fake.save(desk.ids["payment"], {**payment(), "name": "Payments (old)"})
    ctx = desk.ctx()
    assert ctx.infos()["payment"].id == desk.ids["payment"]
    assert [s.name for s in history.observe(ctx)] == ["Payments (old)"]


def test_who_looks_at_the_same_time_records_a_change_once(desk: VersionDesk) -> None:
    one, other = desk.ctx(), desk.ctx()
    history.observe(one)
    history.observe(other)
    desk.fake.save(desk.ids["payment"], payment("bad"))
    before = one.book.record()
    stale = history.newest(other, "payment")
    assert stale is not None
    history.observe(one)
    # The other had read the ledger before the first wrote, and looks all the same.
    info = next(i for i in desk.fake.workflows() if i.id == desk.ids["payment"])
    history._look(other, "payment", info, stale, (None, None), force=False)
    assert len(one.book.record().of("payment")) == len(before.of("payment")) + 1


def test_a_change_that_the_watcher_saw_first_is_credited_to_who_published_it(desk: VersionDesk) -> None:
    ctx = desk.ctx()
    history.observe(ctx)
    desk.fake.save(desk.ids["payment"], payment("bad"))
    history.observe(ctx)
    version = desk.version(payment("bad")).hash
    body = {"workflow": "payment", "platform_id": desk.ids["payment"], "version": version, "by": "ada", "reason": "r"}
    ctx.ledger.append(kinds.WORKFLOW_PUBLISHED, app="kiosk", body=body)
    assert [(s.by, s.reason) for s in history.listing(ctx, "payment")] == [(None, None), ("ada", "r")]
    ctx.ledger.append(
        kinds.WORKFLOW_PUBLISHED, app="kiosk", body={**body, "version": desk.version(payment()).hash, "by": "bo"}
    )
    desk.fake.save(desk.ids["payment"], payment())
    history.observe(ctx)
    assert history.listing(ctx, "payment")[-1].by == "bo"


def test_versions_outlive_the_platform_the_ledger_and_pruning(desk: VersionDesk) -> None:
    ctx = desk.ctx()
    history.observe(ctx)
    for id_ in desk.ids.values():
        desk.fake.delete(id_)
    (desk.home / "ledger.sqlite").unlink()
    (desk.home / "ledger.sqlite.head").unlink()
    fresh = desk.ctx()
    retention.prune(fresh.store, "kiosk", fresh.app.store.keep, dry_run=False, grace_s=0)
    version = history.load(fresh, desk.version(payment()).hash)
    assert version is not None
    assert same(version.definition, payment())
    assert history.load(fresh, "0" * 64) is None


def test_versions_are_sealed_like_everything_in_the_store(desk: VersionDesk) -> None:
    ctx = desk.ctx(keys=[KEY])
    history.observe(ctx)
    objects = list((desk.home / "store" / "versions" / "kiosk").iterdir())
    assert len(objects) == 2
    assert not any(b"executeQuery" in o.read_bytes() for o in objects)
    assert history.load(ctx, desk.version(payment()).hash) is not None


def test_a_key_given_later_is_for_versions_too(desk: VersionDesk) -> None:
    history.observe(desk.ctx())
    version = desk.version(payment()).hash
    with pytest.raises(NotEncrypted):
        history.load(desk.ctx(keys=[KEY]), version)
    rotation.rotate(desk.ctx(keys=[KEY]).store)
    assert history.load(desk.ctx(keys=[KEY]), version) is not None
    with pytest.raises(KeyMissing):
        history.load(desk.ctx(), version)


def test_a_damaged_version_is_named_and_a_lost_one_is_kept_again(desk: VersionDesk) -> None:
    ctx = desk.ctx()
    history.observe(ctx)
    seen = history.newest(ctx, "payment")
    assert seen is not None
    path = desk.home / "store" / seen.object
    whole = json.loads(path.read_text())
    whole["version"]["definition"]["name"] = "Other"
    path.chmod(0o600)
    path.write_text(json.dumps(whole))
    with pytest.raises(Damaged, match="fails its checksum"):
        history.load(ctx, seen.version)
    path.unlink()
    assert kept.read(ctx.store, seen.object) is None
    history.observe(ctx, force=True)
    assert history.load(ctx, seen.version) is not None


def test_the_beginning_of_a_hash_names_a_version_when_it_is_the_only_one(desk: VersionDesk) -> None:
    ctx = desk.ctx()
    history.observe(ctx)
    version = desk.version(payment()).hash
    assert history.resolve(ctx, "payment", version[:6].upper()) == version
    for text in ("", "zz"):
        with pytest.raises(Refused, match="workflow history payment"):
            history.resolve(ctx, "payment", text)


# Dates ---------------------------------------------------------------------------------------------------------------


def test_a_run_between_two_looks_of_which_the_later_found_another_version_stays_open() -> None:
    noon = datetime(2026, 3, 1, 12, tzinfo=UTC)
    second = timedelta(seconds=1)
    known = {
        "w": (
            Span(workflow_id="w", hash="a", not_before=None, since=noon, until=noon + 10 * second),
            Span(workflow_id="w", hash="b", not_before=noon + 10 * second, since=noon + 15 * second, until=None),
        )
    }

    def of(after_s: float, **told: Any) -> str | None:
        begun = noon + after_s * second
        run = Run(id="1", workflow_id="w", state=RunState.SUCCESS, started_at=begun, stopped_at=begun, **told)
        return dated(run, known).version_hash

    assert [of(s) for s in (-1, 0, 10, 12, 15, 99)] == [None, "a", "a", None, "b", "b"]
    assert of(0, version_hash="z") == "z"
    assert of(0, platform_version="v1") is None  # what the platform recorded is not overruled


NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def change(seconds: float, version: str, **values: Any) -> Seen:
    """What a look found so many seconds after noon."""
    common = {"seq": 1, "workflow": "w", "platform_id": "1", "name": "W", "settings": "", "active": True}
    return Seen(**{**common, "at": at(seconds), "version": version, "live": version, **values})


def stretches(*items: Any, looked: float | None = None) -> list[tuple[str, str, float, float | None]]:
    """Id, version, and from when until when it was surely in use, in seconds after noon."""
    found = spans(items, "w", looked=None if looked is None else at(looked))
    return [
        (
            s.workflow_id,
            s.hash,
            (s.since - NOON).total_seconds(),
            None if s.until is None else (s.until - NOON).total_seconds(),
        )
        for s in found
    ]


def test_a_stretch_begins_with_the_look_that_found_it_and_ends_with_the_last_that_did() -> None:
    first, second = change(0, "a"), change(30, "b", not_before=at(20))
    assert stretches(first) == [("1", "a", 0, 0)]
    assert stretches(first, looked=20) == [("1", "a", 0, 20)]
    assert stretches(first, second, looked=40) == [("1", "a", 0, 20), ("1", "b", 30, 40)]
    assert stretches(first, change(30, "a", not_before=at(20), settings="s")) == [("1", "a", 0, 30)]


def test_the_platforms_time_counts_between_the_looks_and_only_there() -> None:
    def of(told: datetime) -> float:
        return stretches(change(0, "a"), change(30, "b", not_before=at(20), since=told))[1][2]

    assert of(at(25.25)) == 25.25
    assert of(at(25)) == 25.999999  # cut off to a whole second: it may have been later
    assert of(at(10)) == 30  # before the last look that found the other one
    assert of(at(99)) == 30


def test_the_same_version_saved_again_may_have_been_another_in_between() -> None:
    first, second = change(0, "a", since=at(-5)), change(30, "a", not_before=at(20), since=at(25.5))
    assert stretches(first, second) == [("1", "a", 0, 20), ("1", "a", 25.5, 30)]
    assert stretches(first, change(30, "a", not_before=at(20), since=at(-5))) == [("1", "a", 0, 30)]


def test_nothing_is_known_of_the_time_while_a_workflow_was_gone() -> None:
    gone = change(30, "a", not_before=at(20), gone=True, live=None)
    again = change(60, "b", platform_id="2", not_before=at(50))
    assert stretches(change(0, "a"), gone, looked=55) == [("1", "a", 0, 20)]
    assert stretches(change(0, "a"), gone, again, looked=70) == [("1", "a", 0, 20), ("2", "b", 60, 70)]


def test_what_passed_between_two_looks_has_no_stretch() -> None:
    passed = change(30, "x", passed=True, live=None)
    assert stretches(change(0, "a"), passed, change(30, "b", not_before=at(20))) == [
        ("1", "a", 0, 20),
        ("1", "b", 30, 30),
    ]


def test_the_wrapper_fills_versions_of_runs_that_carry_none(desk: VersionDesk) -> None:
    from dataclasses import replace

    ctx = desk.ctx()
    history.observe(ctx)
    desk.fake.call(desk.ids["payment"], {"body": {}})
    run = desk.fake.runs()[0]
    bare = replace(run, version_hash=None, platform_version=None)

    class Forgets(FakePlatform):
        def runs(self, *_: Any, **__: Any) -> list[Run]:
            return [bare]

    platform = Dated(Forgets(), ctx.book.spans)
    assert platform.runs()[0].version_hash is None  # nobody has looked since it started
    ctx.book.look(datetime.now(UTC))
    assert platform.runs()[0].version_hash == run.version_hash


def test_the_live_version_that_a_containment_read_is_a_look(desk: VersionDesk) -> None:
    ctx = desk.ctx()
    history.observe(ctx)
    body = {"versions": {"payment": "b" * 64}}
    ctx.ledger.append(kinds.CONTAIN_LIVE_BEFORE, app="kiosk", incident="INC-1", body=body)
    assert [s.hash for s in history.spans(ctx)[desk.ids["payment"]]] == [desk.version(payment()).hash, "b" * 64]


def test_a_containment_that_was_faster_than_the_look_leaves_the_good_version_its_time(desk: VersionDesk) -> None:
    ctx = desk.ctx()
    history.observe(ctx)
    history.observe(ctx)  # nothing changed: only the time of the look is remembered
    looked = ctx.book.looked()
    bad = desk.fake.save(desk.ids["payment"], payment("bad"))
    desk.fake.activate(desk.ids["payment"])
    ctx.ledger.append(
        kinds.CONTAIN_LIVE_BEFORE, app="kiosk", incident="INC-1", body={"versions": {"payment": bad.hash}}
    )
    desk.fake.deactivate(desk.ids["payment"])
    history.observe(ctx)
    good, contained = history.spans(ctx)[desk.ids["payment"]][:2]
    assert (good.until, contained.not_before, contained.hash) == (looked, looked, bad.hash)


# Any history ---------------------------------------------------------------------------------------------------------

EDITS = st.lists(
    st.tuples(
        st.sampled_from(["save", "save", "publish", "older", "pause", "settings", "delete", "make", "look", "look"]),
        st.integers(0, 3),
    ),
    max_size=14,
)
ANY = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@given(edits=EDITS)
@ANY
def test_history_loses_no_version_and_tells_what_happened(
    edits: list[tuple[str, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    desk = VersionDesk(tmp_path_factory.mktemp("any") / "home", capabilities=EVERYTHING)
    ctx = desk.ctx()
    ever: set[str] = set()
    states: list[Any] = []
    for edit, number in [("look", 0), *edits, ("look", 0)]:
        _edit(desk, edit, number)
        if edit != "look":
            continue
        new = history.observe(ctx if number else desk.ctx())
        state = _state(desk)
        if states and states[-1] == state:
            assert [s for s in new if s.workflow == "payment" and not s.passed] == []
        else:
            states.append(state)
        listing = history.listing(ctx, "payment")
        assert listing[-1].gone == (state is None)
        if state is not None:
            kept_by_platform = [v.hash for v in reversed(desk.fake.versions(state[0]))]
            ever |= {*kept_by_platform}
            told = [s.version for s in listing if s.platform_id == state[0] and not s.gone]
            assert _first_seen(told) == _first_seen(kept_by_platform)
    listing = history.listing(ctx, "payment")
    told_states = [(s.platform_id, s.version, s.settings, s.live) for s in listing if not (s.passed or s.gone)]
    assert told_states == [s for s in states if s is not None]
    for version in ever:
        found = history.load(ctx, version)
        assert found is not None
        assert desk.fake.hashes(found.definition)[0] == version


@given(edits=EDITS, engine=st.booleans())
@ANY
def test_no_run_is_dated_to_a_version_that_it_did_not_use(
    edits: list[tuple[str, int]], engine: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    capabilities = FLOW_ENGINE if engine else FORGETFUL
    desk = VersionDesk(tmp_path_factory.mktemp("dated") / "home", capabilities=capabilities)
    ctx = desk.ctx()
    probes: list[tuple[Run, str]] = []
    for number, (edit, what) in enumerate([*edits, ("look", 0)]):
        if edit == "look":
            history.observe(ctx if what else desk.ctx())
        else:
            _edit(desk, edit, what)
        info = _payment(desk)
        if info is not None and info.active:
            now = datetime.now(UTC)
            live = desk.fake.live_version(info.id)
            assert live is not None
            run = Run(id=str(number), workflow_id=info.id, state=RunState.SUCCESS, started_at=now, stopped_at=now)
            probes.append((run, live.hash))
    known = history.spans(ctx)
    found = [(dated(run, known).version_hash, used) for run, used in probes]
    assert all(said in (None, used) for said, used in found), found


def _payment(desk: VersionDesk) -> Any:
    return next((w for w in desk.fake.workflows() if w.name == "Payment"), None)


def _edit(desk: VersionDesk, edit: str, number: int) -> None:
    """What somebody does in the platform's editor."""
    info, fake = _payment(desk), desk.fake
    if edit == "make" and info is None:
        fake.add(payment(str(number)), active=bool(number % 2))
    elif info is None:
        return
    elif edit == "save":
        fake.save(info.id, {**payment(str(number)), "settings": fake.draft_version(info.id).definition["settings"]})
    elif edit == "settings":
        fake.save(info.id, {**fake.draft_version(info.id).definition, "settings": {"executionTimeout": number}})
    elif edit == "publish":
        fake.activate(info.id)
    elif edit == "older":
        older = fake.versions(info.id)
        if older:
            fake.activate(info.id, older[number % len(older)].platform_version)
    elif edit == "pause":
        fake.deactivate(info.id)
    elif edit == "delete":
        fake.delete(info.id)


def _state(desk: VersionDesk) -> Any:
    info = _payment(desk)
    if info is None:
        return None
    saved, live = desk.fake.draft_version(info.id), desk.fake.live_version(info.id)
    return (info.id, saved.hash, saved.settings_hash, live.hash if live else None)


def _first_seen(hashes: list[str]) -> list[str]:
    return list(dict.fromkeys(hashes))
