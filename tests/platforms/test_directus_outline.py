"""A Directus flow read in words that every platform shares; what Directus answers, read as errors of two types."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from platforms.base import Access, EntryKind, Permanent, Retryable, TableUse
from platforms.directus_client import DirectusClient, Full, Unknown, code_of
from platforms.directus_outline import outline
from platforms.registry import open_platform
from tests.platforms.directus_flows import FLOW, definition, operation


def test_an_outline_tells_entry_nodes_links_tables_calls_and_hosts() -> None:
    told = outline(
        definition(
            operation("make", "item-create", then="call", other="log", collection="orders", payload={"total": 1}),
            operation("call", "request", then="start", url="https://pay.example/x", headers=[]),
            operation("start", "trigger", then="look", flow="another"),
            operation("look", "item-read", then="open", collection="{{ $last.name }}"),
            operation("open", "item-update", collection="orders", payload="{{ $last }}", emitEvents=True),
            operation("log"),
            operation("odd", "ai-magic"),
        )
    )
    assert [(e.kind, e.method, e.path) for e in told.entries] == [(EntryKind.WEBHOOK, "POST", f"/flows/trigger/{FLOW}")]
    nodes = {n.name: n for n in told.nodes}
    assert told.links[:3] == (("$trigger", "make"), ("make", "call"), ("make", "log"))
    assert nodes["make"].tables == (TableUse(table="orders", access=Access.WRITE, columns=("total",)),)
    assert nodes["call"].hosts == ("pay.example",)
    assert nodes["start"].calls == ("another",)
    assert (nodes["look"].tables, len(nodes["look"].unsure)) == ((), 1)
    assert nodes["open"].tables == (TableUse(table="orders", access=Access.WRITE),)
    assert "may start flows" in nodes["open"].unsure[0]
    assert "extension" in nodes["odd"].unsure[0]


@pytest.mark.parametrize(
    ("trigger", "options", "kind"),
    [
        ("schedule", {"cron": "0 9 * * *"}, EntryKind.SCHEDULE),
        ("event", {"type": "action", "scope": ["items.create"]}, EntryKind.EVENT),
        ("operation", {}, EntryKind.CALL),
        ("manual", {"collections": ["orders"]}, EntryKind.MANUAL),
    ],
)
def test_every_trigger_is_an_entry(trigger: str, options: dict[str, Any], kind: EntryKind) -> None:
    (entry,) = outline(definition(operation("a"), trigger=trigger, options=options)).entries
    assert entry.kind is kind
    assert entry.schedule == options.get("cron")


def test_what_is_not_known_is_said() -> None:
    quiet = outline(definition(operation("a"), trigger="telepathy", settings={"accountability": None}))
    assert quiet.entries == ()
    assert len(quiet.nodes[0].unsure) == 2
    assert outline({"name": "empty"}).nodes[0].kind == "none"


def answer(status: int, code: str = "", message: str = "no") -> httpx.Response:
    content = {"errors": [{"message": message, "extensions": {"code": code}}]} if code else {}
    return httpx.Response(status, json=content)


@pytest.mark.parametrize(
    ("response", "kind"),
    [
        (answer(401, "INVALID_CREDENTIALS"), Permanent),
        (answer(403, "FORBIDDEN"), Unknown),
        (answer(404, "ROUTE_NOT_FOUND"), Unknown),
        (answer(403, "LIMIT_EXCEEDED"), Full),
        (answer(400, "INVALID_PAYLOAD"), Permanent),
        (answer(429, "REQUESTS_EXCEEDED"), Retryable),
        (answer(503, "SERVICE_UNAVAILABLE"), Retryable),
        (httpx.Response(500, text="<html>"), Retryable),
    ],
)
def test_refusals_are_of_two_types(response: httpx.Response, kind: type[Exception]) -> None:
    problem = DirectusClient("http://cms.example", "t").refused("workflow x", response)
    assert type(problem) is kind
    assert str(problem).startswith("workflow x: ")
    assert "\n" not in str(problem)


def test_an_answer_without_a_code_has_none() -> None:
    assert code_of(answer(403, "FORBIDDEN")) == "FORBIDDEN"
    assert code_of(httpx.Response(403, text="proxy")) == code_of(httpx.Response(403, json=["x"])) == ""


@pytest.mark.parametrize(("url", "token"), [("ftp://x", "t"), ("http://", "t"), ("http://x", ""), ("http://x", "ž\n")])
def test_a_malformed_address_or_token_is_permanent_and_keeps_the_token(url: str, token: str) -> None:
    with pytest.raises(Permanent, match="directus"):
        DirectusClient(url, token)


def test_the_registry_opens_it_and_shows_no_token() -> None:
    platform = open_platform("directus", "http://127.0.0.1:9", "hush")
    assert "hush" not in repr(platform)
    with pytest.raises(Retryable, match="unreachable"):
        platform.health()
    platform.close()
