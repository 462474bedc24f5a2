"""Requests and answers on their way through: which headers travel, what is added, what an answer says. Pure."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterable
from typing import Final
from urllib.parse import unquote

from ingress.model import Event

EVENT_HEADER: Final = "x-reinstate-event"
RUN_HEADER: Final = "x-reinstate-run"
"""Where a platform has no runs, workflows tag their writes with it: the event is the run."""

HOP_BY_HOP: Final = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
"""They speak of one connection (RFC 9110, 7.6.1)."""

SET_HERE: Final = frozenset({"host", "content-length", "expect"})
OURS: Final = "x-reinstate-"
"""Nobody outside may say which event or run this is."""


def received(raw: Iterable[tuple[bytes, bytes]]) -> list[tuple[str, str]]:
    """A request's headers as they are kept: names in lower case, without those of the connection."""
    pairs = [(name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in raw]
    dropped = HOP_BY_HOP | SET_HERE | named_by_connection(pairs)
    return [(n, v) for n, v in pairs if n not in dropped and not n.startswith(OURS)]


def outgoing(event: Event) -> list[tuple[bytes, bytes]]:
    """The headers with which an event goes to the platform."""
    stamped = [*event.headers, (EVENT_HEADER, event.id), (RUN_HEADER, event.id)]
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in stamped]


def returned(raw: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """The platform's headers as the sender gets them."""
    pairs = [(name.decode("latin-1").lower(), value) for name, value in raw]
    dropped = HOP_BY_HOP | named_by_connection([(n, v.decode("latin-1")) for n, v in pairs])
    return [(n.encode("latin-1"), v) for n, v in pairs if n not in dropped]


def named_by_connection(pairs: Iterable[tuple[str, str]]) -> set[str]:
    """Headers that the header *Connection* says are of this connection only."""
    return {part.strip().lower() for n, v in pairs if n == "connection" for part in v.split(",") if part.strip()}


def target(base: str, path: str, query: str) -> str:
    """The address at the platform."""
    return base.rstrip("/") + path + (f"?{query}" if query else "")


def path_of(raw: bytes) -> str:
    """The path of a request as it was sent, from its path and query."""
    return raw.decode("ascii").partition("?")[0]


def says_paused(status: int, body: bytes, *, method: str, path: str) -> bool:
    """Whether the answer is surely a platform's own word for *nobody takes this call*: the event started no run.
    ``path`` is the one that was called at the platform, percent-encoded, without a query. A workflow's own refusal
    names no method and path in the platform's very form."""
    if status != 404:
        return False
    return _says_n8n(body, method, path) or _says_express(body, method, path)


def may_say_paused(status: int, body: bytes, *, method: str, path: str) -> bool:
    """Whether the answer is what a paused platform says, and just as well what a workflow may say that ran: only the
    platform can tell."""
    if status == 403:
        # An inactive flow of Directus; a flow that hands on the error of its last operation can say the same.
        return FLOW.search(path) is not None and _json(body) == DIRECTUS
    # The path is another workflow's with another method. Whom a workflow calls may be refused the same way.
    said = _said_by_n8n(body) if status == 404 else ""
    return re.fullmatch(rf"This webhook is not registered for {re.escape(method)} requests\. .+\?", said) is not None


FLOW: Final = re.compile(r"/flows/trigger/[0-9a-fA-F-]{36}$")
DIRECTUS: Final = {
    "errors": [{"message": "You don't have permission to access this.", "extensions": {"code": "FORBIDDEN"}}]
}
EXPRESS: Final = re.compile(
    r'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>Error</title>\n</head>\n<body>\n'
    r"<pre>([^<\n]*)</pre>\n</body>\n</html>\n?"
)
"""The page of Express, on which Node-RED stands."""


def _says_n8n(body: bytes, method: str, path: str) -> bool:
    named = re.fullmatch(r'The requested webhook "(\S+) (.+)" is not registered\.', _said_by_n8n(body), re.DOTALL)
    # n8n names the path below its own prefix, which may be any.
    return named is not None and named[1] == method and unquote(path).rstrip("/").endswith("/" + named[2].rstrip("/"))


def _said_by_n8n(body: bytes) -> str:
    found = _json(body)
    if not isinstance(found, dict) or found.get("code") != 404 or not found.keys() <= {"code", "message", "hint"}:
        return ""
    return str(found.get("message", ""))


def _says_express(body: bytes, method: str, path: str) -> bool:
    page = EXPRESS.fullmatch(body.decode("utf-8", errors="replace"))
    return page is not None and html.unescape(page[1]) == f"Cannot {method} {path}"


def _json(body: bytes) -> object:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None
