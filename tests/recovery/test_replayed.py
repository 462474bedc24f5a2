"""What the record says of the events that recoveries replayed."""

from __future__ import annotations

from datetime import UTC, datetime

from ledger import kinds
from ledger.entry import Entry
from recovery.replayed import in_plans

NOW = datetime(2026, 1, 1, tzinfo=UTC)
A, B = ("intake", "a"), ("intake", "b")


def entry(kind: str, recovery: str, step: str | None = None, **body: object) -> Entry:
    return Entry(
        seq=1,
        at=NOW,
        kind=kind,
        app="kiosk",
        incident="INC-1",
        recovery=recovery,
        step=step,
        body=body,
        prev_hash="",
        hash="",
    )


def planned(recovery: str, *events: tuple[str, str]) -> Entry:
    return entry(kinds.PLAN_MADE, recovery, events=[{"workflow": w, "key": k} for w, k in events])


def began(recovery: str, step: str = "replay") -> Entry:
    return entry(kinds.STEP_INTENT, recovery, step)


def ended(recovery: str, status: str, step: str = "replay") -> Entry:
    return entry(kinds.STEP_OUTCOME, recovery, step, status=status)


def test_what_was_never_begun_is_neither_done_nor_unsure() -> None:
    assert in_plans([planned("R1", A), began("R1", "undo"), ended("R1", "done", "undo")]) == (set(), set())


def test_what_began_is_unsure_until_it_is_done() -> None:
    begun = [planned("R1", A), began("R1")]
    assert in_plans(begun) == (set(), {A})
    assert in_plans([*begun, ended("R1", "failed")]) == (set(), {A})
    assert in_plans([*begun, ended("R1", "failed"), began("R1"), ended("R1", "done")]) == ({A}, set())


def test_the_newest_replay_of_an_event_counts() -> None:
    first = [planned("R1", A, B), began("R1"), ended("R1", "done")]
    assert in_plans([*first, planned("R2", A), began("R2")]) == ({B}, {A})
    assert in_plans([*first, planned("R2", A), began("R2"), ended("R2", "done")]) == ({A, B}, set())
