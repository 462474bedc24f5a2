"""Attribution among workflows of one database role, by the rows that runs name."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from platforms.base import Run, RunDetail, RunState
from platforms.fake import FakePlatform
from snapshots.journal.attribution import attribute
from snapshots.journal.written import attribute_by_rows, keys_of
from snapshots.model import Attribution, JournalTx

START = datetime(2026, 11, 22, 10, tzinfo=UTC)
ROLES = {"intake": "directus", "confirm": "directus"}
Rows = dict[str, dict[str, frozenset[str]]]


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def write(xid: int, seconds: float, op: str, table: str, *keys: str) -> JournalTx:
    return JournalTx(
        xid=xid,
        actor="directus",
        run=None,
        first_at=at(seconds),
        last_at=at(seconds),
        rows=len(keys),
        tables=(table,),
        keys={table: tuple((k,) for k in keys)},
        ops=frozenset(op),
    )


def ended(run_id: str, seconds: float, *, workflow: str = "intake", version: str | None = "v1") -> Run:
    """A run as a platform tells it that records only the end: its start is the earliest possible."""
    return Run(
        id=run_id,
        workflow_id=workflow,
        state=RunState.SUCCESS,
        started_at=at(seconds - 1),
        stopped_at=at(seconds),
        version_hash=version,
    )


class Telling(FakePlatform):
    """It knows what each run wrote; ``None`` where it does not tell."""

    def __init__(self, wrote: dict[str, Rows | None], runs: list[Run]) -> None:
        super().__init__()
        self.details = {r.id: RunDetail(run=r, event=None, outputs={}, wrote=wrote.get(r.id)) for r in runs}
        self.asked: list[str] = []

    @property
    def capabilities(self) -> Any:
        return replace(super().capabilities, names_written_rows=True)

    def run_detail(self, run_id: str) -> RunDetail:
        self.asked.append(run_id)
        return self.details[run_id]


def graded(runs: list[Run], wrote: dict[str, Rows | None], *writes: JournalTx) -> list[tuple[Attribution, str | None]]:
    found = attribute_by_rows(Telling(wrote, runs), list(writes), runs, ROLES)
    return [(a.attribution, a.run_id) for a in found]


def rows(op: str, *keys: str, table: str = "orders") -> Rows:
    return {table: {op: frozenset(keys)}}


def test_workflows_of_one_role_are_told_apart_by_the_rows_they_name() -> None:
    runs = [ended("1", 1.0), ended("2", 1.1, workflow="confirm"), ended("3", 1.2)]
    wrote: dict[str, Rows | None] = {"1": rows("I", "17"), "2": rows("I", "17", table="receipts"), "3": rows("I", "18")}
    order, receipt = write(5, 0.9, "I", "app.orders", "17"), write(6, 1.05, "I", "app.receipts", "17")
    assert graded(runs, wrote, order, receipt) == [(Attribution.UNIQUE, "1"), (Attribution.UNIQUE, "2")]
    assert {a.attribution for a in attribute([order, receipt], runs, ROLES)} == {Attribution.AMBIGUOUS}


def test_a_row_made_by_one_run_and_changed_by_another_is_told_by_the_kind_of_write() -> None:
    runs = [ended("1", 1.0, version="good"), ended("2", 1.1, version="bad")]
    wrote: dict[str, Rows | None] = {"1": rows("I", "17"), "2": rows("U", "17")}
    found = graded(runs, wrote, write(5, 0.9, "I", "app.orders", "17"), write(6, 1.05, "U", "app.orders", "17"))
    assert found == [(Attribution.UNIQUE, "1"), (Attribution.UNIQUE, "2")]


def test_a_write_that_no_run_names_is_nobodys_even_if_only_one_run_was_there() -> None:
    runs = [ended("1", 1.0)]
    assert graded(runs, {"1": rows("I", "17")}, write(5, 0.9, "U", "app.orders", "3")) == [(Attribution.NONE, None)]


@pytest.mark.parametrize(
    ("versions", "expected"),
    [
        (("bad", "bad"), (Attribution.UNIQUE, "1")),
        (("good", "bad"), (Attribution.AMBIGUOUS, None)),
        ((None, None), (Attribution.AMBIGUOUS, None)),
    ],
    ids=["one-version", "two-versions", "unknown"],
)
def test_two_runs_that_name_one_row_decide_only_when_it_makes_no_difference(versions: Any, expected: Any) -> None:
    runs = [ended(str(n), 1 + n / 10, version=version) for n, version in enumerate(versions, start=1)]
    wrote: dict[str, Rows | None] = {"1": rows("U", "17"), "2": rows("U", "17")}
    assert graded(runs, wrote, write(5, 1.0, "U", "app.orders", "17")) == [expected]


def test_sure_writes_narrow_the_clocks_difference_and_so_the_candidates() -> None:
    runs = [ended("1", 1.0, version="good"), ended("2", 4.0, version="bad"), ended("3", 4.2, version="bad")]
    wrote: dict[str, Rows | None] = {"1": rows("U", "17"), "2": rows("U", "17"), "3": rows("I", "30")}
    late = write(6, 3.9, "U", "app.orders", "17")
    assert graded(runs, wrote, late) == [(Attribution.AMBIGUOUS, None)], "five seconds either way"
    assert graded(runs, wrote, late, write(7, 4.15, "I", "app.orders", "30"))[0] == (Attribution.UNIQUE, "2")


def test_a_run_that_does_not_tell_leaves_the_write_open() -> None:
    runs = [ended("1", 1.0), ended("2", 1.1)]
    found = graded(runs, {"1": rows("I", "17"), "2": None}, write(5, 0.9, "I", "app.orders", "17"))
    assert found == [(Attribution.AMBIGUOUS, None)]


def test_a_platform_that_names_no_rows_is_asked_for_nothing() -> None:
    platform, run = FakePlatform(), ended("1", 1.0)
    found = attribute_by_rows(platform, [write(5, 0.9, "I", "app.orders", "17")], [run], ROLES)
    assert [(a.attribution, a.run_id) for a in found] == [(Attribution.UNIQUE, "1")]


def test_tables_are_found_with_and_without_their_schema() -> None:
    run = ended("1", 1.0)
    told = RunDetail(run=run, event=None, outputs={}, wrote={"orders": {"I": frozenset({"1"})}, "app.log": {}})
    assert keys_of(told, ["app.orders", "app.log", "app.other"]) == {
        "app.orders": {"I": {("1",)}},
        "app.log": {},
        "app.other": {},
    }
    assert keys_of(replace(told, wrote=None), ["app.orders"]) is None
