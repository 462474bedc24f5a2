"""Private copies of a flow: what is built, and how they are found again. Pure. One kind replays events, the other one
is called by the first while the flow itself is paused.

The copy is a flow that only another flow can start, and its ``$trigger`` is whatever that one hands over: so every
trigger can be replayed, and expressions see the original event. The other one, the *entry*, is a webhook at an address
that only Reinstate knows; it hands on what it was sent. Both are active flows, and the licence counts them.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

from platforms.base import EVENT_HEADER, Version
from platforms.directus_canonical import LOGGING
from platforms.directus_data import PUBLIC, SYSTEM
from platforms.directus_writing import renamed

COPY = "reinstate replay: "
CALLEE = "reinstate call: "
ENTRY = "reinstate entry: "
MAX_NAME = 255
BESIDE = ("trigger", "caller")
"""What a run's detail tells beside the event."""


def is_private(flow: Mapping[str, Any]) -> bool:
    """Whether the flow is Reinstate's own."""
    return str(flow.get("name", "")).startswith((COPY, CALLEE, ENTRY))


def copy_name(version: Version, prefix: str = COPY) -> str:
    """Unique per source flow and content; found again by it after a kill."""
    tail = f" [{version.workflow_id} {version.hash[:12]}]"
    return f"{prefix}{version.definition['name']}"[: MAX_NAME - len(tail)] + tail


def entry_name(copy_id: str) -> str:
    return f"{ENTRY}{copy_id}"


def private_copy(version: Version, copy_id: str) -> dict[str, Any]:
    """The definition of the copy: other ids, another trigger, every run kept as evidence."""
    definition = version.definition
    ids = {str(o["id"]): str(uuid.uuid5(uuid.UUID(copy_id), str(o["id"]))) for o in definition["operations"]}
    return {
        **renamed(definition, ids),
        "name": copy_name(version),
        "trigger": "operation",
        "options": {"return": "$last"},
        "settings": {"accountability": LOGGING, "icon": "replay", "color": None, "description": None},
    }


def private_callee(version: Version, copy_id: str) -> dict[str, Any]:
    """The definition of a copy that other copies call: it gives them back what the flow itself gives back."""
    return {
        **private_copy(version, copy_id),
        "name": copy_name(version, CALLEE),
        "options": version.definition["options"],
    }


def entry(copy_id: str, entry_id: str) -> dict[str, Any]:
    """The definition of the entry. Its own runs are not recorded: those of the copy tell everything."""
    hand_over = {
        "id": str(uuid.uuid5(uuid.UUID(entry_id), "hand over")),
        "key": "hand_over",
        "name": "Hand over",
        "type": "trigger",
        "options": {"flow": copy_id, "payload": "{{ $trigger.body.event }}"},
        "resolve": None,
        "reject": None,
    }
    return {
        "name": entry_name(copy_id),
        "trigger": "webhook",
        "options": {"method": "POST", "async": False, "return": "$last"},
        "operation": hand_over["id"],
        "operations": [hand_over],
        "settings": {"accountability": None, "icon": "replay", "color": None, "description": None},
    }


def payload(event: Mapping[str, Any], key: str) -> dict[str, Any]:
    """What is sent so that the copy sees ``event``, with the key among its headers."""
    seen = {name: value for name, value in event.items() if name not in BESIDE}
    if "body" in seen:
        seen = {"headers": {}, "query": {}, **seen}
    headers = seen.get("headers")
    given = headers if isinstance(headers, Mapping) else {}
    kept = {name: value for name, value in given.items() if name.lower() != EVENT_HEADER}
    return {"event": {**seen, "headers": {**kept, EVENT_HEADER: key}}}


def is_public(event: Mapping[str, Any]) -> bool:
    """Whether nobody known called the flow, so that the copy is to run with the rights of the public."""
    return bool(event.get("caller", PUBLIC if "body" in event else SYSTEM) == PUBLIC)
