"""A write is given to a run only when no other run can have written it, however the clocks differ."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from time import perf_counter
from typing import Any

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from platforms.base import Run, RunState
from snapshots.journal.attribution import UNKNOWN_OFFSET, Attributed, attribute, estimate_offset, tagged_pairs
from snapshots.model import Attribution, JournalTx

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
ROLES = {"w1": "wf_one", "w1-private": "wf_one", "w2": "wf_two"}


def at(seconds: float) -> datetime:
    return EPOCH + timedelta(seconds=seconds)


def run(id_: str, start: float | None, end: float | None, *, workflow: str = "w1", state: str = "success") -> Run:
    return Run(
        id=id_,
        workflow_id=workflow,
        state=RunState(state),
        started_at=None if start is None else at(start),
        stopped_at=None if end is None else at(end),
    )


def tx(
    first: float, last: float | None = None, *, tag: str | None = None, actor: str = "wf_one", keys: Any = None
) -> JournalTx:
    return JournalTx(
        xid=1, actor=actor, run=tag, first_at=at(first), last_at=at(first if last is None else last), rows=1,
        tables=("public.t",), keys=keys or {},
    )  # fmt: skip


def grade(transaction: JournalTx, runs: Sequence[Run], **options: Any) -> Attributed:
    options.setdefault("offset_s", 0.0)
    (found,) = attribute([transaction], runs, ROLES, **options)
    return found


TWO = [run("a", 0, 10), run("b", 5, 15), run("c", 0, 20, workflow="w2")]


@pytest.mark.parametrize(
    ("transaction", "expected", "run_id", "evidence"),
    [
        (tx(6, tag="a"), Attribution.EXACT, "a", "tagged with run a"),
        (tx(6, tag="zz"), Attribution.NONE, None, "does not know"),
        (tx(6, tag="c"), Attribution.AMBIGUOUS, None, "of role wf_two, but written by wf_one"),
        (tx(60, tag="a"), Attribution.AMBIGUOUS, None, "49.8 s outside"),
        (tx(2), Attribution.UNIQUE, "a", "run a is the only one of wf_one"),
        (tx(12), Attribution.UNIQUE, "b", "only one"),
        (tx(6), Attribution.AMBIGUOUS, None, "2 runs of wf_one overlap the write: a, b"),
        (tx(60), Attribution.NONE, None, "no run of wf_one within 0.5 s"),
        (tx(2, actor="clerk"), Attribution.NONE, None, "no workflow known to write as clerk"),
        (tx(2, actor="wf_two"), Attribution.UNIQUE, "c", "only one"),
    ],
)
def test_grades(transaction: JournalTx, expected: Attribution, run_id: str | None, evidence: str) -> None:
    found = grade(transaction, TWO)
    assert (found.attribution, found.run_id) == (expected, run_id)
    assert evidence in found.evidence


def test_an_unknown_offset_widens_the_window() -> None:
    assert grade(tx(2), TWO).attribution is Attribution.UNIQUE
    assert grade(tx(2), TWO, offset_s=(-5.0, 5.0)).attribution is Attribution.AMBIGUOUS
    assert grade(tx(2), TWO, offset_s=(100.0, 101.0)).attribution is Attribution.NONE
    with pytest.raises(ValueError, match="empty"):
        grade(tx(2), TWO, offset_s=(1.0, 0.0))


def test_unfinished_runs_may_have_written_and_unstarted_ones_not() -> None:
    running = run("r", 0, None, state="running")
    assert grade(tx(99), [running]).run_id == "r"
    assert grade(tx(99), [running, run("n", None, None, state="new")]).run_id == "r"
    assert grade(tx(99), [running, run("w", None, None, state="waiting")]).attribution is Attribution.AMBIGUOUS


def test_a_private_copy_belongs_to_the_same_role() -> None:
    assert grade(tx(2), [run("p", 0, 10, workflow="w1-private")]).workflow_id == "w1-private"


@pytest.mark.parametrize(
    ("returned", "run_id"),
    [
        ({"a": {"public.t": [("1",)]}, "b": {"public.t": [("2",)]}}, "a"),
        ({"a": {"public.t": [("1",)]}, "b": {"public.t": [("1",), ("2",)]}}, None),
        ({"a": {"public.t": [("1",)]}}, None),
        ({"a": {"public.other": [("1",)]}, "b": {}}, None),
        ({"a": {}, "b": {"public.t": {("1",), ("3",)}}}, "b"),
    ],
)
def test_handled_keys_decide_only_if_every_candidate_is_known(returned: Any, run_id: str | None) -> None:
    found = grade(tx(6, keys={"public.t": (("1",),)}), TWO, returned_keys=returned)
    assert found.run_id == run_id
    assert found.attribution is (Attribution.UNIQUE if run_id else Attribution.AMBIGUOUS)


def test_half_of_the_keys_decide_nothing() -> None:
    found = grade(
        tx(6, keys={"public.t": (("1",), ("2",))}),
        TWO,
        returned_keys={"a": {"public.t": [("1",)]}, "b": {}},
    )
    assert found.attribution is Attribution.AMBIGUOUS


def test_offset_bounds_are_intersected() -> None:
    # Platform 3 s ahead: runs at database time 0-2 and 10-10.5, written at 1 and 10.4.
    pairs = [(tx(1), run("a", 3, 5)), (tx(10.4), run("b", 13, 13.5))]
    low, high = estimate_offset(pairs, slack_s=0)
    assert (low, high) == pytest.approx((2.6, 3.1))
    assert low <= 3 <= high
    assert estimate_offset([]) == UNKNOWN_OFFSET
    assert estimate_offset([(tx(1), run("a", 3, None, state="running"))], slack_s=0) == (2.0, 5.0)


def test_a_health_answer_bounds_the_offset_too() -> None:
    low, high = estimate_offset([], health=(at(0), at(3), at(0.2)))
    assert (low, high) == pytest.approx((2.8, 4.0))


def test_contradicting_bounds_widen_instead_of_lying() -> None:
    low, high = estimate_offset([(tx(1), run("a", 1, 1.1)), (tx(50), run("b", 53, 53.1))], slack_s=0)
    assert low <= 0
    assert high >= 3


@dataclass(frozen=True)
class World:
    offset: float
    runs: list[Run]
    transactions: list[JournalTx]
    truth: list[str]
    returned: dict[str, dict[str, set[tuple[str, ...]]]]


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """Runs of two workflows at database times, each with writes inside; the platform's clock is off."""
    offset = draw(st.floats(-5, 5))
    second = st.floats(0, 40)
    runs, transactions, truth = [], [], []
    returned: dict[str, dict[str, set[tuple[str, ...]]]] = {}
    for n in range(draw(st.integers(1, 8))):
        start, length = draw(second), draw(st.sampled_from([0.05, 0.5, 3.0, 15.0]))
        workflow = draw(st.sampled_from(["w1", "w1-private", "w2"]))
        open_ended = draw(st.booleans()) and draw(st.booleans())
        # Platforms round to milliseconds.
        shown = [round(t + offset, 3) for t in (start, start + length)]
        runs.append(
            run(f"r{n}", shown[0], None if open_ended else shown[1], workflow=workflow,
                state="running" if open_ended else "success")
        )  # fmt: skip
        handled = {(str(k),) for k in draw(st.sets(st.integers(0, 3), max_size=2))}
        for _ in range(draw(st.integers(0, 2))):
            first, last = sorted(start + length * draw(st.floats(0, 1)) for _ in range(2))
            key = (str(draw(st.integers(0, 5))),)
            handled.add(key)
            tag = f"r{n}" if draw(st.booleans()) else None
            transactions.append(tx(first, last, tag=tag, actor=ROLES[workflow], keys={"public.t": (key,)}))
            truth.append(f"r{n}")
        if draw(st.integers(0, 3)):
            returned[f"r{n}"] = {"public.t": handled}
    return World(offset=offset, runs=runs, transactions=transactions, truth=truth, returned=returned)


