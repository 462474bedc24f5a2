"""Reading a flow of Directus into an :class:`~platforms.base.Outline`. Pure. Nodes are named by operation keys."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from platforms.base import Access, Definition, Entry, EntryKind, Node, Outline, TableUse
from platforms.directus_canonical import labels
from platforms.directus_data import TRIGGER, logs_runs
from platforms.directus_secrets import secrets_of
from platforms.directus_writing import LINKS

ACCESS = {
    "item-create": Access.WRITE,
    "item-update": Access.WRITE,
    "item-delete": Access.WRITE,
    "item-read": Access.READ,
}
INSIDE = frozenset({"condition", "exec", "json-web-token", "log", "sleep", "throw-error", "transform"})
"""Operations that touch nothing outside the run."""
LOADED = 100
"""A flow with more operations does not run as it is drawn (measured)."""
KNOWN = INSIDE | set(ACCESS) | {"mail", "notification", "request", "trigger"}


def outline(definition: Definition) -> Outline:
    """Entries, nodes and links of ``definition``."""
    operations = definition.get("operations") or []
    names = labels(operations)
    links = []
    if definition.get("operation") in names:
        links.append((TRIGGER, names[str(definition["operation"])]))
    for operation in operations:
        name = names[str(operation["id"])]
        links += [(name, names[str(operation[way])]) for way in LINKS if operation.get(way) in names]
    settings = dict(definition.get("settings") or {})
    return Outline(
        name=str(definition.get("name", "")),
        entries=tuple(entries(definition)),
        nodes=(_trigger(definition), *(_node(o, names[str(o["id"])]) for o in operations)),
        links=tuple(links),
        settings=settings,
    )


def entries(definition: Definition) -> list[Entry]:
    """The one way in that a flow has."""
    options = definition.get("options") or {}
    path = f"/flows/trigger/{definition['id']}" if definition.get("id") else None
    match definition.get("trigger"):
        case "webhook":
            method = str(options.get("method") or "GET")
            return [Entry(kind=EntryKind.WEBHOOK, node=TRIGGER, method=method, path=path)]
        case "manual":
            return [Entry(kind=EntryKind.MANUAL, node=TRIGGER, method="POST", path=path)]
        case "schedule":
            return [Entry(kind=EntryKind.SCHEDULE, node=TRIGGER, schedule=str(options.get("cron") or ""))]
        case "event":
            return [Entry(kind=EntryKind.EVENT, node=TRIGGER)]
        case "operation":
            return [Entry(kind=EntryKind.CALL, node=TRIGGER)]
        case _:
            return []


def _trigger(definition: Definition) -> Node:
    kind = str(definition.get("trigger") or "none")
    unsure = (
        [] if kind in ("webhook", "manual", "schedule", "event", "operation") else [f"its trigger {kind} is unknown"]
    )
    if not logs_runs(definition):
        unsure.append("its runs are not recorded: set its logging to activity and logs")
    if len(definition.get("operations") or []) > LOADED:
        unsure.append(f"Directus loads {LOADED} operations of a flow unless QUERY_LIMIT_DEFAULT is raised")
    return Node(name=TRIGGER, kind=kind, parameters=dict(definition.get("options") or {}), unsure=tuple(unsure))


def _node(operation: Mapping[str, Any], name: str) -> Node:
    kind, options = str(operation.get("type")), dict(operation.get("options") or {})
    tables: tuple[TableUse, ...] = ()
    calls: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    unsure: list[str] = []
    if kind in ACCESS:
        tables = _tables(kind, options, unsure)
    elif kind == "trigger":
        calls = _named(options.get("flow"), "the flow it starts", unsure)
    elif kind == "request":
        hosts = _hosts(options.get("url"), unsure)
    elif kind not in KNOWN:
        unsure.append(f"operation {kind} comes from an extension: what it does is not known")
    return Node(
        name=name,
        kind=kind,
        parameters=options,
        tables=tables,
        calls=calls,
        hosts=hosts,
        credentials=tuple(s.place for s in secrets_of(kind, options)),
        unsure=tuple(unsure),
    )


def _tables(kind: str, options: Mapping[str, Any], unsure: list[str]) -> tuple[TableUse, ...]:
    names = _named(options.get("collection"), "the collection it uses", unsure)
    columns = _columns(options.get("payload")) if kind in ("item-create", "item-update") else ()
    if options.get("emitEvents"):
        unsure.append("what it writes may start flows that wait for changes of that collection")
    return tuple(TableUse(table=name, access=ACCESS[kind], columns=columns) for name in names)


def _columns(payload: Any) -> tuple[str, ...]:
    """Fields of a written payload; empty when it is a template as a whole."""
    if isinstance(payload, str):
        try:
            payload = json.loads(payload)
        except ValueError:
            return ()
    rows = payload if isinstance(payload, list) else [payload]
    return tuple(sorted({str(field) for row in rows if isinstance(row, Mapping) for field in row}))


def _named(value: Any, what: str, unsure: list[str]) -> tuple[str, ...]:
    if isinstance(value, str) and value and "{{" not in value:
        return (value,)
    unsure.append(f"{what} is decided at run time")
    return ()


def _hosts(url: Any, unsure: list[str]) -> tuple[str, ...]:
    try:
        host = urlsplit(str(url or "")).hostname or ""
    except ValueError:
        host = ""
    if not host or "{{" in host or "}}" in host:
        unsure.append("the server it calls is decided at run time")
        return ()
    return (host,)
