"""Reading n8n's JSON into the values of the port. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import quote, unquote

from platforms.base import EVENT_HEADER, Definition, Run, RunDetail, RunState, Version, WorkflowInfo
from platforms.canonical import NODE_FIELDS, SETTING_DEFAULTS, settings_hash
from platforms.n8n_client import Unknown
from platforms.n8n_entry import is_entry
from platforms.n8n_secrets import content_hash, without
from platforms.n8n_versions import Identity

WRITABLE_SETTINGS = (*SETTING_DEFAULTS, "timeSavedMode", "timeSavedPerExecution", "availableInMCP")
"""Settings that ``PUT`` accepts; it refuses any other with 400."""

WRITABLE_NODE_FIELDS = (
    *NODE_FIELDS,
    *("id", "webhookId", "position", "notes", "notesInFlow", "credentials", "customTelemetryTags"),
)


IN_FLIGHT: Final = frozenset(state for state in RunState if state.in_flight)
PLAIN_IN_KEY: Final = "!\"#$&'()*+,/:;<=>?@[\\]^`{|}"
"""Every sign that a header takes and ``quote`` would encode, but ``%``, which marks what is encoded."""


def instant(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text).astimezone(UTC) if text else None


def definition_of(workflow: Mapping[str, Any], content: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The definition in ``content`` (a history version), with what n8n keeps on the workflow: name and settings.
    Without secrets."""
    source = workflow if content is None else content
    return without(
        {
            "name": workflow["name"],
            "nodes": source["nodes"],
            "connections": source["connections"],
            "settings": workflow.get("settings") or {},
        }
    )


def version_of(workflow: Mapping[str, Any], content: Mapping[str, Any] | None = None) -> Version:
    """The saved content of ``workflow``, or ``content``, one version of its history."""
    definition = definition_of(workflow, content)
    source = workflow if content is None else content
    return Version(
        workflow_id=str(workflow["id"]),
        hash=content_hash(definition),
        settings_hash=settings_hash(definition),
        definition=definition,
        platform_version=source.get("versionId"),
        author=source.get("authors"),
        created_at=instant(source.get("createdAt") if content is not None else source.get("updatedAt")),
    )


def info_of(workflow: Mapping[str, Any]) -> WorkflowInfo:
    return WorkflowInfo(
        id=str(workflow["id"]),
        name=workflow["name"],
        active=bool(workflow["active"]),
        updated_at=instant(workflow.get("updatedAt")),
        live=workflow.get("activeVersionId"),
    )


def not_archived(what: str, workflow: dict[str, Any]) -> dict[str, Any]:
    """``workflow``, unless it is archived: then it is gone, and ``Unknown`` is raised as for a deleted one."""
    if workflow.get("isArchived"):
        raise Unknown(f"{what}: it is archived in n8n; bring it back there, or let it be made again")
    return workflow


def run_queries(wanted: frozenset[RunState], started_after: datetime | None) -> list[dict[str, str]]:
    """What to ask for runs of these states, ended ones from ``started_after`` on. n8n's plain list leaves running ones
    out, so each state in flight is asked for, in an order in which a run that moves on meanwhile is met later at the
    latest."""
    queries = [{"status": "new"}, {"status": "waiting"}, {"status": "running"}] if wanted & IN_FLIGHT else []
    if not wanted - IN_FLIGHT:
        return [*queries, {"status": "waiting"}]
    return [*queries, {"startedAfter": started_after.isoformat()} if started_after else {}]


def run_of(execution: Mapping[str, Any], identity: Identity) -> Run:
    state = state_of(execution)
    return Run(
        id=str(execution["id"]),
        workflow_id=str(execution["workflowId"]),
        state=state,
        started_at=instant(execution.get("startedAt")),
        # n8n puts a stop time on waiting runs: the moment they went to sleep.
        stopped_at=None if state.in_flight else instant(execution.get("stoppedAt")),
        version_hash=identity.hash,
        retry_of=str(execution["retryOf"]) if execution.get("retryOf") else None,
        platform_version=identity.platform_version,
    )


