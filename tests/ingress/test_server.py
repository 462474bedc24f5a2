"""The ingress on the wire: active workflows are passed through unchanged, held ones kept, by their policy."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from starlette.responses import Response

from ingress.model import State
from ingress.queue import Queue
from tests.ingress.upstream import ROUTES, WORLD, Site, Upstream, not_registered, site


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Site]:
    with site(tmp_path, largest=20_000) as made:
        yield made


def test_an_active_workflow_gets_the_request_and_the_sender_the_answer_unchanged(shop: Site) -> None:
    shop.upstream.answers.append(
        Response(b"\x00caf\xc3\xa9", status_code=418, headers={"x-own": "yes", "set-cookie": "a=1"})
    )
    answer = WORLD.post(
        f"{shop.address}/webhook/orders?page=1&page=2&q=%C3%A9",
        content=b'{"event": "7",  "odd":   1}',
        headers={
            "content-type": "application/json",
            "authorization": "Bearer s",
            "x-shop": "north",
            "connection": "x-hop",
            "x-hop": "1",
        },
    )
    assert (answer.status_code, answer.content) == (418, b"\x00caf\xc3\xa9")
    assert (answer.headers["x-own"], answer.headers["set-cookie"]) == ("yes", "a=1")
    (got,) = shop.upstream.got
    assert (got["method"], got["query"], got["body"]) == (
        "POST",
        "page=1&page=2&q=%C3%A9",
        b'{"event": "7",  "odd":   1}',
    )
    headers = dict(got["headers"])
    assert headers[b"authorization"] == b"Bearer s"
    assert headers[b"x-shop"] == b"north"
    assert b"x-hop" not in headers
    (event,) = shop.queue.events()
    assert headers[b"x-reinstate-event"] == headers[b"x-reinstate-run"] == event.id.encode()
    assert (event.key, event.state, event.status, event.workflow) == ("7", State.PASSED, 418, "intake")
    assert "authorization" not in dict(event.headers), "what proves who sent it goes once the event has ended"


def test_a_sender_cannot_say_which_event_it_is(shop: Site) -> None:
    shop.post(headers={"X-Reinstate-Event": "mine", "x-reinstate-run": "mine", "x-reinstate-other": "mine"})
    names = [v for n, v in shop.upstream.got[0]["headers"] if n.startswith(b"x-reinstate")]
    assert names == [shop.queue.events()[0].id.encode()] * 2


def test_unknown_paths_are_passed_through_unrecorded(shop: Site) -> None:
    assert shop.post("/webhook/else").status_code == 200
    assert WORLD.get(f"{shop.address}/webhook/orders").status_code == 200, "another method is another way in"
    assert shop.queue.events() == []
    assert len(shop.upstream.got) == 2


def test_a_part_of_the_path_may_be_open(shop: Site) -> None:
    shop.queue.hold("intake", "replay")
    assert shop.post("/webhook/shops/north%20pole/orders").status_code == 202
    assert shop.post("/webhook/./x/../orders", event="2").status_code == 202, "no way around"
    assert shop.upstream.got == []


@pytest.mark.parametrize("told", [True, False])
def test_what_is_larger_than_allowed_is_turned_away_unread(shop: Site, told: bool) -> None:
    large = b"x" * 30_000
    content = large if told else iter([large[:10_000]] * 3)
    assert WORLD.post(f"{shop.address}/webhook/orders", content=content).status_code == 413
    assert shop.queue.events() == shop.upstream.got == []


def test_a_held_event_is_kept_and_told_by_its_id(shop: Site) -> None:
    shop.queue.hold("intake", "replay", incident="INC-1")
    answer = shop.post(headers={"authorization": "Bearer s", "cookie": "c=1"}, params={"q": "1"})
    (event,) = shop.queue.held()
    assert (answer.status_code, answer.json()["event"]) == (202, event.id)
    assert (event.incident, event.query, event.method) == ("INC-1", "q=1", "POST")
    assert dict(event.headers)["authorization"] == "Bearer s", "needed to send it"
    assert shop.upstream.got == []
    assert shop.post("/webhook/payments").status_code == 200, "another workflow goes on"


def test_a_senders_own_retry_is_one_event_while_held(shop: Site) -> None:
    shop.queue.hold("intake", "replay")
    with ThreadPoolExecutor(8) as pool:
        ids = {a.json()["event"] for a in pool.map(lambda _: shop.post(event="same"), range(16))}
    assert len(ids) == 1
    assert len(shop.queue.held()) == 1
    shop.queue.hold("payment", "replay")
    assert len({shop.post("/webhook/payments").json()["event"] for _ in range(2)}) == 2, "without a key each is one"


@pytest.mark.parametrize(
    ("policy", "status", "state"),
    [("discard", 202, State.DISCARDED), ("reject", 503, State.REJECTED)],
)
def test_other_policies_record_and_keep_nothing_to_send(shop: Site, policy: str, status: int, state: State) -> None:
    shop.queue.hold("intake", policy)  # type: ignore[arg-type]
    answer = shop.post(headers={"authorization": "Bearer s"})
    assert answer.status_code == status
    assert ("retry-after" in answer.headers) is (policy == "reject")
    (event,) = shop.queue.events()
    assert event.state is state
    assert shop.queue.held() == shop.upstream.got == []
    assert "authorization" not in dict(event.headers)
    assert shop.queue.release("intake")
    assert shop.post().status_code == 200


def test_an_event_that_reaches_a_platform_already_paused_is_kept(shop: Site) -> None:
    """It was passed on just before the hold, and the platform turned it away just after the pause."""
    shop.upstream.paused.add("/webhook/orders")
    assert shop.post(event="1").status_code == 404, "nobody holds it: what the platform says"
    with ThreadPoolExecutor(1) as pool:
        shop.upstream.paused.clear()
        slow = pool.submit(shop.post, event="2", body={"wait": 1})
        until(lambda: len(shop.upstream.got) == 1)
        shop.queue.hold("intake", "replay")
        shop.upstream.answers.append(not_registered("POST", "/webhook/orders"))
        shop.upstream.go.set()
        assert slow.result().status_code == 202
    assert [e.key for e in shop.queue.held()] == ["2"]


@pytest.mark.parametrize("own", [b"no such customer", b'{"error":"Cannot find order 7"}'])
def test_a_workflows_own_404_is_its_answer_paused_or_not(shop: Site, own: bytes) -> None:
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(shop.post, body={"wait": 1})
        until(lambda: shop.upstream.got)
        shop.queue.hold("intake", "replay")
        shop.upstream.answers.append(Response(own, status_code=404))
        shop.upstream.go.set()
        assert (slow.result().status_code, slow.result().content) == (404, own)
    assert [(e.state, e.status) for e in shop.queue.events()] == [(State.PASSED, 404)]


def test_an_event_that_the_pause_dropped_is_kept_in_its_place_and_its_sender_told(shop: Site) -> None:
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(shop.post, event="1", body={"wait": 1}, headers={"authorization": "Bearer s"})
        until(lambda: shop.upstream.got)
        shop.queue.hold("intake", "replay", incident="INC-1")
        shop.post(event="2")
        (flying,) = shop.queue.in_flight("intake")
        shop.queue.drop(flying.id, "the pause dropped it")
        answer = waiting.result()
    assert answer.status_code == 202
    first, second = shop.queue.held()
    assert (first.key, second.key) == ("1", "2"), "in order of arrival"
    assert (first.retry_of, first.id) == (flying.id, answer.json()["event"])
    assert dict(first.headers)["authorization"] == "Bearer s"
    assert shop.queue.event(flying.id).state is State.DROPPED


def test_an_answer_after_all_takes_the_copy_back(shop: Site) -> None:
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(shop.post, event="1", body={"wait": 1})
        until(lambda: shop.upstream.got)
        shop.queue.hold("intake", "replay")
        (flying,) = shop.queue.in_flight()
        copy = shop.queue.drop(flying.id, "dropped")
        shop.queue.answered(flying.id, 200)
        shop.upstream.go.set()
        waiting.result()
    assert shop.queue.event(copy.id).state is State.REPEATED
    assert shop.queue.held() == []


def test_a_platform_that_is_down_is_said_so_and_nothing_is_accepted(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        with site(tmp_path, upstream=f"http://127.0.0.1:{free.getsockname()[1]}") as down:
            answer = down.post()
            assert (answer.status_code, "retry-after" in answer.headers) == (502, True)
            assert [e.state for e in down.queue.events()] == [State.TURNED_AWAY]
            down.queue.hold("intake", "replay")
            assert down.post(event="2").status_code == 202, "a held one needs no platform"
            health = WORLD.get(f"{down.address}/.reinstate/health").json()
            assert (health["ok"], health["held"], health["events"]["held"]) == (True, ["intake"], 1)


def test_a_platform_that_never_answers_leaves_the_event_cut(tmp_path: Path) -> None:
    with site(tmp_path, answer_s=0.2) as slow:
        assert slow.post(body={"wait": 1}).status_code == 504
        assert [e.state for e in slow.queue.events()] == [State.CUT]


def test_without_its_queue_nothing_passes(shop: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    from ingress.errors import QueueUnreachable

    def broken(**_: object) -> None:
        raise QueueUnreachable("disk full")

    monkeypatch.setattr(shop.queue, "record", broken)
    answer = shop.post()
    assert (answer.status_code, "disk" in answer.text) == (503, False)
    assert shop.upstream.got == []


def test_only_its_owner_reads_the_queue(shop: Site, tmp_path: Path) -> None:
    shop.post()
    modes = {stat.S_IMODE(f.stat().st_mode) for f in tmp_path.iterdir()}
    assert modes == {0o600}


SERVE = """
import sys
from ingress import serving
from ingress.queue import Queue
from ingress.server import Ingress
path, upstream, listen, owner = sys.argv[1:]
queue = Queue(path, app="shop", owner=owner)
made = Ingress(queue=queue, upstream=upstream, key_of=lambda event, _: event["body"]["event"])
serving.serve(made.application(), serving.bind(listen))
"""


def test_killed_at_any_moment_it_loses_no_accepted_event_and_doubles_none(tmp_path: Path) -> None:
    """Senders try again until they are told that their event was taken; the ingress dies again and again."""
    from estate import ports
    from ingress import serving as serving_module

    upstream = Upstream()
    path, listen = tmp_path / "events.sqlite", f"127.0.0.1:{ports.choose()}"
    queue = Queue(path, app="shop")
    queue.set_routes(ROUTES)
    accepted: dict[str, str] = {}

    def start(platform: str, number: int) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", SERVE, str(path), platform, listen, f"owner-{number}"]
        process = subprocess.Popen(command, cwd=Path.cwd(), env={**os.environ, "PYTHONPATH": str(Path.cwd())})
        until(lambda: up(listen), within_s=20)
        return process

    def deliver(key: str) -> None:
        deadline = time.monotonic() + 30
        while key not in accepted:
            assert time.monotonic() < deadline
            try:
                answer = WORLD.post(f"http://{listen}/webhook/orders", json={"event": key}, timeout=5)
            except httpx.HTTPError:
                time.sleep(0.02)
                continue
            assert answer.status_code == 202
            accepted[key] = answer.json()["event"]

    with serving_module.in_thread(upstream.application) as platform:
        queue.hold("intake", "replay")
        process = start(platform, 0)
        try:
            with ThreadPoolExecutor(4) as pool:
                work = [pool.submit(deliver, f"e{n}") for n in range(60)]
                for number in range(1, 3):
                    before = len(accepted)
                    until(lambda before=before: len(accepted) >= min(before + 10, 60))
                    process.kill()
                    process.wait()
                    process = start(platform, number)
                for done in work:
                    done.result()
        finally:
            process.kill()
            process.wait()
    held = queue.held()
    assert sorted(e.key or "" for e in held) == sorted(accepted), "each once"
    assert {e.key: e.id for e in held} == accepted, "under the id that its sender was told"
    assert upstream.got == []
    queue.close()


def up(listen: str) -> bool:
    host, port = listen.split(":")
    with socket.socket() as probe:
        return probe.connect_ex((host, int(port))) == 0


def until(look: object, *, within_s: float = 10) -> None:
    deadline = time.monotonic() + within_s
    while not look():  # type: ignore[operator]
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)
