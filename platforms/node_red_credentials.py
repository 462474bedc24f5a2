"""What can be told about the credentials that a tab uses: there or missing, never whether they work.

Two kinds: those that a node type declares, which Node-RED keeps encrypted and tells as ``has_<name>``; and passwords
among ordinary properties of config nodes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from platforms.base import Credential, CredentialState, Definition, Permanent
from platforms.node_red_client import Flows
from platforms.node_red_data import SUBFLOW, definition_of, is_flow_node
from platforms.node_red_entry import CORE, LISTENERS, QUIET
from platforms.node_red_secrets import held
from platforms.secretish import SECRET_NAME

NODE_ID = re.compile(r"[0-9a-f]{16}$|[0-9a-f]{6,8}\.[0-9a-f]{4,8}$")
"""How Node-RED makes ids: a property of this form that names no node is a config node that is gone."""
WITH_OWN = frozenset(("http request",))
"""Core nodes that may hold credentials of their own."""

Asked = Callable[[str, str], Mapping[str, Any]]
"""``GET /credentials/<type>/<id>``: each credential, secrets as ``has_<name>``."""


def may_hold(node: Mapping[str, Any]) -> bool:
    """Whether a node on a tab may have credentials of its own."""
    kind = str(node.get("type"))
    plain = (CORE - WITH_OWN) | LISTENERS | QUIET | {"http in", "junction"}
    return is_flow_node(node) and kind not in plain and not SUBFLOW.match(kind)


def credentials_of(flows: Flows, tab: Mapping[str, Any], asked: Asked) -> list[Credential]:
    """The credentials that a tab and what it uses need, once each, by the id of the node that holds them."""
    definition = definition_of(flows, tab)
    by_id = {str(node["id"]): node for node in flows}
    used = [node for part in ("nodes", "configs", "subflows") for node in definition[part]]
    found: dict[str, Credential] = {}
    wanted = [str(item.get("name")) for item in tab.get("env") or () if item.get("type") == "cred"]
    if wanted:
        told = asked("tab", str(tab["id"]))
        found[str(tab["id"])] = _credential(tab, "env", {name: bool(told.get(f"has_{name}")) for name in wanted})
    for node in used:
        node_id, kind = str(node["id"]), str(node.get("type"))
        for key, value in node.items():
            if _names_a_config_node(key, value) and value not in by_id:
                why = f"node {node.get('name') or node_id} uses it, and Node-RED has no such config node"
                found[value] = Credential(id=value, name=value, kind=key, state=CredentialState.MISSING, detail=why)
        if (is_flow_node(node) and not may_hold(node)) or kind in ("tab", "subflow", "group"):
            continue
        secrets = held(by_id[node_id]) | {
            name.removeprefix("has_"): there is True
            for name, there in asked(kind, node_id).items()
            if name[:4] == "has_"
        }
        if kind == "http request" and node.get("authType") and not secrets:
            secrets = {str(node["authType"]): False}
        if secrets:
            found[node_id] = _credential(node, kind, secrets)
    return list(found.values())


def refuse_own(what: str, definition: Definition, asked: Asked) -> None:
    """Raise ``Permanent`` for a definition of which a copy would lack credentials."""
    for node in definition["nodes"]:
        kind = str(node.get("type"))
        if may_hold(node) and any(asked(kind, str(node["id"])).values()):
            raise Permanent(
                f"{what}: node {node.get('name') or node['id']} ({kind}) has credentials of its own, which no copy "
                "can get from Node-RED; move them to a config node or an environment variable"
            )


def _credential(node: Mapping[str, Any], kind: str, secrets: Mapping[str, bool]) -> Credential:
    absent = sorted(name for name, there in secrets.items() if not there)
    state = CredentialState.PRESENT if len(absent) < len(secrets) else CredentialState.MISSING
    return Credential(
        id=str(node["id"]),
        name=str(node.get("name") or node.get("label") or kind),
        kind=kind,
        state=state,
        detail=f"not set: {', '.join(absent)}" if absent else "",
    )


def _names_a_config_node(key: str, value: Any) -> bool:
    reserved = ("id", "z", "g", "type", "name")
    return key not in reserved and not SECRET_NAME.search(key) and isinstance(value, str) and bool(NODE_ID.match(value))