@settings(deadline=None)
@given(worlds(), st.booleans())
def test_no_wrong_attribution_is_ever_certain(world: World, with_health: bool) -> None:
    health = None
    if with_health:
        asked = 7.3
        health = (at(asked), at(float(int(asked + 0.1 + world.offset))), at(asked + 0.3))
        if asked + 0.1 + world.offset < 0:
            health = None
    bounds = estimate_offset(tagged_pairs(world.transactions, world.runs, ROLES), health=health)
    assert bounds[0] - 1e-3 <= world.offset <= bounds[1] + 1e-3
    found = attribute(world.transactions, world.runs, ROLES, offset_s=bounds, returned_keys=world.returned)
    assert [f.tx for f in found] == world.transactions
    for answer, true_run in zip(found, world.truth, strict=True):
        event(answer.attribution)
        if answer.attribution.certain:
            assert answer.run_id == true_run, answer.evidence
        else:
            assert answer.run_id is None
            assert true_run in answer.candidates, "the true run is never ruled out"
        if answer.tx.run is not None:
            assert answer.attribution is Attribution.EXACT


def test_thousands_of_runs_and_transactions_take_no_time() -> None:
    runs = [run(f"r{n}", n * 0.5, n * 0.5 + 0.4) for n in range(8000)]
    transactions = [tx(n * 0.5 + 0.2) for n in range(8000)]
    start = perf_counter()
    found = attribute(transactions, runs, ROLES, offset_s=0.0, slack_s=0.0)
    assert perf_counter() - start < 5
    assert all(f.run_id == f"r{n}" for n, f in enumerate(found))
