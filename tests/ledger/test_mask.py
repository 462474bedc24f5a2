"""No secret reaches the record."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger import Ledger
from ledger.errors import Refused
from ledger.mask import MASK, Guard


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("postgresql://me:hunter2@db/desk?x=1", "postgresql://me:***@db/desk?x=1"),
        ("cannot reach amqp://:p%40ss@host:5672/", "cannot reach amqp://:***@host:5672/"),
        ("host=db password=hunter2 dbname=desk", "host=db password=*** dbname=desk"),
        ("host=db password='hunt er2' user=x", "host=db password=*** user=x"),
        ("url?api_key=abcdef&x=1", "url?api_key=***&x=1"),
        ("Authorization: Bearer abcdefghijkl", "Authorization: Bearer ***"),
        ("key eyJhbGciOiJI.eyJzdWIiOiIx.c2lnbmF0dXJl end", "key *** end"),
        ("-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----", "***"),
        ("-----BEGIN PRIVATE KEY-----\ncut off", "***"),
        (
            "https://h.test/path at 10:15, user@h.test",
            "https://h.test/path at 10:15, user@h.test",
        ),
        ("the password is wrong; set a password", "the password is wrong; set a password"),
    ],
)
def test_texts_that_look_like_credentials(text: str, masked: str) -> None:
    assert Guard().text(text) == masked
    assert Guard().text(masked) == masked


def test_values_under_telling_names() -> None:
    body = {
        "password": "a",
        "X-N8N-API-KEY": "b",
        "db.dsn": "c",
        "nested": [{"dbPassword": "d", "client_secret": "e"}],
        "api_key": "env:DESK_N8N_KEY",
        "event_key": "body.event_id",
        "fencing": 3,
        "secret": None,
    }
    assert Guard().value(body) == {
        "password": MASK,
        "X-N8N-API-KEY": MASK,
        "db.dsn": MASK,
        "nested": [{"dbPassword": MASK, "client_secret": MASK}],
        "api_key": "env:DESK_N8N_KEY",
        "event_key": "body.event_id",
        "fencing": 3,
        "secret": None,
    }


def test_further_names_to_redact() -> None:
    assert Guard(redact=["Email"]).value({"email": {"any": "thing"}, "x": 1}) == {"email": MASK, "x": 1}


@given(
    st.text(st.characters(exclude_characters="*"), min_size=4, max_size=20), st.text(max_size=9), st.text(max_size=9)
)
def test_a_known_secret_never_passes(secret: str, before: str, after: str) -> None:
    guard = Guard(secrets=[secret])
    masked = guard.value({"a": [before + secret + after], secret: 1})
    assert secret not in masked["a"][0]
    assert secret not in masked


def test_the_ledger_masks_bodies_and_refuses_names(ledger: Ledger) -> None:
    with Ledger(ledger.name, secrets=["s3cr3t/value"], redact=["iban"]) as guarded:
        made = guarded.append("x", app="desk", body={"note": "uses s3cr3t/value and s3cr3t%2Fvalue", "iban": "DE1"})
        assert made.body == {"note": "uses *** and ***", "iban": "***"}
        with pytest.raises(Refused) as raised:
            guarded.append("x", app="desk", step="s3cr3t/value")
        assert "s3cr3t" not in str(raised.value)
        assert "s3cr3t" not in repr(guarded) + repr(guarded._guard)
        assert guarded.verify() == []


def test_a_secret_of_any_characters_can_be_guarded() -> None:
    guard = Guard(secrets=["pass\ud800 w%rd"])
    assert guard.text("is pass\ud800 w%rd and pass%ED%A0%80%20w%25rd") == "is *** and ***"
