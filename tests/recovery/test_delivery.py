"""Nothing runs twice: held events and failed runs sent again under any schedule of faults and kills, their effects
counted in a real database. The workflow is not idempotent: each run leaves a row."""

from __future__ import annotations

import shutil
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ingress.model import State
from ledger import kinds
from platforms.base import NotSent, Permanent, Platform, Retryable, Run, RunDetail, RunState
from platforms.fake import FLOW_ENGINE, FORGETFUL, Suspend
from platforms.wrapper import Wrapper
from recovery import delivery, events_kept, held, replayed
from recovery.delivery import Courier, Delivered, Outcome, Past, of_run
from recovery.errors import StepFailed
from tests.conftest import AppDb
from tests.recovery.event_desk import Desk, Killed

pytestmark = pytest.mark.postgres


@pytest.fixture(scope="module")
def database(module_app_db: AppDb) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(module_app_db.installer, autocommit=True) as connection:
        connection.execute("CREATE TABLE effect (event text NOT NULL, run text NOT NULL)")
        yield connection


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits longer than a platform in memory needs."""
    monkeypatch.setattr(delivery, "LOOKUP_S", 0.15)
    monkeypatch.setattr(delivery, "WAIT_S", 0.001)
    monkeypatch.setattr(delivery, "POLL_S", 0.01)


@pytest.fixture(autouse=True)
def address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KIOSK_URL", "http://platform.test")


MakeDesk = Callable[[bool], Desk]


@pytest.fixture
def desk_of(database: psycopg.Connection[Any], tmp_path: Path) -> Iterator[MakeDesk]:
    made: list[Desk] = []

    def make(reads_back: bool) -> Desk:
        made.append(Desk(database, Path(tempfile.mkdtemp(dir=tmp_path)), reads_back))
        return made[-1]

    yield make
    for desk in made:
        desk.close()


KILLS = ["killed before", "killed after", "killed later"]
STRIKES = st.sampled_from(
    [None, "timeout", "refused", "lost", "slow", "gateway", "fails", "fails, killed later", *KILLS]
)


def mortal(desk: Desk, patch: pytest.MonkeyPatch) -> None:
    """A kill may come just before the queue hears how an event ended."""
    finish = desk.queue.finish

    def dying(*args: Any, **how: Any) -> Any:
        if desk.killed:
            desk.killed = False
            raise Killed
        return finish(*args, **how)

    patch.setattr(desk.queue, "finish", dying)


KEPT_NOT = {"name": "Intake", "nodes": [], "connections": {}, "settings": {"saveDataSuccessExecution": "none"}}


def until_it_ends(desk: Desk, patch: pytest.MonkeyPatch, act: Callable[[], Any]) -> None:
    """Killed and started again until it comes to its end."""
    mortal(desk, patch)
    for _ in range(30):
        try:
            act()
        except (Killed, NotSent, Retryable):
            continue
        return
    raise AssertionError("it never ended")


@pytest.mark.parametrize("reads_back", [True, False], ids=["asked", "not-asked"])
@given(schedule=st.lists(STRIKES, max_size=7))
@example(schedule=["fails, killed later", None, "fails, killed later"])
@settings(max_examples=12, deadline=None)
def test_a_held_event_has_one_effect_or_is_listed(
    database: psycopg.Connection[Any], reads_back: bool, schedule: list[str | None]
) -> None:
    keys = [f"e{n}" for n in range(5)]
    folder = Path(tempfile.mkdtemp())
    desk = Desk(database, folder, reads_back, list(schedule))
    try:
        desk.queue.hold("intake", "replay", incident="INC-1")
        desk.hold(*keys)
        with pytest.MonkeyPatch.context() as patch:
            until_it_ends(desk, patch, lambda: desk.release("intake"))
        effects, states, unknown = desk.effects(), desk.states(), desk.unknown()
        assert max(effects.values(), default=0) <= 1, "nothing runs twice"
        for key in keys:
            if states[key] is State.UNKNOWN:
                assert key in unknown
            else:
                assert states[key] in (State.SENT, State.FAILED)
                assert effects[key] == 1
        assert desk.queue.holds() == {}
        if reads_back and "timeout" not in schedule:
            assert not unknown, "what ran is found again"
        if not {"timeout", "lost", "slow", "gateway", "killed before", "killed after"} & set(schedule):
            assert not unknown
        known = [key for key in desk.order if key not in unknown]
        assert known == sorted(known), "in order of arrival"
    finally:
        desk.close()
        shutil.rmtree(folder)


class Cut(Wrapper):
    """A platform whose retrigger is struck."""

    def __init__(self, platform: Platform, strikes: list[str | None]) -> None:
        super().__init__(platform)
        self.strikes = strikes

    def retrigger(self, run_id: str) -> Run:
        strike = self.strikes.pop(0) if self.strikes else None
        if strike in ("timeout", "slow"):
            raise Retryable("time-out")
        if strike == "refused":
            raise NotSent("refused")
        if strike == "killed before":
            raise Killed
        run = super().retrigger(run_id)
        if strike in ("lost", "gateway"):
            raise Retryable("the answer was lost")
        if strike in ("killed after", "killed later"):
            raise Killed
        return run


@given(schedule=st.lists(STRIKES, max_size=6))
@settings(max_examples=10, deadline=None)
def test_a_failed_run_is_run_again_once(database: psycopg.Connection[Any], schedule: list[str | None]) -> None:
    folder = Path(tempfile.mkdtemp())
    desk = Desk(database, folder, True)
    try:
        failing = {"body": {"event": "r1", "fails": True}, "headers": {}, "query": {}}
        failed = desk.fake.call(desk.ids["intake"], failing)
        assert failed.state is RunState.ERROR
        failing["body"].pop("fails")  # type: ignore[attr-defined]
        desk.base = Cut(desk.fake, list(schedule))
        done: list[Delivered] = []
        with pytest.MonkeyPatch.context() as patch:
            until_it_ends(desk, patch, lambda: done.append(delivery.retrigger(desk.open(), "intake", failed.id)))
            again = delivery.retrigger(desk.open(), "intake", failed.id)
        assert again.outcome is done[0].outcome, "asked again, nothing is sent"
        retries = [r for r in desk.fake.runs(desk.ids["intake"]) if r.retry_of == failed.id]
        assert len(retries) == desk.effects()["r1"] <= 1
        assert (done[0].outcome is Outcome.UNKNOWN) is (not retries)
    finally:
        desk.close()
        shutil.rmtree(folder)


@pytest.mark.parametrize("runs", ["told", "forgotten", "never told"])
def test_a_released_event_that_failed_before_a_kill_is_not_sent_again(
    desk_of: MakeDesk, monkeypatch: pytest.MonkeyPatch, runs: str
) -> None:
    desk = desk_of(runs != "never told")
    desk.queue.hold("intake", "replay")
    desk.hold("a", "b")
    desk.strikes = ["fails, killed later"]
    mortal(desk, monkeypatch)
    with pytest.raises(Killed):
        desk.release("intake")
    if runs == "forgotten":
        desk.fake._runs.by_id.clear()
    desk.release("intake")
    assert desk.states() == {"a": State.FAILED, "b": State.SENT}
    assert desk.effects() == Counter("ab")


def asleep(desk: Desk, patch: pytest.MonkeyPatch) -> None:
    """From now on runs do their work, then sleep for hours, and nobody waits for them long."""
    work = desk.work

    def then_sleep(content: Any, event: Any, run: str) -> dict[str, Any]:
        done = work(content, event, run)
        raise Suspend(lambda: done)

    desk.fake.handlers = then_sleep
    patch.setattr(delivery, "END_S", 0.05)


@pytest.mark.parametrize("strike", ["killed after", "killed later", "lost"])
def test_a_released_run_that_goes_on_is_left_alone_and_counts(
    desk_of: MakeDesk, monkeypatch: pytest.MonkeyPatch, strike: str
) -> None:
    """Its workflow answered at once and sleeps: it is production's own run."""
    desk = desk_of(True)
    asleep(desk, monkeypatch)
    monkeypatch.setattr(desk, "call", lambda own, event: desk.fake.call(own, event).state.in_flight and 200)
    desk.queue.hold("intake", "replay")
    desk.hold("a")
    desk.strikes = [strike]
    until_it_ends(desk, monkeypatch, lambda: desk.release("intake"))
    (run,) = desk.fake.runs(desk.ids["intake"])
    (event,) = desk.queue.events()
    assert (event.state, event.run, run.state) == (State.SENT, run.id, RunState.WAITING)
    assert desk.effects() == Counter("a")


