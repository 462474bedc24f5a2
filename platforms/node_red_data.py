"""A tab of Node-RED as a definition, and a definition as a change of all flows. Pure.

A *definition* of Node-RED::

    {"name": the tab's label, "settings": {"info": its description}, "env": its environment variables,
     "nodes": nodes, groups and config nodes on the tab,
     "configs": config nodes outside of it that its nodes use, and those that these use,
     "subflows": the subflows it uses, and those that these use, each followed by its nodes,
     "outside": {id of a link node on another tab: id of that tab}}

Nodes are as Node-RED writes them, but for secrets (:mod:`platforms.node_red_secrets`) and, on the tab, ``z``.
Subflows and config nodes belong to all tabs that use them: writing a definition writes them too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from secrets import token_hex
from typing import Any

from platforms.base import Definition, Version, WorkflowInfo
from platforms.node_red_canonical import content_hash, settings_hash
from platforms.node_red_client import Flows
from platforms.node_red_secrets import put_back, taken_out

PREFIX = "reinstate replay: "
SUBFLOW = re.compile(r"subflow:(?P<id>.+)$")
CONTAINERS = ("tab", "subflow")


def tabs(flows: Flows) -> list[dict[str, Any]]:
    """The tabs, Reinstate's private ones included."""
    return [node for node in flows if node.get("type") == "tab"]


def tab(flows: Flows, tab_id: str) -> dict[str, Any] | None:
    return next((node for node in tabs(flows) if node["id"] == tab_id), None)


def is_private(node: Mapping[str, Any]) -> bool:
    return str(node.get("label", "")).startswith(PREFIX)


def info_of(found: Mapping[str, Any]) -> WorkflowInfo:
    return WorkflowInfo(id=str(found["id"]), name=str(found.get("label") or ""), active=not found.get("disabled"))


def version_of(flows: Flows, found: Mapping[str, Any]) -> Version:
    """The content of a tab as it is deployed."""
    definition = definition_of(flows, found)
    return Version(
        workflow_id=str(found["id"]),
        hash=content_hash(definition),
        settings_hash=settings_hash(definition),
        definition=definition,
    )


def definition_of(flows: Flows, found: Mapping[str, Any]) -> dict[str, Any]:
    """The tab ``found`` without secrets."""
    by_id = {str(node["id"]): node for node in flows}
    own = [node for node in flows if node.get("z") == found["id"]]
    configs: dict[str, dict[str, Any]] = {}
    subflows: dict[str, list[dict[str, Any]]] = {}
    todo = list(own)
    while todo:
        node = todo.pop()
        for reference in references(node):
            target = by_id.get(reference)
            if target is None or reference in configs or reference in subflows:
                continue
            if target.get("type") == "subflow":
                inner = [n for n in flows if n.get("z") == reference]
                subflows[reference] = [target, *inner]
                todo += [target, *inner]
            elif target.get("type") not in ("tab", "group") and not _held(target, by_id):
                configs[reference] = target
                todo.append(target)
    links = {str(link) for node in own for link in _links(node) if by_id.get(str(link), {}).get("z") != found["id"]}
    return {
        "name": str(found.get("label") or ""),
        "settings": {"info": str(found.get("info") or "")},
        "env": taken_out(list(found.get("env") or [])),
        "nodes": [{k: v for k, v in taken_out(node).items() if k != "z"} for node in own],
        "configs": [taken_out(node) for node in flows if node["id"] in configs],
        "subflows": [taken_out(node) for node in flows if node["id"] in subflows or node.get("z") in subflows],
        "outside": {link: str(by_id[link].get("z")) for link in sorted(links) if link in by_id},
    }


