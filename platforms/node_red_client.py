"""HTTP to Node-RED: one client, errors mapped to the two types of the port, in one line and without the token."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import httpx

from platforms.base import Permanent, Retryable
from platforms.http import HttpClient, message_of

Flows = list[dict[str, Any]]
"""All that Node-RED runs, as it tells it: tabs, nodes, subflows, groups and config nodes, secrets included."""


class Unknown(Permanent):
    """Node-RED does not know the object (any more)."""


class Stale(Retryable):
    """Somebody deployed meanwhile: the flows are another revision by now."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Deployed:
    """The flows at one revision."""

    flows: Flows = field(repr=False)
    rev: str


class NodeRedClient(HttpClient):
    """The admin API and the HTTP nodes of one Node-RED."""

    KIND = "node-red"
    PRODUCT = "Node-RED"

    def __init__(self, url: str, token: str, *, timeout_s: float = 15.0) -> None:
        headers = {"Authorization": f"Bearer {token}", "Accept": "application/json"}
        super().__init__(url, token, headers, timeout_s=timeout_s)
        self._report: dict[str, Any] | None = None

    def flows(self, what: str) -> Deployed:
        """All flows with their revision; ``what`` names in errors what they are read for."""
        answer = self.call(what, "GET", "/flows", headers={"Node-RED-API-Version": "v2"})
        if not isinstance(answer, dict) or not isinstance(answer.get("flows"), list):
            raise self.stranger(what)
        return Deployed(flows=answer["flows"], rev=str(answer.get("rev")))

    def deploy(self, what: str, wanted: Deployed) -> None:
        """Replace the flows, if they still are at the revision of ``wanted``; tabs that did not change go on
        undisturbed. Raises ``Stale``."""
        headers = {"Node-RED-API-Version": "v2", "Node-RED-Deployment-Type": "flows"}
        self.call(what, "POST", "/flows", headers=headers, body={"flows": wanted.flows, "rev": wanted.rev})

    def report(self, what: str) -> dict[str, Any]:
        """``runtime`` of the diagnostics: version, state of the flows, settings. Remembered for :meth:`root`."""
        answer = self.call(what, "GET", "/diagnostics")
        runtime = answer.get("runtime") if isinstance(answer, dict) else None
        if not isinstance(runtime, dict):
            raise self.stranger(what)
        self._report = runtime
        return runtime

    def settings(self, what: str) -> dict[str, Any]:
        """What the diagnostics say of settings.js; asked once, since it changes only by a restart."""
        report = self._report or self.report(what)
        found = report.get("settings")
        return found if isinstance(found, dict) else {}

    def root(self, what: str) -> str:
        """The path below which HTTP nodes answer, without a slash at the end."""
        root = self.settings(what).get("httpNodeRoot")
        return "" if root in (None, "UNSET", "/", False) else f"/{str(root).strip('/')}"

    @property
    def known_root(self) -> str:
        """:meth:`root` without asking: empty until somebody asked."""
        return self.root("settings") if self._report else ""

    def call(
        self, what: str, method: str, path: str, *, headers: Mapping[str, str] | None = None, body: Any = None
    ) -> Any:
        """One call of the admin API; the JSON of its answer."""
        return self.decoded(what, self.respond(what, method, path, headers=headers, body=body))

    def web(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, str] | None = None,
        body: Any = None,
        timeout_s: float | None = None,
    ) -> httpx.Response:
        """A call of an HTTP node as anybody may make it, the answer whatever it is. Raises ``httpx.HTTPError``."""
        patience = httpx.USE_CLIENT_DEFAULT if timeout_s is None else timeout_s
        return self._web.request(
            method, path, headers=dict(headers or {}), params=dict(params or {}), json=body, timeout=patience
        )

    def methods(self, what: str, path: str) -> set[str] | None:
        """The methods that HTTP nodes take at ``path``, asked by OPTIONS, which starts no flow; ``None`` where
        ``httpNodeCors`` answers such questions itself, whatever there is."""
        try:
            response = self.web("OPTIONS", path)
        except httpx.HTTPError as problem:
            raise self.unreachable(what, problem) from problem
        if response.status_code >= 500:
            raise self.refused(what, response)
        if "access-control-allow-methods" in response.headers:
            return None
        return {method.strip().upper() for method in response.headers.get("allow", "").split(",") if method.strip()}

    def alive(self, what: str, node_id: str) -> bool:
        """Whether a node is at work: only then it has a context of its own to show."""
        return bool(self.call(what, "GET", f"/context/node/{quote(node_id, safe='')}"))

    def recorded(self, what: str, path: str, query: Mapping[str, str]) -> list[dict[str, Any]]:
        """What a private copy has written down. Raises ``Unknown`` when nothing answers at its address."""
        try:
            response = self.web("GET", path, params=query)
        except httpx.HTTPError as problem:
            raise self.unreachable(what, problem) from problem
        if response.status_code >= 300:
            raise self.refused(what, response)
        found = self.decoded(what, response)
        return found if isinstance(found, list) else []

    def credentials(self, kind: str, node_id: str) -> Mapping[str, Any]:
        """What Node-RED tells of a node's credentials: nothing where settings.js has ``disableEditor``."""
        path = f"/credentials/{quote('-'.join(kind.split()), safe='')}/{quote(node_id, safe='')}"
        try:
            answer = self.call(f"credentials of node {node_id}", "GET", path)
        except Unknown:
            return {}
        return answer if isinstance(answer, dict) else {}

    def refused(self, what: str, response: httpx.Response) -> Permanent | Retryable:
        status, cause = response.status_code, message_of(response)
        if status in (401, 403):
            return Permanent(
                f"{what}: Node-RED at {self.base} refused the token ({status}); correct adminAuth or the secret"
            )
        if status == 409:
            return Stale(f"{what}: somebody deployed meanwhile (409); it is read again and tried once more")
        if status in (408, 425, 429) or status >= 500:
            return Retryable(f"{what}: Node-RED answered {status} ({cause}); trying again may help")
        if status == 404:
            return Unknown(f"{what}: Node-RED at {self.base} does not know it (404); check the id and the address")
        return Permanent(f"{what}: Node-RED refused ({status}, {cause}); correct what it names, then try again")
