"""HTTP to Directus: one client, errors mapped to the two types of the port, in one line and without the token."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import httpx

from platforms.base import Permanent, Retryable
from platforms.http import HttpClient, shortened

PAGE = 200
IDS_AT_ONCE = 50
"""How many ids go into one address: 50 of 36 characters stay far below what proxies let pass."""


class Unknown(Permanent):
    """Directus does not know the object, or does not show it to this token: it answers 403 to both."""


class Full(Permanent):
    """The licence allows no more active flows."""


class DirectusClient(HttpClient):
    """The REST API of one Directus."""

    KIND = "directus"
    PRODUCT = "Directus"

    def __init__(self, url: str, token: str, *, timeout_s: float = 15.0) -> None:
        super().__init__(url, token, {"Authorization": f"Bearer {token}"}, timeout_s=timeout_s)

    def call(
        self,
        what: str,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        body: Any = None,
        timeout_s: float | None = None,
    ) -> Any:
        """One API call; ``what`` names the object in errors. Returns the answer's ``data``, ``None`` if it is empty."""
        response = self.respond(what, method, path, params=params, body=body, timeout_s=timeout_s)
        if response.status_code == httpx.codes.NO_CONTENT:
            return None
        answer = self.decoded(what, response)
        if not isinstance(answer, dict) or "data" not in answer:
            raise self.stranger(what)
        return answer["data"]

    def pages(self, what: str, path: str, params: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """All items of a list by rising id, read in pages that new items cannot shift."""
        last: Any = None
        while True:
            after = {} if last is None else {"filter[id][_gt]": last}
            items = self.call(what, "GET", path, params={**params, **after, "sort": "id", "limit": PAGE})
            yield from items
            if len(items) < PAGE:
                return
            last = items[-1]["id"]

    def of_ids(
        self, what: str, path: str, ids: Sequence[Any], params: Mapping[str, Any], *, field: str = "id"
    ) -> Iterator[dict[str, Any]]:
        """The items that have one of these ids in ``field``."""
        for at in range(0, len(ids), IDS_AT_ONCE):
            some = ",".join(str(i) for i in ids[at : at + IDS_AT_ONCE])
            yield from self.call(what, "GET", path, params={**params, f"filter[{field}][_in]": some, "limit": -1})

    def trigger(
        self,
        flow: str,
        method: str,
        *,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        privileged: bool = False,
        timeout_s: float | None = None,
    ) -> httpx.Response:
        """Call a flow's own entry, as the public or with the token; the answer whatever it is. Raises
        ``httpx.HTTPError``."""
        client = self._api if privileged else self._web
        patience = httpx.USE_CLIENT_DEFAULT if timeout_s is None else timeout_s
        path = f"/flows/trigger/{flow}"
        return client.request(method, path, json=body, headers=dict(headers or {}), timeout=patience)

    def refused(self, what: str, response: httpx.Response) -> Permanent | Retryable:
        status, (code, cause) = response.status_code, _cause(response)
        if status == 401:
            return Permanent(f"{what}: Directus at {self.base} refused the token ({status}); make a new static token")
        if code == "LIMIT_EXCEEDED":
            return Full(
                f"{what}: the licence of Directus at {self.base} allows no more ({cause}); switch a flow off or "
                "extend it"
            )
        if status in (408, 425, 429) or status >= 500:
            return Retryable(f"{what}: Directus answered {status} ({cause}); trying again may help")
        if status in (403, 404):
            return Unknown(
                f"{what}: Directus at {self.base} does not know it or hides it from this token ({status}); check the "
                "id, and that the token's policy has admin access"
            )
        return Permanent(f"{what}: Directus refused ({status}, {cause}); correct what it names, then try again")


def code_of(response: httpx.Response) -> str:
    """Directus' word for an error, such as ``FORBIDDEN``; empty when there is none."""
    return _cause(response)[0]


def _cause(response: httpx.Response) -> tuple[str, str]:
    try:
        error = response.json()["errors"][0]
        code, text = str((error.get("extensions") or {}).get("code", "")), str(error.get("message", ""))
    except (ValueError, AttributeError, KeyError, IndexError, TypeError):
        code, text = "", response.text
    return code, shortened(text, response)
