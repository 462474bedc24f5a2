"""The production addresses of a definition's webhook nodes. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

WEBHOOK = "n8n-nodes-base.webhook"


def webhook_addresses(nodes: Iterable[Mapping[str, Any]], *, filled: bool = True) -> set[tuple[str, str]]:
    """``(path, method)`` pairs below ``/webhook``. A path with a parameter (``:id``) is, as in n8n, prefixed with the
    node's webhook id; ``filled``: the parameter is filled, so that the address can be called. Paths that are
    expressions are left out: they cannot be known outside."""
    found = set()
    for node in nodes:
        if node.get("type") != WEBHOOK or node.get("disabled"):
            continue
        parameters = node.get("parameters")
        if not isinstance(parameters, Mapping):
            parameters = {}
        path = str(parameters.get("path") or node.get("webhookId") or "").strip("/")
        if not path or path.startswith("="):
            continue
        if path.startswith(":") or "/:" in path:
            parts = path.split("/")
            path = "/".join("any" if filled and part.startswith(":") else part for part in parts)
            path = f"{node.get('webhookId')}/{path}"
        methods = parameters.get("httpMethod") or "GET"
        for method in methods if isinstance(methods, list) else [methods]:
            found.add((path, str(method).upper()))
    return found


def answering(nodes: Iterable[Mapping[str, Any]]) -> dict[str, set[str]]:
    """Paths that surely answer when the definition runs, with their methods: of a node without a webhook id n8n makes
    up the path, and a method that is an expression cannot be known. Of a path's methods n8n may tell of one only."""
    found: dict[str, set[str]] = {}
    for path, method in webhook_addresses(node for node in nodes if node.get("webhookId")):
        if not method.startswith("="):
            found.setdefault(path, set()).add(method)
    return found
