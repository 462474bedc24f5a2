"""What a rerun may conclude about a step."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger import Ledger, steps
from ledger.errors import LeaseLost, Refused


def test_an_intent_without_outcome_is_unknown(ledger: Ledger) -> None:
    steps.intent(ledger, "R1", "undo", app="desk", incident="I1", body={"kind": "undo"})
    known = steps.state(ledger, "R1")["undo"]
    assert isinstance(known, steps.Intent)
    assert (known.done, known.finished, known.attempt) == (False, False, 1)


def test_outcomes(ledger: Ledger) -> None:
    for step, status in (("a", "done"), ("b", "failed")):
        steps.intent(ledger, "R1", step, app="desk")
        steps.outcome(ledger, "R1", step, app="desk", status=status)  # type: ignore[arg-type]
    steps.outcome(ledger, "R1", "c", app="desk", status="skipped")
    steps.intent(ledger, "R2", "a", app="desk")
    known = steps.state(ledger, "R1")
    assert [(type(s), s.done, s.finished) for s in known.values()] == [
        (steps.Done, True, True),
        (steps.Failed, False, True),
        (steps.Skipped, True, True),
    ]
    assert list(known) == ["a", "b", "c"]


def test_the_time_is_measured_from_the_intent_unless_given(ledger: Ledger) -> None:
    for step, body in (("a", {}), ("b", {"seconds": 7.5, "detail": {"rows": 3}})):
        steps.intent(ledger, "R1", step, app="desk")
        steps.outcome(ledger, "R1", step, app="desk", status="done", body=body)
    known = steps.state(ledger, "R1")
    assert 0 <= known["a"].body["seconds"] < 5
    assert known["a"].body["detail"] == {}
    assert known["b"].body == {"status": "done", "seconds": 7.5, "detail": {"rows": 3}}


def test_a_failed_step_may_be_tried_again(ledger: Ledger) -> None:
    for status in ("failed", "done"):
        steps.intent(ledger, "R1", "a", app="desk")
        steps.outcome(ledger, "R1", "a", app="desk", status=status)  # type: ignore[arg-type]
    known = steps.state(ledger, "R1")["a"]
    assert isinstance(known, steps.Done)
    assert known.attempt == 2


def test_an_outcome_needs_an_intent_of_its_own(ledger: Ledger) -> None:
    with pytest.raises(Refused, match="never begun"):
        steps.outcome(ledger, "R1", "a", app="desk", status="done")
    steps.intent(ledger, "R1", "a", app="desk")
    steps.outcome(ledger, "R1", "a", app="desk", status="done")
    with pytest.raises(Refused, match="has its outcome already"):
        steps.outcome(ledger, "R1", "a", app="desk", status="failed")
    with pytest.raises(Refused, match="none of done, failed, skipped"):
        steps.outcome(ledger, "R1", "a", app="desk", status="fine")  # type: ignore[arg-type]
    assert len(ledger.entries()) == 2


def test_no_intent_without_the_lease(ledger: Ledger) -> None:
    lease = ledger.lease("desk", "R1")
    steps.intent(ledger, "R1", "a", app="desk", lease=lease)
    lease.release()
    with pytest.raises(LeaseLost):
        steps.intent(ledger, "R1", "b", app="desk", lease=lease)
    assert list(steps.state(ledger, "R1")) == ["a"]


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from(["intent", "done", "failed", "skipped"])), max_size=8))
def test_every_interrupted_prefix_is_classified_by_its_last_entry(history: list[tuple[str, str]]) -> None:
    from datetime import UTC, datetime

    from ledger.entry import Entry

    entries = [
        Entry(
            seq=i,
            at=datetime(2026, 1, 1, tzinfo=UTC),
            kind="step.intent" if what == "intent" else "step.outcome",
            app="desk",
            incident=None,
            recovery="R1",
            step=step,
            body={} if what == "intent" else {"status": what},
            prev_hash="",
            hash="",
        )
        for i, (step, what) in enumerate(history, start=1)
    ]
    for end in range(len(entries) + 1):
        known = steps.fold(entries[:end])
        last = dict(history[:end])
        assert {s: type(k).__name__.lower() for s, k in known.items()} == last
        assert {s for s, k in known.items() if not k.finished} == {s for s, w in last.items() if w == "intent"}
