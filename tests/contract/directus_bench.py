"""Directus under the contract suite: a live one, and its form of definitions."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from platforms.base import Definition, Platform
from platforms.directus import Directus
from tests.contract.bench import ECHO, QUERY, SHOP

CODE = """
module.exports = async function (data) {
  const event = data.$trigger;
  if (event.body.fail === 'TAG') throw new Error('refused on purpose');
  return {tag: 'TAG', body: event.body, query: event.query, shop: event.headers['x-shop']};
};
"""
NAMES = uuid.UUID("5f6c2ad5-6f3a-4f0e-9a53-0d3b4f1f6f11")


def flow_id(name: str) -> str:
    """The id that a flow of this name gets: Directus lets the client choose it, and it is the address."""
    return str(uuid.uuid5(NAMES, name))


def operation(flow: str, key: str, kind: str, options: Mapping[str, Any], **fields: Any) -> dict[str, Any]:
    """One operation, linked nowhere unless ``fields`` say so."""
    links = {"resolve": None, "reject": None}
    named = {"id": str(uuid.uuid5(NAMES, f"{flow}/{key}")), "key": key, "name": f"Krok {key}", "type": kind}
    return {**named, "position_x": 19, "position_y": 1, "options": dict(options), **links, **fields}


def chained(operations: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each operation followed by the next one."""
    after = [o["id"] for o in operations[1:]]
    return [{**o, "resolve": follower} for o, follower in zip(operations, [*after, None], strict=True)]


def flow(name: str, operations: Sequence[dict[str, Any]], **options: Any) -> dict[str, Any]:
    """A flow behind a webhook, beginning with the first operation."""
    return {
        "id": flow_id(name),
        "name": name,
        "trigger": "webhook",
        "options": {"method": "POST", "return": "$last", **options},
        "operation": operations[0]["id"] if operations else None,
        "operations": list(operations),
        "settings": {"accountability": "all", "icon": None, "color": None, "description": None},
    }


class DirectusForm:
    """Definitions as the adapter exchanges them."""

    def definition(self, name: str, tag: str, *, wait_s: float = 0, credential: str | None = None) -> Definition:
        assert credential is None, "Directus has no store of credentials"
        wait = [operation(name, "wait", "sleep", {"milliseconds": int(wait_s * 1000)})] if wait_s else []
        echo = operation(name, ECHO, "exec", {"code": CODE.replace("TAG", tag)})
        return flow(name, chained([*wait, echo]), **{"async": bool(wait_s)})

    def caller(self, name: str, workflow_id: str) -> Definition | None:
        start = operation(name, "start", "trigger", {"flow": workflow_id, "payload": "{{ $trigger }}"})
        return flow(name, [start])

    def callee(self, name: str, tag: str) -> Definition:
        return {**self.definition(name, tag), "trigger": "operation", "options": {"return": "$last"}}

    def address(self, name: str) -> tuple[str, str]:
        return "POST", f"/flows/trigger/{flow_id(name)}"

    def edited(self, definition: Definition, tag: str) -> Definition:
        code = {"code": CODE.replace("TAG", tag)}
        return {
            **definition,
            "operations": [{**o, "options": code} if o["key"] == ECHO else o for o in definition["operations"]],
        }

    def moved(self, definition: Definition) -> Definition:
        moved = [{**o, "position_x": 7, "position_y": 7} for o in reversed(definition["operations"])]
        settings = {**definition["settings"], "icon": "bolt", "description": "by whom?"}
        return {**definition, "operations": moved, "settings": settings}

    def tuned(self, definition: Definition) -> Definition:
        return {**definition, "name": f"{definition['name']} tuned"}


def flow_body(definition: Definition) -> dict[str, Any]:
    """What a person's browser sends to make the flow, inactive: operations first, then their links."""
    operations = definition["operations"]
    links = [{k: o[k] for k in ("id", "resolve", "reject")} for o in operations]
    bare = [{k: v for k, v in o.items() if k not in ("resolve", "reject")} for o in operations]
    rest = {k: definition[k] for k in ("id", "name", "trigger", "options", "operation")}
    return {**rest, **definition["settings"], "status": "inactive", "operations": {"create": bare, "update": links}}


class DirectusBench(DirectusForm):
    """A live Directus. It has no store of credentials."""

    secret = "hush-in-directus"  # noqa: S105 - no secret of anybody

    def __init__(self, url: str, token: str) -> None:
        self.url, self.token = url, token
        self.platform = Directus(url, token)
        self.others: list[Directus] = []
        headers = {"Authorization": f"Bearer {token}"}
        self.api = httpx.Client(base_url=url, headers=headers, timeout=60, trust_env=False)
        self.world = httpx.Client(base_url=url, timeout=60, trust_env=False, headers={"x-shop": SHOP})

    def create(self, definition: Definition) -> str:
        made = self.api.post("/flows", json=flow_body(definition))
        assert made.status_code == 200, made.text
        return str(definition["id"])

    def delete(self, workflow_id: str) -> None:
        gone = self.api.delete(f"/flows/{workflow_id}")
        assert gone.status_code in (204, 403), gone.text

    def call(self, workflow_id: str, body: Mapping[str, Any]) -> bool:
        answer = self.world.post(f"/flows/trigger/{workflow_id}", params=dict(QUERY), json=dict(body))
        return answer.status_code != 403

    def effects(self, mark: str) -> list[str]:
        params: dict[str, Any] = {
            "filter": json.dumps({"collection": {"_eq": "directus_flows"}, "activity": {"action": {"_eq": "run"}}}),
            "fields": "data",
            "sort": "-id",
            "limit": 100,
        }
        newest = self.api.get("/revisions", params=params).json()["data"]
        items = [run["data"]["data"].get(ECHO) or {} for run in reversed(newest)]
        return [item["tag"] for item in items if "tag" in item and item["body"].get("mark") == mark]

    def another_process(self) -> Platform:
        self.others.append(Directus(self.url, self.token))
        return self.others[-1]

    def credential(self, name: str) -> str | None:  # noqa: ARG002 - see the class
        return None

    def change_credential(self, credential_id: str) -> None:
        raise AssertionError(f"Directus has no credential {credential_id}")

    def break_credential(self, credential_id: str) -> None:
        raise AssertionError(f"Directus has no credential {credential_id}")

    def lock_credential(self, credential_id: str) -> None:
        raise AssertionError(f"Directus has no credential {credential_id}")

    def remove_credential(self, credential_id: str) -> None:
        raise AssertionError(f"Directus has no credential {credential_id}")

    def close(self) -> None:
        self.api.close()
        self.world.close()
        for platform in (self.platform, *self.others):
            platform.close()


@contextmanager
def opened(request: pytest.FixtureRequest) -> Iterator[DirectusBench]:
    """The session's live Directus."""
    at = request.getfixturevalue("directus_estate").addresses
    bench = DirectusBench(at.directus_url, at.directus_token)
    try:
        yield bench
    finally:
        bench.close()
