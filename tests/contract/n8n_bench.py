"""n8n under the contract suite: a live one, and its form of definitions, which the in-memory platform speaks too."""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import httpx
import psycopg
import pytest

from platforms.base import Definition, Platform
from platforms.n8n import N8n
from tests.contract.bench import ECHO, QUERY, SHOP

CODE = """
const event = $('Webhook').first().json;
if (event.body.fail === 'TAG') throw new Error('refused on purpose');
return [{json: {tag: 'TAG', body: event.body, query: event.query, shop: event.headers['x-shop']}}];
"""


def node(name: str, kind: str, version: float, parameters: Mapping[str, Any], **fields: Any) -> dict[str, Any]:
    """One node of n8n's own package."""
    return {
        "id": f"node-{name}",
        "name": name,
        "type": f"n8n-nodes-base.{kind}",
        "typeVersion": version,
        "position": [0, 0],
        "parameters": dict(parameters),
        **fields,
    }


def chain(*names: str) -> dict[str, Any]:
    """Connections from each node to the next one."""
    return {a: {"main": [[{"node": b, "type": "main", "index": 0}]]} for a, b in itertools.pairwise(names)}


class N8nForm:
    """Definitions as n8n writes them. It keeps waits under 65 s in memory (*running*), longer ones in its database
    (*waiting*)."""

    def definition(self, name: str, tag: str, *, wait_s: float = 0, credential: str | None = None) -> Definition:
        hook = {
            "path": name,
            "httpMethod": "POST",
            "responseMode": "onReceived" if wait_s else "lastNode",
            "options": {},
        }
        nodes = [node("Webhook", "webhook", 2, hook, webhookId=name)]
        if wait_s:
            nodes.append(node("Wait", "wait", 1.1, {"amount": wait_s, "unit": "seconds"}))
        nodes.append(node(ECHO, "code", 2, {"jsCode": CODE.replace("TAG", tag)}))
        links = chain(*(n["name"] for n in nodes))
        if credential:
            query = {"operation": "executeQuery", "query": "SELECT 1", "options": {}}
            named = {"postgres": {"id": credential, "name": "shop"}}
            nodes.append(node("Look", "postgres", 2.6, query, credentials=named))
        return {"name": name, "nodes": nodes, "connections": links, "settings": {"executionOrder": "v1"}}

    def caller(self, name: str, workflow_id: str) -> Definition | None:
        target = {"workflowId": {"__rl": True, "mode": "list", "value": workflow_id}, "options": {}}
        hook = {"path": name, "httpMethod": "POST", "options": {}}
        nodes = [node("Webhook", "webhook", 2, hook, webhookId=name), node("Call", "executeWorkflow", 1.2, target)]
        return {"name": name, "nodes": nodes, "connections": chain("Webhook", "Call"), "settings": {}}

    def callee(self, name: str, tag: str) -> Definition:
        definition = self.definition(name, tag)
        start = node("Webhook", "executeWorkflowTrigger", 1.1, {"inputSource": "passthrough"})
        return {**definition, "nodes": [start, *definition["nodes"][1:]]}

    def address(self, name: str) -> tuple[str, str]:
        return "POST", f"/webhook/{name}"

    def edited(self, definition: Definition, tag: str) -> Definition:
        code = {"jsCode": CODE.replace("TAG", tag)}
        nodes = [{**n, "parameters": code} if n["name"] == ECHO else n for n in definition["nodes"]]
        return {**definition, "nodes": nodes}

    def moved(self, definition: Definition) -> Definition:
        moved = [{**n, "position": [7, 7], "notes": "moved"} for n in reversed(definition["nodes"])]
        sticky = node("Sticky Note", "stickyNote", 1, {"content": "by whom?"})
        return {**definition, "nodes": [*moved, sticky]}

    def tuned(self, definition: Definition) -> Definition:
        return {**definition, "settings": {**definition["settings"], "executionTimeout": 77}}


