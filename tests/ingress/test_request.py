"""What an answer says: a platform's own word for a paused workflow, and nothing that a workflow may say itself."""

from __future__ import annotations

import json

import pytest

from ingress.request import may_say_paused, path_of, says_paused

PATH = "/webhook/shops/north%20pole/orders"
FLOW = "/flows/trigger/6b0a2f57-1d43-4c6f-9f3a-0d7f6a1c2b3e"
HINT = "The workflow must be active for a production URL to run successfully."


def n8n(message: str, **more: object) -> bytes:
    return json.dumps({"code": 404, "message": message, **more}).encode()


def express(said: str) -> bytes:
    head = '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>Error</title>\n</head>\n<body>\n'
    return f"{head}<pre>{said}</pre>\n</body>\n</html>\n".encode()


def directus(message: str = "You don't have permission to access this.", **extensions: str) -> bytes:
    return json.dumps({"errors": [{"message": message, "extensions": {"code": "FORBIDDEN", **extensions}}]}).encode()


NAMED = 'The requested webhook "POST shops/north pole/orders" is not registered.'
OTHER_METHOD = "This webhook is not registered for POST requests. Did you mean to make a GET request?"


@pytest.mark.parametrize(
    ("status", "body", "paused"),
    [
        (404, n8n(NAMED, hint=HINT), True),
        (404, n8n(NAMED), True),
        (404, express(f"Cannot POST {PATH}"), True),
        (404, b'{"error":"Cannot find order 7"}', False),
        (404, b"customer 42 is not registered", False),
        (404, n8n("customer 42 is not registered"), False),
        (404, n8n(NAMED, order=7), False),
        (404, json.dumps({"message": NAMED}).encode(), False),
        (404, json.dumps([NAMED]).encode(), False),
        (404, NAMED.encode(), False),
        (404, n8n(NAMED.replace("POST", "GET")), False),
        (404, n8n('The requested webhook "POST orders-of-old" is not registered.'), False),
        (404, n8n('The requested webhook "POST s" is not registered.'), False),
        (404, n8n(NAMED + " Or so."), False),
        (404, express("Cannot POST /webhook/else"), False),
        (404, express(f"Cannot GET {PATH}"), False),
        (404, f"Cannot POST {PATH}".encode(), False),
        (404, f"<pre>Cannot POST {PATH}</pre>".encode(), False),
        (404, b"", False),
        (404, b"\xff" * 9, False),
        (404, b"[" * 100_000, False),
        (200, n8n(NAMED), False),
        (500, express(f"Cannot POST {PATH}"), False),
        (403, directus(), False),
    ],
)
def test_only_the_platforms_own_form_for_this_very_call_says_paused(status: int, body: bytes, paused: bool) -> None:
    assert says_paused(status, body, method="POST", path=PATH) is paused
    assert not may_say_paused(status, body, method="POST", path=PATH)


@pytest.mark.parametrize(
    ("status", "body", "path", "maybe"),
    [
        (403, directus(), FLOW, True),
        (403, directus(), "/below" + FLOW, True),
        (403, directus(), "/webhook/orders", False),
        (403, directus(reason="not yours"), FLOW, False),
        (403, directus("Not for this shop."), FLOW, False),
        (403, b'{"data":{"note":"FORBIDDEN"}}', FLOW, False),
        (404, directus(), FLOW, False),
        (404, n8n(OTHER_METHOD), PATH, True),
        (404, n8n(OTHER_METHOD.replace("POST", "PUT")), PATH, False),
        (403, n8n(OTHER_METHOD), PATH, False),
    ],
)
def test_what_a_workflow_may_say_too_is_never_sure(status: int, body: bytes, path: str, maybe: bool) -> None:
    assert may_say_paused(status, body, method="POST", path=path) is maybe
    assert not says_paused(status, body, method="POST", path=path)


def test_marks_in_a_path_are_read_from_the_page_of_express() -> None:
    body = express("Cannot PUT /red/o%7Br%7Dd&#39;&amp;x")
    assert says_paused(404, body, method="PUT", path="/red/o%7Br%7Dd'&x")


def test_the_path_is_the_one_that_was_sent() -> None:
    assert path_of(b"/a%20b/c?d=/e") == "/a%20b/c"
    assert path_of(b"/") == "/"
