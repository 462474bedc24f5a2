"""What an incident says about findings: how bad, what it means, and which playbook handles it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from catalog.models import App, Playbook
from checks.model import Finding
from incidents.severity import Severity, severity, worst

FIRST_STEPS: Final = 3
TITLE_CHARS: Final = 200


@dataclass(frozen=True, kw_only=True, slots=True)
class Alert:
    """The fields of an incident's entry. Findings are without row keys, which may be personal."""

    severity: Severity
    title: str
    impact: str
    playbook: dict[str, Any]
    findings: tuple[dict[str, Any], ...]


def alert(app: App, findings: Sequence[Finding]) -> Alert:
    """One alert for findings that belong together; the worst of them names the playbook."""
    serious = sorted(findings, key=lambda f: severity(app.tier, f.severity).value)
    words = {d.key: d.impact for d in app.detectors}
    impacts = dict.fromkeys(words.get(f.detector, "") for f in serious)
    return Alert(
        severity=worst(app.tier, [f.severity for f in findings]),
        title="; ".join(sorted({f.message for f in findings}))[:TITLE_CHARS],
        impact=" ".join(text for text in impacts if text),
        playbook=summary(playbook(app, [f.detector for f in serious])),
        findings=tuple(
            {
                "detector": f.detector,
                "table": f.table,
                "rows": f.rows,
                "message": f.message,
                "severity": f.severity,
            }
            for f in findings
        ),
    )


def playbook(app: App, detectors: Sequence[str]) -> Playbook | None:
    """The playbook of the first detector that names one, else the app's first one."""
    known = {p.key: p for p in app.playbooks}
    named = {d.key: d.playbook for d in app.detectors}
    for detector in detectors:
        if (key := named.get(detector)) is not None and key in known:
            return known[key]
    return app.playbooks[0] if app.playbooks else None


def summary(book: Playbook | None) -> dict[str, Any]:
    """What a responder needs at once: which playbook, whose it is, and its first steps."""
    if book is None:
        return {}
    return {"key": book.key, "title": book.title, "owner": book.owner, "steps": list(book.steps[:FIRST_STEPS])}
