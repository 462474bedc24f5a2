"""Content hashes of Directus flows: equal for equal behaviour, whatever the editor or an export added. Pure.

Operations are named by their keys, since the data chain and so every expression knows them by key; ids, positions,
colours, descriptions and times do not count. Links count, as key to key. Two hashes, as everywhere: name and logging of
a flow are settings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from platforms.canonical import digest

LOGGING = "all"
"""``accountability`` of a flow unless it says otherwise; anything else keeps no evidence of runs."""


def hashes(definition: Mapping[str, Any]) -> tuple[str, str]:
    """``(hash, settings_hash)`` of a definition."""
    return digest(canonical(definition)), digest(canonical_settings(definition))


def canonical(definition: Mapping[str, Any]) -> dict[str, Any]:
    """What decides how the flow behaves."""
    operations = definition.get("operations") or []
    names = labels(operations)
    return {
        "trigger": definition.get("trigger"),
        "options": _set(definition.get("options")),
        "first": names.get(definition.get("operation") or ""),
        "operations": sorted((_operation(o, names) for o in operations), key=lambda o: str(o["key"])),
    }


def canonical_settings(definition: Mapping[str, Any]) -> dict[str, Any]:
    """What belongs to the flow as a whole."""
    settings = definition.get("settings") or {}
    return {"name": definition.get("name"), "accountability": settings.get("accountability", LOGGING)}


def labels(operations: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Operation id to key. Directus lets two operations have one key: the others are numbered by id."""
    found: dict[str, str] = {}
    seen: dict[str, int] = {}
    for operation in sorted(operations, key=lambda o: (str(o.get("key")), str(o["id"]))):
        key = str(operation.get("key"))
        seen[key] = seen.get(key, 0) + 1
        found[str(operation["id"])] = key if seen[key] == 1 else f"{key} #{seen[key]}"
    return found


def _operation(operation: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    return {
        "key": names[str(operation["id"])],
        "name": operation.get("name") or None,
        "type": operation.get("type"),
        "options": _set(operation.get("options")),
        "resolve": names.get(operation.get("resolve") or ""),
        "reject": names.get(operation.get("reject") or ""),
    }


def _set(options: Any) -> dict[str, Any]:
    """Options that are set: the editor writes ``null`` for what was never touched."""
    return {k: v for k, v in (options or {}).items() if v is not None}
