"""Secrets in the options of Directus' operations never leave the adapter."""

from __future__ import annotations

from typing import Any

import pytest

from platforms.base import CredentialState
from platforms.directus_data import credentials_of, definition_of
from platforms.directus_secrets import MASK, filled, known_in, masked, secrets_of
from tests.platforms.directus_flows import flow, id_of, operation

HUSH = "hush-4711"
CASES: list[tuple[str, dict[str, Any], str]] = [
    ("request", {"headers": [{"header": "Authorization", "value": f"Bearer {HUSH}"}]}, "headers.authorization"),
    ("request", {"headers": [{"header": "X-Anything", "value": HUSH}]}, "headers.x-anything"),
    ("request", {"url": f"https://x.example/?a=1&api_key={HUSH}&b=2"}, "url.api_key"),
    ("request", {"url": f"https://ada:{HUSH}@x.example/"}, "url.user"),
    ("request", {"body": f'{{"client_secret": "{HUSH}", "a": 1}}'}, "body.client_secret"),
    ("request", {"body": {"deep": [{"password": HUSH}]}}, "body.deep.0.password"),
    ("json-web-token", {"operation": "sign", "secret": HUSH}, "secret"),
    ("some-extension", {"apiKey": HUSH}, "apiKey"),
]


@pytest.mark.parametrize(("kind", "options", "place"), CASES)
def test_a_secret_is_found_taken_out_and_put_back(kind: str, options: dict[str, Any], place: str) -> None:
    found = secrets_of(kind, options)
    assert [s.place for s in found] == [place]
    assert HUSH not in repr(found)
    hidden = masked(kind, options)
    assert HUSH not in str(hidden)
    assert MASK in str(hidden)
    assert masked(kind, hidden) == hidden
    assert filled(kind, hidden, known_in(kind, options)) == options
    assert known_in(kind, hidden) == {}
    assert filled(kind, hidden, {}) == hidden


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("request", {"headers": [{"header": "Content-Type", "value": "application/json"}]}),
        ("request", {"headers": [{"header": "Authorization", "value": "Bearer {{ $env.TOKEN }}"}]}),
        ("request", {"headers": [{"header": "X-Key", "value": ""}], "url": "https://x.example/?page=2"}),
        ("item-create", {"collection": "orders", "payload": {"total": "{{ $trigger.body.total }}"}}),
        ("item-read", {"collection": "orders", "key": "17"}),
        ("json-web-token", {"operation": "verify", "token": "{{ $trigger.headers.jwt }}", "secret": "{{ $env.KEY }}"}),
        ("exec", {"code": "module.exports = () => ({'token': 'made here'})"}),
        ("condition", {"filter": {"$trigger": {"body": {"total": {"_gt": 3}}}}}),
    ],
)
def test_what_is_no_secret_stays(kind: str, options: dict[str, Any]) -> None:
    assert masked(kind, options) == options


def test_a_changed_address_keeps_the_secret_inside() -> None:
    live = {"url": f"https://x.example/v1?token={HUSH}"}
    wanted = {"url": f"https://x.example/v2?token={MASK}"}
    assert filled("request", wanted, known_in("request", live)) == {"url": f"https://x.example/v2?token={HUSH}"}


def test_a_credential_is_named_by_its_place_and_missing_when_only_the_mask_is_there() -> None:
    there = operation("call", "request", headers=[{"header": "X-Key", "value": HUSH}])
    lost = operation("sign", "json-web-token", secret=MASK)
    found = credentials_of(flow(there, lost))
    assert [(c.id, c.state) for c in found] == [
        (f"{id_of('call')}/headers.x-key", CredentialState.PRESENT),
        (f"{id_of('sign')}/secret", CredentialState.MISSING),
    ]
    assert "enter it again" in found[1].detail
    assert HUSH not in repr(found) + str(definition_of(flow(there, lost)))
