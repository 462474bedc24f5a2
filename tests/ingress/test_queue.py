"""The queue on both of its databases: decided where it is written down, whoever else is at it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ingress.errors import QueueUnreachable, UnknownEvent, WrongState
from ingress.model import Event, Route, State, route_of
from ingress.queue import Queue
from tests.conftest import PgServer

Open = Callable[..., Queue]


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Open]:
    """Opens the same queue again and again, as other processes would."""
    made: list[Queue] = []
    if request.param == "sqlite":
        address = str(tmp_path / "events.sqlite")
    else:
        server: PgServer = request.getfixturevalue("pg")
        server.create_role("installer")
        server.create_database("events", owner="installer")
        address = server.dsn("events", "installer")

    def open_one(app: str = "shop", owner: str = "one") -> Queue:
        made.append(Queue(address, app=app, owner=owner))
        return made[-1]

    yield open_one
    for queue in made:
        queue.close()
    if request.param == "postgresql":
        server.drop_database("events")


def take(queue: Queue, key: str | None = None, workflow: str = "intake") -> Event:
    return queue.record(
        workflow=workflow,
        key=key,
        method="POST",
        path="/orders",
        query="",
        headers=[("cookie", "c"), ("x-shop", "north")],
        body=b"{}",
    )


def test_nothing_passes_once_the_hold_is_there_and_nothing_is_kept_once_it_ended(opened: Open) -> None:
    """Senders and the one who holds and frees again are at it at once: each event is on the right side."""
    queue, over = opened(), threading.Event()
    wrong: list[str] = []
    held: list[Event] = []

    def senders() -> None:
        mine = opened()
        while not over.wait(0.05):  # or nobody could ever be fast enough to free it
            before = gate[0]
            event = take(mine)
            if before == gate[0] == "held" and event.state is State.PASSING:
                wrong.append("passed on while held")
            if before == gate[0] == "free" and event.state is State.HELD:
                wrong.append("held while free")
            if event.state is State.HELD:
                held.append(event)

    gate = ["free"]
    with ThreadPoolExecutor(3) as pool:
        work = [pool.submit(senders) for _ in range(3)]
        for _ in range(5):
            gate[0] = "holding"
            assert queue.hold("intake", "replay")
            gate[0] = "held"
            threading.Event().wait(0.1)
            gate[0] = "freeing"
            while not queue.release("intake"):
                for event in queue.held("intake"):
                    queue.begin(event.id)
                    queue.finish(event.id, State.SENT, status=200)
            gate[0] = "free"
        over.set()
        for done in work:
            done.result()
    assert wrong == []
    assert held, "some were held"
    assert {queue.event(e.id).state for e in held} == {State.SENT}, "none was left behind"


def test_the_same_key_at_once_is_one_event(opened: Open) -> None:
    queue = opened()
    queue.hold("intake", "replay")
    with ThreadPoolExecutor(6) as pool:
        ids = {e.id for e in pool.map(lambda n: take(queue, f"k{n % 3}"), range(18))}
    assert len(ids) == 3
    assert [e.seq for e in queue.held()] == sorted(e.seq for e in queue.held())


def test_a_retry_of_what_waits_or_is_unknown_is_no_new_event_however_old_the_first_is(opened: Open) -> None:
    queue = opened()
    flying = take(queue, "dropped")
    queue.hold("intake", "replay")
    copy = queue.drop(flying.id, "the pause dropped it")
    assert copy.received_at < queue.holds()["intake"].since
    assert take(queue, "dropped").id == copy.id
    kept = take(queue, "u")
    queue.begin(kept.id)
    assert not queue.unsure("intake", "u")
    queue.finish(kept.id, State.UNKNOWN, why="time-out")
    assert queue.unsure("intake", "u")
    assert not queue.unsure("payment", "u")
    queue.begin(copy.id)
    queue.finish(copy.id, State.SENT, status=200)
    assert take(queue, "dropped").id == copy.id, "sent while this hold lasts"
    assert queue.release("intake")
    queue.hold("intake", "replay")
    assert take(queue, "u").id == kept.id, "unknown since an earlier pause"
    assert take(queue, "dropped").id != copy.id, "what was sent after an earlier pause is decided by its key"
    queue.settle(kept.id, State.DONE)
    assert not queue.unsure("intake", "u")


def test_a_process_gives_up_only_what_it_has_no_hand_on(opened: Open) -> None:
    mine, other = opened(owner="mine"), opened(owner="other")
    lost, flying, foreign = take(mine), take(mine), take(other)
    assert mine.give_up(lost.received_at, {flying.id}) == [], "too young"
    assert mine.give_up(datetime.now(UTC) + timedelta(seconds=1), {flying.id}) == [lost.id]
    states = {e.id: e.state for e in mine.events()}
    assert states == {lost.id: State.CUT, flying.id: State.PASSING, foreign.id: State.PASSING}


def test_what_proves_the_sender_is_kept_as_long_as_it_is_needed(opened: Open) -> None:
    queue = opened()
    passed = take(queue)
    assert dict(queue.event(passed.id).headers) == {"x-shop": "north", "cookie": "c"}
    assert dict(queue.answered(passed.id, 200).headers) == {"x-shop": "north"}
    queue.hold("intake", "replay")
    kept = take(queue, "k")
    queue.begin(kept.id)
    assert "cookie" in dict(queue.finish(kept.id, State.UNKNOWN, why="time-out").headers)
    assert "cookie" in dict(queue.settle(kept.id, State.HELD).headers)
    queue.begin(kept.id)
    assert "cookie" not in dict(queue.finish(kept.id, State.SENT, status=200).headers)


def test_an_event_goes_only_where_it_can(opened: Open) -> None:
    queue = opened()
    passed = take(queue)
    with pytest.raises(WrongState, match="cannot be sent"):
        queue.begin(passed.id)
    with pytest.raises(WrongState, match="nothing to settle"):
        queue.settle(passed.id, State.DONE)
    with pytest.raises(UnknownEvent):
        queue.event("nobody")
    assert queue.answered(passed.id, 200).state is State.PASSED
    assert queue.unanswered(passed.id, "late").state is State.PASSED
    assert queue.not_taken(passed.id, None, "late").state is State.PASSED
    assert queue.drop(passed.id, "late").state is State.PASSED


def test_apps_share_a_database_and_nothing_else(opened: Open) -> None:
    one, two = opened("one"), opened("two")
    event = take(one)
    one.set_routes([Route(workflow="intake", method="POST", path="/orders")])
    one.hold("intake", "replay")
    assert (two.events(), two.routes(), two.holds(), two.counts()) == ([], (), {}, {})
    assert take(two).state is State.PASSING
    with pytest.raises(UnknownEvent):
        two.event(event.id)


def test_only_ended_events_are_forgotten(opened: Open) -> None:
    queue = opened()
    passed, flying = take(queue), take(queue)
    queue.answered(passed.id, 200)
    queue.hold("intake", "replay")
    held = take(queue)
    assert queue.prune(datetime.now(UTC) + timedelta(seconds=1)) == 1
    assert {e.id for e in queue.events()} == {flying.id, held.id}


def test_the_next_process_knows_that_nobody_hears_the_answers_of_the_last(opened: Open) -> None:
    first, second = opened(owner="first"), opened(owner="second")
    cut, mine = take(first), take(second)
    assert second.take_over() == [cut.id]
    assert (first.event(cut.id).state, first.event(mine.id).state) == (State.CUT, State.PASSING)
    assert second.answered(cut.id, 200).state is State.PASSED, "unless it comes after all"


def test_an_address_of_no_use_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(QueueUnreachable, match="of no use"):
        Queue("mysql://nowhere/x")
    (tmp_path / "file").write_text("x")
    with pytest.raises(QueueUnreachable, match="check the path"):
        Queue(tmp_path / "file" / "events.sqlite")
    (tmp_path / "broken.sqlite").write_text("this is no database, and never was one" * 100)
    with pytest.raises(QueueUnreachable):
        Queue(tmp_path / "broken.sqlite").counts()


def test_the_way_with_the_fewest_open_parts_is_taken() -> None:
    open_way = Route(workflow="any", method="POST", path="/shops/:shop")
    closed = Route(workflow="north", method="POST", path="/shops/north")
    ways = (open_way, closed)
    assert route_of(ways, "POST", "/shops/north/") is closed
    assert route_of(ways, "POST", "/shops/south") is open_way
    assert route_of(ways, "GET", "/shops/south") is None
    assert route_of(ways, "POST", "/shops") is None


def test_what_waits_is_counted_and_listed_without_its_content(opened: Open) -> None:
    queue, other = opened(), opened(app="other")
    queue.hold("intake", "replay", incident="INC-1")
    queue.hold("payment", "replay", incident="INC-2")
    queue.hold("audit", "discard", incident="INC-1")
    other.hold("intake", "replay", incident="INC-9")
    begun, _, _ = take(queue, "1"), take(queue, "2"), take(other, "3")
    take(queue, "4", workflow="payment")
    dropped = take(queue, "5", workflow="audit")
    queue.begin(begun.id)
    assert queue.waiting() == {"intake": 2, "payment": 1}
    assert queue.waiting("payment", "audit") == {"payment": 1}
    assert queue.incidents("intake", "audit") == {"INC-1"}
    assert queue.incidents() == {"INC-1", "INC-2"}
    assert queue.counts_of("INC-1", ["audit"]) == {State.DISCARDED: 1}
    assert queue.counts_of(None, ["audit"]) == {}
    assert [e.id for e in queue.sending("intake")] == [begun.id]
    assert queue.sending("payment") == []
    listed = queue.briefs(states=[State.DISCARDED, State.SENDING])
    assert [(e.id, e.key, e.state, e.received_at) for e in listed] == [
        (begun.id, "1", State.SENDING, begun.received_at),
        (dropped.id, "5", State.DISCARDED, dropped.received_at),
    ]
    assert [e.key for e in queue.briefs(workflow="intake", limit=1)] == ["2"]
