"""What the report says in words, for HTML and Markdown alike: plain sentences for people who were not there. Pure."""

from __future__ import annotations

import re
from datetime import datetime

from incidents.record import Status
from incidents.report.model import Recovery, ReportData
from incidents.severity import Severity
from ledger import kinds
from ledger.timeline import TimelineLine, count, seconds

CONFLICTS: dict[str, str] = {
    "later-same-column": "A later legitimate edit of the same field was kept",
    "row-gone": "The row had been deleted legitimately since",
    "created-then-edited": "A row made by a bad run was edited by somebody since",
    "key-taken": "The key of a row to bring back is in use again",
    "referenced": "Other rows refer to a row that was to go",
    "parent-gone": "What a row to bring back refers to is gone",
}

RUN_REASONS: dict[str, str] = {
    "bad-version": "ran the bad version",
    "version-unknown": "may have run the bad version",
    "interrupted": "were interrupted by the pause",
    "entangled": "built on rows that had to go",
}

HEADLINES: dict[Status, tuple[str, str]] = {
    Status.OPEN: ("bad", "The damage is not proven contained yet"),
    Status.CONTAINED: ("warn", "The damage is contained; nothing has been recovered yet"),
    Status.RECOVERING: ("warn", "The recovery has begun and has not ended"),
    Status.STOPPED: ("bad", "The recovery stopped before its goal; the app is still paused"),
    Status.RESTORED: ("warn", "One half is restored; the app is still paused"),
    Status.RECOVERED: ("good", "Recovered and back at work"),
    Status.RESOLVED: ("good", "Recovered, back at work, closed"),
    Status.FALSE_ALARM: ("good", "A false alarm, closed"),
}

LEFT: dict[Status, str] = {
    Status.OPEN: "The pause is not proven: wrong data may still be written. Somebody has to look now.",
    Status.RECOVERING: "The recovery is still running.",
    Status.STOPPED: "The recovery has to be continued or planned again; until then the app stays paused.",
    Status.RESTORED: "One half is back. The app stays paused until the other half is, or somebody resumes it.",
    Status.RECOVERED: "The incident has not been closed yet.",
}

SEVERITIES: dict[Severity, str] = {
    Severity.SEV1: "sev1, the most severe",
    Severity.SEV2: "sev2, severe",
    Severity.SEV3: "sev3, minor",
}

RULE = re.compile(r" the rule '.*'")
"""How detectors quote a condition. Readers find it among the findings."""

DETAIL = frozenset(
    {
        kinds.STEP_INTENT,
        kinds.CONTAIN_LIVE_BEFORE,
        kinds.CANARY_STARTED,
        kinds.FENCE_LOWERED,
        kinds.FENCE_RAISED,
        kinds.NOTICE_SENT,
        kinds.LEASE_TAKEN_OVER,
        kinds.INCIDENT_ANNOUNCED,
    }
)
"""Kinds that only the technical appendix shows."""


def title(data: ReportData) -> str:
    """What it meant to the business, its first sentence; else how it was noticed."""
    return data.incident.impact.partition(". ")[0].rstrip(".") or noticed(data)


def noticed(data: ReportData) -> str:
    """The recorded title without the impact that detectors repeat in it, and without a rule's SQL."""
    found = data.incident
    kept = re.sub(r" \(([^()]*)\)", lambda m: "" if m[1] in found.impact else m[0], found.title)
    return RULE.sub(" a rule of the catalogue", kept) or found.id


def headline(data: ReportData) -> tuple[str, str]:
    """Tone (``good``, ``warn``, ``bad``) and one line on where the incident stands."""
    tone, text = HEADLINES[data.incident.status]
    if data.incident.status is Status.RESOLVED and data.incident.recovered_at is None:
        # Closed without a recovery to the end on record: the page must not claim one.
        if any(r.state.endswith("restored") for r in data.recoveries):
            return "warn", "One half was restored; closed by a decision on record"
        return "warn", "Closed without a recovery on record"
    if tone == "good" and data.problems:
        return "warn", f"{text}; but the record itself is damaged"
    return tone, text


