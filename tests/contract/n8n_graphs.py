"""Generated workflows in n8n's form, over the kinds of nodes that a live n8n describes itself."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import httpx

from estate import n8n as n8n_estate
from estate import secrets
from tests.contract.generated import Graph, Kind, Step, Value
from tests.contract.n8n_bench import node

WEBHOOK = Kind(name="n8n-nodes-base.webhook", version=2, starts=True)
SKIPPED = frozenset({"notice", "hidden", "button", "credentialsSelect", "callout", "curlImport", "icon"})
REFUSED = re.compile(r'^Node "(.*)":$', re.MULTILINE)
PLAIN = {"string": "text", "number": "number", "boolean": "flag", "options": "choice", "multiOptions": "choices"}
MOST_VALUES = 12

IN_MEMORY = (
    Kind(
        name="n8n-nodes-base.set",
        version=3.4,
        values=(
            Value(name="mode", kind="choice", choices=("manual", "raw")),
            Value(name="jsonOutput", kind="text"),
            Value(name="assignments", kind="assignmentCollection"),
        ),
    ),
    Kind(name="n8n-nodes-base.splitInBatches", version=3, outputs=2, values=(Value(name="batchSize", kind="number"),)),
    Kind(name="n8n-nodes-base.if", version=2.2, outputs=2, values=(Value(name="conditions", kind="filter"),)),
    Kind(name="n8n-nodes-base.code", version=2, values=(Value(name="jsCode", kind="text"),)),
    Kind(
        name="n8n-nodes-base.executeWorkflow", version=1.2, values=(Value(name="workflowId", kind="resourceLocator"),)
    ),
    Kind(name="n8n-nodes-base.scheduleTrigger", version=1.2, starts=True, values=(Value(name="rule", kind="json"),)),
    Kind(
        name="n8n-nodes-base.postgres",
        version=2.6,
        credentials=("postgres",),
        values=(
            Value(name="operation", kind="choice", choices=("executeQuery", "insert", "update", "select")),
            Value(name="query", kind="text"),
            Value(name="table", kind="resourceLocator"),
            Value(name="columns", kind="resourceMapper"),
            Value(name="options", kind="group", fields=(Value(name="queryBatching", kind="text"),)),
        ),
    ),
    Kind(name="n8n-nodes-base.httpRequest", version=4.2, values=(Value(name="url", kind="text"),)),
)
"""A few kinds for the platform in memory, which describes none."""


def described(url: str, home: Any) -> list[Kind]:
    """The kinds of nodes of the live n8n at ``url``, as it describes them to its own editor."""
    password = n8n_estate.owned(secrets.read(home / "secrets.env")["N8N_OWNER_PASSWORD"])
    login = {"emailOrLdapLoginId": n8n_estate.OWNER_EMAIL, "password": password}
    with httpx.Client(base_url=url, headers=n8n_estate.BROWSER_ID, timeout=60) as editor:
        assert editor.post("/rest/login", json=login).status_code == 200
        answer = editor.get("/types/nodes.json")
        assert answer.status_code == 200, answer.text[:200]
    return [kind_of(one) for one in answer.json() if not one["name"].endswith("stickyNote")]


def kind_of(description: Mapping[str, Any]) -> Kind:
    """One description as a kind of step; of several properties of a name, the first."""
    version, outputs = description["version"], description.get("outputs")
    by_name: dict[str, Value] = {}
    for one in description.get("properties") or ():
        if one["type"] not in SKIPPED and len(by_name) < MOST_VALUES:
            by_name.setdefault(one["name"], value_of(one))
    return Kind(
        name=description["name"],
        version=version[-1] if isinstance(version, list) else version,
        values=tuple(by_name.values()),
        starts="trigger" in (description.get("group") or ()),
        outputs=len(outputs) if isinstance(outputs, list) else 1,
        credentials=tuple(c["name"] for c in description.get("credentials") or ()),
    )


def value_of(one: Mapping[str, Any]) -> Value:
    """A property of a description as a parameter."""
    name, kind, options = one["name"], one["type"], one.get("options") or ()
    if kind == "collection":
        return Value(name=name, kind="group", fields=tuple(_fields(options)))
    if kind == "fixedCollection":
        many = bool((one.get("typeOptions") or {}).get("multipleValues"))
        groups = [
            Value(name=o["name"], kind="group", many=many, fields=tuple(_fields(o.get("values") or ())))
            for o in options
        ]
        return Value(name=name, kind="group", fields=tuple(groups))
    if kind in ("options", "multiOptions"):
        choices = tuple(o["value"] for o in options if isinstance(o, Mapping) and "value" in o)
        return Value(name=name, kind=PLAIN[kind], choices=choices, default=one.get("default"))
    return Value(name=name, kind=PLAIN.get(kind, kind), default=one.get("default"))


def assembled(
    graph: Graph, *, credentials: Mapping[str, Mapping[str, str]], calls: Sequence[str] = ()
) -> dict[str, Any]:
    """``graph`` as n8n writes it. ``credentials`` are references by type; ``calls`` ids of workflows to call."""
    nodes = [_node(step, credentials, list(calls) or ["none"], number) for number, step in enumerate(graph.steps)]
    nodes += [
        node(f"Sticky Note {i}", "stickyNote", 1, {"content": said, "height": 80 + i})
        for i, said in enumerate(graph.comments)
    ]
    connections: dict[str, Any] = {}
    for source, output, target in graph.links:
        outputs = connections.setdefault(source, {"main": []})["main"]
        outputs.extend([] for _ in range(output + 1 - len(outputs)))
        outputs[output].append({"node": target, "type": "main", "index": 0})
    settings = {"executionOrder": "v1", "timezone": "Europe/Prague", "executionTimeout": 120}
    return {"name": graph.name, "nodes": nodes, "connections": connections, "settings": settings}


def publishable(bench: Any, definition: Mapping[str, Any]) -> dict[str, Any]:
    """``definition`` with those nodes switched off that n8n refuses to publish as they are: it looks at what is
    required of each node that is switched on and connected."""
    workflow_id = bench.create(definition)
    answer = bench.api.post(f"/workflows/{workflow_id}/activate", json={})
    bench.delete(workflow_id)
    if answer.status_code == 200:
        return dict(definition)
    refused = set(REFUSED.findall(answer.json()["message"]))
    assert refused, answer.text
    nodes = [{**n, "disabled": True} if n["name"] in refused else n for n in definition["nodes"]]
    return {**definition, "nodes": nodes}


def _node(
    step: Step, credentials: Mapping[str, Mapping[str, str]], calls: Sequence[str], number: int
) -> dict[str, Any]:
    own = str(uuid.uuid5(uuid.NAMESPACE_URL, f"{step.name} {number}"))
    parameters = {v.name: written(v, step.values[v.name], calls) for v in step.kind.values if v.name in step.values}
    if step.name == "Start":
        parameters = {"path": own, "httpMethod": "POST", "options": {}}
    made: dict[str, Any] = {
        "id": own,
        "name": step.name,
        "type": step.kind.name,
        "typeVersion": step.kind.version,
        "position": list(step.at),
        "parameters": parameters,
    }
    named = {kind: dict(credentials[kind]) for kind in step.kind.credentials if kind in credentials}
    more = {
        "disabled": step.disabled or None,
        "notes": step.note or None,
        "credentials": named or None,
        "webhookId": own if step.kind.starts else None,
        "retryOnFail": True if number % 7 == 3 else None,
        "onError": "continueErrorOutput" if number % 11 == 5 else None,
    }
    return {**made, **{key: item for key, item in more.items() if item is not None}}


def written(of: Value, value: Any, calls: Sequence[str]) -> Any:
    """A value as n8n saves it: its own types have a form of their own."""
    which = sum(map(ord, of.name))
    forms: dict[str, Any] = {
        "json": json.dumps(value, ensure_ascii=False),
        "resourceLocator": {
            "__rl": True,
            "mode": ("list", "id", "name")[which % 3],
            "value": calls[which % len(calls)],
            "cachedResultName": "ůž",
        },
        "resourceMapper": {
            "mappingMode": "defineBelow",
            "value": {"total": "={{ $json.total }}", "číslo": None},
            "matchingColumns": ["id"],
            "schema": [{"id": "total", "displayName": "total", "required": False, "type": "number"}],
        },
        "assignmentCollection": {
            "assignments": [{"id": "a-1", "name": "celkem", "value": "={{ 1 }}", "type": "number"}]
        },
        "filter": {
            "options": {"caseSensitive": True, "version": 2},
            "conditions": [
                {"id": "c-1", "leftValue": "={{ $json.x }}", "rightValue": "", "operator": {"type": "string"}}
            ],
            "combinator": "and",
        },
        "dateTime": "2026-11-22T08:00:00.000Z",
        "color": "#1e90ff",
    }
    return forms.get(of.kind, value)


def _fields(options: Iterable[Any]) -> Iterable[Value]:
    seen: set[str] = set()
    for one in options:
        if isinstance(one, Mapping) and "type" in one and one["type"] not in SKIPPED and one["name"] not in seen:
            seen.add(one["name"])
            yield value_of(one)
