"""The production addresses of a definition's webhook nodes. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

WEBHOOK = "n8n-nodes-base.webhook"


def webhook_addresses(nodes: Iterable[Mapping[str, Any]]) -> set[tuple[str, str]]:
    """``(path, method)`` pairs below ``/webhook``. A path parameter (``:id``) is filled with a placeholder and, as in
    n8n, prefixed with the node's webhook id. Paths that are expressions are left out: they cannot be known outside."""
    found = set()
    for node in nodes:
        if node.get("type") != WEBHOOK or node.get("disabled"):
            continue
        parameters = node.get("parameters") or {}
        path = str(parameters.get("path") or node.get("webhookId") or "").strip("/")
        if not path or path.startswith("="):
            continue
        if ":" in path:
            filled = "/".join("any" if part.startswith(":") else part for part in path.split("/"))
            path = f"{node.get('webhookId')}/{filled}"
        methods = parameters.get("httpMethod") or "GET"
        for method in [methods] if isinstance(methods, str) else methods:
            found.add((path, str(method).upper()))
    return found
