"""Reading an n8n definition into an :class:`~platforms.base.Outline`. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from platforms.base import Credential, CredentialState, Definition, Entry, EntryKind, Node, Outline
from platforms.n8n_webhooks import webhook_addresses


def outline(definition: Definition) -> Outline:
    """Entries, nodes and links of ``definition``."""
    nodes = definition.get("nodes") or []
    entries = [
        Entry(kind=EntryKind.WEBHOOK, node=str(node.get("name")), method=method, path=f"/webhook/{path}")
        for node in nodes
        for path, method in sorted(webhook_addresses([node]))
    ]
    links = [
        (source, str(target.get("node")))
        for source, kinds in (definition.get("connections") or {}).items()
        for outputs in kinds.values()
        for targets in outputs or ()
        for target in targets or ()
    ]
    return Outline(
        name=str(definition.get("name", "")),
        entries=tuple(entries),
        nodes=tuple(_node(n) for n in nodes),
        links=tuple(links),
        settings=dict(definition.get("settings") or {}),
    )


def credentials_of(definition: Definition) -> list[Credential]:
    """The credentials that ``definition`` names, once each; whether they are there is not known here."""
    found: dict[str, Credential] = {}
    for node in definition.get("nodes") or []:
        for kind, reference in (node.get("credentials") or {}).items():
            named = reference if isinstance(reference, Mapping) else {"name": reference}
            key = str(named.get("id") or named.get("name"))
            name = str(named.get("name") or key)
            found.setdefault(key, Credential(id=key, name=name, kind=kind, state=CredentialState.PRESENT))
    return list(found.values())


def _node(node: Mapping[str, Any]) -> Node:
    parameters = dict(node.get("parameters") or {})
    query = parameters.get("query")
    return Node(
        name=str(node.get("name")),
        kind=str(node.get("type")),
        parameters=parameters,
        disabled=bool(node.get("disabled")),
        sql=(query,) if isinstance(query, str) and parameters.get("operation") == "executeQuery" else (),
        credentials=tuple(sorted(node.get("credentials") or {})),
    )
