"""The commands by what somebody wants to do: order, headings and one line each of `reinstate --help`."""

from __future__ import annotations

from typing import Any, Final

from typer.core import TyperGroup

TASKS: Final = {
    "See it work": {
        "demo": "wreck a real app and bring it back, judged",
        "wreck": "break the example while `up` runs, and wait for you",
        "drill": "rehearse a disaster in a throw-away sandbox",
        "estate": "the embedded PostgreSQL, n8n and Prefect server",
    },
    "Set up": {
        "discover": "draft a catalogue from a live platform and database",
        "roles": "print the SQL of the three least-privilege roles",
        "check": "hold the catalogue against what there is",
        "journal": "install and look after the change journal",
        "protect": "take a recovery point: logic and data, verified",
        "coverage": "how much can be taken back, and the rest by name",
    },
    "Keep it at work": {
        "up": "run everything until Ctrl-C",
        "down": "stop what `up` runs, from another terminal",
        "password": "print the password of the Prefect UI and the pages",
        "watch": "watch the app; contain a confirmed anomaly",
        "maintain": "prune and audit the journal, read the newest point",
        "ingress": "stand in front of webhooks; keep events during a pause",
        "notify": "send the notices that are due",
    },
    "When something happened": {
        "status": "where things stand, and what to do next",
        "diagnose": "what went wrong, since when, from what evidence",
        "contain": "pause workflows, prove it, fence their roles",
        "plan": "show what a recovery would do; changes nothing",
        "recover": "bring the app back: plan, approval, steps, proof",
        "approvals": "list the plans that wait for a decision",
        "approve": "approve exactly one plan",
        "reject": "reject a plan; the app stays paused",
        "agreement": "ask whether logic and data fit, clause by clause",
        "compensations": "what was taken back outside the rows; settle one by hand",
        "replay": "send the events of undone runs again, once each",
        "resume": "resume a paused app in stages, once it is proven",
        "events": "what waits for the end of a pause, and what is unknown",
        "timeline": "what was decided and done, in order",
        "report": "write the incident's report as one page",
    },
    "Rows alone, with or without an incident": {
        "undo": "take back what chosen runs wrote; keep later work",
        "points": "list, rank, show and export the recovery points",
        "diff": "show what was written since a point or a moment",
        "restore": "bring tables back to a point or a moment",
    },
    "Look after the past": {
        "workflow": "versions of workflows: list, compare, publish, export",
        "store": "check, prove, prune, hold and encrypt the points",
        "erase": "take a person out of journal and points, for good",
    },
}


class ByTask(TyperGroup):
    """Lists its commands under headings. What no heading names comes last, under its own first words."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 - the base's signature
        known = [name for names in TASKS.values() for name in names]
        return [n for n in known if n in self.commands] + [n for n in self.commands if n not in known]

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002 - the base's signature
        known = {name for names in TASKS.values() for name in names}
        others = {n: c.get_short_help_str(60) for n, c in self.commands.items() if n not in known and not c.hidden}
        width = max((len(n) for n in self.commands), default=0)
        for heading, names in (*TASKS.items(), ("Other", others)):
            found = [(n.ljust(width), said) for n, said in names.items() if n in self.commands]
            if found:
                with formatter.section(heading):
                    formatter.write_dl(found)
