"""What is left to do is found from entries alone: nothing twice, nothing that lives or ended, and always an end."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from incidents import record
from ledger import kinds
from ledger.entry import Entry
from recovery import leftover
from recovery.leftover import CONTAINED, OPENED, due, lost, pending

START = datetime(2026, 11, 21, 12, tzinfo=UTC)
INCIDENT = "INC-1"


@dataclass
class World:
    """One incident as people, runs and a steward make it; ``holder`` is the recovery whose process lives."""

    may_contain: bool = True
    now: datetime = START
    entries: list[Entry] = field(default_factory=list)
    holder: str | None = None
    plan: tuple[str, str] | None = None
    closed: bool = False
    ends: dict[str, str] = field(default_factory=dict)
    """How each recovery stands, by the simulation's own bookkeeping."""
    announcements: list[tuple[datetime, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.say(kinds.INCIDENT_OPENED, severity="sev2", title="wrong totals")

    def say(self, kind: str, recovery: str | None = None, *, step: str | None = None, **body: Any) -> None:
        self.entries.append(
            Entry(
                seq=len(self.entries) + 1,
                at=self.now,
                kind=kind,
                app="desk",
                incident=INCIDENT,
                recovery=recovery,
                step=step,
                body=body,
                prev_hash="",
                hash="",
            )
        )

    def wait(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    # What people and runs do

    def contain(self) -> None:
        self.say(kinds.CONTAIN_PROVEN, workflows=["intake"])

    def diagnose(self) -> None:
        self.say(kinds.INCIDENT_DIAGNOSED)

    def request(self, trigger: str = "event") -> None:
        self.say(kinds.RECOVERY_REQUESTED, trigger=trigger, flow_run="f1", number=1, mode="both")

    def make(self) -> None:
        if self.holder or any(how in ("started", "stopped", "interrupted") for how in self.ends.values()):
            return
        recovery = f"R{sum(how != 'planned' for how in self.ends.values()) + 1}"
        self.plan = recovery, f"hash-{len(self.entries)}"
        self.ends[recovery] = "planned"
        self.say(kinds.PLAN_MADE, recovery, hash=self.plan[1], mode="data")

    def show(self) -> None:
        if self.plan and self.ends[self.plan[0]] == "planned":
            until = self.now + timedelta(seconds=300)
            self.say(
                kinds.PLAN_SHOWN, self.plan[0], plan_hash=self.plan[1], flow_run="f2", expires_at=until.isoformat()
            )

    def approve(self) -> None:
        if self.plan and self.ends[self.plan[0]] == "planned":
            self.say(kinds.PLAN_APPROVED, self.plan[0], plan_hash=self.plan[1], by="ann")
            self.ends[self.plan[0]] = "approved"

    def reject(self) -> None:
        if self.plan and self.ends[self.plan[0]] in ("planned", "approved"):
            self.say(kinds.PLAN_REJECTED, self.plan[0], plan_hash=self.plan[1], by="ann")
            self.ends[self.plan[0]] = "planned"

    def start(self) -> None:
        if self.plan and not self.holder and self.ends[self.plan[0]] in ("approved", "started", "interrupted"):
            self.holder = self.plan[0]
            self.ends[self.holder] = "started"
            self.say(kinds.RECOVERY_STARTED, self.holder, flow_run="f3", mode="data")

    def restart(self) -> None:
        """A person continues what was stopped."""
        if self.plan and not self.holder and self.ends[self.plan[0]] == "stopped":
            self.ends[self.plan[0]] = "approved"
            self.start()

    def step(self) -> None:
        if self.holder:
            self.say(kinds.STEP_INTENT, self.holder, step="undo", title="Undo 3 rows")

    def stop(self, *, heals: bool = False) -> None:
        if self.holder:
            self.say(kinds.RECOVERY_STOPPED, self.holder, reason="no answer", **({"heals": True} if heals else {}))
            self.ends[self.holder] = "interrupted" if heals else "stopped"
            self.holder = None

    def lose_prefect(self) -> None:
        self.stop(heals=True)

    def die(self) -> None:
        self.holder = None

    def finish(self) -> None:
        if self.holder:
            self.say(kinds.RECOVERY_FINISHED, self.holder, state="data-restored", resumed=False)
            self.ends[self.holder] = "ended"
            self.holder = None

    def abandon(self) -> None:
        if self.plan and not self.holder:
            self.say(kinds.RECOVERY_ABANDONED, self.plan[0], by="ann", reason="other plans")
            self.ends[self.plan[0]] = "ended"

    # What the steward does

    def steward(self) -> None:
        incident = record.fold(self.entries)[INCIDENT]
        event = due(incident, self.entries, self.now, may_contain=self.may_contain, at_work=self.holder is not None)
        if event is not None:
            self.announcements.append((self.now, event))
            self.say(kinds.INCIDENT_ANNOUNCED, event=f"e{len(self.entries)}")
        if self.holder is None and (found := lost(self.entries, self.now)) is not None:
            assert self.ends[found.recovery] in ("approved", "started", "interrupted"), self.ends
            assert found.incident == INCIDENT
            assert found.mode == "data"
            if found.attempt > leftover.CONTINUATIONS:
                self.say(kinds.RECOVERY_STOPPED, found.recovery, reason="enough", gave_up=True)
                self.ends[found.recovery] = "stopped"
            else:
                self.say(kinds.RECOVERY_CONTINUED, found.recovery, flow_run="f9", attempt=found.attempt)


ACTS: list[Callable[[World], None]] = [
    World.contain,
    World.diagnose,
    World.request,
    World.make,
    World.show,
    World.approve,
    World.reject,
    World.start,
    World.restart,
    World.step,
    World.stop,
    World.lose_prefect,
    World.die,
    World.finish,
    World.abandon,
    *[World.steward] * 4,
]
GOOD: list[Callable[[World], None]] = [World.contain, World.diagnose, World.make, World.approve, World.start]
HISTORIES = st.builds(
    lambda known, chance: [*((act, 1.0) for act in known), *chance],
    st.integers(0, len(GOOD)).map(lambda n: GOOD[:n]),
    st.lists(st.tuples(st.sampled_from(ACTS), st.sampled_from([0.0, 1.0, 25.0, 70.0, 200.0])), max_size=60),
)


@settings(deadline=None)
@given(HISTORIES, st.booleans())
def test_nothing_is_announced_twice_in_a_row_and_nothing_living_or_ended_continued(
    history: list[tuple[Callable[[World], None], float]], may_contain: bool
) -> None:
    world = World(may_contain=may_contain)
    for act, seconds in history:
        act(world)
        world.wait(seconds)
    contained = [at for at, event in world.announcements if event == CONTAINED]
    assert [event for _, event in world.announcements].count(OPENED) <= 1
    assert len(contained) <= leftover.ANNOUNCEMENTS
    for one, other in itertools.pairwise(contained):
        assert other - one >= timedelta(seconds=leftover.AGAIN_S)
    # Left alone, it ends: whatever the steward continues and nobody finishes is given up, and stays so.
    world.die()
    for _ in range(2 * leftover.CONTINUATIONS + 2 * leftover.ANNOUNCEMENTS + 2):
        world.wait(500)
        world.steward()
    before = len(world.entries)
    world.wait(500)
    world.steward()
    assert len(world.entries) == before
    for recovery in world.ends:
        mine = [e for e in world.entries if e.recovery == recovery]
        streak = 0
        for entry in mine:
            if entry.kind == kinds.RECOVERY_CONTINUED:
                streak += 1
            elif entry.kind == kinds.PLAN_MADE or (
                entry.kind == kinds.RECOVERY_STOPPED and not entry.body.get("heals")
            ):
                streak = 0
            assert streak <= leftover.CONTINUATIONS


@settings(deadline=None)
@given(HISTORIES)
def test_a_plan_waits_until_it_is_decided_or_replaced(
    history: list[tuple[Callable[[World], None], float]],
) -> None:
    world = World()
    for act, seconds in history:
        act(world)
        world.wait(seconds)
    waiting = pending(world.entries)
    assert len(waiting) <= 1
    for shown in waiting:
        assert world.plan is not None
        assert (shown.recovery, shown.plan_hash) == world.plan
        assert world.ends[shown.recovery] == "planned"


def running() -> World:
    world = World()
    for act in (World.contain, World.diagnose, World.request, World.make, World.approve, World.start, World.step):
        act(world)
    return world


def test_a_process_that_died_is_continued_and_the_reason_names_its_last_step() -> None:
    world = running()
    world.die()
    assert lost(world.entries, world.now) is None  # it may just be between two entries
    world.wait(leftover.STARTED_S)
    found = lost(world.entries, world.now)
    assert found is not None
    assert (found.recovery, found.attempt, found.flow_run, found.key) == ("R1", 1, "f3", "R1-continued-1")
    assert "Undo 3 rows" in found.why


def test_three_continuations_that_die_are_followed_by_a_stop() -> None:
    world = running()
    for _ in range(leftover.CONTINUATIONS):
        world.die()
        world.wait(500)
        world.steward()
        assert world.entries[-1].kind == kinds.RECOVERY_CONTINUED
        world.steward()
        assert world.entries[-1].kind == kinds.RECOVERY_CONTINUED
        world.wait(5)
        world.start()
    world.die()
    world.wait(500)
    world.steward()
    assert (world.entries[-1].kind, world.entries[-1].body["gave_up"]) == (kinds.RECOVERY_STOPPED, True)
    world.restart()
    world.die()
    world.wait(500)
    world.steward()
    assert world.entries[-1].body["attempt"] == 1  # a person went on: it may be continued again


@pytest.mark.parametrize("lasting", [True, False])
def test_a_stop_is_continued_only_when_its_cause_may_have_gone(lasting: bool) -> None:
    world = running()
    world.stop(heals=not lasting)
    world.wait(500)
    assert (lost(world.entries, world.now) is None) == lasting


def test_a_relapse_is_for_a_person() -> None:
    world = running()
    world.say(kinds.RELAPSE, "R1", findings=["again"])
    world.die()
    world.wait(500)
    assert lost(world.entries, world.now) is None


def test_a_kill_between_the_last_two_entries_is_continued() -> None:
    world = running()
    world.say(kinds.RECOVERY_FINISHED, "R1", state="resumed", resumed=True)
    world.die()
    world.wait(500)
    assert lost(world.entries, world.now) is not None


def test_an_approval_of_an_older_plan_runs_nothing() -> None:
    world = World()
    world.make()
    world.approve()
    world.ends["R1"] = "planned"
    world.make()
    world.wait(500)
    assert lost(world.entries, world.now) is None


def test_a_continuation_that_never_starts_is_noticed_later_than_a_start_that_died() -> None:
    world = running()
    world.die()
    world.wait(30)
    world.steward()
    world.wait(leftover.CONTINUED_S - 1)
    assert lost(world.entries, world.now) is None
    world.wait(1)
    found = lost(world.entries, world.now)
    assert found is not None
    assert found.attempt == 2


def announce(world: World, *, at_work: bool = False) -> str | None:
    incident = record.fold(world.entries)[INCIDENT]
    return due(incident, world.entries, world.now, may_contain=world.may_contain, at_work=at_work)


def test_a_contained_incident_is_announced_once_it_is_diagnosed() -> None:
    world = World()
    assert announce(world) is None
    world.contain()
    assert announce(world) is None
    world.diagnose()
    assert announce(world) == CONTAINED


def test_an_undiagnosed_one_is_announced_after_a_while_and_once() -> None:
    world = World()
    world.contain()
    world.wait(leftover.DIAGNOSIS_S)
    assert announce(world) == CONTAINED
    world.steward()
    world.wait(1000)
    assert announce(world) is None
    world.diagnose()
    assert announce(world) == CONTAINED


def test_an_incident_that_may_not_be_contained_is_announced_at_once_and_one_not_proven_later() -> None:
    assert announce(World(may_contain=False)) == OPENED
    world = World()
    world.wait(leftover.UNPROVEN_S)
    assert announce(world) == OPENED
    world.steward()
    assert announce(world) is None
    world.contain()
    world.diagnose()
    assert announce(world) == CONTAINED


@pytest.mark.parametrize(
    ("acts", "again"),
    [
        ([], True),
        ([World.request], True),
        ([World.request, World.make], True),
        ([World.make], False),
        ([World.request, World.make, World.show], False),
        ([World.request, World.make, World.approve], False),
        ([World.request, World.make, World.show, World.reject], False),
    ],
)
def test_an_announcement_that_brought_no_plan_is_repeated(acts: list[Callable[[World], None]], again: bool) -> None:
    world = World()
    world.contain()
    world.diagnose()
    world.steward()
    for act in acts:
        act(world)
    world.wait(leftover.AGAIN_S - 1)
    assert announce(world) is None
    world.wait(1)
    assert announce(world, at_work=True) is None
    assert announce(world) == (CONTAINED if again else None)


def test_a_plan_shown_again_waits_for_its_new_time() -> None:
    world = World()
    world.make()
    world.show()
    first = pending(world.entries)[0]
    world.wait(100)
    world.show()
    assert pending(world.entries)[0].expires_at == first.expires_at + timedelta(seconds=100)
    world.say(kinds.PLAN_EXPIRED, "R1", plan_hash=first.plan_hash)
    assert pending(world.entries) == []


def test_only_the_newest_plan_of_an_incident_counts() -> None:
    world = World()
    world.make()
    world.show()
    world.approve()
    world.say(kinds.PLAN_MADE, "R2", hash="other", mode="both")
    world.wait(500)
    assert lost(world.entries, world.now) is None
    world.say(kinds.PLAN_SHOWN, "R2", plan_hash="other", expires_at=world.now.isoformat())
    world.say(kinds.PLAN_MADE, "R2", hash="newer", mode="both")
    assert pending(world.entries) == []
    world.say(kinds.PLAN_APPROVED, "R2", plan_hash="other", by="ann")
    world.wait(500)
    assert lost(world.entries, world.now) is None


def test_what_was_abandoned_stays_so() -> None:
    world = running()
    world.say(kinds.RECOVERY_ABANDONED, "R1", by="ann", reason="done by hand")
    world.say(kinds.RECOVERY_STARTED, "R1", flow_run="late", mode="data")
    world.wait(500)
    assert lost(world.entries, world.now) is None
