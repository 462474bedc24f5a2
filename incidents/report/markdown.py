"""The report as Markdown, for artifacts and tickets: where the incident stands, what proved it, how it went.

Every value is escaped (:mod:`incidents.report.escape`), and none of a row gets here (:mod:`incidents.report.collect`).
"""

from __future__ import annotations

from collections.abc import Iterable

from incidents.report.escape import code, page, table, text
from incidents.report.model import Decision, Recovery, ReportData, TableChange, Verification
from incidents.report.words import (
    CONFLICTS,
    RUN_REASONS,
    duration,
    goals,
    headline,
    moment,
    noticed,
    remains,
    summary,
    title,
)
from ledger.timeline import count

TIMELINE_LINES = 60
"""An artifact is read on a screen; the HTML report has every line."""


def incident(data: ReportData) -> str:
    """Where the incident stands: what happened, why, what is left to do."""
    return page([*_head(data), "## What happened", "", *_sentences(summary(data)), *_left(data), *_cause(data)])


def verification(data: ReportData) -> str:
    """The newest verification: what ran, what failed, whether logic and data agree; and what is back at work."""
    found = data.incident
    lines = [f"# Verification of {text(found.app)}, {text(found.id)}", ""]
    lines += _verified(data.verifications[-1]) if data.verifications else ["No verification is on record yet.", ""]
    if data.stages:
        lines += ["## Return to work", ""]
        lines += [
            f"- Stage {text(s.stage)}: {text(', '.join(s.workflows) or 'nothing')} "
            f"{'resumed' if s.ok else '**could not be resumed**'} at {moment(s.at)} UTC"
            for s in data.stages
        ]
    return page(lines)


def report(data: ReportData) -> str:
    """The whole incident, shorter than the HTML page."""
    lines = [*_head(data), "## What happened", "", *_sentences(summary(data)), *_left(data)]
    lines += ["## Goals", "", *table(["Goal", "#Measured", "#Agreed", ""], _goal_rows(data)), ""]
    lines += _cause(data)
    for recovery in data.recoveries:
        lines += _recovery(recovery)
    for override in data.overrides:
        lines += [f"**Override of {text(override.what)}** {_by(override)}", ""]
    lines += ["## Verification", ""]
    for check in data.verifications or ():
        lines += _verified(check)
    if not data.verifications:
        lines += ["No verification is on record.", ""]
    if data.notices:
        lines += ["## Notices", ""]
        lines += table(
            ["Time (UTC)", "State", "To", "Subject", ""],
            (
                (
                    moment(n.at),
                    text(n.state),
                    text(f"{n.audience} by {n.channel}"),
                    text(n.subject),
                    "sent" if n.sent else f"not sent: {text(n.why)}",
                )
                for n in data.notices
            ),
        )
        lines.append("")
    lines += ["## Timeline", ""]
    if len(data.timeline) > TIMELINE_LINES:
        lines += [f"The last {TIMELINE_LINES} of {len(data.timeline)} lines; the HTML report has all of them.", ""]
    lines += table(["Time (UTC)", "What"], ((moment(t.at), text(t.text)) for t in data.timeline[-TIMELINE_LINES:]))
    lines += ["", *_record(data)]
    return page(lines)


def _head(data: ReportData) -> list[str]:
    found = data.incident
    _, said = headline(data)
    return [
        f"# {text(title(data))}",
        "",
        f"**{text(said)}.**",
        "",
        f"{text(found.app)} · {found.severity} · {text(found.id)} · {text(noticed(data))}",
        "",
    ]


def _sentences(sentences: Iterable[str]) -> list[str]:
    lines = [line for s in sentences for line in (text(s), "")]
    return lines or ["Nothing beyond the opening of the incident is on record.", ""]


def _left(data: ReportData) -> list[str]:
    lines = [f"- {text(s)}" for s in remains(data)] or ["Nothing is left to do on record."]
    return ["## What remains", "", *lines, ""]


