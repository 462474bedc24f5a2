"""Which content a recorded run used: from Directus' own revisions, and from what the run wrote down. Pure.

Directus records no version with a run, and only its end. But it records each operation that ran, with its options as
they were after all expressions were filled in; and the revisions of flow and operations tell every content there was,
each from when. A run used the content that was there when it can have started *and* whose graph and options give what
was recorded. Where two contents fit, or none, the version stays open.

Revisions are added up from changes, since those of links stand nowhere else. What comes out in the end must be the
flow as it is; else somebody pruned or bypassed the history, and nothing older than the last change is told.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from platforms.directus_canonical import hashes
from platforms.directus_data import REDACTED, TRIGGER, definition_of, instant

RELOAD = timedelta(seconds=3)
"""How long after its record a change may take to be in force: the transaction's end, then all flows are loaded."""
WHOLE_TEMPLATE = re.compile(r"^\{\{\s*([^}\s]+)\s*\}\}$")
TEMPLATE = re.compile(r"\{\{\s*(.*?)\s*\}\}", re.DOTALL)
ANYTHING = object()
EPOCH = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, kw_only=True, slots=True)
class Content:
    """One content of a flow, as Directus has it (with secrets), in force from about ``since`` to ``until``."""

    flow: Mapping[str, Any] = field(repr=False)
    hash: str
    since: datetime | None
    """The first record of the change that made it; ``None`` where nothing older is known."""
    until: datetime | None
    """The last record of the change that ended it; ``None`` for what is there now."""


def contents(
    current: Mapping[str, Any],
    revisions: Sequence[Mapping[str, Any]],
    deletions: Sequence[Mapping[str, Any]],
) -> list[Content]:
    """Every content of the flow, oldest first. ``revisions`` are those of the flow and its operations, runs left out;
    ``deletions`` the activities that removed operations. An operation's id may have belonged to another flow before."""
    own = {int(r["id"]) for r in revisions if r["collection"] == "directus_flows"}
    changes = [_change(r) for r in revisions if not r.get("parent") or int(r["parent"]) in own]
    steps = sorted([*changes, *(_removal(d) for d in deletions)], key=lambda step: (step.at, step.number))
    flow: dict[str, Any] = {}
    operations: dict[str, dict[str, Any]] = {}
    found: list[Content] = []
    for group in _groups(steps):
        if any(step.begins for step in group):
            flow, operations = {}, {}
        for step in group:
            if step.delta is None:
                operations.pop(step.item, None)
            elif step.collection == "directus_flows":
                flow |= step.delta
            else:
                operations.setdefault(step.item, {"id": step.item, "resolve": None, "reject": None}).update(step.delta)
        whole = {"id": current["id"], "name": "", **flow, "operations": [dict(o) for o in operations.values()]}
        if "operation" not in whole:
            whole["operation"] = _root(operations)
        content = hashes(definition_of(whole))[0]
        if not found or found[-1].hash != content:
            first, last = group[0].at, group[-1].at
            if found:
                found[-1] = _ended(found[-1], last)
            found.append(Content(flow=whole, hash=content, since=first, until=None))
    now = hashes(definition_of(current))[0]
    if found and found[-1].hash == now:
        return [*found[:-1], _as_now(found[-1], current)]
    last_change = steps[-1].at if steps else None
    return [Content(flow=current, hash=now, since=last_change, until=None)]


def version_of_run(
    known: Sequence[Content], data: Mapping[str, Any], started: datetime | None, stopped: datetime | None
) -> str | None:
    """The hash of the one content that a run between these times can have used, or ``None``."""
    if started is None or stopped is None:
        return None
    possible = [
        c for c in known if (c.since is None or c.since <= stopped) and (c.until is None or started <= c.until + RELOAD)
    ]
    fitting = {c.hash for c in possible if fits(c.flow, data)}
    return next(iter(fitting)) if len(fitting) == 1 else None


def fits(flow: Mapping[str, Any], data: Mapping[str, Any]) -> bool:
    """Whether this content gives what the run recorded: the same operations in the same order, with the same
    options."""
    operations = {str(o["id"]): o for o in flow.get("operations") or []}
    chain = dict(data.get("data") or {})
    seen: dict[str, Any] = {TRIGGER: chain.get(TRIGGER), "$last": chain.get(TRIGGER)}
    following = flow.get("operation")
    for step in data.get("steps") or []:
        operation = operations.get(str(step.get("operation")))
        if operation is None or str(following) != str(operation["id"]) or operation.get("key") != step.get("key"):
            return False
        recorded = step.get("options")
        if recorded is not None and not alike(operation.get("options") or {}, recorded, seen):
            return False
        seen[str(step["key"])] = seen["$last"] = chain.get(step["key"])
        following = operation.get(step["status"]) if step.get("status") in ("resolve", "reject") else None
    return following is None


