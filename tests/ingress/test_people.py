"""Whom an event names: by a value of its own anywhere in it, exactly; inside another text is for a person to decide."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from ingress.model import Event, Person, State
from ingress.people import Mention, mention
from ingress.queue import Queue
from ingress.reading import PAGE

ANN = "ann@example.com"
JSON = (("content-type", "application/json"),)
FORM = (("content-type", "application/x-www-form-urlencoded"),)


def event(**parts: Any) -> Event:
    given: dict[str, Any] = {"key": None, "path": "/orders", "query": "", "headers": JSON, "body": b"{}", **parts}
    known: dict[str, Any] = {"id": "e", "seq": 1, "place": 1, "workflow": "intake", "method": "POST"}
    return Event(**known, **given, state=State.PASSED, received_at=datetime.now(UTC))


@pytest.mark.parametrize(
    "parts",
    [
        {"body": json.dumps({"customer": {"mails": [1, ANN]}}).encode()},
        {"body": json.dumps({ANN: True}).encode()},
        {"body": b"name=Ann&mail=ann%40example.com", "headers": FORM},
        {"body": ANN.encode(), "headers": ()},
        {"query": "mail=ann%40example.com"},
        {"headers": (("x-customer", ANN),)},
        {"path": "/people/ann%40example.com/orders"},
        {"key": ANN},
    ],
)
def test_a_value_of_its_own_names_a_person_wherever_it_stands(parts: dict[str, Any]) -> None:
    assert mention(event(**parts), ANN) is Mention.VALUE


def test_inside_another_text_is_told_apart_and_nothing_else_is_meant() -> None:
    assert mention(event(body=json.dumps({"note": f"ask {ANN} first"}).encode()), ANN) is Mention.INSIDE
    assert mention(event(body=json.dumps({"note": f"ask {ANN}", "mail": ANN}).encode()), ANN) is Mention.VALUE
    assert mention(event(body=json.dumps({"mail": "other@example.com", "n": None}).encode()), ANN) is None
    assert mention(event(body=json.dumps({"id": 17}).encode()), "17") is Mention.VALUE
    assert mention(event(body=b"\xff\x00"), ANN) is None


def test_the_queue_finds_all_and_forgets_what_has_ended(tmp_path: Path) -> None:
    queue, others = Queue(tmp_path / "q.sqlite", app="shop"), Queue(tmp_path / "q.sqlite", app="other")

    def take(into: Queue, body: object) -> Event:
        sent = {"method": "POST", "path": "/orders", "query": "", "headers": list(JSON)}
        return into.record(workflow="intake", key=None, body=json.dumps(body).encode(), **sent)  # type: ignore[arg-type]

    ended = [take(queue, {"mail": ANN}).id for _ in range(PAGE + 2)]
    kept = take(queue, {"mail": "other@example.com"}).id
    inside = take(queue, {"note": f"for {ANN}"}).id
    for event_id in (*ended, kept, inside):
        queue.answered(event_id, 200)
    waiting = take(queue, {"mail": ANN}).id
    elsewhere = take(others, {"mail": ANN}).id
    assert queue.of_person(ANN) == Person(ended=tuple(ended), open=(waiting,), inside=(inside,))
    assert queue.forget([*ended, waiting, elsewhere]) == len(ended)
    assert [e.id for e in queue.events()] == [kept, inside, waiting]
    assert [e.id for e in others.events()] == [elsewhere]
    assert queue.of_person(ANN) == Person(open=(waiting,), inside=(inside,))
    queue.close()
    others.close()
