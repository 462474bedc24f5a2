"""Reading Directus' JSON into the values of the port. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from platforms.base import (
    EVENT_HEADER,
    Credential,
    CredentialState,
    Definition,
    Run,
    RunDetail,
    RunState,
    Version,
    WorkflowInfo,
)
from platforms.directus_canonical import LOGGING, hashes
from platforms.directus_secrets import MASK, masked, secrets_of

TRIGGER = "$trigger"
WHOLE_FLOW: Mapping[str, Any] = {"fields": "*,operations.*", "deep[operations][_limit]": -1}
"""Without the limit Directus gives the first hundred operations only."""
OPERATION_FIELDS = ("id", "key", "name", "type", "options", "resolve", "reject", "position_x", "position_y")
SETTING_FIELDS = ("accountability", "icon", "color", "description")
REDACTED = "--redacted"
"""How Directus begins what it took out of a recorded run."""

USUAL_S = 1.0
"""What a run lasts at most besides the operations below."""
LASTING_S: Mapping[str, float] = {"code": 10.0, "url": 30.0, "flow": 30.0}
"""By an option that tells the type: *exec* ends after ten seconds unless configured otherwise, *request* and *trigger*
wait for others."""

PUBLIC, SYSTEM = "public", "system"
"""Who called a flow: nobody known, or Directus itself (a schedule); else the id of a user."""


def instant(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text).astimezone(UTC) if text else None


def definition_of(flow: Mapping[str, Any]) -> dict[str, Any]:
    """The definition, without secrets."""
    return {
        "id": flow["id"],
        "name": flow["name"],
        "trigger": flow.get("trigger"),
        "options": masked("trigger", flow.get("options") or {}),
        "operation": flow.get("operation"),
        "operations": [_shown(operation) for operation in flow.get("operations") or []],
        "settings": {field: flow.get(field) for field in SETTING_FIELDS},
    }


def _shown(operation: Mapping[str, Any]) -> dict[str, Any]:
    shown = {field: operation.get(field) for field in OPERATION_FIELDS}
    return {**shown, "options": masked(str(operation.get("type")), operation.get("options") or {})}


def version_of(flow: Mapping[str, Any], *, author: str | None = None, at: datetime | None = None) -> Version:
    definition = definition_of(flow)
    content, settings = hashes(definition)
    return Version(
        workflow_id=str(flow["id"]),
        hash=content,
        settings_hash=settings,
        definition=definition,
        author=author,
        created_at=at,
    )


def info_of(flow: Mapping[str, Any]) -> WorkflowInfo:
    return WorkflowInfo(id=str(flow["id"]), name=flow["name"], active=flow.get("status") == "active")


def edit_of(activities: Sequence[Mapping[str, Any]]) -> tuple[str | None, datetime | None]:
    """Who changed the content last, and when; switching on or off is no such change. ``activities`` newest first."""
    for activity in activities:
        deltas = [r.get("delta") or {} for r in activity.get("revisions") or []]
        if activity.get("action") == "update" and deltas and all(set(delta) <= {"status"} for delta in deltas):
            continue
        user = activity.get("user") or {}
        return user.get("email") or user.get("id"), instant(activity.get("timestamp"))
    return None, None


def credentials_of(flow: Mapping[str, Any]) -> list[Credential]:
    """The secrets inside a flow as Directus has it, by operation; never a value."""
    found = []
    for operation in flow.get("operations") or []:
        label = operation.get("name") or operation.get("key")
        for secret in secrets_of(str(operation.get("type")), operation.get("options") or {}):
            lost = secret.value == MASK
            detail = "Directus no longer has it: enter it again in this operation" if lost else ""
            found.append(
                Credential(
                    id=f"{operation['id']}/{secret.place}",
                    name=f"{label}: {secret.place}",
                    kind=secret.kind,
                    state=CredentialState.MISSING if lost else CredentialState.PRESENT,
                    detail=detail,
                )
            )
    return found


def run_of(revision: Mapping[str, Any]) -> Run:
    """One recorded run. Directus writes it down at its end; see :func:`longest` for its start."""
    data = revision.get("data") or {}
    ended = instant((revision.get("activity") or {}).get("timestamp"))
    return Run(
        id=str(revision["id"]),
        workflow_id=str(revision["item"]),
        state=state_of(data),
        started_at=ended - longest(data.get("steps") or []) if ended else None,
        stopped_at=ended,
    )


def longest(steps: Sequence[Mapping[str, Any]]) -> timedelta:
    """How long before its end a run can have started, by what its operations may take. The start is thus the earliest
    one possible: attribution finds too many candidates rather than the wrong one."""
    seconds = USUAL_S
    for step in steps:
        options = step.get("options") or {}
        seconds += max((limit for option, limit in LASTING_S.items() if option in options), default=0.0)
        seconds += _seconds(options.get("milliseconds"))
    return timedelta(seconds=seconds)


def _seconds(milliseconds: Any) -> float:
    try:
        return max(0.0, float(milliseconds) / 1000)
    except (TypeError, ValueError):
        return 0.0


def state_of(data: Mapping[str, Any]) -> RunState:
    """Failed when the last operation that ran rejected; a *condition* that does not hold and leads nowhere is an end
    like any other."""
    steps = data.get("steps") or []
    if not steps or steps[-1].get("status") == "resolve":
        return RunState.SUCCESS
    return RunState.SUCCESS if steps[-1].get("status") == "reject" and _is_condition(steps[-1]) else RunState.ERROR


def _is_condition(step: Mapping[str, Any]) -> bool:
    return set(step.get("options") or {}) == {"filter"}


def detail_of(revision: Mapping[str, Any]) -> RunDetail:
    run = run_of(revision)
    data = revision.get("data") or {}
    chain = data.get("data") or {}
    steps = data.get("steps") or []
    return RunDetail(
        run=run,
        event=event_of(chain) if chain else None,
        outputs={
            str(step["key"]): items_of(chain.get(step["key"])) for step in steps if step.get("status") == "resolve"
        },
        error=_error(chain.get(steps[-1]["key"]), steps[-1]) if run.state is RunState.ERROR else None,
        wrote=written(steps, chain),
    )


def written(steps: Sequence[Mapping[str, Any]], chain: Mapping[str, Any]) -> dict[str, dict[str, frozenset[str]]]:
    """Keys of the rows that operations created, updated or deleted, by collection: such an operation returns them,
    where one that reads returns rows. A rejected one wrote nothing."""
    found: dict[str, dict[str, frozenset[str]]] = {}
    for step in steps:
        options = step.get("options") or {}
        collection = options.get("collection")
        if step.get("status") != "resolve" or not isinstance(collection, str) or "recipient" in options:
            continue
        result = chain.get(str(step.get("key")))
        results = result if isinstance(result, list) else [result]
        keys = frozenset(str(k) for k in results if isinstance(k, str | int))
        own = found.setdefault(collection, {})
        for kind in _kinds(options):
            own[kind] = own.get(kind, frozenset()) | keys
    return found


def _kinds(options: Mapping[str, Any]) -> str:
    """What an operation on a collection does with its rows, by its options: the record does not name its type. Many
    rows at once may be new or, with their keys inside, changed."""
    if not options.get("payload"):
        return "D"
    if options.get("key") or options.get("query"):
        return "U"
    return "I" if isinstance(options["payload"], Mapping) else "IU"


def event_of(chain: Mapping[str, Any]) -> dict[str, Any]:
    """What the flow saw as ``$trigger``, without what Directus took out, with ``caller`` beside it."""
    seen = chain.get(TRIGGER)
    event = dict(seen) if isinstance(seen, Mapping) else {} if seen is None else {"value": seen}
    for part in ("headers", "query"):
        if isinstance(event.get(part), Mapping):
            event[part] = {k: v for k, v in event[part].items() if not str(v).startswith(REDACTED)}
    accountability = chain.get("$accountability")
    caller = SYSTEM if accountability is None else accountability.get("user") or PUBLIC
    return {**event, "caller": caller, "trigger": TRIGGER}


def items_of(result: Any) -> list[dict[str, Any]]:
    """What an operation returned, as items: keys of rows become ``{"key": ...}``."""
    if result is None:
        return []
    results = result if isinstance(result, list) else [result]
    return [dict(r) if isinstance(r, Mapping) else {"key": r} for r in results]


def key_of(revision: Mapping[str, Any]) -> str | None:
    """The idempotency key that a replayed event carried."""
    seen = ((revision.get("data") or {}).get("data") or {}).get(TRIGGER)
    headers = seen.get("headers") if isinstance(seen, Mapping) else None
    return headers.get(EVENT_HEADER) if isinstance(headers, Mapping) else None


def logs_runs(definition: Definition) -> bool:
    """Whether Directus keeps evidence of the flow's runs."""
    return bool((definition.get("settings") or {}).get("accountability", LOGGING) == LOGGING)


def _error(result: Any, step: Mapping[str, Any]) -> str:
    first = result[0] if isinstance(result, list) and result else result
    if isinstance(first, Mapping):
        text = first.get("message") or (first.get("data") or {}) or first.get("code")
    else:
        text = first
    return f"{step.get('key')}: {text or 'the operation is unknown to Directus or gave no reason'}"