def alike(written: Any, recorded: Any, seen: Mapping[str, Any]) -> bool:
    """Whether an option as written gives the recorded value, as far as ``seen`` tells what its expressions gave."""
    if isinstance(recorded, str) and REDACTED in recorded:
        return True
    if isinstance(written, Mapping):
        return isinstance(recorded, Mapping) and all(
            alike(written.get(k), recorded.get(k), seen) for k in {*written, *recorded}
        )
    if isinstance(written, list):
        return (
            isinstance(recorded, list)
            and len(written) == len(recorded)
            and all(alike(w, r, seen) for w, r in zip(written, recorded, strict=True))
        )
    if not isinstance(written, str) or "{{" not in written:
        return bool(written == recorded)
    whole = WHOLE_TEMPLATE.match(written)
    if whole:
        value = looked_up(whole[1], seen)
        return value is ANYTHING or bool(value == recorded)
    return isinstance(recorded, str) and re.fullmatch(_pattern(written, seen), recorded, re.DOTALL) is not None


def looked_up(path: str, seen: Mapping[str, Any]) -> Any:
    """The value of a plain path such as ``$trigger.body.total``; :data:`ANYTHING` where this cannot tell."""
    value: Any = seen
    for part in path.split("."):
        if not isinstance(value, Mapping) or part not in value:
            return ANYTHING
        value = value[part]
    return ANYTHING if isinstance(value, str) and value.startswith(REDACTED) else value


def _pattern(written: str, seen: Mapping[str, Any]) -> str:
    pattern, at = "", 0
    for match in TEMPLATE.finditer(written):
        value = looked_up(match[1], seen)
        # Other types are written in JavaScript's ways: whatever stands there will do.
        plain = (
            str(value) if isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool)) else None
        )
        pattern += re.escape(written[at : match.start()]) + (".*" if plain is None else re.escape(plain))
        at = match.end()
    return pattern + re.escape(written[at:])


@dataclass(frozen=True, kw_only=True, slots=True)
class _Step:
    at: datetime
    number: int
    group: int
    collection: str
    item: str
    delta: Mapping[str, Any] | None
    begins: bool = False
    """The flow is made here: with it every operation that it had in an earlier life is gone."""


def _change(revision: Mapping[str, Any]) -> _Step:
    activity = revision["activity"]
    at = instant(activity["timestamp"])
    return _Step(
        at=at or EPOCH,
        number=int(activity["id"]),
        group=int(revision.get("parent") or revision["id"]),
        collection=str(revision["collection"]),
        item=str(revision["item"]),
        delta=revision.get("delta") or {},
        begins=revision["collection"] == "directus_flows" and activity.get("action") == "create",
    )


def _removal(activity: Mapping[str, Any]) -> _Step:
    return _Step(
        at=instant(activity["timestamp"]) or EPOCH,
        number=int(activity["id"]),
        group=0,
        collection="directus_operations",
        item=str(activity["item"]),
        delta=None,
    )


def _groups(steps: Sequence[_Step]) -> list[list[_Step]]:
    """Changes of one request together. A removal belongs to the request around it, else to the one before."""
    groups: list[list[_Step]] = []
    open_group = -1
    for step in steps:
        if groups and step.group in (0, open_group):
            groups[-1].append(step)
        else:
            groups.append([step])
            open_group = step.group
    return groups


def _root(operations: Mapping[str, Mapping[str, Any]]) -> str | None:
    """The only operation that nothing leads to; a flow's creation does not record which one is the first."""
    led_to = {o.get(way) for o in operations.values() for way in ("resolve", "reject")}
    roots = [i for i in operations if i not in led_to]
    return roots[0] if len(roots) == 1 else None


def _ended(content: Content, at: datetime) -> Content:
    return Content(flow=content.flow, hash=content.hash, since=content.since, until=at)


def _as_now(content: Content, current: Mapping[str, Any]) -> Content:
    return Content(flow=current, hash=content.hash, since=content.since, until=None)
