"""Reading a Node-RED definition into an :class:`~platforms.base.Outline`. Pure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from platforms.base import Definition, Entry, EntryKind, Node, Outline
from platforms.node_red_data import SUBFLOW, is_flow_node

SILENT = frozenset(("comment", "group", "tab", "subflow"))
PLACE = frozenset(
    (
        *("id", "type", "z", "g", "x", "y", "w", "h", "l", "d", "wires", "name", "info", "icon", "color", "style"),
        *("inputLabels", "outputLabels", "links", "scope", "env", "meta", "category"),
    )
)
LISTENING = frozenset(("mqtt in", "websocket in", "tcp in", "udp in", "watch", "postgrestor-listener"))
URLS = ("url", "baseUrl", "broker", "host")
REACHES_OUT = re.compile(r"\b(require|import|fetch|linkcall)\s*\(|\bglobal\.get\b")
"""Code of a function that may do more than work on its message."""


def labels(definition: Definition) -> dict[str, str]:
    """What each node is called, by id: its name, else its type, with a number where that is not enough. Nodes of
    subflows are called after their subflow as well."""
    subflows = _subflows(definition)
    found: dict[str, str] = {}
    seen: Counter[str] = Counter()
    for node in _all(definition, "nodes", "subflows"):
        if node.get("type") == "subflow":
            continue
        name = str(node.get("name") or _kind(node, subflows))
        if str(node.get("z")) in subflows:
            name = f"{_title(subflows[str(node['z'])])} / {name}"
        seen[name] += 1
        found[str(node["id"])] = name if seen[name] == 1 else f"{name} ({seen[name]})"
    return found


def outline(definition: Definition, *, root: str = "") -> Outline:
    """Entries, nodes and links of ``definition``. ``root`` is the path below which HTTP nodes answer."""
    names = labels(definition)
    subflows = _subflows(definition)
    configs = {str(n["id"]): n for n in _all(definition) if not is_flow_node(n) and n.get("type") not in SILENT}
    drawn = [n for n in _all(definition) if is_flow_node(n) and n.get("type") not in SILENT]
    outside: Mapping[str, str] = definition.get("outside") or {}
    entries = [entry for n in drawn if not n.get("d") for entry in _entries(n, names[str(n["id"])], outside, root)]
    return Outline(
        name=str(definition.get("name", "")),
        entries=tuple(entries),
        nodes=tuple(_node(n, names[str(n["id"])], subflows, configs, outside) for n in drawn),
        links=tuple(_links(drawn, names, subflows)),
        settings=dict(definition.get("settings") or {}),
    )


def _all(definition: Definition, *parts: str) -> list[Mapping[str, Any]]:
    parts = parts or ("nodes", "configs", "subflows")
    return [n for part in parts for n in definition.get(part) or () if isinstance(n, Mapping) and "id" in n]


def _subflows(definition: Definition) -> dict[str, Mapping[str, Any]]:
    return {str(n["id"]): n for n in _all(definition, "subflows") if n.get("type") == "subflow"}


def _kind(node: Mapping[str, Any], subflows: Mapping[str, Mapping[str, Any]]) -> str:
    kind = SUBFLOW.match(str(node.get("type", "")))
    return _title(subflows[kind["id"]]) if kind and kind["id"] in subflows else str(node.get("type", ""))


def _title(subflow: Mapping[str, Any]) -> str:
    return str(subflow.get("name") or subflow["id"])


def _entries(node: Mapping[str, Any], name: str, outside: Mapping[str, str], root: str) -> Iterator[Entry]:
    kind = str(node.get("type"))
    if kind == "http in" and node.get("url"):
        path = f"{root}/{str(node['url']).lstrip('/')}"
        yield Entry(kind=EntryKind.WEBHOOK, node=name, method=str(node.get("method", "get")).upper(), path=path)
    elif kind == "inject":
        repeat = str(node.get("crontab") or "") or (f"every {node['repeat']} s" if node.get("repeat") else "")
        schedule = repeat or ("at the start" if node.get("once") else "")
        yield Entry(kind=EntryKind.SCHEDULE if schedule else EntryKind.MANUAL, node=name, schedule=schedule or None)
    elif kind in LISTENING:
        yield Entry(kind=EntryKind.EVENT, node=name)
    elif kind == "link in" and any(link in outside for link in node.get("links") or ()):
        yield Entry(kind=EntryKind.CALL, node=name)


def _node(
    node: Mapping[str, Any],
    name: str,
    subflows: Mapping[str, Mapping[str, Any]],
    configs: Mapping[str, Mapping[str, Any]],
    outside: Mapping[str, str],
) -> Node:
    kind = str(node.get("type"))
    instance = SUBFLOW.match(kind)
    named = [str(v) for v in node.values() if isinstance(v, str) and v in configs]
    query = node.get("query")
    sql = (query,) if kind == "postgrestor" and isinstance(query, str) and query else ()
    parameters = {key: value for key, value in node.items() if key not in PLACE}
    if instance and node.get("env"):
        parameters["env"] = node["env"]
    calls = [outside[link] for link in node.get("links") or () if kind != "link in" and link in outside]
    return Node(
        name=name,
        kind=f"subflow:{_kind(node, subflows)}" if instance else kind,
        parameters=parameters,
        disabled=bool(node.get("d")),
        sql=sql,
        calls=tuple(dict.fromkeys(calls)),
        hosts=tuple(sorted(set(_hosts(node, [configs[i] for i in named])))),
        credentials=tuple(named),
        unsure=tuple(_unsure(node, kind, sql, known=not instance or instance["id"] in subflows)),
    )


def _hosts(node: Mapping[str, Any], used: list[Mapping[str, Any]]) -> Iterator[str]:
    if node.get("type") == "http in":
        return
    for owner in (node, *used):
        for key in URLS:
            value = owner.get(key)
            if isinstance(value, str) and value and owner.get("type") != "postgresDB" and value not in ("", "/"):
                host = urlsplit(value if "//" in value else f"//{value}").hostname
                if (host and "." in host and "{" not in host) or host == "localhost":
                    yield host


def _unsure(node: Mapping[str, Any], kind: str, sql: tuple[str, ...], *, known: bool) -> Iterator[str]:
    if kind == "function" and (node.get("libs") or REACHES_OUT.search(str(node.get("func")))):
        yield "its code reaches for more than its message: it may query databases or call other servers"
    if kind == "exec":
        yield "it runs a program on Node-RED's machine, which may do anything"
    if any("{{" in statement for statement in sql):
        yield "the statement is put together from the message (mustache), so it may be another one at run time"
    if kind == "postgrestor" and not sql:
        yield "it has no statement of its own"
    if kind == "http request" and (not node.get("url") or "{{" in str(node.get("url"))):
        yield "the address comes from the message"
    if kind == "link call" and node.get("linkType") == "dynamic":
        yield "which flow it calls comes from the message"
    if not known:
        yield "its subflow is gone"


def _links(
    drawn: list[Mapping[str, Any]], names: Mapping[str, str], subflows: Mapping[str, Mapping[str, Any]]
) -> Iterator[tuple[str, str]]:
    """Wires and links in order; an instance of a subflow leads to where the subflow begins."""
    for node in drawn:
        source = names[str(node["id"])]
        kind = str(node.get("type"))
        for port in node.get("wires") or ():
            yield from ((source, names[target]) for target in port if target in names)
        if kind in ("link out", "link call"):
            yield from ((source, names[target]) for target in node.get("links") or () if target in names)
        instance = SUBFLOW.match(kind)
        if instance and instance["id"] in subflows:
            for way_in in subflows[instance["id"]].get("in") or ():
                starts = [wire.get("id") for wire in way_in.get("wires") or ()]
                yield from ((source, names[target]) for target in starts if target in names)
