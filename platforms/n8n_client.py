"""HTTP to n8n: one client, errors mapped to the two types of the port, in one line and without the key."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import httpx

from platforms.base import Permanent, Retryable
from platforms.http import HttpClient, message_of

PAGE = 250
"""The most n8n gives per page."""

STARTING = "starting up"
"""What n8n answers, with 404 or 503, until its API is ready."""


class Unknown(Permanent):
    """n8n does not know the object (any more)."""


class Conflict(Permanent):
    """The object is in a state that does not allow the call (yet)."""


class N8nClient(HttpClient):
    """The public API under ``/api/v1`` and the production webhooks of one n8n."""

    KIND = PRODUCT = "n8n"
    SECRET = "API key"  # noqa: S105 - what n8n calls it

    def __init__(self, url: str, api_key: str, *, timeout_s: float = 15.0) -> None:
        headers = {"X-N8N-API-KEY": api_key}
        super().__init__(url, api_key, headers, timeout_s=timeout_s, api="/api/v1", web="/webhook")

    def get(self, what: str, path: str, **params: Any) -> dict[str, Any]:
        return self.call(what, "GET", path, params=params)

    def call(
        self, what: str, method: str, path: str, *, params: Mapping[str, Any] | None = None, body: Any = None
    ) -> dict[str, Any]:
        """One API call; ``what`` names the object in errors. Returns the JSON object of the answer."""
        answer = self.decoded(what, self.respond(what, method, path, params=params, body=body))
        if not isinstance(answer, dict):
            raise self.stranger(what)
        return answer

    def pages(
        self, what: str, path: str, *, limit: int = PAGE, params: Mapping[str, Any] | None = None
    ) -> Iterator[dict[str, Any]]:
        """All items of a paged list, in n8n's order (newest first)."""
        cursor: str | None = None
        while True:
            more = {"cursor": cursor} if cursor else {}
            answer = self.get(what, path, limit=limit, **(params or {}), **more)
            items = answer.get("data")
            if not isinstance(items, list):
                raise self.stranger(what)
            yield from items
            cursor = answer.get("nextCursor")
            if not cursor:
                return

    def webhook_methods(self, path: str) -> set[str]:
        """Methods n8n has registered for a production webhook path, asked by a CORS preflight.

        An OPTIONS request never starts a run. Only ``Origin`` is sent: naming a method too would make n8n look into
        (and refill) its webhook cache instead of its table, and leave a stale entry behind a deactivation.
        """
        what = f"webhook {path}"
        try:
            response = self._web.request("OPTIONS", f"/{path.lstrip('/')}", headers={"Origin": str(self.base)})
        except httpx.HTTPError as problem:
            raise self.unreachable(what, problem) from problem
        allowed = response.headers.get("access-control-allow-methods")
        if allowed is None and response.status_code >= 500:
            raise self.refused(what, response)
        if allowed is None:
            raise Permanent(
                f"{what}: the preflight did not reach n8n (HTTP {response.status_code}); let OPTIONS pass the proxy"
            )
        return {method.strip().upper() for method in allowed.split(",")} - {"OPTIONS"}

    def post_webhook(self, path: str, body: Any, headers: Mapping[str, str], *, timeout_s: float) -> httpx.Response:
        """A POST to a production webhook, the answer whatever it is. Raises ``httpx.HTTPError``."""
        return self._web.post(f"/{path}", json=body, headers=dict(headers), timeout=timeout_s)

    def refused(self, what: str, response: httpx.Response) -> Permanent | Retryable:
        status, cause = response.status_code, message_of(response)
        if status in (401, 403):
            return Permanent(
                f"{what}: n8n at {self.base} refused the API key ({status}); make a new key with all scopes"
            )
        if status in (408, 425, 429) or status >= 500 or STARTING in cause:
            return Retryable(f"{what}: n8n answered {status} ({cause}); trying again may help")
        if status == 404:
            return Unknown(f"{what}: n8n at {self.base} does not know it (404, {cause}); check the id in the catalogue")
        kind = Conflict if status == 409 else Permanent
        return kind(f"{what}: n8n refused ({status}, {cause}); correct what it names, then try again")
