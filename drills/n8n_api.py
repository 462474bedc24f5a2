"""The few n8n calls a drill makes on its own: to provision the example app, to publish versions, to count runs.

Not the product's adapter: the scenario shares credentials with the product and no code.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any, Self

import httpx

from drills.errors import PlatformRefused

PAGE = 100
BUSY = 409
BUSY_PATIENCE_S = 180.0
"""n8n that was killed while it published a workflow leaves it alone until its lease of two minutes is over."""
OVERLOADED = 503
OVERLOADED_PATIENCE_S = 60.0


class N8nApi:
    """n8n's public API at ``url``. Every method raises ``PlatformRefused`` on an error answer or no answer."""

    def __init__(self, url: str, key: str, *, timeout_s: float = 30.0) -> None:
        self._client = httpx.Client(
            base_url=f"{url.rstrip('/')}/api/v1", headers={"X-N8N-API-KEY": key}, timeout=timeout_s
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    def workflows(self) -> list[dict[str, Any]]:
        """All workflows with their definitions."""
        return list(self._pages("/workflows", {}))

    def create_workflow(self, definition: Mapping[str, Any]) -> str:
        """Create a workflow and return its id; it is not active yet."""
        return str(self._call("POST", "/workflows", json=dict(definition))["id"])

    def publish(self, workflow_id: str, definition: Mapping[str, Any]) -> str:
        """Save new content. On an active workflow it is live at once. Returns n8n's id of the version."""
        return str(self._call("PUT", f"/workflows/{workflow_id}", json=dict(definition))["versionId"])

    def activate(self, workflow_id: str) -> None:
        self._call("POST", f"/workflows/{workflow_id}/activate")

    def deactivate(self, workflow_id: str) -> None:
        """Take the workflow out of production; it may run for a moment longer."""
        self._call("POST", f"/workflows/{workflow_id}/deactivate")

    def active(self, workflow_id: str) -> bool:
        """Whether the workflow is in production, as n8n says."""
        return bool(self._call("GET", f"/workflows/{workflow_id}")["active"])

    def delete_workflow(self, workflow_id: str) -> None:
        """Deactivate and delete a workflow with its runs; waits while n8n still takes it down."""
        self._call("POST", f"/workflows/{workflow_id}/deactivate")
        deadline = time.monotonic() + BUSY_PATIENCE_S
        while True:
            try:
                self._call("DELETE", f"/workflows/{workflow_id}")
            except PlatformRefused as error:
                # n8n refuses to delete while the deactivation is still going on.
                if f"answered {BUSY}" not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(0.2)
            else:
                return

    def credentials(self) -> dict[str, str]:
        """Ids of all credentials by name."""
        return {str(c["name"]): str(c["id"]) for c in self._pages("/credentials", {})}

    def create_credential(self, name: str, data: Mapping[str, Any]) -> str:
        """Create a Postgres credential and return its id."""
        return str(
            self._call("POST", "/credentials", json={"name": name, "type": "postgres", "data": dict(data)})["id"]
        )

    def delete_credential(self, credential_id: str) -> None:
        self._call("DELETE", f"/credentials/{credential_id}")

    def runs(self, workflow_id: str, *, with_data: bool = False) -> list[dict[str, Any]]:
        """Finished runs of a workflow, newest first. ``workflowVersionId`` comes only with the data."""
        query = {"workflowId": workflow_id, "includeData": str(with_data).lower()}
        return list(self._pages("/executions", query))

    def delete_run(self, run_id: str) -> None:
        self._call("DELETE", f"/executions/{run_id}")

    def in_flight(self) -> int:
        """Number of runs that are not finished, of any workflow."""
        states = ("new", "running", "waiting")
        return sum(len(self._call("GET", "/executions", params={"status": s, "limit": "50"})["data"]) for s in states)

    def _pages(self, path: str, query: Mapping[str, str]) -> Iterator[dict[str, Any]]:
        cursor: str | None = ""
        while cursor is not None:
            params = {**query, "limit": str(PAGE), **({"cursor": cursor} if cursor else {})}
            answer = self._call("GET", path, params=params)
            yield from answer["data"]
            cursor = answer.get("nextCursor")

    def _call(self, method: str, path: str, **options: Any) -> Any:
        """A busy n8n answers late, or 503 when it lost sight of its database: what changes nothing is asked again."""
        deadline = time.monotonic() + OVERLOADED_PATIENCE_S
        while True:
            again = time.monotonic() < deadline
            try:
                answer = self._client.request(method, path, **options)
            except httpx.TimeoutException as error:
                if method == "GET" and again:
                    continue
                raise PlatformRefused(f"n8n: {method} {path}: no answer in time; check n8n's log") from error
            except httpx.HTTPError as error:
                raise PlatformRefused(f"n8n: {method} {path}: {type(error).__name__}; check that n8n runs") from error
            if answer.status_code != OVERLOADED or not again:
                break
            time.sleep(0.5)
        if answer.is_error:
            raise PlatformRefused(
                f"n8n: {method} {path} answered {answer.status_code}: {answer.text[:200]}; check the key and n8n's log"
            )
        return answer.json() if answer.content else None
