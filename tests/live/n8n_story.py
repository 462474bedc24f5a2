"""The stage of the story on live n8n: webhook and Postgres nodes, one credential per workflow."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from drills.n8n_api import N8nApi
from estate import Addresses
from tests.live.logic_story import WORKFLOWS, How, statement

DATABASE = "story"


@dataclass
class N8nStage:
    """See :class:`tests.live.logic_story.Stage`. ``at`` says where n8n and its PostgreSQL are."""

    at: Addresses
    credentials: dict[str, str] = field(default_factory=dict)
    """Ids by workflow."""
    kind: str = "n8n"
    ingress: bool = False
    schema: str = "shop"
    roles: Mapping[str, str] = field(default_factory=lambda: {k: f"story_wf_{k}" for k in WORKFLOWS})

    @property
    def url(self) -> str:
        return self.at.n8n_url

    @property
    def api_key(self) -> str:
        return self.at.n8n_api_key

    def api(self) -> N8nApi:
        return N8nApi(self.at.n8n_url, self.at.n8n_api_key)

    def database(self) -> str:
        with psycopg.connect(self.at.superuser_dsn(), autocommit=True) as connection:
            name = sql.Identifier(DATABASE)
            connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(name))
            connection.execute(sql.SQL("CREATE DATABASE {}").format(name))
        return self.at.superuser_dsn(DATABASE)

    def prepare(self, dsn: Callable[[str], str]) -> None:
        self.clear()
        with self.api() as api:
            for key, role in self.roles.items():
                to = conninfo_to_dict(dsn(role))
                plain = {"ssl": "disable", "allowUnauthorizedCerts": False, "sshTunnel": False, "maxConnections": 5}
                where = {"host": to["host"], "port": int(str(to["port"])), "database": to["dbname"]}
                who = {"user": to["user"], "password": to["password"]}
                self.credentials[key] = api.create_credential(f"story {key}", {**where, **who, **plain})

    def definition(self, workflow: str, how: How) -> dict[str, Any]:
        hook = {
            "id": f"{workflow}-hook",
            "name": "Received",
            "type": "n8n-nodes-base.webhook",
            "typeVersion": 2,
            "position": [0, 0],
            "webhookId": f"story-{workflow}",
            "parameters": {
                "path": f"story-{workflow}",
                "httpMethod": "POST",
                "responseMode": "onReceived",
                "options": {},
            },
        }
        given = "={{ [String($execution.id), JSON.stringify($('Received').first().json.body)] }}"
        write = {
            "id": f"{workflow}-write",
            "name": "Write",
            "type": "n8n-nodes-base.postgres",
            "typeVersion": 2.6,
            "position": [200, 0],
            "parameters": {
                "operation": "executeQuery",
                "query": statement(workflow, how, schema=self.schema),
                "options": {"queryReplacement": given},
            },
            "credentials": {"postgres": {"id": self.credentials[workflow], "name": f"story {workflow}"}},
        }
        links = {"Received": {"main": [[{"node": "Write", "type": "main", "index": 0}]]}}
        settings = {"executionOrder": "v1"}
        return {"name": WORKFLOWS[workflow], "nodes": [hook, write], "connections": links, "settings": settings}

    def path(self, workflow: str) -> str:
        return f"/webhook/story-{workflow}"

    def clear(self) -> None:
        with self.api() as api:
            for workflow in api.workflows():
                if workflow["name"] in WORKFLOWS.values() or any(
                    str(c.get("name", "")).startswith("story ")
                    for node in workflow["nodes"]
                    for c in node.get("credentials", {}).values()
                ):
                    api.delete_workflow(str(workflow["id"]))
            for name, credential in api.credentials().items():
                if name.startswith("story "):
                    api.delete_credential(credential)
        self.credentials.clear()
