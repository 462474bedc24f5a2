"""The plan as the page an operator reads before deciding, at 3 a.m.: what will happen, to what, within which limits,
what it will not do, and how to say yes or no. Markdown, escaped; no value of a row is on it. Pure.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from catalog.models import App
from incidents.report.escape import code, page, table, text
from incidents.report.words import CONFLICTS
from ledger.timeline import count, seconds
from platforms.limits import MISSING, PRESENT
from recovery import plan_outside
from recovery.plan import PERSON, Mode, Plan, Step

HALVES = {
    Mode.BOTH: "workflows and data",
    Mode.LOGIC: "workflows only",
    Mode.DATA: "data only",
}
SOURCES = {"point": "recovery point", "platform-history": "the platform's history"}
REASONS = {
    "bad-version": "ran the bad version",
    "version-unknown": "may have run the bad version",
    "interrupted": "were interrupted by the pause",
    "entangled": "built on rows that have to go",
}
POLICIES = {
    "refuse": "None of them needs a decision; a conflict that does would have stopped this plan",
    "non-conflicting-only": "Rows in conflict are left as they are, and listed",
    "keep-later": "Where undo and later work disagree, the later work wins, column by column",
}
OUTCOMES = {
    Mode.BOTH: "At the end the app works again.",
    Mode.LOGIC: "At the end the definitions are back and the app is **still paused**; the data stays as it is.",
    Mode.DATA: "At the end the rows are back and the app is **still paused**; the definitions stay as they are.",
}


PLATFORM = frozenset({*MISSING.values(), *PRESENT.values()})


def markdown(plan: Plan, app: App) -> str:
    """The page for one plan. ``app`` gives the limits it has to keep."""
    lines = [
        f"# Plan to bring back {text(app.title)}: {HALVES[plan.mode]}",
        "",
        f"**Nothing has been changed yet.** Incident {text(plan.incident_id)}. Paused and cut off from the database: "
        f"{text(', '.join(plan.contained) or 'nothing')}. {OUTCOMES[plan.mode]}",
        "",
        *table(["#Rows to change", "#Events sent again", "#Conflicts", "#Suspects", "Plan"], [_glance(plan)]),
        "",
        "## What will happen",
        "",
        *(f"{n}. {sentence}" for n, sentence in enumerate(_sentences(plan, app), start=1)),
        "",
        *_looks(plan),
        *_versions(plan),
        *_rows(plan),
        *plan_outside.section(plan),
        *_events(plan),
        *_conflicts(plan),
        "## What it will not do",
        "",
        *(f"- {sentence}" for sentence in _limits(plan, app)),
        "",
        *_platform(plan),
        *_caps(plan, app),
        *_decide(plan, app),
    ]
    return page(lines)


def brief(plan: Plan, app: App, *, whole: str = "") -> str:
    """The plan in a few lines, for the form that asks for a decision: the fields below must not be out of sight.
    ``whole`` is the address of the whole page."""
    others = [w.key for w in app.workflows if w.key not in plan.contained]
    lines = [
        f"**Decide below about the plan to bring back {text(app.title)}: {HALVES[plan.mode]}.** Nothing has been "
        f"changed yet. {OUTCOMES[plan.mode]}",
        "",
        *table(["#Rows to change", "#Events sent again", "#Conflicts", "#Suspects", "Plan"], [_glance(plan)]),
        "",
    ]
    lines += [f"- Publish version {code(p.to_version[:12])} of {text(p.workflow)}" for p in plan.publications]
    lines += [
        f"- {code(e.table)}: {e.delete:,} removed, {e.update:,} corrected, {e.insert:,} brought back"
        for e in plan.effects
        if e.delete or e.update or e.insert
    ]
    lines += plan_outside.brief(plan)
    if others:
        lines.append(f"- Untouched: {text(', '.join(others))}")
    if whole:
        lines += ["", f"[The whole plan]({whole}), with conflicts, limits and what it will not do."]
    return page(lines)


def _glance(plan: Plan) -> list[str]:
    conflicts = sum(plan.conflicts.values())
    return [f"{plan.rows:,}", f"{len(plan.events):,}", f"{conflicts:,}", f"{plan.suspects:,}", code(plan.hash[:12])]


def _sentences(plan: Plan, app: App) -> Iterator[str]:
    for step in plan.steps:
        match step.kind:
            case "contain":
                yield f"Prove again that {text(', '.join(plan.contained))} do not run and cannot write."
            case "publish":
                yield _published(plan, step)
            case "undo":
                why = ", ".join(
                    f"{n:,} {REASONS[w]}" for w, n in sorted(Counter(s.why for s in plan.selection).items())
                )
                runs = f"what {count(len(plan.selection), 'run')} wrote ({why})" if plan.selection else "nothing"
                yield f"Take back {runs}: {count(plan.rows, 'row')}. Later work of others stays, column by column."
            case "compensate":
                yield plan_outside.sentence(plan)
            case "replay":
                yield f"Send {count(len(plan.events), 'event')} from outside through the good version again, once each."
            case "carry":
                yield f"Put {count(len(plan.carried_xids), 'edit')} of people back onto rows that were taken again."
            case "verify":
                yield (
                    f"Run the suites in {code(app.suites)} and check that workflows and data agree. "
                    "**If they do not, stop here, paused.**"
                )
            case "canary":
                yield f"{text(step.title)}."
            case "resume":
                yield f"Resume {text(', '.join(step.params.get('workflows', ())))}. If a detector fires, pause again."
            case "watch":
                yield "Watch the detectors over live traffic."
            case "close":
                yield "Remove what was made for the recovery alone, and compare what runs with what ran before."


def _published(plan: Plan, step: Step) -> str:
    name = step.params.get("workflow", "")
    to = next((p for p in plan.publications if p.workflow == name), None)
    if to is None:
        return f"{text(step.title)}."
    return f"Publish version {code(to.to_version[:12])} of {text(name)} and read back what is saved."


def _versions(plan: Plan) -> list[str]:
    if not plan.publications:
        return []
    rows = (
        (
            text(p.workflow),
            code(p.from_version[:12]) if p.from_version else "not known",
            code(p.to_version[:12]),
            f"{SOURCES[p.source]} {code(plan.point_id)}"
            if p.source == "point" and plan.point_id
            else SOURCES[p.source],
        )
        for p in plan.publications
    )
    return ["## Versions", "", *table(["Workflow", "Now", "Afterwards", "Known good from"], rows), ""]


def _rows(plan: Plan) -> list[str]:
    touched = [e for e in plan.effects if e.delete or e.update or e.insert or e.merged]
    if not touched:
        return ["## Rows", "", "No row is changed.", ""] if plan.mode is not Mode.LOGIC else []
    rows = (
        (code(e.table), f"{e.table_rows:,}", f"{e.delete:,}", f"{e.update:,}", f"{e.insert:,}", f"{e.merged:,}")
        for e in touched
    )
    columns = ["Table", "#Rows now", "#Removed", "#Corrected", "#Brought back", "#Later work kept on"]
    return ["## Rows", "", *table(columns, rows), ""]


def _events(plan: Plan) -> list[str]:
    if not plan.events:
        return []
    by_workflow = Counter(e.workflow for e in plan.events)
    rows = (
        (text(w), f"{n:,}", code(plan.good_versions[w][:12]) if w in plan.good_versions else "")
        for w, n in sorted(by_workflow.items())
    )
    return ["## Events sent again", "", *table(["Workflow", "#Events", "Through version"], rows), ""]


def _conflicts(plan: Plan) -> list[str]:
    if plan.mode is Mode.LOGIC:
        return []
    lines = ["## Conflicts and suspects", ""]
    lines += [f"- {text(CONFLICTS.get(k, k))}: {count(n, 'row')}" for k, n in sorted(plan.conflicts.items()) if n]
    if not any(plan.conflicts.values()):
        lines.append("- No conflict: no later work disagrees with what is undone.")
    elif plan.policy in POLICIES:
        lines.append(f"- {POLICIES[plan.policy]} (policy {text(plan.policy)}).")
    if plan.suspects:
        lines.append(
            f"- {count(plan.suspects, 'later write')} may have used a damaged value. They are not undone; "
            "somebody has to look at them afterwards."
        )
    else:
        lines.append("- No suspect: no later write is known to have used a damaged value.")
    return [*lines, ""]


def _limits(plan: Plan, app: App) -> Iterator[str]:
    others = [w.key for w in app.workflows if w.key not in plan.contained]
    if others:
        yield f"It does not touch {text(', '.join(others))}."
    if plan.mode is Mode.LOGIC:
        yield "It does not change a row, and does not let anything run again."
    if plan.mode is Mode.DATA:
        yield "It does not change a workflow, and does not let anything run again."
    untouched = sorted(set(plan.tables) - {e.table for e in plan.effects if e.delete or e.update or e.insert})
    if untouched and plan.mode is not Mode.LOGIC:
        sql = (
            " and compensations in SQL" if any(c.kind == "sql" and c.action == "do" for c in plan.compensations) else ""
        )
        yield f"It does not write to {', '.join(code(t) for t in untouched)}, except by events sent again{sql}."
    yield plan_outside.limit(plan, app)
    if plan.mode is not Mode.LOGIC:
        yield "It does not undo a write whose origin is not sure."
    yield from (text(note) for note in plan.notes if PERSON not in note and note not in PLATFORM)


def _looks(plan: Plan) -> list[str]:
    """What nobody but a person can settle, where it is read before the decision."""
    found = [f"- {text(note)}" for note in plan.notes if PERSON in note]
    return ["## A person must look", "", *found, ""] if found else []


def _platform(plan: Plan) -> list[str]:
    """What the plan does not rest on, because the platform cannot do it."""
    found = [f"- {text(note)}" for note in plan.notes if note in PLATFORM]
    return ["## What this platform cannot do, and what stands in for it", "", *found, ""] if found else []


def _caps(plan: Plan, app: App) -> list[str]:
    if plan.mode is Mode.LOGIC:
        return []
    caps = app.caps
    shares = [e.delete / e.table_rows for e in plan.effects if e.table_rows]
    rows: Iterable[tuple[str, str, str]] = (
        ("Rows removed", f"{sum(e.delete for e in plan.effects):,}", f"{caps.max_deleted_rows:,}"),
        ("Largest share of a table removed", f"{max(shares, default=0):.2%}", f"{caps.max_deleted_share:.0%}"),
        ("Rows changed in all", f"{plan.rows:,}", f"{caps.max_changed_rows:,}"),
        ("Rows more or fewer than shown here", "counted again under lock", f"{caps.drift_rows:,}"),
    )
    return [
        "## Limits",
        "",
        "Passing one of them stops the recovery before it changes a row.",
        "",
        *table(["Limit", "#This plan", "#At most"], rows),
        "",
    ]


def _decide(plan: Plan, app: App) -> list[str]:
    made = text(plan.made_at[:19].replace("T", " "))
    return [
        "## Approve or reject",
        "",
        f"- Made {made} UTC. The app goes on meanwhile, so an approval counts only for "
        f"{_whole(app.approvals.expires_s)} after the plan was shown.",
        f"- The goal is to be back at work within {_whole(app.objectives.rto_s)} of the first wrong write.",
        f"- Plan hash: {code(plan.hash)}. An approval counts for this hash alone.",
        "- In the browser: **Resume** in the suspended run's menu, top right; a form asks for decision and name.",
        "- In a terminal: `reinstate status` shows the commands for this plan.",
        "- Rejecting changes nothing: the app stays paused until another plan is approved or somebody resumes it.",
    ]


def _whole(value: float) -> str:
    return seconds(value).removesuffix(" 0 s")
