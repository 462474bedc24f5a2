"""What the HTTP clients of platforms share: who is asked, and errors of the port's two types, in one line and without
the secret."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, ClassVar

import httpx

from platforms.base import Permanent, Retryable

LONGEST_CAUSE = 160


class HttpClient(ABC):
    """The API of one platform, asked with the secret, and its entries, asked as anybody may. Safe to share between
    threads. ``api`` and ``web`` are the paths below which they lie."""

    KIND: ClassVar[str]
    """As the catalogue writes it."""
    PRODUCT: ClassVar[str]
    """As people write it."""
    SECRET: ClassVar[str] = "token"  # noqa: S105 - what the platform calls it

    def __init__(
        self, url: str, secret: str, headers: Mapping[str, str], *, timeout_s: float, api: str = "", web: str = ""
    ) -> None:
        try:
            self.base = httpx.URL(url.rstrip("/"))
            sent = httpx.Headers(dict(headers))
        except (httpx.InvalidURL, UnicodeEncodeError) as problem:
            raise Permanent(
                f"{self.KIND}: the URL or the {self.SECRET} is malformed; check the catalogue's platform"
            ) from problem
        if self.base.scheme not in ("http", "https") or not self.base.host:
            raise Permanent(f"{self.KIND}: {url} is no http(s) address; check the catalogue's platform")
        if not secret.isprintable() or not secret:
            raise Permanent(f"{self.KIND}: the {self.SECRET} is empty or malformed; check the secret it is read from")
        # Proxies of the environment must not stand between Reinstate and its platform.
        self._api = httpx.Client(base_url=f"{self.base}{api}", headers=sent, timeout=timeout_s, trust_env=False)
        self._web = httpx.Client(base_url=f"{self.base}{web}", timeout=timeout_s, trust_env=False)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.base})"

    def close(self) -> None:
        self._api.close()
        self._web.close()

    def respond(
        self,
        what: str,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        body: Any = None,
        timeout_s: float | None = None,
    ) -> httpx.Response:
        """One call of the API, answered with success; ``what`` names the object in errors."""
        patience = httpx.USE_CLIENT_DEFAULT if timeout_s is None else timeout_s
        try:
            response = self._api.request(
                method, path, params=dict(params or {}), headers=dict(headers or {}), json=body, timeout=patience
            )
        except httpx.HTTPError as problem:
            raise self.unreachable(what, problem) from problem
        if response.status_code >= 300:
            raise self.refused(what, response)
        return response

    def decoded(self, what: str, response: httpx.Response) -> Any:
        """The JSON of an answer."""
        try:
            return response.json()
        except ValueError as problem:
            raise Retryable(
                f"{what}: {self.PRODUCT}'s answer was cut off or is no JSON; trying again may help"
            ) from problem

    def stranger(self, what: str) -> Permanent:
        """The error for an answer that the platform would not give."""
        return Permanent(f"{what}: {self.base} does not answer like {self.PRODUCT}; check the URL")

    def unreachable(self, what: str, problem: httpx.HTTPError) -> Retryable:
        """The error for no answer."""
        kind = "timed out" if isinstance(problem, httpx.TimeoutException) else type(problem).__name__
        return Retryable(f"{what}: {self.PRODUCT} at {self.base} is unreachable ({kind}); check that it runs")

    @abstractmethod
    def refused(self, what: str, response: httpx.Response) -> Permanent | Retryable:
        """The error for an HTTP status of 300 and more."""


def server_time(response: httpx.Response) -> datetime:
    """The HTTP ``Date`` of an answer, in whole seconds; our own clock when a proxy removed it."""
    try:
        return parsedate_to_datetime(response.headers["date"]).astimezone(UTC)
    except (KeyError, ValueError, TypeError):
        return datetime.now(UTC)


def message_of(response: httpx.Response) -> str:
    """What an answer says is wrong, in one line: its ``message``, else its text, else the words of its status."""
    try:
        text = str(response.json().get("message", ""))
    except (ValueError, AttributeError):
        text = response.text
    return shortened(text, response)


def shortened(text: str, response: httpx.Response) -> str:
    """``text`` as one line of bounded length; the words of the status when it is empty."""
    return " ".join(text.split())[:LONGEST_CAUSE] or response.reason_phrase
