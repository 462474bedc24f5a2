"""Requests and answers on their way through: which headers travel, what is added, what an answer says. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

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


def says_paused(status: int, body: bytes) -> bool:
    """Whether the answer is a platform's own word for *nobody takes this call*: the event started no run. A workflow
    that answers 404 by itself does not write like that."""
    text = body[:2000].decode("utf-8", errors="replace")
    if status == 404:
        # n8n says that the webhook is not registered; Express, on which Node-RED stands, that it cannot POST there.
        return "is not registered" in text or "Cannot " in text
    return status == 403 and '"FORBIDDEN"' in text
