"""The steward's questions to a real ledger: what is due is named once, whoever asks at the same instant."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from catalog.models import App
from incidents import record
from ledger import Ledger, kinds
from recovery import keeping, leftover
from recovery.context import AppContext
from tests.recovery.kiosk import app_model

START = datetime(2026, 11, 21, 12, tzinfo=UTC)
RECOVERY = "R1-INC-20261121-0001"


@dataclass
class Desk:
    """What :mod:`recovery.keeping` needs of an opened app."""

    app: App
    ledger: Ledger


class Clock:
    now = START

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ctx(tmp_path: Path, clock: Clock) -> Iterator[AppContext]:
    with Ledger(tmp_path / "ledger.sqlite", clock=clock) as ledger:
        yield cast(AppContext, Desk(app_model(), ledger))


def contained(ctx: AppContext) -> str:
    incident = record.open_incident(
        ctx.ledger, "kiosk", severity="sev2", title="totals", impact="Wrong bills.", workflows=["intake"]
    ).id
    say(ctx, kinds.CONTAIN_PROVEN, workflows=["intake", "payment"])
    say(ctx, kinds.INCIDENT_DIAGNOSED)
    return incident


def say(ctx: AppContext, kind: str, recovery: str | None = None, **body: Any) -> None:
    found = record.find_open(ctx.ledger, "kiosk")
    assert found
    ctx.ledger.append(kind, app="kiosk", incident=found.id, recovery=recovery, body=body)


def started(ctx: AppContext) -> str:
    incident = contained(ctx)
    say(ctx, kinds.PLAN_MADE, RECOVERY, hash="h", mode="both")
    say(ctx, kinds.PLAN_SHOWN, RECOVERY, plan_hash="h", flow_run="f1", expires_at=(START + timedelta(60)).isoformat())
    say(ctx, kinds.PLAN_APPROVED, RECOVERY, plan_hash="h", by="ann")
    say(ctx, kinds.RECOVERY_STARTED, RECOVERY, plan_hash="h", mode="both", flow_run="f1")
    return incident


def test_an_announcement_says_what_an_automation_needs_and_is_due_once(ctx: AppContext, clock: Clock) -> None:
    incident = contained(ctx)
    (found,) = keeping.unannounced(ctx, clock.now)
    assert (found.incident, found.event) == (incident, "reinstate.incident.contained")
    assert found.payload == {
        "incident": incident,
        "app": "kiosk",
        "severity": "sev2",
        "title": "totals",
        "impact": "Wrong bills.",
        "workflows": ["intake", "payment"],
        "contained": True,
        "diagnosed": True,
        "number": 1,
    }
    keeping.announced(ctx, incident, "e1")
    assert keeping.unannounced(ctx, clock.now) == []
    clock.now += timedelta(seconds=leftover.AGAIN_S)
    assert [a.payload["number"] for a in keeping.unannounced(ctx, clock.now)] == [2]
    record.close(ctx.ledger, incident, reason="by hand")
    assert keeping.unannounced(ctx, clock.now) == []


def test_a_plan_past_its_time_is_overdue_until_it_is_decided(ctx: AppContext, clock: Clock) -> None:
    incident = contained(ctx)
    until = START + timedelta(seconds=60)
    say(ctx, kinds.PLAN_MADE, RECOVERY, hash="h")
    say(ctx, kinds.PLAN_SHOWN, RECOVERY, plan_hash="h", flow_run="f1", expires_at=until.isoformat())
    assert keeping.overdue(ctx, until - timedelta(seconds=1)) == []
    shown = keeping.Shown(recovery=RECOVERY, incident=incident, plan_hash="h", flow_run="f1", expires_at=until)
    assert keeping.overdue(ctx, until) == [shown]
    say(ctx, kinds.PLAN_EXPIRED, RECOVERY, plan_hash="h", expires_at=until.isoformat())
    assert keeping.overdue(ctx, until) == []


def test_a_living_recovery_is_left_alone(ctx: AppContext, clock: Clock) -> None:
    started(ctx)
    with ctx.ledger.lease("kiosk", "recovery by process 1", ttl_s=3600):
        clock.now += timedelta(seconds=600)
        assert keeping.dead(ctx, clock.now) == []
        found = leftover.lost(ctx.ledger.entries(), clock.now)
        assert found is not None
        assert not keeping.continuing(ctx, found)
    assert keeping.dead(ctx, clock.now) == [found]


def test_two_stewards_continue_it_once(ctx: AppContext, clock: Clock) -> None:
    started(ctx)
    clock.now += timedelta(seconds=60)
    (found,) = keeping.dead(ctx, clock.now)
    assert (found.mode, found.flow_run, found.attempt) == ("both", "f1", 1)
    barrier = threading.Barrier(4)
    said: list[bool] = []

    def steward() -> None:
        barrier.wait()
        said.append(keeping.continuing(ctx, found, "f2"))

    threads = [threading.Thread(target=steward) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(said) == [False, False, False, True]
    (entry,) = ctx.ledger.entries(kinds=[kinds.RECOVERY_CONTINUED])
    assert (entry.recovery, entry.body["attempt"], entry.body["previous"], entry.body["flow_run"]) == (
        RECOVERY, 1, "f1", "f2",
    )  # fmt: skip
    assert keeping.dead(ctx, clock.now) == []


def test_the_fourth_continuation_is_a_stop_on_record(ctx: AppContext, clock: Clock) -> None:
    started(ctx)
    said = []
    for _ in range(5):
        clock.now += timedelta(seconds=1000)
        said += [keeping.continuing(ctx, d) for d in keeping.dead(ctx, clock.now)]
    assert said == [True, True, True, False]
    assert [e.body["attempt"] for e in ctx.ledger.entries(kinds=[kinds.RECOVERY_CONTINUED])] == [1, 2, 3]
    (stop,) = ctx.ledger.entries(kinds=[kinds.RECOVERY_STOPPED])
    assert (stop.body["state"], stop.body["gave_up"]) == ("paused", True)
    assert "3 times" in stop.body["reason"]
    assert record.all_of(ctx.ledger)[0].status is record.Status.STOPPED


@pytest.mark.parametrize("ended", [kinds.RECOVERY_ABANDONED, kinds.INCIDENT_CLOSED, kinds.STEP_INTENT])
def test_what_moved_on_between_look_and_record_is_not_continued(ctx: AppContext, clock: Clock, ended: str) -> None:
    started(ctx)
    clock.now += timedelta(seconds=60)
    (found,) = keeping.dead(ctx, clock.now)
    say(ctx, ended, None if ended == kinds.INCIDENT_CLOSED else RECOVERY)
    assert not keeping.continuing(ctx, found)
    assert ctx.ledger.entries(kinds=[kinds.RECOVERY_CONTINUED, kinds.RECOVERY_STOPPED]) == []


def test_who_looked_long_ago_continues_nothing(ctx: AppContext, clock: Clock) -> None:
    started(ctx)
    clock.now += timedelta(seconds=60)
    (old,) = keeping.dead(ctx, clock.now)
    assert keeping.continuing(ctx, old)
    clock.now += timedelta(seconds=1000)
    assert not keeping.continuing(ctx, old)
    (new,) = keeping.dead(ctx, clock.now)
    assert (new.attempt, new.key) == (2, f"{RECOVERY}-continued-2")
