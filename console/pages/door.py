"""What every request has to pass: only GET and HEAD, the password of the Prefect UI, headers that leave a browser
nothing to run, keep or send elsewhere."""

from __future__ import annotations

import base64
import binascii
import os
import secrets as random
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from catalog import secrets
from catalog.errors import CatalogError

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

OPEN = frozenset({"/health"})
"""Paths without a password: they say nothing but that the server is there."""
METHODS = ("GET", "HEAD")
REALM = 'Basic realm="Reinstate", charset="UTF-8"'
HEADERS = {
    "content-security-policy": (
        "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}


def password(home: Path) -> str:
    """``user:password`` from ``home/secrets.env``; with a Prefect server of one's own, what its clients are given
    (``PREFECT_API_AUTH_STRING``). Raises ``SecretMissing``."""
    given = os.environ.get("PREFECT_API_AUTH_STRING", "")
    try:
        return secrets.resolve("env:PREFECT_AUTH", home / "secrets.env", environ={})
    except CatalogError:
        if given:
            return given
        raise


class Door:
    """Wraps an application. The password is read again for each request, so that a new one counts at once."""

    def __init__(self, app: ASGIApp, *, home: Path) -> None:
        self._app = app
        self._home = home

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008})
                return
            await self._app(scope, receive, send)
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = {name.encode(): value.encode() for name, value in HEADERS.items()}
                kept = [(n, v) for n, v in message.get("headers", ()) if n.lower() not in own]
                message = {**message, "headers": [*kept, *own.items()]}
            await send(message)

        await self._passed(scope)(scope, receive, guarded)

    def _passed(self, scope: Scope) -> ASGIApp:
        from starlette.responses import PlainTextResponse

        if scope["method"] not in METHODS:
            return PlainTextResponse("Only GET and HEAD.\n", 405, headers={"allow": ", ".join(METHODS)})
        if scope["path"] in OPEN or self._known(scope):
            return self._app
        return PlainTextResponse("User and password, please.\n", 401, headers={"www-authenticate": REALM})

    def _known(self, scope: Scope) -> bool:
        try:
            wanted = password(self._home)
        except CatalogError:
            return False  # without a password nobody gets in
        return random.compare_digest(_digest(_given(scope)), _digest(wanted.encode()))


def _given(scope: Scope) -> bytes:
    headers = [value for name, value in scope["headers"] if name == b"authorization"]
    scheme, _, value = headers[0].partition(b" ") if len(headers) == 1 else (b"", b"", b"")
    if scheme.lower() != b"basic":
        return b""
    try:
        return base64.b64decode(value.strip(), validate=True)
    except binascii.Error:
        return b""


def _digest(value: bytes) -> bytes:
    """Of one length whatever was given, so that comparing tells nothing, not even that."""
    return sha256(value).digest()
