"""Flows of Directus for tests of the pure parts."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

NAMES = uuid.UUID("b0a5f2c8-0c2f-4f7e-8b8f-0a6d6a7e1c11")
FLOW = str(uuid.uuid5(NAMES, "flow"))


def id_of(key: str) -> str:
    return str(uuid.uuid5(NAMES, key))


def operation(key: str, kind: str = "log", /, *, then: str = "", other: str = "", **options: Any) -> dict[str, Any]:
    """``then`` and ``other`` are keys of what follows on resolve and reject."""
    return {
        "id": id_of(key),
        "key": key,
        "name": key.upper(),
        "type": kind,
        "options": options,
        "resolve": id_of(then) if then else None,
        "reject": id_of(other) if other else None,
        "position_x": 1,
        "position_y": 1,
    }


def definition(*operations: Mapping[str, Any], **fields: Any) -> dict[str, Any]:
    """A flow behind a webhook, beginning with the first operation."""
    return {
        "id": FLOW,
        "name": "Příjem",
        "trigger": "webhook",
        "options": {"method": "POST"},
        "operation": operations[0]["id"] if operations else None,
        "operations": [dict(o) for o in operations],
        "settings": {"accountability": "all", "icon": None, "color": None, "description": None},
        **fields,
    }


def flow(*operations: Mapping[str, Any], **fields: Any) -> dict[str, Any]:
    """The same as Directus answers it."""
    made = definition(*operations)
    return {**made, **made.pop("settings"), "status": "active", **fields}


def apply(flow: dict[str, Any], body: Mapping[str, Any]) -> dict[str, Any]:
    """What Directus makes of a ``PATCH``: creations, updates in order, deletions. Each link is unique at any time."""
    operations = {o["id"]: dict(o) for o in flow["operations"]}
    changes = body["operations"]
    for made in changes.get("create", ()):
        assert made["id"] not in operations
        operations[made["id"]] = {"resolve": None, "reject": None, **made}
    for change in changes.get("update", ()):
        operations[change["id"]].update(change)
        for link in ("resolve", "reject"):
            used = [o[link] for o in operations.values() if o[link]]
            assert len(used) == len(set(used)), f"{link} is unique"
            assert set(used) <= set(operations), f"{link} leads to an operation"
    for gone in changes.get("delete", ()):
        del operations[gone]
        assert not any(gone in (o["resolve"], o["reject"]) for o in operations.values())
    return {**flow, **{k: v for k, v in body.items() if k != "operations"}, "operations": list(operations.values())}