def state_of(execution: Mapping[str, Any]) -> RunState:
    status = execution.get("status")
    try:
        return RunState(str(status))
    except ValueError:
        # "unknown": n8n lost track. Without an end it must count as in flight.
        return RunState.ERROR if execution.get("stoppedAt") else RunState.RUNNING


def detail_of(execution: Mapping[str, Any], run: Run) -> RunDetail:
    data = execution.get("data") or {}
    result = data.get("resultData") or {}
    nodes: Mapping[str, Any] = result.get("runData") or {}
    error = result.get("error") or {}
    return RunDetail(
        run=run,
        event=event_of(data, nodes),
        outputs={name: outputs for name, tries in nodes.items() if (outputs := _items(tries)) is not None},
        error=str(error.get("message")) if error else None,
    )


def event_of(data: Mapping[str, Any], nodes: Mapping[str, Any]) -> dict[str, Any] | None:
    """The trigger's item. While a run is at its trigger, or its progress is not saved, it is on the start stack."""
    started = [(tries[0].get("executionIndex", 0), name) for name, tries in nodes.items() if tries]
    items: list[Any] | None = None
    trigger = ""
    if started:
        trigger = min(started)[1]
        items = _items(nodes[trigger])
    if not items:
        stack = (data.get("executionData") or {}).get("nodeExecutionStack") or []
        if not stack or (started and stack[0]["node"]["name"] != trigger):
            return None
        trigger = stack[0]["node"]["name"]
        items = _branches((stack[0].get("data") or {}).get("main"))
    if not items:
        return None
    event = dict(items[0]) if len(items) == 1 else {"items": list(items)}
    return _replayed(event) if is_entry(trigger) else {**event, "trigger": trigger}


def key_header(key: str) -> dict[str, str]:
    """The header that carries an idempotency key to a private entry. Headers take printable ASCII: the rest, blanks
    included, goes percent-encoded."""
    return {EVENT_HEADER: quote(key, safe=PLAIN_IN_KEY)}


def key_of(event: Mapping[str, Any] | None) -> str | None:
    """The idempotency key a replayed event carries."""
    headers = (event or {}).get("headers") or {}
    return headers.get(EVENT_HEADER) if isinstance(headers, Mapping) else None


def writable(definition: Definition, *, present: Iterable[str] = ()) -> dict[str, Any]:
    """The body of a ``PUT`` or ``POST``. ``PUT`` merges settings, so those in ``present`` that the definition does
    not have are set to their default."""
    wanted = definition.get("settings") or {}
    settings = {key: wanted[key] for key in WRITABLE_SETTINGS if wanted.get(key) not in (None, "DEFAULT")}
    for key in present:
        if key not in settings and key in SETTING_DEFAULTS:
            settings[key] = SETTING_DEFAULTS[key]
    return {
        "name": definition["name"],
        "nodes": [{key: node[key] for key in WRITABLE_NODE_FIELDS if key in node} for node in definition["nodes"]],
        "connections": definition["connections"],
        "settings": settings,
    }


def _replayed(entry_event: Mapping[str, Any]) -> dict[str, Any]:
    """The original event out of what the private entry received, with the key among its headers."""
    original = dict((entry_event.get("body") or {}).get("event") or {})
    key = (entry_event.get("headers") or {}).get(EVENT_HEADER)
    headers = {**(original.get("headers") or {}), EVENT_HEADER: key and unquote(key)}
    return {**original, "headers": headers}


def _items(tries: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]] | None:
    """All items of a node over all its tries; ``None`` when it returned nothing (it failed or was stopped)."""
    found = [_branches((attempt.get("data") or {}).get("main")) for attempt in tries if attempt.get("data")]
    return [item for items in found for item in items] if found else None


def _branches(main: Iterable[Iterable[Mapping[str, Any]] | None] | None) -> list[dict[str, Any]]:
    return [dict(item.get("json") or {}) for branch in main or () for item in branch or ()]