def test_a_retry_that_takes_long_is_left_alone_and_told_once_it_ended(
    desk_of: MakeDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A platform that answers only when the run ends: the answer is given up, the run goes on."""
    desk = desk_of(True)
    failed = desk.fake.call(desk.ids["intake"], {"body": {"event": "a", "fails": True}, "headers": {}, "query": {}})
    asleep(desk, monkeypatch)
    desk.fake._runs.by_id[failed.id].event["body"].pop("fails")  # type: ignore[index]
    desk.base = Cut(desk.fake, ["lost"])
    first, second = (delivery.retrigger(desk.open(), "intake", failed.id) for _ in range(2))
    assert first.run is not None
    assert (first.outcome, first.there, first.run.state) == (Outcome.RUNNING, False, RunState.WAITING)
    assert (second.outcome, second.there, second.run) == (Outcome.RUNNING, True, first.run)
    desk.fake.resume(first.run.id)
    assert delivery.retrigger(desk.open(), "intake", failed.id).outcome is Outcome.DONE
    assert desk.effects() == Counter("a")


def test_a_retry_that_went_on_is_not_sent_again_when_the_platform_forgets_it(
    desk_of: MakeDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = desk_of(True)
    failed = desk.fake.call(desk.ids["intake"], {"body": {"event": "a", "fails": True}, "headers": {}, "query": {}})
    asleep(desk, monkeypatch)
    desk.fake._runs.by_id[failed.id].event["body"].pop("fails")  # type: ignore[index]
    running = delivery.retrigger(desk.open(), "intake", failed.id)
    assert running.run is not None
    desk.fake._runs.by_id.pop(running.run.id)
    again = delivery.retrigger(desk.open(), "intake", failed.id)
    assert (again.outcome, again.there, again.run) == (Outcome.RUNNING, True, None)
    assert desk.effects() == Counter("a")


def test_a_retry_in_a_workflow_that_keeps_no_runs_is_unknown_after_a_kill(desk_of: MakeDesk) -> None:
    desk = desk_of(True)
    failed = desk.fake.call(desk.ids["intake"], {"body": {"event": "a", "fails": True}, "headers": {}, "query": {}})
    desk.fake.save(desk.ids["intake"], KEPT_NOT)
    desk.fake.activate(desk.ids["intake"])
    desk.fake._runs.by_id[failed.id].event["body"].pop("fails")  # type: ignore[index]
    desk.base = Cut(desk.fake, ["killed after"])
    with pytest.raises(Killed):
        delivery.retrigger(desk.open(), "intake", failed.id)
    for run in desk.fake.runs(desk.ids["intake"]):
        if run.retry_of == failed.id:
            desk.fake._runs.by_id.pop(run.id)
    assert delivery.retrigger(desk.open(), "intake", failed.id).outcome is Outcome.UNKNOWN
    assert desk.effects() == Counter("a")


def test_many_held_events_are_in_memory_a_page_at_a_time(desk_of: MakeDesk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk, read = desk_of(False), list[int]()
    real = desk.queue._list

    def counted(query: Any) -> Any:
        found = real(query)
        read.append(len(found))
        return found

    monkeypatch.setattr(held, "PAGE", 4)
    monkeypatch.setattr(held, "SAID_EVERY_S", 0.0)
    desk.queue.hold("intake", "replay", incident="INC-1")
    desk.hold(*(f"e{n:02}" for n in range(11)))
    for event in desk.queue.held(limit=6):
        desk.queue.begin(event.id)
    monkeypatch.setattr(desk.queue, "_list", counted)
    ctx = desk.open()
    assert replayed.incidents(desk.queue, ["intake"], None) == {"INC-1"}
    assert events_kept.waiting(ctx, ["intake"]) == {"intake": 11}
    assert len(events_kept.listing(ctx)) == 11
    assert desk.release("intake").sent == 11
    assert held.recorded_only(desk.queue, ["intake"], "INC-1") == {"discarded": 0, "rejected": 0}
    assert max(read) == 4


def test_a_platform_that_cannot_run_again_says_so(desk_of: MakeDesk) -> None:
    with pytest.raises(Permanent, match="replay its event instead"):
        delivery.retrigger(desk_of(False).open(), "intake", "1")


@pytest.mark.parametrize("reads_back", [True, False])
def test_new_events_queue_behind_the_held_ones_and_pass_once_nothing_waits(desk_of: MakeDesk, reads_back: bool) -> None:
    desk = desk_of(reads_back)
    desk.queue.hold("intake", "replay")
    desk.queue.hold("payment", "replay")
    desk.hold("a")
    desk.hold("p", workflow="payment")
    desk.hold("b")
    answer = desk.wire

    def busy(request: httpx.Request) -> httpx.Response:
        if desk.order == ["a"]:
            desk.hold("c")
        return answer(request)

    desk.wire = busy  # type: ignore[method-assign]
    done = desk.release()
    assert desk.order == ["a", "p", "b", "c"]
    assert (done.sent, done.by_workflow) == (4, {"intake": 3, "payment": 1})
    desk.hold("d")
    assert desk.states()["d"] is State.PASSING


def test_a_busy_workflow_gets_free_again(desk_of: MakeDesk) -> None:
    """Events come faster than they could be sent one by one."""
    desk, free = desk_of(False), threading.Event()
    desk.queue.hold("intake", "replay")
    desk.hold("a", "b")
    answer = desk.wire

    def slowly(request: httpx.Request) -> httpx.Response:
        free.wait(0.1)
        return answer(request)

    def senders() -> None:
        for number in range(100):
            if free.wait(0.04):
                return
            desk.hold(f"n{number:02}")

    desk.wire = slowly  # type: ignore[method-assign]
    busy = threading.Thread(target=senders)
    busy.start()
    desk.release("intake")
    free.set()
    busy.join()
    assert desk.order[:2] == ["a", "b"]
    assert max(desk.effects().values()) == 1
    assert set(desk.states().values()) <= {State.SENT, State.PASSING}
    assert len(desk.order) < 100, "it did not have to wait for the senders to end"


def test_there_is_no_burst(desk_of: MakeDesk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk = desk_of(False)
    clock = [100.0]
    monkeypatch.setattr(held.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(held.time, "sleep", lambda s: clock.__setitem__(0, clock[0] + s))
    desk.queue.hold("intake", "replay", per_s=2.0)
    desk.hold("a", "b", "c", "d", "e")
    desk.release()
    assert clock[0] - 100.0 == pytest.approx(2.0), "five events, half a second between them"


def test_what_was_handled_already_is_not_sent(desk_of: MakeDesk) -> None:
    desk = desk_of(False)
    desk.hold("passed", "refused")
    first, second = desk.queue.events()
    desk.queue.answered(first.id, 200)
    desk.queue.answered(second.id, 500)
    desk.queue.hold("intake", "replay")
    desk.hold("passed", "refused", "replayed", "new")
    done = desk.release(handled={("intake", "replayed")})
    assert desk.order == ["refused", "new"], "a sender's retry of what failed is work to do"
    assert (done.sent, done.repeated) == (2, 2)


@pytest.mark.parametrize("undone", [True, False])
def test_what_the_pause_dropped_is_sent_only_when_its_writes_were_undone(desk_of: MakeDesk, undone: bool) -> None:
    desk = desk_of(False)
    desk.hold("flying")
    desk.queue.hold("intake", "replay", incident="INC-1")
    desk.hold("after")
    desk.fake.deactivate(desk.ids["intake"])
    assert [r.state for r in desk.base.runs(desk.ids["intake"])] == [RunState.CANCELED]
    desk.fake.activate(desk.ids["intake"])
    done = desk.release(dropped=lambda _: undone)
    assert desk.order == (["flying", "after"] if undone else ["after"])
    assert len(done.unknown) == (0 if undone else 1)
    assert desk.unknown() == (set() if undone else {"flying"})


def test_a_workflow_that_does_not_take_them_keeps_them_held(desk_of: MakeDesk) -> None:
    desk = desk_of(False)
    desk.queue.hold("intake", "replay")
    desk.hold("a", "b")
    desk.strikes = ["refused"] * delivery.ATTEMPTS
    with pytest.raises(NotSent, match="it stays held"):
        desk.release("intake")
    assert [e.state for e in desk.queue.held()] == [State.HELD, State.HELD]
    desk.release("intake")
    assert desk.effects() == Counter("ab")


def test_an_answer_that_may_say_paused_is_cleared_up_by_the_platform(desk_of: MakeDesk) -> None:
    """The same 404 comes from a paused workflow and from one that ran and hands on what it was answered."""
    desk = desk_of(True)
    desk.queue.hold("intake", "replay")
    desk.hold("a")
    desk.fake.deactivate(desk.ids["intake"])
    desk.strikes = ["unclear"] * delivery.ATTEMPTS
    with pytest.raises(NotSent, match="is paused in the platform; it stays held"):
        desk.release("intake")
    assert desk.states() == {"a": State.HELD}
    desk.fake.activate(desk.ids["intake"])
    desk.strikes = ["ran, unclear"]
    desk.release("intake")
    desk.queue.hold("intake", "replay")
    desk.hold("b")
    desk.strikes = ["ran, unclear, paused"]
    desk.release("intake")
    assert desk.states() == {"a": State.SENT, "b": State.SENT}
    assert desk.effects() == Counter("ab")


def test_where_nobody_can_clear_it_up_it_is_unknown_and_not_sent_again(desk_of: MakeDesk) -> None:
    desk = desk_of(False)
    desk.queue.hold("intake", "replay")
    desk.hold("a")
    desk.strikes = ["ran, unclear"]
    desk.release("intake")
    desk.release("intake")
    assert (desk.unknown(), desk.effects()) == ({"a"}, Counter("a"))


@pytest.mark.parametrize("done", [True, False])
def test_a_person_settles_an_unknown_event(desk_of: MakeDesk, done: bool) -> None:
    desk = desk_of(False)
    desk.queue.hold("intake", "replay")
    desk.hold("a")
    desk.strikes = ["timeout"]
    (unknown,) = desk.release("intake").unknown
    ctx = desk.open()
    (listed,) = events_kept.listing(ctx)
    assert (listed.id, listed.state) == (unknown, State.UNKNOWN)
    became = events_kept.settle(ctx, unknown[:8], done=done, by="ada", reason="looked")
    assert delivery.unknown(ctx) == []
    if done:
        assert became == "recorded: it ran"
        assert desk.states() == {"a": State.DONE}
    else:
        desk.release("intake")
        assert desk.effects() == Counter("a")


def test_holding_is_recorded_once_and_by_policy(desk_of: MakeDesk) -> None:
    desk = desk_of(True)
    ctx = desk.open()
    assert held.hold(ctx, ["intake", "payment"], "INC-1") == ("intake", "payment")
    held.hold(ctx, ["intake", "payment"], "INC-1")
    (entry,) = ctx.ledger.entries(kinds=[kinds.EVENTS_HELD])
    assert entry.body == {"workflows": ["intake", "payment"], "policy": {"intake": "replay", "payment": "replay"}}
    assert set(desk.queue.holds()) == {"intake", "payment"}


def test_a_lost_answer_of_one_who_can_take_it_back_is_missed_not_unknown(desk_of: MakeDesk) -> None:
    courier = Courier(desk_of(True).open())

    def lost() -> Delivered:
        raise Retryable("time-out")

    done = courier.deliver(workflow="intake", key="k", send=lost, look_up=lambda: [], repeats_taken_back=True)
    assert done.outcome is Outcome.MISSED
    assert courier.deliver(workflow="intake", key="k", send=lost, look_up=lambda: []).outcome is Outcome.UNKNOWN


def test_an_unknown_event_whose_run_shows_after_all_is_known(desk_of: MakeDesk) -> None:
    desk = desk_of(True)
    ctx = desk.open()

    def lost() -> Delivered:
        raise Retryable("time-out")

    assert Courier(ctx).deliver(workflow="intake", key="k", send=lost, look_up=lambda: []).outcome is Outcome.UNKNOWN
    run = desk.fake.call(desk.ids["intake"], {"body": {"event": "k"}, "headers": {}})
    found = Courier(ctx).deliver(workflow="intake", key="k", send=lost, look_up=lambda: [run])
    assert found == replace(of_run(run), there=True)
    assert delivery.unknown(ctx) == []


@pytest.mark.parametrize("lists", [True, False], ids=["lists-what-ended", "lists-nothing"])
def test_killed_while_a_slow_run_is_in_flight_it_is_not_sent_again(desk_of: MakeDesk, lists: bool) -> None:
    desk, free = desk_of(lists), threading.Event()
    desk.fake._can = FORGETFUL if lists else FLOW_ENGINE
    desk.queue.hold("intake", "replay")
    desk.hold("a")
    answer = desk.wire

    def dying(request: httpx.Request) -> httpx.Response:
        def work() -> None:
            free.wait(5)
            answer(request)

        desk.late.append(threading.Thread(target=work))
        desk.late[-1].start()
        raise Killed

    desk.wire = dying  # type: ignore[method-assign]
    with pytest.raises(Killed):
        desk.release("intake")
    desk.wire = answer  # type: ignore[method-assign]
    assert len(desk.release("intake").unknown) == 1
    free.set()
    assert desk.effects() == Counter("a")
    desk.release("intake")
    assert (desk.effects(), desk.states()) == (Counter("a"), {"a": State.UNKNOWN})


@pytest.mark.parametrize("keeps", [True, False])
def test_what_a_workflow_does_not_keep_cannot_be_looked_up(desk_of: MakeDesk, keeps: bool) -> None:
    desk = desk_of(True)
    if not keeps:
        desk.fake.save(desk.ids["intake"], KEPT_NOT)
        desk.fake.activate(desk.ids["intake"])
    desk.queue.hold("intake", "replay")
    desk.hold("a")
    desk.strikes = ["killed after"]
    with pytest.raises(Killed):
        desk.release("intake")
    if not keeps:
        desk.fake._runs.by_id.clear()
    desk.release("intake")
    assert (desk.effects(), desk.states()) == (Counter("a"), {"a": State.SENT if keeps else State.UNKNOWN})


@pytest.mark.parametrize("error", [Permanent("it is gone"), NotSent("refused"), Retryable("time-out")], ids=str)
def test_what_goes_wrong_while_waiting_does_not_mean_that_nothing_was_sent(
    desk_of: MakeDesk, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk, sent = desk_of(False), []

    def send() -> Run:
        sent.append(run := Run(id="7", workflow_id="w", state=RunState.RUNNING, started_at=None, stopped_at=None))
        return run

    def fails(_: str) -> Any:
        raise error

    monkeypatch.setattr(desk.base, "run_detail", fails)
    for _ in range(2):
        done = Courier(desk.open()).deliver(workflow="intake", key="k", send=send, look_up=None)
        assert done.outcome is Outcome.UNKNOWN
    assert len(sent) == 1


def test_a_run_that_neither_ends_nor_can_be_stopped_stays_begun(
    desk_of: MakeDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk, sent = desk_of(True), []
    desk.fake._can = FORGETFUL
    flying = Run(id="7", workflow_id="w", state=RunState.RUNNING, started_at=None, stopped_at=None)
    monkeypatch.setattr(desk.base, "run_detail", lambda _: RunDetail(run=flying, event=None, outputs={}))

    def send() -> Run:
        sent.append("k")
        return flying

    courier = Courier(desk.open())
    with pytest.raises(StepFailed, match=r"run 7: it has not ended after 0 s"):
        courier.deliver(workflow="intake", key="k", send=send, look_up=lambda: [], end_s=0.02)
    assert Courier(desk.open()).past("intake", "k") is Past.BEGUN
    assert courier.deliver(workflow="intake", key="k", send=send, look_up=lambda: []).outcome is Outcome.UNKNOWN
    assert sent == ["k"]


@pytest.mark.parametrize("reads_back", [True, False])
def test_what_was_refused_before_it_ran_is_sent_again(desk_of: MakeDesk, reads_back: bool) -> None:
    def refused() -> Run:
        raise Permanent("the entry is closed")

    def sent() -> Delivered:
        return Delivered(outcome=Outcome.DONE)

    ctx = desk_of(reads_back).open()
    look_up: delivery.LookUp | None = (lambda: []) if reads_back else None
    with pytest.raises(Permanent):
        Courier(ctx).deliver(workflow="intake", key="k", send=refused, look_up=look_up)
    done = Courier(ctx).deliver(workflow="intake", key="k", send=sent, look_up=look_up)
    assert (done.outcome, done.there) == (Outcome.DONE, False)


def two_copies(desk: Desk) -> list[str]:
    """Two calls of one event, both kept because the workflow was paused when they came to it; the first one's answer
    was lost. Their ids: what a person must look at."""
    desk.hold("a", "a")
    passing = desk.queue.events()
    desk.queue.hold("intake", "replay")
    for event in passing:
        desk.queue.not_taken(event.id, None, "refused")
    desk.strikes = ["timeout"]
    unknown = desk.release("intake").unknown
    assert (unknown, desk.order) == ([e.id for e in passing], [])
    return unknown


@pytest.mark.parametrize("ran", [True, False])
def test_another_copy_of_an_unknown_event_is_unknown_until_a_person_looked(desk_of: MakeDesk, ran: bool) -> None:
    desk = desk_of(False)
    first, second = two_copies(desk)
    events_kept.settle(desk.open(), first, done=ran, by="ada", reason="looked")
    events_kept.settle(desk.open(), second, done=False, by="ada", reason="looked")
    for _ in range(2):
        desk.release("intake")
    assert desk.order == ([] if ran else ["a"])


@pytest.mark.parametrize("which", [0, 1])
def test_a_persons_word_on_one_copy_counts(desk_of: MakeDesk, which: int) -> None:
    desk = desk_of(False)
    events_kept.settle(desk.open(), two_copies(desk)[which], done=False, by="ada", reason="looked")
    desk.release("intake")
    assert desk.order == ["a"]


def test_what_a_replay_may_have_done_is_listed_not_sent(desk_of: MakeDesk) -> None:
    desk = desk_of(False)
    desk.queue.hold("intake", "replay")
    desk.hold("a", "b")
    assert len(desk.release("intake", unsure={("intake", "a")}).unknown) == 1
    assert desk.order == ["b"]
