"""Reading an n8n definition into an :class:`~platforms.base.Outline`. Pure; never fails on what it does not know."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from platforms.base import Credential, CredentialState, Definition, Entry, EntryKind, Node, Outline
from platforms.n8n_nodes import Reading, read
from platforms.n8n_webhooks import webhook_addresses

PREFIX = "n8n-nodes-base."
STICKY = "n8n-nodes-base.stickyNote"
SCHEDULES = ("scheduleTrigger", "cron", "interval")
FORM = "formTrigger"
CALLED = ("executeWorkflowTrigger", "toolWorkflowTrigger")
IN_PLATFORM = ("errorTrigger", "workflowTrigger", "n8nTrigger", "emailReadImap")
TRIGGER = re.compile(r"(?i)trigger$")
SECRETISH = re.compile(r"(?i)authorization|api[-_ ]?key|token|passw|secret|cookie")
HIDDEN = "(hidden)"


def outline(definition: Definition) -> Outline:
    """Entries, nodes and links of ``definition``. Sticky notes and what is no node are left out."""
    nodes = [node for node in _list(definition.get("nodes")) if node.get("type") != STICKY]
    return Outline(
        name=str(definition.get("name") or ""),
        entries=tuple(entry for node in nodes for entry in _entries(node)),
        nodes=tuple(_node(node) for node in nodes),
        links=tuple(_links(_mapping(definition.get("connections")), [str(node.get("name")) for node in nodes])),
        settings=dict(_mapping(definition.get("settings"))),
    )


def credentials_of(definition: Definition) -> list[Credential]:
    """The credentials that ``definition`` names, once each; whether they are there is not known here."""
    found: dict[str, Credential] = {}
    for node in _list(definition.get("nodes")):
        for kind, reference in _mapping(node.get("credentials")).items():
            named = reference if isinstance(reference, Mapping) else {"name": reference}
            key = str(named.get("id") or named.get("name"))
            name = str(named.get("name") or key)
            found.setdefault(key, Credential(id=key, name=name, kind=str(kind), state=CredentialState.PRESENT))
    return list(found.values())


def _entries(node: Mapping[str, Any]) -> Iterator[Entry]:
    if node.get("disabled"):
        return
    name, kind = str(node.get("name")), str(node.get("type")).rpartition(".")[2]
    parameters = _mapping(node.get("parameters"))
    if kind == "webhook":
        found = sorted(webhook_addresses([node], filled=False))
        for path, method in found:
            yield Entry(kind=EntryKind.WEBHOOK, node=name, method=method, path=f"/webhook/{path}")
        if not found:
            yield Entry(kind=EntryKind.WEBHOOK, node=name)
    elif kind == FORM:
        form = parameters.get("path") or _mapping(parameters.get("options")).get("path") or node.get("webhookId")
        yield Entry(kind=EntryKind.WEBHOOK, node=name, method="POST", path=f"/form/{form}" if form else None)
    elif kind in SCHEDULES:
        yield Entry(kind=EntryKind.SCHEDULE, node=name, schedule=_schedule(parameters))
    elif kind == "manualTrigger":
        yield Entry(kind=EntryKind.MANUAL, node=name)
    elif kind in CALLED:
        yield Entry(kind=EntryKind.CALL, node=name)
    elif kind in IN_PLATFORM or TRIGGER.search(kind):
        yield Entry(kind=EntryKind.EVENT, node=name)


def _schedule(parameters: Mapping[str, Any]) -> str:
    """The cron expressions, or n8n's rule as it stands, in short."""
    rule = _mapping(parameters.get("rule")).get("interval") or _mapping(parameters.get("triggerTimes")).get("item")
    rules = _list(rule) or ([parameters] if parameters else [])
    return "; ".join(
        str(one.get("expression") or one.get("cronExpression")).removeprefix("=")
        if one.get("expression") or one.get("cronExpression")
        else json.dumps(one, sort_keys=True, default=str)
        for one in rules
    )


def _links(connections: Mapping[str, Any], names: Sequence[str]) -> Iterator[tuple[str, str]]:
    """In the order of the nodes they leave and of their outputs, since JSON objects come back in any order."""
    known = set(names)
    for source in names:
        for _, outputs in sorted(_mapping(connections.get(source)).items()):
            for targets in outputs if isinstance(outputs, list) else ():
                for target in _list(targets):
                    if str(target.get("node")) in known:
                        yield source, str(target["node"])


def _node(node: Mapping[str, Any]) -> Node:
    parameters = _mapping(node.get("parameters"))
    kind = str(node.get("type") or "")
    try:
        found = read(kind, parameters)
    except (AttributeError, KeyError, TypeError, ValueError, IndexError):
        # A definition may hold anything: what cannot be read is said to be unknown, and the rest still is read.
        found = Reading(unsure=("its parameters have a form that is not known",))
    return Node(
        name=str(node.get("name")),
        kind=kind,
        parameters={**shown(parameters), **_behaviour(node)},
        disabled=bool(node.get("disabled")),
        sql=found.sql,
        tables=found.tables,
        calls=found.calls,
        hosts=found.hosts,
        credentials=tuple(_credentials(node)),
        unsure=found.unsure,
    )


def _behaviour(node: Mapping[str, Any]) -> dict[str, Any]:
    """What decides how a node behaves besides its parameters, where it is set."""
    names = ("executeOnce", "alwaysOutputData", "retryOnFail", "maxTries", "waitBetweenTries", "onError")
    return {f"({name})": node[name] for name in names if node.get(name) not in (None, False, "stopWorkflow")}


def _credentials(node: Mapping[str, Any]) -> Iterator[str]:
    for kind, reference in sorted(_mapping(node.get("credentials")).items()):
        named = reference if isinstance(reference, Mapping) else {"name": reference}
        said = [str(named[key]) for key in ("name", "id") if named.get(key)]
        yield f"{kind} {' '.join(said)}".strip()


def shown(value: Any) -> Any:
    """``value`` without secrets that somebody typed into a node: what stands under a telling name, as it is, is hidden;
    expressions and names are not."""
    if isinstance(value, Mapping):
        told = value.get("name")
        pair = isinstance(told, str) and SECRETISH.search(told) is not None
        return {
            str(key): HIDDEN if _is_secret(str(key), item, pair=pair) else shown(item) for key, item in value.items()
        }
    if isinstance(value, list):
        return [shown(item) for item in value]
    return value


def _is_secret(key: str, item: Any, *, pair: bool) -> bool:
    if not isinstance(item, str) or not item or item.startswith("="):
        return False
    return (pair and key == "value") or (SECRETISH.search(key) is not None and not key.lower().endswith("type"))


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: Any) -> list[Mapping[str, Any]]:
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []
