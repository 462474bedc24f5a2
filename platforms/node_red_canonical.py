"""Content hashes of Node-RED definitions: equal for equal behaviour, whatever the editor moved, ordered or numbered.

Nodes are connected by ids, and an id means nothing by itself: a copy of a tab has others. So a node's place in the
whole is found by refinement, as in the test for isomorphic graphs by Weisfeiler and Leman (1968): each node's label
is a hash of its content, then again and again of its label and those of its neighbours, until no two nodes can be told
apart that were not before. The hash is over the sorted labels.

Not part of it: ids, positions, order, sizes, colours, icons, labels of ports, descriptions, comments, secrets, whether
a debug node is switched on; groups too, unless they hold environment variables or bound what a node catches.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from platforms.canonical import digest
from platforms.node_red_secrets import taken_out, without

LOOKS = frozenset(
    (
        *("id", "x", "y", "w", "h", "l", "info", "icon", "color", "style", "category", "meta"),
        *("inputLabels", "outputLabels", "reinstate"),
    )
)
UNORDERED = frozenset(("links", "scope", "nodes"))
"""Lists of ids whose order means nothing."""
Edge = tuple[str, str]


def content_hash(definition: Mapping[str, Any]) -> str:
    """SHA-256 (hex) of the nodes with their parameters, wires, config nodes, subflows and environment."""
    nodes = _counted(definition)
    counted = {str(node["id"]) for node in nodes}
    known = {str(node["id"]): str(node["id"]) in counted for node in _parts(definition)}
    base: dict[str, str] = {}
    edges: dict[str, list[Edge]] = {}
    for node in nodes:
        found: list[Edge] = []
        base[str(node["id"])] = digest(_plain(_content(node, known), known, "", found))
        edges[str(node["id"])] = found
    return digest(
        {"nodes": sorted(_refined(base, edges).values()), "env": without(taken_out(list(definition.get("env") or [])))}
    )


def settings_hash(definition: Mapping[str, Any]) -> str:
    """SHA-256 (hex) of the tab's label and description."""
    settings = definition.get("settings") or {}
    return digest({"name": definition.get("name"), "info": settings.get("info") or ""})


def _parts(definition: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [node for part in ("nodes", "configs", "subflows") for node in definition.get(part) or ()]


def _counted(definition: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    parts = _parts(definition)
    bounded = any(node.get("scope") == "group" for node in parts)
    groups = bounded or any(node.get("env") for node in parts if node.get("type") == "group")
    return [node for node in parts if node.get("type") != "comment" and (groups or node.get("type") != "group")]


def _content(node: Mapping[str, Any], known: Mapping[str, bool]) -> dict[str, Any]:
    """What counts of a node. ``z`` counts inside of subflows, ``g`` where groups do."""
    kept = {key: value for key, value in node.items() if key not in LOOKS}
    for place in ("z", "g"):
        if not known.get(str(kept.get(place))):
            kept.pop(place, None)
    if node.get("type") == "group":
        kept.pop("nodes", None)
    if node.get("type") == "debug":
        kept.pop("active", None)
    if not kept.get("d"):
        kept.pop("d", None)
    if "wires" in kept:
        kept["wires"] = _trimmed(kept["wires"])
    result: dict[str, Any] = without(taken_out(kept))
    return result


def _trimmed(wires: list[list[str]]) -> list[list[str]]:
    """Without empty ports at the end, which say the same as none."""
    kept = [list(port or ()) for port in wires or ()]
    while kept and not kept[-1]:
        kept.pop()
    return kept


def _plain(value: Any, known: Mapping[str, bool], path: str, found: list[Edge]) -> Any:
    """``value`` with a mark in the place of every id, which is noted as an edge with its path. ``known`` says of each
    id of the definition whether its node counts."""
    if isinstance(value, Mapping):
        return {key: _plain(value[key], known, f"{path}.{key}", found) for key in sorted(value)}
    if isinstance(value, list):
        if path.rpartition(".")[2] in UNORDERED:
            return sorted((_plain(item, known, f"{path}[]", found) for item in value), key=str)
        return [_plain(item, known, f"{path}[{index}]", found) for index, item in enumerate(value)]
    if isinstance(value, str):
        before, colon, after = value.partition(":")
        if colon and before == "subflow" and after in known:
            found.append((path, after))
            return "subflow:"
        if value in known:
            found += [(path, value)] if known[value] else []
            return "@" if known[value] else ""
    return value


def _refined(labels: dict[str, str], edges: Mapping[str, list[Edge]]) -> dict[str, str]:
    into: dict[str, list[Edge]] = {node: [] for node in labels}
    for source, path, target in _every(edges):
        into[target].append((path, source))
    apart = 0
    while len(set(labels.values())) > apart:
        apart = len(set(labels.values()))
        labels = {
            node: digest(
                [
                    label,
                    sorted([path, labels[target]] for path, target in edges[node]),
                    sorted([path, labels[source]] for path, source in into[node]),
                ]
            )
            for node, label in labels.items()
        }
    return labels


def _every(edges: Mapping[str, list[Edge]]) -> Iterator[tuple[str, str, str]]:
    for source, found in edges.items():
        for path, target in found:
            yield source, path, target
