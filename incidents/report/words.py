"""What the report says in words, for HTML and Markdown alike: plain sentences for people who were not there. Pure."""

from __future__ import annotations

from datetime import datetime

from incidents.record import Status
from incidents.report.model import Recovery, ReportData
from ledger.timeline import count, seconds

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
    return out


def goals(data: ReportData) -> list[tuple[str, str, str, str]]:
    """Measure, value, goal, tone."""
    total, loss = data.metrics.total_s, data.metrics.data_loss_s
    rows: list[tuple[str, str, str, str]] = []
    for name, value, goal in (("Recovery time", total, data.rto_s), ("Data lost", loss, data.rpo_s)):
        tone = "plain" if value is None or goal is None else "good" if value <= goal else "bad"
        rows.append((name, duration(value), "no goal on record" if goal is None else seconds(goal), tone))
    return rows


def duration(value: float | None) -> str:
    return "not measured" if value is None else seconds(value)


def moment(at: datetime | None) -> str:
    return "not on record" if at is None else f"{at:%Y-%m-%d %H:%M:%S}"


def short(text: str) -> str:
    return text[:12] or "not on record"


def _open_ends(last: Recovery) -> tuple[tuple[int, str, str], ...]:
    return (
        (last.left, "row", "{} left as they are because of a conflict: somebody has to decide."),
        (last.left_out, "event", "{} failed in the good version too: somebody has to look at them."),
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
    if recovery.replayed is not None:
        text += f", {count(recovery.replayed, 'event')} taken again through the good version"
    return f"{text}."
