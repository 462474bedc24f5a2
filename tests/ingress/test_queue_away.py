"""A queue that fails once the event is on its way: the sender hears what the platform said, and the note is made up."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from starlette.responses import Response

from ingress import server
from ingress.errors import QueueUnreachable
from ingress.model import Event, State
from ingress.queue import Queue
from tests.ingress.test_server import until
from tests.ingress.upstream import Site, not_registered, site

Fail = Callable[..., list[str]]


@pytest.fixture
def fail(monkeypatch: pytest.MonkeyPatch) -> Fail:
    """From now on the next ``times`` calls fail; returns the list of those that did."""

    def make(queue: Queue, name: str, times: float = float("inf")) -> list[str]:
        real: Callable[..., Any] = getattr(queue, name)
        failed: list[str] = []

        def call(*args: object, **more: object) -> object:
            if len(failed) < times:
                failed.append(name)
                raise QueueUnreachable("disk full")
            return real(*args, **more)

        monkeypatch.setattr(queue, name, call)
        return failed

    return make


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "NOTE_AGAIN_S", (0.02, 0.02))
    monkeypatch.setattr(server, "SWEEP_S", 0.1)
    monkeypatch.setattr(server, "LOOK_S", 0.02)


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Site]:
    with site(tmp_path) as made:
        yield made


def ends_as(shop: Site, state: State, status: int | None = None) -> None:
    until(lambda: [(e.state, e.status) for e in shop.queue.events()] == [(state, status)])


def test_an_answer_reaches_its_sender_and_is_noted_later(shop: Site, fail: Fail) -> None:
    failed = fail(shop.queue, "answered", 2)
    shop.upstream.answers.append(Response(b"made", status_code=201))
    answer = shop.post()
    assert (answer.status_code, answer.content, len(shop.upstream.got)) == (201, b"made", 1)
    ends_as(shop, State.PASSED, 201)
    assert len(failed) == 2


def test_a_queue_that_cannot_be_asked_meanwhile_changes_nothing(shop: Site, fail: Fail) -> None:
    failed = fail(shop.queue, "event")
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(shop.post, body={"wait": 1})
        until(lambda: len(failed) > 2)
        shop.upstream.go.set()
        assert slow.result().status_code == 200
    ends_as(shop, State.PASSED, 200)


def test_what_is_never_noted_does_not_stay_on_its_way(shop: Site, fail: Fail) -> None:
    failed = fail(shop.queue, "answered")
    assert shop.post().status_code == 200
    ends_as(shop, State.CUT)
    assert len(failed) == 3, "tried again so often, and no more"


def test_what_is_on_its_way_is_not_given_up(shop: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    swept: list[object] = []
    real = shop.queue.give_up
    monkeypatch.setattr(shop.queue, "give_up", lambda *args: swept.append(real(*args)))
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(shop.post, body={"wait": 1})
        until(lambda: shop.upstream.got)
        before = len(swept)
        until(lambda: len(swept) > before + 2)
        assert [e.state for e in shop.queue.events()] == [State.PASSING]
        shop.upstream.go.set()
        assert slow.result().status_code == 200


def test_a_time_out_is_told_though_it_cannot_be_noted(tmp_path: Path, fail: Fail) -> None:
    with site(tmp_path, answer_s=0.2) as slow:
        fail(slow.queue, "unanswered", 1)
        assert slow.post(body={"wait": 1}).status_code == 504
        ends_as(slow, State.CUT)


def test_a_sender_who_was_told_to_try_again_is_not_kept_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        with site(tmp_path, upstream=f"http://127.0.0.1:{free.getsockname()[1]}") as down:
            real = down.queue.not_taken
            failed: list[bool] = []

            def held_meanwhile(*args: Any, **more: Any) -> Event:
                if failed:
                    return real(*args, **more)
                failed.append(down.queue.hold("intake", "replay"))
                raise QueueUnreachable("disk full")

            monkeypatch.setattr(down.queue, "not_taken", held_meanwhile)
            assert down.post().status_code == 502
            ends_as(down, State.TURNED_AWAY)


def test_the_platforms_word_for_paused_is_told_though_it_cannot_be_noted(shop: Site, fail: Fail) -> None:
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(shop.post, body={"wait": 1})
        until(lambda: shop.upstream.got)
        shop.queue.hold("intake", "replay")
        fail(shop.queue, "not_taken", 1)
        shop.upstream.answers.append(not_registered("POST", "/webhook/orders"))
        shop.upstream.go.set()
        assert slow.result().status_code == 404
    ends_as(shop, State.PASSED, 404)


def test_a_dropped_event_is_told_once_the_queue_can_be_asked(shop: Site, fail: Fail) -> None:
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(shop.post, body={"wait": 1})
        until(lambda: shop.upstream.got)
        shop.queue.hold("intake", "replay")
        failed = fail(shop.queue, "holds", 2)
        (flying,) = shop.queue.in_flight("intake")
        copy = shop.queue.drop(flying.id, "the pause dropped it")
        answer = waiting.result()
    assert (answer.status_code, answer.json()["event"], len(failed)) == (202, copy.id, 2)
