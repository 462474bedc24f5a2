"""A run that is replayed may have written without a tag: all of it is undone, or nothing is planned."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from recovery.closure import doubtful, settle
from recovery.errors import Refused
from recovery.plan import RunSelection
from snapshots.journal.attribution import Attributed
from snapshots.model import Attribution, JournalTx

AT = datetime(2026, 11, 21, tzinfo=UTC)


def stopped(run: str, *, attribution: str = "none", why: str = "interrupted") -> RunSelection:
    return RunSelection.model_validate(
        {"workflow": "status", "role": "wf", "run_id": run, "xids": (), "why": why, "attribution": attribution}
    )


def wrote(xid: int, grade: Attribution, *candidates: str) -> Attributed:
    tx = JournalTx(xid=xid, actor="wf", run=None, first_at=AT, last_at=AT, rows=1, tables=("desk.orders",))
    run = candidates[0] if grade.certain else None
    return Attributed(tx=tx, attribution=grade, run_id=run, workflow_id="w", candidates=candidates, evidence="told")


def test_what_is_surely_its_own_joins_it() -> None:
    known = {1: wrote(1, Attribution.UNIQUE, "7"), 2: wrote(2, Attribution.UNIQUE, "8")}
    [found] = settle("desk", [stopped("7")], known)
    assert (found.run_id, found.xids, found.why, found.attribution) == ("7", (1,), "interrupted", "unique")


def test_what_may_be_its_own_refuses_the_plan() -> None:
    with pytest.raises(
        Refused, match=r"run 7 of status is to be undone and may have written transaction 3 \(desk.orders\)"
    ):
        settle("desk", [stopped("7")], {3: wrote(3, Attribution.AMBIGUOUS, "8", "7")})


def test_what_others_may_have_written_is_not_its_business() -> None:
    known = {3: wrote(3, Attribution.AMBIGUOUS, "8", "9")}
    assert settle("desk", [stopped("7")], known) == [stopped("7")]


def test_what_only_undone_runs_may_have_written_goes_with_one_of_them() -> None:
    known = {3: wrote(3, Attribution.AMBIGUOUS, "8", "7"), 4: wrote(4, Attribution.AMBIGUOUS, "7", "8")}
    found = settle("desk", [stopped("7"), stopped("8", why="bad-version")], known)
    assert sorted(x for s in found for x in s.xids) == [3, 4]


def test_tagged_runs_are_in_no_doubt() -> None:
    assert doubtful(stopped("7"))
    assert doubtful(stopped("7", why="bad-version"))
    assert not doubtful(stopped("7", attribution="exact"))
