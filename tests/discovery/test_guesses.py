"""Guesses from names and values."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from discovery import guesses
from discovery.guesses import event_paths, found_in
from discovery.suites import bounds


def events(*bodies: dict[str, Any], **headers: str) -> list[dict[str, Any]]:
    return [{"body": b, "headers": headers, "query": {}, "trigger": "Webhook"} for b in bodies]


def test_the_key_of_an_event_is_what_differs_and_is_called_so() -> None:
    seen = events(
        *(
            {"event_id": f"e{n}", "order_id": n, "kind": "x", "placed_at": f"2026-01-0{n}T10:00:00Z"}
            for n in range(1, 7)
        )
    )
    guess = event_paths(seen)
    assert (guess.key, guess.time, guess.doubts) == ("body.event_id", "body.placed_at", ())


def test_what_is_seen_twice_is_no_key() -> None:
    guess = event_paths(events({"event_id": 1, "order_id": 7}, {"event_id": 1, "order_id": 8}))
    assert guess.key == "body.order_id"
    assert guess.doubts == ("the key was seen in 2 events only",)


def test_a_header_may_carry_it_and_some_events_have_none() -> None:
    seen = [{"body": {"v": 1}, "headers": {"idempotency-key": str(n), "date": str(n)}} for n in range(6)]
    assert event_paths(seen).key == "headers.idempotency-key"
    nameless = event_paths(events(*({"amount": 5} for _ in range(6))))
    assert nameless.key is None
    assert "not replayed" in nameless.doubts[0]
    assert event_paths([]).key is None


def test_several_times_are_a_doubt() -> None:
    guess = event_paths(
        events(*({"id": n, "due": "2026-01-01T00:00:00Z", "sent_at": "2026-01-01T00:00:00Z"} for n in range(6)))
    )
    assert guess.time == "body.sent_at"
    assert guess.doubts == ("the event's time may also be body.due",)


def test_paths_lead_into_lists_too() -> None:
    event = {"body": {"items": [{"sku": "a"}], "empty": ""}}
    assert found_in("body.items.0.sku", event)
    for path in ("body.items.1.sku", "body.empty", "body.none", "body.items.sku", "headers.x"):
        assert not found_in(path, event), path


@pytest.mark.parametrize(
    ("table", "column", "is_personal"),
    [
        ("a.orders", "customer_email", True), ("a.orders", "phone", True), ("a.orders", "name", False),
        ("a.customers", "name", True), ("a.orders", "total", False), ("a.x", "birth_date", True),
        ("a.products", "title", False), ("a.users", "region", False),
    ],
)  # fmt: skip
def test_personal_columns(table: str, column: str, is_personal: bool) -> None:
    assert (guesses.personal(table, column) is not None) is is_personal


def test_values_tell_more_than_names() -> None:
    assert guesses.personal("a.x", "y", emails=0.9)


def test_keys_of_the_catalogue_come_from_names() -> None:
    assert guesses.key_of("Order intake (new)") == "order-intake-new"
    assert guesses.key_of("2nd try") == "w-2nd-try"


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [("1", "10", (0, 30)), ("-5", "5", (-25, 25)), ("0.5", "2.5", (0, 7.5)), ("0", "1234", (0, 3800))],
)
def test_bounds_leave_room_and_keep_the_sign(low: str, high: str, expected: tuple[float, float]) -> None:
    assert bounds(Decimal(low), Decimal(high)) == expected
