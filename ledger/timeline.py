"""The story of an incident: one plain sentence per entry, for people who did not build the thing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from ledger import kinds
from ledger.entry import Entry

if TYPE_CHECKING:
    from ledger.ledger import Ledger


@dataclass(frozen=True, kw_only=True, slots=True)
class TimelineLine:
    """``text`` is one sentence without full stop. ``tone``: ``good``, ``bad`` or ``plain``, for colouring."""

    seq: int
    at: datetime
    kind: str
    text: str
    tone: str = "plain"


def timeline(ledger: Ledger, incident: str) -> list[TimelineLine]:
    """The incident's entries as sentences, in order."""
    return [line(entry) for entry in story(ledger, incident)]


def story(ledger: Ledger, incident: str) -> list[Entry]:
    """All entries of the incident, those of its recoveries that do not name it included."""
    found = {e.seq: e for e in ledger.entries(incident=incident)}
    for recovery in sorted({e.recovery for e in found.values() if e.recovery}):
        found |= {e.seq: e for e in ledger.entries(recovery=recovery) if e.incident in (None, incident)}
    return [found[seq] for seq in sorted(found)]


def line(entry: Entry) -> TimelineLine:
    """One entry as a sentence; kinds without a sentence of their own show their name."""
    sentence = SENTENCES.get(entry.kind, _by_name)
    return TimelineLine(
        seq=entry.seq, at=entry.at, kind=entry.kind, text=" ".join(sentence(entry).split()), tone=_tone(entry)
    )


