"""Private copies of a definition: what is built, and how they are found again. Pure. One kind replays events, the other
one is called by the first while the workflow itself is paused.

Each trigger node is replaced by a *Set* node of the same name that emits the original event exactly as it came in
(headers, query, path parameters and all), fed by a webhook on an unguessable path. So expressions that read the
trigger see the original event, schedules and other triggers can be replayed too, and the real address stays closed.

In a copy that is called the triggers for calls stay, and all others go.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any

from platforms.base import EVENT_HEADER, Definition, Version

ENTRY_NODE = "reinstate entry"
PREFIX = "reinstate replay: "
CALLEE_PREFIX = "reinstate call: "
CALL_TRIGGER = "n8n-nodes-base.executeWorkflowTrigger"
MAX_NAME = 128
RESPOND = "n8n-nodes-base.respondToWebhook"
MANUAL = ("n8n-nodes-base.manualTrigger",)
KEPT_SETTINGS = ("executionOrder", "timezone", "executionTimeout", "callerPolicy", "callerIds")
EVIDENCE = {"saveDataErrorExecution": "all", "saveDataSuccessExecution": "all"}
TRIGGER_TYPE = re.compile(r"(?i)(trigger|webhook)$")


def copy_name(version: Version, prefix: str = PREFIX) -> str:
    """Unique per source workflow and content; found again by it after a kill."""
    tail = f" [{version.workflow_id} {version.hash[:12]}]"
    return f"{prefix}{version.definition['name']}"[: MAX_NAME - len(tail)] + tail


def is_private(name: str) -> bool:
    """Whether a workflow of this name is Reinstate's own."""
    return name.startswith((PREFIX, CALLEE_PREFIX))


def is_trigger(node: Mapping[str, Any]) -> bool:
    """Webhook, schedule, form and other trigger nodes; by n8n's naming rule, since the API tells no node kinds."""
    kind = str(node.get("type", ""))
    return bool(TRIGGER_TYPE.search(kind)) and kind != RESPOND and kind not in MANUAL


def triggers_of(definition: Definition) -> list[Mapping[str, Any]]:
    return [node for node in definition["nodes"] if is_trigger(node) and not node.get("disabled")]


def entry_path(token: str, trigger: str | None) -> str:
    """The path that starts ``trigger``; without a name the first trigger."""
    return token if trigger is None else f"{token}-{hashlib.sha256(trigger.encode()).hexdigest()[:8]}"


def is_entry(node_name: str) -> bool:
    return node_name == ENTRY_NODE or node_name.startswith(f"{ENTRY_NODE} ")


def private_copy(version: Version, token: str) -> dict[str, Any]:
    """The definition of the copy. Credentials stay; settings keep every run as evidence and call no error workflow."""
    definition = version.definition
    triggers = triggers_of(definition)
    emitters = {str(node["name"]) for node in triggers}
    nodes = [
        _emitter(node) if node["name"] in emitters else dict(node)
        for node in definition["nodes"]
        if node["name"] in emitters or not (is_trigger(node) or node["type"] in MANUAL)
    ]
    connections = dict(definition["connections"])
    for index, trigger in enumerate(triggers):
        name = str(trigger["name"])
        mode = "responseNode" if _responds(definition, name) else "lastNode"
        for path in [entry_path(token, name), *([token] if index == 0 else [])]:
            entry = ENTRY_NODE if path == token else f"{ENTRY_NODE} {name}"
            nodes.append(_entry(entry, path, mode))
            connections[entry] = {"main": [[{"node": name, "type": "main", "index": 0}]]}
    return {
        "name": copy_name(version),
        "nodes": nodes,
        "connections": connections,
        "settings": _settings(definition),
    }


def can_be_called(definition: Definition) -> bool:
    return any(node["type"] == CALL_TRIGGER for node in triggers_of(definition))


def private_callee(version: Version) -> dict[str, Any]:
    """The definition of a copy that is called."""
    definition = version.definition
    left_out = {
        str(node["name"])
        for node in definition["nodes"]
        if node["type"] != CALL_TRIGGER and (is_trigger(node) or node["type"] in MANUAL)
    }
    return {
        "name": copy_name(version, CALLEE_PREFIX),
        "nodes": [dict(node) for node in definition["nodes"] if node["name"] not in left_out],
        "connections": {name: links for name, links in definition["connections"].items() if name not in left_out},
        "settings": _settings(definition),
    }


def payload(event: Mapping[str, Any]) -> dict[str, Any]:
    """The body that makes the trigger's stand-in emit ``event``. A hand-written webhook event may leave out parts."""
    emitted = {key: value for key, value in event.items() if key != "trigger"}
    if "body" in emitted:
        emitted = {"headers": {}, "params": {}, "query": {}, **emitted}
    headers = emitted.get("headers")
    if isinstance(headers, Mapping):
        # The key of an earlier replay of the same event is not part of it.
        emitted["headers"] = {name: value for name, value in headers.items() if name.lower() != EVENT_HEADER}
    return {"event": emitted}


def token_of(copy: Mapping[str, Any]) -> str | None:
    """The path of an open copy, read back from its definition."""
    for node in copy["nodes"]:
        if node["name"] == ENTRY_NODE:
            return str(node["parameters"]["path"])
    return None


def _settings(definition: Definition) -> dict[str, Any]:
    settings = definition.get("settings") or {}
    kept = {key: settings[key] for key in KEPT_SETTINGS if settings.get(key) not in (None, "DEFAULT")}
    return {**kept, **EVIDENCE}


def _responds(definition: Definition, trigger: str) -> bool:
    """Whether a *Respond to Webhook* node can follow: n8n then refuses an entry that answers by itself."""
    kinds = {node["name"]: node["type"] for node in definition["nodes"] if not node.get("disabled")}
    seen, todo = {trigger}, [trigger]
    while todo:
        outputs = (definition["connections"].get(todo.pop()) or {}).get("main") or []
        following = {target["node"] for targets in outputs for target in targets or ()} - seen
        seen |= following
        todo += following
    return any(kinds.get(name) == RESPOND for name in seen)


def _emitter(trigger: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "id": str(trigger.get("id") or _id(str(trigger["name"]))),
        "name": trigger["name"],
        "type": "n8n-nodes-base.set",
        "typeVersion": 3.4,
        "position": [0, 0],
        "parameters": {"mode": "raw", "jsonOutput": "={{ $json.body.event }}", "options": {}},
    }


def _entry(name: str, path: str, response_mode: str) -> dict[str, Any]:
    return {
        "id": _id(path),
        "name": name,
        "type": "n8n-nodes-base.webhook",
        "typeVersion": 2,
        "position": [-200, 0],
        "webhookId": _id(path),
        "parameters": {"httpMethod": "POST", "path": path, "responseMode": response_mode, "options": {}},
    }


def _id(text: str) -> str:
    digest = hashlib.sha256(text.encode()).hexdigest()
    return f"{digest[:8]}-{digest[8:12]}-4{digest[13:16]}-8{digest[17:20]}-{digest[20:32]}"
