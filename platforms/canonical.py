"""Content hashes of workflow definitions: equal for equal behaviour, whatever the editor or an export added.

Two hashes, because n8n versions nodes and connections but keeps name and settings once per workflow: folding the
settings in would change the hash of every old version, and so of every old run, when somebody edits a setting.
Not part of either: node ids, positions, webhook ids (but where they are the address), notes, pinned data, static data,
tags and meta fields.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

NODE_FIELDS = (
    "name",
    "type",
    "typeVersion",
    "parameters",
    "executeOnce",
    "alwaysOutputData",
    "retryOnFail",
    "maxTries",
    "waitBetweenTries",
    "onError",
    "continueOnFail",
    "disabled",
)
"""What decides how a node behaves. Credentials are added by reference, and the webhook id where it is an address."""

ADDRESSED = ("webhook", "formTrigger", "chatTrigger", "mcpTrigger")
"""Nodes whose webhook id is their address, unless their path is a plain one."""

NODE_DEFAULTS: Mapping[str, Any] = {
    "executeOnce": False,
    "alwaysOutputData": False,
    "retryOnFail": False,
    "continueOnFail": False,
    "disabled": False,
    "onError": "stopWorkflow",
    "parameters": {},
}

SETTING_DEFAULTS: Mapping[str, Any] = {
    "executionOrder": "v1",
    "executionTimeout": -1,
    "timezone": "DEFAULT",
    "errorWorkflow": "DEFAULT",
    "callerPolicy": "workflowsFromSameOwner",
    "callerIds": "",
    "saveDataErrorExecution": "all",
    "saveDataSuccessExecution": "all",
    "saveManualExecutions": True,
    "saveExecutionProgress": False,
}
"""Settings that matter, with the value that counts as *not set*. The save settings matter: they are the evidence."""


def content_hash(definition: Mapping[str, Any]) -> str:
    """SHA-256 (hex) of what the platform versions: nodes, with parameters and credential references, and connections.

    A definition without ``nodes`` (another platform's) is hashed whole, its name apart.
    """
    if "nodes" not in definition:
        return digest({k: v for k, v in definition.items() if k not in ("name", "settings")})
    nodes = sorted((canonical_node(node) for node in canonical_nodes(definition["nodes"])), key=_name)
    return digest({"nodes": nodes, "connections": canonical_connections(definition.get("connections") or {})})


def settings_hash(definition: Mapping[str, Any]) -> str:
    """SHA-256 (hex) of what belongs to the workflow as a whole: its name and the settings that matter."""
    settings = definition.get("settings") or {}
    kept = {key: settings[key] for key in SETTING_DEFAULTS if _is_set(key, settings)}
    return digest({"name": definition.get("name"), "settings": kept})


def canonical_nodes(nodes: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The nodes that do something; sticky notes do not."""
    return [node for node in nodes if node.get("type") != "n8n-nodes-base.stickyNote"]


def canonical_node(node: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a node that count, defaults left out."""
    kept = {
        key: node[key] for key in NODE_FIELDS if node.get(key) is not None and node[key] != NODE_DEFAULTS.get(key, ...)
    }
    credentials = node.get("credentials") or {}
    if credentials:
        kept["credentials"] = {kind: _credential(reference) for kind, reference in credentials.items()}
    if node.get("webhookId") and _is_address(node):
        kept["webhookId"] = node["webhookId"]
    return kept


def canonical_connections(connections: Mapping[str, Any]) -> dict[str, Any]:
    """Connections without empty outputs at the end, which editors add and drop freely.

    The order of the targets of one output counts: n8n runs them by it in the old execution order.
    """
    result = {}
    for source, kinds in connections.items():
        kept = {kind: trimmed for kind, outputs in kinds.items() if (trimmed := _trim(outputs or []))}
        if kept:
            result[source] = kept
    return result


def digest(value: Any) -> str:
    """SHA-256 (hex) of canonical JSON: sorted keys, no blanks, whole floats as integers (JSON has one number type)."""
    text = json.dumps(_plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [_plain(item) for item in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def _is_address(node: Mapping[str, Any]) -> bool:
    if str(node.get("type")).rpartition(".")[2] not in ADDRESSED:
        return False
    parameters = node.get("parameters") or {}
    path = parameters.get("path") or (parameters.get("options") or {}).get("path")
    return not path or ":" in str(path)


def _trim(outputs: Sequence[Any]) -> list[Any]:
    kept = [list(targets or []) for targets in outputs]
    while kept and not kept[-1]:
        kept.pop()
    return kept


def _credential(reference: Any) -> Any:
    """By id, since the platform renames the display name; by name where a template has no id yet."""
    if isinstance(reference, Mapping):
        return {"id": reference["id"]} if reference.get("id") else {"name": reference.get("name")}
    return reference


def _is_set(key: str, settings: Mapping[str, Any]) -> bool:
    value = settings.get(key)
    return value is not None and value not in ("", "DEFAULT") and value != SETTING_DEFAULTS[key]


def _name(node: Mapping[str, Any]) -> str:
    return str(node.get("name", ""))
