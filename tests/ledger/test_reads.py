"""Timeline and metrics: the story people read and the numbers they are held to."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from ledger import Ledger, kinds
from ledger.entry import Entry
from ledger.metrics import Metrics, measure, metrics
from ledger.timeline import SENTENCES, line, seconds, story, timeline

START = datetime(2026, 11, 21, 12, tzinfo=UTC)


class Clock:
    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now

    def after(self, s: float) -> None:
        self.now = START + timedelta(seconds=s)


def entry(kind: str, /, **body: Any) -> Entry:
    return Entry(
        seq=1,
        at=START,
        kind=kind,
        app="desk",
        incident="INC-1",
        recovery="R1",
        step="undo",
        body=body,
        prev_hash="",
        hash="",
    )


def test_every_kind_is_documented_and_has_a_sentence() -> None:
    named = {v for k, v in vars(kinds).items() if k.isupper() and isinstance(v, str)} - {kinds.RESUMED}
    assert named == set(kinds.BODY_FIELDS) == set(SENTENCES)


@pytest.mark.parametrize("kind", sorted(SENTENCES))
def test_a_sentence_copes_with_an_empty_and_with_a_strange_body(kind: str) -> None:
    fields = {w.strip(" ,(?)") for w in kinds.BODY_FIELDS[kind].replace("{", " ").replace("[", " ").split()}
    for body in ({}, dict.fromkeys(fields, "text"), dict.fromkeys(fields, 3), {f: [None] for f in fields}):
        text = line(entry(kind, **body)).text
        assert text
        assert "\n" not in text


@pytest.mark.parametrize(
    ("made", "text", "tone"),
    [
        (
            entry(kinds.CONTAIN_PROVEN, workflows=["intake", "pay"], seconds=1.24, stopped_runs=["7"]),
            "Damage contained after 1.2 s: intake, pay proven paused; 1 unfinished run was stopped",
            "good",
        ),
        (
            entry(
                kinds.INCIDENT_DIAGNOSED, workflow="intake", bad_version="a" * 64, bad_runs=[{}] * 2, confidence=0.98
            ),
            "Cause found: version aaaaaaaaaaaa of intake; 2 runs to undo, 98% of the damage explained",
            "plain",
        ),
        (
            entry(kinds.PLAN_MADE, hash="b" * 64, effects=[{"delete": 1, "update": 1200, "insert": 0}], events=[{}]),
            "Plan bbbbbbbbbbbb made: 1,201 rows to change, 1 event to replay",
            "plain",
        ),
        (
            entry(kinds.PLAN_APPROVED, plan_hash="b" * 64, by="ann", reason="looks right", identity_proven=False),
            "Plan bbbbbbbbbbbb approved by ann (identity unproven): looks right",
            "plain",
        ),
        (
            entry(kinds.STEP_OUTCOME, status="failed", seconds=75, detail={"error": "no\nway"}),
            "Step undo failed after 75 s: no way",
            "bad",
        ),
        (
            entry(
                kinds.VERIFY_FAILED,
                suites={"ran": 9, "failed": [{}]},
                agreement=[{"name": "live", "holds": True}, {"name": "schema", "holds": False}],
            ),
            "Verification failed: 9 checks, 1 failed; broken: schema",
            "bad",
        ),
        (entry(kinds.RESUME_STAGE, stage=2, workflows=["pay"], ok=True), "Stage 2: pay resumed", "good"),
        (
            entry(kinds.PLAN_SHOWN, plan_hash="b" * 64, expires_at="2026-11-21T13:00:00+00:00"),
            "Plan bbbbbbbbbbbb waits for approval until 2026-11-21 13:00:00 UTC",
            "plain",
        ),
        (
            entry(kinds.RECOVERY_REQUESTED, trigger="event", number=12, mode="both"),
            "Recovery run #12 asked for by an automatic trigger",
            "plain",
        ),
        (
            entry(kinds.RECOVERY_REQUESTED, trigger="event", number=13, handled_by="flow run 7"),
            "Recovery run #13 asked for by an automatic trigger, with nothing to do: the incident was in other hands",
            "plain",
        ),
        (
            entry(kinds.RECOVERY_CONTINUED, why="its process died", attempt=2),
            "Recovery R1 is continued (attempt 2): its process died",
            "plain",
        ),
        (
            entry(kinds.NOTICE_SENT, subject="Orders are paused", audience="business", channel="mail"),
            "Notice 'Orders are paused' sent to business by mail",
            "plain",
        ),
        (
            entry(kinds.DRILL_SCORED, scenario="bad version", passed=False, reasons=["too slow"]),
            "Drill of bad version did not pass: too slow",
            "plain",
        ),
        (entry(kinds.FENCE_LOWERED, workflows=["intake"]), "intake may write, for the recovery alone", "plain"),
        (
            entry(kinds.DATA_APPLIED, operation="undo", by="ann", summary=["undo of run 7"], reason="wrong prices"),
            "ann did: undo of run 7: wrong prices",
            "plain",
        ),
        (
            entry(kinds.POINT_PROVEN, point="p1", passed=True, ran=7),
            "Recovery point p1 proven: restored into an empty database, 7 checks held",
            "plain",
        ),
        (
            entry(kinds.POINT_PROVEN, point="p1", passed=False, ran=7, problems=["shop.orders: 3 rows differ"]),
            "Recovery point p1 could not be proven: shop.orders: 3 rows differ",
            "plain",
        ),
        (entry("custom.kind-of_thing"), "Custom kind of thing (undo)", "plain"),
    ],
)
def test_sentences(made: Entry, text: str, tone: str) -> None:
    found = line(made)
    assert (found.text, found.tone) == (text, tone)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0, "0.0 s"),
        (0.84, "0.8 s"),
        (42.4, "42 s"),
        (185, "3 min 5 s"),
        (7800, "2 h 10 min"),
        (None, "an unknown time"),
    ],
)
def test_durations(value: object, words: str) -> None:
    assert seconds(value) == words


def test_the_story_holds_the_recoveries_entries_and_nothing_else(ledger: Ledger) -> None:
    ledger.append(kinds.INCIDENT_OPENED, app="desk", incident="INC-1")
    ledger.append(kinds.INCIDENT_OPENED, app="shop", incident="INC-2")
    ledger.append(kinds.RECOVERY_STARTED, app="desk", incident="INC-1", recovery="R1")
    ledger.append(kinds.STEP_INTENT, app="desk", recovery="R1", step="undo")
    ledger.append(kinds.STEP_INTENT, app="shop", recovery="R2", step="undo")
    assert [e.seq for e in story(ledger, "INC-1")] == [1, 3, 4]
    assert [t.seq for t in timeline(ledger, "INC-1")] == [1, 3, 4]
    assert timeline(ledger, "INC-9") == []


@pytest.fixture
def told(path: Path) -> Metrics:
    clock = Clock()
    with Ledger(path, clock=clock) as ledger:

        def at(s: float, kind: str, step: str | None = None, /, **body: Any) -> None:
            clock.after(s)
            ledger.append(kind, app="desk", incident="INC-1", recovery="R1", step=step, body=body)

        at(10, kinds.INCIDENT_OPENED)
        at(11, kinds.CONTAIN_STARTED)
        at(12.5, kinds.CONTAIN_PROVEN)
        at(20, kinds.INCIDENT_DIAGNOSED, first_bad_at=(START + timedelta(seconds=4)).isoformat())
        at(30, kinds.RECOVERY_STARTED)
        at(31, kinds.STEP_INTENT, "undo", kind="undo")
        at(33, kinds.STEP_OUTCOME, "undo", status="failed", seconds=2)
        at(34, kinds.STEP_INTENT, "undo", kind="undo")
        at(35, kinds.CONTAIN_PROVEN)
        at(37, kinds.STEP_OUTCOME, "undo", status="done", seconds=3)
        at(38, kinds.STEP_INTENT, "check", kind="verify")
        at(48, kinds.STEP_OUTCOME, "check", status="done", seconds=10)
        at(60, kinds.RECOVERY_FINISHED, data_loss_s=0)
        at(90, kinds.INCIDENT_CLOSED)
        return metrics(ledger, "INC-1")


def test_metrics_are_measured_from_the_record(told: Metrics) -> None:
    assert told == Metrics(
        first_bad_at=START + timedelta(seconds=4),
        detected_at=START + timedelta(seconds=10),
        contained_at=START + timedelta(seconds=12.5),
        recovered_at=START + timedelta(seconds=60),
        detect_s=6.0,
        contain_s=2.5,
        diagnose_s=10.0,
        recover_s=30.0,
        verify_s=10.0,
        total_s=56.0,
        data_loss_s=0.0,
        steps={"undo": 5.0, "check": 10.0},
    )


def test_one_half_alone_is_no_end_of_the_outage() -> None:
    found = measure([entry(kinds.RECOVERY_STARTED), entry(kinds.RECOVERY_FINISHED, state="data-restored")])
    assert (found.recover_s, found.total_s, found.recovered_at) == (0.0, None, None)


def test_nothing_is_measured_that_is_not_on_record() -> None:
    assert measure([]) == Metrics()
    assert measure([entry(kinds.INCIDENT_OPENED, detected_at="yesterday")]) == Metrics(detected_at=START)


def test_a_clock_ahead_of_the_ledgers_gives_no_negative_time() -> None:
    ahead = (START + timedelta(seconds=5)).isoformat()
    found = measure([entry(kinds.INCIDENT_OPENED), entry(kinds.INCIDENT_DIAGNOSED, first_bad_at=ahead)])
    assert found.detect_s == 0.0
