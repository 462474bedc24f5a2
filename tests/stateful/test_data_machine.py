"""Actors, captures, undos, undos of undos, restores and prunes in any order: every row is what the model says.

One example is a schema and a stretch of its life. Several actors have transactions open at once; whenever something
was committed, every row of the database is compared with the model's.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from data_desk import ACTORS, DataDesk
from data_rules import Life
from data_schemas import draw
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

pytestmark = pytest.mark.postgres

SCHEMAS = 12
STEPS_PER_EXAMPLE = 50
SOAK_STEPS, SOAK_EXAMPLES = 20_000, 620
EXPLORE = os.environ.get("REINSTATE_EXPLORE", "")
"""For a person: ``random`` looks where nobody has looked yet, anything makes a failure as short as it gets."""
PAUSE = 3
"""Steps of the actors between two of the product's, at least."""

IDENT = st.integers(0, 4)
ACTOR = st.sampled_from(ACTORS)
WHICH = st.integers(0, 7)
STATEMENT = st.fixed_dictionaries(
    {
        "what": st.sampled_from(["insert", "update", "update", "add", "add", "add", "delete", "rekey", "point"]),
        "table": st.integers(0, 3),
        "idents": st.lists(IDENT, min_size=1, max_size=2, unique=True),
        "values": st.lists(st.integers(0, 6), min_size=3, max_size=3),
    }
)
RUN = st.integers(0, 2)
SETTLE = st.sampled_from([True, True, True, False])
SELECTED_BY = ["runs", "runs", "transactions", "transactions", "actors", "window", "table", "rows"]