class N8nBench(N8nForm):
    """A live n8n. ``database`` is where the platform keeps its records, ``server`` a PostgreSQL for credentials."""

    def __init__(self, url: str, api_key: str, *, superuser_dsn: str) -> None:
        self.url, self.api_key = url, api_key
        self.platform = N8n(url, api_key)
        self.api = httpx.Client(base_url=f"{url}/api/v1", headers={"X-N8N-API-KEY": api_key}, timeout=30)
        self.world = httpx.Client(base_url=f"{url}/webhook", timeout=30, headers={"x-shop": SHOP})
        self.paths: dict[str, str] = {}
        self.server = psycopg.conninfo.conninfo_to_dict(superuser_dsn)
        self.secret = f"hush{secrets.token_hex(8)}"
        self.roles: list[str] = []

    def create(self, definition: Definition) -> str:
        created = self.api.post("/workflows", json=dict(definition))
        assert created.status_code == 200, created.text
        workflow_id = str(created.json()["id"])
        self.paths[workflow_id] = definition["name"]
        return workflow_id

    def delete(self, workflow_id: str) -> None:
        self.api.post(f"/workflows/{workflow_id}/deactivate")
        while (answer := self.api.delete(f"/workflows/{workflow_id}")).status_code == 409:
            pass  # still being unpublished
        assert answer.status_code in (200, 404), answer.text

    def call(self, workflow_id: str, body: Mapping[str, Any]) -> bool:
        path = self.paths.get(workflow_id) or self.platform.draft_version(workflow_id).definition["name"]
        answer = self.world.post(f"/{path}", params=dict(QUERY), json=dict(body))
        return answer.status_code != 404

    def effects(self, mark: str) -> list[str]:
        params = {"includeData": "true", "limit": "100", "status": "success"}
        newest = self.api.get("/executions", params=params).json()["data"]
        outputs = [run["data"]["resultData"]["runData"].get(ECHO) for run in reversed(newest)]
        items = [output[0]["data"]["main"][0][0]["json"] for output in outputs if output]
        return [item["tag"] for item in items if (item.get("body") or {}).get("mark") == mark]

    def another_process(self) -> Platform:
        return N8n(self.url, self.api_key)

    def credential(self, name: str) -> str | None:
        role = f"contract_{secrets.token_hex(4)}"
        self._sql("CREATE ROLE {} LOGIN PASSWORD {}", role, self.secret)
        self.roles.append(role)
        body = {"name": name, "type": "postgres", "data": self._data(role, self.secret)}
        made = self.api.post("/credentials", json=body)
        assert made.status_code == 200, made.text
        return str(made.json()["id"])

    def change_credential(self, credential_id: str) -> None:
        self._patch(credential_id, self.roles[-1], self.secret)

    def break_credential(self, credential_id: str) -> None:
        self._patch(credential_id, self.roles[-1], "not-the-password")

    def lock_credential(self, credential_id: str) -> None:
        strange = "U2FsdGVkX1" + "A" * 54
        with psycopg.connect(psycopg.conninfo.make_conninfo("", **{**self.server, "dbname": "n8n"})) as records:
            records.execute("UPDATE credentials_entity SET data = %s WHERE id = %s", [strange, credential_id])

    def half_published(self, workflow_id: str, *, lease_left_s: float) -> None:
        """What stays behind when n8n is killed while it publishes: work that looks taken until its lease is over."""
        with psycopg.connect(psycopg.conninfo.make_conninfo("", **{**self.server, "dbname": "n8n"})) as records:
            taken = records.execute(
                """
                INSERT INTO workflow_publication_outbox ("workflowId", "publishedVersionId", status, reason,
                    "updatedAt")
                SELECT "workflowId", "publishedVersionId", 'in_progress', reason, now() - make_interval(secs => %s)
                FROM workflow_publication_outbox WHERE "workflowId" = %s ORDER BY id DESC LIMIT 1
                """,
                [120 - lease_left_s, workflow_id],
            )
            assert taken.rowcount == 1

    def remove_credential(self, credential_id: str) -> None:
        assert self.api.delete(f"/credentials/{credential_id}").status_code == 200

    def close(self) -> None:
        for role in self.roles:
            self._sql("DROP ROLE {}", role)
        self.api.close()
        self.world.close()
        self.platform.close()

    def _data(self, role: str, password: str) -> dict[str, Any]:
        at = {"host": "127.0.0.1", "port": int(str(self.server["port"])), "database": "postgres"}
        return {**at, "user": role, "password": password, "ssl": "disable", "sshTunnel": False}

    def _patch(self, credential_id: str, role: str, password: str) -> None:
        answer = self.api.patch(f"/credentials/{credential_id}", json={"data": self._data(role, password)})
        assert answer.status_code == 200, answer.text

    def _sql(self, text: str, role: str, *values: str) -> None:
        statement = psycopg.sql.SQL(text).format(  # type: ignore[arg-type]
            psycopg.sql.Identifier(role), *map(psycopg.sql.Literal, values)
        )
        with psycopg.connect(psycopg.conninfo.make_conninfo("", **self.server), autocommit=True) as server:
            server.execute(statement)


@contextmanager
def opened(request: pytest.FixtureRequest) -> Iterator[N8nBench]:
    """The session's live n8n."""
    at = request.getfixturevalue("estate").addresses
    bench = N8nBench(at.n8n_url, at.n8n_api_key, superuser_dsn=at.superuser_dsn())
    try:
        yield bench
    finally:
        bench.close()