def summary(data: ReportData) -> list[str]:
    """What happened, in a few plain sentences."""
    incident, cause = data.incident, data.cause
    out = []
    if cause is not None:
        since = f" since {moment(cause.first_bad_at)} UTC" if cause.first_bad_at else ""
        out.append(f"A changed version of “{cause.workflow}” wrote wrong data{since}.")
    elif data.undiagnosed:
        out.append("The cause could not be determined with enough certainty; a person has to decide.")
    if incident.impact:
        out.append(incident.impact if incident.impact.endswith(".") else f"{incident.impact}.")
    if incident.contained_at:
        took = data.metrics.contain_s
        within = f" {seconds(took)} after it was noticed" if took is not None else ""
        out.append(f"{', '.join(incident.workflows) or 'The app'} stopped writing{within}.")
    out.extend(_told(r) for r in data.recoveries if r.started_at or r.changed is not None)
    return out


def remains(data: ReportData) -> list[str]:
    """What is left for people to do, most urgent first; empty when nothing is."""
    incident, last = data.incident, data.recoveries[-1] if data.recoveries else None
    out = []
    if incident.status is Status.CONTAINED:
        out.append(_undecided(last))
    elif incident.status in LEFT:
        out.append(LEFT[incident.status])
    if data.undiagnosed and not incident.status.closed:
        out.append("The cause is not known: somebody has to name the workflow, or choose a recovery point.")
    if data.cause and data.cause.unattributed:
        writes = count(data.cause.unattributed, "write")
        out.append(f"{writes} could not be attributed with certainty and stand as they are: somebody has to look.")
    if last is not None and (last.changed is not None or last.started_at is not None):
        out += [sentence.format(count(n, what)) for n, what, sentence in _open_ends(last) if n]
        out += [f"Outside the rows, by hand: {sentence}." for sentence in last.by_hand]
    return out


def done(data: ReportData) -> list[tuple[str, list[str]]]:
    """What was rolled back, kept and taken again, over all recoveries: heading and sentences."""
    back = [f"{p.workflow}: its last good version" for r in data.recoveries for p in r.publications if p.done]
    changes = [c for r in data.recoveries for c in r.changed or ()]
    touched = {c.table for c in changes if c.delete or c.update or c.insert}
    if touched:
        removed, corrected, returned = (sum(getattr(c, n) for c in changes) for n in ("delete", "update", "insert"))
        rows = count(removed + corrected + returned, "row")
        back.append(
            f"{rows} in {count(len(touched), 'table')}: {removed:,} removed, {corrected:,} corrected, "
            f"{returned:,} brought back"
        )
    if outside := sum(r.taken_back or 0 for r in data.recoveries):
        back.append(f"{count(outside, 'step')} outside the rows (such as payments), once each")
    kept = []
    if merged := sum(c.merged for c in changes):
        kept.append(f"Later legitimate work on {count(merged, 'row')} that had been damaged")
    if carried := sum(r.carried for r in data.recoveries if r.changed is not None):
        kept.append(f"{count(carried, 'edit')} of people, put back onto rows that were taken again")
    if changes:
        kept.append("Everything that others wrote meanwhile")
    again = [
        f"{r.replayed:,} of {count(r.events, 'event')} from outside (such as orders), once each"
        for r in data.recoveries
        if r.replayed is not None
    ]
    return [
        ("Rolled back", back or ["Nothing on record"]),
        ("Kept", kept or ["Nothing had to be kept on record"]),
        ("Taken again", again or ["Nothing on record"]),
    ]


