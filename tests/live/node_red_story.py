"""The stage of the story on live Node-RED: a tab and a database role per workflow, behind the ingress.

A tab answers when its write is done, so that the ingress knows how it ended, and says so to PostgreSQL with the run
that the ingress names in a header.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx
import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from estate import Addresses
from tests.live.logic_story import WORKFLOWS, How, eventually, statement

DATABASE = "story"
GIVEN = """
msg.params = [msg.req.headers['x-reinstate-run'] ?? '', JSON.stringify(msg.req.body)];
return msg;
"""


def id_of(*parts: str) -> str:
    return hashlib.sha256("\n".join(("story", *parts)).encode()).hexdigest()[:16]


@dataclass
class NodeRedStage:
    """See :class:`tests.live.logic_story.Stage`. ``at`` says where Node-RED and its PostgreSQL are."""

    at: Addresses
    kind: str = "node-red"
    ingress: bool = True
    schema: str = "shop"
    roles: Mapping[str, str] = field(default_factory=lambda: {k: f"story_wf_{k}" for k in WORKFLOWS})

    @property
    def url(self) -> str:
        return self.at.node_red_url

    @property
    def api_key(self) -> str:
        return self.at.node_red_token

    def database(self) -> str:
        with psycopg.connect(self.at.superuser_dsn(), autocommit=True) as connection:
            name, there = sql.Identifier(DATABASE), "SELECT FROM pg_stat_activity WHERE datname = %s"
            # An idle connection that the server ends takes all of Node-RED down: its nodes end them by themselves.
            eventually(lambda: not connection.execute(there, [DATABASE]).fetchone(), "Node-RED leaves the database")
            connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(name))
            connection.execute(sql.SQL("CREATE DATABASE {}").format(name))
        return self.at.superuser_dsn(DATABASE)

    def prepare(self, dsn: Callable[[str], str]) -> None:
        self.clear()
        self._deploy([*self._flows(), *(self._config(key, dsn(role)) for key, role in self.roles.items())])

    def definition(self, workflow: str, how: How) -> dict[str, Any]:
        def node(name: str, kind: str, *to: str, **fields: Any) -> dict[str, Any]:
            at = {"x": 100, "y": 100, "wires": [[id_of(workflow, other) for other in to]] if to else []}
            return {"id": id_of(workflow, name), "type": kind, "name": name, **fields, **at}

        def said(status: int, answer: str) -> dict[str, Any]:
            code = {"t": "set", "p": "statusCode", "pt": "msg", "to": str(status), "tot": "num"}
            return {"rules": [code, {"t": "set", "p": "payload", "pt": "msg", "to": answer, "tot": "str"}]}

        write = {"postgresDB": id_of(workflow, "database"), "throwErrors": True, "output": True}
        nodes = [
            node("Received", "http in", "Given", url=self.path(workflow), method="post", upload=False),
            node("Given", "function", "Write", func=GIVEN, outputs=1, timeout=0, noerr=0, libs=[]),
            node("Write", "postgrestor", "Done", query=statement(workflow, how, schema=self.schema), **write),
            node("Done", "change", "Answer", **said(200, "done")),
            node("Failed", "catch", "Say so", scope=None, uncaught=False),
            node("Say so", "change", "Answer", **said(500, "failed")),
            node("Answer", "http response", statusCode="", headers={}),
        ]
        return {"name": WORKFLOWS[workflow], "settings": {"info": ""}, "env": [], "nodes": nodes}

    def path(self, workflow: str) -> str:
        return f"/story-{workflow}"

    def clear(self) -> None:
        flows = self._flows()
        gone = {n["id"] for n in flows if n.get("label") in WORKFLOWS.values()}
        gone |= {n["id"] for n in flows if n["type"] == "postgresDB" and n["name"].startswith("story ")}
        self._deploy([n for n in flows if n["id"] not in gone and n.get("z") not in gone])

    def _config(self, workflow: str, dsn: str) -> dict[str, Any]:
        to = conninfo_to_dict(dsn)
        where = {"host": to["host"], "port": str(to["port"]), "database": to["dbname"], "ssl": "false"}
        who = {"user": to["user"], "password": to["password"]}
        pool = {"min": "0", "max": "5", "idle": "200", "connectionTimeout": "5000"}
        kinds = {f"{name}FieldType": "str" for name in (*where, *who)}
        kinds |= {f"{name}FieldType": "num" for name in ("port", *pool)} | {"sslFieldType": "bool"}
        named = {"id": id_of(workflow, "database"), "type": "postgresDB", "z": "", "name": f"story {workflow}"}
        return {**named, **where, **who, **pool, **kinds}

    def _flows(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._api("GET").json()["flows"]
        return found

    def _deploy(self, flows: list[dict[str, Any]]) -> None:
        self._api("POST", {"flows": flows})

    def _api(self, method: str, body: object = None) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.api_key}", "Node-RED-API-Version": "v2"}
        answer = httpx.request(method, f"{self.url}/flows", json=body, headers=headers, timeout=30)
        answer.raise_for_status()
        return answer
