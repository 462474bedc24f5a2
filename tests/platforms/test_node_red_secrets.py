"""Secrets among the properties of Node-RED's nodes: out when read, back when written."""

from typing import Any

import pytest

from platforms.node_red_secrets import KEPT, held, put_back, taken_out, without

SECRET = "hush"  # noqa: S105 - no secret of anybody
NODE: dict[str, Any] = {
    "id": "a",
    "type": "of-somebody",
    "password": SECRET,
    "passwordFieldType": "str",
    "apiKey": SECRET,
    "user": "shop",
    "url": f"https://shop:{SECRET}@host.test/path?x=1",
    "headers": [
        {"keyType": "Authorization", "keyValue": "", "valueType": "other", "valueValue": f"Bearer {SECRET}"},
        {"keyType": "other", "keyValue": "x-api-key", "valueType": "other", "valueValue": SECRET},
        {"keyType": "Accept", "keyValue": "", "valueType": "other", "valueValue": "text/html"},
    ],
    "env": [
        {"name": "SHOP_TOKEN", "type": "str", "value": SECRET},
        {"name": "SHOP_NAME", "type": "str", "value": "north"},
    ],
    "deep": {"tls": {"passphrase": SECRET}},
}


def test_no_secret_is_left_and_everything_else_is() -> None:
    shown = taken_out(NODE)
    assert SECRET not in str(shown)
    assert shown["url"] == f"https://shop:{KEPT}@host.test/path?x=1"
    assert [h["valueValue"] for h in shown["headers"]] == [KEPT, KEPT, "text/html"]
    assert (shown["user"], shown["env"][1]["value"]) == ("shop", "north")
    assert taken_out(shown) == shown


def test_what_was_taken_out_is_put_back_from_what_is_there_now() -> None:
    assert put_back(taken_out(NODE), NODE) == NODE
    now = {**NODE, "password": "new", "headers": NODE["headers"][::-1], "url": "https://shop:new@host.test/path?x=1"}
    wanted = put_back({**taken_out(NODE), "user": "other"}, now)
    assert (wanted["password"], wanted["user"], wanted["url"]) == ("new", "other", now["url"])
    assert [h["valueValue"] for h in wanted["headers"]] == [h["valueValue"] for h in NODE["headers"]], (
        "by what they are"
    )


def test_where_nothing_is_there_the_secret_stays_empty() -> None:
    made = put_back(taken_out(NODE), None)
    assert KEPT not in str(made)
    assert (made["password"], made["url"]) == ("", "https://shop:@host.test/path?x=1")
    assert put_back("plain", SECRET) == "plain"


@pytest.mark.parametrize(
    "named",
    [
        {"password": "DB_PASSWORD", "passwordFieldType": "env"},
        {"password": "${DB_PASSWORD}"},
        {"token": ""},
        {"password": True},
        {"tokens": ["a"]},
        {"name": "TOKEN", "type": "env", "value": "SHOP_TOKEN"},
    ],
)
def test_what_only_names_a_secret_is_shown(named: dict[str, Any]) -> None:
    assert taken_out(named) == named


def test_a_node_tells_which_secrets_it_has() -> None:
    config = {"type": "postgresDB", "password": "x", "token": "", "passwordFieldType": "str", "user": "u"}
    assert held(config) == {"password": True, "token": False}
    assert held({"password": "${PW}"}) == {}


def test_secrets_do_not_count_whether_there_or_not() -> None:
    forms = [{"user": "u", "password": secret} for secret in (KEPT, "")]
    assert [without(form) for form in forms] == [{"user": "u"}, {"user": "u"}]