def phases(data: ReportData) -> list[tuple[str, float, float]]:
    """Where the time went: name of the end, seconds, share of all. Empty while fewer than two ends are on record."""
    found = data.metrics
    started = min((r.started_at for r in data.recoveries if r.started_at), default=None)
    ends = [
        ("Noticed", found.detected_at),
        ("Stopped", found.contained_at),
        ("Recovery began", started),
        ("Back at work", found.recovered_at),
    ]
    before, took = found.first_bad_at or found.detected_at, []
    for name, at in ends:
        if at is not None and before is not None:
            took.append((name, max(0.0, (at - before).total_seconds())))
            before = max(at, before)
    whole = sum(s for _, s in took)
    return [(name, s, s / whole) for name, s in took] if whole and len(took) > 1 else []


def milestones(data: ReportData) -> list[TimelineLine]:
    """The timeline without single steps that went well."""
    return [t for t in data.timeline if t.kind not in DETAIL and (t.kind != kinds.STEP_OUTCOME or t.tone == "bad")]


def goals(data: ReportData) -> list[tuple[str, str, str, str]]:
    """Measure, value, goal, tone."""
    total, loss = data.metrics.total_s, data.metrics.data_loss_s
    measured = [("Recovery time", total, duration(total), data.rto_s)]
    if loss is None and _nothing_lost(data):
        measured.append(("Data lost", 0.0, "none on record", data.rpo_s))
    else:
        measured.append(("Data lost", loss, duration(loss), data.rpo_s))
    rows = []
    for name, value, said, goal in measured:
        tone = "plain" if value is None or goal is None else "good" if value <= goal else "bad"
        rows.append((name, said, "no goal on record" if goal is None else seconds(goal), tone))
    return rows


def duration(value: float | None) -> str:
    return "not measured" if value is None else seconds(value)


def moment(at: datetime | None) -> str:
    return "not on record" if at is None else f"{at:%Y-%m-%d %H:%M:%S}"


def short(text: str) -> str:
    return text[:12] or "not on record"


def _nothing_lost(data: ReportData) -> bool:
    """Whether the record shows that every event of what was undone was taken again, and leaves nothing open."""
    done_so_far = [r for r in data.recoveries if r.changed is not None]
    return data.incident.recovered_at is not None and all(
        (r.replayed or 0) == r.events and not (r.left or r.left_out or r.unknown or r.by_hand or r.notes)
        for r in done_so_far
    )


def _open_ends(last: Recovery) -> tuple[tuple[int, str, str], ...]:
    return (
        (last.left, "row", "{} left as they are because of a conflict: somebody has to decide."),
        (last.left_out, "event", "{} failed in the good version too: somebody has to look at them."),
        (last.unknown, "event", "{} may have run or not: somebody has to look (`reinstate events list`)."),
        (last.suspects, "later write", "{} may have used a damaged value: somebody has to look."),
    )


def _undecided(last: Recovery | None) -> str:
    if last is None:
        return "A recovery has to be planned and approved; until then the app stays paused."
    if last.waits_until is not None:
        return f"A plan waits for approval until {moment(last.waits_until)} UTC; until then the app stays paused."
    if last.decisions and last.decisions[-1].what == "rejected":
        return f"The plan was rejected by {last.decisions[-1].by}. The app stays paused until a new plan is approved."
    if last.decisions and last.decisions[-1].what == "expired":
        return "Nobody decided on the plan in time. The app stays paused until a new plan is approved."
    if last.decisions and last.decisions[-1].what == "approved":
        return "The plan is approved and has not been started yet."
    return "A plan was made and nobody has approved it yet; until then the app stays paused."


def _told(recovery: Recovery) -> str:
    if recovery.changed is None:
        ended = f" It ended: {recovery.reason}." if recovery.reason else ""
        return f"Recovery {recovery.id} changed no data.{ended}"
    rows = sum(c.delete + c.update + c.insert for c in recovery.changed)
    kept = sum(c.merged for c in recovery.changed)
    text = f"{count(rows, 'row')} put right"
    if kept:
        text += f", later legitimate work kept on {count(kept, 'row')}"
    if recovery.taken_back:
        text += f", {count(recovery.taken_back, 'step')} outside the rows taken back"
    if recovery.replayed is not None:
        text += f", {count(recovery.replayed, 'event')} taken again through the good version"
    return f"{text}."