class DataMachine(RuleBasedStateMachine):
    """The rules are in :class:`Life`; here is only who may go when. ``desks`` is shared by all examples."""

    desks: dict[int, DataDesk]
    server: Any
    steps = 0
    done: dict[str, int]

    @initialize(number=st.integers(0, SCHEMAS - 1), rows=st.integers(0, 4))
    def start(self, number: int, rows: int) -> None:
        if number not in self.desks:
            self.desks[number] = DataDesk(self.server, draw(number))
        self.folder = Path(tempfile.mkdtemp(prefix="reinstate-machine-"))
        self.life = Life(self.desks[number], self.folder, self.done)
        self.rested = 0
        self.life.populate(rows)

    def teardown(self) -> None:
        if hasattr(self, "life"):
            self.life.end()
            shutil.rmtree(self.folder)

    def act(self) -> None:
        type(self).steps += 1
        self.rested += 1

    def work(self, *, settle: bool = False) -> None:
        """``settle``: the actors finish first; with open transactions a data step may find its locks taken."""
        type(self).steps += 1
        self.rested = 0
        if settle:
            for actor in sorted(self.life.open):
                self.life.finish(actor, commit=True)
            self.life.compare()

    def ready(self) -> bool:
        return self.rested >= PAUSE

    def some_open(self) -> bool:
        return bool(self.life.open)

    @rule(actor=ACTOR, run=RUN, statements=st.lists(STATEMENT, min_size=1, max_size=3))
    def writes(self, actor: str, run: int, statements: list[dict[str, Any]]) -> None:
        self.act()
        self.life.transaction(actor, run, statements)

    @rule(actor=ACTOR, run=RUN, statement=STATEMENT)
    def writes_a_little(self, actor: str, run: int, statement: dict[str, Any]) -> None:
        self.act()
        self.life.transaction(actor, run, [statement])

    @precondition(lambda self: len(self.life.open) < len(ACTORS))
    @rule(actor=ACTOR, run=RUN, statement=STATEMENT)
    def begins(self, actor: str, run: int, statement: dict[str, Any]) -> None:
        self.act()
        self.life.begin(actor, run)
        self.life.statement(actor, statement)

    @precondition(some_open)
    @rule(which=WHICH, statement=STATEMENT)
    def goes_on(self, which: int, statement: dict[str, Any]) -> None:
        self.act()
        self.life.statement(self.life.opened(which), statement)

    @precondition(some_open)
    @rule(which=WHICH, statement=STATEMENT)
    def saves(self, which: int, statement: dict[str, Any]) -> None:
        self.act()
        self.life.savepoint(self.life.opened(which))
        self.life.statement(self.life.opened(which), statement)

    @precondition(lambda self: any(tx.saved for tx in self.life.open.values()))
    @rule(which=WHICH)
    def takes_back(self, which: int) -> None:
        self.act()
        self.life.rollback_to(self.life.opened(which))

    @precondition(some_open)
    @rule(which=WHICH, commit=st.sampled_from([True, True, True, False]))
    def ends(self, which: int, commit: bool) -> None:
        self.act()
        self.life.finish(self.life.opened(which), commit=commit)

    @precondition(ready)
    @rule()
    def ticks(self) -> None:
        self.work()
        self.life.tick()

    @precondition(ready)
    @rule(method=st.sampled_from(["full", "journal", "scan", "auto"]), base=WHICH)
    def captures(self, method: str, base: int) -> None:
        self.work()
        self.life.capture(method, base)

    @precondition(ready)
    @rule(
        settle=SETTLE,
        by=st.lists(st.sampled_from(SELECTED_BY), min_size=1, max_size=3),
        which=st.lists(WHICH, min_size=1, max_size=3),
        policy=st.sampled_from(["non-conflicting-only", "keep-later", "refuse", "cascade"]),
    )
    def undoes(self, by: list[str], which: list[int], policy: str, settle: bool) -> None:
        self.work(settle=settle)
        self.life.undo(by, which, policy)

    @precondition(ready)
    @rule(
        settle=SETTLE,
        by=st.sampled_from([["runs"], ["transactions"], ["window"]]),
        which=st.lists(WHICH, min_size=1, max_size=4),
        policy=st.sampled_from(["non-conflicting-only", "keep-later", "refuse"]),
    )
    def undoes_runs(self, by: list[str], which: list[int], policy: str, settle: bool) -> None:
        """As an incident asks for it."""
        self.work(settle=settle)
        self.life.undo(by, which, policy)

    @precondition(lambda self: self.ready() and self.life.steps())
    @rule(settle=SETTLE, which=WHICH, policy=st.sampled_from(["non-conflicting-only", "keep-later"]))
    def undoes_an_undo(self, which: int, policy: str, settle: bool) -> None:
        self.work(settle=settle)
        self.life.undo_step(which, policy)

    @precondition(lambda self: self.ready() and self.life.points)
    @rule(settle=SETTLE, which=WHICH, source=st.sampled_from(["auto", "journal", "scan"]))
    def restores_a_point(self, which: int, source: str, settle: bool) -> None:
        self.work(settle=settle)
        self.life.restore_point(which, source)

    @precondition(lambda self: self.ready() and self.life.ticks)
    @rule(settle=SETTLE, which=WHICH)
    def restores_a_tick(self, which: int, settle: bool) -> None:
        self.work(settle=settle)
        self.life.restore_tick(which)

    @precondition(lambda self: self.ready() and self.life.old_enough())
    @rule()
    def prunes_the_journal(self) -> None:
        self.work()
        self.life.prune_journal()

    @precondition(lambda self: self.ready() and len(self.life.points) > 2)
    @rule(keep=st.integers(1, 2))
    def prunes_the_store(self, keep: int) -> None:
        self.work()
        self.life.prune_store(keep)

    @invariant()
    def every_row_is_what_the_model_says(self) -> None:
        if hasattr(self, "life"):
            self.life.compare()


@pytest.fixture(scope="module")
def machine(pg: Any) -> Iterator[type[DataMachine]]:
    DataMachine.desks, DataMachine.server, DataMachine.done = {}, pg, {}
    yield DataMachine
    for desk in DataMachine.desks.values():
        desk.close()


@pytest.fixture
def no_fsync(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here survives the test, let alone a power cut."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


def _profile(examples: int) -> settings:
    return settings(
        max_examples=examples,
        stateful_step_count=STEPS_PER_EXAMPLE,
        deadline=None,
        derandomize=EXPLORE != "random",
        database=None,
        phases=(Phase.generate, Phase.shrink) if EXPLORE else (Phase.generate,),
        suppress_health_check=list(HealthCheck),
        print_blob=False,
    )


def test_a_short_life(machine: type[DataMachine], no_fsync: None) -> None:
    run_state_machine_as_test(machine, settings=_profile(12))  # type: ignore[no-untyped-call]


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_twenty_thousand_steps(machine: type[DataMachine], no_fsync: None) -> None:
    machine.steps = 0
    run_state_machine_as_test(machine, settings=_profile(SOAK_EXAMPLES))  # type: ignore[no-untyped-call]
    print(f"{machine.steps} steps: {dict(sorted(machine.done.items()))}")
    assert machine.steps >= SOAK_STEPS