def _cause(data: ReportData) -> list[str]:
    lines = ["## Cause", ""]
    cause = data.cause
    if cause is None:
        lines += [text(data.undiagnosed) if data.undiagnosed else "No diagnosis is on record.", ""]
    else:
        share = f"; it explains {cause.confidence:.0%} of the damage found" if cause.confidence is not None else ""
        lines += [
            f"Workflow **{text(cause.workflow)}** ran version {_version(cause.bad_version)}{share}. "
            f"The last version known to be good is {_version(cause.good_version)}.",
            "",
            *(f"- {text(e)}" for e in cause.evidence),
            *(f"- {count(n, 'run')} of {text(w)}: {text(RUN_REASONS.get(why, why))}" for w, why, n in cause.runs),
            "",
        ]
    for message, where, rows in data.findings:
        lines.append(f"- Noticed: {text(message or 'a finding')}" + (f" ({code(where)}, {rows:,})" if where else ""))
    return [*lines, ""]


def _recovery(found: Recovery) -> list[str]:
    lines = [f"## Recovery {text(found.id)}{': ' + text(found.state) if found.state else ''}", ""]
    for p in found.publications:
        word = "went back" if p.done else "was to go back"
        lines.append(f"- {text(p.workflow)} {word} from version {_version(p.before)} to {_version(p.after)}")
    if found.replayed is None:
        planned = f" ({count(found.events, 'event')} planned)" if found.events else ""
        lines.append(f"- No event was replayed{planned}")
    else:
        lines.append(f"- {found.replayed:,} of {count(found.events, 'legitimate event')} taken again, once each")
    if found.carried:
        lines.append(f"- {count(found.carried, 'edit')} of people carried over to rows that were taken again")
    lines += [f"- {text(CONFLICTS.get(kind, kind))}: {count(n, 'row')}" for kind, n in found.conflicts]
    lines += [f"- {text(note)}" for note in found.notes]
    if found.reason:
        lines.append(f"- Ended early: {text(found.reason)}")
    lines.append("")
    if changes := found.planned if found.changed is None else found.changed:
        lines += ["Planned, not done:" if found.changed is None else "Done, in rows:", "", *_changes(changes), ""]
    lines += [f"- Plan {_version(found.plan_hash)} {text(d.what)} {_by(d)}" for d in found.decisions]
    return [*lines, ""]


def _changes(changes: Iterable[TableChange]) -> list[str]:
    rows = (
        (code(c.table), f"{c.delete:,}", f"{c.update:,}", f"{c.insert:,}", f"{c.merged:,}")
        for c in changes
        if c.delete or c.update or c.insert or c.merged
    )
    return table(["Table", "#Removed", "#Corrected", "#Brought back", "#Later work kept on"], rows)


def _verified(check: Verification) -> list[str]:
    ran = count(check.ran, "check") if check.ran is not None else "An unknown number of checks"
    word = "passed" if check.passed else "failed"
    lines = [f"**{moment(check.at)} UTC: {word}.** {ran} ran, {len(check.failed)} failed.", ""]
    for suite, where, expectation, unexpected in check.failed:
        against = f" ({count(unexpected, 'row')} against it)" if unexpected is not None else ""
        lines.append(f"- {text(suite or 'a suite')} {code(where) if where else ''} {text(expectation)}{against}")
    if check.agreement:
        rows = ((text(name), "yes" if holds else "**no**", text(detail)) for name, holds, detail in check.agreement)
        lines += ["", *table(["Logic and data agree that", "Holds", "Detail"], rows)]
    return [*lines, ""]


def _goal_rows(data: ReportData) -> Iterable[tuple[str, ...]]:
    words = {"good": "met", "bad": "**missed**"}
    return ((text(name), value, goal, words.get(tone, "")) for name, value, goal, tone in goals(data))


def _record(data: ReportData) -> list[str]:
    lines = ["## Record", ""]
    lines += [f"- Problem of the record: {text(p)}" for p in data.problems] or ["- The record is whole and unaltered."]
    lines.append(f"- Ledger: entry {data.head[0]}, {code(data.head[1])}")
    lines.append(
        f"- In all {duration(data.metrics.total_s)}; versions: "
        + ", ".join(text(f"{name} {version}") for name, version in data.versions.items())
    )
    return lines


def _by(decision: Decision) -> str:
    unproven = "" if decision.proven or decision.what == "expired" else " (identity unproven)"
    why = f": {text(decision.reason)}" if decision.reason else ""
    return f"by **{text(decision.by)}**{unproven}, {moment(decision.at)} UTC{why}"


def _version(value: str) -> str:
    return code(value[:12]) if value else "not on record"
