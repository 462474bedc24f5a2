"""Node-RED under the contract suite: a live one of its own, whose definitions are tabs."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from platforms.base import Definition, Platform
from platforms.node_red import NodeRed
from tests.conftest import temporary_estate
from tests.contract.bench import ECHO, QUERY, SHOP

CODE = """
const { body, query, headers } = msg.req;
if (body.fail === 'TAG') throw new Error('refused on purpose');
global.set('seen', [...(global.get('seen') || []), [body.mark, 'TAG']]);
msg.payload = { tag: 'TAG', body, query, shop: headers['x-shop'] ?? null };
return msg;
"""
SEEN = "/bench/seen"


def id_of(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


AT = {"x": 1, "y": 1}


def tab(name: str, *nodes: dict[str, Any], **parts: Any) -> dict[str, Any]:
    """A definition of ``nodes``; where they lie does not matter."""
    placed = [{**n, **AT} for n in nodes]
    content = {"settings": {"info": ""}, "env": [], "configs": [], "subflows": [], **parts}
    return {"name": name, "nodes": placed, **content}


class NodeRedForm:
    """Tabs as Node-RED writes them. With a wait the call is answered first, else last."""

    def definition(self, name: str, tag: str, *, wait_s: float = 0, credential: str | None = None) -> Definition:
        def node(called: str, kind: str, *to: str, **fields: Any) -> dict[str, Any]:
            at = {"x": 100, "y": 100, "wires": [[id_of(name, other) for other in to]] if to else []}
            return {"id": id_of(name, called), "type": kind, "name": called, **fields, **at}

        hook = {"url": f"/{name}", "method": "post", "upload": False, "swaggerDoc": ""}
        answer = node("Answer", "http response", statusCode="", headers={})
        nodes = [
            node("Hook", "http in", *(("Answer", "Wait") if wait_s else (ECHO,)), **hook),
            node(ECHO, "function", *(() if wait_s else ("Answer",)), **self.code(tag))
            | ({"wires": [[]]} if wait_s else {}),
            answer,
            node("Called", "link in", ECHO, links=[]),
        ]
        if wait_s:
            rest = {"pauseType": "delay", "timeout": str(wait_s), "timeoutUnits": "seconds", "rate": "1", "drop": False}
            nodes.append(node("Wait", "delay", ECHO, **rest))
        else:
            failed = {"t": "set", "p": "statusCode", "pt": "msg", "to": "500", "tot": "num"}
            nodes.append(node("Failed", "catch", "Say so", scope=None, uncaught=False))
            nodes.append(node("Say so", "change", "Answer", rules=[failed]))
        if credential:
            nodes.append(node("Look", "postgrestor", postgresDB=credential, query="SELECT 1", output=True))
            nodes[-1]["wires"] = [[]]
        return {"name": name, "settings": {"info": ""}, "env": [], "nodes": nodes, "configs": [], "subflows": []}

    def callee(self, name: str, tag: str) -> Definition:
        definition = self.definition(name, tag)
        back = {"id": id_of(name, "Back"), "type": "link out", "name": "Back", "mode": "return", "links": [], **AT}
        wired = [{**n, "wires": [[back["id"]]]} if n["name"] == ECHO else n for n in definition["nodes"]]
        return {**definition, "nodes": [*(n for n in wired if n["name"] in (ECHO, "Called")), back]}

    @staticmethod
    def code(tag: str) -> dict[str, Any]:
        return {"func": CODE.replace("TAG", tag), "outputs": 1, "timeout": 0, "noerr": 0, "libs": []}

    def address(self, name: str) -> tuple[str, str]:
        return "POST", f"/{name}"

    def edited(self, definition: Definition, tag: str) -> Definition:
        nodes = [{**n, **self.code(tag)} if n.get("name") == ECHO else n for n in definition["nodes"]]
        return {**definition, "nodes": nodes}

    def moved(self, definition: Definition) -> Definition:
        moved = [{**n, "x": 7, "y": n["y"] + 7, "info": "moved"} for n in reversed(definition["nodes"])]
        drawn = {"id": secrets.token_hex(8), "x": 0, "y": 0, "wires": []}
        group = {"name": "all", "nodes": [moved[0]["id"]], "style": {}, "w": 9, "h": 9}
        comment = {**drawn, "type": "comment", "name": "by whom?"}
        return {
            **definition,
            "nodes": [*moved, comment, {**drawn, **group, "id": secrets.token_hex(8), "type": "group"}],
        }

    def tuned(self, definition: Definition) -> Definition:
        return {**definition, "settings": {"info": "tuned"}}


class NodeRedBench(NodeRedForm):
    """A live Node-RED of the suite's own. Its HTTP nodes are the world; one more tab tells what they saw."""

    def __init__(self, url: str, token: str) -> None:
        self.url, self.token = url, token
        self.platform: Platform = NodeRed(url, token)
        headers = {"Authorization": f"Bearer {token}", "Node-RED-API-Version": "v2"}
        self.api = httpx.Client(base_url=url, headers=headers, timeout=30)
        self.world = httpx.Client(base_url=url, timeout=30, headers={"x-shop": SHOP})
        self.secret = f"hush{secrets.token_hex(8)}"
        self.paths: dict[str, str] = {}
        self.others: list[Platform] = []
        tell = "msg.payload = global.get('seen') || []; return msg;"
        at = {"x": 1, "y": 1}
        self.add(
            {"id": "bench", "type": "tab", "label": "bench", "disabled": False},
            {
                "id": "bench-in",
                "z": "bench",
                "type": "http in",
                "url": SEEN,
                "method": "get",
                "wires": [["bench-tell"]],
                **at,
            },
            {
                "id": "bench-tell",
                "z": "bench",
                "type": "function",
                "func": tell,
                "outputs": 1,
                "wires": [["bench-out"]],
                **at,
            },
            {"id": "bench-out", "z": "bench", "type": "http response", "wires": [], **at},
        )

    def flows(self) -> dict[str, Any]:
        found: dict[str, Any] = self.api.get("/flows").json()
        return found

    def put(self, flows: list[dict[str, Any]], rev: str) -> None:
        answer = self.api.post(
            "/flows", json={"flows": flows, "rev": rev}, headers={"Node-RED-Deployment-Type": "flows"}
        )
        assert answer.status_code == 200, answer.text

    def add(self, *nodes: Mapping[str, Any]) -> None:
        present = self.flows()
        self.put([*present["flows"], *map(dict, nodes)], present["rev"])

    def remove(self, node_id: str) -> None:
        present = self.flows()
        self.put([n for n in present["flows"] if node_id not in (n["id"], n.get("z"))], present["rev"])

    def create(self, definition: Definition) -> str:
        tab = secrets.token_hex(8)
        head = {"id": tab, "type": "tab", "label": definition["name"], "disabled": True, "info": "", "env": []}
        self.add(head, *({**node, "z": tab} for node in definition["nodes"]))
        self.paths[tab] = definition["name"]
        return tab

    def caller(self, name: str, workflow_id: str) -> Definition | None:
        found = [n for n in self.flows()["flows"] if n.get("z") == workflow_id and n["type"] == "link in"]
        at = {"x": 1, "y": 1}
        hook, call = id_of(name, "hook"), id_of(name, "call")
        nodes = [
            {
                "id": hook,
                "type": "http in",
                "name": "Hook",
                "url": f"/{name}",
                "method": "post",
                "wires": [[call]],
                **at,
            },
            {
                "id": call,
                "type": "link call",
                "name": "Call",
                "links": [found[0]["id"]],
                "linkType": "static",
                "timeout": "30",
            }
            | {"wires": [[]], **at},
        ]
        return {"name": name, "settings": {"info": ""}, "env": [], "nodes": nodes, "configs": [], "subflows": []}

    def delete(self, workflow_id: str) -> None:
        self.remove(workflow_id)

    def call(self, workflow_id: str, body: Mapping[str, Any]) -> bool:
        path = self.paths.get(workflow_id) or self.platform.draft_version(workflow_id).definition["name"]
        answer = self.world.post(f"/{path}", params=dict(QUERY), json=dict(body))
        return answer.status_code != 404

    def effects(self, mark: str) -> list[str]:
        return [tag for seen, tag in self.world.get(SEEN).json() if seen == mark]

    def another_process(self) -> Platform:
        self.others.append(other := NodeRed(self.url, self.token))
        return other

    def credential(self, name: str) -> str | None:
        config = secrets.token_hex(8)
        to = {"host": "127.0.0.1", "port": "9", "database": "shop", "user": "shop", "password": self.secret}
        kinds = {f"{field}FieldType": "num" if field == "port" else "str" for field in to}
        self.add({"id": config, "type": "postgresDB", "z": "", "name": name, **to, **kinds})
        return config

    def change_credential(self, credential_id: str) -> None:
        self._edit(credential_id, password=f"{self.secret}-2")

    def break_credential(self, credential_id: str) -> None:
        self._edit(credential_id, password="not-the-password")  # noqa: S106 - it is none

    def lock_credential(self, credential_id: str) -> None:
        """Properties are kept in the clear: a lost key takes only what a node type declares as credential."""
        self._edit(credential_id, password="")

    def remove_credential(self, credential_id: str) -> None:
        self.remove(credential_id)

    def close(self) -> None:
        self.api.close()
        self.world.close()
        for platform in (self.platform, *self.others):
            platform.close()

    def _edit(self, node_id: str, **fields: Any) -> None:
        present = self.flows()
        self.put([{**n, **fields} if n["id"] == node_id else n for n in present["flows"]], present["rev"])


@contextmanager
def opened(request: pytest.FixtureRequest) -> Iterator[NodeRedBench]:
    """The session's live Node-RED, in an estate that holds nothing else."""
    with temporary_estate(("node-red",)) as running:
        bench = NodeRedBench(running.addresses.node_red_url, running.addresses.node_red_token)
        try:
            yield bench
        finally:
            bench.close()