def with_definition(flows: Flows, tab_id: str, definition: Definition, *, new_disabled: bool = True) -> Flows:
    """``flows`` with the content of a tab; every other tab stays as it is. A tab that is there stays as active as it
    is; a new one is disabled or not as ``new_disabled`` says."""
    by_id = {str(node["id"]): node for node in flows}
    present = tab(flows, tab_id)
    settings = definition.get("settings") or {}
    head = {
        **(present or {"id": tab_id, "type": "tab", "disabled": new_disabled}),
        "label": definition["name"],
        "info": str(settings.get("info") or ""),
        "env": put_back(list(definition.get("env") or []), (present or {}).get("env")),
    }
    own = [{**put_back(dict(node), by_id.get(str(node["id"]))), "z": tab_id} for node in definition["nodes"]]
    shared = [*(definition.get("configs") or ()), *(definition.get("subflows") or ())]
    written = {str(node["id"]): put_back(dict(node), by_id.get(str(node["id"]))) for node in shared}
    subflows = {i for i, node in written.items() if node.get("type") == "subflow"}
    written |= {tab_id: head} | {str(node["id"]): node for node in own}
    gone = {i for i, n in by_id.items() if i not in written and (n.get("z") == tab_id or n.get("z") in subflows)}
    kept = [written.pop(str(node["id"]), node) for node in flows if str(node["id"]) not in gone]
    return [*kept, *written.values()]


def apart(definition: Definition, flows: Flows, tab_id: str) -> Definition:
    """``definition`` for tab ``tab_id``, with new ids for nodes whose ids another tab has."""
    taken = {str(node["id"]) for node in flows if node.get("z") != tab_id}
    ids = {str(n["id"]): token_hex(8) for n in definition["nodes"] if str(n["id"]) in taken}
    return {**definition, "nodes": replaced(list(definition["nodes"]), ids)} if ids else definition


def address(node: Mapping[str, Any]) -> tuple[str, str]:
    """Method and path of an HTTP node, path parameters filled with a placeholder."""
    path = "/".join("any" if part[:1] in (":", "*") else part for part in str(node.get("url", "")).split("/"))
    return str(node.get("method", "get")).upper(), f"/{path.lstrip('/')}"


def with_disabled(flows: Flows, tab_id: str, *, disabled: bool) -> Flows:
    return [{**node, "disabled": disabled} if node["id"] == tab_id else node for node in flows]


def without_tab(flows: Flows, tab_id: str) -> Flows:
    """``flows`` without a tab, its nodes, and the shared nodes that were made for it alone."""
    made_for = [node for node in flows if node.get("reinstate") == tab_id]
    gone = {tab_id, *(str(node["id"]) for node in made_for)}
    return [node for node in flows if str(node["id"]) not in gone and node.get("z") not in gone]


def references(node: Mapping[str, Any]) -> Iterator[str]:
    """Every text in a node that may be the id of another one; subflows are named by the type of their instances."""
    kind = SUBFLOW.match(str(node.get("type", "")))
    if kind:
        yield kind["id"]
    for key, value in node.items():
        if key not in ("id", "type", "z", "g", "name", "wires", "links"):
            yield from _texts(value)


def replaced(value: Any, ids: Mapping[str, str]) -> Any:
    """``value`` with other ids, wherever one stands alone in a text or names the type of an instance."""
    if isinstance(value, Mapping):
        return {key: replaced(item, ids) for key, item in value.items()}
    if isinstance(value, list):
        return [replaced(item, ids) for item in value]
    if not isinstance(value, str):
        return value
    kind = SUBFLOW.match(value)
    return f"subflow:{ids.get(kind['id'], kind['id'])}" if kind else ids.get(value, value)


def is_flow_node(node: Mapping[str, Any]) -> bool:
    """Node-RED takes what has a place on a tab for a node, and the rest for config nodes."""
    return "x" in node and "y" in node and node.get("type") not in ("group", "tab", "subflow")


def _held(node: Mapping[str, Any], by_id: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether a node lies on a tab or in a subflow, so that it belongs there."""
    container = by_id.get(str(node.get("z") or ""))
    return container is not None and container.get("type") in CONTAINERS


def _links(node: Mapping[str, Any]) -> Iterable[Any]:
    return node.get("links") or () if str(node.get("type", "")).startswith("link") else ()


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
