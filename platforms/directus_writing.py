"""What to write so that a flow in Directus becomes a wanted definition, in one request and so in one transaction. Pure.

Inside a request Directus first creates operations, then updates them in order, then deletes. Each operation may follow
only one other by *resolve* and one by *reject* (a unique column), so links that change are cleared before any is set.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Mapping
from typing import Any

from platforms.base import Definition
from platforms.directus_canonical import LOGGING
from platforms.directus_data import OPERATION_FIELDS, SETTING_FIELDS
from platforms.directus_secrets import MASK, filled, known_in, secrets_of

LINKS = ("resolve", "reject")
Known = Mapping[str, Mapping[str, str]]
"""Secrets by operation id and place."""


def same_ids(flow_id: str, definition: Definition, current: Mapping[str, Any], taken: Collection[str]) -> Definition:
    """The definition with the ids its operations will have: their own; that of the operation with their key, when
    their own is not there; a new one where another flow has theirs (``taken``)."""
    here = {str(o["id"]): str(o["key"]) for o in current.get("operations") or []}
    wanted = [str(o["id"]) for o in definition.get("operations") or []]
    free = {key: id_ for id_, key in here.items() if id_ not in wanted}
    ids: dict[str, str] = {}
    for operation in definition.get("operations") or []:
        own = str(operation["id"])
        if own in here:
            ids[own] = own
        elif str(operation["key"]) in free:
            ids[own] = free.pop(str(operation["key"]))
        else:
            ids[own] = str(uuid.uuid5(uuid.UUID(flow_id), own)) if own in taken else own
    return renamed(definition, ids)


def renamed(definition: Definition, ids: Mapping[str, str]) -> Definition:
    """The definition under other operation ids. A link to an operation that is not there leads nowhere."""
    operations = [
        {**o, "id": ids[str(o["id"])], **{link: ids.get(o.get(link) or "") for link in LINKS}}
        for o in definition.get("operations") or []
    ]
    return {**definition, "operation": ids.get(definition.get("operation") or ""), "operations": operations}


def lacking(definition: Definition, current: Mapping[str, Any]) -> list[str]:
    """Ids of operations with a secret that neither the definition nor the current flow has."""
    known = known_secrets(current)
    return [
        str(o["id"])
        for o in definition.get("operations") or []
        if any(
            s.value == MASK and s.place not in known.get(str(o["id"]), {})
            for s in secrets_of(str(o["type"]), o.get("options") or {})
        )
    ]


def known_secrets(flow: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """The secrets that a flow as Directus has it holds, by operation id and place."""
    return {str(o["id"]): known_in(str(o.get("type")), o.get("options") or {}) for o in flow.get("operations") or []}


def body(definition: Definition, current: Mapping[str, Any] | None, secrets: Known) -> dict[str, Any]:
    """The body of a ``POST`` (no ``current``) or ``PATCH`` that makes the flow the definition, secrets filled in."""
    settings = definition.get("settings") or {}
    present = {str(o["id"]): o for o in (current or {}).get("operations") or []}
    wanted = [_stored(o, secrets) for o in definition.get("operations") or []]
    kept = {o["id"] for o in wanted}
    create = [{k: v for k, v in o.items() if k not in LINKS} for o in wanted if o["id"] not in present]
    clear, final = [], []
    for operation in wanted:
        was = present.get(operation["id"])
        before = was if was is not None else {**operation, "resolve": None, "reject": None}
        changed = {field: operation[field] for field in OPERATION_FIELDS if before.get(field) != operation[field]}
        loose = {link: None for link in LINKS if link in changed and before.get(link)}
        if loose:
            clear.append({"id": operation["id"], **loose})
        if changed:
            final.append({"id": operation["id"], **changed})
    gone = [id_ for id_ in present if id_ not in kept]
    clear += [
        {"id": id_, **{link: None for link in LINKS if present[id_].get(link)}}
        for id_ in gone
        if any(present[id_].get(link) for link in LINKS)
    ]
    changes = {"create": create, "update": [*clear, *final], "delete": gone}
    return {
        "name": definition["name"],
        "trigger": definition.get("trigger"),
        "options": definition.get("options") or {},
        "operation": definition.get("operation"),
        **{field: settings.get(field, LOGGING if field == "accountability" else None) for field in SETTING_FIELDS},
        "operations": {kind: some for kind, some in changes.items() if some},
    }


def _stored(operation: Mapping[str, Any], secrets: Known) -> dict[str, Any]:
    options = filled(str(operation["type"]), operation.get("options") or {}, secrets.get(str(operation["id"]), {}))
    return {
        **{field: operation.get(field) for field in OPERATION_FIELDS},
        "id": str(operation["id"]),
        "position_x": operation.get("position_x") or 1,
        "position_y": operation.get("position_y") or 1,
        "options": options,
    }
