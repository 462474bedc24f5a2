"""HTTP to n8n: one client, errors mapped to the two types of the port, in one line and without the key."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx

from platforms.base import Permanent, Retryable

PAGE = 250
"""The most n8n gives per page."""

STARTING = "starting up"
"""What n8n answers, with 404 or 503, until its API is ready."""


class Unknown(Permanent):
    """n8n does not know the object (any more)."""


class Conflict(Permanent):
    """The object is in a state that does not allow the call (yet)."""


class N8nClient:
    """The public API under ``/api/v1`` and the production webhooks of one n8n. Safe to share between threads."""

    def __init__(self, url: str, api_key: str, *, timeout_s: float = 15.0) -> None:
        try:
            self.base = httpx.URL(url.rstrip("/"))
            headers = httpx.Headers({"X-N8N-API-KEY": api_key})
        except (httpx.InvalidURL, UnicodeEncodeError) as problem:
            raise Permanent("n8n: the URL or the API key is malformed; check the catalogue's platform") from problem
        if self.base.scheme not in ("http", "https") or not self.base.host:
            raise Permanent(f"n8n: {url} is no http(s) address; check the catalogue's platform")
        if not api_key.isprintable() or not api_key:
            raise Permanent("n8n: the API key is empty or malformed; check the secret it is read from")
        # Proxies of the environment must not stand between Reinstate and its platform.
        self._api = httpx.Client(base_url=f"{self.base}/api/v1", headers=headers, timeout=timeout_s, trust_env=False)
        self._web = httpx.Client(base_url=f"{self.base}/webhook", timeout=timeout_s, trust_env=False)

    def __repr__(self) -> str:
        return f"N8nClient({self.base})"

    def close(self) -> None:
        self._api.close()
        self._web.close()

    def get(self, what: str, path: str, **params: Any) -> dict[str, Any]:
        return self.call(what, "GET", path, params=params)

    def call(
        self, what: str, method: str, path: str, *, params: Mapping[str, Any] | None = None, body: Any = None
    ) -> dict[str, Any]:
        """One API call; ``what`` names the object in errors. Returns the JSON object of the answer."""
        response = self.respond(what, method, path, params=params, body=body)
        return self.decoded(what, response)

    def respond(
        self, what: str, method: str, path: str, *, params: Mapping[str, Any] | None = None, body: Any = None
    ) -> httpx.Response:
        try:
            response = self._api.request(method, path, params=dict(params or {}), json=body)
        except httpx.HTTPError as problem:
            raise unreachable(what, self.base, problem) from problem
        if response.status_code >= 300:
            raise refused(what, self.base, response)
        return response

    def decoded(self, what: str, response: httpx.Response) -> dict[str, Any]:
        try:
            answer = response.json()
        except ValueError as problem:
            raise Retryable(f"{what}: n8n's answer was cut off or is no JSON; trying again may help") from problem
        if not isinstance(answer, dict):
            raise Permanent(f"{what}: {self.base} does not answer like n8n; check the URL")
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
                raise Permanent(f"{what}: {self.base} does not answer like n8n; check the URL")
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
            raise unreachable(what, self.base, problem) from problem
        allowed = response.headers.get("access-control-allow-methods")
        if allowed is None and response.status_code >= 500:
            raise refused(what, self.base, response)
        if allowed is None:
            raise Permanent(
                f"{what}: the preflight did not reach n8n (HTTP {response.status_code}); let OPTIONS pass the proxy"
            )
        return {method.strip().upper() for method in allowed.split(",")} - {"OPTIONS"}

    def post_webhook(self, path: str, body: Any, headers: Mapping[str, str], *, timeout_s: float) -> httpx.Response:
        """A POST to a production webhook, the answer whatever it is. Raises ``httpx.HTTPError``."""
        return self._web.post(f"/{path}", json=body, headers=dict(headers), timeout=timeout_s)


def unreachable(what: str, base: httpx.URL, problem: httpx.HTTPError) -> Retryable:
    kind = "timed out" if isinstance(problem, httpx.TimeoutException) else type(problem).__name__
    return Retryable(f"{what}: n8n at {base} is unreachable ({kind}); check that it runs")


def refused(what: str, base: httpx.URL, response: httpx.Response) -> Permanent | Retryable:
    """The error for an HTTP status of 300 and more."""
    status, cause = response.status_code, _cause(response)
    if status in (401, 403):
        return Permanent(f"{what}: n8n at {base} refused the API key ({status}); make a new key with all scopes")
    if status in (408, 425, 429) or status >= 500 or STARTING in cause:
        return Retryable(f"{what}: n8n answered {status} ({cause}); trying again may help")
    if status == 404:
        return Unknown(f"{what}: n8n at {base} does not know it (404, {cause}); check the id in the catalogue")
    kind = Conflict if status == 409 else Permanent
    return kind(f"{what}: n8n refused ({status}, {cause}); correct what it names, then try again")


def server_time(response: httpx.Response) -> datetime:
    """The HTTP ``Date`` of an answer, in whole seconds; our own clock when a proxy removed it."""
    try:
        return parsedate_to_datetime(response.headers["date"]).astimezone(UTC)
    except (KeyError, ValueError, TypeError):
        return datetime.now(UTC)


def _cause(response: httpx.Response) -> str:
    try:
        text = str(response.json().get("message", ""))
    except (ValueError, AttributeError):
        text = response.text
    return " ".join(text.split())[:160] or response.reason_phrase
