"""What the undone runs did outside their rows, on the page of a plan: taken back, left to a person, done anew by the
replay. Markdown, escaped; no value of a run is on it. Pure.
"""

from __future__ import annotations

from collections import Counter

from catalog.models import App
from incidents.report.escape import table, text
from ledger.timeline import count
from recovery.plan import Mode, Plan

SHOWN = 12
"""So many runs of a step are named on the page; the record has all."""
HOW = {"sql": "SQL in the app's database", "http": "a call to another system", "workflow": "a run of another workflow"}


def sentence(plan: Plan) -> str:
    """The step, among what will happen."""
    done = sum(c.action == "do" for c in plan.compensations)
    left = sum(c.action == "manual" for c in plan.compensations)
    said = f"Take back {count(done, 'step')} outside those rows, latest run first, once each" if done else ""
    if left:
        said += f"{'; ' if said else ''}{count(left, 'step')} {'is' if left == 1 else 'are'} left to a person"
    critical = any(c.action == "do" and c.critical for c in plan.compensations)
    return f"{said[:1].upper()}{said[1:]}." + (
        " **If a critical one cannot be taken back, stop here, paused, with nothing sent again.**" if critical else ""
    )


def section(plan: Plan) -> list[str]:
    """What left the rows, by step: what is taken back, and what a person has to do."""
    if not plan.compensations:
        return []
    lines = ["## Outside the rows", ""]
    performed = Counter(
        (c.workflow, c.step, HOW[c.kind] if c.kind else "", c.through or "", c.critical)
        for c in plan.compensations
        if c.action == "do"
    )
    rows = (
        (
            text(workflow),
            text(step),
            f"{n:,}",
            f"{how} ({text(through)})" if through else how,
            "stop, paused" if critical else "go on; it is left to a person",
        )
        for (workflow, step, how, through, critical), n in sorted(performed.items())
    )
    if performed:
        columns = ["Workflow", "Step", "#Times", "Taken back by", "If that fails"]
        lines += ["Taken back by themselves:", "", *table(columns, rows), ""]
    lines += for_a_person(plan)
    if settled := sum(c.action == "settled" for c in plan.compensations):
        lines += [f"Taken back before, and not taken back twice: {count(settled, 'step')}.", ""]
    if again := sum(c.again and c.action == "manual" for c in plan.compensations):
        lines += [
            f"**The events of {again:,} of these are sent again, which does the step anew**: what it did outside is "
            "then there twice, unless somebody takes the first one back. Do that before you approve, or accept it.",
            "",
        ]
    return lines


def for_a_person(plan: Plan) -> list[str]:
    left = [c for c in plan.compensations if c.action == "manual"]
    if not left:
        return []
    grouped: dict[tuple[str, str, str, str], list[str]] = {}
    for c in left:
        why = c.why or "it cannot be taken back"
        grouped.setdefault((c.workflow, c.step, why, c.manual or "nobody wrote down how"), []).append(c.run_id)
    rows = (
        (text(workflow), text(step), text(runs_in_words(ids)), text(why), text(manual))
        for (workflow, step, why, manual), ids in sorted(grouped.items())
    )
    columns = ["Workflow", "Step", "Runs", "Why", "What to do by hand"]
    return ["**Left to a person:**", "", *table(columns, rows), ""]


def runs_in_words(ids: list[str]) -> str:
    unique = list(dict.fromkeys(ids))
    return ", ".join(unique[:SHOWN]) + (f" and {len(unique) - SHOWN:,} more" if len(unique) > SHOWN else "")


def limit(plan: Plan, app: App) -> str:
    """What the plan cannot know of, as one sentence."""
    if any(c.action == "do" for c in plan.compensations):
        return (
            "It takes back nothing else that left the database: only steps that the catalogue declares are known "
            "(`reinstate coverage` names what is not covered)."
        )
    if plan.mode is Mode.LOGIC:
        return "It does not take back what left the database: mails, payments, calls to others."
    declared = any(s.inverse != "reversible" for w in app.workflows for s in w.steps)
    known = (
        "no undone run did a step that the catalogue declares as such" if declared else "the catalogue declares none"
    )
    return f"It does not take back what left the database: mails, payments, calls to others ({known})."


def brief(plan: Plan) -> list[str]:
    """One line per step, for the form that asks for a decision."""
    said = {"do": "taken back", "manual": "**left to a person**", "settled": "taken back before"}
    counted = Counter((c.workflow, c.step, c.action) for c in plan.compensations)
    return [
        f"- {text(step)} of {text(workflow)}: {n:,} {said[action]}"
        for (workflow, step, action), n in sorted(counted.items())
    ]