def seconds(value: object) -> str:
    """A duration in words: ``0.8 s``, ``42 s``, ``3 min 5 s``, ``2 h 10 min``."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "an unknown time"
    if value < 10:
        return f"{value:.1f} s"
    whole = round(value)
    if whole < 120:
        return f"{whole} s"
    if whole < 7200:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def count(number: int, one: str, many: str | None = None) -> str:
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def _names(value: object) -> str:
    if isinstance(value, str):
        return value
    return ", ".join(str(v) for v in value) if isinstance(value, Iterable) and value else "nothing"


def _size(value: object) -> int:
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, int):
        return value
    return len(value) if isinstance(value, list | tuple | dict) else 0


def _by(body: Mapping[str, Any]) -> str:
    return str(body.get("by") or "somebody")


def _because(body: Mapping[str, Any], key: str = "reason") -> str:
    return f": {body[key]}" if body.get(key) else ""


def _by_name(entry: Entry) -> str:
    words = entry.kind.replace(".", " ").replace("_", " ").replace("-", " ")
    return f"{words[:1].upper()}{words[1:]}" + (f" ({entry.step})" if entry.step else "")


def _detected(entry: Entry) -> str:
    messages = [str(f.get("message") or f.get("detector")) for f in _dicts(entry.body.get("findings"))]
    return f"Detected: {'; '.join(messages)}" if messages else "An anomaly was detected"


def _opened(entry: Entry) -> str:
    body = entry.body
    return f"Incident {entry.incident} opened ({body.get('severity', 'no severity')}): {body.get('title', 'no title')}"


def _diagnosed(entry: Entry) -> str:
    body = entry.body
    runs = count(_size(body.get("bad_runs")), "run")
    version = str(body.get("bad_version") or "?")[:12]
    sure = body.get("confidence")
    share = f", {sure:.0%} of the damage explained" if isinstance(sure, int | float) else ""
    return f"Cause found: version {version} of {body.get('workflow', 'a workflow')}; {runs} to undo{share}"


def _proven(entry: Entry) -> str:
    stopped = _size(entry.body.get("stopped_runs"))
    took = f" after {seconds(entry.body['seconds'])}" if "seconds" in entry.body else ""
    runs = f"; {count(stopped, 'unfinished run was', 'unfinished runs were')} stopped" if stopped else ""
    return f"Damage contained{took}: {_names(entry.body.get('workflows'))} proven paused{runs}"


def _planned(entry: Entry) -> str:
    body = entry.body
    rows = sum(_size(e.get(k)) for e in _dicts(body.get("effects")) for k in ("delete", "update", "insert"))
    events = count(_size(body.get("events")), "event")
    return f"Plan {str(body.get('hash', '?'))[:12]} made: {count(rows, 'row')} to change, {events} to replay"


def _decided(word: str) -> Callable[[Entry], str]:
    def sentence(entry: Entry) -> str:
        body = entry.body
        unproven = " (identity unproven)" if body.get("identity_proven") is False else ""
        return f"Plan {str(body.get('plan_hash', '?'))[:12]} {word} by {_by(body)}{unproven}{_because(body)}"

    return sentence


def _outcome(entry: Entry) -> str:
    body = entry.body
    status = body.get("status", "ended")
    took = f" after {seconds(body['seconds'])}" if body.get("seconds") is not None else ""
    detail = body.get("detail")
    error = body.get("error") or (detail.get("error") if isinstance(detail, dict) else None)
    return f"Step {entry.step} {status}{took}" + (f": {error}" if error else "")


def _verified(entry: Entry) -> str:
    suites = entry.body.get("suites")
    ran, failed = (suites.get("ran"), suites.get("failed")) if isinstance(suites, dict) else (None, None)
    clauses = _dicts(entry.body.get("agreement"))
    broken = [str(c.get("name")) for c in clauses if not c.get("holds")]
    what = f"{ran if ran is not None else '?'} checks, {_size(failed)} failed"
    agreement = f"; broken: {', '.join(broken)}" if broken else f"; {count(len(clauses), 'clause')} of agreement hold"
    word = "passed" if entry.kind == kinds.VERIFY_PASSED else "failed"
    return f"Verification {word}: {what}" + (agreement if clauses else "")


def _resumed(entry: Entry) -> str:
    word = "resumed" if entry.body.get("ok") else "could not be resumed"
    return f"Stage {entry.body.get('stage', '?')}: {_names(entry.body.get('workflows'))} {word}"


def _point(entry: Entry) -> str:
    name = entry.body.get("point") or entry.body.get("point_id") or "?"
    return f"Recovery point {name} taken, {'verified' if entry.body.get('verified') else 'not verified'}"


def _proven_point(entry: Entry) -> str:
    name, body = entry.body.get("point", "?"), entry.body
    if body.get("passed"):
        return f"Recovery point {name} proven: restored into an empty database, {body.get('ran', 0)} checks held"
    return f"Recovery point {name} could not be proven: {_names(body.get('problems') or body.get('failed'))}"


def _maintained(entry: Entry) -> str:
    if problems := entry.body.get("problems"):
        return f"Looked after journal and points: not in order: {_names(problems)}"
    waits = entry.body.get("waits")
    return f"Looked after journal and points: in order{f'; {_names(waits)}' if waits else ''}"


def _until(body: Mapping[str, Any]) -> str:
    from ledger.metrics import instant  # which reads stories itself

    at = instant(body.get("expires_at"))
    return f" until {at:%Y-%m-%d %H:%M:%S} UTC" if at else ""


def _shown(entry: Entry) -> str:
    return f"Plan {str(entry.body.get('plan_hash', '?'))[:12]} waits for approval{_until(entry.body)}"


def _expired(entry: Entry) -> str:
    return f"Nobody decided about plan {str(entry.body.get('plan_hash', '?'))[:12]} in time; it may not be approved now"


def _requested(entry: Entry) -> str:
    number, trigger = entry.body.get("number", "?"), entry.body.get("trigger", "somebody")
    who = WHO.get(trigger, "somebody") if isinstance(trigger, str) else "somebody"
    idle = ", with nothing to do: the incident was in other hands" if entry.body.get("handled_by") else ""
    return f"Recovery run #{number} asked for by {who}{idle}"


def _continued(entry: Entry) -> str:
    attempt = entry.body.get("attempt")
    number = f" (attempt {attempt})" if attempt is not None else ""
    return f"Recovery {entry.recovery} is continued{number}{_because(entry.body, 'why')}"


def _notice(entry: Entry) -> str:
    body = entry.body
    what = f"'{body['subject']}' " if body.get("subject") else ""
    return f"Notice {what}sent to {body.get('audience', 'somebody')} by {body.get('channel', 'a channel')}"


def _notice_failed(entry: Entry) -> str:
    body = entry.body
    to, by = body.get("audience", "somebody"), body.get("channel", "a channel")
    return f"Notice to {to} by {by} could not be sent{_because(body, 'why')}"


def _scored(entry: Entry) -> str:
    word = "passed" if entry.body.get("passed") is True else "did not pass"
    reasons = entry.body.get("reasons")
    return f"Drill of {entry.body.get('scenario', 'a scenario')} {word}" + (f": {_names(reasons)}" if reasons else "")


def _taken_over(entry: Entry) -> str:
    body = entry.body
    return f"{body.get('holder', '?')} took over from {body.get('previous', '?')}{_because(body)}"


def _dicts(value: object) -> list[dict[str, Any]]:
    return [v for v in value if isinstance(v, dict)] if isinstance(value, list) else []


def _compensated(entry: Entry) -> str:
    body = entry.body
    what = f"{body.get('step_name', 'a step')} of run {body.get('run', '?')} of {body.get('workflow', 'a workflow')}"
    hand = f"; a person must: {body['manual']}" if body.get("manual") else ""
    match body.get("status"):
        case "done":
            by = f" by hand, by {body['by']}" if body.get("by") else ""
            return f"Taken back{by}: {what}{_because(body)}"
        case "not-needed":
            return f"There was nothing to take back of {what}{_because(body, 'error')}"
        case "unknown":
            return f"May or may not be taken back: {what}{_because(body, 'error')}{hand}"
    return f"Not taken back: {what}{_because(body, 'error')}{hand}"


def _held(entry: Entry) -> str:
    if entry.body.get("error"):
        return f"Events could not be held{_because(entry.body, 'error')}"
    return f"From now on events for {_names(entry.body.get('workflows'))} are kept, recorded or turned away"


def _released(entry: Entry) -> str:
    body = entry.body
    text = f"{count(_size(body.get('sent')), 'held event')} sent after {seconds(body.get('seconds'))}"
    if _size(body.get("failed")):
        text += f"; {count(_size(body.get('failed')), 'event')} failed"
    return text + (f"; {count(_size(body.get('unknown')), 'event')} unknown" if _size(body.get("unknown")) else "")


def _event(entry: Entry) -> str:
    return f"event {entry.body.get('event', '?')} of {entry.body.get('workflow', 'a workflow')}"


WHO = {
    "operator": "an operator",
    "command": "a command",
    "event": "an automatic trigger",
    "steward": "the steward",
}


def _workflow(entry: Entry) -> str:
    return str(entry.body.get("workflow") or "A workflow")


def _published(entry: Entry) -> str:
    how = "is live" if entry.body.get("outcome") == "live" else "is saved"
    version = str(entry.body.get("version", "?"))[:12]
    return f"Version {version} of {_workflow(entry)} {how}, published by {_by(entry.body)}{_because(entry.body)}"


def _recreated(entry: Entry) -> str:
    follow = _names(entry.body.get("references"))
    calls = f"; calls follow in {follow}" if entry.body.get("references") else ""
    return f"{_workflow(entry)} was gone and is made again{calls}"


SENTENCES: dict[str, Callable[[Entry], str]] = {
    kinds.INCIDENT_DETECTED: _detected,
    kinds.INCIDENT_OPENED: _opened,
    kinds.INCIDENT_JOINED: lambda e: f"A further finding joined the incident: {e.body.get('title', 'no title')}",
    kinds.INCIDENT_CONTAINED: _proven,
    kinds.INCIDENT_DIAGNOSED: _diagnosed,
    kinds.INCIDENT_UNDIAGNOSED: lambda e: f"No sure cause found; a person must decide{_because(e.body, 'why')}",
    kinds.INCIDENT_ANNOUNCED: lambda _: "The incident was announced, so that what answers such events can start",
    kinds.INCIDENT_CLOSED: lambda e: f"Incident closed ({e.body.get('resolution', 'resolved')}){_because(e.body)}",
    kinds.CONTAIN_STARTED: lambda e: f"Pausing {_names(e.body.get('workflows'))}",
    kinds.CONTAIN_LIVE_BEFORE: lambda e: f"Noted which version of {_names(e.body.get('versions'))} was live",
    kinds.CONTAIN_PROVEN: _proven,
    kinds.CONTAIN_FAILED: lambda e: f"The pause could not be proven{_because(e.body)}",
    kinds.POINT_TAKEN: _point,
    kinds.POINT_PROVEN: _proven_point,
    kinds.MAINTAINED: _maintained,
    kinds.PLAN_MADE: _planned,
    kinds.PLAN_APPROVED: _decided("approved"),
    kinds.PLAN_REJECTED: _decided("rejected"),
    kinds.PLAN_SHOWN: _shown,
    kinds.PLAN_EXPIRED: _expired,
    kinds.PLAN_REFUSED: lambda e: f"No plan could be made{_because(e.body)}",
    kinds.RECOVERY_REQUESTED: _requested,
    kinds.RECOVERY_CONTINUED: _continued,
    kinds.RECOVERY_STARTED: lambda e: f"Recovery {e.recovery} started ({e.body.get('mode', 'mode not recorded')})",
    kinds.RECOVERY_STOPPED: lambda e: f"Recovery stopped, {e.body.get('state', 'still contained')}{_because(e.body)}",
    kinds.RECOVERY_ABANDONED: lambda e: f"Recovery {e.recovery} abandoned by {_by(e.body)}{_because(e.body)}",
    kinds.RECOVERY_FINISHED: lambda e: f"Recovery finished: {e.body.get('state', 'done')}",
    kinds.STEP_INTENT: lambda e: f"Step {e.step} begins: {e.body.get('title') or e.body.get('kind') or 'no title'}",
    kinds.STEP_OUTCOME: _outcome,
    kinds.VERIFY_PASSED: _verified,
    kinds.VERIFY_FAILED: _verified,
    kinds.CANARY_STARTED: lambda e: f"A test event is sent through {e.body.get('workflow', 'a workflow')}",
    kinds.FENCE_LOWERED: lambda e: f"{_names(e.body.get('workflows'))} may write, for the recovery alone",
    kinds.FENCE_RAISED: lambda e: f"{_names(e.body.get('workflows'))} may not write any more",
    kinds.RESUME_BEGUN: lambda e: f"{_names(e.body.get('workflows'))} may write again; the resume begins",
    kinds.RESUME_STAGE: _resumed,
    kinds.RELAPSE: lambda e: f"Relapse, contained again: {_names(e.body.get('findings'))}",
    kinds.OVERRIDE: lambda e: f"{_by(e.body)} overrode {e.body.get('what', 'a rule')}{_because(e.body)}",
    kinds.LEASE_TAKEN_OVER: _taken_over,
    kinds.HEAD_RESET: lambda e: f"{_by(e.body)} accepted the ledger as it stands{_because(e.body)}",
    kinds.NOTICE_BEGUN: lambda e: f"Notice to {e.body.get('audience', 'somebody')} is being sent",
    kinds.NOTICE_SENT: _notice,
    kinds.NOTICE_FAILED: _notice_failed,
    kinds.DRILL_SCORED: _scored,
    kinds.WORKFLOW_SEEN: lambda e: f"{_workflow(e)} was seen with version {str(e.body.get('version', '?'))[:12]}",
    kinds.WORKFLOW_GONE: lambda e: f"{_workflow(e)} was found deleted",
    kinds.WORKFLOW_PUBLISHED: _published,
    kinds.WORKFLOW_RECREATED: _recreated,
    kinds.EVENTS_HELD: _held,
    kinds.EVENTS_RELEASED: _released,
    kinds.EVENT_BEGUN: lambda e: f"About to send {_event(e)}",
    kinds.EVENT_ENDED: lambda e: f"Sent {_event(e)}: {e.body.get('outcome', 'done')}{_because(e.body, 'why')}",
    kinds.EVENT_UNKNOWN: lambda e: f"Nobody knows whether {_event(e)} ran{_because(e.body, 'why')}",
    kinds.EVENT_SETTLED: lambda e: (
        f"{_by(e.body)} found that {_event(e)} {'ran' if e.body.get('done') else 'did not run'}{_because(e.body)}"
    ),
    kinds.EVENT_DISCARDED: lambda e: f"{_by(e.body)} decided that {_event(e)} is never sent{_because(e.body)}",
    kinds.COMPENSATION_BEGUN: lambda e: (
        f"Taking back {e.body.get('step_name', 'a step')} of run {e.body.get('run', '?')} "
        f"of {e.body.get('workflow', 'a workflow')} (attempt {e.body.get('attempt', '?')})"
    ),
    kinds.COMPENSATION_ENDED: _compensated,
    kinds.DATA_PLANNED: lambda e: f"{_by(e.body)} asked for: {_names(e.body.get('summary'))}",
    kinds.DATA_APPLIED: lambda e: f"{_by(e.body)} did: {_names(e.body.get('summary'))}{_because(e.body)}",
}

_GOOD = frozenset({*kinds.CONTAINED, kinds.VERIFY_PASSED, kinds.RECOVERY_FINISHED, kinds.INCIDENT_CLOSED})
_BAD = frozenset(
    {
        kinds.INCIDENT_DETECTED,
        kinds.INCIDENT_OPENED,
        kinds.CONTAIN_FAILED,
        kinds.VERIFY_FAILED,
        kinds.RECOVERY_STOPPED,
        kinds.RELAPSE,
        kinds.PLAN_EXPIRED,
        kinds.PLAN_REFUSED,
        kinds.NOTICE_FAILED,
        kinds.EVENT_UNKNOWN,
    }
)


def _tone(entry: Entry) -> str:
    if entry.kind in _BAD or entry.body.get("status") in ("failed", "unknown") or entry.body.get("ok") is False:
        return "bad"
    if entry.kind in _GOOD or entry.body.get("status") == "done" or entry.body.get("ok") is True:
        return "good"
    return "plain"
