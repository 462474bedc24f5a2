"""An archived workflow of n8n counts as deleted; an archived private copy is brought back with what it was sent."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from platforms.base import Permanent
from platforms.n8n import N8n
from platforms.n8n_client import Unknown

TRIGGER = {"name": "In", "type": "n8n-nodes-base.webhook", "typeVersion": 2, "parameters": {"path": "orders"}}


class Host:
    """As much of n8n as this needs: its workflows, which of them are archived, and what was asked for."""

    def __init__(self) -> None:
        self.workflows: dict[str, dict[str, Any]] = {}
        self.asked: list[str] = []

    def add(self, workflow: dict[str, Any]) -> dict[str, Any]:
        made = {
            **copy.deepcopy(workflow),
            "id": f"w{len(self.workflows) + 1}",
            "active": False,
            "activeVersionId": None,
            "isArchived": False,
            "createdAt": "2026-11-22T08:00:00.000Z",
            "updatedAt": "2026-11-22T08:00:00.000Z",
            "versionId": "v1",
            "shared": [],
        }
        self.workflows[made["id"]] = made
        return made

    def archive(self, workflow_id: str) -> None:
        self.workflows[workflow_id] |= {"isArchived": True, "active": False, "activeVersionId": None}

    def answer(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path.removeprefix("/api/v1")
        self.asked.append(f"{request.method} {path}")
        if request.method == "OPTIONS":
            return httpx.Response(204, headers={"access-control-allow-methods": "OPTIONS, POST"})
        if path == "/workflows":
            if request.method == "POST":
                return httpx.Response(200, json=self.add(json.loads(request.content)))
            named = request.url.params.get("name")
            listed = [w for w in self.workflows.values() if named in (None, w["name"])]
            return httpx.Response(200, json={"data": listed, "nextCursor": None})
        _, _, workflow_id, *action = path.split("/")
        if action == ["history"]:
            return httpx.Response(200, json={"data": [], "nextCursor": None})
        workflow = self.workflows.get(workflow_id)
        if workflow is None:
            return httpx.Response(404, json={"message": "Not Found"})
        refusal = self._act(workflow, action[0] if action else request.method)
        return httpx.Response(400, json={"message": refusal}) if refusal else httpx.Response(200, json=workflow)

    def _act(self, workflow: dict[str, Any], action: str) -> str | None:
        if action in ("activate", "PUT") and workflow["isArchived"]:
            return f"Cannot {action} an archived workflow."
        if action == "activate":
            workflow |= {"active": True, "activeVersionId": "v1"}
        elif action == "deactivate":
            workflow |= {"active": False, "activeVersionId": None}
        elif action == "unarchive":
            workflow["isArchived"] = False
        elif action == "DELETE":
            del self.workflows[workflow["id"]]
        return None


@pytest.fixture
def host() -> Host:
    return Host()


def intake() -> dict[str, Any]:
    return {"name": "Order intake", "nodes": [TRIGGER], "connections": {}, "settings": {}}


def test_the_one_that_was_made_anew_is_the_only_one_of_its_name(host: Host, n8n: N8n) -> None:
    old, new = host.add(intake()), host.add(intake())
    host.archive(old["id"])
    assert [w.id for w in n8n.workflows()] == [new["id"]]


@pytest.mark.parametrize(
    "ask",
    [
        N8n.draft_version,
        N8n.live_version,
        N8n.versions,
        N8n.ingress_paused,
        N8n.ingress_open,
        N8n.credentials,
        N8n.deactivate,
        lambda n8n, workflow_id: n8n.save(workflow_id, intake()),
    ],
)
def test_by_its_id_it_is_gone_too(host: Host, n8n: N8n, ask: Callable[[N8n, str], object]) -> None:
    old = host.add(intake())
    ask(n8n, old["id"])
    host.archive(old["id"])
    with pytest.raises(Unknown, match="archived"):
        ask(n8n, old["id"])
    with pytest.raises(Unknown):
        ask(n8n, "nobody")


def test_it_cannot_be_published(host: Host, n8n: N8n) -> None:
    old = host.add(intake())
    host.archive(old["id"])
    with pytest.raises(Permanent, match="archived"):
        n8n.activate(old["id"])


def test_an_archived_private_copy_comes_back_with_its_runs(host: Host, n8n: N8n) -> None:
    version = n8n.draft_version(host.add(intake())["id"])
    entry = n8n.open_private_entry(version)
    host.archive(entry.workflow_id)
    assert n8n.open_private_entry(version) == entry
    assert host.workflows[entry.workflow_id]["active"]
    assert not [a for a in host.asked if a.startswith("DELETE")], "its runs would go with it"
